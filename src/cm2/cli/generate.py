"""`cm2 generate TASKS -o FOLDER --base-url URL --model NAME -n 8`: rejection sampling in the simulated world."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from cm2.cli.common import Json, emit, track
from cm2.cli.models import CacheFile, DryRun, ModelsFile, Settings, open_models


def register(app: typer.Typer) -> None:
    """Add the verb `generate`."""

    @app.command()
    def generate(
        source: Annotated[str, typer.Argument(metavar="TASKS", help="Labelled dialogues.")],
        output: Annotated[str, typer.Option("-o", "--output", help="A folder; the same command goes on.")],
        base_url: Annotated[str, typer.Option(help="Where the agent's API starts: http://127.0.0.1:8000/v1.")],
        model: Annotated[str, typer.Option(help="The agent's model.")],
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
        key_variable: Annotated[str, typer.Option(help="The variable that holds the key.")] = "OPENAI_API_KEY",
        temperature: Annotated[float | None, typer.Option(help="Default: the server's.")] = None,
        top_p: Annotated[float | None, typer.Option(help="Default: the server's.")] = None,
        max_tokens: Annotated[int | None, typer.Option(help="Tokens of one action.")] = None,
        max_steps: Annotated[int, typer.Option(help="Steps in one turn.")] = 20,
        retries: Annotated[int, typer.Option(help="Further tries of a request that the provider failed.")] = 6,
        concurrency: Annotated[int, typer.Option(min=1, help="Rollouts at once.")] = 16,
        limit: Annotated[int | None, typer.Option(help="Only the first so many tasks.")] = None,
        seed: Annotated[int, typer.Option(help="Varies the world and the sampling.")] = 0,
        simulator: Annotated[str, typer.Option(help="auto, replay, fallback, schema or llm.")] = "auto",
        judge: Annotated[str, typer.Option(help="checks, hybrid, llm or vote.")] = "checks",
        models: ModelsFile = None,
        settings: Settings = None,
        cache: CacheFile = None,
        format: Annotated[str, typer.Option(help="auto, openai or nemotron.")] = "auto",
        as_json: Json = False,
    ) -> None:
        """Sample an agent on tasks and keep the runs whose checklist holds."""
        import asyncio

        import msgspec

        from cm2.assure.generate import GenerateConfig, check, plan
        from cm2.assure.generate import generate as run
        from cm2.assure.leakage import read_exclusion
        from cm2.errors import ConfigError
        from cm2.judge.judging import Judging
        from cm2.judge.make import make_judge
        from cm2.llm import Endpoint
        from cm2.rollout.collect import RolloutConfig
        from cm2.rollout.limits import Limits
        from cm2.simulate import SimulatorConfig
        from cm2.worlds import outcome_for, world_for

        endpoint = Endpoint(
            base_url=base_url,
            model=model,
            key_variable=key_variable,
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_tokens,
            retries=retries,
        )
        rollouts = RolloutConfig(
            input=source,
            output=f"{output}/rollouts.jsonl",
            endpoint=endpoint,
            group=samples,
            seed=seed,
            concurrency=concurrency,
            limit=limit,
            format=format,
            limits=Limits(steps=max_steps),
            simulator=SimulatorConfig(kind=simulator),  # type: ignore[arg-type]
            judging=Judging(kind=judge),  # type: ignore[arg-type]
        )
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
        emit(msgspec.to_builtins(summary), as_json, _shown(summary, endpoint.name, output))


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
