"""Pairing: what a judge said beside what is true, item by item.

The truth is a file of labels: rows {dialogue, turn, item, met}, with `rollout`, `variant` and `step` where they are
needed to tell things apart. A store of verdicts is such a file too, so that a stronger judge can be the truth. A label
without `step` is about the item in the whole turn: whether it ever held.

Several labels of one thing are people who vote (a tie is unscored); of several verdicts of one item and step in a store
the last one counts, because a verdict that a model or its provider failed to give is tried again. A verdict in the
whole turn is a yes where any step of it is, else unscored where any step is, else no; where labels are about steps,
only the labelled steps are compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from cm2.checklist import Checklist
from cm2.errors import DataError, Where
from cm2.formats.jsonlines import open_rows, parse, read_lines


class Place(NamedTuple):
    """One item of one turn of one dialogue or rollout."""

    dialogue: str
    rollout: str
    variant: int
    turn: int
    item: str


class Label(msgspec.Struct):
    """Whether an item holds, as a person or a stronger judge says. null: not to be told."""

    dialogue: str
    turn: int
    item: str
    met: bool | None
    rollout: str = ""
    variant: int = 0
    step: int | None = None
    kind: str = ""
    focus_on: str = ""
    judge: str = ""
    votes: list[bool | None] = []

    @property
    def place(self) -> Place:
        """What the label is about."""
        return Place(self.dialogue, self.rollout, self.variant, self.turn, self.item)


class Truth(msgspec.Struct):
    """The labels of a file by place; the step is None where they are about the whole turn."""

    labels: dict[Place, dict[int | None, list[bool | None]]] = {}
    kinds: dict[Place, tuple[str, str]] = {}
    """(kind, focus) of places whose labels say so."""

    def met(self, place: Place) -> bool | None:
        """Whether the item held in the whole turn."""
        by_step = self.labels[place]
        if None in by_step:
            return opinion(by_step[None])
        return whole([opinion(said) for said in by_step.values()])

    def steps(self, place: Place) -> list[int]:
        """The labelled steps; none where the label is about the whole turn."""
        by_step = self.labels[place]
        return [] if None in by_step else [step for step in by_step if step is not None]


Run = dict[Place, dict[int, bool | None]]
"""The verdicts of one store by place and step."""
UNASKED = ("checks", "skip")
"""Judges of verdicts that no model was asked for."""


class Store(msgspec.Struct):
    """The verdicts of one store about what the truth knows."""

    run: Run = {}
    ballots: list[Run] = []
    """What each judgement of a vote said, one run a judgement; empty where the store is of no vote."""
    judges: dict[Place, str] = {}
    """Who judged the item: the model where one was asked at any step, else checks or skip."""
    names: set[str] = set()
    """Everybody who gave a verdict in the store."""


def whole(steps: list[bool | None]) -> bool | None:
    """A turn's verdict from those of its steps: yes latches, and what is unscored is no no."""
    return True if True in steps else None if None in steps else False


def opinion(said: list[bool | None]) -> bool | None:
    """The majority of yes and no among people; a tie, or nobody, is unscored."""
    yes, no = said.count(True), said.count(False)
    return None if yes == no else yes > no


def read_labels(path: str) -> Iterator[Label]:
    """The rows of a file of labels or verdicts (JSONL, plain, .gz or .zst).

    Raises:
        DataError: the file is missing, empty or Parquet, or a line is no label.
    """
    fix = 'a label is {"dialogue": …, "turn": 0, "item": "C0", "met": true, false or null}'
    try:
        with open_rows(path) as (kind, file):
            if kind != "lines":
                raise DataError("is Parquet; labels and verdicts are JSON lines", where=Where(file=path))
            for number, line, error in read_lines(file):
                if not line.strip() and error is None:
                    continue
                value, wrong = (None, error) if error is not None else parse(line)
                if wrong is None:
                    try:
                        yield msgspec.convert(value, Label)
                        continue
                    except msgspec.ValidationError as problem:
                        wrong = str(problem)
                if not line.endswith(b"\n") and error is None:
                    continue  # the torn last line of a store that was killed
                raise DataError(f"the line is no label: {wrong}", where=Where(file=path, line=number), fix=fix)
    except FileNotFoundError as error:
        raise DataError("there is no such file", where=Where(file=path), fix="check the path") from error


def read_truth(path: str) -> Truth:
    """All labels of a file."""
    truth = Truth()
    for label in read_labels(path):
        truth.labels.setdefault(label.place, {}).setdefault(label.step, []).append(label.met)
        if label.kind or label.focus_on:
            truth.kinds[label.place] = (label.kind, label.focus_on)
    if not truth.labels:
        raise DataError("holds no label", where=Where(file=path), fix="label some of the judge's verdicts")
    return truth


def read_store(path: str, truth: Truth) -> Store:
    """The verdicts of a store about what the truth knows.

    Raises:
        DataError: it is no store of verdicts.
    """
    store = Store()
    for verdict in read_labels(path):
        if verdict.step is None:
            fix = "give the store that cm2 judge wrote first, the labels with --against"
            raise DataError("a row without a step is no verdict of a store", where=Where(file=path), fix=fix)
        name = verdict.judge or "checks"  # the one name that a store leaves out
        store.names.add(name)
        if verdict.place not in truth.labels:
            continue
        store.run.setdefault(verdict.place, {})[verdict.step] = verdict.met
        if store.judges.get(verdict.place, "skip") in UNASKED:
            store.judges[verdict.place] = name
        while len(store.ballots) < len(verdict.votes):
            store.ballots.append({})
        for ballot, met in zip(store.ballots, verdict.votes, strict=False):
            ballot.setdefault(verdict.place, {})[verdict.step] = met
    return store


def judged(run: Run, truth: Truth, place: Place) -> tuple[bool, bool | None]:
    """Whether the run has verdicts about the place, and the one about the whole turn (or its labelled steps)."""
    by_step = run.get(place)
    if by_step is None:
        return False, None
    steps = truth.steps(place) or list(by_step)
    if not all(step in by_step for step in steps):
        return False, None
    return True, whole([by_step[step] for step in steps])


def kinds_of(dialogue: str, checklists: list[Checklist]) -> dict[tuple[str, int, int, str], tuple[str, str, str]]:
    """(kind, focus, question) of every item of a dialogue's checklists, by (dialogue, variant, turn, item)."""
    return {
        (dialogue, checklist.variant, checklist.turn, item.id): (item.kind, item.focus_on, item.question)
        for checklist in checklists
        for item in checklist.items
    }
