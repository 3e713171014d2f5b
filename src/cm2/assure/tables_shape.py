"""The shape of a diagnosis, and the pass rates in it with their intervals (see `cm2.assure.tables`)."""

from __future__ import annotations

import math
from collections import Counter

import msgspec

from cm2.assure.failures import Modes
from cm2.checklist import Severity

LEVEL = 0.95


class Share(msgspec.Struct):
    """A pass rate with its 95 % interval."""

    passed: int
    n: int
    rate: float
    low: float
    high: float
    effective: float
    """How many independent outcomes say as much as these n."""


class Row(msgspec.Struct):
    """One duty over all dialogues."""

    duty: str
    question: str
    """As it was first met; items of references have one each."""
    severity: Severity | None
    owner: str
    scope: str
    """dialogue or turn."""
    passed: int = 0
    failed: int = 0
    not_applicable: int = 0
    unscored: int = 0
    dialogues: int = 0
    """Those in which it was scored at least once."""
    dialogues_failed: int = 0
    cost: float = 0.0
    unscored_because: dict[str, int] = {}
    rate: Share | None = None

    @property
    def applicable(self) -> int:
        """Outcomes for which there was an occasion."""
        return self.passed + self.failed + self.unscored

    @property
    def applies(self) -> float:
        """The share of outcomes for which there was an occasion."""
        total = self.applicable + self.not_applicable
        return self.applicable / total if total else 0.0


class Scores(msgspec.Struct):
    """The severity-weighted scores of the dialogues, each between 0 and 1."""

    n: int = 0
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    bins: list[int] = []
    """Dialogues by score: [0, 0.1), [0.1, 0.2) … [0.9, 1), and exactly 1."""


class Diagnosis(msgspec.Struct, kw_only=True):
    """What a file of verdicts says about the agent."""

    dialogues: int
    without_duties: int
    """Dialogues without checklist; they are in nothing else here."""
    without_verdicts: int
    """Dialogues with duties of which the store holds no verdict."""
    unreadable: int
    problems: list[str]
    passed: int
    failed: int
    not_applicable: int
    unscored: int
    overall: Share | None
    """The base rate: all outcomes together."""
    severities: dict[str, Share]
    """The base rate by severity, of duties that have one."""
    dialogues_passed: Share | None
    """Dialogues in which nothing failed, of those with a score."""
    dialogues_not_critical: Share | None
    """Dialogues in which no critical duty failed, of those in which one was scored."""
    scores: Scores
    duties: list[Row]
    modes: Modes
    judges: dict[str, int]
    """Deciding verdicts by judge."""
    unscored_because: dict[str, int]
    cost: float
    notes: list[str]


Pairs = Counter[tuple[int, int]]
"""How many dialogues passed k of m."""


def wilson(rate: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's interval of a share among n, which may be an effective number that is not whole."""
    from scipy.stats import norm

    z2 = float(norm.ppf((1 + level) / 2)) ** 2
    middle = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (rate * (1 - rate) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return max(0.0, middle - half) if rate > 0 else 0.0, min(1.0, middle + half) if rate < 1 else 1.0


def share(pairs: Pairs) -> Share | None:
    """The pass rate over dialogues that passed k of m each; None where nothing was scored."""
    import numpy as np

    from cm2.judge.agreement import effective_size

    n = sum(m * times for (_, m), times in pairs.items())
    if not n:
        return None
    passed = sum(k * times for (k, _), times in pairs.items())
    table = np.array([(k, m, count) for (k, m), count in sorted(pairs.items())])  # sorted: the same to the last digit
    counts, sizes = (np.repeat(table[:, at].astype(np.float64), table[:, 2]) for at in (0, 1))
    worth = effective_size(counts, sizes)
    low, high = wilson(passed / n, worth)
    return Share(passed, n, passed / n, low, high, worth)
