"""Alarms: what a training run's own numbers say about whether it still goes well.

Every sign is a comparison of two stretches of the series, one point a batch of rollouts:

| sign | alarm when |
|---|---|
| reward | the reward fell from its best stretch, by at least `drop` of it |
| collapse | the reward fell at all, and the entropy at least by a third in the same updates, or it doubled |
| kl | the KL to the start leapt: the last LEAP updates are above `kl` and 5 times the stretch before, or above 2 |
| length | rollouts got longer or shorter by a fifth and the reward rose, while what it stands for did not |
| format | the share of calls that do not parse rose by at least MALFORMED |
| gaming | the reward rose while the true outcome (else the strict pass) fell |
| heldout | the held-out reward fell below its best, on the same tasks |

What the reward stands for is the true outcome where the task's world tells it, else the strict pass.

**Noise.** A mean over an update's tasks jumps by luck alone. So stretches are held against each other by Welch's
one-sided t-test, at looks `window` updates apart, over spans of 1, 2, 4 … windows; where two things must both have
happened both tests must say so. As in `cm2.judge.watch`, look k may spend rate/(k·(k + 1)) of the rate of false alarms,
divided by its comparisons: with nothing wrong a run of any length has a false alarm of each sign with a probability of
at most `rate`, given that updates draw their tasks independently. Leaps of the KL are no matter of chance; their
thresholds are far above what a run that learns shows.

An alarm says that somebody should look; it is no proof. Rewards whose meaning changes during the run (a curriculum of
rising strictness) fall by design: with them the signs that rest on a falling reward are left out (`moving`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import stats

Sign = Literal["reward", "collapse", "kl", "length", "format", "gaming", "heldout"]
Series = NDArray[np.float64]
LEAP = 3
MALFORMED = 0.1
LONGER, FELL, ROSE = 0.2, 1 / 3, 1.0
"""How much a length must change, an entropy fall or rise, as a share of what it was."""
HOPELESS_KL = 2.0
"""Nats a token at which no policy is near its start, however it came there."""


class Alarming(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When to sound an alarm about the run itself, and what then."""

    on_alarm: Literal["off", "note", "stop"] = "note"
    """note: say it and put it on record. stop: end the run after the update with a checkpoint, for a person to look."""
    window: Annotated[int, msgspec.Meta(ge=4)] = 10
    """Updates of a stretch. Longer ones see smaller changes and see them later."""
    rate: Annotated[float, msgspec.Meta(gt=0, lt=0.5)] = 0.05
    """The chance that a whole run with nothing wrong has a false alarm, for each sign."""
    drop: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.15
    """Share of its best stretch that the reward must lose, beyond noise."""
    kl: Annotated[float, msgspec.Meta(gt=0)] = 0.2
    """Nats a token below which the KL may leap as it likes. Raise it where beta is 0 or the run goes far on purpose."""


class Alarm(msgspec.Struct, frozen=True):
    """Something to look at."""

    sign: Sign
    step: int
    """The step after which it was seen."""
    reason: str
    p: float = 0.0
    """Of the comparison; 0 where the sign is no matter of chance."""


def alarms(metrics: Sequence[Mapping[str, Any]], config: Alarming = Alarming(), moving: bool = False) -> list[Alarm]:
    """The alarms of the last of these steps.

    Args:
        metrics: of every step so far, in order.
        config: when.
        moving: what a reward means changes during the run; signs that need it to fall are left out.
    """
    return _last(metrics, list(by_generation(metrics).values()), config, moving)


def history(metrics: Sequence[Mapping[str, Any]], config: Alarming = Alarming(), moving: bool = False) -> list[Alarm]:
    """Every alarm of a run, in order."""
    found: list[Alarm] = []
    rows: dict[Any, Mapping[str, Any]] = {}
    for n, row in enumerate(metrics):
        rows[_batch(row, n)] = row
        found += _last(metrics[max(0, n - 1) : n + 1], list(rows.values()), config, moving)
    return found


def by_generation(metrics: Sequence[Mapping[str, Any]]) -> dict[Any, Mapping[str, Any]]:
    """One row a batch of rollouts, by its number: the last step that used it."""
    return {_batch(row, n): row for n, row in enumerate(metrics)}


def series(rows: Sequence[Mapping[str, Any]], name: str) -> Series:
    """One number of every row; nan where it has none."""
    values = (row.get(name) for row in rows)
    return np.array([math.nan if not isinstance(one, int | float) else float(one) for one in values], dtype=float)


