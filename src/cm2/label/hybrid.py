"""The hybrid labeller: what code can see is labelled by code, a model adds what code cannot see.

The reference labeller goes first; its items keep their checks, their weights among each other and their wording. The
model is shown them and asked only for the rest. What it says again in other words goes, in favour of the code's item
(`cm2.label.merge`); how weight is shared stands in `cm2.label.weigh`. A model that adds nothing of use leaves exactly
the reference labeller's checklists.
"""

from __future__ import annotations

from cm2.dialogue import Dialogue
from cm2.label.llm import LlmLabeler
from cm2.label.reference import Labelled, ReferenceLabeler


class HybridLabeler(LlmLabeler):
    """See the module."""

    name = "hybrid"

    def code(self, dialogue: Dialogue) -> Labelled | None:
        """The reference labeller's checklists."""
        return ReferenceLabeler().label(dialogue)
