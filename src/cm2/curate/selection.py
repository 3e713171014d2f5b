"""Selection (the configuration): which splits to make of a file, and by what.

Splits are filled in their order, each from the rows that those before it left. A split with `source` is held out of
that other split instead: its rows leave it.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec.structs import replace

from cm2.curate.features import COMPLEXITY, NUMBERS
from cm2.errors import ConfigError

Count = Annotated[int, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]


def _known(name: str, setting: str) -> None:
    if name not in NUMBERS:
        raise ConfigError(f"{setting} names {name!r}", fix=f"the numbers of a row are {', '.join(NUMBERS)}")


class Split(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One part of the data, with a file of its own."""

    name: str
    """Its file is NAME.jsonl."""
    count: Count | None = None
    """Rows; None takes all that are left. Of a split that others are held out of, before they are."""
    by: Literal["weighted", "complex", "random"] = "random"
    """weighted: drawn, a row that is twice as complex twice as often. complex: the most complex. random: drawn."""
    least: dict[str, Count] = {}
    """What a row must at least have, by name of a number: {turns: 2, tools: 2} leaves single-turn and single-tool rows
    out."""
    source: str | None = None
    """The split that it is held out of."""
    unseen_tools: bool = False
    """Whether each of its rows calls a tool that no row of another split calls or even offers."""

    def __post_init__(self) -> None:
        if not self.name or not self.name.replace("-", "").replace("_", "").isalnum():
            raise ConfigError(f"{self.name!r} is no name of a split", fix="letters, digits, - and _ make a file's name")
        for name in self.least:
            _known(name, "least")


PUBLISHED = [
    Split(name="sft", count=8_000, by="weighted", least={"turns": 2, "tools": 2}),
    Split(name="rl", count=8_000, by="complex", least={"turns": 2, "tools": 2, "depth": 2}),
    Split(name="heldout", count=500, source="rl"),
]
"""The method's: 8k for the cold start, the 8k most complex multi-turn multi-step ones of the rest for reinforcement
learning, 500 of those held out."""


class SelectConfig(msgspec.Struct, forbid_unknown_fields=True):
    """What to select from, into which splits."""

    input: str
    """Dialogues: any row file. It is read twice."""
    output: str
    """A folder: one file a split, summary.json and splits.png."""
    splits: list[Split] = msgspec.field(default_factory=lambda: list(PUBLISHED))
    """In the order in which they are filled."""
    seed: int = 0
    """Of every draw. The same rows, in whatever order or file format, go to the same splits."""
    near: Share | None = 0.8
    """The Jaccard resemblance (of users' words and calls) from which two rows count as one; None only drops exact
    duplicates. Lower finds more, and finds dialogues of one template alike."""
    complexity: dict[str, float] = msgspec.field(default_factory=lambda: dict(COMPLEXITY))
    """Weights of the numbers that make up complexity."""
    unseen_share: Share = 0.25
    """A tool that more than this share of the rows offer or call is never held out: training would lose too much."""
    shrink: bool = False
    """Where there are too few rows, make all splits smaller in proportion; else the last ones come out short."""
    form: Literal["jsonl", "jsonl.gz", "jsonl.zst", "parquet"] = "jsonl"
    """How splits are written."""
    format: str = "auto"
    """The format of the rows, when it cannot be told from them."""
    plot: bool = True
    """Whether to draw splits.png."""

    def __post_init__(self) -> None:
        names = [split.name for split in self.splits]
        if not names:
            raise ConfigError("there is no split", fix="name at least one")
        if len(set(names)) < len(names):
            raise ConfigError("two splits have one name", fix="give each a name of its own")
        for index, split in enumerate(self.splits):
            if split.source is not None and split.source not in names[:index]:
                fix = f"splits before it: {', '.join(names[:index]) or 'none'}"
                raise ConfigError(f"{split.name} is held out of {split.source!r}, which is no split before it", fix=fix)
            parent = next((each for each in self.splits if each.name == split.source), None)
            if parent is not None and parent.source is not None:
                raise ConfigError(f"{split.name} is held out of {parent.name}, which is held out itself")
            if split.unseen_tools and split.count is None:
                raise ConfigError(f"{split.name} has unseen tools and no count", fix="say how many rows it is to have")
        for name in self.complexity:
            _known(name, "complexity")


def with_sizes(splits: list[Split], text: str) -> list[Split]:
    """The splits with other sizes, from `sft=800,rl=800`; `all` takes what is left.

    Raises:
        ConfigError: it says something else, or names a split twice or one that there is not.
    """
    sizes: dict[str, int | None] = {}
    for part in text.split(","):
        name, sign, number = (word.strip() for word in part.partition("="))
        if not sign or not (number.isdecimal() or number == "all"):
            raise ConfigError(
                f"{part.strip()!r} is no size of a split", fix="write NAME=ROWS by commas: sft=800,rl=800"
            )
        if name in sizes:
            raise ConfigError(f"two sizes are given for the split {name!r}", fix="give one")
        if name not in {split.name for split in splits}:
            raise ConfigError(f"there is no split {name!r}", fix=f"splits: {', '.join(split.name for split in splits)}")
        sizes[name] = None if number == "all" else int(number)
    return [replace(split, count=sizes.get(split.name, split.count)) for split in splits]


def with_unseen_tools(splits: list[Split]) -> list[Split]:
    """The splits with those that are held out asking for unseen tools.

    Raises:
        ConfigError: none is held out.
    """
    if all(split.source is None for split in splits):
        raise ConfigError("no split is held out of another", fix="give one of them `source:` in the recipe")
    return [split if split.source is None else replace(split, unseen_tools=True) for split in splits]
