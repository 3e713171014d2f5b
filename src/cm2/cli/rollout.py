"""`cm2 rollout IN -o OUT --base-url URL --model NAME`: let any endpoint's model act on tasks, and judge it."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.table import Table

from cm2.cli.common import Json, emit, track


def register(app: typer.Typer) -> None:
    """Add the verb `rollout`."""

    @app.command()
    def rollout(
        source: Annotated[str, typer.Argument(metavar="IN", help="Tasks: labelled dialogues (JSONL, .gz, Parquet).")],
        output: Annotated[str, typer.Option("-o", "--output", help="The store of rollouts (JSONL, resumable).")],
        base_url: Annotated[str, typer.Option(help="Where the API starts: http://127.0.0.1:8000/v1.")],
        model: Annotated[str, typer.Option(help="The model's name at the endpoint.")],
        key_variable: Annotated[
            str, typer.Option(help="Environment variable that holds the key (no key is sent when unset).")
        ] = "OPENAI_API_KEY",
        group: Annotated[int, typer.Option(help="Rollouts of each task, in one world.")] = 1,
        concurrency: Annotated[int, typer.Option(help="Rollouts at once.")] = 16,
        limit: Annotated[int | None, typer.Option(help="Only the first so many tasks.")] = None,
        temperature: Annotated[float | None, typer.Option(help="Default: the server's.")] = None,
        top_p: Annotated[float | None, typer.Option(help="Default: the server's.")] = None,
        max_tokens: Annotated[int | None, typer.Option(help="Tokens of one action. Default: the server's.")] = None,
        max_turns: Annotated[int | None, typer.Option(help="Turns of each dialogue that are played.")] = None,
        max_steps: Annotated[int, typer.Option(help="Steps in one turn.")] = 20,
        retries: Annotated[int, typer.Option(help="Further tries of a request that the provider failed.")] = 6,
        send_thinking: Annotated[bool, typer.Option(help="Send earlier thinking back as reasoning_content.")] = True,
        seed: Annotated[int, typer.Option(help="Varies the simulated world and the endpoint's sampling.")] = 0,
        format: Annotated[str, typer.Option(help="auto, openai or nemotron.")] = "auto",
        as_json: Json = False,
    ) -> None:
        """Drive an OpenAI-compatible endpoint as the agent; a provider's failure is never a zero."""
        import msgspec

        from cm2.llm import Endpoint
        from cm2.rollout.collect import RolloutConfig, collect
        from cm2.rollout.limits import Limits
        from cm2.worlds import outcome_for, world_for

        endpoint = Endpoint(
            base_url=base_url,
            model=model,
            key_variable=key_variable,
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_tokens,
            retries=retries,
            send_thinking=send_thinking,
        )
        config = RolloutConfig(
            input=source,
            output=output,
            endpoint=endpoint,
            group=group,
            seed=seed,
            concurrency=concurrency,
            limit=limit,
            format=format,
            limits=Limits(turns=max_turns, steps=max_steps),
        )
        summary = asyncio.run(
            collect(config, world=world_for, outcome=outcome_for, progress=lambda tasks: track(tasks, "rolling out"))
        )
        table = Table(title=f"{summary.rollouts} rollouts of {summary.tasks} tasks by {endpoint.name}")
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
        table.add_row("generated tokens", str(summary.generated_tokens))
        emit(msgspec.to_builtins(summary), as_json, [table, *summary.problems])
