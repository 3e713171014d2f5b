"""What the verbs share that also run over shards: the option, and the run with its progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cm2.cli.common import emit
from cm2.errors import ConfigError

if TYPE_CHECKING:
    from cm2.llm.config import ModelsConfig
    from cm2.llm.request import Role

Engine = Annotated[
    str,
    typer.Option(
        help="local, or ray: IN and all outputs are folders (or URLs) of files; each file is a task of its own."
    ),
]
ENGINES = ("local", "ray")
AT_ONCE = 64
AtOnce = Annotated[
    int | None,
    typer.Option("--concurrency", min=1, help="Requests under way at once. Default: the models file's, else 64."),
]


def shard_models(role: Role, *flags: Any) -> ModelsConfig:
    """The models of a role as the flags say (those of `open_models`, without an output), for shards to open.

    Raises:
        ConfigError: see `open_models`; or it is a dry run.
    """
    from cm2.cli.models import open_models

    with open_models(role, *flags) as door:
        if door.dry:
            raise ConfigError("a dry run over shards would plan each alone", fix="leave --engine out: it asks nothing")
        return door.config


def over_shards(
    stage: str,
    config: Any,
    engine: str,
    as_json: bool,
    show: Callable[[Any], list[Any]],
    models: ModelsConfig | None = None,
) -> None:
    """Run a stage over the files of a folder and print the summary of all.

    Args:
        stage: a name of `cm2.scale.STAGES`.
        config: of its runner; its input and outputs are folders.
        engine: a name of `ENGINES`, not `local`.
        as_json: print the summary as JSON.
        show: makes what a person sees of the summary.
        models: the `ModelsConfig` of a stage that asks a model.

    Raises:
        ConfigError: there is no such engine.
        MissingExtra: Ray is not installed.
    """
    from cm2.cli.progress import spending_track
    from cm2.scale import run_shards
    from cm2.scale.ray_engine import RayEngine

    if engine not in ENGINES:
        raise ConfigError(f"there is no engine {engine!r}", fix=f"use {' or '.join(ENGINES)}")
    summary = run_shards(stage, config, RayEngine(), models, lambda done, total: spending_track(done, "shards", total))
    emit(summary.as_json(), as_json, show(summary))
