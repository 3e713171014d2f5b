"""Judging a file: every dialogue by its own checklists or by those of another file, into an append-only store.

The store holds one verdict a line and item and step. Checks are free and say the same every time, so a resumed run
judges from the start, writes only what is missing, and still has the whole summary. Beside the store lies
`VERDICTS.input.json`, the fingerprint of what was judged: a store is never continued on another input.

Dialogues that share an id are told apart by `Verdict.rollout`: empty for the first, then "2", "3" …
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import fsspec
import msgspec

from cm2.checklist import Checklist, Task
from cm2.errors import ConfigError, DataError, Where
from cm2.formats import read_tasks
from cm2.formats.store import Store
from cm2.judge.judge import ChecksJudge, Judge
from cm2.verdict import Verdict

KEPT_PROBLEMS = 5
Tasks = Iterable[tuple[int, Task]]


class JudgeConfig(msgspec.Struct):
    """What to judge, by what, into which store."""

    input: str
    """The dialogues to judge: a reference with checklists, or an agent's runs."""
    output: str
    """The store of verdicts (JSONL). The same command goes on where a killed one stopped."""
    checklists: str | None = None
    """Where the checklists are, when not on the rows of `input`: the same dialogue ids, turns line up by index."""
    format: str = "auto"
    """The format of `input` and `checklists`, when it cannot be told from the rows."""


class Tally(msgspec.Struct):
    """Items of one kind. `passed` held in some state of its turn, `failed` was judged in none (turns that the run never
    reached included), `unscored` could not be decided and counts in neither."""

    items: int = 0
    passed: int = 0
    failed: int = 0
    not_reached: int = 0
    unscored: int = 0

    @property
    def pass_rate(self) -> float | None:
        """passed / (passed + failed), None where nothing was scored."""
        scored = self.passed + self.failed
        return self.passed / scored if scored else None


class Summary(msgspec.Struct):
    """What a run judged."""

    dialogues: int = 0
    without_checklist: int = 0
    duplicates: int = 0
    unreadable: int = 0
    turns: int = 0
    verdicts: int = 0
    written: int = 0
    total: Tally = msgspec.field(default_factory=Tally)
    kinds: dict[str, Tally] = {}
    problems: list[str] = []

    def as_json(self) -> dict[str, Any]:
        """The summary as JSON values, with the pass rates."""
        value = msgspec.to_builtins(self)
        value["total"]["pass_rate"] = self.total.pass_rate
        for kind, tally in self.kinds.items():
            value["kinds"][kind]["pass_rate"] = tally.pass_rate
        return value

    def add(self, checklist: Checklist, verdicts: list[Verdict]) -> None:
        """Count the verdicts of one turn."""
        self.turns += 1
        self.verdicts += len(verdicts)
        for item in checklist.items:
            mine = [verdict.met for verdict in verdicts if verdict.item == item.id]
            for tally in (self.total, self.kinds.setdefault(item.kind or "(none)", Tally())):
                tally.items += 1
                if True in mine:
                    tally.passed += 1
                elif None in mine or item.check is None:
                    tally.unscored += 1
                else:
                    tally.failed += 1
                    tally.not_reached += not mine


