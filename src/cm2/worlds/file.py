"""A file of made dialogues, and what it holds in numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from cm2.dialogue import Dialogue
from cm2.formats import RowWriter, write_row
from cm2.worlds.make import MakeConfig, make

Progress = Callable[[Iterable[Dialogue]], Iterable[Dialogue]]


def make_file(config: MakeConfig, output: str, progress: Progress = lambda dialogues: dialogues) -> dict[str, Any]:
    """Write a run's dialogues as OpenAI rows; returns their numbers, in all and by domain.

    Raises:
        ConfigError: so many different dialogues do not exist.
        DataError: the output cannot be written.
    """
    domains: dict[str, dict[str, int]] = {}
    with RowWriter(output) as writer:
        for dialogue in progress(make(config)):
            writer.write(write_row(dialogue, "openai"))
            counts = domains.setdefault(dialogue.meta["world"]["domain"], {})
            for name, value in _counts(dialogue).items():
                counts[name] = counts.get(name, 0) + value
    total = {name: sum(counts[name] for counts in domains.values()) for name in next(iter(domains.values()))}
    asked = {"output": output, "split": config.split, "profile": config.profile, "seed": config.seed}
    return {**asked, **total, "domains": domains}


def _counts(dialogue: Dialogue) -> dict[str, int]:
    steps = [step for turn in dialogue.turns for step in turn.steps]
    return {
        "dialogues": 1,
        "turns": len(dialogue.turns),
        "steps": len(steps),
        "calls": sum(len(step.calls) for step in steps),
        "refusals": sum(bool(told.get("refuses")) for told in dialogue.meta["goal"].get("told", ())),
    }
