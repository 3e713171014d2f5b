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

from cm2.assure.export_config import ExportConfig, Summary
from cm2.assure.export_formats import Pair, Rl, Sample, Sft, write_factory_info, writer_of
from cm2.assure.export_standing import Standing, standing_of
from cm2.assure.export_talk import Talk, Unsayable, talk_of
from cm2.assure.export_verl import writer_for
from cm2.assure.leakage import Exclusion
from cm2.assure.outcomes import Judged, read_judged
from cm2.assure.pairs import Paths, Wanted, fetch
from cm2.assure.restricted import restricted
from cm2.checklist import Task
from cm2.curate.seen import Seen
from cm2.dialogue import Dialogue
from cm2.errors import ConfigError, DataError, Where
from cm2.formats import read_tasks
from cm2.formats.jsonlines import encode
from cm2.verdict import WHOLE

KEPT_PROBLEMS = 5
Progress = Callable[[Iterable[Judged], str], Iterable[Judged]]


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
        summary.files.append(write_factory_info(config.output, config.kind))
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
