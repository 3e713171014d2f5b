"""Drafting: from a model's answer to drafts, with everything wrong that an item shows by itself.

What concerns several items (dependencies, circles, doubles) and the reference's other turns (lint) comes later, in
`cm2.label.settle`. Whatever the answer holds, this raises nothing: what cannot be read is a fault of the draft.
"""

from __future__ import annotations

import math
import re
from typing import Any, get_args

from cm2.checklist import Checklist, FocusOn, Item, validate
from cm2.dialogue import Dialogue, Step
from cm2.label.compile import Compiler
from cm2.label.draft import Draft, Fault
from cm2.label.evidence import verified
from cm2.label.wording import THINKING, faults

PARTS: tuple[FocusOn, ...] = get_args(FocusOn)
KINDS: dict[FocusOn, str] = {
    "assistant.tool_calls": "model_call",
    "assistant.content.thinking": "model_thinking",
    "assistant.content.user_visible_reply": "model_reply",
    "tool.content": "model_response",
}
"""The kind of a model's item: what it looks at."""
LONGEST_QUESTION = 600
LONGEST_CONDITION = 2000
MOST_EXAMPLES = 8
MOST_NAMED = 20
_HALF = re.compile("[\ud800-\udfff]")


class Drafter:
    """Reads the items that a model proposed for one reference.

    Args:
        dialogue: the reference.
        thinking: whether items may ask about private thinking.
    """

    def __init__(self, dialogue: Dialogue, thinking: bool = True):
        self.dialogue, self.thinking = dialogue, thinking
        self._compiler = Compiler(dialogue)

    def drafts(self, given: list[Any], turn: int, first: int = 0, code: tuple[str, ...] = ()) -> list[Draft]:
        """The drafts of a turn's items.

        Args:
            given: the items as the model gave them.
            turn: the turn that they are about.
            first: the number of the first id.
            code: ids that items of the code have; a dependency on one of these names means that item.
        """
        names = {id: id for id in code}
        for number, item in enumerate(given):
            own = item.get("id") if isinstance(item, dict) else None
            if isinstance(own, str):
                names.setdefault(own.strip(), f"C{first + number}")
        return [self.draft(item, turn, f"C{first + number}", names) for number, item in enumerate(given)]

    def draft(self, given: Any, turn: int, id: str, names: dict[str, str]) -> Draft:
        """One draft; `names` are the ids that the model used, with ours."""
        draft = Draft(id, given)
        if not isinstance(given, dict):
            draft.faults.append(Fault("form", "an item is an object"))
            return draft
        focus = given.get("focus_on")
        question, passes = _text(given.get("question")), _text(given.get("pass_condition"))
        if focus not in PARTS:
            draft.faults.append(Fault("form", f"focus_on is one of {', '.join(PARTS)}"))
            return draft
        if not question or len(question) > LONGEST_QUESTION or len(passes) > LONGEST_CONDITION:
            what = (
                f"the question has 1 to {LONGEST_QUESTION} characters, the pass condition at most {LONGEST_CONDITION}"
            )
            draft.faults.append(Fault("form", what))
            return draft
        evidence = verified(given.get("evidence"), self.dialogue, turn)
        draft.mended = evidence.mended
        draft.strays = len(evidence.problems) if evidence.pointers else 0
        weight = _weight(given.get("weight"))
        check = self._compiler.compile(given.get("check"), turn, focus)
        if isinstance(check, Fault):
            draft.refused = check
        draft.item = Item(
            id=id,
            focus_on=focus,
            question=question,
            pass_condition=passes,
            weight=weight or 0.0,
            evidence=evidence.pointers,
            failure_examples=_texts(given.get("failure_examples")),
            required_for_next_turn=given.get("required_for_next_turn") is True,
            depends_on=self._depends(given.get("depends_on"), names, draft),
            check=None if isinstance(check, Fault) else check,
            kind=KINDS[focus],
        )
        if not evidence.pointers:
            draft.faults.append(Fault("evidence", "; ".join(evidence.problems)))
        if weight is None:
            draft.faults.append(Fault("weight", "the weight is a number above 0"))
        draft.faults += self._of_rules(draft.item, turn)
        draft.faults += self._of_focus(focus, turn)
        for reason, message in faults(draft.item):
            if all(fault.reason != reason for fault in draft.faults):
                draft.faults.append(Fault(reason, message))
        return draft

    def _depends(self, given: Any, names: dict[str, str], draft: Draft) -> list[str]:
        found: list[str] = []
        for name in given[:MOST_NAMED] if isinstance(given, list) else []:
            id = names.get(name.strip()) if isinstance(name, str) else None
            if id is None:
                draft.faults.append(Fault("depends_on", f"depends_on names {str(name)[:40]!r}, which is no item here"))
            elif id == draft.id:
                draft.faults.append(Fault("depends_on", "the item depends on itself"))
            elif id not in found:
                found.append(id)
        return found

    def _of_rules(self, item: Item, turn: int) -> list[Fault]:
        """What the method's own rules say of the item alone."""
        alone = Item(
            id=item.id, focus_on=item.focus_on, question=item.question, pass_condition=item.pass_condition, weight=1.0
        )
        return [Fault(each.rule, each.message) for each in validate(Checklist(turn, [alone]))]

    def _of_focus(self, focus: FocusOn, turn: int) -> list[Fault]:
        """Nobody can be held to what the reference itself did not do."""
        steps = self.dialogue.turns[turn].steps
        if focus == THINKING and not self.thinking:
            return [Fault("focus", "private thinking is not judged; ask for what it leads to")]
        if focus != "assistant.tool_calls" and not any(_has(step, focus) for step in steps):
            return [Fault("focus", f"the reference has no {focus} in this turn")]
        return []


def _has(step: Step, focus: FocusOn) -> bool:
    if focus == THINKING:
        return bool(step.thinking and step.thinking.strip())
    if focus == "tool.content":
        return bool(step.responses)
    return bool(step.reply and step.reply.strip())


def _text(value: Any) -> str:
    """A text on one line; half a surrogate pair, which no file takes, is a replacement character."""
    return " ".join(_HALF.sub("\ufffd", value).split()) if isinstance(value, str) else ""


def _texts(value: Any) -> list[str]:
    texts = [_text(each)[:LONGEST_CONDITION] for each in value] if isinstance(value, list) else []
    return [text for text in texts if text][:MOST_EXAMPLES]


def _weight(value: Any) -> float | None:
    """A weight above 0 (as a number, or a text that is one), else None."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and number > 0 else None
