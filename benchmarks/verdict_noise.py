"""Verdict noise: how far a judge of known error rates moves the trajectory reward, by schedule and by vote.

    python benchmarks/verdict_noise.py                                   # about a minute on one core
    python benchmarks/verdict_noise.py --false-yes 0.02 --false-no 0.10
    python benchmarks/verdict_noise.py --plot docs/images/verdict-noise.png

Real checklists (sample worlds, and Taskmaster-4 where ../shared/data is there), real faults of agents (a turn answered
as in the reference, with empty words, with a call left out, with changed arguments, with another turn's reply). What
the checks say is the truth; a scripted judge answers with the given error rates, and `cm2.credit` makes R of both.

- `published`: every item is asked after every step, and a yes at any step is a yes. One call a step about all open
  items is the same here: it saves calls, the ratchet stays.
- `turn`: one question a turn, "after which step does it first hold, or never". A false yes names a step at random.

`vote n` is the majority of n judgements of each question. Errors are `independent` from answer to answer, or
`persistent`: the chance of an error is drawn once an item and turn from a beta distribution with the same mean and the
correlation --rho, for all its steps and votes: a judge that misreads a duty misreads it again.

The ratchet works both ways: it multiplies false yes and it forgives false no. So the table has each error alone, where
it can do harm (false yes on faulty runs, false no on perfect ones), and both together. Trajectories are fixed: what a
wrong verdict does to a strict item's gate is not in these numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from cm2.checklist import Checklist, Task
from cm2.credit import score
from cm2.credit.satisfaction import dependencies, earned, latch, tally
from cm2.dialogue import Dialogue, Step, Turn
from cm2.formats import read_tasks
from cm2.judge import ChecksJudge
from cm2.judge.majority import majority_error
from cm2.label.reference import ReferenceLabeler
from cm2.label.scramble import scramble
from cm2.worlds import MakeConfig, make

SHARED = Path(os.environ.get("CM2_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
SCHEDULES = ("published", "turn")
VOTES = (1, 3, 5)
ERRORS = ("independent", "persistent")
FAULTS = ("none", "none", "words", "call", "arguments", "reply")


class Played(NamedTuple):
    """One turn of a run under one checklist."""

    met: np.ndarray
    """[step, item]: what holds after each step."""
    depends: np.ndarray
    weights: np.ndarray


class RunOf(NamedTuple):
    """One run of one task: its turns with duties, how many turns the reference has, and its true reward."""

    turns: list[Played]
    length: int
    reward: float


class Noise(NamedTuple):
    """A judge: how often it says yes to what does not hold and no to what holds, and how alike its errors are."""

    false_yes: float
    false_no: float
    rho: float


def faulty(dialogue: Dialogue, rng: random.Random) -> Dialogue:
    """The dialogue as an agent of mixed quality might have had it: a fault, or none, a turn."""
    turns = []
    for turn in dialogue.turns:
        steps = [Step(step.thinking, step.reply, list(step.calls), list(step.responses)) for step in turn.steps]
        fault = rng.choice(FAULTS)
        if fault == "words" and steps and steps[-1].reply:
            steps[-1].reply = "All done!"
        elif fault == "reply" and steps and steps[-1].reply:
            other = rng.choice(dialogue.turns)
            steps[-1].reply = other.reply or steps[-1].reply
        elif fault == "call" and len(steps) > 1:
            del steps[rng.randrange(len(steps) - 1)]
        elif fault == "arguments":
            for step in steps:
                for call in step.calls:
                    if call.valid:
                        call_arguments = {key: scramble(value) for key, value in call.arguments.items()}
                        step.calls[step.calls.index(call)] = type(call)(call.name, call_arguments, call.id)
        turns.append(Turn(turn.user, steps))
    return Dialogue(dialogue.id, turns, dialogue.tools, dialogue.system)


def runs_of(task: Task, agents: int, rng: random.Random) -> Iterator[RunOf]:
    """The reference's run, and those of faulty agents."""
    judge = ChecksJudge()
    for agent in range(agents + 1):
        dialogue = faulty(task.dialogue, rng) if agent else task.dialogue
        steps = [len(turn.steps) for turn in dialogue.turns]
        verdicts = [v for c in task.checklists for v in judge.judge(dialogue, c.turn, c)]
        true = score(task.checklists, verdicts, steps, len(steps)).reward
        if true is None or any(v.met is None for v in verdicts):
            continue
        turns = [_played(c, [v for v in verdicts if v.turn == c.turn], steps[c.turn]) for c in task.checklists]
        found = RunOf(turns, len(steps), true)
        silent = Noise(0, 0, 0)
        again = rewards([found], silent, "published", 1, "independent", 1, np.random.default_rng(0))
        assert abs(float(again[0, 0]) - true) < 1e-9, "the arrays give the reward that cm2.credit gives"
        yield found


def _played(checklist: Checklist, verdicts: list[Any], steps: int) -> Played:
    weights = np.array([item.weight for item in checklist.items])
    return Played(tally(checklist, verdicts, steps), dependencies(checklist), weights / weights.sum())


