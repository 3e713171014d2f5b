"""Fidelity: how often a simulated world answers as the true one does.

The same trials (see `cm2.simulate.probe`) are played in the true world and in a simulated one. Ids that the two hand
out differently are translated, so that each side is asked about its own. Five questions are asked of every answer:

- form: does it have the form of the tool's true answers (or errors)?
- error: does it fail where the truth fails, and only there?
- facts: of what the truth says, the part that a simulator can know (an open record says it, a write of this session
  set it, or the call itself names it): does it say the same? A row that the truth does not have, of a thing on record,
  is a wrong fact. What nobody could know is free: any value is as good as another.
- writes: where the truth changed between two equal reads, by what a write said: does the simulated answer show it?
- coherence: what it said before about a thing, and the truth has not changed: does it say that again?

Rates are over answers (form, error) or single values (the others). A dialogue's answers hang together, so intervals
come from resampling dialogues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, get_args

import msgspec

from cm2.checklist import Task
from cm2.dialogue import Tool, ToolCall, ToolResponse
from cm2.errors import CM2Error, ConfigError, DataError, Where
from cm2.judge.values import is_error, scalar_text, walk
from cm2.llm import Asker, flow
from cm2.simulate.backend import SimulatorError
from cm2.simulate.config import SimulatorConfig, simulated
from cm2.simulate.facts import Facts, facts_of, new_names, owners, renamed, same, told_by
from cm2.simulate.horizon import Horizon, keys_of
from cm2.simulate.probe import Probe, Trial, trial
from cm2.simulate.rate import Rate, rate_of
from cm2.simulate.schema import ArgumentSchema
from cm2.simulate.shape import Schema, shape_of
from cm2.simulate.world import World

Question = Literal["form", "error", "facts", "writes", "coherence"]
QUESTIONS: tuple[Question, ...] = get_args(Question)
MakeWorld = Callable[[Task, int], World]
ORIGINS = ("all", "simulated", "replayed")
KEPT_PROBLEMS = 5
_ABSENT = object()


class Fidelity(msgspec.Struct):
    """How one simulator did."""

    simulator: str
    dialogues: int = 0
    answers: int = 0
    simulated: int = 0
    """Of the answers; the others were replayed."""
    failed: int = 0
    """Trials that ended early because the simulator failed; what came before it is counted."""
    rates: dict[str, dict[str, Rate]] = {}
    """By where the answers came from (all, simulated, replayed), then by question."""
    problems: list[str] = []


class Forms:
    """The forms of every tool's true answers and errors, from all trials."""

    def __init__(self, trials: Iterable[Trial]):
        values: dict[tuple[str, bool], list[Any]] = {}
        for probe in (probe for one in trials for probe in one.probes):
            for name in (probe.call.name, "") if probe.error else (probe.call.name,):
                values.setdefault((name, probe.error), []).append(ToolResponse(probe.content).value)
        self._forms = {place: _compiled(shape_of(found)) for place, found in values.items()}

    def fits(self, tool: str, value: Any, error: bool) -> bool | None:
        """Whether an answer has the tool's form; None where the truth never showed one."""
        form = self._forms.get((tool, error), self._forms.get(("", error)))
        return None if form is None else not form.violation(value)


class Score(msgspec.Struct):
    """What one trial counted: (right, of) by origin and question."""

    answers: dict[str, int] = {}
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    problem: str = ""

    def count(self, question: Question, origin: str, right: int, of: int = 1) -> None:
        """Add to a question's counts."""
        for place in (("all", question), (origin, question)):
            had = self.counts.get(place, (0, 0))
            self.counts[place] = had[0] + right, had[1] + of