def _batch(row: Mapping[str, Any], number: int) -> Any:
    return row.get("generation", f"step {number}")


def _last(
    metrics: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], config: Alarming, moving: bool
) -> list[Alarm]:
    """The alarms of the last step: `metrics` end with it, `rows` with its batch."""
    if config.on_alarm == "off" or not metrics:
        return []
    step = int(metrics[-1].get("step") or len(metrics))
    found: list[Alarm | None] = [_heldout(metrics, step)]
    if len(metrics) > 1 and metrics[-1].get("generation") == metrics[-2].get("generation") is not None:
        return [alarm for alarm in found if alarm is not None]  # a further step on rollouts that were looked at
    found.append(_kl(rows, config, step))
    look, rest = divmod(len(rows), config.window)
    if not rest and look > 1:
        signs = (_length, _format, _gaming) if moving else (_reward, _collapse, _length, _format, _gaming)
        found += [sign(rows, config, step, look) for sign in signs]
    return [alarm for alarm in found if alarm is not None]


def _reward(rows: Sequence[Mapping[str, Any]], config: Alarming, step: int, look: int) -> Alarm | None:
    """Every earlier stretch may have been the best by luck: the level is divided by how many there are."""
    rewards = series(rows, "reward")
    best: tuple[float, str] = (1.0, "")
    tried = 0
    for span in _spans(config.window, look):
        now = rewards[-span:]
        for start in range(0, len(rewards) - 2 * span + 1, span):
            then = rewards[start : start + span]
            tried += 1
            high, low = _mean(then), _mean(now)
            if not low < (1 - config.drop) * high:
                continue
            when = f"in updates {start + 1} to {start + span}"
            told = f"the reward fell from {high:.3f} {when} to {low:.3f} in the last {span}"
            best = min(best, (_less(now, then), told))
    return _alarm("reward", step, best, config, look, tried)


def _collapse(rows: Sequence[Mapping[str, Any]], config: Alarming, step: int, look: int) -> Alarm | None:
    def compare(old: slice, new: slice, span: int) -> tuple[float, str]:
        rewards, entropies = series(rows, "reward"), series(rows, "entropy")
        before, after = _mean(entropies[old]), _mean(entropies[new])
        fallen, risen = after <= (1 - FELL) * before, after >= (1 + ROSE) * before
        if not (fallen or risen) or not before > 0:
            return 1.0, ""
        moved = _less(entropies[new], entropies[old]) if fallen else _less(entropies[old], entropies[new])
        how = "fell" if fallen else "rose"
        told = (
            f"over the last {span} updates the entropy {how} from {before:.3g} to {after:.3g} and the reward fell from "
            f"{_mean(rewards[old]):.3f} to {_mean(rewards[new]):.3f}"
        )
        return max(moved, _less(rewards[new], rewards[old])), told

    return _neighbours("collapse", rows, config, step, look, compare)


def _length(rows: Sequence[Mapping[str, Any]], config: Alarming, step: int, look: int) -> Alarm | None:
    lengths, rewards, (name, truth) = _lengths(rows), series(rows, "reward"), _truth(rows)

    def compare(old: slice, new: slice, span: int) -> tuple[float, str]:
        before, after = _mean(lengths[old]), _mean(lengths[new])
        change = after / before - 1 if before > 0 else math.nan
        if not abs(change) >= LONGER or not _mean(truth[new]) <= _mean(truth[old]):
            return 1.0, ""
        moved = _less(lengths[old], lengths[new]) if change > 0 else _less(lengths[new], lengths[old])
        told = (
            f"over the last {span} updates rollouts went from {before:.0f} to {after:.0f} tokens and the reward from "
            f"{_mean(rewards[old]):.3f} to {_mean(rewards[new]):.3f}, while the {name} did not rise"
        )
        return max(moved, _less(rewards[old], rewards[new])), told

    return _neighbours("length", rows, config, step, look, compare)


def _format(rows: Sequence[Mapping[str, Any]], config: Alarming, step: int, look: int) -> Alarm | None:
    shares = series(rows, "malformed")

    def compare(old: slice, new: slice, span: int) -> tuple[float, str]:
        before, after = _mean(shares[old]), _mean(shares[new])
        if not after >= before + MALFORMED:
            return 1.0, ""
        told = (
            f"over the last {span} updates the share of calls that do not parse rose from {before:.0%} to {after:.0%}"
        )
        return _less(shares[old], shares[new]), told

    return _neighbours("format", rows, config, step, look, compare)


