"""`cm2 label IN -o OUT`: checklists for reference dialogues."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from cm2.cli.common import Json, emit, track


def register(app: typer.Typer) -> None:
    """Add the verb `label`."""

    @app.command()
    def label(
        source: Annotated[
            str, typer.Argument(metavar="IN", help="Dialogues: .jsonl (.gz, .zst), Parquet or a folder.")
        ],
        output: Annotated[str, typer.Option("-o", "--output", help="The same rows with checklists.")],
        labeler: Annotated[str, typer.Option(help="reference: from the dialogue's data flow, no LLM.")] = "reference",
        jobs: Annotated[int, typer.Option("--jobs", "-j", help="Worker processes.")] = 1,
        format: Annotated[str, typer.Option(help="auto, openai or nemotron.")] = "auto",
        as_json: Json = False,
    ) -> None:
        """Write checklists with compiled checks that hold on their own reference; `cm2 lint OUT` confirms it."""
        from cm2.label.label_run import LabelConfig, label_file

        config = LabelConfig(input=source, output=output, labeler=labeler, jobs=jobs, format=format)
        summary = label_file(config, lambda rows: track(rows, "labelling"))
        mean = summary.as_json()["items_per_turn"]
        kinds = Table(title=f"{summary.items} items in {summary.labelled_turns} turns of {summary.dialogues} dialogues")
        for name in ("kind", "items", "share"):
            kinds.add_column(name, justify="left" if name == "kind" else "right")
        for kind, count in sorted(summary.kinds.items(), key=lambda pair: -pair[1]):
            kinds.add_row(kind, str(count), f"{count / summary.items:.1%}")
        left_out = Table(title="left out")
        for name in ("what", "reason", "count"):
            left_out.add_column(name, justify="right" if name == "count" else "left", overflow="fold")
        for what, counts in (("turn", summary.turns_out), ("item", summary.items_out)):
            for reason, count in sorted(counts.items(), key=lambda pair: -pair[1]):
                left_out.add_row(what, reason, str(count))
        notes = [
            f"{summary.labelled_turns} turns with a checklist ({mean:.1f} items each), "
            f"{summary.turns - summary.labelled_turns} without; {summary.strict} strict items, "
            f"{summary.dependent} that depend on others"
        ]
        if summary.without_checklist:
            notes.append(f"{summary.without_checklist} dialogues have no checklist")
        if summary.unreadable:
            notes.append(escape(f"{summary.unreadable} rows do not read: " + "; ".join(summary.problems)))
        notes.append(f"written to {output}")
        emit(summary.as_json(), as_json, [kinds, left_out, *notes])
