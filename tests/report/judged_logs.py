"""Logs, a policy and verdicts made by hand: small, without chance, every number known."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import yaml

from cm2.assure.outcomes import Judged, Outcome
from cm2.checklist import Item
from cm2.dialogue import Dialogue, Step, ToolCall, Turn
from cm2.verdict import Pointer, Verdict

CALLS, CONTENT, REPLY = "assistant.tool_calls", "tool.content", "assistant.content.user_visible_reply"


def item(id: str = "confirm", severity: Any = "major", **more: Any) -> Item:
    """A duty of a policy."""
    return Item(id, CALLS, f"Is {id} kept?", "yes", 1.0, severity=severity, **more)


def outcome(result: str, duty: Item | None = None, reason: str = "so", turn: int = -1, **more: Any) -> Outcome:
    """An outcome with its verdict; `more` goes to the verdict."""
    met = {"pass": True, "fail": False}.get(result)
    verdict = Verdict(
        "d", turn, turn, (duty or item()).id, met, reason=reason, applies=result != "not_applicable", **more
    )
    return Outcome("d", "", 0, turn, duty or item(), result, verdict, verdict.cost)  # type: ignore[arg-type]


def judged(outcomes: Iterable[Outcome], id: str = "d", line: int = 1) -> Judged:
    """A dialogue of one turn with these outcomes."""
    step = Step(calls=[ToolCall("book", {"seats": 4}, "c1"), ToolCall("pay", {"amount": 9}, "c2")])
    return Judged(line, Dialogue(id, [Turn("hello", [step, Step(reply="done")])]), "", list(outcomes))


DUTIES: list[dict[str, Any]] = [
    {"id": "confirm", "question": "Is a booking confirmed first?", "severity": "critical", "owner": "Ann"},
    {"id": "polite", "question": "Is every reply polite?", "severity": "minor", "scope": "turn", "focus_on": REPLY},
    {"id": "escalate", "question": "Is a person called where it must be?", "severity": "major"},
]


def row(id: str, words: str = "Book a table for four.", reply: str = "Booked for you, table T4.") -> dict[str, Any]:
    """A dialogue of two turns in the openai format: a booking, and thanks."""
    call = {"id": "c1", "type": "function", "function": {"name": "book", "arguments": '{"seats":4}'}}
    return {
        "id": id,
        "tools": [{"type": "function", "function": {"name": "book", "description": "Books.", "parameters": {}}}],
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": words},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": '{"table":"T4"}'},
            {"role": "assistant", "content": reply},
            {"role": "user", "content": "Thanks."},
            {"role": "assistant", "content": "You are welcome."},
        ],
    }


def verdicts(id: str, confirm: bool = True, polite: tuple[bool, bool] = (True, True), **more: Any) -> list[Verdict]:
    """The verdicts on one such dialogue; the duty to escalate has no occasion."""
    why = "book was called" if confirm else 'book was called with "4" before a yes'
    call = [Pointer(0, 0, CALLS, 'book({"seats":4})')]
    said = [Pointer(0, 1, REPLY, "Booked for you"), Pointer(1, 0, REPLY, "")]
    return [
        Verdict(id, -1, -1, "confirm", confirm, reason=why, evidence=call, **more),
        *(
            Verdict(
                id, turn, 1 - turn, "polite", met, reason="kind" if met else "curt", evidence=[said[turn]], judge="llm"
            )
            for turn, met in enumerate(polite)
        ),
        Verdict(id, -1, -1, "escalate", None, applies=False, reason="no occasion"),
    ]


class Files(msgspec.Struct):
    """Where they were written."""

    logs: str
    verdicts: str
    policy: str


def write(
    folder: Path, rows: list[dict[str, Any]], store: Iterable[Verdict], duties: list[dict[str, Any]] = DUTIES
) -> Files:
    """Write logs, verdicts and a policy."""
    folder.mkdir(parents=True, exist_ok=True)
    files = Files(str(folder / "logs.jsonl"), str(folder / "verdicts.jsonl"), str(folder / "policy.yaml"))
    Path(files.logs).write_text("".join(json.dumps(each) + "\n" for each in rows))
    Path(files.verdicts).write_text("".join(json.dumps(msgspec.to_builtins(each)) + "\n" for each in store))
    Path(files.policy).write_text(yaml.safe_dump({"name": "shop", "duties": duties}))
    return files


def sample(folder: Path, n: int = 6, failing: int = 2) -> Files:
    """`n` dialogues of which the first `failing` miss the critical duty; the first is curt in both turns."""
    rows = [row(f"d{number}", f"Book table {number}.") for number in range(n)]
    store = [
        verdict
        for number in range(n)
        for verdict in verdicts(f"d{number}", number >= failing, (number > 0, number > 0))
    ]
    return write(folder, rows, store)


def payloads() -> list[str]:
    """The corpus of attacks on a page."""
    folder = Path(__file__).resolve().parents[1] / "corpus" / "xss"
    return [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()]