def judge_file(
    config: JudgeConfig, judge: Judge | None = None, progress: Callable[[Tasks], Tasks] = lambda tasks: tasks
) -> Summary:
    """Judge every dialogue of `config.input` and append what its store does not hold yet.

    Raises:
        ConfigError: the store was begun on another input, or input and output are the same file.
        DataError: an input is missing, empty or of another format; no dialogue has a checklist.
    """
    judge = judge or ChecksJudge()
    for path in (config.input, config.checklists):
        if path is not None and os.path.realpath(path) == os.path.realpath(config.output):
            raise ConfigError("input and output are the same file", fix="give -o another name")
    summary = Summary()

    def problem(row: Any) -> None:
        summary.unreadable += 1
        if len(summary.problems) < KEPT_PROBLEMS:
            summary.problems.append(f"line {row.line}: {row.error}")

    lent = _lent(config) if config.checklists is not None else None
    source = _fingerprints(config)
    claim(config.output, source, note=False)
    seen: dict[str, int] = {}
    with Store(config.output, key=_key) as store:
        claim(config.output, source)
        for _, task in progress(read_tasks(config.input, config.format, on_error=problem)):
            id = task.dialogue.id
            seen[id] = seen.get(id, 0) + 1
            summary.dialogues += 1
            summary.duplicates += seen[id] > 1
            rollout = str(seen[id]) if seen[id] > 1 else ""
            checklists = task.checklists if lent is None else lent.get(id, [])
            summary.without_checklist += not checklists
            for checklist in checklists:
                verdicts = judge.judge(task.dialogue, checklist.turn, checklist)
                summary.add(checklist, verdicts)
                for verdict in verdicts:
                    verdict.rollout = rollout
                    if verdict.key not in store.done:
                        store.append(verdict)
                        summary.written += 1
    if summary.dialogues and summary.without_checklist == summary.dialogues:
        raise DataError(
            "no dialogue has a checklist",
            where=Where(file=config.checklists or config.input),
            fix="label it first (cm2 label IN -o OUT), or name the labelled file with --checklists",
        )
    return summary


def _key(row: dict[str, Any]) -> tuple[str, str, int, int, int, str]:
    return (row["dialogue"], row.get("rollout", ""), row.get("variant", 0), row["turn"], row["step"], row["item"])


def _lent(config: JudgeConfig) -> dict[str, list[Checklist]]:
    assert config.checklists is not None
    lent: dict[str, list[Checklist]] = {}
    for line, task in read_tasks(config.checklists, config.format):
        if task.dialogue.id in lent and task.checklists != lent[task.dialogue.id]:
            where = Where(file=config.checklists, line=line, dialogue=task.dialogue.id)
            raise DataError("two rows of this id have different checklists", where=where, fix="make the ids unique")
        lent[task.dialogue.id] = task.checklists
    return lent


def _fingerprints(config: JudgeConfig) -> dict[str, str]:
    paths = {"input": config.input, "checklists": config.checklists}
    return {name: fingerprint(path) for name, path in paths.items() if path is not None}


def claim(output: str, source: dict[str, str], note: bool = True) -> None:
    """Make sure that the store at `output` was begun on `source`; with `note`, begin it where it is still empty.

    Looked at before the store is opened, because opening mends a torn last line and a file that is no store of ours
    must not be touched; noted only under the store's lock, so that a second run cannot rename the input of the first.

    Raises:
        ConfigError: the store holds verdicts about another input, or about one that is not known.
    """
    store, beside = Path(output), Path(f"{output}.input.json")
    if store.exists() and store.stat().st_size:
        fix = f"give -o another name, or remove {store} and {beside} to judge anew"
        try:
            begun = msgspec.json.decode(beside.read_bytes())
        except (FileNotFoundError, msgspec.DecodeError) as error:
            raise ConfigError(f"{store} holds something, but {beside} does not say of which input", fix=fix) from error
        if begun != source:
            changed = ", ".join(sorted(key for key in {*source, *begun} if source.get(key) != begun.get(key)))
            raise ConfigError(f"{store} holds verdicts about other data ({changed} changed)", fix=fix)
    elif note:
        draft = beside.with_name(f"{beside.name}.{os.getpid()}.tmp")
        draft.write_bytes(msgspec.json.encode(source))
        os.replace(draft, beside)


def fingerprint(path: str) -> str:
    """A digest of the content of a file, or of a folder's files by name. Fails with DataError where there is none."""
    fs, root = fsspec.core.url_to_fs(path)
    if not fs.exists(root):
        raise DataError("there is no such file or folder", where=Where(file=path), fix="check the path")
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(fs.find(root)) if fs.isdir(root) else [root]:
        if name != root:
            digest.update(name[len(root) :].encode() + b"\0")
        with fs.open(name, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
