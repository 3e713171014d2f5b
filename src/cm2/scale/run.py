"""Running a stage over shards: each is a task that can be done again, and the summaries are merged in their order.

A shard that is done leaves a note beside its output: its summary, and a fingerprint of its file and the configuration.
The same command then passes it by. A shard that failed is told at the end and stops none of the others; a second run
does only what is missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import fsspec
import msgspec
from msgspec.structs import replace

from cm2.errors import CM2Error, ConfigError, told
from cm2.formats.jsonlines import encode
from cm2.formats.rows import RowWriter
from cm2.llm.config import ModelsConfig
from cm2.scale.merge import merged
from cm2.scale.shards import NOTES, Shard, fingerprint, shards_of
from cm2.scale.stages import STAGES, Stage, store_name

Work = Callable[[Shard], "Done"]
Engine = Callable[[Work, list[Shard], float], Iterable["Done"]]
"""Does the work on every shard, in any order; the last argument is how many processors a shard keeps busy."""
ASKING = 0.25
"""Processors that a shard keeps busy whose time goes by waiting for a model."""


class Done(msgspec.Struct):
    """What became of a shard."""

    name: str
    summary: str = ""
    """As JSON."""
    error: str = ""
    """Why there is none."""


class Note(msgspec.Struct):
    """What is noted of a shard that is done."""

    fingerprint: str
    summary: msgspec.Raw


def serial(work: Work, shards: list[Shard], processors: float) -> Iterator[Done]:
    """The engine that is none: one shard after the other, in this process."""
    yield from map(work, shards)


def run_shards(
    stage: str,
    config: Any,
    engine: Engine = serial,
    models: ModelsConfig | None = None,
    progress: Callable[[Iterable[Done], int], Iterable[Done]] = lambda done, total: done,
) -> Any:
    """Run a stage on every file of a folder and return the summary of all.

    Args:
        stage: a name of `STAGES`.
        config: the configuration of its runner; `input` and the outputs are folders or URLs.
        engine: who does the work.
        models: the models that the stage asks, where it asks any. The budget is shared out among the shards that are
            to be done; without a cache file each shard has its own beside its output.
        progress: wraps the iteration over what is done.

    Raises:
        ConfigError: the input is one file, or an output lies in it.
        CM2Error: some shards failed; the others are done.
    """
    of = STAGES[stage]
    shards = shards_of(config.input)
    config = _folders(of, config)
    marks = {shard.name: fingerprint(shard, _told(of, config)) for shard in shards}
    found = {shard.name: _noted(of, config, shard, marks[shard.name]) for shard in shards}
    missing = [shard for shard in shards if found[shard.name] is None]
    if models is not None:
        models = replace(models, **{name: _absolute(getattr(models, name)) for name in ("cache", "prices", "log")})
        if models.budget is not None and missing:
            models.budget /= len(missing)
    work = Worker(of.name, config, models)
    failed: dict[str, str] = {}
    for done in progress(engine(work, missing, 1.0 if models is None else ASKING), len(missing)):
        if done.error:
            failed[done.name] = done.error
            continue
        summary = msgspec.json.decode(done.summary, type=of.summary())
        found[done.name] = summary
        if not of.unfinished(summary):
            _note(config, of, done, marks[done.name])
    if failed:
        first = next(iter(failed))
        raise CM2Error(
            f"{len(failed)} of {len(shards)} shards failed; the first, {first}: {failed[first]}",
            fix="the others are done; the same command does the rest",
        )
    summaries = [found[shard.name] for shard in shards]
    total = summaries[0]
    for summary in summaries[1:]:
        total = merged(total, summary)
    return total


class Worker:
    """The work on a shard: what is sent to other processes and machines."""

    def __init__(self, stage: str, config: Any, models: ModelsConfig | None):
        self._stage, self._config, self._models = stage, config, models

    def __call__(self, shard: Shard) -> Done:
        """Run the stage on a shard. A failure that a person can mend is told, everything else is raised."""
        stage = STAGES[self._stage]
        config = stage.configured(self._config, shard)
        try:
            if self._models is None:
                summary = stage.run(config, shard, None)
            else:
                from cm2.llm.models import Models

                with Models(_cached(self._models, getattr(config, stage.outputs[0]))) as door:
                    summary = stage.run(config, shard, door)
        except (CM2Error, OSError) as error:
            return Done(shard.name, error=told(error))
        return Done(shard.name, encode(summary).decode())


def _cached(models: ModelsConfig, output: str) -> ModelsConfig:
    if models.cache is not None or "://" in output:
        return models
    os.makedirs(os.path.dirname(output), exist_ok=True)
    return replace(models, cache=f"{output}.llm.sqlite")


def _folders(stage: Stage, config: Any) -> Any:
    """The configuration with every output in a folder of its own."""
    if hasattr(config, "set_aside") and config.set_aside is None:
        # Beside the output, not in it: the next stage reads everything that lies there.
        config = replace(config, set_aside=f"{config.output.rstrip('/')}.unscored")
    paths = [name for name in ("input", *stage.outputs, "checklists") if getattr(config, name, None) is not None]
    config = replace(config, **{name: _absolute(getattr(config, name)) for name in paths})
    taken = [("IN", _real(config.input))]
    for name in stage.outputs:
        path = getattr(config, name, None)
        if path is None:
            continue
        real = _real(path)
        for other, folder in taken:
            if f"{real}/".startswith(f"{folder}/") or f"{folder}/".startswith(f"{real}/"):
                raise ConfigError(f"{name} and {other} lie in each other", fix="give each a folder of its own")
        if "://" not in path and os.path.isfile(path):
            raise ConfigError(f"{path} is a file", fix="over shards every output is a folder")
        taken.append((name, real))
    return config


def _absolute(path: str | None) -> str | None:
    """A path that means the same to a process that runs elsewhere."""
    return path if path is None or "://" in path else os.path.abspath(path)


def _real(path: str) -> str:
    return path.rstrip("/") if "://" in path else os.path.realpath(path)


def _told(stage: Stage, config: Any) -> str:
    """The settings, wherever the files lie."""
    bare = replace(config, input="", **{name: "" for name in stage.outputs if getattr(config, name, None) is not None})
    return f"{stage.name} {msgspec.json.encode(bare, order='deterministic').decode()}"


def _note_path(config: Any, stage: Stage, name: str) -> str:
    return f"{getattr(config, stage.outputs[0]).rstrip('/')}/{NOTES}/{name}.summary"


def _note(config: Any, stage: Stage, done: Done, mark: str) -> None:
    with RowWriter(_note_path(config, stage, done.name)) as writer:
        writer.write(Note(mark, msgspec.Raw(done.summary.encode())))


def _noted(stage: Stage, config: Any, shard: Shard, mark: str) -> Any:
    """The summary of a shard that is done, None where it is not, or was done from another file or configuration."""
    try:
        with fsspec.open(_note_path(config, stage, shard.name), "rb") as file:
            note = msgspec.json.decode(file.read(), type=Note)
        if note.fingerprint != mark or not _stands(shard.below(getattr(config, stage.outputs[0])), stage):
            return None
        return msgspec.json.decode(note.summary, type=stage.summary())
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _stands(path: str, stage: Stage) -> bool:
    fs, inner = fsspec.core.url_to_fs(store_name(path) if stage.name == "judge" else path)
    return bool(fs.exists(inner))
