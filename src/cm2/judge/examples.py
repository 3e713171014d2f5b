"""Examples: what a classifier learns from, read from a store of verdicts and the dialogues that were judged.

Unscored verdicts are no examples: they are neither yes nor no. Nor are verdicts that needed no model (`skip`, and
`checks` where the store has others): they will not be asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec
import numpy as np

from cm2.checklist import Checklist, Item
from cm2.dialogue import Dialogue
from cm2.errors import DataError, Where
from cm2.formats import read_tasks
from cm2.judge.features import Bag, describe
from cm2.judge.fitting_config import TrainConfig
from cm2.judge.pairing import UNASKED, Label, read_labels


class Example(msgspec.Struct):
    """One item of one turn of one dialogue or rollout: what it looks like after each step, and what the judge said."""

    dialogue: str
    item: Item
    described: list[tuple[Bag, Bag]]
    met: list[bool]
    """After each step; a yes latches."""


def read_examples(config: TrainConfig) -> tuple[list[Example], Counter[str], list[str]]:
    """The examples of a store and its dialogues; what was left out, counted; the judges that gave the verdicts.

    Raises:
        DataError: a file does not read, or no verdict of the store is about a dialogue of the input.
    """
    said: dict[tuple[str, str, int, int, str], dict[int, Label]] = {}
    for label in read_labels(config.verdicts):
        if label.step is not None:
            place = (label.dialogue, label.rollout, label.variant, label.turn, label.item)
            said.setdefault(place, {})[label.step] = label  # of several lines the last one counts
    names = {label.judge or "checks" for steps in said.values() for label in steps.values()}
    left_out = UNASKED if names - set(UNASKED) else ("skip",)
    lent = _lent(config)
    counts: Counter[str] = Counter()
    found: list[Example] = []
    seen: Counter[str] = Counter()
    for _, task in read_tasks(config.input, config.format, on_error=lambda row: None):
        dialogue = task.dialogue
        seen[dialogue.id] += 1
        rollout = str(seen[dialogue.id]) if seen[dialogue.id] > 1 else ""
        for checklist in task.checklists if lent is None else lent.get(dialogue.id, []):
            for item in checklist.items:
                place = (dialogue.id, rollout, checklist.variant, checklist.turn, item.id)
                if (steps := said.get(place)) is not None:
                    _add(found, counts, dialogue, checklist, item, steps, left_out)
    if not found:
        raise DataError(
            f"no scored verdict is about a dialogue of {config.input}",
            where=Where(file=config.verdicts),
            fix="give the file that was judged, and --checklists where its checklists were",
        )
    return found, counts, sorted(names - set(left_out))


def _add(
    found: list[Example],
    counts: Counter[str],
    dialogue: Dialogue,
    checklist: Checklist,
    item: Item,
    steps: dict[int, Label],
    left_out: Iterable[str],
) -> None:
    if checklist.turn >= len(dialogue.turns) or sorted(steps) != list(range(len(dialogue.turns[checklist.turn].steps))):
        counts["other_steps"] += 1
        return
    if all((label.judge or "checks") in left_out for label in steps.values()):
        counts["needed_no_model"] += 1
        return
    met = [steps[step].met for step in sorted(steps)]
    if None in met:
        counts["unscored"] += 1
        return
    latched = np.maximum.accumulate(np.array(met, dtype=bool)).tolist()
    described = [describe(item, dialogue, checklist.turn, step) for step in range(len(met))]
    found.append(Example(dialogue.id, item, described, latched))


def _lent(config: TrainConfig) -> dict[str, list[Checklist]] | None:
    if config.checklists is None:
        return None
    return {task.dialogue.id: task.checklists for _, task in read_tasks(config.checklists, config.format)}
