"""`cm2 study -o FOLDER`: the demo with several seeds and a longer budget, on sample worlds or real dialogues."""

from __future__ import annotations

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
        rl_minutes: Annotated[
            float | None, typer.Option(help="Reinforcement learning of each seed. Default 60.")
        ] = None,
        updates: Annotated[
            int | None, typer.Option(help="The same, counted: the same work whatever else runs.")
        ] = None,
        sft_dialogues: Annotated[int | None, typer.Option(help="Default 160; 360 with --data.")] = None,
        rl_dialogues: Annotated[int | None, typer.Option(help="Tasks to learn from. Default 2,000.")] = None,
        heldout: Annotated[int | None, typer.Option(help="Dialogues for the evaluation. Default 160.")] = None,
        unseen: Annotated[
            int | None, typer.Option(help="Dialogues of the two unseen domains (sample worlds). Default 96.")
        ] = None,
        max_tokens: Annotated[int | None, typer.Option(help="Tokens of a whole rollout. Default 2,048.")] = None,
        max_step_tokens: Annotated[
            int | None, typer.Option(help="Tokens of one action. Default 64; 96 with --data.")
        ] = None,
        temperature: Annotated[
            float | None, typer.Option(help="Of rollouts and of the sampled evaluation. Default 0.8; 0.5 with --data.")
        ] = None,
        as_json: Json = False,
    ) -> None:
        """SFT against RL over several seeds, with intervals; hours, resumable."""
        import msgspec

        from cm2.study.study import REAL, SAMPLE, StudyConfig, run

        given = {
            "rl_minutes": rl_minutes,
            "updates": updates,
            "sft_dialogues": sft_dialogues,
            "rl_dialogues": rl_dialogues,
            "heldout": heldout,
            "unseen": unseen,
            "max_tokens": max_tokens,
            "max_step_tokens": max_step_tokens,
            "temperature": temperature,
        }
        plan = msgspec.structs.replace(
            SAMPLE if data is None else REAL, **{name: value for name, value in given.items() if value is not None}
        )
        summary = run(StudyConfig(output=output, data=data, seeds=seeds, plan=plan))
        title = f"SFT against RL, {summary['seeds']} seeds, {summary['data']}"
        emit(summary, as_json, [comparison(summary["comparison"], title)])
