"""Named: items of one checklist by severity, each under a name of its own."""

from __future__ import annotations

from collections import Counter

from cm2.check import Check
from cm2.checklist import Evidence, FocusOn, Item, Severity
from cm2.label.candidate import CALLS
from cm2.policy.policy import WEIGHTS


class Named:
    """Makes items; the second that is called `x` gets the id `x-2`."""

    def __init__(self) -> None:
        self._names: Counter[str] = Counter()

    def item(
        self,
        id: str,
        severity: Severity,
        kind: str,
        check: Check,
        question: str,
        passes: str,
        evidence: list[Evidence],
        failures: list[str],
        focus: FocusOn = CALLS,
    ) -> Item:
        """An item that weighs what its severity weighs."""
        self._names[id] += 1
        count = self._names[id]
        return Item(
            id=id if count == 1 else f"{id}-{count}",
            focus_on=focus,
            question=question,
            pass_condition=passes,
            weight=WEIGHTS[severity],
            evidence=evidence,
            failure_examples=failures,
            check=check,
            kind=kind,
            severity=severity,
        )
