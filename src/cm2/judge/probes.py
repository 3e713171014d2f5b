"""Probes: everything that keeps an eye on the judge of a training run, in one object.

    probes = Probes(Probing(gold_fraction=0.1, canaries=1, hold_out=0.1), judge, tasks, gold=better)
    roller = Roller(…, judge=probes.judge)             # asks about canaries and held-out items too, pays for neither
    … roll probes.tasks …                               # the tasks without the held-out items
    numbers |= probes.numbers(groups, update)           # metrics of the update
    alarms = probes.alarms(run.metrics() + [numbers])   # what is wrong, from the metrics alone: a resumed run knows it

Metrics (each only where its probe is on and had something to look at):

| name | meaning |
|---|---|
| gold_rollouts | rollouts that the gold judge saw and that count |
| gold_training, gold_reward, gold_gap | both mean rewards of these rollouts, and training − gold |
| gold_disagree | share of items on which the two judges differ |
| gold_unscored | items that the gold judge did not decide |
| canaries, canaries_wrong, canary_groups | canaries judged, answered wrongly; groups that had one |
| canary_rate | share answered wrongly, a group counting once; given_… likewise for those that must be yes |
| hold_out_training, hold_out_reward | mean reward of what is paid for, and of held-out items, in the same rollouts |
| probe | which batch of rollouts the numbers are about: steps that share one share them, and it counts once |
| alarm | what is wrong, in words; written by whoever keeps the metrics |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from cm2.checklist import Item, Task
from cm2.credit import score
from cm2.credit.config import Reading
from cm2.errors import ConfigError
from cm2.judge.aside import Aside, Kept, Place, aside, hold_out
from cm2.judge.calibration import Calibration
from cm2.judge.canary import pool_of
from cm2.judge.gold import Judged, sample, second_opinions
from cm2.judge.judge import Judge
from cm2.judge.watch import Alarm, Answers, Pair, Watching, diverging, failing

UNCALIBRATED = 0.05
"""The rate of wrong answers that canaries are held against where there is no calibration."""
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Probing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which probes are on. All are off by default; each costs calls or reward."""

    gold_fraction: Fraction = 0.0
    """Share of each update's rollouts that the gold judge judges too. 0.05 to 0.1 of 64 rollouts sees a drift of a few
    hundredths within some tens of updates."""
    canaries: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Items a checklist whose answer must stay no. They ride in the judge's own calls: a few tokens each."""
    given: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Items a checklist whose answer must be yes: tells a judge that has begun to refuse everything."""
    hold_out: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.0
    """Share of the items that can be spared which is judged and never paid for."""
    window: Annotated[int, msgspec.Meta(ge=3)] = 10
    """See `Watching`."""
    alarm_rate: Annotated[float, msgspec.Meta(gt=0, lt=0.5)] = 0.05
    """See `Watching.rate`."""
    on_alarm: Literal["note", "stop"] = "note"
    """stop: end the run after the update with a checkpoint, so that a person can look."""

    @property
    def on(self) -> bool:
        """Whether any probe is."""
        return bool(self.gold_fraction or self.canaries or self.given or self.hold_out)

    @property
    def watching(self) -> Watching:
        """How its series are looked at."""
        return Watching(window=self.window, rate=self.alarm_rate)


class Probes:
    """See the module.

    Args:
        config: which probes.
        judge: the training judge.
        tasks: what is trained on.
        gold: the better judge.
        calibration: of the training judge, for the rate that canaries are held against.
        reading: as the reward is read.
        seed: of samples, canaries and held-out items.

    Raises:
        ConfigError: there is a gold fraction and no gold judge.
    """

    def __init__(
        self,
        config: Probing,
        judge: Judge,
        tasks: Sequence[Task],
        *,
        gold: Judge | None = None,
        calibration: Calibration | None = None,
        reading: Reading = "gated",
        seed: int = 0,
    ):
        if config.gold_fraction and gold is None:
            raise ConfigError("gold_fraction is set and there is no gold judge", fix="give one, or set it to 0")
        self.config, self.gold, self.reading, self.seed = config, gold, reading, seed
        self.calibration = calibration
        self.tasks: list[Task] = list(tasks)
        self._whole: dict[str, Task] = {}
        held: dict[str, dict[Place, list[Item]]] = {}
        if config.hold_out:
            self.tasks = []
            for task in tasks:
                paid, spared = hold_out(task, config.hold_out, seed)
                self.tasks.append(paid)
                held[task.dialogue.id], self._whole[task.dialogue.id] = spared, task
        pool = pool_of(tasks) if config.canaries or config.given else None
        self.judge: Judge = judge
        self._aside: Aside | None = None
        if pool is not None or held:
            self._aside = aside(judge, pool, canaries=config.canaries, given=config.given, held=held, seed=seed)
            self.judge = self._aside

    def numbers(self, groups: Sequence[Sequence[Judged]], update: int) -> dict[str, Any]:
        """The metrics of one update, from its groups as they were rolled out; see the module.

        Raises:
            ProviderError, BudgetReached: see `cm2.judge.gold.second_opinions`.
        """
        found: dict[str, Any] = {"probe": update}
        if self.config.gold_fraction:
            assert self.gold is not None
            found |= self._gold(groups, update, self.gold)
        if self._aside is not None:
            kept = [[(one, self._aside.take(one.dialogue)) for one in group] for group in groups]
            self._aside.clear()
            for name, yes in (("canary", False), ("given", True)):
                found |= _answers(name, yes, [[part for one, part in group if one.valid] for group in kept])
            if self._whole:
                found |= self._held([pair for group in kept for pair in group if pair[0].valid])
        return found

    def alarms(self, metrics: Sequence[Mapping[str, Any]]) -> list[Alarm]:
        """The alarms of the looks that fall on the last of these updates.

        Args:
            metrics: of every step so far, in order, with what `numbers` gave; those without it are passed over.
        """
        series = list({one["probe"]: one for one in metrics if "probe" in one}.values())
        watching, last = self.config.watching, len(series)
        found: list[Alarm | None] = []
        for sign, training, other in (
            ("gold", "gold_training", "gold_reward"),
            ("hold_out", "hold_out_training", "hold_out_reward"),
        ):
            pairs = [
                Pair(update, one[training], one[other])
                for update, one in enumerate(series, 1)
                if one.get(training) is not None and one.get(other) is not None
            ]
            if pairs and pairs[-1].update == last:
                found.append(diverging(pairs, watching, sign))  # type: ignore[arg-type]
        for sign in ("canary", "given"):
            answers = [
                Answers(update, one[f"{sign}_groups"], one[f"{sign}_rate"] * one[f"{sign}_groups"])
                for update, one in enumerate(series, 1)
                if one.get(f"{sign}_groups")
            ]
            if answers and answers[-1].update == last:
                found.append(failing(answers, self._calibrated(sign), watching, sign))  # type: ignore[arg-type]
        return [alarm for alarm in found if alarm is not None]

    def _calibrated(self, sign: str) -> float:
        """The upper end of the calibrated rate: an alarm says that the judge is worse than it was measured to be."""
        if self.calibration is None:
            return UNCALIBRATED
        rate = self.calibration.false_no() if sign == "given" else self.calibration.false_yes()
        return UNCALIBRATED if rate is None else min(rate.high, 0.99)

    def _gold(self, groups: Sequence[Sequence[Judged]], update: int, gold: Judge) -> dict[str, Any]:
        valid = [one for group in groups for one in group if one.valid]
        chosen = [valid[i] for i in sample(len(valid), self.config.gold_fraction, update, self.seed)]
        found = [one for one in second_opinions(chosen, gold, self.reading) if one.counts]
        if not found:
            return {"gold_rollouts": 0}
        training, other = (float(np.mean([getattr(one, name) for one in found])) for name in ("training", "gold"))
        items = sum(one.items for one in found)
        return {
            "gold_rollouts": len(found),
            "gold_training": training,
            "gold_reward": other,
            "gold_gap": training - other,
            "gold_disagree": sum(one.differ for one in found) / items if items else None,
            "gold_unscored": sum(one.unscored for one in found),
        }

    def _held(self, pairs: list[tuple[Judged, Kept]]) -> dict[str, Any]:
        paid: list[float | None] = []
        held: list[float | None] = []
        for one, kept in pairs:
            task = self._whole.get(one.dialogue.id)
            if task is None:
                continue
            steps = [len(turn.steps) for turn in one.dialogue.turns]
            whole = score(task.checklists, [*one.verdicts, *kept.verdicts], steps, one.reference_turns, self.reading)
            own = {(each.turn, each.variant): {item.id for item in each.items} for each in one.checklists}
            settled = [
                (float(met), float(weight), id in own.get(place, ()))
                for place, ledger in whole.ledgers.items()
                for (id, met), weight in zip(ledger.outcome.items(), ledger.weights, strict=True)
                if met is not None
            ]
            for values, mine in ((paid, True), (held, False)):
                weight = sum(w for _, w, is_paid in settled if is_paid == mine)
                share = sum(met * w for met, w, is_paid in settled if is_paid == mine)
                values.append(share / weight if weight else None)
        both = [(a, b) for a, b in zip(paid, held, strict=True) if a is not None and b is not None]
        if not both:
            return {}
        return {
            "hold_out_training": float(np.mean([a for a, _ in both])),
            "hold_out_reward": float(np.mean([b for _, b in both])),
        }


def _answers(name: str, yes: bool, groups: list[list[Kept]]) -> dict[str, Any]:
    """The numbers of one sort of canary. A group counts once, however many siblings and canaries it had."""
    shares, asked, wrong = [], 0, 0
    for group in groups:
        said = [bad for kept in group for canary, bad in kept.canaries if canary.yes == yes and bad is not None]
        if said:
            shares.append(sum(said) / len(said))
            asked, wrong = asked + len(said), wrong + sum(said)
    if not shares:
        return {}
    plural = "canaries" if name == "canary" else "given"
    return {
        plural: asked,
        f"{plural}_wrong": wrong,
        f"{name}_groups": len(shares),
        f"{name}_rate": sum(shares) / len(shares),
    }
