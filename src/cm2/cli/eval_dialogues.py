"""`cm2 eval dialogues DIR -o FILE`: what a benchmark's harness logged, as dialogues that can be judged and reported."""

from __future__ import annotations

from typing import Annotated

import typer

from cm2.cli.common import Json, emit, err


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(dialogues)


def dialogues(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="What cm2 eval wrote.")],
    output: Annotated[str, typer.Option("-o", "--output", metavar="FILE", help="The dialogues, one a row.")],
    checklists: Annotated[
        str | None, typer.Option(metavar="FILE", help="Also write the tasks' right answers with their checklists.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Conversations of a benchmark as dialogues with their official outcome, to be judged: why did a task fail?"""
    import msgspec
    from rich.text import Text

    from cm2.harness.dialogues.write import DialoguesConfig, write

    config = DialoguesConfig(folder=folder, output=output, checklists=checklists)
    with err.status("asking the harness about its tasks"):
        found = write(config)
    lines = [f"{found.dialogues} dialogues of {found.model} on {found.benchmark}, {found.passed} passed"]
    if found.unscored:
        lost = ", ".join(f"{owner} {count}" for owner, count in found.unscored.items())
        lines.append(f"left out, since they have no score: {lost}")
    if found.without_transcript:
        lines.append(f"{found.without_transcript} ended before anything was kept of them")
    if found.tasks:
        lines.append(f"{found.items} items for {found.tasks} tasks")
    lines += [f"refused by lint: {kind} ({count})" for kind, count in found.items_out.items()]
    lines += [f"without a checklist: {count} ({why})" for why, count in found.without_checklist.items()]
    lines += [*found.notes, *(f"written: {name}" for name in found.outputs)]
    emit(msgspec.to_builtins(found), as_json, [Text(line) for line in lines])
