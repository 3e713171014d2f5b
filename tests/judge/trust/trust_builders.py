"""Judges of known error rates, for the tests of what measures judges."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np

from cm2.checklist import Checklist, Item, Task
from cm2.dialogue import Dialogue, Step
from cm2.judge import ChecksJudge
from cm2.label.reference import ReferenceLabeler
from cm2.rollout.trace import Rollout
from cm2.verdict import Verdict
from cm2.worlds import MakeConfig, make


def noisy(truth: np.ndarray, false_yes: float, false_no: float, rng: np.random.Generator, rho: float = 0.0):
    """One run of verdicts (0, 1); with rho the chance of an error differs from item to item (beta, mean as given)."""
    return runs_of(truth, false_yes, false_no, rng, rho, runs=1)[0]


def runs_of(
    truth: np.ndarray, false_yes: float, false_no: float, rng: np.random.Generator, rho: float = 0.0, runs: int = 3
) -> np.ndarray:
    """Runs [run, item] of one judge over the same items."""
    error = np.where(truth == 1, false_no, false_yes)
    if rho > 0:
        scale = (1 - rho) / rho
        error = rng.beta(np.maximum(error * scale, 1e-9), (1 - error) * scale)
    wrong = rng.random((runs, len(truth))) < error
    return np.where(wrong, 1 - truth, truth)


def write_rows(path: Path, rows: list[dict[str, object]]) -> str:
    """A JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def row(n: int, met: bool | None, per: int = 5, **more: object) -> dict[str, object]:
    """The label or verdict of item n, `per` items a dialogue."""
    return {"dialogue": f"d{n // per}", "turn": 0, "item": f"C{n % per}", "met": met, **more}


class Oracle:
    """A judge that says what `says(dialogue, turn, step, item)` says, after every step."""

    name = "oracle"

    def __init__(self, says):
        self.says = says
        self.asked: list[list[str]] = []

    def judge(self, dialogue: Dialogue, turn: int, checklist: Checklist, since: int = 0) -> list[Verdict]:
        self.asked.append([item.id for item in checklist.items])
        if turn >= len(dialogue.turns):
            return []
        return [
            Verdict(dialogue.id, turn, step, item.id, self.says(dialogue, turn, step, item), checklist.variant)
            for step in range(since, len(dialogue.turns[turn].steps))
            for item in checklist.items
        ]


def item(id: str, question: str = "Does it hold?", **more) -> Item:
    """An item about the reply."""
    fields = {"focus_on": "assistant.content.user_visible_reply", "pass_condition": "yes", "weight": 1.0} | more
    return Item(id=id, question=question, **fields)


@cache
def world_tasks(count: int = 12, seed: int = 3) -> list[Task]:
    """Labelled dialogues of the sample worlds."""
    labeler = ReferenceLabeler()
    return [labeler.label(dialogue).task for dialogue in make(MakeConfig(count=count, seed=seed))]


def rolled(task: Task, member: int = 0, judge=None, lazy: bool = False) -> Rollout:
    """A rollout that repeats the reference (`lazy`: with empty words in every reply), judged turn by turn."""
    dialogue = Dialogue(id=task.dialogue.id, tools=task.dialogue.tools)
    for turn in task.dialogue.turns:
        steps = [Step(step.thinking, step.reply, step.calls, step.responses) for step in turn.steps]
        if lazy:
            steps[-1].reply = "All done!"
        dialogue.turns.append(type(turn)(turn.user, steps))
    rollout = Rollout(
        task=task.dialogue.id,
        dialogue=dialogue,
        member=member,
        checklists=task.checklists,
        reference_turns=len(task.dialogue.turns),
    )
    judge = judge or ChecksJudge()
    for checklist in task.checklists:
        rollout.verdicts += judge.judge(dialogue, checklist.turn, checklist)
    return rollout
