"""A regression suite from real runs: one passing run of each task is frozen, the others are judged by it.

    python benchmarks/regression_suite.py RUNS.jsonl.gz                   # the half of the tasks that is for tuning
    python benchmarks/regression_suite.py RUNS.jsonl.gz --half measure    # the other half: once, at the end
    python benchmarks/regression_suite.py --worlds 100                    # sample worlds, whose true outcome is known

RUNS are several runs of each task in any row format, with `meta.task_id` and the true outcome in `meta.reward` (other
names: --task, --outcome; a dotted path). For each task with a passing run that run is labelled by
`cm2.label.effects`, which sees nothing but the run itself, and every other run of the task is judged by its checklist.
What is reported is the AUC of the score against the true outcome over all (frozen run, other run) pairs, with a
bootstrap interval over tasks:

- `suite`: the weighted share of the frozen checklist's items; `suite, outcome item`: its critical item alone;
- `same writes`: whether the set of successful calls that change something is the frozen run's, argument by argument;
- `gold writes`: the same against `meta.gold_actions`, which a suite has not got (where the runs carry them);
- `fewer writes`, `fewer calls`: what counting alone tells.

`pooled` takes all pairs together, `within task` only compares runs of one task (the mean over tasks that have both
outcomes). `every choice` freezes each passing run in turn; `one choice` draws one a task by --seed.

Tasks are split by a hash of their id; the rewards of a half are read only when that half is asked for.

With --worlds runs are made: references of the executable sample worlds are frozen, and played again with one change
(`variants`); the world says whether the goal was still reached.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from cm2.assure.outcomes import Outcome, score
from cm2.checklist import Checklist
from cm2.dialogue import Dialogue
from cm2.errors import DataError
from cm2.formats import read_tasks
from cm2.judge.checks import decide
from cm2.judge.values import is_error
from cm2.label.effects import label_effects
from cm2.label.effects_net import is_write
from cm2.verdict import WHOLE, Verdict

RESAMPLES = 2000
NAMES = ("suite", "suite, outcome item", "same writes", "gold writes", "fewer writes", "fewer calls")


@dataclass
class Run:
    """One run of a task."""

    task: str
    dialogue: Dialogue
    passed: bool
    gold: list[dict[str, Any]] | None = None
    kind: str = ""
    """How it was made, where it was."""


@dataclass
class Pair:
    """A frozen run and another run of its task."""

    task: str
    frozen: int
    passed: bool
    scores: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    kind: str = ""


def in_half(task: str, half: str) -> bool:
    """Whether a task belongs to a half."""
    tuning = int(hashlib.sha256(task.encode()).hexdigest(), 16) % 2 == 0
    return half == "all" or (half == "tune") == tuning


def at(value: Any, path: str) -> Any:
    """The value at a dotted path of a row's `meta`."""
    for name in path.removeprefix("meta.").split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def read_runs(path: str, half: str, task: str, outcome: str) -> list[Run]:
    """The runs of a half of the tasks; those without an outcome are left out."""
    runs = []
    for _, row in read_tasks(path, on_error=lambda row: print(f"line {row.line} does not read: {row.error}")):
        meta = row.dialogue.meta
        name = str(at(meta, task))
        if in_half(name, half) and at(meta, outcome) is not None:
            runs.append(Run(name, row.dialogue, float(at(meta, outcome)) >= 1.0 - 1e-6, at(meta, "gold_actions")))
    return runs


def judged(dialogue: Dialogue, checklist: Checklist) -> list[Outcome]:
    """How the items of a whole-dialogue checklist come out in a run."""
    found = []
    for item in checklist.items:
        assert item.check is not None
        try:
            met = decide(item.check, dialogue, WHOLE, WHOLE).met
            result = "pass" if met else "fail"
        except DataError:
            result = "unscored"
        verdict = Verdict(dialogue.id, WHOLE, WHOLE, item.id, None if result == "unscored" else result == "pass")
        found.append(Outcome(dialogue.id, "", 0, WHOLE, item, result, verdict))  # type: ignore[arg-type]
    return found


