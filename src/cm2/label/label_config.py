"""Configuration of labelling: what, by what, where to."""

from __future__ import annotations

import msgspec

from cm2.formats.tasks import AUTO
from cm2.label.config import Drafting
from cm2.label.effects import EffectsLabeler
from cm2.label.effects_match import Ids
from cm2.label.reference import ReferenceLabeler

MODEL_LABELERS = ("llm", "hybrid")
CODE_LABELERS = (ReferenceLabeler.name, EffectsLabeler.name)
LABELERS = (*CODE_LABELERS, *MODEL_LABELERS)
SET_ASIDE = ".unscored.jsonl"


class LabelConfig(msgspec.Struct):
    """What to label, by what, and where to."""

    input: str
    """Reference dialogues, any row file. Checklists that they carry are replaced."""
    output: str
    """Rows in their own format with "checklists"."""
    labeler: str = ReferenceLabeler.name
    """reference: from the data flow of the dialogue, without a language model. effects: of the whole dialogue, by what
    it changed, for other runs of the same task. llm: by a model. hybrid: `reference`, and a model adds what code cannot
    see."""
    ids: Ids = "same"
    """Of `effects`: same where other runs start from the same data, origin where a world hands out other ids."""
    jobs: int = 1
    """Worker processes of `reference` and `effects`; the output is the same."""
    format: str = AUTO
    """The format of `input`, when it cannot be told from the rows."""
    set_aside: str | None = None
    """Where rows go for which a model gave no answer; None is `output` + ".unscored.jsonl"."""
    drafting: Drafting = Drafting()
    """How a model is asked."""
