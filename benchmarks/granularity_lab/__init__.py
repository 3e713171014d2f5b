"""The granularity lab: a policy of a few hundred numbers, in the real environment, with the real credit."""
