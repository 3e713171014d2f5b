"""`cm2 rollout IN -o OUT --base-url URL --model NAME`: let any endpoint's model act on tasks, and judge it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Annotated

import typer
from rich.table import Table

from cm2.cli import acting
from cm2.cli.common import Json, emit, track
from cm2.cli.models import Budget, CacheFile, DryRun, ModelsFile, Settings, open_models, spending_table


def register(app: typer.Typer) -> None:
    """Add the verb `rollout`."""

    @app.command()
    def rollout(
        ctx: typer.Context,
        source: Annotated[str, typer.Argument(metavar="IN", help="Tasks: labelled dialogues (JSONL, .gz, Parquet).")],
        output: Annotated[str, typer.Option("-o", "--output", help="The store of rollouts (JSONL, resumable).")],
        base_url: acting.AgentUrl,
        model: acting.AgentModel,
        key_variable: acting.KeyVariable = "OPENAI_API_KEY",
        group: Annotated[int, typer.Option(help="Rollouts of each task, in one world.")] = 1,
        concurrency: acting.RolloutsAtOnce = 16,
        limit: acting.Limit = None,
        temperature: acting.Temperature = None,
        top_p: acting.TopP = None,
        max_tokens: acting.MaxTokens = None,
        max_turns: Annotated[int | None, typer.Option(help="Turns of each dialogue that are played.")] = None,
        max_steps: acting.MaxSteps = 20,
        retries: acting.Retries = 6,
        send_thinking: Annotated[bool, typer.Option(help="Send earlier thinking back as reasoning_content.")] = True,
        simulator: acting.SimulatorKind = "auto",
        simulator_url: Annotated[
            list[str] | None, typer.Option(help="Where the API of --simulator llm starts. Repeat it for replicas.")
        ] = None,
        simulator_model: Annotated[str | None, typer.Option(help="The model of --simulator llm.")] = None,
        judge: acting.JudgeKind = "checks",
        replay: Annotated[
            str, typer.Option(help="always, or same_state: recorded answers only after the recorded writes.")
        ] = "always",
        on_simulator_failure: Annotated[
            str, typer.Option(help="drop ends the rollout; error lets the agent go on. Neither is ever scored.")
        ] = "drop",
        models: ModelsFile = None,
        settings: Settings = None,
        cache: CacheFile = None,
        budget: Budget = None,
        dry_run: DryRun = False,
        seed: acting.Seed = 0,
        format: acting.TaskFormat = "auto",
        as_json: Json = False,
    ) -> None:
        """Drive an OpenAI-compatible endpoint as the agent; a provider's failure is never a zero."""
        import msgspec

        from cm2.errors import ConfigError
        from cm2.formats import read_tasks
        from cm2.judge.make import make_judge
        from cm2.rollout.collect import collect
        from cm2.rollout.plan import plan
        from cm2.worlds import outcome_for, world_for

        config = acting.rollouts(ctx.params, output, group)
        if config.judging.asks and dry_run:
            raise ConfigError("a dry run cannot know what there will be to judge", fix="leave --judge out of it")
        if config.judging.asks and models is None:
            raise ConfigError(f"the judge {judge!r} asks a model", fix="give --models FILE.yaml with the role judge")
        if simulator != "llm" and not config.judging.asks and (dry_run or budget is not None):
            what = "--dry-run" if dry_run else "--budget"
            raise ConfigError(f"{what} is about the simulator llm; {simulator} costs nothing", fix="leave it out")
        asker = None
        if simulator == "llm" or config.judging.asks:
            asker = open_models(
                "simulator" if simulator == "llm" else "judge",
                models,
                simulator_url,
                simulator_model,
                cache,
                budget,
                dry_run,
                concurrency,
                output,
                settings,
            )
        with asker or contextlib.nullcontext():
            if asker is not None and dry_run:
                rows = (task for _, task in read_tasks(source, format, on_error=lambda row: None))
                tasks = itertools.islice(rows, limit)
                found = asyncio.run(
                    plan(
                        track(tasks, "planning"), config.simulator, asker, group=group, seed=seed, limits=config.limits
                    )
                )
                told = f"at most: {found.agent_calls:,} actions of the agent, {found.simulated_calls:,} simulated calls"
                emit(
                    msgspec.to_builtins(found) | {"planned": msgspec.to_builtins(asker.planned)},
                    as_json,
                    [spending_table(asker), told],
                )
                return
            summary = asyncio.run(
                collect(
                    config,
                    world=world_for,
                    outcome=outcome_for,
                    judge=make_judge(config.judging, asker),
                    asker=asker,
                    progress=lambda tasks: track(tasks, "rolling out"),
                )
            )
        table = Table(title=f"{summary.rollouts} rollouts of {summary.tasks} tasks by {config.endpoint.name}")
        table.add_column("")
        table.add_column("", justify="right")
        for name, share in (
            ("checklist reward", summary.reward),
            ("strict pass", summary.strict_pass),
            ("true outcome", summary.successes),
            ("turns reached", summary.turns_reached),
        ):
            table.add_row(name, "–" if share is None else f"{share:.3f}")
        for reason, count in sorted(summary.reasons.items()):
            table.add_row(f"ended: {reason}", str(count))
        for owner, count in sorted(summary.failures.items()):
            table.add_row(f"failed: {owner}", str(count))
        for origin, count in sorted(summary.answers.items()):
            table.add_row(f"answers: {origin}", str(count))
        table.add_row("generated tokens", str(summary.generated_tokens))
        spent = {} if asker is None else {"spent": msgspec.to_builtins(asker.spent)}
        emit(
            msgspec.to_builtins(summary) | spent,
            as_json,
            [table, None if asker is None else spending_table(asker), *summary.problems],
        )
