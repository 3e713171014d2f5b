"""Calibrating: what a judge's yes and no are worth, measured against people or a stronger judge.

For every kind of duty and every part of the transcript that duties are about: agreement, kappa with the base rate,
the rates of false yes and false no with intervals, what was left unscored, whether the judge says the same again, and
how many judgements a vote needs. Several stores of the same judge are its repeated runs, and so are the votes in one
store; rates pool them, and intervals know that verdicts about one dialogue resemble each other.

Labels that carry different weights, as those of `cm2 audit` do, are weighed in every share, kappa and error rate (see
`cm2.judge.calibrate_weights`); counts, repeatability, and doubts about single items are of the labels as they are.

The unit is an item in its turn, as it is paid for: whether it ever held. Where the labels are about steps, verdicts
step by step are compared too (`steps`), which is the noise before a yes latches.

The result is a `cm2.judge.calibration.Calibration`, saved as JSON that other commands read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import msgspec
import numpy as np

from cm2.errors import ConfigError, DataError, Where
from cm2.formats import read_tasks
from cm2.judge.agreement import Confusion, alpha
from cm2.judge.calibrate_weights import weights_of
from cm2.judge.calibration import DEFAULT_OUTPUT, NONE, Calibration, Doubt, Group, save
from cm2.judge.pairing import Place, Run, Truth, kinds_of, opinion, read_store, read_truth
from cm2.judge.pairs import Pairs, group_of


class CalibrateConfig(msgspec.Struct):
    """What is measured against what."""

    verdicts: list[str]
    """Stores of the judge's verdicts; several are repeated runs of the same judge over the same dialogues."""
    against: str
    """The truth: labels of people (JSONL), or the store of a stronger judge."""
    output: str = DEFAULT_OUTPUT
    """Where the calibration goes."""
    checklists: str | None = None
    """The labelled dialogues, for the kind, focus and wording of each item; without it only totals are told, unless the
    labels themselves say `kind` and `focus_on`."""
    format: str = "auto"
    """The format of `checklists`, when it cannot be told from the rows."""
    target: float = 0.05
    """The rate of false yes, and of false no, that a vote has to reach."""
    threshold: float = 0.6
    """Kappa below which a duty is called doubtful. 0.6 is where Landis and Koch begin to call agreement substantial."""
    least: int = 20
    """Labels of which both sides are scored that a group or an item must have before it is called doubtful."""

    def __post_init__(self) -> None:
        if not self.verdicts:
            raise ConfigError("there is no store of verdicts to calibrate", fix="name one or more")
        if not 0 < self.target < 0.5 or not -1 <= self.threshold <= 1 or self.least < 1:
            raise ConfigError(
                "target is a rate below one half, the threshold a kappa from -1 to 1, and least 1 or more"
            )


def calibrate_file(config: CalibrateConfig) -> Calibration:
    """Measure and save.

    Raises:
        DataError: a file does not read, or no verdict is about anything that the truth knows.
        ConfigError: the output is one of the inputs.
    """
    taken = {os.path.realpath(path) for path in (*config.verdicts, config.against, config.checklists or "")}
    if os.path.realpath(config.output) in taken:
        raise ConfigError("the output is one of the inputs", fix="give -o another name")
    truth = read_truth(config.against)
    stores = [read_store(path, truth) for path in config.verdicts]
    if not any(store.run for store in stores):
        fix = "compare dialogue, rollout, variant, turn and item of both files"
        raise DataError(
            "no verdict is about anything that is labelled there", where=Where(file=config.against), fix=fix
        )
    found = calibrate(
        [store.run for store in stores],
        truth,
        wording=_wording(config, truth),
        judges={place: name for store in stores for place, name in store.judges.items()},
        ballots=stores[0].ballots if len(stores) == 1 else [],
        target=config.target,
        threshold=config.threshold,
        least=config.least,
        weights=weights_of(config.against),
    )
    found.judge = sorted({name for store in stores for name in store.names})
    found.verdicts, found.against = config.verdicts, config.against
    save(found, config.output)
    return found


Wording = Callable[[Place], tuple[str, str, str]]


