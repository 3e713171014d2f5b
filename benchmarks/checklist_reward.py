"""Does the checklist of a benchmark's task predict its official reward?

    python benchmarks/checklist_reward.py DIR…                                  # folders that `cm2 eval` wrote
    python benchmarks/checklist_reward.py bfcl:RESULT.json:SCORE.json…          # a category's files of BFCL itself
    python benchmarks/checklist_reward.py tau2:DOMAIN:RESULTS.json…             # a file of simulations of tau2-bench
    python benchmarks/checklist_reward.py tau1:DOMAIN:TRAJECTORIES.json…        # the same of tau-bench, its predecessor

NAME=… before any of them says whose runs they are (`gpt-oss-120b=bfcl:…`); runs of one benchmark and category go into
one row. Every task gets the checklist of its right answer (`cm2.harness.dialogues.gold`), decided by checks alone, and
every run with an official reward is scored by it. Runs that were lost to somebody else than the agent are in nothing.

AUC is the chance that a rewarded run scores above one that was not, ties half; its 95 % interval comes from resampling
tasks, since runs of one task are no independent observations. Scores: `critical first` orders by the number of critical
failures, then by the summed weights of what failed (the order that docs/prove.md found best); `share` is the weighted
share of items that pass (what reports call the score); `all pass` asks whether nothing failed. Beside them what needs
no right answer: `fewer calls`; and what the labellers make of the same reference without knowing what the harness
knows: `reference` (by turn) and `effects` (by the whole).

The harness's environment must be set up (`cm2 eval setup`); --told FILE takes what a runner wrote before. --wrong lists
the runs on which `all pass` and the reward disagree.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from scipy import stats

from cm2.assure.outcomes import Outcome, decide_outcomes, score
from cm2.checklist import Checklist, Task
from cm2.dialogue import Dialogue
from cm2.formats import read_row
from cm2.harness import bfcl as bfcl_outcomes
from cm2.harness import environments
from cm2.harness.dialogues import bfcl, gold, tau2
from cm2.harness.dialogues.told import Key, Told, ToldCall, ToldTurn, ask, read
from cm2.harness.dialogues.write import Summary, dialogues
from cm2.harness.results import is_results
from cm2.harness.results import read as read_results
from cm2.judge.judging import Judging
from cm2.judge.make import make_judge
from cm2.label.effects import EffectsLabeler
from cm2.label.reference import ReferenceLabeler

RESAMPLES = 2000
SEED = 0
PASSES = 1 - 1e-6
PRIMARY = "critical first"
ALL_PASS = "all pass"


class Run(msgspec.Struct):
    """A run with an official reward."""

    who: str
    benchmark: str
    key: Key
    dialogue: Dialogue
    passed: bool
    why: str = ""
    """The grader's reason, where it gave one."""


class Judged(msgspec.Struct):
    """A run with its scores; higher is better."""

    run: Run
    scores: dict[str, float]
    failed: list[str]


Source = tuple[list[Run], dict[Key, Told]]
"""Runs, and what is told about their tasks."""


def read_source(source: str, told_file: Path | None) -> Source:
    """What one argument names."""
    who, _, place = source.partition("=") if "=" in source.split(":")[0] else ("", "", source)
    kind, _, rest = place.partition(":")
    first, colon, second = rest.partition(":")
    if kind in FILES and colon:
        return FILES[kind](who, first, second, told_file)
    if is_results(place):
        return _folder(who, place, told_file)
    raise SystemExit(f"{source} is no folder of results, and names no kind of file")


def told_of(benchmark: str, tasks: dict[str, list[str]], file: Path | None) -> dict[Key, Told]:
    """What a harness tells of tasks."""
    if file is not None:
        return {one.key: one for one in read(file) if one.category in tasks}
    return ask(benchmark, environments.need(benchmark), tasks)


def _folder(who: str, place: str, told_file: Path | None) -> Source:
    results, outcomes = read_results(place)
    tasks: dict[str, list[str]] = defaultdict(list)
    for one in outcomes:
        tasks[one.category].append(one.task)
    told = told_of(results.benchmark, dict(tasks), told_file)
    empty = Summary(benchmark=results.benchmark, model=results.model)
    runs = []
    for dialogue in dialogues(Path(place), results, outcomes, told, empty):
        meta = dialogue.meta
        key, passed = (meta["category"], meta["task_id"]), meta["reward"] >= PASSES
        runs.append(Run(who or results.model, results.benchmark, key, dialogue, passed, meta.get("error", "")))
    return runs, told


