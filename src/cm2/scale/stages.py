"""Stage: a file runner that works shard by shard. It is the runner of the verb, called on one file.

A stage says which settings of its configuration are outputs: over shards they name folders, and each shard writes a
file of its own name there. Nothing else differs from a run over one file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from cm2.llm.request import Asker
from cm2.scale.shards import Shard


class Stage(msgspec.Struct, frozen=True):
    """What runs on each shard."""

    name: str
    run: Callable[[Any, Shard, Asker | None], Any]
    """From the shard's own configuration (and the shard, and who answers) to its summary."""
    summary: Callable[[], type[Any]]
    """The type of its summary."""
    outputs: tuple[str, ...]
    """The settings that name files to write; the first is the main one."""
    unfinished: Callable[[Any], int] = lambda summary: 0
    """How many answers of a shard were lost: then it is not done, and the next run asks for them."""

    def configured(self, config: Any, shard: Shard) -> Any:
        """The configuration for one shard."""
        changes = {name: shard.below(getattr(config, name)) for name in self.outputs if getattr(config, name, None)}
        return replace(config, input=shard.path, **changes)


def _filter(config: Any, shard: Shard, asker: Asker | None) -> Any:
    from cm2.curate.filter import filter_file

    return filter_file(replace(config, lines_before=shard.lines_before), asker=asker)


def _filter_summary() -> type[Any]:
    from cm2.curate.filter import Summary

    return Summary


def _compress(config: Any, shard: Shard, asker: Asker | None) -> Any:
    from cm2.curate.compress import compress_file

    assert asker is not None
    return _placed(compress_file(config, asker), shard, "left_out")


def _compress_summary() -> type[Any]:
    from cm2.curate.compress import CompressSummary

    return CompressSummary


def _label(config: Any, shard: Shard, asker: Asker | None) -> Any:
    from cm2.label.label_run import label_file

    return _placed(label_file(config, asker=asker), shard, "unreadable_lines")


def _label_summary() -> type[Any]:
    from cm2.label.label_run import LabelSummary

    return LabelSummary


def _judge(config: Any, shard: Shard, asker: Asker | None) -> Any:
    from cm2.formats.rows import files_of
    from cm2.judge.run import judge_file

    if config.checklists is not None and shard.below(config.checklists) in files_of(config.checklists):
        config = replace(config, checklists=shard.below(config.checklists))
    return _placed(judge_file(replace(config, output=store_name(config.output)), asker=asker), shard)


def _judge_summary() -> type[Any]:
    from cm2.judge.run import Summary

    return Summary


def store_name(path: str) -> str:
    """A store is lines, whatever the shard is."""
    return path if path.endswith(".jsonl") else f"{path.rsplit('.', 1)[0]}.jsonl"


def _placed(summary: Any, shard: Shard, *lines: str) -> Any:
    """The summary with the numbers of lines as a run over the whole folder tells them, and the shard's name with its
    problems."""
    for name in lines:
        setattr(summary, name, [line + shard.lines_before for line in getattr(summary, name)])
    summary.problems = [f"{shard.name}: {problem}" for problem in summary.problems]
    return summary


STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            "filter",
            _filter,
            _filter_summary,
            ("output", "rejected", "flagged", "set_aside"),
            lambda summary: summary.unscored,
        ),
        Stage("compress", _compress, _compress_summary, ("output",), lambda summary: summary.unscored),
        Stage("label", _label, _label_summary, ("output", "set_aside"), lambda summary: summary.set_aside),
        Stage("judge", _judge, _judge_summary, ("output",), lambda summary: summary.failed),
    )
}
"""The stages by the verb that they belong to."""
