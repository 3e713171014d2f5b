"""`cm2 study -o FOLDER`: the demo with several seeds and a longer budget, on sample worlds or real dialogues."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from cm2.cli.common import Json, emit
from cm2.cli.demo import comparison


def register(app: typer.Typer) -> None:
    """Add the verb `study`."""

    @app.command()
    def study(
        output: Annotated[
            str, typer.Option("-o", "--output", metavar="FOLDER", help="Where the study lives (resumable).")
        ],
        data: Annotated[str | None, typer.Option(help="A file of real dialogues instead of sample worlds.")] = None,
        seeds: Annotated[int, typer.Option(help="Runs of the ladder.")] = 3,
        rl_minutes: Annotated[float, typer.Option(help="Reinforcement learning of each seed.")] = 60.0,
        updates: Annotated[int, typer.Option(help="The same, counted: the same work whatever else runs.")] = 1000,
        sft_dialogues: Annotated[int | None, typer.Option(help="Default 160; 300 with --data.")] = None,
        rl_dialogues: Annotated[int, typer.Option(help="Tasks to learn from.")] = 2000,
        heldout: Annotated[int, typer.Option(help="Dialogues for the evaluation.")] = 160,
        unseen: Annotated[int, typer.Option(help="Dialogues of the two unseen domains (sample worlds).")] = 96,
        max_tokens: Annotated[int, typer.Option(help="Tokens of a whole rollout.")] = 2048,
        max_step_tokens: Annotated[int, typer.Option(help="Tokens of one action.")] = 64,
        temperature: Annotated[float, typer.Option(help="Of rollouts and of the sampled evaluation.")] = 0.8,
        as_json: Json = False,
    ) -> None:
        """SFT against RL over several seeds, with intervals; hours, resumable."""
        from cm2.study.demo import Plan
        from cm2.study.study import StudyConfig, run

        plan = Plan(
            minutes=math.inf,
            rl_minutes=rl_minutes,
            updates=updates,
            sft_dialogues=sft_dialogues or (160 if data is None else 300),
            rl_dialogues=rl_dialogues,
            heldout=heldout,
            sft_micro=8 if data is None else 2,
            unseen=unseen,
            max_tokens=max_tokens,
            max_step_tokens=max_step_tokens,
            temperature=temperature,
        )
        summary = run(StudyConfig(output=output, data=data, seeds=seeds, plan=plan))
        title = f"SFT against RL, {summary['seeds']} seeds, {summary['data']}"
        emit(summary, as_json, [comparison(summary["comparison"], title)])