def _bfcl(who: str, result: str, score_file: str, told_file: Path | None) -> Source:
    category = Path(result).name.removeprefix("BFCL_v4_").removesuffix("_result.json")
    told = told_of("bfcl", {category: []}, told_file)
    failed = {row["id"]: row for row in map(json.loads, Path(score_file).read_bytes().splitlines()[1:])}
    runs = []
    for line in Path(result).read_bytes().splitlines():
        answer = json.loads(line)
        owner, _ = bfcl_outcomes.whose(answer, category)
        key = category, answer["id"]
        if key not in told or owner not in (None, "agent") or not (messages := bfcl.messages(answer)):
            continue  # lost, or nothing was kept
        row = {"id": gold.name_of("bfcl", *key), "tools": told[key].tools, "messages": messages}
        error = (failed.get(answer["id"]) or {}).get("error")
        why = error.get("error_type", "") if isinstance(error, dict) else str(error or "")
        runs.append(Run(who, "bfcl", key, read_row(row, "openai"), answer["id"] not in failed, why))
    return runs, told


def _tau2(who: str, domain: str, path: str, told_file: Path | None) -> Source:
    document = json.loads(Path(path).read_bytes())
    wanted = sorted({one["task_id"] for one in document["simulations"]})
    told = told_of("tau2", {domain: wanted}, told_file)
    theirs = {one["id"]: (one["evaluation_criteria"] or {}).get("actions") or [] for one in document["tasks"]}
    runs = []
    for simulation in document["simulations"]:
        key = domain, simulation["task_id"]
        if key not in told or simulation["termination_reason"] in ("agent_error", "user_error"):
            continue
        mine = [(call.name, call.arguments) for turn in told[key].turns for call in turn.calls]
        if mine != [(one["name"], one["arguments"]) for one in theirs[key[1]]]:
            continue  # of another version of the tasks: its reward is of another right answer
        row = {"id": gold.name_of("tau2", *key), "tools": told[key].tools, "messages": tau2.messages(simulation)}
        reward = simulation["reward_info"]
        parts = {name: value for name, value in (reward.get("reward_breakdown") or {}).items() if value < PASSES}
        runs.append(Run(who, "tau2", key, read_row(row, "openai"), reward["reward"] >= PASSES, ", ".join(parts)))
    return runs, told


def _tau1(who: str, domain: str, path: str, told_file: Path | None) -> Source:
    """tau-bench's trajectories. Their right actions are not answered, and told as if they all had worked; the tools are
    those of tau2-bench's domain of the same name."""
    tools = next(one.tools for one in told_of("tau2", {domain: []}, told_file).values() if one.category == domain)
    runs, told = [], {}
    for one in json.loads(Path(path).read_bytes()):
        task, key = one["info"]["task"], (f"tau-bench {domain}", str(one["task_id"]))
        calls = [ToldCall(name=right["name"], arguments=right["kwargs"], answer="{}") for right in task["actions"]]
        turns = [ToldTurn(user=task["instruction"], calls=calls)]
        told[key] = Told(category=key[0], task=key[1], tools=tools, turns=turns, told=task["outputs"])
        talk = [each for each in one["traj"] if not any(end in (each.get("content") or "") for end in tau2.ENDS)]
        row = {"id": gold.name_of("tau-bench", *key), "tools": tools, "messages": talk}
        runs.append(Run(who, "tau2", key, read_row(row, "openai"), one["reward"] >= PASSES))
    return runs, told


FILES: dict[str, Callable[[str, str, str, Path | None], Source]] = {"bfcl": _bfcl, "tau2": _tau2, "tau1": _tau1}


def judged(runs: list[Run], told: dict[tuple[str, Key], Told]) -> list[Judged]:
    """Every run with its scores by all checklists of its task."""
    judge = make_judge(Judging(), None)
    makers: dict[str, Callable[[str, Told], Task]] = {
        "gold": lambda benchmark, one: gold.label(benchmark, one).task,
        "effects": lambda benchmark, one: EffectsLabeler().label(gold.reference(benchmark, one)).task,
        "reference": lambda benchmark, one: ReferenceLabeler().label(gold.reference(benchmark, one)).task,
    }
    made: dict[tuple[str, str, Key], list[Checklist]] = {}
    found = []
    for run in runs:
        scores: dict[str, float] = {"fewer calls": -float(sum(1 for _ in run.dialogue.calls()))}
        failed: list[str] = []
        for name, maker in makers.items():
            if name == "reference" and run.benchmark != "bfcl":
                continue  # its turns are not the runs'
            at = name, run.benchmark, run.key
            if at not in made:
                made[at] = maker(run.benchmark, told[run.benchmark, run.key]).checklists
            outcomes: list[Outcome] = []
            for checklist in made[at]:
                verdicts = judge.judge(run.dialogue, checklist.turn, checklist)
                outcomes += decide_outcomes(run.dialogue, "", [checklist], verdicts)
            if name == "gold":
                failed = [f"{one.turn} {one.item.id}: {one.reason}" for one in outcomes if one.result == "fail"]
                scores |= ordered(outcomes)
            else:
                scores[name] = ordered(outcomes)["share"]
        found.append(Judged(run, scores, failed))
    return found


