"""Export: from judged logs to data that makes the agent better.

    sft           dialogues that pass, whole; or, on request, the turns of others before the first that fails
    preferences   two answers to one prefix, of which one led to a pass and one to a fail (`pairs`)
    rl            tasks: the dialogue with a checklist of the duties that failed in it

What is unscored never counts as a pass; whatever is left out is counted by its reason. Dialogues stream.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from cm2.assure.export_formats import (
    FORMATS,
    KINDS,
    SUFFIX,
    Format,
    Kind,
    Pair,
    Rl,
    Sample,
    Sft,
    factory_info,
    writer_of,
)
from cm2.assure.export_standing import RANK, Standing, standing_of
from cm2.assure.export_talk import Talk, Unsayable, talk_of
from cm2.assure.export_verl import writer_for
from cm2.assure.leakage import Exclusion
from cm2.assure.outcomes import Judged, Outcome, read_judged
from cm2.assure.pairs import Paths, Wanted, fetch
from cm2.checklist import Checklist, Severity, Task
from cm2.curate.seen import Seen
from cm2.dialogue import Dialogue
from cm2.errors import ConfigError, DataError, Where
from cm2.formats import read_tasks
from cm2.formats.jsonlines import encode
from cm2.policy import Policy
from cm2.verdict import WHOLE

KEPT_PROBLEMS = 5
Progress = Callable[[Iterable[Judged], str], Iterable[Judged]]


class ExportConfig(msgspec.Struct, kw_only=True):
    """What to export, and for whom."""

    input: str
    """The dialogues that were judged."""
    verdicts: str
    """The store that `cm2 judge` wrote about them."""
    output: str
    """The file of rows."""
    kind: Kind = "sft"
    """What is trained."""
    form: Format = "trl"
    """Who trains."""
    policy: Policy | None = None
    """The duties, where it was judged by a policy."""
    checklists: str | None = None
    """The labelled file, where it was judged by another file's checklists; its dialogues are the tasks of `rl`."""
    blocking: Severity = "major"
    """The least severity whose fails block a dialogue."""
    until_failure: bool = False
    """sft: of a dialogue that fails, the turns before the first that does."""
    per_prefix: int = 1
    """preferences: pairs of one prefix at most."""
    thinking: bool = True
    """Whether private thinking is kept, where the format has a place for it."""
    format: str = "auto"
    """The format of the dialogues, when it cannot be told."""

    def __post_init__(self) -> None:
        for name, known in (("kind", KINDS), ("form", FORMATS), ("blocking", [one for one in RANK if one])):
            if getattr(self, name) not in known:
                raise ConfigError(f"there is no {name} {getattr(self, name)!r}", fix=f"use {', '.join(known)}")
        writer_of(self.kind, self.form)
        if self.until_failure and self.kind != "sft":
            raise ConfigError("`until failure` is for sft", fix="leave it out")
        wanted = SUFFIX.get(self.form)
        if wanted is not None and not self.output.endswith(wanted):
            raise ConfigError(f"{self.form} reads {wanted}", fix=f"give -o a name that ends in {wanted}")


class Summary(msgspec.Struct, kw_only=True):
    """What was exported, and what was not."""

    dialogues: int = 0
    rows: int = 0
    cut: int = 0
    """sft: rows that hold a part of their dialogue."""
    messages: int = 0
    learnt: int = 0
    """Messages that are learnt."""
    left_out: dict[str, int] = {}
    """Dialogues (preferences: pairs) that are in no row, by reason."""
    mixed: int = 0
    """preferences: actions at a fork after which duties held and did not."""
    sampled: dict[str, int] = {}
    """preferences: what came of asking an endpoint."""
    duties: dict[str, int] = {}
    """rl: tasks by the duty that they are about."""
    whole: dict[str, int] = {}
    """rl: dialogues that fail a duty about the whole dialogue, of which no reward is made."""
    excluded: int = 0
    """Dialogues to which nothing may be near."""
    unreadable: int = 0
    problems: list[str] = []
    files: list[str] = []

    def leave(self, reason: str) -> None:
        """Count one that is in no row."""
        self.left_out[reason] = self.left_out.get(reason, 0) + 1


