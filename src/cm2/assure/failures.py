"""Failures: outcomes that failed, put together into recurring modes.

A failure has a *place* (the duty, the tool, the class of step at which it shows) and a *cause* (the judge's reason with
its values masked, so that `argument seats is 4` and `argument seats is 6` are one). Failures of one place and one cause
are one mode. Checks word one cause in one way. A model words it anew each time, so of its wordings those of one place
that are nearly alike are put together too: by average-linkage clustering of their TF-IDF vectors (scikit-learn, the
extra `classifier`; without it wordings stay apart, which `Modes.grouping` says).

Memory is flat: of each place up to `WORDINGS` wordings are counted exactly; where there are more, a seeded sample of
`SAMPLED` of its failures stands for all of them, and the counts of its modes are estimates that say so.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from cm2.assure.failures_place import LONGEST, NOT_REACHED, Place, cause_of, place_of
from cm2.assure.outcomes import Judged, Outcome
from cm2.checklist import Severity
from cm2.policy.policy import WEIGHTS

PLACES = 500
"""Places that are kept apart; the failures of further ones are counted under the tool `OTHER`."""
WORDINGS = 200
SAMPLED = 300
EXAMPLES = 3
OTHER = "(other)"
ALIKE = 0.65
"""Wordings whose cosine distance is below this, on average, are one mode."""


class Example(msgspec.Struct, frozen=True):
    """One dialogue in which it happened."""

    dialogue: str
    rollout: str
    line: int
    turn: int
    number: int
    """Which dialogue of the file it is, from 0 up; lines of a folder of files repeat."""


class Mode(msgspec.Struct):
    """One way in which a duty fails, again and again."""

    number: int
    duty: str
    tool: str
    step: str
    cause: str
    """The reason with its values masked; the most frequent wording of them."""
    count: int
    share: float
    """Of all failures."""
    estimated: bool
    """Whether the count was estimated from a sample of the place's failures."""
    wordings: int
    severity: Severity | None
    owner: str
    question: str
    """What was asked, where the duty is a policy's; items of references ask each in their own words."""
    said: str
    """The reason of one of them, as the judge gave it."""
    examples: list[Example]

    @property
    def weight(self) -> float:
        """Its count times the weight of its severity: modes are listed by it."""
        return self.count * (WEIGHTS[self.severity] if self.severity else 1.0)

    @property
    def of_tool(self) -> str:
        """Its tool, as it is said after the class of step; "" where there is none."""
        return f" {'of' if self.step.startswith('tool') else 'about'} {self.tool}" if self.tool else ""

    @property
    def sentence(self) -> str:
        """The mode in one sentence."""
        times = "once" if self.count == 1 else f"{self.count:,} times"
        about = f"about {times}" if self.estimated else times
        where = f" at a {self.step}" if self.step != NOT_REACHED else ""
        return f"{self.duty} failed {about}{where}{self.of_tool}: {self.cause}"


class Modes(msgspec.Struct):
    """All modes of a file, and how they were found."""

    modes: list[Mode]
    failures: int
    grouping: str
    """What was done, for the reader."""


class _Wording(msgspec.Struct):
    count: int
    said: str
    examples: list[Example]


class _Group(msgspec.Struct):
    severity: Severity | None
    owner: str
    question: str
    total: int = 0
    wordings: dict[str, _Wording] = {}
    sample: list[tuple[str, str, Example]] = []
    full: bool = False