def writes(dialogue: Dialogue) -> set[str]:
    """The successful calls that change something, with all their arguments, as texts."""
    found = set()
    for *_, call, response in dialogue.calls():
        done = call.valid and not (response is not None and is_error(response))
        if done and is_write(dialogue.tool(call.name), call.name, call.arguments):
            found.add(_text(call.name, call.arguments))
    return found


def gold_writes(dialogue: Dialogue, gold: list[dict[str, Any]]) -> set[str]:
    """The same of gold actions."""
    return {
        _text(each["name"], each["kwargs"])
        for each in gold
        if is_write(dialogue.tool(each["name"]), each["name"], each["kwargs"])
    }


def _text(name: str, arguments: Any) -> str:
    return name + json.dumps(arguments, sort_keys=True)


def pairs_of(runs: list[Run]) -> Iterator[Pair]:
    """Every passing run of every task with every other run of it."""
    by_task: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_task[run.task].append(run)
    for task, mine in by_task.items():
        for n, frozen in enumerate(mine):
            if not frozen.passed:
                continue
            checklists = label_effects(frozen.dialogue).checklists
            for m, other in enumerate(mine):
                if m != n:
                    yield _pair(task, n, frozen, other, checklists)


def _pair(task: str, n: int, frozen: Run, other: Run, checklists: list[Checklist]) -> Pair:
    own = writes(other.dialogue)
    pair = Pair(task, n, other.passed, kind=other.kind)
    outcomes = judged(other.dialogue, checklists[0]) if checklists else []
    pair.failed = [outcome.item.id for outcome in outcomes if outcome.result == "fail"]
    total = score(outcomes)
    main = score(outcome for outcome in outcomes if outcome.item.severity == "critical")
    pair.scores["suite"] = 0.5 if total is None else total
    pair.scores["suite, outcome item"] = 0.5 if main is None else main
    pair.scores["same writes"] = float(own == writes(frozen.dialogue))
    if other.gold is not None:
        pair.scores["gold writes"] = float(own == gold_writes(other.dialogue, other.gold))
    pair.scores["fewer writes"] = -float(len(own))
    pair.scores["fewer calls"] = -float(sum(1 for _ in other.dialogue.calls()))
    return pair


def auc(scores: np.ndarray, passed: np.ndarray) -> float:
    """P(a passing run scores above a failing one), ties count half; nan without both."""
    good = int(passed.sum())
    bad = len(passed) - good
    if not good or not bad:
        return float("nan")
    above = float(stats.rankdata(scores)[passed].sum()) - good * (good + 1) / 2  # Mann-Whitney's U
    return above / (good * bad)


def measure(pairs: list[Pair], name: str, seed: int = 0) -> dict[str, float]:
    """AUC pooled with its interval over tasks, and within tasks."""
    pairs = [pair for pair in pairs if name in pair.scores]
    by_task: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_task[pair.task].append(pair)
    columns = [
        (np.array([pair.scores[name] for pair in mine]), np.array([pair.passed for pair in mine]))
        for mine in by_task.values()
    ]
    if not columns:
        return {}
    draw = np.random.default_rng(seed)
    resampled = []
    for _ in range(RESAMPLES):
        chosen = [columns[k] for k in draw.integers(len(columns), size=len(columns))]
        resampled.append(auc(np.concatenate([c[0] for c in chosen]), np.concatenate([c[1] for c in chosen])))
    within = [value for value in (auc(*column) for column in columns) if not np.isnan(value)]
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    return {
        "auc": auc(np.concatenate([c[0] for c in columns]), np.concatenate([c[1] for c in columns])),
        "low": float(low),
        "high": float(high),
        "within": float(np.mean(within)) if within else float("nan"),
        "within_tasks": len(within),
    }


