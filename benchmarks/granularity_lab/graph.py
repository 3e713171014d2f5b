"""Graph: what the real environment says to every action in every situation that was ever visited, asked once.

A task of the sample worlds becomes a small decision problem: at each step the agent picks one of a few whole messages
(the reference's calls and reply, a call with wrong arguments, an empty promise, a reply with wrong facts). What an
action leads to is asked of `cm2.rollout.Environment` with the task's executable world, and what holds afterwards of
`cm2.judge.ChecksJudge`; both answers are kept, because a rollout is a function of its actions and of which tool calls
the simulator spoiled. Judge noise, gates, latching and credit are not kept: they are made anew for every rollout.

Two ways into a node are one where turn, number of steps, and the sequence of answered calls and replies agree, of equal
ones only the first and last kept. tests/study/test_lab_graph.py holds random rollouts against the environment itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cm2.checklist import Checklist, Task
from cm2.credit.satisfaction import dependencies
from cm2.dialogue import Dialogue, Step, ToolCall, ToolResponse
from cm2.judge import ChecksJudge
from cm2.label.reference import ReferenceLabeler
from cm2.label.scramble import scramble
from cm2.rollout import Environment, Limits
from cm2.simulate.world import Session, error_response
from cm2.verdict import Verdict
from cm2.worlds import MakeConfig, make, world_of

STEPS, SLOTS, ITEMS = 5, 7, 10
CHOSEN = ("train-full-flight-30369b68b1b4", "train-full-bank-5298b096aaea", "train-full-hotel-172b5c267f58")
"""Two or three turns, look-ups before writes, strict items in the first turns."""
Path = tuple[tuple[int, bool], ...]
"""(action, whether the simulator spoiled its call) of every step so far."""


def tasks() -> list[Task]:
    """The lab's tasks, made and labelled like any others."""
    made = {dialogue.id: dialogue for dialogue in make(MakeConfig(count=40, seed=1))}
    return [ReferenceLabeler().label(made[id]).task for id in CHOSEN]


def actions(task: Task, turn: int) -> list[Step]:
    """The messages that an agent can choose from in a turn. Which comes where tells nothing of what it is."""
    reference = task.dialogue.turns[turn]
    calls = [Step(calls=[ToolCall(c.name, c.arguments) for c in step.calls]) for step in reference.steps if step.calls]
    distinct = [step for i, step in enumerate(calls) if step not in calls[:i]]
    last = distinct[-1].calls[0] if distinct else None
    wrong = [Step(calls=[ToolCall(last.name, scramble(last.arguments))])] if last is not None else []
    replies = [Step(reply=reference.reply), Step(reply="All done!"), Step(reply=scramble(reference.reply or ""))]
    found = [*distinct, *wrong, *replies][:SLOTS]
    order = np.random.default_rng([turn, len(task.dialogue.id), len(found)]).permutation(len(found))
    return [found[i] for i in order]


class Spoiling:
    """A session whose next call may be answered with an error in place of the world's answer (a `ToolSession`)."""

    def __init__(self, session: Session):
        self.session, self.spoil = session, False
        self.turn = 0

    def respond(self, call: ToolCall) -> ToolResponse:
        """The error, or the world's answer."""
        if self.spoil:
            return error_response(call, "the service did not answer, try again later")
        return self.session.respond(call)

    async def respond_async(self, call: ToolCall) -> ToolResponse:
        """The same."""
        return self.respond(call)


class Open:
    """A judge to which every item holds: to see what follows a gate that noise left open."""

    def judge(self, dialogue: Dialogue, turn: int, checklist: Checklist) -> list[Verdict]:
        """Yes to everything, after every step."""
        steps = range(len(dialogue.turns[turn].steps))
        return [Verdict(dialogue.id, turn, s, item.id, True) for s in steps for item in checklist.items]


@dataclass
class Rules:
    """A turn's checklist as arrays."""

    depends: np.ndarray
    weights: np.ndarray
    strict: np.ndarray