def ordered(outcomes: list[Outcome]) -> dict[str, float]:
    """The scores that a checklist's outcomes give; a run without any item is in the middle of nowhere, at 0.5."""
    failed = [one for one in outcomes if one.result == "fail"]
    critical = sum(one.item.severity == "critical" for one in failed)
    penalty = sum(one.weight for one in failed)
    share = score(outcomes)
    return {
        PRIMARY: -(critical + penalty / (1 + penalty)),
        "share": 0.5 if share is None else share,
        ALL_PASS: float(not failed),
    }


def auc(scores: np.ndarray, passed: np.ndarray) -> float:
    """The chance that a rewarded run scores above one that was not, ties half; nan without both."""
    good = int(passed.sum())
    bad = len(passed) - good
    if not good or not bad:
        return float("nan")
    return (float(stats.rankdata(scores)[passed].sum()) - good * (good + 1) / 2) / (good * bad)


def interval(scores: np.ndarray, passed: np.ndarray, tasks: np.ndarray) -> tuple[float, float]:
    """95 % of the AUC over resampled tasks; nan without."""
    draw = np.random.default_rng(SEED)
    groups = [np.flatnonzero(tasks == task) for task in np.unique(tasks)]
    found = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([groups[k] for k in draw.integers(len(groups), size=len(groups))])
        found.append(auc(scores[rows], passed[rows]))
    if np.isnan(found).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return float(low), float(high)


def table(found: list[Judged]) -> list[dict[str, Any]]:
    """A row for each benchmark and category."""
    by_category: dict[tuple[str, str], list[Judged]] = defaultdict(list)
    for one in found:
        by_category[one.run.benchmark, one.run.key[0]].append(one)
    rows = []
    for (benchmark, category), mine in sorted(by_category.items()):
        passed = np.array([one.run.passed for one in mine])
        tasks = np.array([one.run.key[1] for one in mine])
        right = np.array([one.scores[ALL_PASS] >= PASSES for one in mine])
        row: dict[str, Any] = {
            "benchmark": benchmark,
            "category": category,
            "who": dict(Counter(one.run.who for one in mine)),
            "tasks": len(set(tasks)),
            "runs": len(mine),
            "rewarded": int(passed.sum()),
            "rewarded_all_pass": int((passed & right).sum()),
            "rewarded_not_all_pass": int((passed & ~right).sum()),
            "failed_all_pass": int((~passed & right).sum()),
            "failed_not_all_pass": int((~passed & ~right).sum()),
            "auc": {},
        }
        for name in mine[0].scores:
            values = np.array([one.scores[name] for one in mine])
            low, high = interval(values, passed, tasks)
            row["auc"][name] = {"auc": auc(values, passed), "low": low, "high": high}
        rows.append(row)
    return rows


def markdown(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The tables of the docs."""
    names = list(dict.fromkeys(name for row in rows for name in row["auc"]))
    yield f"| | tasks | runs | rewarded | {' | '.join(names)} |"
    yield f"|---|---|---|---|{'---|' * len(names)}"
    for row in rows:
        cells = []
        for name in names:
            one = row["auc"].get(name)
            cells.append("–" if one is None else f"{one['auc']:.3f} ({one['low']:.2f} … {one['high']:.2f})")
        head = f"{row['category']} | {row['tasks']} | {row['runs']} | {row['rewarded'] / row['runs']:.0%}"
        yield f"| {head} | {' | '.join(cells)} |"
    yield ""
    yield "| | rewarded, all pass | rewarded, an item fails | failed, all pass | failed, an item fails |"
    yield "|---|---|---|---|---|"
    for row in rows:
        counts = ("rewarded_all_pass", "rewarded_not_all_pass", "failed_all_pass", "failed_not_all_pass")
        yield f"| {row['category']} | {' | '.join(str(row[name]) for name in counts)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", help="see above")
    parser.add_argument("--told", type=Path, help="a file that a runner tell_….py wrote, in place of asking it")
    parser.add_argument("--wrong", action="store_true", help="list the runs on which checklist and reward disagree")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not options.sources:
        print("nothing to measure: give folders of `cm2 eval`, or files of runs and rewards (--help)")
        return
    runs: list[Run] = []
    told: dict[tuple[str, Key], Told] = {}
    for source in options.sources:
        more, about = read_source(source, options.told)
        runs += more
        told |= {(run.benchmark, run.key): about[run.key] for run in more}
    found = judged(runs, told)
    rows = table(found)
    if options.json:
        print(json.dumps(rows))
        return
    print("\n".join(markdown(rows)))
    if options.wrong:
        for one in found:
            if (one.scores[ALL_PASS] >= PASSES) != one.run.passed:
                print(f"{one.run.who} {one.run.key} rewarded {one.run.passed} {one.run.why}: {one.failed[:4]}")


if __name__ == "__main__":
    main()
