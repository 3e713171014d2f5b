"""pytest: duties beside a team's own tests. `@cm2.case` makes a test of every duty in every dialogue.

    @cm2.case("policy.yaml", dialogues="runs.jsonl")
    def test_duties(case): ...

    @cm2.case("policy.yaml", tasks="suite/tasks.jsonl", agent=my_agent, duties=["confirm-before-write"])
    def test_agent(case):
        assert len(case.dialogue.turns) == 2  # whatever else a team wants to be so

The test's body runs first, then the duty is held against the dialogue (`case.check()` does it earlier). A duty that the
dialogue gives no occasion for is skipped; so is one that could not be judged, unless `undecided="fail"`: neither is a
failure of the agent, and both are counted at the end of the session. Paths start at the test's file.

This module is loaded by every pytest of an environment that cm2 is installed in: what is heavy is imported where used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import pytest

if TYPE_CHECKING:
    from cm2.assure.gate_case import Case
    from cm2.assure.gate_runs import Shown
    from cm2.assure.gate_source import Source
    from cm2.assure.outcomes import Outcome
    from cm2.dialogue import Dialogue
    from cm2.judge import Judge
    from cm2.rollout.agents import Agent

MARK = "cm2_case"
DUTY, STATUS = "cm2_duty", "cm2_status"
_NAMES = {"passed": "hold", "failed": "fail", "flaky": "hold often enough", "not_applicable": "do not apply"}
Message = dict[str, Any]
Answers = Callable[[list[Message], list[dict[str, Any]]], Any]
"""An agent as a function of chat messages and tools (both as the OpenAI API has them): its answer, as a message, a text
or a Step; it may be a coroutine."""


@dataclass(frozen=True, eq=False)
class Spec:
    """What `case` was called with: what is looked at, and how a test tells of it."""

    source: dict[str, Any]
    duties: tuple[str, ...] | None
    min_pass_rate: float
    undecided: Literal["skip", "fail"]
    check: bool


def case(
    policy: str | Path | None = None,
    *,
    dialogues: str | Path | None = None,
    tasks: str | Path | None = None,
    agent: Agent | Answers | None = None,
    duties: Sequence[str] | None = None,
    repeats: int = 1,
    min_pass_rate: float = 1.0,
    judge: Judge | None = None,
    undecided: Literal["skip", "fail"] = "skip",
    check: bool = True,
    seed: int = 0,
) -> pytest.MarkDecorator:
    """A decorator that makes a test of every duty in every dialogue; the test has a parameter `case` (`DutyCase`).

    Args:
        policy: the duties (YAML).
        dialogues: a file of runs of the agent, or of rollouts.
        tasks: labelled dialogues: their checklists, and what `agent` runs.
        agent: runs the tasks in the simulated environment: a `cm2.rollout.agents.Agent`, or a function of messages and
            tools that gives the answer.
        duties: only these.
        repeats: with an agent: runs of each task.
        min_pass_rate: the share of a case's runs that must pass.
        judge: who judges; checks where None.
        undecided: what becomes of a duty that could not be judged.
        check: whether the duty is held against the dialogue after the test's body. False leaves it to `case.check()`.
        seed: varies the simulated world.

    Raises:
        ValueError: there is nobody to look at, or nothing to look for.
    """
    if (dialogues is None) == (agent is None):
        raise ValueError("cm2.case looks at dialogues or at an agent: give one of them")
    if agent is not None and tasks is None:
        raise ValueError("cm2.case: the agent has nothing to run: give tasks")
    if repeats < 1 or (repeats > 1 and agent is None):
        raise ValueError("cm2.case: repeats are runs of an agent, from 1 up")
    if undecided not in ("skip", "fail"):
        raise ValueError(f"cm2.case: undecided is {undecided!r}: use skip or fail")
    paths = {"policy": policy, "dialogues": dialogues, "tasks": tasks}
    source: dict[str, Any] = {name: str(path) for name, path in paths.items() if path is not None}
    source |= {"agent": agent, "repeats": repeats, "seed": seed, "judge": judge}
    spec = Spec(source, None if duties is None else tuple(duties), min_pass_rate, undecided, check)
    return getattr(pytest.mark, MARK)(spec)  # type: ignore[no-any-return]


@dataclass(eq=False)
class DutyCase:
    """One duty in one dialogue, over its runs. They are made and judged when somebody first asks."""

    id: str
    """The dialogue's id."""
    duty: str
    source: Source
    spec: Spec
    checked: bool = False

    @property
    def runs(self) -> list[Dialogue]:
        """The runs that say something about the agent."""
        return [shown.run.dialogue for shown in self.source.shown(self.id) if not shown.run.lost]

    @property
    def dialogue(self) -> Dialogue:
        """The run in which the duty failed, where it did, else the first."""
        return self._worst()[0].run.dialogue

    @property
    def outcome(self) -> Outcome:
        """How the duty came out there, with the verdict and its evidence."""
        return self._worst()[1]

    @property
    def tally(self) -> Case:
        """All of its runs, counted."""
        return self.source.tally(self.id, self.duty)

    @property
    def status(self) -> str:
        """passed, failed, flaky (passed often enough for `min_pass_rate`), not_applicable, not_judged or unscored."""
        tally = self.tally
        if tally.rate is None or not tally.failed:
            return tally.status
        return "flaky" if tally.rate >= self.spec.min_pass_rate - 1e-9 else "failed"

    def check(self) -> None:
        """Hold the duty against the dialogue: fails the test where it fails, skips it where nothing can be said."""
        self.checked = True
        tally, status = self.tally, self.status
        if (error := self.source.crashed.get(self.id)) is not None:
            raise error
        if status == "failed":
            pytest.fail(_told(self, tally), pytrace=False)
        if status in ("unscored", "not_judged"):
            whose = f" (failure of: {tally.unscored_by})" if tally.unscored_by else ""
            said = f"{self.duty} is undecided: {tally.reason}{whose}"
            if self.spec.undecided == "fail":
                pytest.fail(said, pytrace=False)
            _skip(said)
        if status == "not_applicable":
            _skip(f"{self.duty} does not apply")

    def _worst(self) -> tuple[Shown, Outcome]:
        from cm2.assure.gate_tally import WORST

        found = [
            (shown, outcome)
            for shown in self.source.shown(self.id)
            for outcome in shown.outcomes
            if outcome.duty == self.duty
        ]
        return min(found, key=lambda one: WORST.index(one[1].result))


