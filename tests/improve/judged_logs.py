"""Small judged logs for exports: dialogues written by hand, and their verdicts by checks or as a test wants them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cm2.assure.export import ExportConfig
from cm2.assure.export import export_file as run
from cm2.check import Called, Not, Reply
from cm2.dialogue import Dialogue, Step, Tool, ToolCall, ToolResponse, Turn
from cm2.formats import write_row
from cm2.judge.judge import ChecksJudge
from cm2.policy import Duty, Policy
from cm2.verdict import Verdict

NUMBER: dict[str, Any] = {"type": "object", "properties": {"order": {"type": "integer"}}}
TOOLS = [Tool("find", "Find an order.", NUMBER), Tool("refund", "Pay back.", NUMBER)]
FOUND = Duty("looks-up", "Is the order looked up?", scope="turn", severity="critical", check=Called("find"))
POLITE = Duty("polite", "Does it thank?", scope="turn", severity="minor", check=Reply(pattern="(?i)thank"))
TASTE = Duty("kind", "Is it kind?", scope="turn", severity="major")
QUIET = Duty("no-promise", "Is nothing promised?", scope="turn", severity="major", check=Not(Reply(pattern="promise")))
POLICY = Policy("shop", [FOUND, POLITE, QUIET])


def call(name: str, order: int = 7, answer: str = '{"state": "sent"}', reply: str | None = None, id: str = "") -> Step:
    """A step that calls a tool."""
    made = ToolCall(name, {"order": order}, id or None)
    return Step(reply=reply, calls=[made], responses=[ToolResponse(answer, id or None, name)])


def says(text: str = "It was sent. Thank you.", thinking: str | None = None) -> Step:
    """A step that replies."""
    return Step(thinking=thinking, reply=text)


def turn(*steps: Step, user: str = "Where is order 7?") -> Turn:
    return Turn(user, list(steps))


def good(user: str = "Where is order 7?") -> Turn:
    """A turn in which every duty holds."""
    return turn(call("find"), says(), user=user)


def dialogue(id: str, *turns: Turn, system: str | None = "Be kind.", **fields: Any) -> Dialogue:
    return Dialogue(id, list(turns), TOOLS, system, **fields)


def write(folder: Path, dialogues: Iterable[Dialogue], policy: Policy = POLICY, more: Iterable[Verdict] = ()) -> None:
    """The logs, and the verdicts of the checks of a policy."""
    logs, verdicts = list(dialogues), list[Verdict]()
    for one in logs:
        for checklist in policy.checklists(one):
            verdicts += ChecksJudge().judge(one, checklist.turn, checklist)
    (folder / "logs.jsonl").write_text("".join(json.dumps(write_row(one, "openai")) + "\n" for one in logs))
    lines(folder / "verdicts.jsonl", [*verdicts, *more])


def lines(path: Path, rows: Iterable[Any]) -> None:
    import msgspec

    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))


def export(
    folder: Path, exclusion: Any = None, more: Any = None, policy: Policy | None = POLICY, **settings: Any
) -> Any:
    """Export the logs; the summary and the rows."""
    name = "rows.parquet" if settings.get("form") == "verl" else "rows.jsonl"
    where = {"input": str(folder / "logs.jsonl"), "verdicts": str(folder / "verdicts.jsonl")}
    summary = run(ExportConfig(**where, output=str(folder / name), policy=policy, **settings), exclusion, more=more)
    if name.endswith("parquet"):
        import pyarrow.parquet

        return summary, pyarrow.parquet.read_table(folder / name).to_pylist()
    return summary, [json.loads(line) for line in (folder / name).read_text().splitlines()]