def measure(name: str, trials: list[Trial], world: MakeWorld, *, seed: int = 0, at_once: int = 8) -> Fidelity:
    """Play all trials in simulated worlds and compare.

    Args:
        name: what the simulator is called.
        trials: played in the true worlds (`cm2.simulate.probe.trial`).
        world: makes the simulated world of a task (`cm2.simulate.simulated`).
        seed: of the worlds.
        at_once: trials under way at once.

    Raises:
        CM2Error: the simulator cannot go on (a refused key, a budget that is reached).
    """
    forms = Forms(trials)

    async def work(one: Trial) -> Score:
        return await play(one, world(one.task, seed), forms)

    found = Fidelity(name, dialogues=len(trials))
    scores = []
    for _, score in flow.ordered(trials, work, at_once):
        scores.append(score)
        found.answers += sum(score.answers.values())
        found.simulated += score.answers.get("simulated", 0)
        if score.problem:
            found.failed += 1
            found.problems = [*found.problems, score.problem][:KEPT_PROBLEMS]
    for origin in ORIGINS:
        rates = {
            question: rate_of([score.counts.get((origin, question), (0, 0)) for score in scores])
            for question in QUESTIONS
        }
        found.rates[origin] = {question: rate for question, rate in rates.items() if rate is not None}
    return found


def compare(
    tasks: Iterable[Task],
    truth: MakeWorld,
    simulators: list[SimulatorConfig],
    asker: Asker | None = None,
    *,
    seed: int = 0,
    at_once: int = 8,
) -> Iterator[Fidelity]:
    """Measure several simulators on the same trials.

    Args:
        tasks: dialogues whose true world can be made.
        truth: makes it (`cm2.worlds.world_of`).
        simulators: which to measure; "auto" is the truth itself and cannot be measured.
        asker: who answers for "llm".
        seed: of trials and worlds.
        at_once: trials under way at once.

    Raises:
        ConfigError: a simulator that cannot be measured, or "llm" without an asker.
        DataError: there are no tasks, or a task has no true world.
    """
    if any(config.kind == "auto" for config in simulators):
        raise ConfigError("the simulator auto is the true world here", fix="name replay, fallback, schema or llm")
    worlds = [(config, simulated(config, asker)) for config in simulators]
    trials = [trial(task, _true(truth, task, seed), seed) for task in tasks]
    if not trials:
        raise DataError("there are no dialogues to try", fix="make some: cm2 worlds make -o FILE")
    for config, world in worlds:
        name = config.kind if config.replay == "always" else f"{config.kind}, {config.replay}"
        yield measure(name, trials, world, seed=seed, at_once=at_once)


def _true(truth: MakeWorld, task: Task, seed: int) -> World:
    """The true world of a task; a row that has none is told as what it is, rather than as a broken one."""
    try:
        return truth(task, seed)
    except DataError as error:
        if "world" in task.dialogue.meta:
            raise
        raise DataError(
            "the row has no executable world (meta.world), so there is no truth to hold simulated answers against",
            where=Where(dialogue=task.dialogue.id),
            fix="give rows of cm2 worlds make, or no IN: fresh ones are made then",
        ) from error


async def play(one: Trial, world: World, forms: Forms) -> Score:
    """One trial in a simulated world."""
    session, score = world.session(), Score()
    seen = _Seen(one, world)
    for index, probe in enumerate(one.probes):
        session.turn = probe.turn
        call = ToolCall(probe.call.name, renamed(probe.call.arguments, seen.names), f"probe_{index}")
        try:
            response = await session.respond_async(call)
        except SimulatorError as failure:
            if failure.fatal and isinstance(failure.__cause__, CM2Error):
                raise failure.__cause__ from failure
            score.problem = str(failure)
            return score
        origin = response.origin
        score.answers[origin] = score.answers.get(origin, 0) + 1
        error = is_error(response)
        fits = forms.fits(call.name, response.value, error)
        if fits is not None:
            score.count("form", origin, fits)
        score.count("error", origin, error == probe.error)
        true = {} if probe.error else facts_of(call, renamed(ToolResponse(probe.content).value, seen.names))
        mine = {} if error else facts_of(call, response.value)
        _writes(score, origin, one, index, true, mine, error, seen)
        if not probe.error and not error:
            _facts(score, origin, call, true, mine, seen.ground(probe.turn, keys_of(session.writes)))
            _coherence(score, origin, index, true, mine, seen)
        seen.take(index, call, probe, response, mine, error)
    return score