def _skip(why: str) -> NoReturn:
    raise pytest.skip.Exception(why, _use_item_location=True)


def _told(case: DutyCase, tally: Case) -> str:
    lines = [f"{tally.severity} duty {case.duty} fails in {case.id}", f"  asked: {tally.question}"]
    lines.append(f"  found: {tally.reason}" + (f" ({tally.where})" if tally.where else ""))
    lines += [f"  turn {one.turn}, step {one.step}: {one.snippet}" for one in tally.evidence if one.snippet]
    if tally.runs > 1:
        lines.append(f"  {tally.passed} of {tally.runs} runs pass, {case.spec.min_pass_rate:.0%} must")
    if tally.owner:
        lines.append(f"  owner: {tally.owner}")
    return "\n".join(lines)


class _Session:
    """Counts how the duties of a session came out, also where other processes ran them."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
            self.counts.update(str(value) for name, value in report.user_properties if name == STATUS)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.counts:
            told = [
                f"{count} {_NAMES.get(name, name.replace('_', ' '))}" for name, count in sorted(self.counts.items())
            ]
            terminalreporter.write_sep("-", "cm2 duties")
            terminalreporter.write_line(", ".join(told))


def _cases(spec: Spec, folder: Path) -> list[DutyCase]:
    from cm2.assure.gate_source import Source
    from cm2.errors import ConfigError

    source = Source(folder, **spec.source)
    found = [DutyCase(id, duty, source, spec) for id, duty in source.cases()]
    names = {one.duty for one in found}
    for name in spec.duties or ():
        if name not in names:
            raise ConfigError(f"there is no duty {name!r}", fix=f"the duties are {', '.join(sorted(names))}")
    return [one for one in found if spec.duties is None or one.duty in spec.duties]


def pytest_configure(config: pytest.Config) -> None:
    """Name the mark, and count."""
    config.addinivalue_line("markers", f"{MARK}(spec): a test of every duty in every dialogue; see cm2.case")
    config.pluginmanager.register(_Session(), "cm2-duties")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of every duty in every dialogue."""
    marks = list(metafunc.definition.iter_markers(MARK))
    if not marks:
        return
    from cm2.errors import CM2Error

    if "case" not in metafunc.fixturenames:
        raise pytest.Collector.CollectError(f"{metafunc.definition.name}: cm2.case gives a parameter `case`: take it")
    try:
        found = [one for mark in marks for one in _cases(mark.args[0], metafunc.definition.path.parent)]
    except CM2Error as error:
        raise pytest.Collector.CollectError(f"cm2.case: {error}") from error
    metafunc.parametrize("case", found, ids=[f"{one.id}-{one.duty}" for one in found])


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Run the body only where there is something to look at, and hold the duty against the dialogue after it."""
    mine = pyfuncitem.funcargs.get("case")
    if not isinstance(mine, DutyCase):
        return (yield)
    status = "crashed" if mine.status and mine.id in mine.source.crashed else mine.status
    pyfuncitem.user_properties += [(DUTY, mine.duty), (STATUS, status)]
    check = mine.spec.check
    if check and status in ("crashed", "unscored", "not_judged", "not_applicable"):
        mine.check()
    result = yield
    if check and not mine.checked:
        mine.check()
    return result
