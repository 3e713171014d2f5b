"""Small logs for the monitor: dialogues of one reply that holds the word "fine" or does not, and who judges them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cm2.assure.monitor import Monitor, MonitorConfig
from cm2.assure.monitor_judge import Judges
from cm2.assure.monitor_log import Came, read_log
from cm2.assure.rules import Rule, Rules
from cm2.check import Reply
from cm2.judge.judge import ChecksJudge
from cm2.policy import Duty, Policy

FINE = Duty("says-fine", "Does the reply say fine?", scope="turn", severity="critical", check=Reply(pattern="fine"))
TASTE = Duty("is-kind", "Is the reply kind?", scope="turn", severity="minor")
POLICY = Policy("test", [FINE])


def row(id: str, fine: bool = True, text: str = "") -> dict[str, Any]:
    """A dialogue whose reply does its duty, or not."""
    reply = f"{text or 'All is'} {'fine' if fine else 'lost'}."
    return {"id": id, "messages": [{"role": "user", "content": "Well?"}, {"role": "assistant", "content": reply}]}


def lines(*rows: dict[str, Any]) -> bytes:
    """Rows as a file of lines."""
    return b"".join(json.dumps(one).encode() + b"\n" for one in rows)


def add(path: Path, *rows: dict[str, Any]) -> None:
    """Append rows to a log."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(lines(*rows))


def monitor(
    source: Path | str,
    folder: Path,
    rules: Sequence[Rule] | Rules = (),
    policy: Policy = POLICY,
    judge: Any = None,
    said: list[str] | None = None,
    stdin: Any = None,
    **settings: Any,
) -> Monitor:
    """A monitor by checks."""
    rules = rules if isinstance(rules, Rules) else Rules(rules=list(rules))
    config = MonitorConfig(input=str(source), output=str(folder), rules=rules, **settings)
    say = (lambda text: None) if said is None else said.append
    return Monitor(config, Judges(judge or ChecksJudge(), policy), say, stdin)


def look(source: Path | str, folder: Path, *args: Any, **settings: Any) -> int:
    """Open a monitor, look once, close it; the dialogues that it judged."""
    with monitor(source, folder, *args, **settings) as running:
        return running.look()


def counted(folder: Path) -> list[tuple[str, str, dict[str, str]]]:
    """The dialogues of a monitor's log: id, rollout and results."""
    events = [event for _, event in read_log(str(folder / "log.jsonl"))]
    return [(event.dialogue, event.rollout, dict(event.results)) for event in events if isinstance(event, Came)]


def rows_of(path: Path) -> list[Any]:
    """The rows of a file of lines."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
