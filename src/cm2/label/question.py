"""Question: what a labeller model is asked about one reference, with the reference in front and the turn last.

All questions about a dialogue begin with the same bytes (rules, tools, the whole dialogue between the fence's markers),
so that a prefix cache reads them once. What follows names the turn; in a second question also what was wrong with the
items that are asked for again. Everything that comes from the dialogue or from a model's answer stands between markers.
"""

from __future__ import annotations

import msgspec

from cm2.dialogue import Dialogue
from cm2.errors import Where
from cm2.formats.jsonlines import encode
from cm2.label.answer import SHAPES, planned, schema_of
from cm2.label.config import Drafting
from cm2.label.draft import Draft
from cm2.llm.fence import Fence
from cm2.llm.prompt import Prompt, load
from cm2.llm.request import Request

PACKAGE = "cm2.label"
LONGEST_GIVEN = 3000
"""Characters of an item that is shown again; who wrote more is not shown all of it."""
LONGEST_REASON = 600


def prompts(per: str) -> tuple[Prompt, Prompt, Prompt]:
    """Rules, first question and second question."""
    return load(PACKAGE, "rules"), load(PACKAGE, per), load(PACKAGE, "mend")


def prompt_id(per: str) -> str:
    """What is stored with a checklist: every text that took part in it, with its hash."""
    return "+".join(prompt.id for prompt in prompts(per))


class Question(msgspec.Struct):
    """A request, the turns and the variant that it is about, and whether each of these turns must be answered."""

    request: Request
    turns: list[int]
    variant: int
    whole: bool = False


class Questions:
    """Makes the questions about one reference.

    Args:
        dialogue: the reference.
        config: how it is asked.
        secret: of the asker, for the fence.
    """

    def __init__(self, dialogue: Dialogue, config: Drafting, secret: str = ""):
        self.dialogue, self.config = dialogue, config
        self._fence = Fence.make(secret, dialogue.id)
        self._rules, self._first, self._mend = prompts(config.per)
        shown = _with_tools_that_fit(dialogue, config.tools)
        self._system = self._rules.fill(
            most=config.most_items,
            thinking=config.thinking,
            shape=SHAPES[config.per],
            rule=self._fence.rule,
        )
        self._reference = self._fence.transcript(shown, tools=True, thinking=config.thinking, cut=config.cut)

    def first(self, turns: list[int], variant: int, code: dict[int, list[Draft]]) -> Question:
        """Ask for the checklists of some turns (one, or all of a dialogue); `code` has the items that exist already."""
        named = [self._fence.block(f"items of turn {t}", _brief(code[t])) for t in turns if code.get(t)]
        counts = [len(code.get(turn, [])) for turn in turns]
        task = self._first.fill(
            turn=turns[0], turns=", ".join(map(str, turns)), shown="\n\n".join(named), next=f"C{counts[0]}"
        )
        request = self._request(task, turns, variant, "label", planned(turns, self.config.per))
        return Question(request, turns, variant, whole=self.config.per == "dialogue")

    def second(
        self, turns: list[int], variant: int, failed: dict[int, list[Draft]], kept: dict[int, list[Draft]]
    ) -> Question:
        """Ask once more for the drafts that failed, with the reasons; `kept` are those of the same turns that stay."""
        block = self._fence.block
        wrong = [block(f"items of turn {turn} that cannot stay", _reasons(failed[turn])) for turn in turns]
        right = [block(f"items of turn {turn} that stay", _brief(kept[turn])) for turn in turns if kept[turn]]
        one = len(turns) == 1
        task = self._mend.fill(
            place=f"turn {turns[0]}" if one else f"the turns {', '.join(map(str, turns))}",
            what="turn" if one else "turns",
            failed="\n\n".join(wrong),
            kept="\n\n".join(right),
        )
        request = self._request(task, turns, variant, "label again", planned(turns, self.config.per))
        return Question(request, turns, variant)

    def _request(self, task: str, turns: list[int], variant: int, stage: str, supposed: object) -> Request:
        one = turns[0] if self.config.per == "turn" else None
        return Request(
            role="labeler",
            messages=[
                {"role": "system", "content": self._system},
                {"role": "user", "content": f"{self._reference}\n\n{task}"},
            ],
            schema=schema_of(self.config.per),
            prompt=prompt_id(self.config.per),
            affinity=self.dialogue.id,
            sample=variant,
            stage=stage,
            where=Where(dialogue=self.dialogue.id, turn=one),
            planned=supposed,
        )


def _with_tools_that_fit(dialogue: Dialogue, most: int) -> Dialogue:
    """The dialogue with at most so many tools: those that were called, then the first others."""
    if len(dialogue.tools) <= most:
        return dialogue
    called = {call.name for *_, call, _ in dialogue.calls()}
    names = [tool.name for tool in dialogue.tools if tool.name in called]
    names += [tool.name for tool in dialogue.tools if tool.name not in called][: max(0, most - len(names))]
    tools = [tool for tool in dialogue.tools if tool.name in set(names)]
    return msgspec.structs.replace(dialogue, tools=tools)


def _brief(drafts: list[Draft]) -> str:
    """Items in one line each: what may not be repeated and may be depended on."""
    return "\n".join(
        f"{draft.id} ({draft.item.focus_on}, weight {draft.item.weight:.2g}): {draft.item.question}"
        for draft in drafts
        if draft.item is not None
    )


def _reasons(drafts: list[Draft]) -> str:
    """Items as they were given, under the id that we know them by, and what is wrong with each."""
    parts = []
    for draft in drafts:
        given = {**draft.given, "id": draft.id} if isinstance(draft.given, dict) else {"id": draft.id}
        text = encode(given).decode(errors="replace")
        faults = [*draft.faults, *([draft.refused] if draft.refused is not None else [])]
        wrong = "\n".join(f"- {fault.reason}: {fault.message[:LONGEST_REASON]}" for fault in faults)
        parts.append(f"{text[:LONGEST_GIVEN]}\nwrong with {draft.id}:\n{wrong}")
    return "\n\n".join(parts)
