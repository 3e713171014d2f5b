"""The full profile: whole tool lists, two to four turns, rules to keep, things that go wrong. One domain a file."""