def export_file(
    config: ExportConfig,
    exclusion: Exclusion | None = None,
    progress: Progress = lambda rows, what: rows,
    more: Callable[[Judged, Standing], Iterable[Pair]] | None = None,
) -> Summary:
    """Export a file of judged dialogues.

    Args:
        config: what and for whom.
        exclusion: what may not be trained on.
        progress: wraps the dialogues of each pass.
        more: preferences: further pairs of a dialogue that fails (`pairs_endpoint`).

    Raises:
        ConfigError: the output is an input.
        DataError: a file is missing or of another kind, or there is no row.
    """
    for path in filter(None, (config.input, config.verdicts, config.checklists)):
        if os.path.realpath(path) == os.path.realpath(config.output):
            raise ConfigError("the output is one of the inputs", where=Where(file=path), fix="give -o another name")
    export = _Export(config, exclusion or Exclusion(), progress)
    write = writer_of(config.kind, config.form)
    seen = Seen()
    summary = export.summary
    with writer_for(config.output, config.kind, config.form) as writer:
        for sample in export.samples(more):
            try:
                row = write(_without_thinking(sample) if not config.thinking else sample)
            except Unsayable as reason:
                summary.leave(str(reason))
                continue
            if seen.before(hashlib.blake2b(encode({**row, "id": ""}), digest_size=16).digest()):
                summary.leave("the same as an earlier row")
                continue
            writer.write(row)
            summary.rows += 1
            _count(summary, sample)
        if not summary.rows:
            told = ", ".join(f"{count} {reason}" for reason, count in summary.left_out.items()) or "there are none"
            raise DataError(f"no row comes of its dialogues: {told}", where=Where(file=config.input), fix=_FIX)
    summary.files.append(config.output)
    if config.form == "llama-factory":
        summary.files.append(_info(config))
    return summary


_FIX = "judge more logs, or mend what keeps them out"


def _count(summary: Summary, sample: Sample) -> None:
    if isinstance(sample, Sft):
        summary.messages += len(sample.talk.messages)
        summary.learnt += sum(sample.talk.learn)
    elif isinstance(sample, Pair):
        summary.messages += len(sample.prompt.messages) + 2
        summary.learnt += 2
    else:
        summary.messages += len(sample.prompt.messages)


class _Export:
    def __init__(self, config: ExportConfig, exclusion: Exclusion, progress: Progress):
        self.config, self.exclusion, self._progress = config, exclusion, progress
        self.summary = Summary(excluded=exclusion.count)
        self._passes = 0

    def samples(self, more: Callable[[Judged, Standing], Iterable[Pair]] | None) -> Iterator[Sample]:
        if self.config.kind == "sft":
            yield from self._sft()
        elif self.config.kind == "rl":
            yield from self._rl()
        else:
            yield from self._preferences(more)

    def _judged(self, what: str) -> Iterator[Judged]:
        """The dialogues that may be trained on; what is said of them is counted in the first pass."""
        first = not self._passes
        self._passes += 1

        def problem(row: Any) -> None:
            if first:
                self.summary.unreadable += 1
                self.summary.problems = [*self.summary.problems, f"line {row.line}: {row.error}"][:KEPT_PROBLEMS]

        config = self.config
        rows = read_judged(
            config.input,
            config.verdicts,
            policy=config.policy,
            checklists=config.checklists,
            format=config.format,
            on_error=problem,
        )
        for judged in self._progress(rows, what):
            self.summary.dialogues += first
            reason = self.exclusion.reason(judged.dialogue, *_tasks_of(judged.dialogue))
            if not reason:
                yield judged
            elif first:
                self.summary.leave(reason)

    def _sft(self) -> Iterator[Sft]:
        for judged in self._judged("exporting"):
            standing = standing_of(judged, self.config.blocking)
            dialogue, turns = judged.dialogue, len(judged.dialogue.turns)
            if not standing.passes:
                turns = min(standing.good_turns, turns) if self.config.until_failure else 0
            while turns and dialogue.turns[turns - 1].reply is None and not standing.passes:
                turns -= 1  # a turn that the agent did not end teaches it to stop there
            if not turns:
                self.summary.leave(standing.why_not)
                continue
            if dialogue.turns[turns - 1].reply is None:
                self.summary.leave("it does not end with a reply")
                continue
            try:
                talk = talk_of(dialogue, turns, spoilt=standing.spoilt)
            except Unsayable as reason:
                self.summary.leave(str(reason))
                continue
            if not any(talk.learn):
                self.summary.leave("a lesser duty fails in every turn")
                continue
            self.summary.cut += turns < len(dialogue.turns)
            yield Sft(dialogue.id, talk)

    def _preferences(self, more: Callable[[Judged, Standing], Iterable[Pair]] | None) -> Iterator[Pair]:
        paths = Paths()
        for judged in self._judged("looking for pairs"):
            standing = standing_of(judged, self.config.blocking)
            paths.add(judged.dialogue, standing)
            if more is not None and standing.failing:
                yield from more(judged, standing)
        wanted: list[Wanted] = paths.pairs(self.config.per_prefix)
        self.summary.mixed = paths.mixed
        dialogues = (judged.dialogue for judged in self._judged("fetching pairs"))
        yield from fetch(wanted, dialogues, self.summary.left_out)

    def _rl(self) -> Iterator[Rl]:
        references = self._references()
        for judged in self._judged("exporting"):
            standing = standing_of(judged, self.config.blocking)
            dialogue = references.get(judged.dialogue.id, judged.dialogue)
            for name in sorted({one.duty for one in standing.failing if one.turn == WHOLE}):
                self.summary.whole[name] = self.summary.whole.get(name, 0) + 1
            failing = [one for one in standing.failing if one.turn != WHOLE]
            if not failing:
                told = "only a duty of the whole dialogue fails" if standing.failing else standing.why_not
                self.summary.leave(told or "no duty fails")
                continue
            checklists = restricted(judged.outcomes, failing, self.config.policy is not None, len(dialogue.turns))
            try:
                prompt = talk_of(dialogue, 0, 0)  # everything before the agent's first step
            except Unsayable as reason:
                self.summary.leave(str(reason))
                continue
            for name in sorted({one.duty for one in failing}):
                self.summary.duties[name] = self.summary.duties.get(name, 0) + 1
            yield Rl(dialogue.id, Task(dialogue, checklists), prompt)

    def _references(self) -> dict[str, Dialogue]:
        if self.config.checklists is None:
            return {}
        return {task.dialogue.id: task.dialogue for _, task in read_tasks(self.config.checklists, self.config.format)}


