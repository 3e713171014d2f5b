"""What a run of the ladder showed: SFT against RL on the same held-out tasks, and one sentence that says so.

The sentence is made from the numbers: it counts a rise only where the 95 % interval of the paired difference leaves out
zero, and says as plainly where none does, or where the agent got worse.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from cm2.evals.evaluate import METRICS, by_task
from cm2.evals.intervals import Difference, difference
from cm2.rollout.trace import read_rollouts

NAMES = {"reward": "checklist reward", "strict_pass": "strict pass", "outcome": "true outcome"}


class Compared(Difference, kw_only=True):
    """A paired difference, and of what."""

    split: str
    mode: str
    metric: str


def compare(folders: list[Path], splits: list[str], before: str = "sft", after: str = "rl") -> list[Compared]:
    """The differences of two checkpoints on every split, mode and metric that both evaluations have.

    Args:
        folders: each holds an evaluation a checkpoint, split and mode: NAME-SPLIT-MODE. Several are runs of several
            seeds; a task of one is another task than that of the same id in the next.
        splits: in the order of the table.
        before, after: the checkpoints' names.
    """
    found = []
    for split in splits:
        for mode in ("greedy", "sampled"):
            for metric in METRICS:
                a, b = (_values(folders, f"{name}-{split}-{mode}", metric) for name in (before, after))
                value = difference(a, b)
                if value is not None:
                    found.append(Compared(**msgspec.structs.asdict(value), split=split, mode=mode, metric=metric))
    return found


def _values(folders: list[Path], evaluation: str, metric: str) -> dict[str, float]:
    found = {}
    for number, folder in enumerate(folders):
        values = by_task(read_rollouts(str(folder / evaluation / "rollouts.jsonl")), metric)
        found.update({f"{number}/{id}": value for id, value in values.items()})
    return found


def verdict_of(found: list[Compared]) -> str:
    """One sentence: in how many measures of each split RL rose and fell, and the rewards that moved."""
    if not found:
        return "There is nothing to compare."
    rose = [one for one in found if one.low > 0]
    fell = [one for one in found if one.high < 0]
    if rose and not fell:
        opening = "RL beats SFT"
    elif fell and not rose:
        opening = "RL is worse than SFT"
    elif fell:
        opening = "RL beats SFT in some measures and is worse in others"
    else:
        opening = "No significant difference between RL and SFT"
    parts = []
    for split in dict.fromkeys(one.split for one in found):
        own = [one for one in found if one.split == split]
        moved = [
            f"{sum(one in group for one in own)} of {len(own)} measures {sense}"
            for group, sense in ((rose, "rose"), (fell, "fell"))
        ]
        rewards = [f"{one.mode} reward {one.before:.2f} → {one.after:.2f}" for one in own if one.metric == "reward"]
        parts.append(f"{split}: {', '.join(moved)} ({', '.join(rewards)})")
    return f"{opening}; {'; '.join(parts)}; by 95 % intervals of the paired difference."
