"""`cm2 simulate fidelity`: how often simulated tools answer as the true ones do."""

from __future__ import annotations

import contextlib
import itertools
from typing import Annotated, Any

import typer
from rich.table import Table

from cm2.cli.common import Json, emit, track
from cm2.cli.models import (
    BaseUrl,
    Budget,
    CacheFile,
    Concurrency,
    DryRun,
    ModelName,
    ModelsFile,
    Settings,
    open_models,
    spending_table,
)


def register(app: typer.Typer) -> None:
    """Add the verb `simulate`."""
    simulate = typer.Typer(no_args_is_help=True, help="Simulated tools: how far they can be trusted.")
    app.add_typer(simulate, name="simulate")

    @simulate.callback()
    def root() -> None:
        """Simulated tools: how far they can be trusted."""

    simulate.command()(fidelity)


def fidelity(
    source: Annotated[
        str | None, typer.Argument(metavar="[IN]", help="Rows of cm2 worlds make. Default: fresh ones.")
    ] = None,
    simulators: Annotated[
        str, typer.Option(help="Which, with commas: replay, fallback, schema, llm.")
    ] = "replay,fallback,schema",
    replay: Annotated[str, typer.Option(help="always, same_state (see cm2 rollout), or both with a comma.")] = "always",
    count: Annotated[int, typer.Option("-n", "--count", help="How many dialogues.")] = 100,
    profile: Annotated[str, typer.Option(help="Of fresh dialogues: full or short.")] = "full",
    split: Annotated[str, typer.Option(help="Of fresh dialogues: train, heldout or unseen.")] = "train",
    seed: Annotated[int, typer.Option(help="Other seeds: other dialogues, other ways to stray.")] = 0,
    models: ModelsFile = None,
    base_url: BaseUrl = None,
    model: ModelName = None,
    settings: Settings = None,
    cache: CacheFile = None,
    budget: Budget = None,
    dry_run: DryRun = False,
    concurrency: Concurrency = 16,
    as_json: Json = False,
) -> None:
    """Play calls that stray from the reference in true and in simulated worlds, and compare the answers."""
    import msgspec

    from cm2.checklist import Task
    from cm2.errors import ConfigError
    from cm2.formats import read_tasks
    from cm2.simulate import SimulatorConfig
    from cm2.simulate.fidelity import compare
    from cm2.worlds import MakeConfig, make, world_of

    kinds: list[Any] = [name.strip() for name in simulators.split(",") if name.strip()]
    modes: list[Any] = [name.strip() for name in replay.split(",") if name.strip()]
    configs = [SimulatorConfig(kind=kind, replay=mode) for kind in kinds for mode in modes]
    if "llm" not in kinds and (dry_run or budget is not None or model is not None):
        raise ConfigError("only the simulator llm asks a model", fix="add llm to --simulators")
    asker = None
    if "llm" in kinds:
        asker = open_models(
            "simulator", models, base_url, model, cache, budget, dry_run, concurrency, settings=settings
        )
    tasks = (
        (task for _, task in read_tasks(source))
        if source is not None
        else (Task(dialogue) for dialogue in make(MakeConfig(count=count, seed=seed, split=split, profile=profile)))
    )
    with asker or contextlib.nullcontext():
        found = list(
            track(
                compare(itertools.islice(tasks, count), world_of, configs, asker, seed=seed, at_once=concurrency),
                "measuring",
                len(configs),
            )
        )
    summary: dict[str, Any] = {"simulators": msgspec.to_builtins(found)}
    if asker is None:
        emit(summary, as_json, [_table(found), *_problems(found)])
    elif dry_run:
        emit({"planned": msgspec.to_builtins(asker.planned)}, as_json, spending_table(asker))
    else:
        summary["spent"] = msgspec.to_builtins(asker.spent)
        emit(summary, as_json, [_table(found), spending_table(asker), *_problems(found)])


def _table(found: list[Any]) -> Table:
    from cm2.simulate.fidelity import QUESTIONS

    table = Table(title=f"% agreement with the true world in {found[0].dialogues} dialogues (95 % intervals)")
    for name in ("simulator", "answers", "n", *QUESTIONS):
        first = name in ("simulator", "answers")
        table.add_column(name, justify="left" if first else "right", no_wrap=first)
    for one in found:
        for origin, count in (("all", one.answers), ("simulated", one.simulated)):
            rates = one.rates.get(origin, {})
            shown = [_shown(rates.get(question)) for question in QUESTIONS]
            table.add_row(one.simulator if origin == "all" else "", origin, f"{count:,}", *shown)
    return table


def _shown(rate: Any) -> str:
    return "–" if rate is None else f"{100 * rate.rate:.0f} ({100 * rate.low:.0f}–{100 * rate.high:.0f})"


def _problems(found: list[Any]) -> list[str]:
    return [
        f"{one.simulator}: {one.failed} of {one.dialogues} trials ended early: {'; '.join(one.problems)}"
        for one in found
        if one.failed
    ]