class Failures:
    """Takes in failures one by one and makes modes of them.

    Args:
        seed: of what is sampled.
    """

    def __init__(self, seed: int = 0) -> None:
        self.total = 0
        self._groups: dict[Place, _Group] = {}
        self._draw = random.Random(seed)
        self._modes: dict[tuple[Place, str], int] = {}

    def add(self, judged: Judged, outcome: Outcome, number: int) -> None:
        """Take in one outcome that failed; `number` is the dialogue's, from 0 up."""
        place, cause = self._placed(place_of(judged.dialogue, outcome)), cause_of(outcome.reason)
        item, dialogue = outcome.item, judged.dialogue.id
        group = self._groups.setdefault(
            place, _Group(item.severity, item.owner, item.question if item.severity else "")
        )
        self.total += 1
        group.total += 1
        example = Example(dialogue, outcome.rollout, judged.line, outcome.turn, number)
        wording = group.wordings.get(cause)
        if wording is None and len(group.wordings) < WORDINGS:
            wording = group.wordings[cause] = _Wording(0, outcome.reason[:LONGEST], [])
        if wording is None:
            group.full = True
        else:
            wording.count += 1
            known = {one.dialogue for one in wording.examples}
            if len(wording.examples) < EXAMPLES and dialogue not in known:
                wording.examples.append(example)
            elif dialogue not in known and (at := self._draw.randrange(wording.count)) < EXAMPLES:
                wording.examples[at] = example
        if place.fixed and not group.full:
            return  # checks use few wordings: a sample is begun only where they do not
        row = (cause, outcome.reason[:LONGEST], example)
        if len(group.sample) < SAMPLED:
            group.sample.append(row)
        elif (at := self._draw.randrange(group.total)) < SAMPLED:
            group.sample[at] = row

    def modes(self) -> Modes:
        """The modes of everything that was taken in, the weightiest first."""
        cluster = clusterer()
        found: list[tuple[Mode, Place, list[str]]] = []
        sampled = False
        for place, group in self._groups.items():
            sampled |= group.full
            wordings = _sampled(group) if group.full else group.wordings
            scale = group.total / sum(one.count for one in wordings.values())
            texts = sorted(wordings, key=lambda text: (-wordings[text].count, text))
            for members in [[text] for text in texts] if place.fixed or cluster is None else cluster(texts):
                found.append((self._mode(place, group, members, wordings, scale), place, members))
        found.sort(key=lambda one: (-one[0].weight, one[0].duty, one[0].tool, one[0].step, one[0].cause))
        for number, (mode, place, members) in enumerate(found):
            mode.number = number
            self._modes |= {(place, text): number for text in members}
        return Modes([mode for mode, _, _ in found], self.total, _grouping(cluster is not None, sampled))

    def mode_of(self, judged: Judged, outcome: Outcome) -> int | None:
        """The number of a failure's mode, once `modes` was called; None where its wording was not in the sample."""
        return self._modes.get((self._placed(place_of(judged.dialogue, outcome)), cause_of(outcome.reason)))

    def _placed(self, place: Place) -> Place:
        if place in self._groups or len(self._groups) < PLACES:
            return place
        return msgspec.structs.replace(place, tool=OTHER)

    def _mode(
        self, place: Place, group: _Group, members: list[str], wordings: dict[str, _Wording], scale: float
    ) -> Mode:
        count = sum(wordings[text].count for text in members)
        first = members[0]
        examples = list(dict.fromkeys(one for text in members for one in wordings[text].examples))[:EXAMPLES]
        count = round(count * scale) if group.full else count
        return Mode(
            0,
            place.duty,
            place.tool,
            place.step,
            first,
            count,
            count / self.total,
            group.full,
            len(members),
            group.severity,
            group.owner,
            group.question,
            wordings[first].said,
            sorted(examples, key=lambda one: one.number),
        )


def _sampled(group: _Group) -> dict[str, _Wording]:
    """The wordings of a place by its sample of failures."""
    found: dict[str, _Wording] = {}
    for cause, said, example in group.sample:
        wording = found.setdefault(cause, _Wording(0, said, []))
        wording.count += 1
        if len(wording.examples) < EXAMPLES:
            wording.examples.append(example)
    return found


def _grouping(clustered: bool, sampled: bool) -> str:
    told = "Failures are grouped by duty, tool, class of step and the judge's reason with its values masked"
    if clustered:
        told += "; a model's reasons that are worded nearly alike are put together by clustering"
    else:
        told += "; reasons in other words stay apart (pip install 'cm2[classifier]' puts them together)"
    if sampled:
        told += (
            f". Where a place has more than {WORDINGS} wordings, {SAMPLED} of its failures were sampled: counts with ≈"
        )
    return f"{told}."


def clusterer() -> Callable[[list[str]], list[list[str]]] | None:
    """Puts wordings that are nearly alike together, the first of each group first; None without scikit-learn."""
    try:
        from sklearn.cluster import AgglomerativeClustering
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        return None

    def cluster(texts: list[str]) -> list[list[str]]:
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[#…]")
        try:
            vectors = vectorizer.fit_transform(texts).toarray() if len(texts) > 1 else None
        except ValueError:  # wordings without a single word
            vectors = None
        if vectors is None:
            return [[text] for text in texts]
        vectors = vectors[:, vectors.any(axis=0)]
        empty = ~vectors.any(axis=1)
        alone = [[text] for text, none in zip(texts, empty, strict=True) if none]
        kept = [text for text, none in zip(texts, empty, strict=True) if not none]
        if len(kept) < 2:
            return [*([[text] for text in kept]), *alone]
        tree = AgglomerativeClustering(None, metric="cosine", linkage="average", distance_threshold=ALIKE)
        groups: dict[int, list[str]] = {}
        for text, label in zip(kept, tree.fit_predict(vectors[~empty]), strict=True):
            groups.setdefault(int(label), []).append(text)
        return [*groups.values(), *alone]

    return cluster