class _Seen:
    """What one trial has shown so far."""

    def __init__(self, one: Trial, world: World):
        self.trial, self.horizon = one, Horizon(one.task.dialogue, world.effects)
        self.names: dict[str, str] = {}
        """What the simulated world calls what the true one handed out."""
        self.written: Facts = {}
        """What this session's writes said."""
        self.said: dict[tuple[str, str], tuple[Any, Any, int]] = {}
        """The last thing that was said of a place: the simulated value, the true one, and the probe."""
        self._texts = {text for record in self.horizon.records for text in _texts(record.call, record.value)}
        self._ground: tuple[Any, Facts] = (None, {})

    def ground(self, turn: int, written: set[str]) -> Facts:
        """What a simulator can know: open records, and the writes of this session."""
        if self._ground[0] != (turn, written):
            facts: Facts = {}
            for record in self.horizon.open(turn, written):
                if not record.error:
                    facts |= facts_of(record.call, record.value)
            self._ground = (turn, written), facts
        return self._ground[1] | self.written

    def take(self, index: int, call: ToolCall, probe: Probe, response: ToolResponse, mine: Facts, error: bool) -> None:
        """Remember a probe and both answers."""
        value = ToolResponse(probe.content).value
        if probe.wrote and not error:
            new_names(value, response.value, lambda text: text not in self._texts, self.names)
            self.written |= told_by(call, renamed(value, self.names))
        self._texts |= _texts(probe.call, value)
        true = {} if probe.error else facts_of(call, renamed(value, self.names))
        for place, leaf in mine.items():
            self.said[place] = (leaf, true.get(place, _ABSENT), index)


def _facts(score: Score, origin: str, call: ToolCall, true: Facts, mine: Facts, ground: Facts) -> None:
    if not true:  # nothing is there: an answer without content is right
        score.count("facts", origin, not mine)
        return
    arguments = call.arguments
    for place, value in true.items():
        known = place in ground and same(ground[place], value)
        if value is not None and (known or (place[1] in arguments and same(arguments[place[1]], value))):
            score.count("facts", origin, place in mine and same(mine[place], value))
    for _ in (owners(mine) - owners(true)) & owners(ground):
        score.count("facts", origin, 0)


def _writes(
    score: Score, origin: str, one: Trial, index: int, true: Facts, mine: Facts, error: bool, seen: _Seen
) -> None:
    probe = one.probes[index]
    if probe.kind != "reread" or probe.before is None or probe.error or one.probes[probe.before].error:
        return
    between = [other for other in one.probes[probe.before : index] if other.wrote]
    told = {text for other in between for text in _texts(other.call, ToolResponse(other.content).value)}
    told |= {seen.names[text] for text in told if text in seen.names}
    before = facts_of(probe.call, renamed(ToolResponse(one.probes[probe.before].content).value, seen.names))
    for place, value in true.items():
        if scalar_text(value) in told and not same(before.get(place, _ABSENT), value):
            score.count("writes", origin, not error and place in mine and same(mine[place], value))
    for owner in owners(before) - owners(true):
        score.count("writes", origin, not error and owner not in owners(mine))


def _coherence(score: Score, origin: str, index: int, true: Facts, mine: Facts, seen: _Seen) -> None:
    for place, value in mine.items():
        if place not in seen.said:
            continue
        earlier, then, at = seen.said[place]
        now = true.get(place, _ABSENT)
        if then is _ABSENT or now is _ABSENT:
            unchanged = not any(probe.wrote for probe in seen.trial.probes[at:index])
        else:
            unchanged = same(then, now)
        if unchanged:
            score.count("coherence", origin, same(earlier, value))


def _compiled(form: Schema | None) -> ArgumentSchema:
    return ArgumentSchema(Tool("", parameters=form or {}))


def _texts(call: ToolCall, value: Any) -> set[str]:
    return {scalar_text(leaf) for part in (call.arguments, value) for leaf in walk(part, keys=False)}
