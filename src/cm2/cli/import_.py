"""`cm2 import IN… -o OUT`: logs of outside tools to rows of dialogues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from cm2.cli.common import Json, emit, track

if TYPE_CHECKING:
    from cm2.imports import Summary


def register(app: typer.Typer) -> None:
    """Add the verb `import`."""

    @app.command("import")
    def import_(
        inputs: Annotated[
            list[str],
            typer.Argument(
                metavar="IN…", help="Logs: JSON lines or documents, Parquet, .eval, .zip, .gz, .zst, folders."
            ),
        ],
        output: Annotated[str, typer.Option("-o", "--output", help="The dialogues, as rows of chat messages.")],
        format: Annotated[
            str,
            typer.Option(
                "--from",
                help="auto, openai, responses, anthropic, otel, openinference, langfuse, langsmith, phoenix, inspect, "
                "tau, huggingface or mcp.",
            ),
        ] = "auto",
        rejected: Annotated[
            str | None, typer.Option(help="Records that became no dialogue, with reasons. Default: OUT.rejected.jsonl.")
        ] = None,
        report: Annotated[
            str | None, typer.Option(help="A line for each part that was not mapped, was kept aside, or was made.")
        ] = None,
        as_json: Json = False,
    ) -> None:
        """Read the logs of other tools. Exit 0 also when records are rejected; 2 when nothing is a dialogue."""
        from cm2.imports import ImportConfig, import_logs

        config = ImportConfig(inputs=inputs, output=output, format=format, rejected=rejected, report=report)
        summary = import_logs(config, lambda records: track(records, "reading"))
        emit(summary.as_json(), as_json, shown(summary))


def shown(summary: Summary) -> list[Any]:
    """The summary for a person."""
    told = f"{summary.read} records read: {summary.used} in {summary.dialogues} dialogues"
    table = Table(title=f"{told}, {summary.aside} aside, {summary.rejected} rejected")
    for name in ("", "what", "count", "first"):
        table.add_column(name, justify="right" if name == "count" else "left", overflow="fold")
    groups = (
        ("dialogues", summary.formats),
        ("rejected", summary.reasons),
        ("aside", summary.asides),
        ("not mapped", summary.unmapped),
        ("made", summary.made),
    )
    for kind, counts in groups:
        for what, count in sorted(counts.items(), key=lambda pair: -pair[1]):
            table.add_row(kind, escape(what), str(count), escape(summary.examples.get(what, "")))
    notes = [f"{summary.scored} dialogues have a reward or scores; {summary.inferred} have tools inferred from calls"]
    if summary.left:
        notes.append(f"bookkeeping left in the log: {len(summary.left)} kinds of fields (--report names them)")
    if summary.branches:
        notes.append(f"{summary.branches} of the dialogues are branches (meta.import.branch)")
    if summary.rejected:
        notes.append(f"rejected records with their reasons: {summary.rejects}")
    if summary.report is not None:
        notes.append(f"what was not mapped, record by record: {summary.report}")
    notes.append(f"dialogues: {summary.output}")
    return [table, *(escape(note) for note in notes)]
