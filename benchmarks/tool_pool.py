"""Worlds with thousands of tools: how fast they start, what they hold in memory, and whether every tool can be called.

    python benchmarks/tool_pool.py [POOL.jsonl[.gz]] [--dialogues 100]

The pool is a file of OpenAI function tools, one a line (`tool` or the tool itself; default: mcp_tool_pool.jsonl.gz in
$CM2_DATA). Every tool is called with arguments that are drawn to fit its schema, in each mode of the simulator. The
language model is a script that answers at once, so what is measured is ours, in processor time. A session makes 50
calls, then another one begins. Without a pool one of the same size is made.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import random
import resource
import time
from collections import Counter
from pathlib import Path
from typing import Any

from cm2.checklist import Task
from cm2.dialogue import Dialogue, Step, Tool, ToolCall, ToolResponse, Turn
from cm2.llm import Answer
from cm2.rollout import Environment
from cm2.simulate import SimulatorConfig, simulated
from cm2.simulate.instance import instance
from cm2.simulate.schema import ArgumentSchema


class Script:
    """An asker that gives the planned answer at once."""

    secret = "benchmark"

    def __init__(self) -> None:
        self.characters: list[int] = []

    async def ask(self, request: Any, check: Any = None) -> Answer:
        """See `Asker.ask`."""
        self.characters.append(sum(len(one["content"]) for one in request.messages))
        return Answer(request.planned)


def pool(path: str | None) -> list[Tool]:
    """The tools of a file, each under a name of its own; made-up ones where there is no file."""
    if path is None:
        text = {"type": "string"}
        return [Tool(f"get_thing_{n}", f"Look up thing {n}.", _object(id=text)) for n in range(5179)]
    tools: dict[str, Tool] = {}
    with gzip.open(path, "rt") if path.endswith(".gz") else open(path) as file:
        for line in file:
            row = json.loads(line)
            function = row.get("tool", row).get("function", row)
            name = function["name"]
            while name in tools:
                name += "_"
            tools[name] = Tool(name, function.get("description") or "", function.get("parameters") or {})
    return list(tools.values())


def task(tools: list[Tool], number: int = 0) -> Task:
    """A dialogue with two recorded calls among all these tools."""
    own = [Tool("get_order", "Show the order", _object(order_id={"type": "string"}))]
    answer = ToolResponse(json.dumps({"order_id": f"A{number}", "lines": 2}), None, "get_order")
    step = Step(calls=[ToolCall("get_order", {"order_id": f"A{number}"})], responses=[answer])
    return Task(Dialogue(f"pool-{number}", [Turn("My order?", [step, Step(reply="Two lines.")])], own + tools))


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def memory() -> float:
    """Memory of this process now, in MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def start(tools: list[Tool], dialogues: int) -> None:
    """Time from a task to an environment that is ready for the first action."""
    make = simulated(SimulatorConfig(kind="llm"), Script())
    tasks = [task(tools, number) for number in range(dialogues)]
    before, began = memory(), time.process_time()
    ready = [Environment(one, make(one, 0).session()) for one in tasks]
    seconds = time.process_time() - began
    print(f"start      {len(ready)} dialogues, each its own world with {len(tools) + 1:,} tools: "
          f"{1e3 * seconds / len(ready):.2f} ms and {(memory() - before) / len(ready):.2f} MB each")  # fmt: skip


def calls_of(tools: list[Tool]) -> list[ToolCall]:
    """One call of every tool."""
    began, found, broken = time.process_time(), [], 0
    for number, tool in enumerate(tools):
        found.append(ToolCall(tool.name, instance(tool.parameters, random.Random(number)), f"c{number}"))
        broken += ArgumentSchema(tool).broken
    print(f"arguments  {len(found):,} drawn, {broken} for schemas that do not compile, "
          f"{1e3 * (time.process_time() - began) / len(tools):.2f} ms each")  # fmt: skip
    return found


async def call_all(kind: Any, tools: list[Tool], calls: list[ToolCall]) -> None:
    """Call every tool once."""
    script = Script()
    world = simulated(SimulatorConfig(kind=kind), script)(task(tools), 0)
    origins: Counter[str] = Counter()
    before, began = memory(), time.process_time()
    for first in range(0, len(calls), 50):
        session = world.session()
        origins.update([(await session.respond_async(call)).origin for call in calls[first : first + 50]])
    seconds = time.process_time() - began
    asked = f", question {sum(script.characters) / len(calls):,.0f} characters" if script.characters else ""
    print(f"{kind:<10} {dict(origins)}, {1e3 * seconds / len(calls):.2f} ms each, "
          f"{memory() - before:+.0f} MB{asked}")  # fmt: skip


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    beside = Path(os.environ.get("CM2_DATA", "../shared/data")) / "mcp_tool_pool.jsonl.gz"
    parser.add_argument("file", nargs="?", default=str(beside) if beside.exists() else None, help="a pool of tools")
    parser.add_argument("--dialogues", type=int, default=100, help="worlds that are open at once")
    args = parser.parse_args()
    first = memory()
    tools = pool(args.file)
    print(f"pool       {len(tools):,} tools from {args.file or 'here (made up)'}, {memory() - first:.0f} MB")
    start(tools, args.dialogues)
    calls = calls_of(tools)
    for kind in ("replay", "fallback", "schema", "llm"):
        asyncio.run(call_all(kind, tools, calls))
    print(f"peak       {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB of the process")


if __name__ == "__main__":
    main()
