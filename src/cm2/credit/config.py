"""Credit: the settings that decide how verdicts become rewards and rewards become advantages."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from cm2.errors import ConfigError

Reading = Literal["gated", "strict"]
Level = Literal["trajectory", "turn", "step", "blend"]
Normalise = Literal["none", "std"]
TurnBaseline = Literal["group", "survivors"]
TurnCredit = Literal["own", "to_go"]
Gate = Literal["ends", "graded", "chance"]


class Credit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One setting a choice that the method leaves open; the defaults are the ones that `docs/method.md` argues for."""

    reading: Reading = "gated"
    """When an item counts that was judged true before what it depends on: `gated` pays it at the first later step at
    which both hold, `strict` (eq. 2 to the letter) never pays it. Choose strict to reproduce the letter of the method:
    it forbids an agent to guess first and look up afterwards, at the price of losing late but grounded answers."""
    level: Level = "trajectory"
    """Where an advantage is told apart: one number a rollout, a turn or a step, or a `blend` (`cm2.credit.blend`): one
    a step, by what the group shows about situations like it. Turn (own) and step are myopic and drift under a noisy
    judge; trajectory, turn with `turn_credit: to_go` and blend follow the gradient of the reward, and blend predicts
    the most of it away."""
    normalise: Normalise = "none"
    """F_norm: `none` divides by 1; `std` by the group's sample standard deviation, which makes groups of nearly equal
    rollouts count as much as groups that differ. Choose std when rewards of different tasks differ much in scale."""
    turn_baseline: TurnBaseline = "group"
    """What a turn's reward is compared with: the mean over the whole group, a turn never reached counting 0, or over
    the `survivors` that reached it. Survivors has less variance where few get far, and makes late turns count less."""
    turn_credit: TurnCredit = "own"
    """What a turn is credited with: its `own` reward, or everything from it on (`to_go`). Own does not charge an action
    that ends the rollout for the turns it cost; take to_go where strict items often end rollouts."""
    backfill: bool = True
    """Step level: credit every step that led to an item's satisfaction while it was open (eq. 3), not only the step at
    which it became satisfied (eq. 2). Without it a look-up that made the answer possible is charged for the answer's
    item; turn it off to measure that, or where each item is one step's doing."""
    judge_flip: float = 0.0
    """How often a verdict on an item after a step is the opposite of the truth (`cm2.credit.flips.flip_of` turns a
    judge's repeatability into it). Above 0 a turn is paid by its last state, corrected for the rate, in place of by
    latched verdicts, whose errors pay an agent for dawdling. 0 for checks and for judges that repeat themselves. Not
    for the step level, which is made of latched verdicts."""
    gate: Gate = "ends"
    """What an unsatisfied strict item does at a final reply. `ends` (the method): the rollout is over. `graded`: it
    goes on, and what follows counts 1 − strictness. `chance`: it is over with probability `strictness`, the same draw
    for the whole group. Choose graded where the all-or-nothing gate leaves late turns without practice, or punishes
    nearly correct work like none; the reward is then no longer the method's, unless the strictness rises to 1."""
    strictness: float = 0.5
    """Of a gate that does not end: 1 is the method's reward, 0 leaves the gate open. See `cm2.credit.graded`."""

    def __post_init__(self) -> None:
        choices = {
            "reading": Reading,
            "level": Level,
            "normalise": Normalise,
            "turn_baseline": TurnBaseline,
            "turn_credit": TurnCredit,
            "gate": Gate,
        }
        for name, choice in choices.items():
            value = getattr(self, name)
            if value not in get_args(choice):
                raise ConfigError(f"credit.{name} is {value!r}", fix=f"use one of {', '.join(get_args(choice))}")
        if not 0 <= self.judge_flip < 0.5:
            fix = "use a rate from 0 to below 0.5; a judge that errs half of the time says nothing"
            raise ConfigError(f"credit.judge_flip is {self.judge_flip}", fix=fix)
        if self.judge_flip > 0 and (self.level == "step" or self.reading == "strict"):
            fix = "use level trajectory, turn or blend and reading gated, or judge_flip 0"
            raise ConfigError("credit.judge_flip corrects the last state of a turn, read gated", fix=fix)
        if not 0 <= self.strictness <= 1:
            raise ConfigError(f"credit.strictness is {self.strictness}", fix="use a number from 0 to 1")

    @property
    def discount(self) -> float:
        """What a turn counts for each earlier turn that left a strict item unsatisfied."""
        return 1.0 - self.strictness if self.gate == "graded" else 1.0
