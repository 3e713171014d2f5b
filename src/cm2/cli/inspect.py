"""`cm2 inspect FILE`: what a file holds, or one dialogue of it, for a person to read."""

from __future__ import annotations

from typing import Annotated

import typer

from cm2.cli.common import Json, emit, out, track


def register(app: typer.Typer) -> None:
    """Add the verb `inspect`."""

    @app.command()
    def inspect(
        source: Annotated[
            str, typer.Argument(metavar="FILE", help="Dialogues or rollouts: .jsonl, .jsonl.gz, Parquet or a folder.")
        ],
        dialogue: Annotated[
            str | None,
            typer.Option("--dialogue", "-d", help="Show this one: its id, or its number from 1."),
        ] = None,
        plot: Annotated[str | None, typer.Option(help="Draw the statistics into FILE.png (or .svg, .pdf).")] = None,
        model: Annotated[
            str | None, typer.Option(help="Count tokens with this model's tokenizer (a folder, a name, or 'embedded').")
        ] = None,
        format: Annotated[str, typer.Option(help="auto, openai or nemotron.")] = "auto",
        as_json: Json = False,
    ) -> None:
        """Show the statistics of a file, or one dialogue with its checklists."""
        from pathlib import Path

        from cm2.curate.statistics import Statistics
        from cm2.report.entries import find_entry, read_entries

        statistics = Statistics()
        entries = read_entries(source, format, statistics.unread)
        if dialogue is not None:
            import msgspec

            from cm2.report.terminal import transcript

            entry = find_entry(entries, dialogue, source)
            verdicts = entry.rollout.verdicts if entry.rollout is not None else []
            shown = None if as_json else transcript(entry.task, out.width, verdicts)
            emit({"line": entry.line, **msgspec.to_builtins(entry.task)}, as_json, shown)
            return
        from rich.text import Text

        from cm2.report.figure import check_figure, draw_statistics
        from cm2.report.terminal import tables
        from cm2.report.text import visible

        if plot is not None:
            check_figure(plot)
        count = None
        if model is not None:
            from cm2.train.counting import token_counter

            count = token_counter(model)
            statistics.tokens_by = f"tokenizer of {model}, without a chat template"
        for entry in track(entries, "reading"):
            statistics.add(entry.task, count)
        notes = []
        if statistics.unreadable:
            problems = "; ".join(statistics.problems)
            notes.append(Text(visible(f"{statistics.unreadable} rows do not read: {problems}")))
        if plot is not None:
            draw_statistics(statistics, plot, f"{Path(source).name}: {statistics.dialogues:,} dialogues")
            notes.append(Text(visible(f"figure: {plot}")))
        emit(statistics.as_json(), as_json, [*tables(statistics), *notes])
