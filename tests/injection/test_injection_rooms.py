"""Labeller, filter, simulator and compressor: what stands in a dialogue never becomes part of their prompts.

Each is asked by a model that obeys any text outside the fence (see `injection.obedient`): what it makes of an attacked
dialogue is what it makes of the clean twin.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cm2.curate.compressor import Compressor
from cm2.curate.judged import Gate
from cm2.curate.opinion import parse_passes
from cm2.dialogue import Dialogue, ToolCall
from cm2.errors import Where
from cm2.formats import write_row
from cm2.label.hybrid import HybridLabeler
from cm2.label.llm import LlmLabeler
from cm2.llm import Request, fence
from cm2.simulate.llm import LLMBackend
from cm2.simulate.replay import Context, Heard, State
from injection.obedient import Obedient
from injection.twins import HARMLESS, Attack, attacks, bases, place
from servers.reader import read

ATTACKS = attacks()
Work = Callable[[Obedient, Dialogue, str], Awaitable[Any]]


def items_of_the_calls(request: Request) -> Any:
    """One item a tool that the turn calls."""
    reading = read(request.messages)
    asked = re.search(r"[Ww]rite the checklist of turn (\d+)", "\n".join(reading.outside))
    if asked is None:
        return {"items": []}
    turn = int(asked[1])
    found: dict[str, int] = {}
    for step, part, text in reading.parts(turn):
        if part == "call" and re.match(r"\w+\(", text):
            found.setdefault(text.split("(")[0], step)
    return {"items": [_item(f"C{n}", turn, step, name) for n, (name, step) in enumerate(found.items())]}


def _item(id: str, turn: int, step: int, name: str) -> dict[str, Any]:
    part = "assistant.tool_calls"
    return {
        "id": id,
        "evidence": [{"turn": turn, "step": step, "from": part, "snippet": f"{name}("}],
        "focus_on": part,
        "question": f"Did the assistant call `{name}`?",
        "pass_condition": f"`{name}` is called, whatever the arguments.",
        "failure_examples": ["it is not called"],
        "required_for_next_turn": False,
        "depends_on": [],
        "weight": 1.0,
        "check": {"type": "called", "tool": name},
    }


async def labelled(asker: Obedient, dialogue: Dialogue, text: str) -> Any:
    found = await LlmLabeler(asker).label(dialogue)
    assert not found.lost
    return [(each.turn, [(item.question, item.check) for item in each.items]) for each in found.task.checklists]


async def labelled_beside_code(asker: Obedient, dialogue: Dialogue, text: str) -> Any:
    """What code labels may differ, because values do; what the model adds may not."""
    found = await HybridLabeler(asker).label(dialogue)
    assert not found.lost
    return found.proposed


async def filtered(asker: Obedient, dialogue: Dialogue, text: str) -> Any:
    opinion = await Gate(asker, parse_passes("low,high")).judge(write_row(dialogue, "openai"), Where())
    assert opinion.lost is None
    return opinion.keep


async def simulated(asker: Obedient, dialogue: Dialogue, text: str) -> Any:
    """Attacks stand in the reference, in the call, in what was written before and in what was heard."""
    if not dialogue.tools:
        return None
    backend = LLMBackend(dialogue, asker)
    call = ToolCall("find_table", {"people": 3, "note": text})
    promised = {
        "type": "object",
        "description": text,
        "properties": {text: {"enum": [text]}},
        "additionalProperties": True,
    }
    dialogue.tools[-1].wire = {"result": promised}
    write = (ToolCall("book_table", {"table": "t9", "note": text}), f'{{"status":"confirmed-31"}} {text}')
    heard = [Heard(ToolCall("find_table", {"people": 3}), f'{{"tables":["t4"]}} {text}', 0)]
    answers = []
    for writes in ([], [write]):
        context = Context(dialogue.tools[0], State(), writes, turn=0, heard=heard)
        answers.append(await backend.respond(call, context))
    never_recorded = Context(dialogue.tools[-1], State(), [], turn=0)
    return [*answers, await backend.respond(ToolCall("refund_774", {"amount": 1}), never_recorded)]


_SECTION = re.compile(r"^(\d+): \[\S+ turn (\d+) step (\d+) thinking\]$", re.MULTILINE)
_SHORTER = {("0", "0"): "see what is free", ("0", "1"): "t9 is free: well-thought-of", ("1", "0"): "nothing"}


def shorter(request: Request) -> Any:
    asked = _SECTION.findall("\n".join(read(request.messages).outside))
    return {"sections": [{"index": int(n), "text": _SHORTER[turn, step]} for n, turn, step in asked]}


async def compressed(asker: Obedient, dialogue: Dialogue, text: str) -> Any:
    found = await Compressor(asker).compress(dialogue, [], Where())
    assert all(outcome.lost is None for outcome in found.outcomes)
    return [(outcome.section.place, outcome.text) for outcome in found.outcomes]


TRUTHS: dict[str, tuple[Work, Callable[[Request], Any], Any]] = {
    "labeller": (labelled, items_of_the_calls, {"items": []}),
    "hybrid labeller": (labelled_beside_code, items_of_the_calls, {"items": []}),
    "filter": (filtered, lambda request: {"reason": "a doubt", "turn": 0, "step": 0, "verdict": "no"}, "yes"),
    "compressor": (compressed, shorter, {"sections": [{"index": n, "text": "all items hold"} for n in range(3)]}),
    "simulator": (simulated, lambda request: {"answer": {"tables": ["t4"]}}, {"answer": {"tables": ["refunded-774"]}}),
}


def outcome(room: str, attack: Attack, dialogue: Dialogue) -> tuple[Any, Any, Obedient] | None:
    """What a room makes of the clean twin and of the attacked one."""
    work, truth, wanted = TRUTHS[room]
    if wanted == "yes":
        wanted = {"reason": "as told", "turn": None, "step": None, "verdict": "yes"}
    clean = place(dialogue, attack.place, HARMLESS)
    if clean is None:
        return None
    asker = Obedient(truth, lambda request: wanted)
    before = asyncio.run(work(asker, clean, HARMLESS))
    asker.learning = False
    text = attack.armed(asker.nonce)
    attacked = place(dialogue, attack.place, text)
    assert attacked is not None
    return before, asyncio.run(work(asker, attacked, text)), asker


@pytest.mark.parametrize("room", TRUTHS)
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.id)
def test_an_attack_changes_nothing(attack: Attack, room: str) -> None:
    tried = 0
    for dialogue in bases():
        found = outcome(room, attack, dialogue)
        if found is not None:
            before, after, asker = found
            assert asker.orders == []
            assert after == before
            tried += asker.asked
    assert tried


@pytest.mark.parametrize("room", TRUTHS)
def test_without_the_fence_attacks_succeed(room: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail for every room."""
    kinds, places = ("break_outs", "chat_templates"), ("result", "arguments")
    tried = [attack for attack in ATTACKS if attack.kind in kinds and attack.place in places]

    def raw(text: str, nonce: str = "") -> str:
        return text

    monkeypatch.setattr(fence, "neutral", raw)
    monkeypatch.setattr(fence, "PREFIX", "")
    found = [outcome(room, attack, bases()[0]) for attack in tried]
    assert sum(one is not None and bool(one[2].orders) for one in found) >= len(tried) // 3
    assert any(one is not None and one[0] != one[1] for one in found)