def calibrate(
    runs: list[Run],
    truth: Truth,
    *,
    wording: Wording = lambda place: ("", "", ""),
    judges: Mapping[Place, str] | None = None,
    ballots: list[Run] | None = None,
    target: float = 0.05,
    threshold: float = 0.6,
    least: int = 20,
    weights: Mapping[Place, float] | None = None,
) -> Calibration:
    """What runs of one judge are worth against the truth; see `CalibrateConfig` for the settings.

    Args:
        runs: the verdicts of each run.
        truth: the labels.
        wording: (kind, focus, question) of an item.
        judges: who judged it.
        ballots: the single judgements, where there is one run and it is a vote: what repeatability and votes are about.
        weights: of labels, where they are no plain sample; 1 for those that it leaves out.
    """
    places = list(truth.labels)
    pairs = Pairs(runs, truth, places, weights)
    single = Pairs(ballots, truth, places, weights) if ballots else pairs
    described = [wording(place) for place in places]
    names = [(judges or {}).get(place, "") for place in places]
    people = [by for steps in truth.labels.values() for by in steps.values()]
    found = Calibration(
        judge=[],
        verdicts=[],
        against="",
        runs=len(runs),
        votes=len(ballots or []),
        labels=len(places),
        target=target,
        threshold=threshold,
        total=group_of(pairs, single, np.arange(len(places)), target),
        people=alpha([[said.count(True), said.count(False)] for said in people]),
        least=least,
        weighted=pairs.weighted,
    )
    for field, by, whole in (
        ("kinds", [one[0] for one in described], {""}),
        ("focuses", [one[1] for one in described], {""}),
        ("judges", names, set(names[:1])),
    ):
        if set(by) != whole:
            at = {name: np.flatnonzero(np.array(by) == name) for name in sorted(set(by))}
            setattr(found, field, {name or NONE: group_of(pairs, single, where, target) for name, where in at.items()})
    found.steps = _by_step(runs, truth, weights)
    found.doubtful = [
        doubt
        for what, groups in (("kind", found.kinds), ("focus", found.focuses))
        for name, group in groups.items()
        if (doubt := _doubt(what, name, group, threshold, least)) is not None
    ] + _doubtful_items(pairs, described, threshold, least)
    return found


def _by_step(runs: list[Run], truth: Truth, weights: Mapping[Place, float] | None) -> Group | None:
    """Verdicts beside labels step by step, each step as a place of its own."""
    labels: dict[Place, dict[int | None, list[bool | None]]] = {}
    split: list[Run] = [{} for _ in runs]
    own_weights: dict[Place, float] = {}
    for place, steps in truth.labels.items():
        for step, said in steps.items():
            if step is not None:
                own = place._replace(item=f"{place.item}@{step}")
                labels[own] = {None: [opinion(said)]}
                own_weights[own] = (weights or {}).get(place, 1.0)
                for run, parts in zip(runs, split, strict=True):
                    if step in run.get(place, {}):
                        parts[own] = {step: run[place][step]}
    found = Pairs(split, Truth(labels), list(labels), own_weights)
    return found.group(np.arange(len(labels))) if labels else None


def _doubt(what: str, name: str, group: Group, threshold: float, least: int) -> Doubt | None:
    if group.counts.n < least or group.kappa is None or group.kappa >= threshold:
        return None
    assert group.pabak is not None and group.base_rate is not None
    if group.base_rate in (0, 1) and group.pabak >= threshold:
        return None  # of a truth that never differs kappa is 0 at best, however well the judge agrees
    sure = group.kappa_high is not None and group.kappa_high < threshold
    return Doubt(what, name, group.kappa, group.pabak, group.base_rate, group.counts.n, sure)


def _doubtful_items(pairs: Pairs, described: list[tuple[str, str, str]], threshold: float, least: int) -> list[Doubt]:
    """Items of which enough labels exist by themselves (several rollouts of their task)."""
    by_item: dict[tuple[str, int, int, str], list[int]] = {}
    for p, place in enumerate(pairs.places):
        by_item.setdefault((place.dialogue, place.variant, place.turn, place.item), []).append(p)
    found = []
    for (dialogue, variant, turn, item), at in by_item.items():
        said, truth = pairs.said[:, at], pairs.truth[at]
        tp, fp, fn, tn = (int(((said == s) & (truth == t)).sum()) for s, t in ((1, 1), (1, 0), (0, 1), (0, 0)))
        name = f"{dialogue} turn {turn} {item}" + (f" variant {variant}" if variant else "")
        counts = Confusion(tp, fp, fn, tn)
        group = Group(counts, kappa=counts.kappa, pabak=counts.pabak, base_rate=counts.base_rate)
        doubt = _doubt("item", name, group, threshold, least)
        if doubt is not None:
            doubt.question = described[at[0]][2]
            found.append(doubt)
    return sorted(found, key=lambda doubt: doubt.kappa)


def _wording(config: CalibrateConfig, truth: Truth) -> Wording:
    known: dict[tuple[str, int, int, str], tuple[str, str, str]] = {}
    if config.checklists is not None:
        wanted = {place.dialogue for place in truth.labels}
        for _, task in read_tasks(config.checklists, config.format, on_error=lambda row: None):
            if task.dialogue.id in wanted:
                known |= kinds_of(task.dialogue.id, task.checklists)

    def wording(place: Place) -> tuple[str, str, str]:
        kind, focus = truth.kinds.get(place, ("", ""))
        own = known.get((place.dialogue, place.variant, place.turn, place.item), ("", "", ""))
        return kind or own[0], focus or own[1], own[2]

    return wording