def restricted(
    outcomes: Iterable[Outcome], failing: Iterable[Outcome], everywhere: bool, turns: int
) -> list[Checklist]:
    """The checklists of the turns, with nothing but the duties that failed and what these depend on.

    Args:
        outcomes: all of the dialogue.
        failing: those that failed.
        everywhere: keep a duty that failed in one turn in every turn (a policy's duties are the same in all).
        turns: how many turns the task has.
    """
    failed = {(one.turn, one.variant, one.item.id) for one in failing}
    names = {one.duty for one in failing}
    by_turn: dict[tuple[int, int], list[Outcome]] = {}
    for one in outcomes:
        if one.turn != WHOLE and one.turn < turns:
            by_turn.setdefault((one.turn, one.variant), []).append(one)
    made = []
    for (turn, variant), mine in sorted(by_turn.items()):
        items = {one.item.id: one.item for one in mine}
        kept = {
            one.item.id for one in mine if (everywhere and one.duty in names) or (turn, variant, one.item.id) in failed
        }
        waiting = list(kept)
        while waiting:
            for id in items[waiting.pop()].depends_on:
                if id in items and id not in kept:
                    kept.add(id)
                    waiting.append(id)
        if kept:
            chosen = [item for id, item in items.items() if id in kept]
            made.append(Checklist(turn, chosen, variant, labeler="export").normalised())
    return made


def _tasks_of(dialogue: Dialogue) -> list[str]:
    """Ids of the task that a dialogue is a run of, as far as it says so."""
    return [str(value) for name in ("task", "task_id") if (value := dialogue.meta.get(name)) not in (None, "")]


def _without_thinking(sample: Any) -> Any:
    def bare(message: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in message.items() if name != "reasoning_content"}

    def quiet(talk: Talk) -> Talk:
        return Talk([bare(message) for message in talk.messages], talk.learn, talk.tools)

    if isinstance(sample, Sft):
        return Sft(sample.id, quiet(sample.talk))
    if isinstance(sample, Pair):
        return Pair(sample.id, quiet(sample.prompt), bare(sample.chosen), bare(sample.rejected))
    return sample


def _info(config: ExportConfig) -> str:
    """Write LLaMA-Factory's entry beside the output, with those that the file has already."""
    folder, file = os.path.split(config.output)
    path = os.path.join(folder, "dataset_info.json")
    known: dict[str, Any] = {}
    if os.path.exists(path):
        try:
            with open(path, "rb") as handle:
                found = msgspec.json.decode(handle.read())
        except msgspec.DecodeError as error:
            raise DataError("is no JSON", where=Where(file=path), fix="mend it, or export elsewhere") from error
        known = found if isinstance(found, dict) else {}
    known |= factory_info(file.split(".")[0], file, config.kind)
    draft = f"{path}.{os.getpid()}.tmp"
    with open(draft, "wb") as handle:
        handle.write(msgspec.json.format(msgspec.json.encode(known), indent=2) + b"\n")
    os.replace(draft, path)
    return path
