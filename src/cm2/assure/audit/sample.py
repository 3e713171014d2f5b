"""Sample: which outcomes people look at.

The logs are read twice, with flat memory: once to count the strata, once to take the outcomes that were drawn from
each, without replacement and by a seed that is the stratum's own. The same logs, verdicts and settings give the same
sample. Every case keeps n_h / N_h, the probability with which it was drawn, so that the sum of 1 / probability over
cases is, in each stratum exactly and over any other group on average, the number of outcomes that they stand for.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterator

import msgspec
import numpy as np

from cm2.assure.audit.case import ALL, SCORED, Case, Kind, Population, Stratum, Subject
from cm2.assure.audit.doubt import certainty, level
from cm2.assure.audit.strata import Cell, Plan, plan
from cm2.assure.outcomes import Judged, Outcome, read_judged
from cm2.dialogue import Dialogue
from cm2.errors import ConfigError, DataError, Where
from cm2.formats.rows import Row
from cm2.policy import Policy, load_policy
from cm2.verdict import Verdict


class SampleConfig(msgspec.Struct, kw_only=True):
    """What is drawn from what."""

    logs: str
    """The dialogues that were judged."""
    verdicts: str
    """The store of verdicts on them."""
    policy: str | None = None
    """The policy that they were judged by."""
    checklists: str | None = None
    """The labelled file that they were judged by, where it was another file's checklists."""
    count: int = 200
    """Cases. Intervals shrink with its square root: four times as many reviews halve them."""
    unscored: int = 0
    """Of these, outcomes that the judge could not decide: to learn why; they are in no error rate."""
    not_applicable: int = 0
    """Of these, outcomes for which the judge saw no occasion: to test the duties' `applies_when`."""
    double: float = 0.1
    """The share of cases that two people should review, which tells how far people agree."""
    seed: int = 0
    """Other seeds draw other cases."""
    format: str = "auto"
    """Of the files of dialogues."""

    def __post_init__(self) -> None:
        if self.policy is not None and self.checklists is not None:
            raise ConfigError("--policy and --checklists were both given", fix="name what the logs were judged by")
        aside = self.unscored + self.not_applicable
        if self.count < 4 or min(self.unscored, self.not_applicable) < 0 or aside > self.count - 4:
            raise ConfigError(
                f"{self.count} cases, {aside} of them without a yes or no", fix="leave at least 4 with one"
            )
        if not 0 <= self.double <= 1:
            raise ConfigError(f"double is {self.double}", fix="a share from 0 to 1")


class Sample(msgspec.Struct, kw_only=True):
    """What was drawn, with all that a review needs."""

    cases: list[Case]
    strata: list[Stratum]
    dialogues: dict[int, tuple[str, Dialogue]]
    """By number: rollout and dialogue."""
    populations: list[Population]
    subjects: list[Subject]
    policy: Policy | None
    judges: list[str]
    unreadable: int = 0
    config: SampleConfig


Track = Callable[[Iterator[Judged]], Iterator[Judged]]


def draw(config: SampleConfig, track: Track = lambda read: read) -> Sample:
    """Draw the sample.

    Args:
        config: see `SampleConfig`.
        track: wraps each of the two readings, for progress.

    Raises:
        DataError: a file does not read, or no verdict is about the dialogues.
        ConfigError: there are fewer reviews than a sample needs.
    """
    policy = load_policy(config.policy) if config.policy else None
    found, cells, unreadable = count(config, policy, track)
    aside: dict[Kind, int] = {"unscored": config.unscored, "not_applicable": config.not_applicable}
    severities = {name: population.severity for name, population in found.items()}
    without = sum(min(count, sum(cells[c] for c in cells if c.verdict == kind)) for kind, count in aside.items())
    planned = plan(dict(cells), severities, config.count - without, aside)
    sample = _take(config, policy, planned, track)
    sample.populations = [found[name] for name in sorted(found)]
    sample.unreadable = unreadable
    return sample


def count(
    config: SampleConfig, policy: Policy | None, track: Track = lambda read: read
) -> tuple[dict[str, Population], Counter[Cell], int]:
    """What the judge said of each duty and of all (`ALL`), how many outcomes each cell has, and rows that do not read.

    Raises:
        DataError: a file does not read, or no verdict is a yes or a no about the dialogues.
    """
    unreadable: list[int] = []
    cells: Counter[Cell] = Counter()
    found: dict[str, Population] = {}
    spread: dict[str, Counter[tuple[int, int]]] = {}
    for judged in track(_read(config, policy, lambda row: unreadable.append(row.line))):
        here: dict[str, list[int]] = {}
        for outcome in judged.outcomes:
            if outcome.verdict is not None:
                cells[_cell(outcome)] += 1
            for name in (outcome.duty, ALL):
                severity = (outcome.item.severity or "") if name else ""
                _count(found.setdefault(name, Population(name, severity)), outcome)
                if outcome.verdict is not None and outcome.result in SCORED:
                    tally = here.setdefault(name, [0, 0])
                    tally[0] += outcome.result == "pass"
                    tally[1] += 1
        for name, (passed, scored) in here.items():
            spread.setdefault(name, Counter())[passed, scored] += 1
    for name, counts in spread.items():
        found[name].spread = sorted((k, m, times) for (k, m), times in counts.items())
    if not any(cell.verdict in SCORED for cell in cells):
        _nothing(config, cells)
    return found, cells, len(unreadable)


