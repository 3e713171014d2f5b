"""How fast the environment itself is: steps a second with agents that take no time, and 1,000 dialogues at once.

    python benchmarks/environment.py [TASKS.jsonl[.gz]] [--at-once 1000]

Everything is measured in one process on one core, judge (compiled checks) and simulated world included. The dialogues
are made here; those of a file (default: Taskmaster-4 in $CM2_DATA, where that folder exists) are measured as well.
Agents: `replay` does what the reference did, every call answered from the record; `astray` changes each call's
arguments, so that the fallback has to make up the answer. A model takes 0.1 to 10 s a step: the environment is fast
enough where it costs less than a thousandth of that.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from cm2.check import Called, Equals, Fact, Reply
from cm2.checklist import Checklist, Item, Task
from cm2.dialogue import Dialogue, Step, Tool, ToolCall, ToolResponse, Turn
from cm2.formats import read_tasks
from cm2.rollout import Environment, Rollout
from cm2.rollout.agents import Action, ReplayAgent, ScriptedAgent, reference_step
from cm2.rollout.run import run_rollouts

TEXT = {"type": "string"}
FIND = {"type": "object", "properties": {"query": TEXT, "limit": {"type": "integer"}}, "required": ["query"]}
ADD = {
    "type": "object",
    "properties": {"item_id": TEXT, "quantity": {"type": "integer", "minimum": 1}},
    "required": ["item_id", "quantity"],
    "additionalProperties": False,
}
TOOLS = [
    Tool("find_items", "Search the menu", FIND),
    Tool("add_item", "Add an item to the order", ADD),
    Tool("get_order", "Show the order", {"type": "object", "properties": {"order_id": TEXT}}),
]


def made_task(number: int, turns: int = 3) -> Task:
    """A shop's dialogue: in every turn a search, a write, a look at the result and a reply; four items a turn."""
    order = f"{50000 + number}"
    reference, checklists = [], []
    for t in range(turns):
        item = f"item-{1000 + 17 * number + t}"
        menu = {"items": [{"item_id": item, "name": f"Blend {t}", "price": 3.5 + t}] * 5, "total": 5}
        added = {"order_id": order, "line_id": f"line-{2000 + t}", "quantity": t + 1}
        steps = [
            call("find_items", {"query": f"blend {t}"}, menu),
            call("add_item", {"item_id": item, "quantity": t + 1}, added),
            call("get_order", {"order_id": order}, {"order_id": order, "lines": t + 1}),
            Step(thinking="All is there.", reply=f"Your order {order} now has {t + 1} lines."),
        ]
        reference.append(Turn(f"Please add {t + 1} of blend {t} to order {order}.", steps))
        wanted = Called("add_item", {"item_id": Equals(item), "quantity": Equals(t + 1)})
        items = [
            duty("C0", "assistant.tool_calls", Called("find_items", answered=True), False),
            duty("C1", "assistant.tool_calls", wanted, True),
            duty("C2", "assistant.tool_calls", Called("get_order", {"order_id": Equals(order)}), False),
            duty("C3", "assistant.content.user_visible_reply", Reply(states=[Fact([order])]), False),
        ]
        checklists.append(Checklist(t, items))
    return Task(Dialogue(f"made-{number}", reference, TOOLS, system="You take orders."), checklists)


def call(name: str, arguments: dict, answer: dict) -> Step:
    """One answered call."""
    return Step(calls=[ToolCall(name, arguments)], responses=[ToolResponse(json.dumps(answer), None, name)])


def duty(id: str, focus: str, check, strict: bool) -> Item:
    """One item of four."""
    return Item(id, focus, f"Is {id} so?", "As the check says.", 0.25, required_for_next_turn=strict, check=check)


def astray(environment: Environment) -> Step:
    """The reference's step with the text of its arguments changed."""
    step = reference_step(environment)
    if not step.calls:
        return step
    calls = [
        msgspec.structs.replace(
            one,
            arguments={k: f"{v} x" if isinstance(v, str) else v for k, v in one.arguments.items()}
            if isinstance(one.arguments, dict)
            else one.arguments,
        )
        for one in step.calls
    ]
    return Step(step.thinking, step.reply, calls)


class Together(ReplayAgent):
    """Replays, but lets every other rollout go first: all of them are open at once."""

    name = "together"

    async def act(self, environment: Environment, seed: int) -> Action:
        """See `Agent.act`."""
        await asyncio.sleep(0)
        return await super().act(environment, seed)


async def run(tasks: list[Task], agent, concurrency: int) -> tuple[int, int, float]:
    """Steps, rollouts and seconds of processor time."""
    steps = count = 0
    start = time.process_time()
    async for rollout in run_rollouts(iter(tasks), agent, concurrency=concurrency):
        steps += steps_of(rollout)
        count += 1
        if rollout.failure is not None and rollout.failure.owner != "data":
            raise SystemExit(f"a rollout failed: {rollout.failure}")
    return steps, count, time.process_time() - start


def steps_of(rollout: Rollout) -> int:
    """How many steps the agent took."""
    return sum(len(turn.steps) for turn in rollout.dialogue.turns)


def measure(name: str, tasks: list[Task], at_once: int) -> None:
    """Print one block of results."""
    print(f"\n{name}: {len(tasks)} dialogues, {sum(len(t.steps) for one in tasks for t in one.dialogue.turns)} steps")
    for label, agent in (("replay", ReplayAgent()), ("astray", ScriptedAgent(astray, "astray"))):
        steps, _, seconds = asyncio.run(run(tasks, agent, 1))
        per = 1e6 * seconds / steps
        print(
            f"  {label:<9} {steps:>6} steps in {seconds:6.2f} s = {steps / seconds:>8.0f} steps/s ({per:.0f} µs each)"
        )
    many = [tasks[i % len(tasks)] for i in range(at_once)]
    steps, count, seconds = asyncio.run(run(many, Together(), at_once))
    rate = steps / seconds
    print(f"  at once   {count:>6} dialogues, {steps} steps in {seconds:6.2f} s = {rate:>8.0f} steps/s")
    print(f"  peak memory of the process so far: {peak():.0f} MB")


def peak() -> float:
    """Peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure the made dialogues, then those of a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    beside = Path(os.environ.get("CM2_DATA", "../shared/data")) / "taskmaster4.jsonl.gz"
    parser.add_argument("file", nargs="?", default=str(beside) if beside.exists() else None, help="tasks to measure on")
    parser.add_argument("--at-once", type=int, default=1000, help="dialogues open at once")
    parser.add_argument("--limit", type=int, default=1000, help="dialogues of the file")
    args = parser.parse_args()
    measure("made here", [made_task(number) for number in range(500)], args.at_once)
    if args.file:
        measure(Path(args.file).name, list(first(args.file, args.limit)), args.at_once)
    else:
        print("\nno file of real dialogues (give one, or set CM2_DATA): only the made ones were measured")


def first(path: str, limit: int) -> Iterator[Task]:
    """The first dialogues of a file that hold a user message."""
    for _, task in read_tasks(path, on_error=lambda row: None):
        if task.dialogue.turns:
            yield task
            limit -= 1
        if not limit:
            return


if __name__ == "__main__":
    main()
