"""Run: the folder of one training run, which a killed command finds again and goes on with.

    RUN/config.json      what the run is: verb, settings and a digest of every input; another run is refused
    RUN/metrics.jsonl    one JSON object a step
    RUN/tb/              the same numbers for TensorBoard
    RUN/checkpoints/     what resuming needs; complete ones are called step-00000123, unfinished ones .saving-*, and
                         those that are not what was written .broken-*
    RUN/model/           the result, a Hugging Face folder (and RUN/adapter/ of a LoRA run)
    RUN/threads.json     how many threads a product runs on, where that was measured (see `cm2.train.threads`)
    RUN/done.json        the summary; where it exists the run is finished

Whatever is written whole (checkpoint, model, summary) takes its name by a rename after its last byte: at no moment does
a half-written thing bear a finished name. Metrics of steps that a resumed run repeats are taken out before it does.

Two checkpoints are kept, each with a digest of every file (`cm2.train.digests`): where the newest is not what was
written, the run goes on from the one before.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from cm2.errors import ConfigError
from cm2.formats.jsonlines import encode
from cm2.formats.lock import lock_output
from cm2.train import space
from cm2.train.digests import fault_of, write_digests

_CHECKPOINT = re.compile(r"step-(\d{8})")
_OURS = ("metrics.jsonl", "model", "checkpoints", "done.json")
KEPT = 2
"""Checkpoints that are kept: the newest, and one to fall back to."""


class Run:
    """Claims a run folder and holds it until `close()`.

    Args:
        folder: made where it does not exist.
        verb: the command ("sft", "rl").
        config: a Struct of all settings.
        inputs: a digest per input (see `cm2.formats.origin.fingerprint`), by name.
        free: fields of `config` that may change between a run and its resumption, because no number depends on them.

    Attributes:
        summary: what the run printed when it finished, or None while it has not.
        expected_bytes: how large the next checkpoint will be about; it is not begun where that does not fit.

    Raises:
        CM2Error: another process is at work in the folder.
        ConfigError: the folder holds another run, or files that are no run.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        verb: str,
        config: msgspec.Struct,
        inputs: dict[str, str],
        free: tuple[str, ...] = (),
    ):
        self._paths(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise ConfigError(f"{self.folder} is a file, not a folder", fix="give -o the name of a folder")
        self._lock = lock_output(os.fspath(self.folder))
        try:
            mine = {"verb": verb, "config": _flat(msgspec.to_builtins(config)), "inputs": inputs}
            self._claim(msgspec.json.decode(encode(mine)), free, _defaults(config))
            self.checkpoints_folder.mkdir(exist_ok=True)
            for left in self.folder.rglob(".saving-*"):
                shutil.rmtree(left)
            self.summary: dict[str, Any] | None = self._read(self._done_file)
        except BaseException:
            self._lock.release()
            raise

    def _paths(self, folder: str | os.PathLike[str]) -> None:
        """Where everything is; nothing is opened or made."""
        self.folder = Path(folder)
        self.metrics_file = self.folder / "metrics.jsonl"
        self.model_folder = self.folder / "model"
        self.adapter_folder = self.folder / "adapter"
        self.checkpoints_folder = self.folder / "checkpoints"
        self.rollouts_folder = self.folder / "rollouts"
        self.tb_folder = self.folder / "tb"
        self._done_file = self.folder / "done.json"
        self.expected_bytes = 0
        self._metrics = -1
        self._board: Any = None
        self._purge: int | None = None

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close files and let others have the folder."""
        if self._metrics >= 0:
            os.close(self._metrics)
            self._metrics = -1
        if self._board is not None:
            self._board.close()
            self._board = None
        self._lock.release()

    def resume_to(self, step: int) -> None:
        """Forget the metrics of steps after `step` (0: all): the run goes on from there. Call it before `log`."""
        kept = [line for line in self._lines() if msgspec.json.decode(line)["step"] <= step]
        self.write(self.metrics_file, b"".join(kept))
        self._purge = step + 1

    def log(self, step: int, **numbers: float | int | str | None) -> None:
        """Put one step on record: a line of metrics.jsonl, and the numbers among them in TensorBoard."""
        if self._metrics < 0:
            self._metrics = os.open(self.metrics_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        line = encode({"step": step, **numbers}) + b"\n"
        end = os.fstat(self._metrics).st_size
        try:
            written = os.write(self._metrics, line)
            if written < len(line):
                os.write(self._metrics, line[written:])
        except OSError as error:
            os.ftruncate(self._metrics, end)
            error.filename = os.fspath(self.metrics_file)
            raise
        board = self._tensorboard()
        for name, value in numbers.items():
            if isinstance(value, int | float):
                board.add_scalar(name, value, step)

    def metrics(self) -> list[dict[str, Any]]:
        """Every step on record, in order."""
        return [msgspec.json.decode(line) for line in self._lines()]

    def last_checkpoint(self) -> tuple[int, Path] | None:
        """The newest complete checkpoint and its step."""
        found = self._checkpoints()
        return found[-1] if found else None

    def sound_checkpoint(self) -> tuple[tuple[int, Path] | None, list[str]]:
        """The newest checkpoint that still is what was written, and a sentence for each newer one that is not.

        Those are put aside as .broken-*, where a person can look at them; nothing is resumed from them.
        """
        said: list[str] = []
        for step, path in reversed(self._checkpoints()):
            fault = fault_of(path)
            if fault is None:
                return (step, path), said
            aside = path.with_name(f".broken-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            said.append(f"the checkpoint of step {step} is damaged ({fault}); it is kept as {aside}")
        return None, said

    def make_room(self, bytes: int) -> None:
        """Make sure that a checkpoint of so many bytes fits; an older one goes for it where a sound newer one stays.

        Raises:
            DiskFull: it does not fit.
        """
        found = self._checkpoints()
        short = space.room(self.checkpoints_folder) < bytes + space.RESERVE
        if short and len(found) > 1 and fault_of(found[-1][1]) is None:
            for _, old in found[:-1]:
                _remove(old)
        space.need(self.checkpoints_folder, bytes, "a checkpoint")

    @contextlib.contextmanager
    def saving_checkpoint(self, step: int, keep: int = KEPT) -> Iterator[Path]:
        """A folder to write the checkpoint of `step` into; older ones than the last `keep` go once it is complete.

        Raises:
            DiskFull: `expected_bytes` do not fit; nothing was written.
        """
        self.make_room(self.expected_bytes)
        with self.saving(self.checkpoints_folder / f"step-{step:08d}") as scratch:
            yield scratch
            write_digests(scratch)
        for _, old in self._checkpoints()[:-keep]:
            _remove(old)

    @contextlib.contextmanager
    def saving(self, target: Path) -> Iterator[Path]:
        """A new folder to write into, which becomes `target` (in place of an old one) when the block ends well."""
        scratch = target.with_name(f".saving-{target.name}")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        try:
            yield scratch
            _sync(scratch)
            if target.exists():
                _remove(target)
            scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def finish(self, summary: dict[str, Any]) -> None:
        """Mark the run as finished; its checkpoints, which only resuming needs, are removed."""
        self.write(self._done_file, encode(summary))
        self.summary = summary
        _remove(self.checkpoints_folder)

    def _claim(self, mine: dict[str, Any], free: tuple[str, ...], defaults: dict[str, Any]) -> None:
        file = self.folder / "config.json"
        begun = self._read(file)
        if begun is None:
            found = [name for name in _OURS if (self.folder / name).exists()]
            if found:
                message = f"{self.folder} holds {', '.join(found)} but no config.json that says of which run"
                raise ConfigError(message, fix="give -o another folder")
            self.folder.mkdir(parents=True, exist_ok=True)
        elif changed := _differences(begun | {"config": defaults | begun.get("config", {})}, mine, free):
            raise ConfigError(
                f"{self.folder} holds another run: {'; '.join(changed)}",
                fix="give -o another folder, or repeat the run's own command",
            )
        self.write(file, msgspec.json.format(encode(mine), indent=2))

    def _checkpoints(self) -> list[tuple[int, Path]]:
        found = []
        for path in self.checkpoints_folder.iterdir() if self.checkpoints_folder.is_dir() else ():
            if match := _CHECKPOINT.fullmatch(path.name):
                found.append((int(match[1]), path))
        return sorted(found)

    def _lines(self) -> list[bytes]:
        if not self.metrics_file.exists():
            return []
        return [line for line in self.metrics_file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]

    def _tensorboard(self) -> Any:
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.tb_folder), purge_step=self._purge)
        return self._board

    @staticmethod
    def _read(file: Path) -> dict[str, Any] | None:
        try:
            return msgspec.json.decode(file.read_bytes())
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise ConfigError(f"{file} is not JSON: {error}", fix="give -o another folder") from error

    @staticmethod
    def write(file: Path, content: bytes) -> None:
        """Write a file so that it is there whole or as it was before."""
        draft = file.with_name(f".{file.name}.tmp")
        try:
            with draft.open("wb") as handle:
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
            draft.replace(file)
        except OSError as error:
            error.filename = os.fspath(file)
            raise


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """Settings that are groups of settings, each by its full name: `judging.kind`."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            found |= {f"{name}.{inner}": one for inner, one in _flat(value).items()}
        else:
            found[name] = value
    return found


def _defaults(config: msgspec.Struct) -> dict[str, Any]:
    """What a setting is that a run begun by an earlier version does not name: what it does not ask for."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(config):
        if field.default_factory is not msgspec.NODEFAULT:
            found[field.name] = field.default_factory()
        elif field.default is not msgspec.NODEFAULT:
            found[field.name] = field.default
    flat: dict[str, Any] = msgspec.json.decode(encode(_flat(msgspec.to_builtins(found))))
    return flat


def _differences(begun: dict[str, Any], mine: dict[str, Any], free: tuple[str, ...]) -> list[str]:
    changed = []
    for part in ("config", "inputs"):
        old, new = begun.get(part, {}), mine[part]
        for name in sorted({*old, *new} - set(free if part == "config" else ())):
            if old.get(name) != new.get(name):
                told = f" was {old.get(name)!r}, now {new.get(name)!r}" if part == "config" else "'s content changed"
                changed.append(f"{name}{told}")
    if begun.get("verb") != mine["verb"]:
        changed.insert(0, f"it was made by cm2 {begun.get('verb')}")
    return changed


def _remove(folder: Path) -> None:
    """Remove a folder so that, interrupted halfway, no part of it bears the folder's name."""
    if folder.exists():
        doomed = folder.with_name(f".saving-{folder.name}-old")
        shutil.rmtree(doomed, ignore_errors=True)
        folder.rename(doomed)
        shutil.rmtree(doomed)


def _sync(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
