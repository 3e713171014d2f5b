"""One conversation in the shape of every format, and what it must read to.

Two turns, a system prompt, thinking, two parallel calls of which one fails, text beside a call, ids. The shapes are
those that the libraries write (see docs/import.md for the versions); the words are ours.
"""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

from cm2.curate.check import check_row
from cm2.dialogue import Dialogue, ToolResponse
from cm2.formats import read_row
from cm2.formats.jsonlines import parse
from cm2.imports import ImportConfig, Summary, import_logs
from cm2.judge.values import is_error

Value = dict[str, Any]
SYSTEM = "You look after orders."
ASKED = ("What is with A1 and B2?", "Then cancel A1.")
THOUGHT = "I should look."
FOUND, LOST, DONE = '{"order_id": "A1", "status": "open"}', "no such order", '{"cancelled": true}'
REPLIES = ("A1 is open; B2 does not exist.", "A1 is cancelled.")
SCHEMAS: dict[str, Value] = {
    "get_order": {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]},
    "cancel_order": {
        "type": "object",
        "properties": {"order_id": {"type": "string"}, "reason": {"type": "string"}},
        "required": ["order_id"],
    },
}
ARGUMENTS: tuple[Value, ...] = ({"order_id": "A1"}, {"order_id": "B2"}, {"order_id": "A1", "reason": "changed mind"})
CHAT_TOOLS = [
    {"type": "function", "function": {"name": name, "description": f"{name}!", "parameters": schema}}
    for name, schema in SCHEMAS.items()
]


def chat_call(number: int, name: str, ids: bool = True) -> Value:
    """A call of a chat message."""
    call: Value = {"id": f"call_{number}"} if ids else {}
    return call | {"type": "function", "function": {"name": name, "arguments": json.dumps(ARGUMENTS[number - 1])}}


def chat(ids: bool = True, error: str = f"Error: {LOST}") -> list[Value]:
    """The conversation as chat messages."""
    answers = (FOUND, error, DONE)
    tools = [
        {"role": "tool", "content": text, **({"tool_call_id": f"call_{i}"} if ids else {})}
        for i, text in enumerate(answers, 1)
    ]
    first = {"role": "assistant", "content": None, "reasoning_content": THOUGHT}
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": ASKED[0]},
        first | {"tool_calls": [chat_call(1, "get_order", ids), chat_call(2, "get_order", ids)]},
        *tools[:2],
        {"role": "assistant", "content": REPLIES[0]},
        {"role": "user", "content": ASKED[1]},
        {"role": "assistant", "content": "One moment.", "tool_calls": [chat_call(3, "cancel_order", ids)]},
        tools[2],
        {"role": "assistant", "content": REPLIES[1]},
    ]


def exchanges(messages: list[Value]) -> list[tuple[list[Value], Value]]:
    """The calls of the model behind a conversation: what it saw and what it said."""
    return [(copy.deepcopy(messages[:i]), m) for i, m in enumerate(messages) if m["role"] == "assistant"]


class Result:
    """What an import made of some input."""

    def __init__(self, folder: Path, summary: Summary):
        self.summary = summary
        self.rows = lines(folder / "out.jsonl")
        self.rejected = lines(folder / "out.jsonl.rejected.jsonl")
        self.report = lines(folder / "report.jsonl")
        self.dialogues = [read_row(row) for row in self.rows]

    @property
    def row(self) -> Value:
        assert len(self.rows) == 1, [row["id"] for row in self.rows]
        return self.rows[0]

    @property
    def dialogue(self) -> Dialogue:
        return read_row(self.row)

    @property
    def told(self) -> Value:
        """What the row says of its import."""
        told: Value = self.row["meta"]["import"]
        return told


def lines(path: Path) -> list[Value]:
    """The rows of a file, none where there is no file."""
    if not path.exists():
        return []
    return [parse(line)[0] for line in path.read_bytes().splitlines()]


def save(path: Path, *values: Any, name: str = "log.jsonl") -> str:
    """Write values as lines."""
    text = "".join(json.dumps(value) + "\n" for value in values).encode()
    (path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return str(path / name)


def read(path: Path, *values: Any, format: str = "auto") -> Result:
    """Import values that stand on lines."""
    return run(path, save(path, *values), format=format)


def run(path: Path, *inputs: str, format: str = "auto") -> Result:
    """Import files; what is read is what is written, aside or rejected."""
    config = ImportConfig(
        inputs=list(inputs), output=str(path / "out.jsonl"), format=format, report=str(path / "report.jsonl")
    )
    summary = import_logs(config)
    assert summary.read == summary.used + summary.aside + summary.rejected
    result = Result(path, summary)
    assert len(result.rows) == summary.dialogues and len(result.rejected) == summary.rejected
    return result


def expect(
    row: Value,
    *,
    thinking: bool = True,
    beside: bool = True,
    system: bool = True,
    given: bool = True,
    failed: bool = True,
    passes: bool = True,
) -> None:
    """The row is the conversation, nothing less, and the default rules keep it."""
    dialogue = read_row(row)
    assert dialogue.system == (SYSTEM if system else None)
    assert tuple(turn.user for turn in dialogue.turns) == ASKED
    assert tuple(turn.reply for turn in dialogue.turns) == REPLIES
    calls = [(t, s, i, call.name, call.arguments) for t, s, i, call, _ in dialogue.calls()]
    names = ("get_order", "get_order", "cancel_order")
    places = ((0, 0, 0), (0, 0, 1), (1, 0, 0))
    assert calls == [(*place, name, arguments) for place, name, arguments in zip(places, names, ARGUMENTS, strict=True)]
    answers = [response for *_, response in dialogue.calls()]
    assert all(answer is not None for answer in answers)
    found, lost, done = (answer or ToolResponse("") for answer in answers)
    assert (found.value, done.value) == (json.loads(FOUND), json.loads(DONE))
    assert LOST in lost.content and (not failed or is_error(lost)), lost.content
    assert dialogue.turns[0].steps[0].thinking == (THOUGHT if thinking else None)
    assert dialogue.turns[1].steps[0].reply == ("One moment." if beside else None)
    assert {tool.name for tool in dialogue.tools} == set(SCHEMAS)
    if given:
        assert {tool.name: tool.parameters for tool in dialogue.tools} == SCHEMAS
        assert "inferred_tools" not in row["meta"]["import"]
    else:
        assert set(row["meta"]["import"]["inferred_tools"]) == set(SCHEMAS)
    if passes:
        assert check_row(row).violations == []
