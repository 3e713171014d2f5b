"""How well a policy's checks see a true outcome: the airline's policy on 200 real runs of an agent that were rewarded.

    python benchmarks/airline.py                # the half of the tasks that the policy was written and tuned on
    python benchmarks/airline.py --final        # both halves; the measuring half is for one single look, at the end

Data: tau-bench's airline domain (50 tasks, 4 trials each), `taubench_airline_gpt4o.jsonl.gz` in $CM2_DATA or beside the
project. Tasks are split by a seeded shuffle of their ids, SEED 0, half and half; without --final no reward of the
measuring half is read, only whether its duties could be scored at all.

Scores of a dialogue, all from the same verdicts: `critical first` orders by the number of critical failures and, where
that is the same, by the penalty; it is the one that counts, chosen on the tuning half before the measuring half was
looked at. `penalty` is the summed weights of the duties that failed (critical 4, major 2, minor 1); `share` is the
weighted share of applicable duties that pass, which a dialogue with many occasions dilutes; `critical` counts the
critical failures alone; `any critical` asks whether there is one. Beside them stands what needs no policy: fewer calls,
fewer writes, three generic duties of process (confirm before a write, read before a write, no tool errors), and what
the checks of the recipe for any support agent see (`support.yaml`), all by their shares.

AUC is the chance that a rewarded run scores higher than one that was not, ties half; its 95 % interval comes from
resampling tasks, because the four trials of a task are no independent observations.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from cm2.assure.outcomes import Judged, read_judged
from cm2.check import Expression
from cm2.judge.run import JudgeConfig, judge_file
from cm2.policy import Duty, Policy, load_policy

ROOT = Path(__file__).resolve().parents[1]
POLICY = ROOT / "recipes" / "policies" / "airline.yaml"
SUPPORT = ROOT / "recipes" / "policies" / "support.yaml"
DATA = Path(os.environ.get("CM2_DATA", ROOT.parent / "shared" / "data")) / "taubench_airline_gpt4o.jsonl.gz"
SEED = 0
RESAMPLES = 2000
PRIMARY = "critical first"
BASELINES = ("process duties", "support.yaml", "fewer calls", "fewer writes")
GENERIC = Policy(
    name="generic",
    description="Duties of process that hold for any agent with tools; nothing of the airline.",
    duties=[
        Duty(
            id="confirm-before-write",
            question="Did the user agree before every write?",
            applies_when=Expression("size(writes) > 0"),
            check=Expression("writes.all(w, confirms(w.user))"),
        ),
        Duty(
            id="read-before-write",
            question="Was something read before every write?",
            applies_when=Expression("size(writes) > 0"),
            check=Expression("writes.all(w, calls.exists(c, c.ok && !c.writes && c.index < w.index))"),
        ),
        Duty(
            id="no-tool-errors",
            question="Did every call succeed?",
            check=Expression("calls.all(c, c.ok)"),
        ),
    ],
)


class Run(msgspec.Struct):
    """One dialogue, judged: what the table is made of."""

    task: int
    reward: int | None
    """None in the half that is not to be looked at."""
    scores: dict[str, float]
    """Higher is better."""
    results: dict[str, str]
    """Of every duty: pass, fail, not_applicable or unscored."""


class Auc(msgspec.Struct):
    """An AUC with its 95 % interval over tasks."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.2f} … {self.high:.2f})"