def one_choice(pairs: list[Pair], seed: int) -> list[Pair]:
    """The pairs of one frozen run a task, drawn by the seed."""
    choices: dict[str, list[int]] = defaultdict(list)
    for pair in pairs:
        if pair.frozen not in choices[pair.task]:
            choices[pair.task].append(pair.frozen)
    draw = random.Random(seed)
    chosen = {task: draw.choice(found) for task, found in sorted(choices.items())}
    return [pair for pair in pairs if pair.frozen == chosen[pair.task]]


def world_runs(count: int, seed: int, split: str) -> list[Run]:
    """References of the sample worlds, each with variants of it and their true outcomes."""
    from cm2.worlds import MakeConfig
    from variants import variants_of  # beside this file

    return [Run(*each) for each in variants_of(MakeConfig(count=count, seed=seed, split=split), seed)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="?", help="runs of tasks, any row file")
    parser.add_argument("--half", choices=["tune", "measure", "all"], default="tune")
    parser.add_argument("--task", default="task_id", help="where in a row's meta its task is named")
    parser.add_argument("--outcome", default="reward", help="where in a row's meta its outcome stands (1 is a pass)")
    parser.add_argument("--worlds", type=int, metavar="N", help="N references of sample worlds instead")
    parser.add_argument("--split", default="train", help="of the worlds: train, heldout or unseen")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--wrong", action="store_true", help="list the pairs that the suite's critical item gets wrong")
    options = parser.parse_args()
    if options.worlds:
        runs = world_runs(options.worlds, options.seed, options.split)
    elif options.runs:
        runs = read_runs(options.runs, options.half, options.task, options.outcome)
    else:
        parser.error("give RUNS or --worlds N")
    pairs = list(pairs_of(runs))
    tasks = {run.task for run in runs}
    suite = {pair.task for pair in pairs}
    head = {
        "half": "" if options.worlds else options.half,
        "runs": len(runs),
        "passed": sum(run.passed for run in runs),
        "tasks": len(tasks),
        "tasks with a frozen run": len(suite),
        "pairs": len(pairs),
        "pairs passed": sum(pair.passed for pair in pairs),
    }
    tables = {"every choice": pairs, "one choice": one_choice(pairs, options.seed)}
    found = {title: {name: measure(some, name, options.seed) for name in NAMES} for title, some in tables.items()}
    if options.json:
        print(json.dumps({**head, "auc": found}))
        return
    print(", ".join(f"{name} {value}" for name, value in head.items()))
    for title, table in found.items():
        print(f"\n{title} ({len(tables[title])} pairs)")
        print(f"  {'':22} pooled AUC (95 %)        within task (tasks with both)")
        for name, one in table.items():
            if one:
                span = f"{one['auc']:.3f} ({one['low']:.3f} … {one['high']:.3f})"
                print(f"  {name:22} {span:24} {one['within']:.3f} ({one['within_tasks']})")
    if options.worlds:
        print_kinds(pairs)
    if options.wrong:
        for pair in pairs:
            if (pair.scores["suite, outcome item"] >= 1) != pair.passed:
                print(f"task {pair.task} frozen {pair.frozen} {pair.kind} passed {pair.passed}: failed {pair.failed}")


def print_kinds(pairs: Iterable[Pair]) -> None:
    """How each kind of variant comes out: by the world, and by the suite."""
    kinds: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        kinds[pair.kind].append(pair)

    def rate(values: list[bool]) -> str:
        return f"{sum(values) / len(values):.3f}"

    print(f"\n  {'variant':26} runs  truly pass  suite passes (critical)  all items")
    for kind, some in sorted(kinds.items()):
        right = rate([pair.passed for pair in some])
        held = rate([pair.scores["suite, outcome item"] >= 1 for pair in some])
        print(f"  {kind:26} {len(some):4}  {right:10}  {held:23}  {rate([not pair.failed for pair in some])}")


if __name__ == "__main__":
    main()
