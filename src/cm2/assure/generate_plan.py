"""Which tasks an agent may play, and what playing them would ask for."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from cm2.assure.generate_config import GenerateConfig, Summary
from cm2.assure.leakage import Exclusion
from cm2.checklist import Task
from cm2.errors import DataError, Where
from cm2.formats import read_tasks
from cm2.formats.jsonlines import encode


class Plan(msgspec.Struct, kw_only=True):
    """What a run would ask for, if the agent took the reference's steps."""

    tasks: int = 0
    rollouts: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0


def plan(config: GenerateConfig, exclusion: Exclusion | None = None) -> Plan:
    """What a run would ask for; nothing is asked. Tokens are estimated from the characters."""
    from cm2.llm.tokens import estimate

    def measure(text: str) -> int:
        return estimate(len(text))

    found = Plan()
    allowed = playable(config, exclusion or Exclusion(), Summary())
    for _, task in limited(config):
        dialogue = task.dialogue
        if dialogue.id not in allowed:
            continue
        found.tasks += 1
        told = measure((dialogue.system or "") + encode([tool.parameters for tool in dialogue.tools]).decode())
        for turn in dialogue.turns:
            told += measure(turn.user)
            for step in turn.steps:
                said = measure(step.reply or "") + measure(step.thinking or "") + measure(encode(step.calls).decode())
                found.calls += 1
                found.prompt_tokens += told
                found.answer_tokens += said
                told += said + sum(measure(response.content) for response in step.responses)
    times = config.rollouts.group
    found.rollouts, found.calls = found.tasks * times, found.calls * times
    found.prompt_tokens, found.answer_tokens = found.prompt_tokens * times, found.answer_tokens * times
    return found


def limited(config: GenerateConfig) -> Iterator[tuple[int, Task]]:
    for number, (line, task) in enumerate(
        read_tasks(config.rollouts.input, config.rollouts.format, on_error=lambda row: None)
    ):
        if config.rollouts.limit is not None and number >= config.rollouts.limit:
            return
        yield line, task


def playable(config: GenerateConfig, exclusion: Exclusion, summary: Summary) -> set[str]:
    """The tasks that may be played."""
    allowed: set[str] = set()
    without = 0
    for _, task in limited(config):
        summary.tasks += 1
        reason = exclusion.reason(task.dialogue)
        if not task.checklists:
            without, reason = without + 1, reason or "the task has no checklist"
        if reason:
            summary.leave(f"tasks: {reason}")
        else:
            allowed.add(task.dialogue.id)
    if not allowed:
        fix = "label them first: cm2 label" if without else "give other tasks, or exclude less"
        where = Where(file=config.rollouts.input)
        raise DataError("none of its tasks may be played and has a checklist", where=where, fix=fix)
    return allowed
