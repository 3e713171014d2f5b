"""`cm2 generate TASKS -o FOLDER --base-url URL --model NAME -n 8`: rejection sampling in the simulated world."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from cm2.cli import acting
from cm2.cli.common import Json, emit, track
from cm2.cli.models import CacheFile, DryRun, ModelsFile, Settings, open_models


def register(app: typer.Typer) -> None:
    """Add the verb `generate`."""

    @app.command()
    def generate(
        ctx: typer.Context,
        source: Annotated[str, typer.Argument(metavar="TASKS", help="Labelled dialogues.")],
        output: Annotated[str, typer.Option("-o", "--output", help="A folder; the same command goes on.")],
        base_url: acting.AgentUrl,
        model: acting.AgentModel,
        samples: Annotated[int, typer.Option("-n", "--samples", min=1, help="Rollouts of each task.")] = 4,
        keep: Annotated[str, typer.Option(help="strict (every item holds), or reward.")] = "strict",
        threshold: Annotated[float, typer.Option(min=0, max=1, help="--keep reward: the least reward.")] = 1.0,
        best: Annotated[int, typer.Option(min=1, help="Kept of each task at most.")] = 1,
        near: Annotated[
            float, typer.Option(min=0, max=1, help="From which resemblance two of a task count as one; 0: equal.")
        ] = 0.95,
        exclude: Annotated[
            list[str] | None, typer.Option(help="Dialogues, tasks or a gate's suite that may not be played. Repeat it.")
        ] = None,
        exclude_near: Annotated[
            float, typer.Option(min=0, max=1, help="The resemblance from which a task counts as one of these; 0: ids.")
        ] = 0.7,
        tokens: Annotated[
            int | None, typer.Option("--budget-tokens", min=1, help="No round begins after so many tokens.")
        ] = None,
        dry_run: DryRun = False,
        key_variable: acting.KeyVariable = "OPENAI_API_KEY",
        temperature: acting.Temperature = None,
        top_p: acting.TopP = None,
        max_tokens: acting.MaxTokens = None,
        max_steps: acting.MaxSteps = 20,
        retries: acting.Retries = 6,
        concurrency: acting.RolloutsAtOnce = 16,
        limit: acting.Limit = None,
        seed: acting.Seed = 0,
        simulator: acting.SimulatorKind = "auto",
        judge: acting.JudgeKind = "checks",
        models: ModelsFile = None,
        settings: Settings = None,
        cache: CacheFile = None,
        format: acting.TaskFormat = "auto",
        as_json: Json = False,
    ) -> None:
        """Sample an agent on tasks and keep the runs whose checklist holds."""
        import asyncio

        import msgspec

        from cm2.assure.generate import GenerateConfig
        from cm2.assure.generate import generate as run
        from cm2.assure.generate_config import check
        from cm2.assure.generate_plan import plan
        from cm2.assure.leakage import read_exclusion
        from cm2.errors import ConfigError
        from cm2.judge.make import make_judge
        from cm2.worlds import outcome_for, world_for

        rollouts = acting.rollouts(ctx.params, f"{output}/rollouts.jsonl", samples)
        config = GenerateConfig(
            rollouts=rollouts,
            output=output,
            keep=keep,  # type: ignore[arg-type]
            threshold=threshold,
            best=best,
            near=near or None,
            tokens=tokens,
        )
        check(config)
        exclusion = read_exclusion(exclude or [], exclude_near or None, format)
        if dry_run:
            planned = plan(config, exclusion)
            told = (
                f"{planned.rollouts:,} rollouts of {planned.tasks:,} tasks: about {planned.calls:,} calls, "
                f"{planned.prompt_tokens:,} prompt tokens, {planned.answer_tokens:,} answer tokens"
            )
            emit(msgspec.to_builtins(planned), as_json, Text(told))
            return
        asks = rollouts.judging.asks or simulator == "llm"
        if asks and models is None:
            raise ConfigError("a judge or simulator asks a model", fix="give --models FILE.yaml with its role")
        role: Any = "simulator" if simulator == "llm" else "judge"
        door = open_models(role, models, cache=cache, output=rollouts.output, settings=settings) if asks else None
        with door or nullcontext():
            summary = asyncio.run(
                run(
                    config,
                    exclusion,
                    lambda numbers: track(numbers, "rounds", samples),
                    world=world_for,
                    outcome=outcome_for,
                    judge=make_judge(rollouts.judging, door),
                    asker=door,
                )
            )
        emit(msgspec.to_builtins(summary), as_json, _shown(summary, rollouts.endpoint.name, output))


def _shown(summary: Any, name: str, output: str) -> list[Any]:
    """The summary for a person."""
    title = f"{summary.kept} kept of {summary.rollouts} rollouts by {name}"
    table = Table()
    for head in ("", "all", "kept"):
        table.add_column(head, justify="right" if head else "left")
    table.add_row("tasks", str(summary.tasks), str(summary.kept_tasks))
    table.add_row("checklist reward", *map(_share, (summary.reward, summary.kept_reward)))
    table.add_row("true outcome", *map(_share, (summary.successes, summary.kept_successes)))
    counts = {f"left out: {reason}": count for reason, count in sorted(summary.left_out.items())}
    counts |= {f"failed: {owner}": count for owner, count in sorted(summary.failed.items())}
    counts |= {"prompt tokens": summary.prompt_tokens, "answer tokens": summary.generated_tokens}
    for what, count in counts.items():
        table.add_row(what, f"{count:,}", "")
    notes = [f"{summary.pairs} preference pairs; written to {output}"]
    if summary.budget_reached:
        notes.append(f"the budget is spent after {summary.rounds} rounds; raise it and run the same command to go on")
    return [Text(title), table, *map(Text, notes)]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
