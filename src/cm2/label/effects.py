"""Effects: a checklist of a whole dialogue from one run of its task that went well.

Another run of the same task takes other turns, words and look-ups; what must be the same is what it leaves behind. So
one passing run is frozen, and its items hold over the whole dialogue:

| item | severity | it holds when |
|---|---|---|
| `outcome` | critical | the run made every change of the reference, and no other |
| `effect-TOOL` | major | one of these changes was made: which one is missing |
| `nothing-else-changed` | major | no other change was made: whether one was too many |
| `nothing-changed` | critical | in place of these where the reference changed nothing: a refusal, an answer |
| `looked-up` | minor | there, and where nothing was told: something was looked up all the same |
| `told-…` | minor | the user was told what the reference told |
| `escalated` | minor | the conversation was handed to a person, as in the reference |

Severities weigh as a policy's duties do: a run that differs in its changes loses `outcome` and the item that says how,
and scores below any that has them right, whatever it told. What counts as a change: `effects_net`; as the same
arguments: `effects_match`; as told: `effects_told`. An item that lint refuses is left out and counted.
"""

from __future__ import annotations

from collections import Counter

from cm2.checklist import Checklist, Task
from cm2.dialogue import Dialogue
from cm2.label.effects_items import FrozenRun
from cm2.label.effects_lint import lint_whole
from cm2.label.effects_match import Ids
from cm2.label.halves import readable
from cm2.label.reference import NO_ITEM_PASSED, Labelled, whole_text_only
from cm2.verdict import WHOLE

NAME = "effects"
NO_REPLY = "nobody answers in it"
TOO_DEEP = "a value nests too deeply to be compared"
NOTHING = "no tool could change anything, and nothing was looked up or asked for"


def label_effects(dialogue: Dialogue, ids: Ids = "same") -> Task:
    """The dialogue with its one checklist about the whole of it; without any where nobody answers in it.

    Args:
        dialogue: a run that went well.
        ids: "same" where other runs start from the same data, so that ids agree; "origin" where they may not.
    """
    return EffectsLabeler(ids).label(dialogue).task


class EffectsLabeler:
    """Labels one dialogue at a time; keeps nothing between them.

    Args:
        ids: see `label_effects`.
    """

    name = NAME

    def __init__(self, ids: Ids = "same"):
        self.ids: Ids = ids

    def label(self, dialogue: Dialogue) -> Labelled:
        """The dialogue's checklist; existing ones are not looked at."""
        if not any(step.reply or step.calls for turn in dialogue.turns for step in turn.steps):
            return Labelled(Task(dialogue), {}, {NO_REPLY: 1})
        copy = readable(dialogue)
        try:
            labelled = self._labelled(copy)
            return labelled if copy is dialogue else whole_text_only(labelled, dialogue)
        except RecursionError:
            return Labelled(Task(dialogue), {}, {TOO_DEEP: 1})

    def _labelled(self, dialogue: Dialogue) -> Labelled:
        out: Counter[str] = Counter()
        items = FrozenRun(dialogue, self.ids).items()
        if not items:
            return Labelled(Task(dialogue), {}, {NOTHING: 1})
        while items:
            checklist = Checklist(WHOLE, items, labeler=NAME).normalised()
            failed = {each.item: each for each in lint_whole(checklist, dialogue) if each.failures and each.item}
            if not failed:
                return Labelled(Task(dialogue, [checklist]), dict(sorted(out.items())))
            for item in items:
                if item.id in failed:
                    out[f"{item.kind}: {failed[item.id].failures[0].test}"] += 1
            items = [item for item in items if item.id not in failed]
        return Labelled(Task(dialogue), dict(sorted(out.items())), {NO_ITEM_PASSED: 1})
