"""`cm2 evaluate IN -o EVAL --model M`: how good a checkpoint is on tasks it never saw."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from cm2.cli.common import Json, emit, track


def register(app: typer.Typer) -> None:
    """Add the verb `evaluate`."""

    @app.command()
    def evaluate(
        source: Annotated[
            list[str], typer.Argument(metavar="IN…", help="Tasks: labelled dialogues (JSONL, .gz, Parquet).")
        ],
        output: Annotated[
            str,
            typer.Option(
                "-o", "--output", metavar="EVAL", help="A folder (resumable); one below it for each of several."
            ),
        ],
        model: Annotated[str, typer.Option(help='"embedded", a Hugging Face folder or name.')] = "embedded",
        name: Annotated[str, typer.Option(help="What tables call the checkpoint.")] = "",
        split: Annotated[str, typer.Option(help="What tables call the tasks.")] = "",
        temperature: Annotated[
            list[float] | None, typer.Option(help="0 (default) is greedy; may be given more than once.")
        ] = None,
        group: Annotated[int, typer.Option(help="Rollouts of each task.")] = 1,
        limit: Annotated[int | None, typer.Option(help="Only the first so many tasks.")] = None,
        max_step_tokens: Annotated[int, typer.Option(help="Tokens of one action.")] = 128,
        max_tokens: Annotated[int, typer.Option(help="Tokens of a whole rollout.")] = 2048,
        max_steps: Annotated[int, typer.Option(help="Steps of a turn.")] = 8,
        batch: Annotated[int, typer.Option(help="Rollouts decoded at once.")] = 128,
        seed: Annotated[int, typer.Option(help="Of draws and worlds.")] = 0,
        format: Annotated[str, typer.Option(help="auto, openai or nemotron.")] = "auto",
        as_json: Json = False,
    ) -> None:
        """Roll out held-out tasks with a local checkpoint; rewards with 95 % intervals."""
        import msgspec

        from cm2.errors import ConfigError
        from cm2.evals.evaluate import EvaluateConfig, several
        from cm2.evals.evaluate import evaluate as run
        from cm2.train import settings
        from cm2.train.progress import hush

        hush()
        temperatures = temperature or [0.0]
        if split and len(source) > 1:
            raise ConfigError("one --split cannot name several inputs", fix="leave it out: their file names are taken")

        config = settings.check(
            EvaluateConfig,
            {
                "input": source[0],
                "output": output,
                "model": model,
                "name": name,
                "split": split,
                "temperature": temperatures[0],
                "group": group,
                "limit": limit,
                "max_step_tokens": max_step_tokens,
                "max_tokens": max_tokens,
                "max_steps": max_steps,
                "batch": batch,
                "seed": seed,
                "format": format,
            },
        )

        def progress(chunks: Any, total: int) -> Any:
            return track(chunks, "rolling out", total)

        if len(source) == len(temperatures) == 1:
            found = [run(config, progress)]
            summary = msgspec.to_builtins(found[0])
        else:
            found = several(config, source, temperatures, progress)
            summary = {"evaluations": msgspec.to_builtins(found)}
        emit(summary, as_json, [part for one in found for part in _shown(one)])


def _shown(found: Any) -> list[Any]:
    from cm2.evals.evaluate import METRICS

    title = f"{found.name} on {found.split}, {found.mode}: {found.rollouts} rollouts of {found.tasks} tasks"
    table = Table(title=title)
    for column in ("", "mean", "95 % interval"):
        table.add_column(column, justify="right" if column else "left")
    for metric in METRICS:
        value = getattr(found, metric)
        shown = ("–", "") if value is None else (f"{value.mean:.3f}", f"{value.low:.3f} … {value.high:.3f}")
        table.add_row(metric.replace("_", " "), *shown)
    kinds = Table(title="items")
    for column in ("kind", "satisfied", "not satisfied", "unscored"):
        kinds.add_column(column, justify="left" if column == "kind" else "right")
    for kind, tally in sorted(found.kinds.items()):
        kinds.add_row(kind, str(tally.passed), str(tally.failed), str(tally.unscored))
    return [table, kinds, *(f"failed: {owner} {count}" for owner, count in sorted(found.failures.items()))]
