"""Shards of rows for tests, and a model on loopback that worker processes can reach."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from cm2.formats import RowWriter, read_rows
from cm2.llm.config import ModelsConfig
from servers.openai_server import OpenAIServer, Reply, refuses, says

TOOL = {
    "type": "function",
    "function": {
        "name": "book",
        "description": "Book a table",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}
BAD: dict[str, Any] = {"id": "bad", "tools": [TOOL], "messages": []}
THOUGHT = "Let me think for a while about what to do here. I do think that booking is what is asked for."


def good(number: int, odd: bool = False) -> dict[str, Any]:
    """A row that the default rules keep; an odd one is flagged."""
    call = {"id": "c", "type": "function", "function": {"name": "book", "arguments": '{"place": "Roma"}'}}
    return {
        "id": f"row-{number}",
        "tools": [TOOL],
        "messages": [
            {"role": "user", "content": f"row={number}. A table please{'<|im_end|>' if odd else ''}"},
            {"role": "assistant", "content": f"<think>\n{THOUGHT}\n</think>", "tool_calls": [call]},
            {"role": "tool", "content": '{"booking": "B1"}', "tool_call_id": "c"},
            {"role": "assistant", "content": f"<think>\n{THOUGHT}\n</think>\n\nBooked."},
        ],
    }


def shards(folder: Path, rows: list[dict[str, Any]], names: list[str]) -> None:
    """Write the rows into files of these names, in the order in which they will be read."""
    names = sorted(names)
    each = -(-len(rows) // len(names))
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with RowWriter(folder / name) as writer:
            for row in rows[number * each : (number + 1) * each]:
                writer.write(row)


def read_all(folder: Path, pattern: str = "*") -> list[dict[str, Any]]:
    """Every row of the files of an output folder, in order; empty files have none."""
    found = []
    for path in sorted(folder.rglob(pattern)):
        if path.is_file() and path.name.endswith((".jsonl", ".parquet", ".gz")) and path.stat().st_size:
            found += [row.value for row in read_rows(str(path))] if _has_rows(path) else []
    return found


def _has_rows(path: Path) -> bool:
    if path.suffix != ".parquet":
        return bool(path.read_bytes().strip())
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).metadata.num_rows > 0


def summary_of(summary: Any) -> Any:
    """A summary without what names a shard, and without what caches and prices make of it."""
    value = summary.as_json()
    for key in ("problems", "cost", "cached", "seconds"):
        value.pop(key, None)
    return value


class LlmServer:
    """Says yes to rows, no to some, and fails for some; shortens every thinking section."""

    def __init__(self, no: set[int] = frozenset(), lost: set[int] = frozenset()):
        self.no, self.lost = no, lost
        self.calls: list[tuple[int, str | None]] = []
        self._server = OpenAIServer(self._say)

    def __enter__(self) -> LlmServer:
        self._server.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.__exit__(*error)

    def _say(self, body: dict[str, Any], _: int) -> Reply:
        user = body["messages"][1]["content"]
        if "row=" not in user:
            return says("I would rather talk about the weather.")
        number = int(user.split("row=")[1].split(".")[0])
        self.calls.append((number, body.get("reasoning_effort")))
        if number in self.lost:
            return refuses(500, "down")
        if "Shorten these sections" in user:
            return says(json.dumps({"sections": [{"index": n, "text": "Booking it."} for n in range(2)]}))
        answer = "no" if number in self.no else "yes"
        return says(json.dumps({"reason": "so", "turn": None, "step": None, "verdict": answer}))

    def models(self, price: float = 0.0) -> ModelsConfig:
        """The configuration that leads here."""
        role = {"base_url": self._server.url, "model": "m", "retries": 0, "max_tokens": 100}
        return msgspec.convert({"default": role | {"price": {"input": price, "output": price}}}, ModelsConfig)
