"""Drafting a policy: duties from a text through a model, and from recurring patterns in logs, both with numbers.

The logs are read twice: once to count patterns and tools, once to judge them by what was drafted. The file is written
whole, for a person to read, cut and sign; nothing of it is true because it stands there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import yaml

from cm2.checklist import Task
from cm2.errors import ConfigError, DataError, Where
from cm2.formats import read_tasks
from cm2.formats.target import replacing
from cm2.llm.request import Asker
from cm2.policy.ask import Drafted, ask_duties
from cm2.policy.mine import Patterns, propose
from cm2.policy.policy import Policy
from cm2.policy.prove import Proof, prove, settled
from cm2.textfile import read_text

Tasks = Iterable[tuple[int, Task]]
KEPT_PROBLEMS = 5
FEWEST = 5
"""Occasions below which a pattern is not even proposed."""


class DraftConfig(msgspec.Struct):
    """What to draft from, into which file."""

    logs: str
    output: str
    text: str | None = None
    """The policy's text (Markdown or plain); read by a model only."""
    format: str = "auto"
    support: int = 20
    """Occasions (dialogues, or turns for a duty of turns) from which on a drafted duty is active."""
    least: float = 0.8
    """Pass rate (lower end of its 95 % interval) from which on a pattern is active."""
    name: str = ""
    """The policy's name; the output's where empty."""


class DraftSummary(msgspec.Struct):
    """What was drafted."""

    output: str
    dialogues: int = 0
    unreadable: int = 0
    duties: int = 0
    active: int = 0
    from_text: int = 0
    from_patterns: int = 0
    with_check: int = 0
    refused: list[str] = []
    """What the model proposed and was not taken."""
    failed: list[str] = []
    """Parts of the text for which it gave no valid answer."""
    proofs: dict[str, Proof] = {}
    cost: float = 0.0
    problems: list[str] = []

    def as_json(self) -> dict[str, Any]:
        """The summary as JSON values, with the pass rates."""
        value: dict[str, Any] = msgspec.to_builtins(self)
        for id, proof in self.proofs.items():
            value["proofs"][id]["rate"] = proof.rate
        return value


def draft_policy(
    config: DraftConfig, asker: Asker | None = None, progress: Callable[[Tasks], Tasks] = lambda tasks: tasks
) -> tuple[Policy, DraftSummary]:
    """Draft a policy and write it.

    Args:
        config: what to do.
        asker: the model that reads the text; without one only patterns are looked for.
        progress: wraps the dialogues as they are read.

    Raises:
        ConfigError: input and output are one file.
        DataError: an input is missing or no such file, or nothing could be drafted.
        ProviderError: the provider refuses every request.
        BudgetReached: there is no money left.
    """
    for path in (config.logs, config.text):
        if path is not None and os.path.realpath(path) == os.path.realpath(config.output):
            raise ConfigError("input and output are the same file", fix="give -o another name")
    text = _text(config.text) if config.text is not None else ""
    summary = DraftSummary(config.output)
    patterns = Patterns()
    tools: dict[str, tuple[str, int]] = {}
    for dialogue in _dialogues(config, summary, progress):
        patterns.add(dialogue)
        for tool in dialogue.tools:
            tools.setdefault(tool.name, (tool.description, 0))
        for _, _, _, call, _ in dialogue.calls():
            about, count = tools.get(call.name, ("", 0))
            tools[call.name] = (about, count + 1)
    summary.dialogues = patterns.dialogues
    drafted = Drafted()
    if asker is not None and text:
        from cm2.llm import flow  # not above: patterns need no model

        drafted = flow.wait(ask_duties(text, tools, asker))
    known = {duty.id for duty in drafted.duties}
    mined = [duty for duty in propose(patterns, min(FEWEST, config.support)) if duty.id not in known]
    mined = list({duty.id: duty for duty in mined}.values())
    again = DraftSummary(config.output)
    proofs = prove([*drafted.duties, *mined], _dialogues(config, again, progress))
    duties = [settled(duty, proofs[duty.id], config.support, None) for duty in drafted.duties]
    duties += [settled(duty, proofs[duty.id], config.support, config.least) for duty in mined]
    if not duties:
        raise DataError(
            "nothing could be drafted" + (f"; {drafted.failed[0]}" if drafted.failed else ""),
            where=Where(file=config.logs),
            fix="give more logs, a lower --support, or a policy text and a model",
        )
    policy = Policy(
        name=config.name or Path(config.output).stem,
        duties=duties,
        description=f"Drafted from {patterns.dialogues} dialogues{' and a policy text' if drafted.duties else ''}. "
        "Patterns say what the agent does, not what it ought to do: read, cut and add tests before relying on it.",
    )
    write_policy(policy, config.output)
    summary.duties, summary.active = len(duties), len(policy.active)
    summary.from_text, summary.from_patterns = len(drafted.duties), len(mined)
    summary.with_check = sum(duty.check is not None for duty in duties)
    summary.refused, summary.failed, summary.cost = drafted.refused, drafted.failed, drafted.cost
    summary.proofs = proofs
    return policy, summary


def write_policy(policy: Policy, path: str | Path) -> None:
    """Write a policy as YAML; the file appears whole or not at all."""
    body = yaml.dump(msgspec.to_builtins(policy), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=118)
    with replacing(path) as draft:
        draft.write_text(body, encoding="utf-8", errors="replace")


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Writes values out wherever they stand: no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(path: str) -> str:
    text = read_text(path, "pass the policy as Markdown or plain text", kind=DataError)
    if not text.strip():
        raise DataError("the policy text is empty", where=Where(file=path))
    return text


def _dialogues(config: DraftConfig, summary: DraftSummary, progress: Callable[[Tasks], Tasks]) -> Iterable[Any]:
    def problem(row: Any) -> None:
        summary.unreadable += 1
        if len(summary.problems) < KEPT_PROBLEMS:
            summary.problems.append(f"line {row.line}: {row.error}")

    for _, task in progress(read_tasks(config.logs, config.format, on_error=problem)):
        yield task.dialogue
