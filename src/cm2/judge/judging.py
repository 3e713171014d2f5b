"""Judging: the settings that decide who judges and how, the same from Python, YAML and the command line."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated, Any, Literal, get_args

import msgspec

from cm2.checklist import Item
from cm2.errors import ConfigError, Where
from cm2.textfile import read_yaml

Kind = Literal["checks", "llm", "hybrid", "vote", "classifier"]
Schedule = Literal["turn", "dialogue", "step", "item", "published"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
PUBLISHED_SAMPLING: dict[str, Any] = {"temperature": 0.6, "top_p": 0.8}
"""How the judge of the paper samples: settings of the judge's `RoleModel` that belong to the schedule `published`."""
Count = Annotated[int, msgspec.Meta(ge=1)]


class Judging(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, dict=True):
    """Who judges, and how. `make_judge` makes a judge of it."""

    kind: Kind = "checks"
    """checks: compiled checks only, free and exact; items without one are unscored. llm: a language model judges every
    item. hybrid: checks where an item has one, the model for the rest. vote: the majority of several judgements.
    classifier: a local model where it is sure, the language model elsewhere."""
    schedule: Schedule = "turn"
    """turn: one call asks of all open items of a turn after which step each first holds. dialogue: one call asks that
    of the items of all turns, and of those about the whole dialogue; for dialogues that are over, not for rollouts,
    which must know after each turn. step: one call a step, about the items that are still open. item: one call an item
    and step. published: the scheme of the paper, which is `item` with the item in front of the history, for comparison;
    see `PUBLISHED_SAMPLING`."""
    items: Literal["first", "last"] = "first"
    """dialogue: whether the items of the task stand before the record or behind it. first: the runs of one task begin
    alike, so a prefix cache has the items for every run but the first. last: questions of several checklists about one
    run begin alike; for logs that are judged again by another policy."""
    at_once: Count = 40
    """dialogue: items of one question. Lower it for models that lose count of long lists or whose answers are cut off
    (an entry is some 60 tokens); a dialogue with more items has several questions."""
    span: Count = 60_000
    """dialogue: characters of the turns that one question judges. Lower it for models that overlook things in long
    records; a longer dialogue has several questions, each about some turns, with everything before them in sight."""
    isolate: Literal["none", "subjective"] = "none"
    """subjective: an item that is a matter of taste has a call of its own, so that its neighbours do not colour it (the
    one effect of asking together that was ever measured). Costs a call for each of them."""
    subjective_kinds: tuple[str, ...] = ("subjective", "style", "tone", "quality", "empathy", "politeness")
    """Items of these kinds are subjective …"""
    subjective_words: str = (
        r"\b(polite\w*|friendl\w+|warm\w*|empath\w+|tone|natural\w*|helpful\w*|appropriate\w*|clear\w*|concise\w*|"
        r"professional\w*|thorough\w*|reasonabl\w+|well[- ]\w+|good|engaging)\b"
    )
    """… and those whose question matches this regular expression (case is ignored)."""
    votes: Count = 3
    """vote: how many judgements, where one model gives all of them (several models give one each). Odd numbers cannot
    tie. `cm2 judge calibrate` says how many reach a target error."""
    quorum: Count | None = None
    """vote: fewer judgements than this that were not lost leave an item unscored. None: more than half."""
    checks: bool = True
    """vote, classifier: whether items with a check are decided by it. Turn off to see what the model makes of them."""
    classifier: str | None = None
    """classifier: the file of the trained model."""
    audit: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    """classifier: share of the items it is sure of that the language model judges all the same, to see whether they
    still agree (`cm2.judge.cascade`)."""
    skip_absent: bool = True
    """Say no without a call where the part that an item looks at is absent (a reply item of a turn without reply).
    Items about what must not happen are asked all the same. `published` never skips so."""
    skip_ungrounded: bool = True
    """Say no without a call where what an item depends on is not satisfied before the step, so that the item could not
    pay (method, eq. 2). Turn off where credit is read `strict`: there an early yes decides."""
    system: bool = True
    """Whether the judge sees the agent's system prompt: policies stand there, and so may thousands of tokens."""
    cut: Annotated[int, msgspec.Meta(ge=200)] | None = None
    """Characters of a tool's answer that are shown; None shows all. For logs whose tools return pages."""

    def __post_init__(self) -> None:
        for name, known in (("kind", KINDS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                raise ConfigError(f"there is no {name} {getattr(self, name)!r}", fix=f"use {', '.join(known)}")
        if self.items not in ("first", "last"):
            raise ConfigError(f"items cannot stand {self.items!r}", fix="use first or last")
        if self.isolate not in ("none", "subjective"):
            raise ConfigError(f"there is nothing {self.isolate!r} to isolate", fix="use none or subjective")
        if self.quorum is not None and self.quorum > self.votes:
            fix = "lower quorum or raise votes"
            raise ConfigError(f"a quorum of {self.quorum} cannot be reached by {self.votes} votes", fix=fix)
        try:
            re.compile(self.subjective_words)
        except re.error as error:
            raise ConfigError(f"subjective_words is no regular expression: {error}") from error
        if self.kind == "classifier" and not self.classifier:
            raise ConfigError("the classifier has no model", fix="name its file with --classifier FILE")

    @property
    def asks(self) -> bool:
        """Whether a language model is asked."""
        return self.kind != "checks"

    @property
    def by_checks(self) -> bool:
        """Whether items with a check are decided by it."""
        return self.kind in ("checks", "hybrid") or (self.kind in ("vote", "classifier") and self.checks)

    def during(self) -> None:
        """Make sure that a judge of these settings can tell after each turn what became of it, as a rollout needs.

        Raises:
            ConfigError: it is one for dialogues that are over.
        """
        if self.asks and self.schedule == "dialogue":
            raise not_during()

    @cached_property
    def _taste(self) -> re.Pattern[str]:
        return re.compile(self.subjective_words, re.IGNORECASE)

    def alone(self, item: Item) -> bool:
        """Whether the item has calls of its own."""
        if self.isolate == "none":
            return False
        return item.kind in self.subjective_kinds or self._taste.search(item.question) is not None


def not_during() -> ConfigError:
    """That a schedule cannot judge what goes on."""
    return ConfigError(
        "the schedule `dialogue` judges dialogues that are over, and a rollout must know after each turn",
        fix="use the schedule `turn` (the default) here",
    )


def load_judging(path: str | None = None, **flags: Any) -> Judging:
    """Settings from an optional YAML file and from those flags that were given (are not None); flags win.

    Raises:
        ConfigError: the file is absent or no mapping; a setting is unknown or out of range.
    """
    values: dict[str, Any] = {}
    where = Where(file=path) if path is not None else None
    if path is not None:
        found = read_yaml(path, "pass settings as YAML", "check --judging")
        if not isinstance(found, dict):
            raise ConfigError("is not a mapping of settings", where=where, fix="write lines like `schedule: turn`")
        values = {str(name).replace("-", "_"): value for name, value in found.items()}
    values |= {name: value for name, value in flags.items() if value is not None}
    if unknown := sorted(set(values) - set(Judging.__struct_fields__)):
        known = ", ".join(Judging.__struct_fields__)
        raise ConfigError(f"unknown setting {', '.join(unknown)}", where=where, fix=f"known ones: {known}")
    try:
        return msgspec.convert(values, Judging)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, ConfigError):
            raise ConfigError(error.__cause__.message, where=where, fix=error.__cause__.fix) from error
        message, _, name = str(error).partition(" - at `$.")
        raise ConfigError(f"setting {name.rstrip('`')}: {message}", where=where, fix="correct it") from error
