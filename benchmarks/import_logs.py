"""Importing logs: dialogues a second and peak memory of `cm2 import`, for logs that grow tenfold.

    python benchmarks/import_logs.py                    # 10,000 and 100,000 dialogues, every kind of log
    python benchmarks/import_logs.py --count 2000 --kinds chat spans

Each run is a process of its own, so that its peak memory is its own. The kinds are those that differ in how they are
read: chat rows line by line, the same in one JSON array, calls of a model that repeat the history (a proxy's log),
spans of which those of one trace lie far apart, and observations with their scores in another file. Every dialogue has
two turns, two parallel calls, one error and a reply; none is like another. Times are CPU seconds of the process.
Everything is included: reading, detecting, putting traces together, writing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Value = dict[str, Any]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Do {name}",
            "parameters": {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]},
        },
    }
    for name in ("get_order", "cancel_order", "refund", "search")
]


def talk(number: int) -> list[Value]:
    """The messages of dialogue `number`."""
    draw = random.Random(number)
    orders = [f"A{draw.randrange(10**8)}" for _ in range(2)]
    calls = [
        {
            "id": f"c{number}-{i}",
            "type": "function",
            "function": {"name": "get_order", "arguments": f'{{"order": "{id}"}}'},
        }
        for i, id in enumerate(orders)
    ]
    found = json.dumps({"order": orders[0], "lines": [{"item": f"item {i}", "price": i * 3.5} for i in range(12)]})
    last = {"name": "cancel_order", "arguments": f'{{"order": "{orders[0]}"}}'}
    return [
        {"role": "system", "content": "You look after the orders of a shop. Confirm before you change anything. " * 6},
        {"role": "user", "content": f"What is with {orders[0]} and {orders[1]}? (customer {number})"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": calls[0]["id"], "content": found},
        {"role": "tool", "tool_call_id": calls[1]["id"], "content": '{"error": "no such order"}'},
        {"role": "assistant", "content": f"{orders[0]} is on its way, {orders[1]} does not exist."},
        {"role": "user", "content": f"Then cancel {orders[0]}."},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": f"c{number}-2", "type": "function", "function": last}],
        },
        {"role": "tool", "tool_call_id": f"c{number}-2", "content": '{"cancelled": true}'},
        {"role": "assistant", "content": f"{orders[0]} is cancelled."},
    ]


def turns(messages: list[Value]) -> Iterator[tuple[list[Value], Value]]:
    """The calls of a model behind a dialogue: what it saw, what it said."""
    for at, message in enumerate(messages):
        if message["role"] == "assistant":
            yield messages[:at], message


def chat(path: Path, count: int) -> list[str]:
    """One dialogue a line."""
    with open(path / "chat.jsonl", "w") as out:
        for number in range(count):
            out.write(json.dumps({"id": str(number), "tools": TOOLS, "messages": talk(number)}) + "\n")
    return ["chat.jsonl"]


def array(path: Path, count: int) -> list[str]:
    """The same in one array, indented."""
    with open(path / "array.json", "w") as out:
        for number in range(count):
            row = {"id": str(number), "tools": TOOLS, "messages": talk(number)}
            out.write(("[" if not number else ",\n") + json.dumps(row, indent=1))
        out.write("]")
    return ["array.json"]


def calls(path: Path, count: int) -> list[str]:
    """A proxy's log of requests and responses, 32 conversations at a time."""
    with open(path / "calls.jsonl", "w") as out:
        for first in range(0, count, 32):
            logs = [list(turns(talk(number))) for number in range(first, min(first + 32, count))]
            for step in range(4):
                for log in logs:
                    before, after = log[step]
                    request = {"model": "m", "messages": before, "tools": TOOLS}
                    out.write(json.dumps({"request": request, "response": {"choices": [{"message": after}]}}) + "\n")
    return ["calls.jsonl"]


