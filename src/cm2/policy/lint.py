"""Lint: whether the duties of a policy are well-formed, come out on their own tests as expected, and can fail at all.

A duty with a check is tested for free, and so is the occasion of any duty. What only a judge can answer is not tested
here: its tests say by example what is meant, and are counted as not run. A failure is a test that comes out otherwise,
or a check that is broken; a warning is a duty that nobody has shown to work.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from cm2.check import Called, Expression, NotCalled, Pattern, Reply, Response
from cm2.checklist import Checklist
from cm2.dialogue import Dialogue, Step, Turn
from cm2.errors import CM2Error, DataError, Where
from cm2.formats import read_row
from cm2.judge.expression import compiled
from cm2.judge.judge import ChecksJudge
from cm2.judge.values import jmespath_of, regex
from cm2.policy.policy import Duty, DutyTest, Policy
from cm2.verdict import WHOLE, Verdict

NEEDS_A_JUDGE = "needs a judge"
BARE = Dialogue("bare", [Turn("Hello.", [Step(reply="Hello, how can I help you?")])])
"""A dialogue in which nothing happens."""


class DutyReport(msgspec.Struct):
    """What lint says of one duty."""

    duty: str
    severity: str
    scope: str
    by: str
    """check, or judge where only a model can decide it."""
    status: str
    tests: int = 0
    run: int = 0
    """Tests that code could run."""
    failures: list[str] = []
    warnings: list[str] = []


class PolicyReport(msgspec.Struct):
    """What lint says of a policy."""

    policy: str
    duties: list[DutyReport]

    @property
    def failures(self) -> int:
        """Duties with a failure."""
        return sum(bool(one.failures) for one in self.duties)

    @property
    def warnings(self) -> int:
        """Warnings, over all duties."""
        return sum(len(one.warnings) for one in self.duties)

    def ok(self, strict: bool = False) -> bool:
        """Whether there is nothing to mend; with `strict` a warning is something to mend."""
        return not self.failures and not (strict and self.warnings)

    def as_json(self, strict: bool = False) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "policy": self.policy,
            "ok": self.ok(strict),
            "duties": msgspec.to_builtins(self.duties),
            "failed": self.failures,
            "warnings": self.warnings,
            "tests": sum(one.tests for one in self.duties),
            "run": sum(one.run for one in self.duties),
        }


def lint_policy(policy: Policy) -> PolicyReport:
    """Lint every duty, retired ones too."""
    return PolicyReport(policy.name, [lint_duty(duty) for duty in policy.duties])


def lint_duty(duty: Duty) -> DutyReport:
    """Lint one duty."""
    by = "check" if duty.check is not None else "judge"
    report = DutyReport(duty.id, duty.severity, duty.scope, by, duty.status, len(duty.tests), failures=[], warnings=[])
    report.failures += _broken(duty)
    if report.failures:
        return report
    came: set[str] = set()
    for test in duty.tests:
        try:
            result, why = outcome(duty, read_test(duty, test))
        except CM2Error as error:
            report.failures.append(f"test {test.name!r} does not read: {error}")
            continue
        if result == NEEDS_A_JUDGE:
            if test.expect == "not_applicable":
                report.run += 1
                report.failures.append(f"test {test.name!r}: it applies, and should not")
            continue
        report.run += 1
        came.add(result)
        if result != test.expect:
            report.failures.append(f"test {test.name!r}: {result}, and should be {test.expect} ({why})")
    report.warnings += _warnings(duty, came)
    return report


def read_test(duty: Duty, test: DutyTest) -> Dialogue:
    """The dialogue of a test.

    Raises:
        DataError: its messages are no dialogue.
    """
    row = {"id": f"{duty.id}: {test.name}", "messages": test.messages, "tools": test.tools}
    return read_row(row, "openai", Where(item=duty.id))


def outcome(duty: Duty, dialogue: Dialogue) -> tuple[str, str]:
    """How a duty comes out of a dialogue by its check: pass, fail, not_applicable, unscored, or that it needs a judge;
    and why. Over several turns one failure is a failure."""
    item = duty.item()
    turns = [WHOLE] if duty.scope == "dialogue" else list(range(len(dialogue.turns)))
    judge = ChecksJudge()
    judged = [judge.judge(dialogue, turn, Checklist(turn, [item])) for turn in turns]
    if duty.check is None and any(one.applies and not one.owner for verdicts in judged for one in verdicts):
        return NEEDS_A_JUDGE, ""
    results = [found for verdicts in judged if (found := _result(verdicts)) is not None]
    for wanted in ("unscored", "fail", "pass"):
        for result, why in results:
            if result == wanted:
                return result, why
    return "not_applicable", results[-1][1] if results else "the dialogue has no turn"


def _result(verdicts: list[Verdict]) -> tuple[str, str] | None:
    if not verdicts:
        return None
    yes = next((one for one in verdicts if one.met), None)
    if yes is not None:
        return "pass", yes.reason
    last = verdicts[-1]
    if not last.applies:
        return "not_applicable", last.reason
    return ("unscored" if last.met is None else "fail"), last.reason


def _broken(duty: Duty) -> list[str]:
    """What of the duty's checks does not compile."""
    found = []
    for name in ("check", "applies_when"):
        for part in parts(getattr(duty, name)):
            try:
                if isinstance(part, Expression):
                    compiled(part.cel)
                elif isinstance(part, Pattern) or (isinstance(part, Reply) and part.pattern is not None):
                    regex(part.pattern or "")
                path = getattr(part, "path", None)
                if isinstance(path, str):
                    jmespath_of(path)
            except DataError as error:
                found.append(f"{name}: {error}")
    return found


def parts(value: Any) -> Iterator[Any]:
    """A check and everything inside it."""
    if isinstance(value, msgspec.Struct):
        yield value
        for name in value.__struct_fields__:
            yield from parts(getattr(value, name))
    elif isinstance(value, list):
        for one in value:
            yield from parts(one)
    elif isinstance(value, dict):
        for one in value.values():
            yield from parts(one)


def tools_of(duty: Duty) -> set[str]:
    """The tools that the duty's forms name; what an expression names is not looked at."""
    found: set[str] = set()
    for part in (*parts(duty.check), *parts(duty.applies_when)):
        if isinstance(part, (Called, Response)):
            found.add(part.tool)
        elif isinstance(part, NotCalled):
            found |= set(part.tools)
    return found


def _warnings(duty: Duty, came: set[str]) -> list[str]:
    if duty.status == "retired":
        return []
    found = []
    expected = {test.expect for test in duty.tests}
    if duty.severity == "critical" and not {"pass", "fail"} <= expected:
        lacks = " and ".join(sorted({"pass", "fail"} - expected))
        found.append(f"a critical duty without a test that must {lacks.replace(' and ', ' and one that must ')}")
    if duty.check is None:
        return found
    if duty.applies_when is not None and duty.tests and came == {"not_applicable"}:
        found.append("it applies to none of its tests")
    if "fail" not in came:
        result, _ = outcome(duty, BARE)
        if result == "pass":
            found.append("it passes where nothing is done, and no test shows that it can fail")
    return found
