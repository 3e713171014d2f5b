"""`cm2 plan RECIPE`: memory, tokens, calls, wall time and GPU hours of a recipe, before it is started."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cm2.cli.common import Json, emit


def register(app: typer.Typer) -> None:
    """Add the verb `plan`."""

    @app.command()
    def plan(
        recipe: Annotated[str | None, typer.Argument(metavar="RECIPE", help="Settings of cm2 rl (YAML).")] = None,
        gpus: Annotated[int, typer.Option(min=1, help="Devices that train and generate.")] = 1,
        gpu: Annotated[str, typer.Option(help="h100, h200, a100, l40s, rtx4090 or cpu.")] = "h100",
        engine: Annotated[str | None, typer.Option(help="local (one device) or sharded (FSDP and a server).")] = None,
        model: Annotated[str | None, typer.Option(help="Name, folder or config.json; default: the recipe's.")] = None,
        judge_model: Annotated[str, typer.Option(help="The judge's and the simulator's.")] = "Qwen3-30B-A3B",
        judge_gpus: Annotated[int, typer.Option(min=0, help="Devices for those; 0: an endpoint elsewhere.")] = 0,
        parallel: Annotated[int | None, typer.Option(min=1, help="Most calls to those at once.")] = None,
        tasks: Annotated[str | None, typer.Option(metavar="FILE", help="Measure the dialogues on these tasks.")] = None,
        dialogue: Annotated[
            list[str] | None,
            typer.Option(help="turns=3, steps=3, items=6; tokens: prompt=, user=, action=, response=."),
        ] = None,
        like: Annotated[
            str | None, typer.Option(metavar="RUN", help="A processor's rates, of a run of cm2 rl.")
        ] = None,
        judge: Annotated[str | None, typer.Option(help="In place of the recipe's: checks, hybrid, llm …")] = None,
        schedule: Annotated[str | None, typer.Option(help="The judge's: turn, step, item, published.")] = None,
        simulator: Annotated[str | None, typer.Option(help="In place of the recipe's: auto, llm …")] = None,
        prompts: Annotated[int | None, typer.Option(help="In place of the recipe's.")] = None,
        group: Annotated[int | None, typer.Option(help="In place of the recipe's.")] = None,
        updates: Annotated[int | None, typer.Option(help="In place of the recipe's: optimizer steps.")] = None,
        set_: Annotated[list[str] | None, typer.Option("--set", help="CONSTANT=VALUE; see --constants.")] = None,
        simulate: Annotated[bool, typer.Option("--simulate", help="Simulate the update: who waits for whom.")] = False,
        seed: Annotated[int, typer.Option(help="Of the simulation.")] = 0,
        constants: Annotated[bool, typer.Option("--constants", help="Print the constants and their sources.")] = False,
        check: Annotated[bool, typer.Option("--check", help="Print what it says of runs that were made.")] = False,
        as_json: Json = False,
    ) -> None:
        """Memory, tokens, calls, wall time and GPU hours of a recipe, before it is started."""
        from cm2.errors import ConfigError
        from cm2.plan import show
        from cm2.plan.constants import parse

        if constants or check:
            summary, parts = show.constants() if constants else show.checked()
            emit(summary, as_json, parts)
            return
        if recipe is None:
            raise ConfigError("no recipe is given", fix="name a YAML file, for instance recipes/demo-rl.yaml")
        changes: dict[str, Any] = {"prompts": prompts, "group": group, "updates": updates}
        inner = {"judging": {"kind": judge, "schedule": schedule}, "simulator": {"kind": simulator}}
        made = show.planned(
            recipe,
            tasks=tasks,
            dialogue=dialogue or [],
            like=like,
            gpus=gpus,
            gpu=gpu,
            engine=engine,
            model=model,
            judge_model=judge_model,
            judge_gpus=judge_gpus,
            parallel=parallel,
            simulation=simulate,
            seed=seed,
            constants=parse(set_ or []),
            overrides=changes,
            inner=inner,
        )
        emit(show.summary(made), as_json, show.tables(made))
