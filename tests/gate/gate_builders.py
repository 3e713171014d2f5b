"""A shop whose agent refunds orders: runs that keep or break its duties, its policy, and suites about them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cm2.assure.gate import run_gate
from cm2.assure.suite import read_suite
from cm2.checklist import Task
from cm2.dialogue import Dialogue, Step, Tool, ToolCall, ToolResponse, Turn
from cm2.formats import write_task

TOOLS = [
    Tool("verify", "Verify who is asking.", {"type": "object", "properties": {"name": {"type": "string"}}}),
    Tool("refund", "Refund an order.", {"type": "object", "properties": {"order": {"type": "integer"}}}),
]

POLICY = """\
name: shop
duties:
  - id: identity-first
    question: Is the identity verified before a refund?
    severity: critical
    owner: "@shop/identity"
    applies_when: {type: called, tool: refund}
    check: {type: before, first: {type: called, tool: verify}, then: {type: called, tool: refund}}
  - id: states-amount
    question: Does a reply state the amount?
    owner: Ada
    applies_when: {type: called, tool: refund}
    check: {type: reply, states: [{any_of: [20], kind: number}]}
"""
TASTE = """\
  - id: polite
    question: Is the agent polite?
    severity: SEVERITY
"""


def run(id: str, verified: bool = True, stated: bool = True, refund: bool = True, **meta: Any) -> Dialogue:
    """A run: whether the identity was verified first, whether the reply states the amount, whether it refunds."""
    steps = []
    if verified:
        steps.append(step("verify", {"name": "Ada"}, '{"verified": true}', 0))
    if refund:
        steps.append(step("refund", {"order": 7}, '{"refunded": 20}', 1))
    steps.append(Step(reply="You get 20 dollars back." if stated else "Done."))
    return Dialogue(id, [Turn("Refund order 7, I am Ada.", steps)], TOOLS, "Be kind.", meta=meta)


def step(tool: str, arguments: dict[str, Any], answer: str, number: int) -> Step:
    """A call and its answer."""
    return Step(calls=[ToolCall(tool, arguments, f"c{number}")], responses=[ToolResponse(answer, f"c{number}", tool)])


def write(path: Path, tasks: Iterable[Task | Dialogue]) -> str:
    """A file of dialogues or tasks."""
    rows = [write_task(one if isinstance(one, Task) else Task(one), "openai") for one in tasks]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def policy(folder: Path, taste: str | None = None, text: str = POLICY) -> str:
    """The shop's policy; with a duty that has no check, of that severity."""
    path = folder / "policy.yaml"
    path.write_text(text + (TASTE.replace("SEVERITY", taste) if taste else ""))
    return str(path)


def suite(folder: Path, runs: Iterable[Dialogue | Task] | None, **fields: Any) -> Any:
    """A suite about these runs."""
    if runs is not None:
        fields["dialogues"] = write(folder / "runs.jsonl", runs)
    if "policy" not in fields:
        fields["policy"] = policy(folder)
    return read_suite(fields)


def gate(folder: Path, runs: Iterable[Dialogue | Task] | None, judge: Any = None, version: str = "", **fields: Any):
    """The result of a gate on these runs."""
    return run_gate(suite(folder, runs, **fields), judge=judge, version=version)


def states(result: Any) -> dict[str, str]:
    """Each rule's state."""
    return {rule.name: rule.state for rule in result.rules}


def statuses(result: Any, duty: str) -> dict[str, str]:
    """Each dialogue's status in a duty."""
    return {case.dialogue: case.status for case in result.cases if case.duty == duty}
