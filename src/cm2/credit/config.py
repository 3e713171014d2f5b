"""Credit: the settings that decide how verdicts become rewards and rewards become advantages."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from cm2.errors import ConfigError

Reading = Literal["gated", "strict"]
Level = Literal["trajectory", "turn", "step"]
Normalise = Literal["none", "std"]
TurnBaseline = Literal["group", "survivors"]
TurnCredit = Literal["own", "to_go"]


class Credit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One setting a choice that the method leaves open; the defaults are the ones that `docs/method.md` argues for."""

    reading: Reading = "gated"
    """When an item counts that was judged true before what it depends on: `gated` pays it at the first later step at
    which both hold, `strict` (eq. 2 to the letter) never pays it. Choose strict to reproduce the letter of the method:
    it forbids an agent to guess first and look up afterwards, at the price of losing late but grounded answers."""
    level: Level = "trajectory"
    """Where an advantage is told apart: one number a rollout, a turn or a step. Finer levels learn faster and collapse
    sooner; trajectory is slow and stable, and the only one besides turn with `turn_credit: to_go` that follows the
    gradient of the reward."""
    normalise: Normalise = "none"
    """F_norm: `none` divides by 1; `std` by the group's sample standard deviation, which makes groups of nearly equal
    rollouts count as much as groups that differ. Choose std when rewards of different tasks differ much in scale."""
    turn_baseline: TurnBaseline = "group"
    """What a turn's reward is compared with: the mean over the whole group, a turn never reached counting 0, or over
    the `survivors` that reached it. Survivors has less variance where few get far, and makes late turns count less."""
    turn_credit: TurnCredit = "own"
    """What a turn is credited with: its `own` reward, or everything from it on (`to_go`). Own does not charge an action
    that ends the rollout for the turns it cost; take to_go where strict items often end rollouts."""

    def __post_init__(self) -> None:
        choices = {
            "reading": Reading,
            "level": Level,
            "normalise": Normalise,
            "turn_baseline": TurnBaseline,
            "turn_credit": TurnCredit,
        }
        for name, choice in choices.items():
            value = getattr(self, name)
            if value not in get_args(choice):
                raise ConfigError(f"credit.{name} is {value!r}", fix=f"use one of {', '.join(get_args(choice))}")
