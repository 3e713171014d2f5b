"""`cm2 report RUN -o FILE`: what a run did, in numbers and in dialogues, as one HTML file."""

from __future__ import annotations

from typing import Annotated

import typer

from cm2.cli.common import Json, emit

SHOWN = 5


def register(app: typer.Typer) -> None:
    """Add the verb `report`."""

    @app.command()
    def report(
        run: Annotated[
            str, typer.Argument(metavar="RUN", help="A run folder, or a file of rollouts or labelled dialogues.")
        ],
        output: Annotated[str, typer.Option("-o", "--output", help="The HTML file.")],
        dialogues: Annotated[int, typer.Option(help="How many tasks are shown side by side.")] = 24,
        as_json: Json = False,
    ) -> None:
        """Write one HTML file: what came out, how training went, and the dialogues with their checklists."""
        import msgspec
        from rich.text import Text

        from cm2.report import ReportConfig, write_report

        summary = write_report(ReportConfig(run=run, output=output, dialogues=dialogues))
        shown = f"{summary.dialogues} of {summary.dialogues_available} tasks side by side"
        notes = [
            summary.headline,
            f"{summary.output}: {summary.bytes / 1e6:.2f} MB, {summary.evaluations} evaluations, "
            f"{summary.trainings} trainings, {shown}",
            *summary.absent,
            *summary.problems[:SHOWN],
        ]
        if len(summary.problems) > SHOWN:
            notes.append(f"… and {len(summary.problems) - SHOWN} more lines that do not read")
        emit(msgspec.to_builtins(summary), as_json, [Text(note) for note in notes])
