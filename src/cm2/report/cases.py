"""Case: one task under several agents, side by side; and the choice of the cases that a report shows.

Nobody reads every dialogue, so some are chosen, by a rule that does not flatter: the tasks of an evaluation are sorted
by what they gained from the first agent to the last, and shown at even distances from the largest gain to the largest
loss; those of a single agent from the lowest reward to the highest. Of the training rollouts those groups are shown in
which the reward varied most, because that is what the policy learnt from.

Files are read twice, for the rewards and for the chosen lines, so a long run needs little memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import pvariance
from typing import Any

import msgspec

from cm2.report.outcome import reward
from cm2.report.records import read_rollout, read_rollouts
from cm2.report.source import Eval, Source, lines
from cm2.rollout.trace import Rollout

TRAINING = "training groups"
ENDS = 2
"""Files of training rollouts that are read at the beginning and at the end of a training."""
MEMBERS = 3
"""Rollouts of a training group that are shown: the best, the middle and the worst."""


class Seen(msgspec.Struct, frozen=True):
    """What the first reading keeps of a rollout."""

    label: str
    path: Path
    line: int
    task: str
    group: str
    member: int
    reward: float | None
    """None where the rollout failed or nothing of it was judged."""


class Column(msgspec.Struct):
    """One agent's run in a case."""

    label: str
    rollout: Rollout
    reward: float | None


class Case(msgspec.Struct):
    """One task, the runs of it that stand side by side, and why it is shown."""

    task: str
    section: str
    why: str
    columns: list[Column]


class Chooser:
    """Chooses cases of a source.

    Args:
        source: what was found; problems in its files are added to it.
        root: the run folder, for naming files.

    Attributes:
        available: how many cases there are, by section.
    """

    def __init__(self, source: Source, root: Path):
        self.source, self.root = source, root
        self._sections = self._scan()
        self.available = {name: len(plans) for name, plans in self._sections.items()}

    def choose(self, most: int) -> list[Case]:
        """At most `most` cases, shared fairly between the sections."""
        shares = share(list(self.available.values()), most)
        plans = [
            (name, plan)
            for (name, plans), n in zip(self._sections.items(), shares, strict=True)
            for plan in (spread(plans, n) if plans and plans[0].spread else plans[:n])
        ]
        loaded = self._load(seen for _, plan in plans for seen in plan.runs)
        cases = []
        for name, plan in plans:
            columns = [
                Column(seen.label, loaded[seen.path, seen.line], seen.reward)
                for seen in plan.runs
                if (seen.path, seen.line) in loaded
            ]
            cases.append(Case(plan.runs[0].task, name, plan.why, columns))
        return cases

    def _scan(self) -> dict[str, list[_Plan]]:
        sections: dict[str, list[_Plan]] = {}
        groups: dict[tuple[str, str, str], list[Eval]] = {}
        for found in self.source.evals:
            if found.rollouts is not None:
                groups.setdefault((found.place, found.split, found.mode), []).append(found)
        for key, evals in groups.items():
            plans = self._by_task(evals)
            if plans:
                sections[section_name(*key)] = plans
        training = self._by_variance()
        if training:
            sections[TRAINING] = training
        return sections

    def _by_task(self, evals: list[Eval]) -> list[_Plan]:
        tasks: dict[tuple[str, str], list[Seen]] = {}
        for found in evals:
            assert found.rollouts is not None
            first: dict[tuple[str, str], Seen] = {}
            for seen in self._read(found.rollouts, found.name):
                key = (seen.task, seen.group)
                if key not in first or seen.member < first[key].member:
                    first[key] = seen
            for key, seen in first.items():
                tasks.setdefault(key, []).append(seen)
        plans = []
        for runs in tasks.values():
            rewards = [seen.reward for seen in runs if seen.reward is not None]
            alone = len(evals) == 1
            gain = (-rewards[0] if alone else rewards[-1] - rewards[0]) if rewards else 0.0
            plans.append(_Plan(runs, "", gain, spread=True))
        return sorted(plans, key=lambda plan: (-plan.order, plan.runs[0].task, plan.runs[0].group))

    def _by_variance(self) -> list[_Plan]:
        folders: dict[Path, list[Path]] = {}
        for path in self.source.steps:
            folders.setdefault(path.parent, []).append(path)
        plans = []
        for paths in folders.values():
            chosen = paths if len(paths) <= 2 * ENDS else paths[:ENDS] + paths[-ENDS:]
            for path in chosen:
                groups: dict[tuple[str, str], list[Seen]] = {}
                for seen in self._read(path, path.stem):
                    groups.setdefault((seen.task, seen.group), []).append(seen)
                plans += [_group_plan(path, runs) for runs in groups.values()]
        return sorted(plans, key=lambda plan: (-plan.order, str(plan.runs[0].path), plan.runs[0].task))

    def _read(self, path: Path, label: str) -> list[Seen]:
        return [
            Seen(label, path, number, rollout.task, rollout.group, rollout.member, reward(rollout))
            for number, rollout in read_rollouts(path, self.root, self.source.problems)
        ]

    def _load(self, wanted: Iterable[Seen]) -> dict[tuple[Path, int], Rollout]:
        numbers: dict[Path, set[int]] = {}
        for seen in wanted:
            numbers.setdefault(seen.path, set()).add(seen.line)
        unheard: list[str] = []  # what does not read was told by the first reading
        loaded = {}
        for path, chosen in numbers.items():
            for number, line, fault in lines(path, self.root, unheard):
                if number in chosen:
                    loaded[path, number] = read_rollout(line, fault)
        return loaded


class _Plan(msgspec.Struct):
    runs: list[Seen]
    why: str
    order: float
    spread: bool = False


def section_name(place: str, split: str, mode: str) -> str:
    """How a group of evaluations is called on the page."""
    names = {"heldout": "held-out", "unseen": "unseen"}
    return " · ".join(filter(None, (place, names.get(split, split), mode))) or "dialogues"


def share(available: list[int], most: int) -> list[int]:
    """Share `most` places among sections as evenly as what they have allows, the first ones first."""
    shares = [0] * len(available)
    while most > 0 and any(have > got for have, got in zip(available, shares, strict=True)):
        for index, have in enumerate(available):
            if most > 0 and have > shares[index]:
                shares[index] += 1
                most -= 1
    return shares


def spread(items: list[Any], n: int) -> list[Any]:
    """`n` of the items at even distances, the first and the last among them."""
    if n >= len(items):
        return items
    if n < 2:
        return items[:n]
    return [items[round(index * (len(items) - 1) / (n - 1))] for index in range(n)]


def _group_plan(path: Path, runs: list[Seen]) -> _Plan:
    valued = sorted(
        (seen for seen in runs if seen.reward is not None), key=lambda seen: (-(seen.reward or 0), seen.member)
    )
    rewards = [seen.reward for seen in valued if seen.reward is not None]
    variance = pvariance(rewards) if len(rewards) > 1 else 0.0
    chosen = spread(valued, MEMBERS) if valued else runs[:MEMBERS]
    named = [msgspec.structs.replace(seen, label=f"member {seen.member}") for seen in chosen]
    step = path.stem.removeprefix("step-").lstrip("0") or "0"
    spreading = f"reward {min(rewards):.2f} to {max(rewards):.2f}" if rewards else "no reward"
    return _Plan(named, f"step {step}, {len(runs)} rollouts, {spreading}", variance)
