"""Dialogues a second judged by checks, on one core, and what generic policies find in real logs.

    python benchmarks/diagnose.py                          # the logs in $CM2_DATA, where they are, else made ones
    python benchmarks/diagnose.py --limit 1000             # so many of each, for a first look
    python benchmarks/diagnose.py --data MINE.jsonl --policy MINE.yaml

Two policies that know nothing of these logs: the recipe for any support agent, of which only the checks are judged
here, and one that `cm2 draft` makes without a model, from patterns in the first half of the dialogues; both are judged
on the other half. Time is processor time of one process: reading, judging and writing the verdicts.

The logs are of human wizards (STAR) and of an agent (tau-bench's airline). STAR says whether a user was told to be easy
(`meta.happy`). That is no outcome: the wizard follows the same flow charts with a difficult user. A difference between
the two says where difficult users make duties fail; an AUC near 0.5 is what duties should have that look at the agent.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from cm2.assure.outcomes import Judged, read_judged
from cm2.errors import DataError
from cm2.evals.intervals import interval
from cm2.formats import write_row
from cm2.judge.run import JudgeConfig, judge_file
from cm2.policy import Policy, load_policy
from cm2.policy.draft import DraftConfig, draft_policy
from cm2.worlds import MakeConfig, make

ROOT = Path(__file__).resolve().parents[1]
SUPPORT = ROOT / "recipes" / "policies" / "support.yaml"
FOLDER = Path(os.environ.get("CM2_DATA", ROOT.parent / "shared" / "data"))
LOGS = tuple(FOLDER / f"{name}.jsonl.gz" for name in ("star_train", "taubench_airline_gpt4o"))
MADE = 400


def halves(data: Path | None, limit: int, folder: Path) -> tuple[Path, Path]:
    """The rows of the logs (made ones where there are none), every other one, to draft from and to judge."""
    if data is not None:
        with (gzip.open if data.suffix == ".gz" else open)(data, "rt", encoding="utf-8") as file:
            lines = list(islice((line for line in file if line.strip()), limit))
    else:
        made = make(MakeConfig(count=min(limit, MADE)))
        lines = [json.dumps(write_row(dialogue, "openai")) + "\n" for dialogue in made]
    paths = folder / "first.jsonl", folder / "second.jsonl"
    for start, path in enumerate(paths):
        path.write_text("".join(lines[start::2]), encoding="utf-8")
    return paths


def drafted(logs: Path, folder: Path) -> Path | None:
    """The policy that `cm2 draft` makes of the logs without a model; None where it finds no pattern, and says so."""
    path = folder / "drafted.yaml"
    try:
        policy, _ = draft_policy(DraftConfig(str(logs), str(path)))
    except DataError as error:
        print(f"no drafted policy: {error.message}")
        return None
    if not policy.active:
        print("no drafted policy: no pattern holds often enough to be active")
    return path if policy.active else None


def judged_by(policy: Path, logs: Path, folder: Path) -> tuple[list[Judged], float]:
    """Every dialogue judged by the checks of a policy, and the processor seconds that it took."""
    store = folder / f"{policy.stem}.verdicts.jsonl"
    started = time.process_time()
    judge_file(JudgeConfig(input=str(logs), output=str(store), policy=str(policy)))
    took = time.process_time() - started
    return list(read_judged(str(logs), str(store), policy=load_policy(policy))), took


def measure(policy: Path, logs: Path, folder: Path) -> dict[str, Any]:
    """Speed, pass rates, and how they differ between easy and difficult users where the logs tell them apart."""
    judged, took = judged_by(policy, logs, folder)
    duties: dict[str, list[tuple[str, Any]]] = {}
    for one in judged:
        for outcome in one.outcomes:
            duties.setdefault(outcome.duty, []).append((outcome.result, one.dialogue.meta.get("happy")))
    told: dict[str, Any] = {
        "policy": policy.stem,
        "dialogues": len(judged),
        "outcomes": sum(len(found) for found in duties.values()),
        "dialogues_per_second": round(len(judged) / took, 1),
        "duties": {name: _rates(found) for name, found in duties.items()},
    }
    scored = [(one.score, one.dialogue.meta.get("happy")) for one in judged if one.score is not None]
    if {happy for _, happy in scored} == {True, False}:
        easy, difficult = ([score for score, happy in scored if happy is kind] for kind in (True, False))
        wins = stats.mannwhitneyu(easy, difficult).statistic
        told["auc_happy"] = float(wins / (len(easy) * len(difficult)))
        told["mean_happy"], told["mean_unhappy"] = float(np.mean(easy)), float(np.mean(difficult))
    return told


def _rates(found: list[tuple[str, Any]]) -> dict[str, Any]:
    counts = {kind: sum(result == kind for result, _ in found) for kind in ("pass", "fail", "unscored")}
    rates: dict[str, Any] = dict(counts)
    for name, kinds in (("rate", (True, False, None)), ("rate_happy", (True,)), ("rate_unhappy", (False,))):
        values = [float(result == "pass") for result, happy in found if result in ("pass", "fail") and happy in kinds]
        rates[name] = interval(values)
    return rates


def show(told: dict[str, Any], policy: Policy, console: Console) -> None:
    """The table for a person: duties by how often they fail."""
    size = f"{told['dialogues']} dialogues, {told['dialogues_per_second']} a second of one core"
    table = Table(title=f"{told['policy']} on {told['logs']}: {size}")
    for name in ("duty", "severity", "applies", "fails", "pass rate (95 %)", "easy user", "difficult user", "unscored"):
        table.add_column(name, justify="left" if name in ("duty", "severity") else "right", no_wrap=True)
    for name, rates in sorted(told["duties"].items(), key=lambda pair: -pair[1]["fail"]):
        duty = policy.duty(name)
        row = [str(rates["pass"] + rates["fail"]), str(rates["fail"])]
        all_rate = rates["rate"]
        row.append("–" if all_rate is None else f"{all_rate.mean:.1%} ({all_rate.low:.1%} … {all_rate.high:.1%})")
        row += ["–" if rates[key] is None else f"{rates[key].mean:.1%}" for key in ("rate_happy", "rate_unhappy")]
        table.add_row(name, duty.severity if duty else "", *row, str(rates["unscored"]))
    console.print(table)
    if "auc_happy" in told:
        means = f"{told['mean_happy']:.3f} with easy users, {told['mean_unhappy']:.3f} with difficult ones"
        console.print(f"mean score {means}; AUC between them {told['auc_happy']:.3f}\n")


def main() -> None:
    """See the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", help="logs (.jsonl or .jsonl.gz); repeat it for more")
    parser.add_argument("--limit", type=int, default=10**9, help="so many dialogues of each")
    parser.add_argument("--policy", type=Path, action="append", help="a policy to judge by")
    args = parser.parse_args()
    console = Console(width=None if os.isatty(1) else 150)
    present = args.data or [path for path in LOGS if path.is_file()] or [None]
    for data in present:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            first, second = halves(data, args.limit, folder)
            for policy in args.policy or (SUPPORT, drafted(first, folder)):
                if policy is not None:
                    told = measure(policy, second, folder) | {"logs": "made dialogues" if data is None else data.name}
                    show(told, load_policy(policy), console)


if __name__ == "__main__":
    main()