def spans(path: Path, count: int) -> list[str]:
    """OTLP JSON, one span a line: the first spans of all traces, then the second, …"""
    with open(path / "spans.jsonl", "w") as out:
        for step in range(4):
            for number in range(count):
                before, after = list(turns(talk(number)))[step]
                attributes = {
                    "gen_ai.operation.name": "chat",
                    "gen_ai.input.messages": json.dumps([parts(message) for message in before]),
                    "gen_ai.output.messages": json.dumps([parts(after)]),
                    "gen_ai.tool.definitions": json.dumps(TOOLS),
                }
                listed = [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()]
                span = {"traceId": f"{number:032x}", "spanId": f"{number * 4 + step:016x}", "attributes": listed}
                span |= {"startTimeUnixNano": str(10**18 + step), "name": "chat m"}
                out.write(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}) + "\n")
    return ["spans.jsonl"]


def parts(message: Value) -> Value:
    """A message in the form of the semantic conventions."""
    if message["role"] == "tool":
        inner = {"type": "tool_call_response", "id": message["tool_call_id"], "response": message["content"]}
        return {"role": "tool", "parts": [inner]}
    said = [{"type": "text", "content": message["content"]}] if message["content"] else []
    for call in message.get("tool_calls", []):
        arguments = json.loads(call["function"]["arguments"])
        said.append({"type": "tool_call", "id": call["id"], "name": call["function"]["name"], "arguments": arguments})
    return {"role": message["role"], "parts": said}


def langfuse(path: Path, count: int) -> list[str]:
    """Observations in one file, scores in another."""
    with open(path / "observations.jsonl", "w") as out:
        for number in range(count):
            for step, (before, after) in enumerate(turns(talk(number))):
                row = {"id": f"o{number}-{step}", "traceId": f"t{number}", "type": "GENERATION", "output": after}
                row |= {"startTime": f"2026-01-01T00:00:0{step}Z", "input": {"messages": before, "tools": TOOLS}}
                out.write(json.dumps(row) + "\n")
    with open(path / "scores.jsonl", "w") as out:
        for number in range(count):
            row = {"id": f"s{number}", "traceId": f"t{number}", "name": "helpful", "value": 1, "dataType": "NUMERIC"}
            out.write(json.dumps(row) + "\n")
    return ["observations.jsonl", "scores.jsonl"]


KINDS: dict[str, Callable[[Path, int], list[str]]] = {
    "chat": chat,
    "array": array,
    "calls": calls,
    "spans": spans,
    "langfuse": langfuse,
}


def measured(folder: str, files: list[str]) -> None:
    """Import, in this process, and print what it took."""
    from cm2.imports import ImportConfig, import_logs

    begun = time.process_time()
    summary = import_logs(ImportConfig(inputs=[f"{folder}/{file}" for file in files], output=f"{folder}/out.jsonl"))
    used = time.process_time() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    told = {"seconds": used, "peak_mb": peak, "records": summary.read, "dialogues": summary.dialogues}
    print(json.dumps(told | {"rejected": summary.rejected}))


def main() -> None:
    """Measure every kind at every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--folder", help="where the logs are made; a temporary folder without it")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        return measured(arguments.measure[0], arguments.measure[1:])
    print(f"{'log':<10}{'dialogues':>11}{'records':>10}{'MB':>8}{'dialogues/s':>13}{'MB/s':>7}{'peak MB':>9}")
    for kind in arguments.kinds:
        for count in arguments.count:
            with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
                files = KINDS[kind](Path(folder), count)
                size = sum(os.path.getsize(f"{folder}/{file}") for file in files) / 1e6
                command = [sys.executable, __file__, "--measure", folder, *files]
                out = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
            assert out["dialogues"] == count and not out["rejected"], out
            rate, speed = count / out["seconds"], size / out["seconds"]
            print(
                f"{kind:<10}{count:>11,}{out['records']:>10,}{size:>8,.0f}{rate:>13,.0f}{speed:>7.1f}{out['peak_mb']:>9.0f}"
            )


if __name__ == "__main__":
    main()