class Graph:
    """All tasks' nodes in one table, grown as they are visited.

    Attributes:
        roots: [task], the node before the first step.
        length: [task], turns of the reference.
        child: [node, action, spoiled], −1 where nobody has been yet.
        row: [node, item], what holds in the state that the node is.
        kind: [node], 0 the turn goes on, 1 it ended with a reply, 2 the rollout ended at the limit of steps.
        after: [node], the first node of the next turn where the gate is open; −1 if there is none.
        features: [node, feature], what the policy sees. allowed: [node, action]. calls: [node, action], is it a call.
    """

    child: np.ndarray
    row: np.ndarray
    kind: np.ndarray
    after: np.ndarray
    features: np.ndarray
    allowed: np.ndarray
    calls: np.ndarray

    def __init__(self, tasks: Sequence[Task]):
        self.tasks = list(tasks)
        self.judge = ChecksJudge()
        self.choices = [[actions(task, t) for t in range(len(task.dialogue.turns))] for task in self.tasks]
        self.rules = [[_rules(task, t) for t in range(len(task.dialogue.turns))] for task in self.tasks]
        self.length = np.array([len(task.dialogue.turns) for task in self.tasks])
        self.turns = int(self.length.max())
        self.width = len(self.tasks) + self.turns + 1 + 2 * SLOTS
        self.limits = Limits(steps=STEPS)
        self.paths: list[tuple[int, Path]] = []
        self.names: dict[object, int] = {}
        self.events: dict[object, int] = {}
        self._room(256)
        self.roots = np.array([self._enter(i, ()) for i in range(len(self.tasks))])

    def __len__(self) -> int:
        return len(self.paths)

    def step(self, nodes: np.ndarray, taken: np.ndarray, spoiled: np.ndarray) -> np.ndarray:
        """Where actions lead to."""
        spoiled = (spoiled & self.calls[nodes, taken]).astype(np.int64)
        found = self.child[nodes, taken, spoiled]
        for i in np.flatnonzero(found < 0):
            at = int(nodes[i]), int(taken[i]), int(spoiled[i])
            if self.child[at] < 0:
                task, path = self.paths[at[0]]
                made = self._enter(task, (*path, (at[1], bool(at[2]))))
                self.child[at] = made
            found[i] = self.child[at]
        return found

    def play(self, task: int, path: Path) -> tuple[Environment, list[tuple[object, ...]]]:
        """The environment after these steps, gates open, and what happened in them."""
        session = Spoiling(world_of(self.tasks[task]).session())
        environment = Environment(self.tasks[task], session, Open(), self.limits)
        happened: list[tuple[object, ...]] = []
        for action, spoil in path:
            turn = environment.turn
            session.spoil = spoil
            environment.feed(self.choices[task][turn][action])
            answered = environment.dialogue.turns[turn].steps[-1].responses
            happened.append((turn, action, tuple(response.content for response in answered)))
        return environment, happened

    def _enter(self, task: int, path: Path) -> int:
        environment, happened = self.play(task, path)
        replied = bool(path) and not self.choices[task][happened[-1][0]][path[-1][0]].calls
        turn = happened[-1][0] if replied else environment.turn
        key = task, turn, replied, len(environment.dialogue.turns[turn].steps), self._history(happened)
        if key in self.names:
            return self.names[key]
        node = self._new(task, path, key)
        checklist = next((c for c in self.tasks[task].checklists if c.turn == turn), None)
        dialogue = environment.dialogue
        if checklist is not None and dialogue.turns[turn].steps:
            last = len(dialogue.turns[turn].steps) - 1
            met = {v.item: v.met for v in self.judge.judge(dialogue, turn, checklist) if v.step == last}
            self.row[node, : len(checklist.items)] = [met[item.id] is True for item in checklist.items]
        self.kind[node] = 1 if replied else 2 if environment.done else 0
        self.features[node], self.allowed[node], self.calls[node] = self._seen(task, turn, environment, happened)
        if replied and environment.turn > turn:
            self.after[node] = self._start(task, path, environment.turn, happened)
        return node

    def _start(self, task: int, path: Path, turn: int, happened: list[tuple[object, ...]]) -> int:
        """The node before the first step of a turn."""
        key = task, turn, False, 0, self._history(happened)
        if key in self.names:
            return self.names[key]
        environment, _ = self.play(task, path)
        node = self._new(task, path, key)
        self.features[node], self.allowed[node], self.calls[node] = self._seen(task, turn, environment, happened)
        return node

    def _new(self, task: int, path: Path, key: object) -> int:
        node = len(self.paths)
        if node == len(self.kind):
            self._room(2 * node)
        self.paths.append((task, path))
        self.names[key] = node
        return node

    def _seen(
        self, task: int, turn: int, environment: Environment, happened: list[tuple[object, ...]]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the policy sees: task, turn, steps taken, and of each action whether it was tried and answered well."""
        seen = np.zeros(self.width)
        seen[task] = seen[len(self.tasks) + turn] = 1
        here = [event for event in happened if event[0] == turn]
        seen[len(self.tasks) + self.turns] = len(here) / STEPS
        base = len(self.tasks) + self.turns + 1
        for _, action, answers in here:
            well = not any('"error"' in str(answer) for answer in answers)  # type: ignore[attr-defined]
            seen[base + 2 * int(action)] = 1  # type: ignore[call-overload]
            seen[base + 2 * int(action) + 1] = float(well)  # type: ignore[call-overload]
        choices = self.choices[task][turn]
        allowed = np.arange(SLOTS) < len(choices)
        calls = np.array([i < len(choices) and bool(choices[i].calls) for i in range(SLOTS)])
        return seen, allowed, calls

    def _history(self, happened: list[tuple[object, ...]]) -> tuple[int, ...]:
        """Of events that are equal the first and the last, in order, each by its number."""
        numbers = [self.events.setdefault(event, len(self.events)) for event in happened]
        return tuple(e for i, e in enumerate(numbers) if e not in numbers[:i] or e not in numbers[i + 1 :])

    def _room(self, size: int) -> None:
        """Tables of this size, with what they held."""
        shapes = {
            "child": ((SLOTS, 2), -1),
            "row": ((ITEMS,), False),
            "kind": ((), 0),
            "after": ((), -1),
            "features": ((self.width,), 0.0),
            "allowed": ((SLOTS,), False),
            "calls": ((SLOTS,), False),
        }
        for name, (shape, empty) in shapes.items():
            table = np.full((size, *shape), empty)
            if (held := getattr(self, name, None)) is not None:
                table[: len(held)] = held
            setattr(self, name, table)


def _rules(task: Task, turn: int) -> Rules:
    found = [checklist for checklist in task.checklists if checklist.turn == turn]
    if len(found) != 1 or len(found[0].items) > ITEMS:
        raise ValueError(f"{task.dialogue.id}: the lab wants one checklist a turn, of at most {ITEMS} items")
    weights = np.array([item.weight for item in found[0].items])
    strict = np.array([item.required_for_next_turn for item in found[0].items])
    return Rules(dependencies(found[0]), weights / weights.sum(), strict)