def _gaming(rows: Sequence[Mapping[str, Any]], config: Alarming, step: int, look: int) -> Alarm | None:
    rewards, (name, truth) = series(rows, "reward"), _truth(rows)

    def compare(old: slice, new: slice, span: int) -> tuple[float, str]:
        told = (
            f"over the last {span} updates the reward rose from {_mean(rewards[old]):.3f} to {_mean(rewards[new]):.3f} "
            f"while the {name} fell from {_mean(truth[old]):.3f} to {_mean(truth[new]):.3f}"
        )
        return max(_less(rewards[old], rewards[new]), _less(truth[new], truth[old])), told

    return _neighbours("gaming", rows, config, step, look, compare)


def _kl(rows: Sequence[Mapping[str, Any]], config: Alarming, step: int) -> Alarm | None:
    """Sounds once, where it begins: a KL that stays high is no news."""
    values = series(rows[-config.window - LEAP - 1 :], "kl")

    def leapt(values: Series) -> bool:
        if len(values) < LEAP or math.isnan(now := _median(values[-LEAP:])):
            return False
        before = _median(values[-LEAP - config.window : -LEAP])
        return now > HOPELESS_KL or (now > config.kl and now > 5 * before)

    if not leapt(values) or leapt(values[:-1]):
        return None
    before, now = _median(values[-LEAP - config.window : -LEAP]), _median(values[-LEAP:])
    since = "" if math.isnan(before) else f", from {before:.3g} in the {config.window} updates before"
    return Alarm("kl", step, f"the KL to the start is {now:.3g} nats a token in the last {LEAP} updates{since}")


def _heldout(metrics: Sequence[Mapping[str, Any]], step: int) -> Alarm | None:
    """`cm2.train.best` compares, task by task, and puts it on record."""
    row = metrics[-1]
    fallen = row.get("heldout_fallen")
    if not isinstance(fallen, int | float):
        return None
    now = row.get("heldout_reward", math.nan)
    return Alarm("heldout", step, f"the held-out reward is {now:.3f}, {fallen:.3f} below its best, on the same tasks")


def _neighbours(sign: Sign, rows: Any, config: Alarming, step: int, look: int, compare: Any) -> Alarm | None:
    spans = _spans(config.window, look)
    found = [
        compare(slice(len(rows) - 2 * span, len(rows) - span), slice(len(rows) - span, len(rows)), span)
        for span in spans
    ]
    return _alarm(sign, step, min(found, default=(1.0, "")), config, look, len(spans))


def _alarm(sign: Sign, step: int, found: tuple[float, str], config: Alarming, look: int, tried: int) -> Alarm | None:
    p, reason = found
    level = config.rate / (look * (look + 1)) / max(1, tried)
    return Alarm(sign, step, reason, p) if reason and p < level else None


def _spans(window: int, look: int) -> list[int]:
    """Spans of 1, 2, 4 … windows that fit twice."""
    return [window << doubled for doubled in range(look.bit_length()) if 2 << doubled <= look]


def _truth(rows: Sequence[Mapping[str, Any]]) -> tuple[str, Series]:
    outcome = series(rows, "outcome")
    if np.isfinite(outcome).any():
        return "true outcome", outcome
    return "strict pass", series(rows, "strict_pass")


def _lengths(rows: Sequence[Mapping[str, Any]]) -> Series:
    lengths = series(rows, "length")
    if np.isfinite(lengths).any():
        return lengths
    with np.errstate(divide="ignore", invalid="ignore"):
        return series(rows, "tokens_generated") / series(rows, "rollouts")


def _less(smaller: Series, larger: Series) -> float:
    """One-sided p that the mean of the first is below that of the second; 1 where it cannot be told."""
    a, b = (one[np.isfinite(one)] for one in (smaller, larger))
    if len(a) < 3 or len(b) < 3:
        return 1.0
    if float(a.var()) == float(b.var()) == 0:
        return 0.0 if a.mean() < b.mean() else 1.0
    p = float(stats.ttest_ind(a, b, equal_var=False, alternative="less").pvalue)
    return 1.0 if math.isnan(p) else p


def _mean(values: Series) -> float:
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if len(kept) else math.nan


def _median(values: Series) -> float:
    kept = values[np.isfinite(values)]
    return float(np.median(kept)) if len(kept) else math.nan
