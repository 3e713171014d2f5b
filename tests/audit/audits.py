"""Judged logs of one's own making: a policy, dialogues, and a store of verdicts with known doubts and errors."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from cm2.assure.audit import SampleConfig, draw
from cm2.assure.audit.binding import write_sample
from cm2.assure.audit.book import Book

POLICY = """\
# The shop's duties, as its owner wrote them.
name: shop
version: "1.4"
duties:
  - id: identity-first
    question: Was the customer identified before anything was looked up?
    severity: critical
    owner: ana
    check: {type: called, tool: find_customer}
  - id: confirm-before-refund
    question: Did the customer say yes before the refund was made?
    pass_condition: A yes stands before the call.
    severity: major
    applies_when: {type: called, tool: refund}
  - id: polite
    question: Is the reply polite?
    severity: minor
"""
DUTIES = ("identity-first", "confirm-before-refund", "polite")


def row(number: int, reply: str = "Refunded.") -> dict:
    call = {"name": "refund", "arguments": json.dumps({"order": f"o-{number}"})}
    return {
        "id": f"d{number}",
        "messages": [
            {"role": "user", "content": f"Please refund order o-{number}."},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": call}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": json.dumps({"refunded": f"o-{number}"})},
            {"role": "assistant", "content": reply},
        ],
        "tools": [],
    }


def verdicts(number: int) -> list[dict]:
    """Of dialogue `number`: a check's, a vote's and a single judgement's; some unscored, some not applicable."""
    place = {"dialogue": f"d{number}", "turn": -1, "step": -1}
    fails = number % 5 == 0
    refund = {"turn": 0, "step": 0, "part": "assistant.tool_calls", "snippet": f'refund({{"order":"o-{number}"}})'}
    identity = {
        "item": "identity-first",
        "met": not fails,
        "reason": "find_customer came too late" if fails else "",
        "evidence": [refund],
    }
    if number % 11 == 0:
        confirm = {"item": "confirm-before-refund", "met": None, "applies": False, "reason": "no refund"}
    elif number % 7 == 0:
        confirm = {"item": "confirm-before-refund", "met": None, "owner": "judge", "reason": "unscored: no answer"}
    else:
        votes = [True, True, False] if number % 3 == 0 else [True] * 3
        confirm = {"item": "confirm-before-refund", "met": True, "votes": votes, "judge": "m"}
        if number % 4 == 0:
            confirm |= {"met": False, "votes": [False, False, not bool(number % 8)]}
    polite = {"item": "polite", "met": number % 10 != 0, "judge": "m", "reason": "words"}
    return [place | one for one in (identity, confirm, polite)]


def logs(folder: Path, count: int = 60, reply: str = "Refunded.") -> dict[str, str]:
    """The three files, as settings of a sample."""
    files = {"logs": folder / "logs.jsonl", "verdicts": folder / "verdicts.jsonl", "policy": folder / "policy.yaml"}
    files["logs"].write_text("".join(json.dumps(row(n, reply)) + "\n" for n in range(count)))
    files["verdicts"].write_text("".join(json.dumps(one) + "\n" for n in range(count) for one in verdicts(n)))
    files["policy"].write_text(POLICY)
    return {name: str(path) for name, path in files.items()}


def audit(folder: Path, count: int = 60, place: str | None = None, reply: str = "Refunded.", **settings) -> str:
    """An audit of such logs; its place."""
    settings = {"count": 40, "unscored": 3, "not_applicable": 2} | settings
    place = place or str(folder / "audit.sqlite")
    write_sample(draw(SampleConfig(**logs(folder, count, reply), **settings)), place)
    return place


def agree(place: str, reviewer: str = "ana", wrong: tuple[int, ...] = ()) -> None:
    """Let somebody review all cases with a yes or no: as the judge says, but for some."""
    with Book(place) as book:
        for case in book.cases():
            if case.kind in ("pass", "fail"):
                other = "fail" if case.kind == "pass" else "pass"
                decision = other if case.id in wrong else case.kind
                book.review(case.id, reviewer, decision, reason="seen")


@contextmanager
def served(place: str, *flags: str):
    """The address that `cm2 audit serve` prints, in a process of its own, and the process."""
    call = "import typer; from cm2.cli import audit; app = typer.Typer(); audit.register(app); app()"
    command = [sys.executable, "-c", call, "audit", "serve", place, "--port", "0", *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        ready, _, _ = select.select([process.stdout], [], [], 120)
        line = process.stdout.readline().strip() if ready else ""
        assert line.startswith("http://"), process.stderr.read() if process.poll() is not None else "no address"
        yield line, process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait(30)
        process.stdout.close(), process.stderr.close()
