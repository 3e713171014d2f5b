"""What a rule found in a row: a violation rejects the row, a flag keeps it and tells."""

from __future__ import annotations

import msgspec

MOST = 10
"""Findings of one rule that a row tells; a dialogue of a thousand messages may break one rule a thousand times."""


class Finding(msgspec.Struct, frozen=True):
    """One place where a rule is broken. `path` leads into the row: messages[3].tool_calls[0].function.arguments."""

    rule: str
    message: str
    path: str = ""


class Findings:
    """All that was found in one row, at most `MOST` a rule."""

    __slots__ = ("flags", "violations")

    def __init__(self) -> None:
        self.violations: list[Finding] = []
        self.flags: list[Finding] = []

    @property
    def kept(self) -> bool:
        """Whether the row passes."""
        return not self.violations

    def reject(self, rule: str, message: str, path: str = "") -> None:
        """Note a violation."""
        _add(self.violations, Finding(rule, message, path))

    def flag(self, rule: str, message: str, path: str = "") -> None:
        """Note something that keeps the row but that its reader should know."""
        _add(self.flags, Finding(rule, message, path))


def _add(findings: list[Finding], new: Finding) -> None:
    if len(findings) < MOST or sum(finding.rule == new.rule for finding in findings) < MOST:
        findings.append(new)