def rewards(
    runs: list[RunOf], noise: Noise, schedule: str, votes: int, errors: str, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """R as the judge sees it, [run, draw]."""
    found = np.zeros((len(runs), draws))
    for r, run in enumerate(runs):
        for turn in run.turns:
            if len(turn.met):
                said = answers(turn.met, noise, schedule, votes, errors, draws, rng)
                paid = earned(latch(said.astype(float), turn.depends, "gated"), turn.depends)
                found[r] += paid.sum(axis=1) @ turn.weights
        found[r] /= run.length
    return found


def answers(
    met: np.ndarray, noise: Noise, schedule: str, votes: int, errors: str, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """What the majority says, [draw, step, item], where `met`[step, item] is true."""
    steps, items = met.shape
    if schedule == "published":
        mean = np.where(met == 1, noise.false_no, noise.false_yes)[None, :, :]
        wrong = rng.random((votes, draws, steps, items)) < _chance(mean, noise.rho, errors, draws, rng)
        yes = wrong != (met == 1)
    else:
        holds = met.any(axis=0)
        first = np.where(holds, (met == 1).argmax(axis=0), steps)
        mean = np.where(holds, noise.false_no, noise.false_yes)[None, :]
        wrong = rng.random((votes, draws, items)) < _chance(mean, noise.rho, errors, draws, rng)
        told = np.where(wrong, np.where(holds, steps, rng.integers(0, steps, size=wrong.shape)), first)
        yes = np.arange(steps)[:, None] >= told[:, :, None, :]
    return yes.sum(axis=0) * 2 > votes


def _chance(mean: np.ndarray, rho: float, errors: str, draws: int, rng: np.random.Generator) -> np.ndarray:
    """The chance of an error: the mean, or, where errors persist, drawn once an item (by its quantile, so that an item
    that is easily passed is easily passed after every step)."""
    if errors == "independent" or rho <= 0:
        return np.broadcast_to(mean, (draws, *mean.shape[1:]))
    level = rng.random((draws, *([1] * (mean.ndim - 2)), mean.shape[-1]))
    scale = (1 - rho) / rho
    found = np.zeros((draws, *mean.shape[1:]))
    for value in np.unique(mean):
        if value > 0:
            drawn = special.betaincinv(value * scale, (1 - value) * scale, level)
            found = np.where(mean == value, drawn, found)
    return found


def simple(noise: Noise, draws: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """One item that never holds in a turn of three steps: what it is paid, beside the formula."""
    never = RunOf([Played(np.zeros((3, 1)), np.zeros((1, 1), dtype=bool), np.ones(1))], 1, 0.0)
    scale = (1 - noise.rho) / noise.rho
    a, b = noise.false_yes * scale, (1 - noise.false_yes) * scale
    grid = special.betaincinv(a, b, (np.arange(200_000) + 0.5) / 200_000)
    rows = []
    for errors in ERRORS:
        for schedule in SCHEDULES:
            for votes in VOTES:
                p = np.array([noise.false_yes]) if errors == "independent" else grid
                one = majority_error(p, votes)
                formula = float((1 - (1 - one) ** 3 if schedule == "published" else one).mean())
                seen = rewards([never], noise, schedule, votes, errors, draws, rng)[0]
                error = float(seen.std(ddof=1)) / draws**0.5
                rows.append(
                    {
                        "errors": errors,
                        "schedule": schedule,
                        "votes": votes,
                        "formula": formula,
                        "measured": float(seen.mean()),
                        "standard_error": error,
                    }
                )
    return rows


def table(runs: list[RunOf], noise: Noise, draws: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Mean R minus true R: false yes alone over faulty runs, false no alone over perfect ones, both over all of them.
    Standard errors are over runs."""
    true = np.array([run.reward for run in runs])
    perfect = true > 1 - 1e-9
    cases = (
        ("false_yes", noise._replace(false_no=0.0), ~perfect),
        ("false_no", noise._replace(false_yes=0.0), perfect),
        ("both", noise, perfect | True),
    )
    rows = []
    for errors in ERRORS:
        for schedule in SCHEDULES:
            for votes in VOTES:
                row: dict[str, Any] = {"errors": errors, "schedule": schedule, "votes": votes}
                for name, rates, which in cases:
                    mine = [run for run, counts in zip(runs, which, strict=True) if counts]
                    seen = rewards(mine, rates, schedule, votes, errors, draws, rng)
                    off = seen.mean(axis=1) - true[which]
                    row[name] = float(off.mean())
                    row[f"{name}_se"] = float(off.std(ddof=1)) / len(mine) ** 0.5
                # how far the reward that is seen once follows the true one, over runs of all tasks
                row["correlation"] = float(np.corrcoef(seen.ravel(), np.repeat(true, draws))[0, 1])
                rows.append(row)
    return rows


def gather(count: int, agents: int, seed: int) -> dict[str, list[RunOf]]:
    """The runs by source."""
    rng = random.Random(seed)
    labeler = ReferenceLabeler()
    sources: dict[str, list[Dialogue]] = {"sample worlds": list(make(MakeConfig(count=count, seed=seed)))}
    file = SHARED / "taskmaster4.jsonl.gz"
    if file.exists():
        picked = [task.dialogue for _, task in read_tasks(file, on_error=lambda row: None)]
        sources["taskmaster4"] = rng.sample(picked, min(4 * count, len(picked)))
    found = {}
    for name, dialogues in sources.items():
        tasks = [task for one in dialogues if (task := labeler.label(one).task).checklists][:count]
        found[name] = [run for task in tasks for run in runs_of(task, agents, rng)]
    return found


def plot(found: dict[str, list[dict[str, Any]]], noise: Noise, path: str) -> None:
    """Bars of mean R − true R: what false yes adds to faulty runs and what false no takes from perfect ones."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(found), figsize=(5.4 * len(found), 3.8), sharey=True, squeeze=False)
    colours = {"published": "#b4532a", "turn": "#2a6f97"}
    for axis, (source, rows) in zip(axes[0], found.items(), strict=True):
        places = []
        for k, votes in enumerate(VOTES):
            for s, schedule in enumerate(SCHEDULES):
                for e, errors in enumerate(ERRORS):
                    key = (schedule, votes, errors)
                    row = next(r for r in rows if (r["schedule"], r["votes"], r["errors"]) == key)
                    for name in ("false_yes", "false_no"):
                        axis.bar(
                            k * 5 + s * 2 + e * 0.9,
                            row[name],
                            0.85,
                            yerr=2 * row[f"{name}_se"],
                            color=colours[schedule],
                            alpha=1 if errors == "independent" else 0.45,
                            label=f"{schedule}, {errors} errors" if k == 0 and name == "false_yes" else None,
                            error_kw={"elinewidth": 0.8},
                        )
            places.append(k * 5 + 1.45)
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_xticks(places, [f"vote of {votes}" if votes > 1 else "one judgement" for votes in VOTES])
        axis.set_title(source, fontsize=10)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    axes[0][0].set_ylabel("mean R − true R")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, loc="lower center", ncol=4)
    figure.suptitle(
        f"above 0: false yes alone ({noise.false_yes:.0%}) on faulty runs; below 0: false no alone"
        f" ({noise.false_no:.0%}) on perfect runs; persistent: rho {noise.rho:g}",
        fontsize=9,
    )
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, dpi=110)


def show(rows: list[dict[str, Any]]) -> None:
    """One table."""
    heads = "".join(f"{head:>20}" for head in ("false yes, faulty", "false no, perfect", "both, all"))
    print(f"{'errors':13}{'schedule':11}{'vote':>4}{heads}{'corr(R)':>9}")
    for row in rows:
        cells = "".join(f"{row[name]:>+12.3f} ± {row[f'{name}_se']:.3f}" for name in ("false_yes", "false_no", "both"))
        print(f"{row['errors']:13}{row['schedule']:11}{row['votes']:>4}{cells}{row['correlation']:>9.3f}")


def main() -> None:
    """Print the tables."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--false-yes", type=float, default=0.05, help="rate of yes where the truth is no")
    options.add_argument("--false-no", type=float, default=0.05, help="rate of no where the truth is yes")
    options.add_argument("--rho", type=float, default=0.3, help="correlation of persistent errors")
    options.add_argument("--tasks", type=int, default=60, help="tasks a source")
    options.add_argument("--agents", type=int, default=3, help="faulty runs a task")
    options.add_argument("--draws", type=int, default=60, help="judgements of every run")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--plot", help="write a picture there")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    noise = Noise(given.false_yes, given.false_no, given.rho)
    started = time.perf_counter()
    checks = simple(noise, 40_000, np.random.default_rng(given.seed))
    runs = gather(given.tasks, given.agents, given.seed)
    found = {
        name: table(mine, noise, given.draws, np.random.default_rng([given.seed, i]))
        for i, (name, mine) in enumerate(runs.items())
    }
    if given.plot:
        plot(found, noise, given.plot)
    if given.json:
        print(json.dumps({"noise": noise._asdict(), "formula": checks, "sources": found}))
        return
    print(f"false yes {noise.false_yes:.1%}, false no {noise.false_no:.1%}; persistent errors: rho {noise.rho}")
    print("\none item that never holds, three steps: what it is paid")
    for row in checks:
        error = f"{row['measured']:.4f} ± {row['standard_error']:.4f}"
        print(
            f"{row['errors']:13}{row['schedule']:11}vote {row['votes']}  formula {row['formula']:.4f}  measured {error}"
        )
    for name, rows in found.items():
        true = np.array([run.reward for run in runs[name]])
        print(
            f"\n{name}: {len(true)} runs, true R {true.mean():.3f}, {(true > 1 - 1e-9).mean():.0%} perfect; R − true R"
        )
        show(rows)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
