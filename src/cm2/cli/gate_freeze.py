"""`cm2 gate freeze LOGS -o SUITE_DIR`: a run that production has seen becomes a case of a suite."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from cm2.cli.common import Json, emit


def register(app: typer.Typer) -> None:
    """Add the verb `freeze`."""
    app.command()(freeze)


def freeze(
    dialogues: Annotated[str, typer.Argument(metavar="LOGS", help="The runs, as they were judged.")],
    output: Annotated[str, typer.Option("-o", "--output", help="The suite's folder; made where it does not exist.")],
    verdicts: Annotated[str | None, typer.Option(help="The store that cm2 judge wrote about them.")] = None,
    policy: Annotated[str | None, typer.Option(help="The policy by which they were judged.")] = None,
    checklists: Annotated[
        str | None, typer.Option(help="The labelled file by which they were judged, when LOGS has no checklists.")
    ] = None,
    dialogue: Annotated[str | None, typer.Option(help="The id of the run that failed.")] = None,
    duty: Annotated[str | None, typer.Option(help="The duty that failed in it.")] = None,
    passing: Annotated[
        str | None, typer.Option(help="The id of a run that went well: it is labelled by its effects.")
    ] = None,
    run: Annotated[str, typer.Option(help="Which of several runs that share the id: 2, 3 …")] = "",
    reason: Annotated[str, typer.Option(help="Why it is worth keeping: an incident, a ticket.")] = "",
    by: Annotated[str, typer.Option(help="Who says so. Default: the user's name.")] = "",
    format: Annotated[str, typer.Option(help="auto, openai or nemotron.")] = "auto",
    as_json: Json = False,
) -> None:
    """Turn a failure found in production, or a run that went well, into a regression case."""
    import msgspec

    from cm2.assure.freeze import FreezeConfig, freeze
    from cm2.errors import ConfigError

    if (dialogue is None) == (passing is None):
        raise ConfigError("one run is frozen at a time", fix="give --dialogue ID --duty DUTY, or --passing ID")
    found = freeze(
        FreezeConfig(
            dialogues=dialogues,
            output=output,
            dialogue=passing if dialogue is None else dialogue,  # type: ignore[arg-type]
            kind="failure" if passing is None else "passing",
            verdicts=verdicts,
            duty=duty,
            policy=policy,
            checklists=checklists,
            run=run,
            reason=reason,
            by=by,
            format=format,
        )
    )
    put = found.put
    what = f"{put.task}: {', '.join(put.items)}" if put.items else f"{put.task} is there already"
    notes = [what, f"{put.output} holds {put.tasks} tasks"]
    if put.suite_written:
        notes.append(f"{output}/suite.yaml is new: run it with cm2 gate {output}/suite.yaml --dialogues RUNS")
    if found.left_out:
        notes.append(f"left out, since they do not hold in the run itself: {', '.join(found.left_out)}")
    told = {"kind": found.kind, "left_out": found.left_out} | msgspec.to_builtins(put)
    emit(told, as_json, [Text(note) for note in notes])
