"""`cm2 judge IN -o VERDICTS`: what the agent did, item by item and step by step."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from cm2.cli.common import Json, emit, track


def register(app: typer.Typer) -> None:
    """Add the verb `judge`."""

    @app.command()
    def judge(
        source: Annotated[str, typer.Argument(metavar="IN", help="Dialogues: .jsonl, .jsonl.gz, Parquet or a folder.")],
        output: Annotated[str, typer.Option("-o", "--output", help="The store of verdicts (JSONL, resumable).")],
        checklists: Annotated[
            str | None, typer.Option(help="A labelled file to judge by (same dialogue ids), when IN has no checklists.")
        ] = None,
        format: Annotated[str, typer.Option(help="auto, openai or nemotron.")] = "auto",
        as_json: Json = False,
    ) -> None:
        """Judge dialogues by the checks of their checklists; unscored is never a no."""
        from cm2.judge.run import JudgeConfig, judge_file

        config = JudgeConfig(input=source, output=output, checklists=checklists, format=format)
        summary = judge_file(config, progress=lambda tasks: track(tasks, "judging"))
        table = Table(title=f"{summary.dialogues} dialogues, {summary.turns} turns, {summary.verdicts} verdicts")
        for name in ("kind", "items", "passed", "failed", "not reached", "unscored", "pass rate"):
            table.add_column(name, justify="left" if name == "kind" else "right")
        for kind, tally in [*sorted(summary.kinds.items()), ("all", summary.total)]:
            rate = "–" if tally.pass_rate is None else f"{tally.pass_rate:.1%}"
            counts = (tally.items, tally.passed, tally.failed, tally.not_reached, tally.unscored)
            table.add_row(kind, *map(str, counts), rate)
        notes = [f"{summary.written} new verdicts written to {output}"]
        if summary.without_checklist:
            notes.append(f"{summary.without_checklist} dialogues have no checklist")
        if summary.duplicates:
            notes.append(f"{summary.duplicates} dialogues repeat an id; their verdicts carry rollout 2, 3 …")
        if summary.unreadable:
            notes.append(f"{summary.unreadable} lines do not read: " + "; ".join(summary.problems))
        emit(summary.as_json(), as_json, [table, *notes])
