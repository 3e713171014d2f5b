"""`cm2 filter IN -o KEPT --rejected FILE`: which rows are dialogues worth having, and what is wrong with the others."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from cm2.cli.common import Json, emit, track


def register(app: typer.Typer) -> None:
    """Add the verb `filter`."""

    @app.command()
    def filter(
        source: Annotated[str, typer.Argument(metavar="IN", help="Rows: .jsonl (.gz, .zst), Parquet or a folder.")],
        output: Annotated[str, typer.Option("-o", "--output", help="Rows that pass, as they stood.")],
        rejected: Annotated[str, typer.Option(help="Rows that do not, with line and violations.")],
        flagged: Annotated[str | None, typer.Option(help="What is odd about rows that pass.")] = None,
        profile: Annotated[str, typer.Option(help="default (real logs) or published (training data).")] = "default",
        rules: Annotated[str | None, typer.Option(help="Only these rules, by commas: schema,role_order,…")] = None,
        without: Annotated[str, typer.Option(help="Leave these rules out, by commas.")] = "",
        repair: Annotated[str, typer.Option(help="Repair first, by commas: wrap_plain_text,move_reasoning,…")] = "",
        as_json: Json = False,
    ) -> None:
        """Apply the rules; kept and rejected rows make up what was read. Exit 0 also when rows are rejected."""
        from cm2.curate.filter import FilterConfig, filter_file

        config = FilterConfig(
            input=source,
            output=output,
            rejected=rejected,
            flagged=flagged,
            profile=profile,
            rules=None if rules is None else _names(rules),
            without=_names(without),
            repair=_names(repair),
        )
        summary = filter_file(config, progress=lambda rows: track(rows, "filtering"))
        table = Table(title=f"{summary.read} rows read, {summary.kept} kept, {summary.rejected} rejected")
        for name in ("", "rule", "rows", "first"):
            table.add_column(name, justify="right" if name == "rows" else "left", overflow="fold")
        for kind, counts in (("rejected", summary.rules), ("flagged", summary.flags)):
            for name, count in sorted(counts.items(), key=lambda pair: -pair[1]):
                table.add_row(kind, name, str(count), escape(summary.examples[name]))
        for name, count in summary.repairs.items():
            table.add_row("repaired", name, str(count), "")
        notes = [f"kept rows: {output}; rejected rows with their violations: {rejected}"]
        if summary.flagged:
            notes.append(
                f"{summary.flagged} kept rows are flagged" + ("" if flagged else " (--flagged FILE tells each)")
            )
        emit(summary.as_json(), as_json, [table, *notes])


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
