"""Short ways to write checklists, verdicts and scores down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cm2.checklist import Checklist, Item
from cm2.credit import Score, score
from cm2.verdict import Verdict

VALUES = {"y": True, "n": False, "-": None}


def item(id: str, weight: float, depends: Sequence[str] = (), strict: bool = False) -> Item:
    return Item(id, "tool.content", f"Is {id} so?", "It is.", weight, [], [], strict, list(depends))


def checklist(*items: Item, turn: int = 0, variant: int = 0) -> Checklist:
    return Checklist(turn, list(items), variant)


def said(marks: Mapping[str, str], turn: int = 0, variant: int = 0) -> list[Verdict]:
    """Verdicts of a turn, one letter a step: y yes, n no, - unscored. `said({"C0": "ny"})`: C0 holds after step 1."""
    return [
        Verdict("d", turn, step, id, VALUES[letter], variant)
        for id, letters in marks.items()
        for step, letter in enumerate(letters)
    ]


def one_turn(*items: Item, marks: Mapping[str, str], steps: int | None = None, reading: str = "gated") -> Score:
    """The score of a rollout whose reference has one turn."""
    steps = max(len(letters) for letters in marks.values()) if steps is None else steps
    return score([checklist(*items)], said(marks), [steps], 1, reading)
