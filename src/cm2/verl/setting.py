"""Setting: what verl's configuration says about dialogues, in its section `cm2:`, and what a worker makes of it.

Every worker process of verl plays many sessions. They share one judge, one door to the models that judge and simulate,
and for every prompt one world: `Workshop` holds these, made once a process.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from weakref import WeakValueDictionary

import msgspec

from cm2.checklist import Task
from cm2.credit import Credit
from cm2.errors import ConfigError
from cm2.judge import Judge
from cm2.judge.judging import Judging
from cm2.judge.make import make_judge
from cm2.llm import Models, load_models
from cm2.rollout.limits import Limits
from cm2.rollout.trace import Rollout, encode
from cm2.simulate.config import SimulatorConfig, simulated
from cm2.simulate.world import World
from cm2.worlds import world_for

SECTION = "cm2"
Count = Annotated[int, msgspec.Meta(ge=1)]


class Setting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section `cm2:` of a verl configuration. `cm2 rl --engine verl` writes it from a recipe."""

    credit: Credit = msgspec.field(default_factory=Credit)
    """How verdicts become advantages; the trainer reads it."""
    judging: Judging = msgspec.field(default_factory=Judging)
    """Who judges."""
    simulator: SimulatorConfig = msgspec.field(default_factory=SimulatorConfig)
    """Who answers the tools."""
    models: str | None = None
    """File of the models that judge and simulate, readable on every node."""
    limits: Limits = msgspec.field(default_factory=Limits)
    """When a rollout ends at the latest."""
    max_step_tokens: Count = 2048
    """Tokens of one action."""
    max_tokens: Count = 10_000
    """Tokens of a whole rollout, its prompt included."""
    seed: int = 0
    """Varies the worlds."""
    workers: Count = 8
    """Processes that play sessions: the models' `concurrency` is divided by it, because each has a door of its own."""
    rollouts: str | None = None
    """Folder of all rollouts as they ended, failed ones too; one file a process. None keeps none."""
    cache: str | None = None
    """SQLite file of the models' answers, for all processes of a node; the host's name is added to it."""

    def __post_init__(self) -> None:
        self.judging.during()
        if (self.judging.asks or self.simulator.kind == "llm") and self.models is None:
            raise ConfigError("a language model is asked, and none is named", fix="give --models FILE.yaml")


def setting_of(config: Any) -> Setting:
    """The setting of a verl configuration (anything that `OmegaConf.to_container` or `dict` understands).

    Raises:
        ConfigError: there is no section `cm2`, or something in it is unknown or out of range.
    """
    found = config.get(SECTION) if hasattr(config, "get") else None
    if found is None:
        raise ConfigError(
            "the verl configuration has no section `cm2`", fix="write it with cm2 rl TASKS -o RUN --engine verl"
        )
    if type(found) is not dict:
        from omegaconf import OmegaConf

        found = OmegaConf.to_container(found, resolve=True)
    try:
        return msgspec.convert(found, Setting)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, ConfigError):
            raise ConfigError(f"section cm2: {error.__cause__.message}", fix=error.__cause__.fix) from error
        raise ConfigError(f"section cm2: {error}", fix="write the file again with cm2 rl --engine verl") from error


class Workshop:
    """What the sessions of a process share; `workshop` gives the process's own.

    Attributes:
        judge: judges every session.
    """

    def __init__(self, setting: Setting):
        self.setting = setting
        door = self._door() if setting.judging.asks or setting.simulator.kind == "llm" else None
        self.judge: Judge = make_judge(setting.judging, door if setting.judging.asks else None)
        self._make: Callable[[Task, int], World]
        self._make = world_for if setting.simulator.kind == "auto" else simulated(setting.simulator, door)
        self._worlds: WeakValueDictionary[str, World] = WeakValueDictionary()
        self._file: Path | None = None

    def world(self, group: str, task: Task, step: int) -> World:
        """The world that the sessions of a group share: it lives as long as one of them does.

        Its seed depends on the step and the task and not on the group's name, which verl draws anew in every run.
        """
        found = self._worlds.get(group)
        if found is None:
            found = self._worlds[group] = self._make(task, seed_of(self.setting.seed, step, task.dialogue.id))
        return found

    def keep(self, rollout: Rollout) -> None:
        """Put a rollout on file."""
        if self.setting.rollouts is None:
            return
        if self._file is None:
            folder = Path(self.setting.rollouts)
            folder.mkdir(parents=True, exist_ok=True)
            self._file = folder / f"{socket.gethostname()}-{os.getpid()}.jsonl"
        with self._file.open("ab") as file:
            file.write(encode(rollout) + b"\n")

    def _door(self) -> Models:
        assert self.setting.models is not None
        config = load_models(self.setting.models)
        config.concurrency = max(1, config.concurrency // self.setting.workers)
        if config.cache is None and self.setting.cache is not None:
            file = Path(self.setting.cache)
            file.parent.mkdir(parents=True, exist_ok=True)
            config.cache = str(file.with_name(f"{file.stem}-{socket.gethostname()}{file.suffix}"))
        return Models(config, say=lambda text: print(f"cm2: {text}", flush=True))


_workshops: dict[bytes, Workshop] = {}


def workshop(setting: Setting) -> Workshop:
    """This process's workshop for the setting, made when it is first asked for."""
    key = msgspec.json.encode(setting)
    if key not in _workshops:
        _workshops[key] = Workshop(setting)
    return _workshops[key]


def seed_of(*parts: object) -> int:
    """A seed of 31 bits that depends on all of these, the same on every machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1
