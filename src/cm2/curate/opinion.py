"""Opinion: what came out of the passes for a row, and the count of it over a file.

Data only: the rules know these shapes without knowing of models.
"""

from __future__ import annotations

import msgspec

from cm2.errors import ConfigError

PASSES = "low:2,medium:2,high:2"
"""The published scheme."""
MOST_PASSES = 100


class Lost(msgspec.Struct, frozen=True):
    """Why there is no answer, and whose failure that is: `provider`, `data`, or the role of the model."""

    reason: str
    owner: str


class Pass(msgspec.Struct, frozen=True):
    """One question about a row: with which effort, and which draw of that effort (from 1)."""

    effort: str
    draw: int

    @property
    def name(self) -> str:
        """As records tell it: `high 2`."""
        return f"{self.effort} {self.draw}"


def parse_passes(text: str) -> list[Pass]:
    """The passes in their order, from `low:2,medium:2,high:2`; an effort without a number is one pass.

    Raises:
        ConfigError: it says something else, or nothing.
    """
    found: list[Pass] = []
    for part in text.split(","):
        effort, colon, number = (word.strip() for word in part.partition(":"))
        if not effort or (colon and (not number.isdecimal() or int(number) < 1)):
            raise ConfigError(f"{text!r} is no list of passes", fix=f"write EFFORT:COUNT by commas, as {PASSES}")
        if len(found) + int(number or 1) > MOST_PASSES:
            raise ConfigError(f"more than {MOST_PASSES} passes", fix=f"the published scheme is {PASSES}")
        first = sum(each.effort == effort for each in found) + 1
        found += [Pass(effort, first + n) for n in range(int(number or 1))]
    return found


class Opinion(msgspec.Struct):
    """What came out for a row. `keep` is None where an answer was lost; then `lost` says why."""

    keep: bool | None
    asked: int = 0
    """Passes that were asked, the lost one included."""
    reason: str = ""
    path: str = ""
    """Where in the row the fault is: messages[3]."""
    lost: Lost | None = None
    cost: float = 0.0
    cached: int = 0
    """Answers that came from the cache."""


class PassCount(msgspec.Struct):
    """What one pass said."""

    effort: str
    asked: int = 0
    yes: int = 0
    no: int = 0
    lost: int = 0


class JudgedSummary(msgspec.Struct):
    """What the model said about the rows that the rules kept: rows = kept + rejected + unscored."""

    prompt: str
    rows: int = 0
    kept: int = 0
    rejected: int = 0
    unscored: int = 0
    calls: int = 0
    """Questions asked, the lost ones and those that the cache answered included."""
    cached: int = 0
    early_exits: int = 0
    """Rows that a pass before the last said no to."""
    calls_saved: int = 0
    """What these exits left unasked."""
    cost: float = 0.0
    """US dollars."""
    passes: list[PassCount] = []
    owners: dict[str, int] = {}
    """Unscored rows by whose failure it was."""
    lost: str = ""
    """Why the first of them has no verdict."""

    def count(self, opinion: Opinion, line: int) -> None:
        """Count a row in."""
        self.rows += 1
        self.calls += opinion.asked
        self.cached += opinion.cached
        self.cost += opinion.cost
        for number in range(opinion.asked):
            count, last = self.passes[number], number == opinion.asked - 1
            count.asked += 1
            count.lost += last and opinion.keep is None
            count.no += last and opinion.keep is False
            count.yes += not last or opinion.keep is True
        if opinion.lost is not None:
            self.unscored += 1
            self.owners[opinion.lost.owner] = self.owners.get(opinion.lost.owner, 0) + 1
            self.lost = self.lost or f"line {line}: {opinion.lost.reason}"
        elif opinion.keep:
            self.kept += 1
        else:
            self.rejected += 1
            self.early_exits += opinion.asked < len(self.passes)
            self.calls_saved += len(self.passes) - opinion.asked
