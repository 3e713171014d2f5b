"""`cm2 judge train VERDICTS IN -o MODEL`: a light local model of a judge."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from cm2.cli.common import Json, emit


def register(app: typer.Typer) -> None:
    """Add the verb `train`."""
    app.command()(train)


def train(
    verdicts: Annotated[str, typer.Argument(metavar="VERDICTS", help="The store of the judge to imitate.")],
    source: Annotated[str, typer.Argument(metavar="IN", help="The dialogues that were judged.")],
    output: Annotated[str, typer.Option("-o", "--output", help="Where the model goes (one file).")],
    checklists: Annotated[
        str | None, typer.Option(help="The labelled file that they were judged by, when IN has no checklists.")
    ] = None,
    target: Annotated[float, typer.Option(help="Share of its own decisions that may differ from the judge's.")] = 0.02,
    surety: Annotated[float, typer.Option(help="How sure it must be that the target is kept.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Of the split of dialogues.")] = 0,
    format: Annotated[str, typer.Option(help="auto, openai or nemotron.")] = "auto",
    as_json: Json = False,
) -> None:
    """Train a local model that decides where it is sure (cm2 judge --judge classifier --classifier MODEL)."""
    import msgspec

    from cm2.judge.fitting import TrainConfig, train_file

    found = train_file(
        TrainConfig(
            verdicts=verdicts,
            input=source,
            output=output,
            checklists=checklists,
            format=format,
            target=target,
            surety=surety,
            seed=seed,
        )
    )
    header = found.header
    summary = {"output": output} | msgspec.to_builtins(header)
    emit(summary, as_json, [_table(header.report), *_notes(header)])


def _table(report: dict[str, Any]) -> Table:
    check = report["check"]
    sizes = report["dialogues"]
    others = f"{sizes['fit']} to fit, {sizes['tune']} to tune"
    table = Table(title=f"on {sizes['check']} dialogues that nothing was chosen on ({others})")
    for name in ("", "items", "agreement", "decided", "share", "wrong of decided (95 %)", "kappa of decided"):
        table.add_column(name, justify="right" if name else "left")
    rows = [*((f"kind {kind}", one) for kind, one in check["kinds"].items())]
    for name, one in [*rows, ("says yes", check["yes"]), ("says no", check["no"]), ("all", check)]:
        wrong = one["wrong"]
        table.add_row(
            name,
            str(one["items"]),
            "–" if one["agreement"] is None else f"{one['agreement']:.1%}",
            str(one["decided"]),
            f"{one['decided'] / one['items']:.0%}" if one["items"] else "–",
            "–"
            if wrong is None
            else f"{wrong['count']}: {wrong['rate']:.1%} ({wrong['low']:.1%} … {wrong['high']:.1%})",
            "–" if one["kappa"] is None else f"{one['kappa']:.2f}",
        )
    return table


def _notes(header: Any) -> list[str]:
    report = header.report
    notes = [f"imitates {', '.join(header.judges)}; the target is {header.target:.1%} wrong on each side"]
    for side, limit in (("yes", header.yes_from), ("no", header.no_from)):
        if limit is None:
            notes.append(
                f"too little is known to decide any {side}: those go to the language model; judge more dialogues"
            )
        else:
            notes.append(f"decides {side} from a confidence of {limit:.3f}")
    for name, what in (
        ("unscored", "items that were unscored"),
        ("needed_no_model", "items that needed no model"),
        ("other_steps", "items whose verdicts do not fit the steps of their turn"),
    ):
        if report.get(name):
            notes.append(f"{report[name]} {what} were left out")
    return notes
