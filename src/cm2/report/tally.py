"""Tally: the summary of rollouts that nobody summarised, so that a bare file of them can be compared like the rest.

Means over valid, judged rollouts; items by kind as the agents left them. No intervals: those are the evaluation's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

from cm2.report.outcome import outcomes, reward, score_of
from cm2.report.records import read_rollouts
from cm2.report.source import Source
from cm2.rollout.trace import Rollout

COUNTED = {"met": "passed", "unmet": "failed", "unreached": "failed", "unscored": "unscored"}


def tally(source: Source, root: Path) -> None:
    """Fill in the summaries of the evaluations that have rollouts but none."""
    for one in source.evals:
        if not one.summary and one.rollouts is not None:  # what does not read was told when the cases were chosen
            one.summary = summarise(rollout for _, rollout in read_rollouts(one.rollouts, root, []))


def summarise(rollouts: Iterable[Rollout]) -> dict[str, Any]:
    """The summary of rollouts, in the form that `cm2 evaluate` writes; {} where there are none."""
    tasks: set[str] = set()
    counts, reasons, failures = Counter[str](), Counter[str](), Counter[str]()
    kinds: dict[str, Counter[str]] = {}
    values: dict[str, list[float]] = {"reward": [], "strict_pass": [], "outcome": []}
    for rollout in rollouts:
        tasks.add(rollout.task)
        counts.update(rollouts=1, valid=int(rollout.valid), generated_tokens=rollout.generated_tokens)
        if rollout.failure is not None:
            failures[rollout.failure.owner] += 1
            continue
        reasons[rollout.reason] += 1
        if "success" in rollout.outcome:
            values["outcome"].append(bool(rollout.outcome["success"]))
        earned, scored = reward(rollout), score_of(rollout)
        if earned is not None:
            values["reward"].append(earned)
        if scored is not None and scored.strict_pass is not None:
            values["strict_pass"].append(scored.strict_pass)
        for checklist in rollout.checklists:
            for item, came in zip(checklist.items, outcomes(rollout, checklist), strict=True):
                kinds.setdefault(item.kind, Counter()).update(("items", COUNTED[came.state]))
    if not tasks:
        return {}
    return {
        "tasks": len(tasks),
        **counts,
        **{name: fmean(found) for name, found in values.items() if found},
        "kinds": {name: dict(count) for name, count in sorted(kinds.items())},
        "reasons": dict(sorted(reasons.items())),
        "failures": dict(sorted(failures.items())),
    }
