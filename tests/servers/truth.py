"""Truth: what a perfect model would answer, by a rule that needs no model.

Of a judge's item: it holds from the first step whose part holds the words that its condition quotes (`holds the words
"…"`). A condition that quotes nothing is decided by a hash of the item and of what it looks at: an arbitrary answer,
but the same whenever and however the question is put, with a quote that stands.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from servers.reader import Reading, read

LOOKS_AT = {
    "tool calls of the agent": "call",
    "answers of the tools": "response",
    "replies of the agent to the user": "reply",
    "private thinking of the agent": "thinking",
}
_WORDS = re.compile(r'holds the words "(.+?)"')
_TURN = re.compile(r"^Judge turn (\d+)", re.MULTILINE)
_LAST = re.compile(r"in the state after step (\d+)")


def judge(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The answer to a question of the judge, in the form that is asked for."""
    reading = read(messages)
    by_turn = "first_step" in "\n".join(reading.outside)
    if any("turn" in item for item in items(reading)):
        return {"verdicts": [placed(reading, item) for item in items(reading)]}
    return {"verdicts": [entry(reading, item, by_turn) for item in items(reading)]}


def items(reading: Reading) -> list[dict[str, Any]]:
    """The items that are asked about: those of the list, or those of them that are named behind the record."""
    block, asked = reading.block("items"), reading.block("asked")
    found = [json.loads(line) for line in block.lines if line.strip()] if block is not None else []
    if asked is None:
        return found
    told = [json.loads(line) for line in asked.lines if line.strip()]
    named = told[0] if isinstance(told[0], list) else [one["id"] for one in told]
    return [item for item in found if item["id"] in named]


def entry(reading: Reading, item: dict[str, Any], by_turn: bool) -> dict[str, Any]:
    """The verdict on one item."""
    outside = "\n".join(reading.outside)
    asked = _TURN.search(outside)
    turn = int(asked[1]) if asked else 0
    last = _LAST.search(outside)
    upto = int(last[1]) if last and not by_turn else max(0, reading.steps(turn) - 1)
    part = LOOKS_AT[item["looks_at"]]
    shown = [(step, text) for step, name, text in reading.parts(turn) if name == part and step <= upto and _line(text)]
    words = _WORDS.search(item["holds_when"])
    if words:
        held = [(step, words[1]) for step, text in shown if words[1] in text]
    else:
        told = json.dumps([item["id"], item["question"], item["holds_when"], shown], sort_keys=True)
        held = [(step, _line(text)) for step, text in shown][hashlib.sha256(told.encode()).digest()[0] % 3 :]
    first, quote = held[0] if held else (None, "")
    decision: dict[str, Any] = {"first_step": first} if by_turn else {"holds": first is not None}
    return {"id": item["id"], "reason": "It is there." if held else "It is not there.", **decision, "quote": quote}


def placed(reading: Reading, item: dict[str, Any]) -> dict[str, Any]:
    """The verdict on an item among those of all turns."""
    part, words = LOOKS_AT[item["looks_at"]], _WORDS.search(item["holds_when"])
    turns = range(reading.turns) if item["turn"] == "all" else [item["turn"]]
    shown = [(t, s, text) for t in turns for s, name, text in reading.parts(t) if name == part and _line(text)]
    if words:
        held = [(t, s, words[1]) for t, s, text in shown if words[1] in text]
    else:
        told = json.dumps([item["id"], item["question"], item["holds_when"], shown], sort_keys=True)
        held = [(t, s, _line(text)) for t, s, text in shown][hashlib.sha256(told.encode()).digest()[0] % 3 :]
    turn, step, quote = held[0] if held else (None, None, "")
    reason = "It is there." if held else "It is not there."
    return {"id": item["id"], "reason": reason, "turn": turn, "step": step, "quote": quote}


def _line(text: str) -> str:
    """The first line that says something, as a quote."""
    return next((line.strip()[:60] for line in text.split("\n") if any(map(str.isalnum, line[:60]))), "")


def answer(body: dict[str, Any]) -> Any:
    """The true answer to a request, whatever the role: of the shape that its prompt or schema asks for."""
    messages = body["messages"]
    asked = "\n".join(str(message.get("content") or "") for message in messages if message["role"] != "assistant")
    if '"verdicts"' in asked:
        return judge(messages)
    if '"verdict"' in json.dumps(body.get("response_format") or {}) or "good enough to learn from" in asked:
        return {"reason": "Everything fits.", "turn": None, "step": None, "verdict": "yes"}
    return {"items": []}
