"""Gold: a benchmark's right answer as a reference dialogue, and what it asks of an agent as a checklist of checks.

The right answer is a list of calls, one valid way among others, so a checklist asks for what they left behind and not
for the way:

| item | turn | severity | it holds when |
|---|---|---|---|
| `did-TOOL` | its own (BFCL) | critical | a call that changes something was made, with its arguments |
| `saw-TOOL` | any (BFCL) | major | a call got the answer that the right look-up got, whenever it was made |
| `acted` | any (BFCL) | critical | there was a call in every turn whose right answer has one, as the grader wants |
| `nothing-else-changed` | any (BFCL) | critical | no tool that changes something was used more often than is right |
| `outcome`, `effect-…`, `nothing-…`, `escalated` | any (tau2) | as there | see `cm2.label.effects` |
| `told-N` | any (tau2) | critical | what the user must be told was said by the agent |

In BFCL the user's turns are fixed, and a state is compared after each that has right calls, so changes belong to their
turn; those of a turn that follows one without right calls may be made in any. Which calls change something the
harness's own back ends have said. In tau2-bench turns are as the talk goes, so everything is
about the whole dialogue. ToolSandbox has no right answer that could be played: no checklist comes of it.

An item that lint refuses is left out and counted.
"""

from __future__ import annotations

from collections import Counter
from typing import Any as Json

import orjson
from msgspec.structs import replace

from cm2.check import All, Any, Called, Check
from cm2.checklist import Checklist, Task, call_text
from cm2.dialogue import Dialogue
from cm2.formats import read_row
from cm2.harness.dialogues.bfcl import as_error
from cm2.harness.dialogues.gold_items import Collected, answer_at, call_at, counted, exactly
from cm2.harness.dialogues.told import Told
from cm2.label.effects import EffectsLabeler
from cm2.label.effects_items import last_words
from cm2.label.lint import lint_checklist
from cm2.label.reference import NO_ITEM_PASSED, Labelled
from cm2.policy.policy import WEIGHTS
from cm2.verdict import WHOLE

LABELER = "gold"
NO_ANSWER = "the benchmark has no right answer that could be played"
DONE, CANNOT = "Done.", "I cannot do that yet."
_OWN = ("told", "look_up")
"""What the effects labeller reads from a reference's replies and look-ups: a right answer has no words of its own."""


def name_of(benchmark: str, category: str, task: str) -> str:
    """The id of a task's dialogues: the reference and every run have the same."""
    return f"{benchmark}/{category}/{task}"


def reference(benchmark: str, told: Told) -> Dialogue:
    """The right answer as a dialogue: one call a step, answered by the harness's own back ends."""
    messages: list[dict[str, Json]] = [{"role": "system", "content": told.system}] if told.system else []
    for number, turn in enumerate(told.turns):
        messages.append({"role": "user", "content": turn.user})
        mine = [call for call in turn.calls if call.by == "assistant"]
        for at, call in enumerate(mine):
            function = {"name": call.name, "arguments": orjson.dumps(call.arguments).decode()}
            id = f"call-{number}-{at}"
            made = {"role": "assistant", "content": None}
            messages.append(made | {"tool_calls": [{"id": id, "type": "function", "function": function}]})
            messages.append({"role": "tool", "tool_call_id": id, "content": as_error(call.answer)})
        messages.append({"role": "assistant", "content": " ".join(told.told) or (DONE if mine else CANNOT)})
    meta = {"benchmark": benchmark, "category": told.category, "task_id": told.task, "reference": True}
    row = {
        "id": name_of(benchmark, told.category, told.task),
        "source": f"the right answer of {benchmark}, played on its own back ends",
        "tools": told.tools,
        "messages": messages,
        "meta": meta | ({"reward_basis": told.basis} if told.basis else {}),
    }
    return read_row(row, "openai")


