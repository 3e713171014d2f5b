"""`cm2 demo -o FOLDER`: the whole ladder on one machine, from dialogues to a trained agent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cm2.cli.common import Json, emit


def register(app: typer.Typer) -> None:
    """Add the verb `demo`."""

    @app.command()
    def demo(
        output: Annotated[
            Path, typer.Option("-o", "--output", metavar="FOLDER", help="Where the run lives (resumable).")
        ],
        quick: Annotated[
            bool, typer.Option("--quick", help="Every stage on very little data, in a few minutes.")
        ] = False,
        minutes: Annotated[float | None, typer.Option(help="Time for all stages together. Default 26.5.")] = None,
        seed: Annotated[int, typer.Option(help="Of data, order and draws.")] = 0,
        as_json: Json = False,
    ) -> None:
        """Sample worlds → rules → checklists → SFT → RL → evaluation on dialogues and domains never trained on."""
        import msgspec

        from cm2.study.demo import QUICK, Plan, run

        plan = msgspec.structs.replace(QUICK if quick else Plan(), seed=seed)
        if minutes is not None:
            plan = msgspec.structs.replace(plan, minutes=minutes)
        summary = run(output, plan)
        notes = ["", summary["verdict"], f"{summary['seconds'] / 60:.1f} minutes; report: {output / 'report.html'}"]
        emit(summary, as_json, [comparison(summary["comparison"], "SFT against RL"), *notes])


def comparison(rows: list[dict[str, Any]], title: str) -> Table:
    """Differences as a table."""
    table = Table(title=title)
    for column in ("split", "mode", "metric", "SFT", "RL", "RL − SFT", "95 %"):
        table.add_column(column, justify="left" if column in ("split", "mode", "metric") else "right")
    for row in rows:
        numbers = (f"{row['before']:.3f}", f"{row['after']:.3f}", f"{row['difference']:+.3f}")
        label = row["metric"].replace("_", " ")
        table.add_row(row["split"], row["mode"], label, *numbers, f"{row['low']:+.2f} … {row['high']:+.2f}")
    return table