def tuning_tasks(tasks: set[int]) -> set[int]:
    """The tasks that the policy was written on: the first half of a seeded shuffle."""
    order = sorted(tasks)
    random.Random(SEED).shuffle(order)
    return set(order[: len(order) // 2])


def auc(scores: np.ndarray, rewards: np.ndarray) -> float:
    """The chance that a rewarded run scores higher than one that was not; NaN where one of the two is missing."""
    good = int(rewards.sum())
    bad = len(rewards) - good
    if not good or not bad:
        return float("nan")
    ranks = stats.rankdata(scores)
    return float((ranks[rewards == 1].sum() - good * (good + 1) / 2) / (good * bad))


def auc_interval(scores: np.ndarray, rewards: np.ndarray, tasks: np.ndarray) -> Auc:
    """The AUC, with an interval from resampled tasks."""
    found = [auc(scores[rows], rewards[rows]) for rows in _resampled(tasks)]
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return Auc(auc(scores, rewards), float(low), float(high))


def lead(first: np.ndarray, second: np.ndarray, rewards: np.ndarray, tasks: np.ndarray) -> Auc:
    """By how much the AUC of one score is above another's on the same runs, with an interval from resampled tasks."""
    found = [auc(first[rows], rewards[rows]) - auc(second[rows], rewards[rows]) for rows in _resampled(tasks)]
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return Auc(auc(first, rewards) - auc(second, rewards), float(low), float(high))


def _resampled(tasks: np.ndarray) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(SEED)
    groups = [np.flatnonzero(tasks == task) for task in np.unique(tasks)]
    for _ in range(RESAMPLES):
        yield np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])


def scores_of(judged: Judged) -> dict[str, float]:
    """The scores of one dialogue by its policy; see the module docstring."""
    failed = [outcome for outcome in judged.outcomes if outcome.result == "fail"]
    critical = sum(outcome.item.severity == "critical" for outcome in failed)
    penalty = sum(outcome.weight for outcome in failed)
    return {
        "critical first": -(critical + penalty / (1 + penalty)),
        "penalty": -penalty,
        "share": 1.0 if judged.score is None else judged.score,
        "critical": -float(critical),
        "any critical": -float(critical > 0),
    }


def judged_by(policy: Path | Policy, data: Path, folder: Path) -> tuple[list[Judged], float]:
    """Every dialogue judged by a policy through the public interface, and how many dialogues a second of one core."""
    if isinstance(policy, Policy):
        path = folder / f"{policy.name}.json"
        path.write_bytes(msgspec.json.encode(policy))
    else:
        path = policy
    store = folder / f"{path.stem}.verdicts.jsonl"
    started = time.process_time()
    judge_file(JudgeConfig(input=str(data), output=str(store), policy=str(path)))
    took = time.process_time() - started
    found = list(read_judged(str(data), str(store), policy=load_policy(path)))
    return found, len(found) / took


def measure(data: Path, policy: Path, final: bool) -> dict[str, Any]:
    """Judge, score and compare; the rewards of the measuring half are read only where `final`."""
    with tempfile.TemporaryDirectory() as name:
        judged, speed = judged_by(policy, data, Path(name))
        generic, _ = judged_by(GENERIC, data, Path(name))
        support, _ = judged_by(SUPPORT, data, Path(name))
    tuning = tuning_tasks({one.dialogue.meta["task_id"] for one in judged})
    runs = []
    for one, process, any_agent in zip(judged, generic, support, strict=True):
        task = int(one.dialogue.meta["task_id"])
        calls = [call.name for _, _, _, call, _ in one.dialogue.calls()]
        writes = sum(name.startswith(("book_", "cancel_", "send_", "update_")) for name in calls)
        known = final or task in tuning
        scores = scores_of(one) | {
            "process duties": 1.0 if process.score is None else process.score,
            "support.yaml": 1.0 if any_agent.score is None else any_agent.score,
            "fewer calls": -float(len(calls)),
            "fewer writes": -float(writes),
        }
        results: dict[str, str] = {outcome.duty: outcome.result for outcome in one.outcomes}
        runs.append(Run(task, int(one.dialogue.meta["reward"]) if known else None, scores, results))
    parts: dict[str, Callable[[Run], bool]] = {"tuning": lambda run: run.task in tuning}
    if final:
        parts |= {"measuring": lambda run: run.task not in tuning, "all": lambda run: True}
    told: dict[str, Any] = {
        "dialogues": len(runs),
        "dialogues_per_second": round(speed, 1),
        "unscored": _share_unscored(runs),
        "unscored_measuring": _share_unscored([run for run in runs if run.task not in tuning]),
        "auc": {},
        "lead": {},
        "duties": {},
    }
    for part, belongs in parts.items():
        mine = [run for run in runs if belongs(run)]
        rewards = np.array([run.reward for run in mine])
        tasks = np.array([run.task for run in mine])
        told["auc"][part] = {
            name: auc_interval(np.array([run.scores[name] for run in mine]), rewards, tasks) for name in runs[0].scores
        } | {"rewarded": float(rewards.mean())}
        best = np.array([run.scores[PRIMARY] for run in mine])
        told["lead"][part] = {
            name: lead(best, np.array([run.scores[name] for run in mine]), rewards, tasks) for name in BASELINES
        }
        told["duties"][part] = _by_duty(mine)
    return told