def label(benchmark: str, told: Told) -> Labelled:
    """The reference of a task with its checklists; without any where there is no right answer."""
    if not told.turns:
        user = [{"role": "user", "content": told.task}]
        row = {"id": name_of(benchmark, told.category, told.task), "tools": told.tools, "messages": user}
        return Labelled(Task(read_row(row, "openai")), {}, {NO_ANSWER: 1})
    dialogue = reference(benchmark, told)
    made = _by_turn(told, dialogue) if benchmark == "bfcl" else [_by_effects(told, dialogue)]
    out: Counter[str] = Counter()
    kept = [one for one in (_linted(checklist, dialogue, out) for checklist in made) if one.items]
    return Labelled(Task(dialogue, kept), dict(sorted(out.items())), {} if kept else {NO_ITEM_PASSED: 1})


def _linted(checklist: Checklist, dialogue: Dialogue, out: Counter[str]) -> Checklist:
    """The checklist without what lint refuses."""
    while checklist.items:
        checklist = checklist.normalised()
        reports = lint_checklist(checklist, Task(dialogue, [checklist]))
        failed = {one.item: one.failures[0].test for one in reports if one.failures and one.item}
        if not failed:
            break
        out.update(f"{item.kind}: {failed[item.id]}" for item in checklist.items if item.id in failed)
        checklist = replace(checklist, items=[item for item in checklist.items if item.id not in failed])
    return checklist


def _by_turn(told: Told, dialogue: Dialogue) -> list[Checklist]:
    """BFCL: changes in their turn; look-ups, and what must not happen, over the whole."""
    found, whole = [], Collected()
    allowed: Counter[str] = Counter()
    again: dict[str, list[Called]] = {}
    seen: set[str] = set()
    for number, turn in enumerate(told.turns):
        # The grader compares no state after a turn without right calls: a change may be made there already.
        free = number > 0 and not told.turns[number - 1].calls
        mine = whole if free else Collected()
        for call, times in counted([call for call in turn.calls if call.changed]):
            check = Called(call.name, exactly(call), at_least=times, answered=True)
            mine.did(call, check, call_at(number, turn.calls.index(call), call), times)
            if not call.again:
                again.setdefault(call.name, []).append(check)
        for call in turn.calls:
            allowed[call.name] += 1  # also one that changed nothing here: it may in another order
            key = call_text(call.name, call.answer)
            if not call.changed and key not in seen:
                seen.add(key)
                whole.saw(call, answer_at(number, turn.calls.index(call), call))
        if mine.items and mine is not whole:
            found.append(Checklist(number, mine.items, labeler=LABELER))
    limits = [_limit(name, allowed[name], again.get(name, [])) for name in told.writes]
    if limits:
        whole.nothing_else(All(limits), last_words(dialogue))
    if wanted := [number for number, turn in enumerate(told.turns) if turn.calls]:
        whole.acted(wanted, call_at(wanted[0], 0, told.turns[wanted[0]].calls[0]))
    return [*found, *([Checklist(WHOLE, whole.items, labeler=LABELER)] if whole.items else [])]


def _limit(name: str, count: int, settings: list[Called]) -> Check:
    """How often a tool that changes something may have been used with success; once more where that changes no more."""
    limit = Called(name, at_least=0, at_most=count, answered=True)
    again: list[Check] = [
        All([replace(check, at_least=check.at_least + 1), replace(limit, at_most=count + 1)]) for check in settings
    ]
    return Any([limit, *again]) if again else limit


def _by_effects(told: Told, dialogue: Dialogue) -> Checklist:
    """tau2-bench: what was changed, by the effects labeller; what must be said, by the benchmark's own list."""
    task = EffectsLabeler().label(dialogue).task
    names = Collected()
    for checklist in task.checklists:
        names.items += [
            replace(item, weight=WEIGHTS[item.severity])
            for item in checklist.items
            if item.kind not in _OWN and item.severity
        ]
    if not told.basis or "COMMUNICATE" in told.basis:
        for text in told.told:
            names.told(text, dialogue)
    return Checklist(WHOLE, names.items, labeler=LABELER)
