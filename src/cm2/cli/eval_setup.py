"""`cm2 eval setup NAME`: the environment of a benchmark's harness. `cm2 eval show DIR…`: beside what was published."""

from __future__ import annotations

from typing import Annotated

import typer

from cm2.cli.common import Json, emit, err


def register(app: typer.Typer) -> None:
    """Add the verb's commands that ask no model."""
    app.command()(setup)
    app.command()(show)


def setup(
    name: Annotated[str, typer.Argument(metavar="NAME", help="bfcl, tau2, toolsandbox or general.")],
    source: Annotated[
        str | None,
        typer.Option(help="toolsandbox only: a checkout's folder, or a git address (with @REVISION if need be)."),
    ] = None,
    python: Annotated[str | None, typer.Option(help="The Python 3.11 to make it from. Default: the one found.")] = None,
    as_json: Json = False,
) -> None:
    """Make the environment of a harness, with pinned requirements, under the cache folder ($CM2_CACHE)."""
    import msgspec

    from cm2.harness.environments import setup as make

    made = make(name, source, python, lambda what: err.print(what, markup=False))
    emit(msgspec.to_builtins(made), as_json, f"{made.version} is set up in {made.folder}")


def show(
    folders: Annotated[list[str], typer.Argument(metavar="DIR…", help="What cm2 eval wrote.")],
    names: Annotated[str | None, typer.Option(help="What to call them, with commas. Default: their models.")] = None,
    output: Annotated[
        list[str] | None,
        typer.Option("-o", "--output", help="A file to write: .md (table), .png, .svg or .pdf (plot). Repeat it."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Results beside the paper's published numbers, marked with what differs."""
    from pathlib import Path

    from cm2.cli.eval import summary
    from cm2.errors import ConfigError
    from cm2.harness.plot import draw
    from cm2.harness.results import read
    from cm2.harness.show import markdown, tables
    from cm2.report.figure import check_figure

    for path in output or []:
        if not path.endswith(".md"):
            check_figure(path)
    several = [read(folder)[0] for folder in folders]
    called = [one.strip() for one in names.split(",")] if names else [one.model for one in several]
    if len(called) != len(several):
        raise ConfigError(f"{len(called)} names for {len(several)} results", fix="give one --names entry for each")
    for path in output or []:
        if path.endswith(".md"):
            Path(path).write_text(markdown(several, called), encoding="utf-8")
        else:
            draw(several, called, path)
    found = [summary(one) | {"name": name} for one, name in zip(several, called, strict=True)]
    emit({"results": found}, as_json, [part for one in several for part in tables(one)])