def _share_unscored(runs: list[Run]) -> float:
    results = [result for run in runs for result in run.results.values() if result != "not_applicable"]
    return sum(result == "unscored" for result in results) / max(len(results), 1)


def _by_duty(runs: list[Run]) -> dict[str, dict[str, Any]]:
    """Of every duty: how often it failed, and the rewarded share of the runs in which it failed and passed."""
    told: dict[str, dict[str, Any]] = {}
    for duty in runs[0].results:
        by: dict[str, list[int]] = {result: [] for result in ("pass", "fail", "not_applicable", "unscored")}
        for run in runs:
            by[run.results[duty]].append(int(run.reward or 0))
        told[duty] = {name: len(rewards) for name, rewards in by.items()}
        for name in ("fail", "pass"):
            told[duty][f"rewarded_where_{name}"] = float(np.mean(by[name])) if by[name] else None
    return told


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def show(told: dict[str, Any], policy: Policy, console: Console) -> None:
    """The tables for a person."""
    table = Table(title=f"AUC against the outcome, {told['dialogues']} dialogues (95 % over tasks)")
    table.add_column("score")
    for part in told["auc"]:
        table.add_column(f"{part} ({told['auc'][part]['rewarded']:.0%} rewarded)", justify="right")
    for name in next(iter(told["auc"].values())):
        if name != "rewarded":
            table.add_row(name, *(str(told["auc"][part][name]) for part in told["auc"]))
    for name in BASELINES:
        table.add_row(f"lead over {name}", *(f"{told['lead'][part][name]}" for part in told["auc"]))
    console.print(table)
    part = list(told["duties"])[-1]
    duties = Table(title=f"duties, {part}: rewarded where they fail and where they pass")
    for name in ("duty", "severity", "applies", "fails", "rewarded: fail", "pass"):
        duties.add_column(name, justify="left" if name in ("duty", "severity") else "right", no_wrap=True)
    for duty, row in told["duties"][part].items():
        known = policy.duty(duty)
        applies = row["pass"] + row["fail"]
        shares = (_share(row["rewarded_where_fail"]), _share(row["rewarded_where_pass"]))
        duties.add_row(duty, known.severity if known else "", str(applies), str(row["fail"]), *shares)
    console.print(duties)
    console.print(
        f"{told['dialogues_per_second']} dialogues a second of one core; unscored: {told['unscored']:.2%} of the "
        f"outcomes that apply, {told['unscored_measuring']:.2%} in the measuring half"
    )


def main() -> None:
    """See the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="the runs")
    parser.add_argument("--policy", type=Path, default=POLICY, help="the policy")
    parser.add_argument("--final", action="store_true", help="read the rewards of the measuring half too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    if not args.data.is_file():
        print(f"skipped: {args.data} is absent; set CM2_DATA to the folder that holds it, or pass --data")
        return
    told = measure(args.data, args.policy, args.final)
    if args.json:
        print(json.dumps(msgspec.to_builtins(told)))
    else:
        show(told, load_policy(args.policy), Console(width=None if os.isatty(1) else 140))


if __name__ == "__main__":
    main()
