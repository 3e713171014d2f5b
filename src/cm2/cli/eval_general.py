"""`cm2 eval general CHECKPOINT [AFTER] -o DIR`: what a model could do before, and whether it still can."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cm2.cli.common import Json, emit, err


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(general)


def general(
    before: Annotated[
        str,
        typer.Argument(metavar="CHECKPOINT", help='A folder, a name, "embedded", or what this command wrote before.'),
    ],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="DIR", help="A folder (the same command goes on in it).")
    ],
    after: Annotated[
        str | None, typer.Argument(metavar="[AFTER]", help="The same model, trained: it is held against CHECKPOINT.")
    ] = None,
    names: Annotated[str, typer.Option(help="What tables call the two, with a comma.")] = "before,after",
    tolerance: Annotated[float, typer.Option(help="The share that may be lost; more, beyond chance, fails.")] = 0.02,
    alpha: Annotated[float, typer.Option(help="How often a false alarm is accepted.")] = 0.05,
    categories: Annotated[str | None, typer.Option(help="Parts of it, with commas. Default: all.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many examples of each category.")] = None,
    batch: Annotated[int, typer.Option(help="Sequences at once.")] = 4,
    dtype: Annotated[str, typer.Option(help="float32 (default), bfloat16 or float16.")] = "float32",
    device: Annotated[str | None, typer.Option(help="As torch calls it. Default: a GPU where there is one.")] = None,
    threads: Annotated[int | None, typer.Option(help="Of a CPU. Default: one a core.")] = None,
    as_json: Json = False,
) -> int:
    """General ability by lm-eval, on data that packages ship: of one checkpoint, or before and after training."""
    import os

    from cm2.cli.compare import _names
    from cm2.harness.general import GeneralConfig
    from cm2.train import settings

    called = _names(names)
    given: dict[str, Any] = {"limit": limit, "batch": batch, "dtype": dtype, "device": device, "threads": threads}
    given["categories"] = [one.strip() for one in (categories or "").split(",") if one.strip()]
    sources = [before] if after is None else [before, after]
    places = [output] if after is None else [os.path.join(output, part) for part in ("before", "after")]
    configs = [
        settings.check(GeneralConfig, given | {"checkpoint": source, "output": place})
        for source, place in zip(sources, places, strict=True)
    ]
    folders = [_evaluated(config) for config in configs]
    if after is None:
        return _one(folders[0], as_json)
    return _two(folders, called, tolerance, alpha, output, as_json)


def _evaluated(config: Any) -> str:
    """The folder with a checkpoint's results, which may be what was given."""
    from cm2.harness.general import evaluate
    from cm2.harness.results import is_results

    if is_results(config.checkpoint):
        return str(config.checkpoint)
    with err.status(config.checkpoint) as status:

        def progress(done: int, whole: int) -> None:
            status.update(f"{config.checkpoint}: {done} of {whole} examples")

        evaluate(config, progress)
    return str(config.output)


def _one(folder: str, as_json: bool) -> int:
    from cm2.cli.eval import summary
    from cm2.harness.results import read
    from cm2.harness.show import tables

    found = read(folder)[0]
    emit(summary(found), as_json, tables(found))
    return int(found.failed)


def _two(folders: list[str], names: tuple[str, str], tolerance: float, alpha: float, output: str, as_json: bool) -> int:
    import msgspec
    from rich.table import Table

    from cm2.assure.compare_benchmark import table
    from cm2.assure.gate_case import write_whole
    from cm2.assure.regression import markdown, regression, verdict

    found = regression(folders[0], folders[1], names, tolerance, alpha)
    summary = msgspec.to_builtins(found) | {"passed": found.passed}
    write_whole(f"{output}/regression.md", markdown(found).encode())
    write_whole(f"{output}/regression.json", msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")
    head, *rows = table(found.comparison)
    shown = Table(*head, title=f"{found.comparison.benchmark} ({found.comparison.harness})")
    for row in rows:
        shown.add_row(*row)
    emit(summary, as_json, [shown, *found.comparison.notes, verdict(found)])
    return int(not found.passed)
