"""Run: a model on a benchmark, repetition by repetition, into one folder.

    settings ─▶ environment ─▶ runner (a process of the harness) ─▶ raw/run-N ─▶ outcomes ─▶ scores ─▶ results.json

A folder belongs to one model, one way of asking and one version of the harness. The same command goes on in it: what
has a score stays, what was lost to somebody else than the agent is tried again, more repetitions may be asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import msgspec
import orjson

from cm2.errors import CM2Error, ConfigError, Where
from cm2.formats.lock import lock_output
from cm2.harness import bfcl, environments, results, scores, tau2, toolsandbox
from cm2.harness.results import RAW, Headline, Outcome, Results
from cm2.harness.settings import NEEDS_USER, EvalConfig, Identified

ADAPTERS: dict[str, ModuleType] = {"bfcl": bfcl, "tau2": tau2, "toolsandbox": toolsandbox}
IDENTITY = "identity.json"
Progress = Callable[[int, int], None]
"""Is told the repetition and how many conversations of it are done."""


def evaluate(config: EvalConfig, progress: Progress = lambda run, done: None) -> Results:
    """Run what is missing, grade, and write the results.

    Raises:
        ConfigError: the harness is not set up, a category is unknown, or the folder is of other settings.
        HarnessFailed: a harness ended without results.
        CM2Error: an endpoint does not answer at all, or another run holds the folder.
    """
    adapter = ADAPTERS[config.benchmark]
    chosen = categories(config, adapter)
    environment = environments.need(config.benchmark)
    with claimed(config, environment.version) as folder:
        reach(config.base_url, "agent")
        if config.benchmark in NEEDS_USER and config.user_base_url is not None:
            reach(config.user_base_url, "user")
        outcomes: list[Outcome] = []
        official: dict[str, list[float]] = {}
        for index in range(config.runs):
            raw = folder / RAW / f"run-{index}"
            if not _complete(adapter, raw, index, config):
                for done in adapter.run_once(config, environment, raw, index, chosen):
                    progress(index, done)
            found, own = adapter.parse(raw, index, f"{RAW}/run-{index}")
            outcomes += found
            for name, values in own.items():
                official.setdefault(name, []).extend(values)
        made = gather(config, adapter, environment.version, folder, outcomes, official)
        results.write(made, outcomes, folder)
        return made


def categories(config: EvalConfig, adapter: ModuleType) -> list[str]:
    """The categories that are to be run; a group's name stands for its categories.

    Raises:
        ConfigError: one is unknown.
    """
    found: list[str] = []
    for name in config.categories or adapter.DEFAULT:
        if name not in adapter.WHOLE and name not in adapter.GROUPS:
            known = ", ".join([*adapter.GROUPS, *adapter.WHOLE])
            raise ConfigError(f"{config.benchmark} has no category {name!r}", fix=f"it has {known}")
        found += [one for one in adapter.GROUPS.get(name, (name,)) if one not in found]
    return found


@contextmanager
def claimed(config: Identified, version: str) -> Iterator[Path]:
    """The folder of results, for as long as it is written: of these settings, and of no other run.

    Raises:
        ConfigError: it is a file, or of other settings.
        CM2Error: another run holds it.
    """
    folder = Path(config.output)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file", fix="give -o a folder")
    folder.mkdir(parents=True, exist_ok=True)
    lock = lock_output(str(folder))
    try:
        claim(config, version, folder)
        yield folder
    finally:
        lock.release()


def claim(config: Identified, version: str, folder: Path) -> None:
    """Write down whose folder it is, or see that it is ours.

    Raises:
        ConfigError: its results are of other settings.
    """
    ours = config.identity() | {"harness": version}
    path = folder / IDENTITY
    if not path.exists():
        if any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty", fix="give -o a new folder")
        path.write_bytes(msgspec.json.format(msgspec.json.encode(ours), indent=2))
        return
    theirs = orjson.loads(path.read_bytes())
    differ = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if differ:
        told = ", ".join(f"{name} {theirs.get(name)!r} there, {ours.get(name)!r} here" for name in differ)
        raise ConfigError(f"has results of other settings: {told}", where=Where(file=str(folder)), fix="another -o")


def reach(address: str, role: str) -> None:
    """See that something answers there: a server that is not up would lose every conversation, one by one.

    Raises:
        CM2Error: nothing does.
    """
    try:
        httpx.get(f"{address.rstrip('/')}/models", timeout=30)
    except httpx.TransportError as error:
        said = f"the {role}'s endpoint {address} does not answer: {type(error).__name__}"
        raise CM2Error(said, fix="start it, or correct the address") from error


def gather(
    config: EvalConfig,
    adapter: ModuleType,
    version: str,
    folder: Path,
    outcomes: list[Outcome],
    official: dict[str, list[float]],
) -> Results:
    """Outcomes as results."""
    parts = scores.categories(outcomes, config.runs, adapter.WHOLE)
    refusing = adapter.baseline(folder / RAW / "run-0") if hasattr(adapter, "baseline") else {}
    for part in parts:
        part.official = official.get(part.name, [])
        part.baseline = refusing.get(part.name)
    by_name = {part.name: part for part in parts}
    headlines = []
    for name, members in adapter.GROUPS.items():
        present = [by_name[member] for member in members if member in by_name]
        if present:
            made = scores.headline(name, present)
            whole = len(present) == len(members) and all(part.n == part.whole for part in present)
            made.comparable = whole and not any(
                part.errors.get(owner) for part in present for owner in results.OWNERS if owner != "agent"
            )
            headlines.append(made)
    tasks = orjson.loads((folder / RAW / "run-0" / "tasks.json").read_bytes())
    errors = results.owners(outcomes)
    return Results(
        benchmark=config.benchmark,
        harness=version,
        tasks=tasks["hash"],
        model=config.model,
        endpoint=config.base_url,
        user_model=config.user_model if config.benchmark in NEEDS_USER else None,
        thinking=config.thinking,
        runs=config.runs,
        n=len({(one.category, one.task) for one in outcomes}),
        headlines=headlines,
        categories=parts,
        errors=errors,
        allowed=config.allow_errors,
        differs=differs(adapter, headlines, parts, errors),
        settings=config.identity(),
    )


def differs(adapter: ModuleType, headlines: list[Headline], parts: list[Any], errors: dict[str, int]) -> list[str]:
    """What was left out, in words."""
    found = []
    by_name = {part.name: part for part in parts}
    for one in headlines:
        members = adapter.GROUPS[one.name]
        absent = [name for name in members if name not in by_name]
        n = sum(by_name[name].n for name in members if name in by_name)
        whole = sum(adapter.WHOLE[name] for name in members)
        if n < whole:
            missing = f" (without {', '.join(absent)})" if absent else ""
            found.append(
                f"{n} of {whole} tasks of {one.name}{missing}: a subset, not comparable with published numbers"
            )
    lost = {owner: count for owner, count in errors.items() if owner != "agent"}
    if lost:
        told = ", ".join(f"{owner} {count}" for owner, count in lost.items())
        found.append(f"conversations lost to others than the agent, and left out: {told}")
    return found


def _complete(adapter: ModuleType, raw: Path, index: int, config: EvalConfig) -> bool:
    """Whether a repetition is there, with a score for everything."""
    try:
        found, _ = adapter.parse(raw, index, "")
    except (OSError, CM2Error, ValueError, KeyError):
        return False
    if hasattr(adapter, "baseline") and config.baseline and index == 0 and not adapter.baseline(raw):
        return False
    return bool(found) and not any(one.lost for one in found)
