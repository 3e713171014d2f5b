"""The study: the ladder with several seeds and a longer budget, on sample worlds or on a file of real dialogues.

Each seed is a run of its own (its data, cold start and draws differ), resumable stage by stage. At the end the seeds
are put together, with two intervals that answer two questions: over the tasks of all seeds (are these trained agents
better?) and over the seeds (would the next seed's be?), which three seeds can only answer broadly.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
from scipy import stats

from cm2.errors import DataError, Where
from cm2.formats import RowWriter, read_rows
from cm2.study.compare import NAMES, compare
from cm2.study.demo import Plan, Splits, curated, ladder, sample_worlds
from cm2.study.stages import Stages

SAMPLE = Plan(minutes=math.inf, rl_minutes=60, heldout=160, unseen=96)
"""A seed on the sample worlds."""

REAL = msgspec.structs.replace(SAMPLE, sft_dialogues=360, sft_micro=2, temperature=0.5, max_step_tokens=96)
"""A seed on real dialogues: people's orders repeat less, so that the format takes more dialogues to learn, and longer
dialogues take more memory."""


class StudyConfig(msgspec.Struct, kw_only=True, frozen=True):
    """How many seeds, on what."""

    output: str
    """The study's folder: one run of the ladder a seed."""
    data: str | None = None
    """A file of real dialogues; None plays sample worlds."""
    seeds: int = 3
    plan: Plan = SAMPLE
    """A run of one seed."""


def run(config: StudyConfig) -> dict[str, Any]:
    """Run or resume the study; returns its summary and writes summary.json.

    Raises:
        DataError: the file of dialogues is too small.
    """
    folder = Path(config.output)
    found, evaluations = [], []
    for seed in range(config.seeds):
        plan = msgspec.structs.replace(config.plan, seed=seed)
        own = folder / f"seed-{seed}"
        stages = Stages(own, total=20 if config.data is None else 13)
        stages.console.rule(f"seed {seed} ({seed + 1} of {config.seeds})")
        splits = (
            sample_worlds(stages, own / "data", plan) if config.data is None else real(stages, own, plan, config.data)
        )
        found.append(ladder(own, stages, plan, splits))
        evaluations.append(own / "eval")
    over_tasks = msgspec.to_builtins(compare(evaluations, list(splits.evaluation)))
    summary = {
        "seeds": config.seeds,
        "data": config.data or "sample worlds",
        "comparison": pooled(found, over_tasks),
        "plan": msgspec.to_builtins(config.plan),
    }
    Stages(folder, total=0).write("summary.json", summary)
    return summary


def real(stages: Stages, folder: Path, plan: Plan, file: str) -> Splits:
    """A file of dialogues cut into held-out, SFT and RL parts: rows in a spread-out order that the seed shifts.

    Raises:
        DataError: there are fewer rows than the plan asks for.
    """
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    wanted = {"heldout": plan.heldout, "sft": plan.sft_dialogues, "rl": plan.rl_dialogues}
    made = {name: data / f"{name}.jsonl" for name in wanted}
    if not all(path.exists() for path in made.values()):
        rows = [row.value for row in read_rows(file) if row.value is not None]
        if len(rows) < plan.heldout + plan.sft_dialogues + plan.prompts:
            raise DataError(
                f"{len(rows)} dialogues are too few for {plan.heldout} held out, {plan.sft_dialogues} to fine-tune on "
                f"and {plan.prompts} an update",
                where=Where(file=file),
                fix="give a larger file",
            )
        start = 0
        order = [rows[(i * _step(len(rows)) + plan.seed * 101) % len(rows)] for i in range(len(rows))]
        for name, count in wanted.items():
            with RowWriter(made[name]) as writer:
                for row in order[start : start + count]:
                    writer.write(row)
            start += count
    return curated(stages, data, made)


def _step(count: int) -> int:
    """A step near the golden section that visits every row once."""
    step = max(1, round(count * 0.618))
    while math.gcd(step, count) != 1:
        step += 1
    return step


def pooled(runs: list[dict[str, Any]], over_tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the comparison over the tasks of all seeds, each with its difference in every seed and the t interval
    over seeds (`seeds_low`, `seeds_high`; where there are several that differ)."""
    found = []
    for row in over_tasks:
        place = {key: row[key] for key in ("split", "mode", "metric")}
        values = [
            one["difference"]
            for run in runs
            for one in run["comparison"]
            if all(one[key] == value for key, value in place.items())
        ]
        mean = sum(values) / len(values)
        low = high = mean
        if len(values) > 1 and max(values) > min(values):
            low, high = stats.t.interval(0.95, len(values) - 1, loc=mean, scale=stats.sem(values))
        more = {"by_seed": values, "seeds_low": float(low), "seeds_high": float(high)}
        found.append({**row, "label": NAMES[row["metric"]], **more})
    return found
