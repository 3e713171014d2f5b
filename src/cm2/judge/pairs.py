"""Pairs: a judge's verdicts beside labels, place by place, and the numbers that any set of places gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cm2.judge.agreement import Confusion, Ints, Rate, alpha, kappa, kappa_intervals, rate, share_of_clusters
from cm2.judge.calibrate_weights import weighted_rate
from cm2.judge.calibration import Group, Repeat
from cm2.judge.majority import Votes, votes
from cm2.judge.pairing import Place, Run, Truth, judged


class Pairs:
    """Verdicts beside labels as arrays: `said[run, place]` is 1, 0, −1 (unscored) or −2 (no verdict)."""

    def __init__(
        self, runs: list[Run], truth: Truth, places: list[Place], weights: Mapping[Place, float] | None = None
    ):
        self.places = places
        self.weight = np.array([(weights or {}).get(place, 1.0) for place in places], dtype=float)
        self.weighted = len(set(self.weight.tolist())) > 1
        self.truth = np.array([_code(truth.met(place)) for place in places], dtype=np.int64)
        self.said = np.full((len(runs), len(places)), -2, dtype=np.int64)
        for r, run in enumerate(runs):
            for p, place in enumerate(places):
                known, met = judged(run, truth, place)
                if known:
                    self.said[r, p] = _code(met)
        dialogues = {name: i for i, name in enumerate(dict.fromkeys(place.dialogue for place in places))}
        self.cluster = np.array([dialogues[place.dialogue] for place in places], dtype=np.int64)

    def group(self, at: Ints) -> Group:
        """The numbers of some of the places, votes left out."""
        said, truth = self.said[:, at], self.truth[at]
        clusters, cluster = np.unique(self.cluster[at], return_inverse=True)

        def tally(which: Any) -> Ints:
            return np.bincount(cluster, weights=which.sum(axis=0), minlength=len(clusters)).astype(np.int64)

        table = np.stack(
            [tally((said == s) & (truth == t)) for s, t in ((1, 1), (1, 0), (0, 1), (0, 0))], axis=1
        )  # tp, fp, fn, tn
        undecided = tally((said == -1) & (truth >= 0))
        tp, fp, fn, tn = table.T
        counts = Confusion(*(int(n) for n in table.sum(axis=0)))
        counts.judge_unscored = int(undecided.sum())
        counts.truth_unscored = int(((said > -2) & (truth == -1)).sum())
        if self.weighted:
            return self._weighed(at, counts, cluster)
        interval = kappa_intervals([table])[0]
        return Group(
            counts=counts,
            missing=int((said == -2).sum()),
            base_rate=counts.base_rate,
            agreement=rate(tp + tn, table.sum(axis=1)),
            kappa=counts.kappa,
            kappa_low=interval and interval[0],
            kappa_high=interval and interval[1],
            pabak=counts.pabak,
            judge_yes=counts.judge_yes,
            false_yes=rate(fp, fp + tn),
            false_no=rate(fn, fn + tp),
            unscored=rate(undecided, table.sum(axis=1) + undecided),
            repeat=_repeat(said, cluster),
        )

    def _weighed(self, at: Ints, counts: Confusion, cluster: Ints) -> Group:
        """`group` for labels of different weights."""
        said, truth, weight = self.said[:, at], self.truth[at], self.weight[at]
        cells = [(said == s) & (truth == t) for s, t in ((1, 1), (1, 0), (0, 1), (0, 0))]
        table = np.stack(
            [np.bincount(cluster, weights=(cell * weight).sum(axis=0)) for cell in cells], axis=1
        )  # tp, fp, fn, tn
        total = table.sum(axis=0)
        n = float(total.sum())
        tp, fp, fn, tn = cells
        agreement = weighted_rate(tp | tn, tp | fp | fn | tn, weight, cluster)
        found, interval = float(kappa(total)), kappa_intervals([table])[0]
        undecided = (said == -1) & (truth >= 0)
        return Group(
            counts=counts,
            missing=int((said == -2).sum()),
            base_rate=float(total[0] + total[2]) / n if n else None,
            agreement=agreement,
            kappa=None if np.isnan(found) else found,
            kappa_low=interval and interval[0],
            kappa_high=interval and interval[1],
            pabak=None if agreement is None else 2 * agreement.rate - 1,
            judge_yes=float(total[0] + total[1]) / n if n else None,
            false_yes=weighted_rate(fp, fp | tn, weight, cluster),
            false_no=weighted_rate(fn, fn | tp, weight, cluster),
            unscored=weighted_rate(undecided, tp | fp | fn | tn | undecided, weight, cluster),
            repeat=_repeat(said, cluster),
        )

    def votes(self, at: Ints, target: float, value: int, single: Rate | None) -> Votes | None:
        """What a vote does where the truth is `value`, given the error rate of a single judgement there."""
        at = at[self.truth[at] == value]
        said = self.said[:, at]
        wrong, runs = (said == 1 - value).sum(axis=0), (said >= 0).sum(axis=0)
        if single is None:
            return None
        if len(said) < 2:
            return votes(single, target)
        known = runs > 0
        alike = share_of_clusters(wrong[known] / runs[known], self.cluster[at][known])
        return votes(single, target, wrong, runs, alike)


def group_of(pairs: Pairs, single: Pairs, at: Ints, target: float) -> Group:
    """The numbers of some of the places: rates of the verdicts, repeatability and votes of single judgements."""
    found = pairs.group(at)
    one = found if single is pairs else single.group(at)
    found.repeat = one.repeat
    found.vote_yes = single.votes(at, target, 0, one.false_yes)
    found.vote_no = single.votes(at, target, 1, one.false_no)
    return found


def _code(met: bool | None) -> int:
    return -1 if met is None else int(met)


def _repeat(said: Ints, cluster: Ints) -> Repeat | None:
    yes, no = (said == 1).sum(axis=0), (said == 0).sum(axis=0)
    twice = yes + no >= 2
    if not twice.any():
        return None
    same = ((yes == 0) | (no == 0)) & twice
    clusters = int(cluster.max()) + 1
    alike, asked = (np.bincount(cluster, weights=each, minlength=clusters) for each in (same, twice))
    share = rate(alike, asked)
    assert share is not None
    return Repeat(int(twice.sum()), share, alpha(np.stack([yes, no], axis=1)))