def _read(config: SampleConfig, policy: Policy | None, on_error: Callable[[Row], None]) -> Iterator[Judged]:
    return read_judged(
        config.logs,
        config.verdicts,
        policy=policy,
        checklists=config.checklists,
        format=config.format,
        on_error=on_error,
    )


def _cell(outcome: Outcome) -> Cell:
    return Cell(outcome.duty, outcome.result, level(outcome))


def _count(population: Population, outcome: Outcome) -> None:
    if outcome.verdict is None:
        population.not_judged += 1
    elif outcome.result == "pass":
        population.passed.add(certainty(outcome))
    elif outcome.result == "fail":
        population.failed.add(certainty(outcome))
    elif outcome.result == "unscored":
        population.unscored += 1
    else:
        population.not_applicable += 1


def _nothing(config: SampleConfig, cells: Counter[Cell]) -> None:
    where = Where(file=config.verdicts)
    if cells:
        raise DataError("no verdict in it is a yes or a no", where=where, fix="look at why with cm2 report")
    fix = "pass the store that cm2 judge wrote on these logs, and the --policy or --checklists that it judged by"
    raise DataError(f"no verdict in it is about a duty of the dialogues in {config.logs}", where=where, fix=fix)


def _take(config: SampleConfig, policy: Policy | None, planned: Plan, track: Track) -> Sample:
    wanted = [_drawn(stratum, config.seed) for stratum in planned.strata]
    passed = [0] * len(planned.strata)
    cases: list[Case] = []
    dialogues: dict[int, tuple[str, Dialogue]] = {}
    subjects: dict[str, Subject] = {}
    judges: set[str] = set()
    if policy is not None:
        for duty in policy.duties:
            spec = msgspec.to_builtins(duty)
            subject = Subject(key=duty.id, name=duty.id, kind="duty", spec=spec, source=spec)
            subject.status = "retired" if duty.status == "retired" else "open"
            subjects[duty.id] = subject
    for number, judged in enumerate(track(_read(config, policy, lambda row: None))):
        for outcome in judged.outcomes:
            if outcome.verdict is None:
                continue
            judges.add(outcome.verdict.judge)
            at = planned.of.get(_cell(outcome))
            if at is None:
                continue
            if passed[at] in wanted[at]:
                dialogues[number] = (judged.rollout, judged.dialogue)
                cases.append(_case(outcome, planned.strata[at], number, policy))
                if cases[-1].subject not in subjects:
                    spec = msgspec.to_builtins(outcome.item)
                    subjects[cases[-1].subject] = Subject(
                        key=cases[-1].subject, name=outcome.duty, kind="item", spec=spec, source=spec
                    )
            passed[at] += 1
    if passed != [stratum.size for stratum in planned.strata]:
        raise DataError("changed while it was being read", where=Where(file=config.logs), fix="run the command again")
    rng = np.random.default_rng([config.seed % 2**32, 0xA0D1])
    order = rng.permutation(len(cases))
    doubled = set(rng.permutation(len(cases))[: round(config.double * len(cases))].tolist())
    queue = [
        msgspec.structs.replace(cases[at], id=place, wanted=2 if place in doubled else 1)
        for place, at in enumerate(order.tolist())
    ]
    return Sample(
        cases=queue,
        strata=planned.strata,
        dialogues=dialogues,
        populations=[],
        subjects=list(subjects.values()),
        policy=policy,
        judges=sorted(judges),
        config=config,
    )


def _drawn(stratum: Stratum, seed: int) -> set[int]:
    """Which outcomes of a stratum are taken, by their order in the logs."""
    rng = np.random.default_rng([seed % 2**32, zlib.crc32(stratum.name.encode())])
    return set(rng.choice(stratum.size, size=stratum.drawn, replace=False).tolist())


def _case(outcome: Outcome, stratum: Stratum, dialogue: int, policy: Policy | None) -> Case:
    verdict: Verdict | None = outcome.verdict
    place = [outcome.dialogue, outcome.turn, outcome.variant, outcome.item.id]
    return Case(
        id=-1,
        stratum=stratum.id,
        dialogue=dialogue,
        duty=outcome.duty,
        subject=outcome.item.id if policy is not None else msgspec.json.encode(place).decode(),
        turn=outcome.turn,
        variant=outcome.variant,
        item=outcome.item,
        kind=outcome.result,
        verdict=verdict,
        probability=stratum.drawn / stratum.size,
        certainty=certainty(outcome),
    )
