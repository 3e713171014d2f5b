"""Score: what one rollout earned under its task's checklists (method, eq. 2 to 4).

A score is a list of ledgers, one a checklist (turn and variant), and what follows from them: the reward of each turn,
the reward R of the rollout, whether everything was satisfied. Three rules keep an unscored item from ever being a zero:

- an unscored item leaves its turn's sum and its turn's weight: the weights are renormalised over the scored items;
- a checklist in which nothing is scored leaves the average over the turn's checklists;
- a turn in which nothing is scored leaves R: its numerator and the count of turns that R is divided by.

An item for which there was no occasion leaves in the same way, and what depends on it does not wait for it. A turn that
was never reached is no such case: nothing was done there, so every item of it is a no and it counts 0.

Checklists about the whole dialogue (`cm2.verdict.WHOLE`) diagnose; no reward is made of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cm2.checklist import Checklist
from cm2.credit.config import Reading
from cm2.credit.graded import carried
from cm2.credit.satisfaction import Bools, Floats, dependencies, earned, latch, scored, tally
from cm2.errors import DataError, Where
from cm2.verdict import WHOLE, Verdict


@dataclass(frozen=True, eq=False)
class Ledger:
    """One checklist's account of one turn of a rollout; items in the checklist's order."""

    ids: tuple[str, ...]
    weights: Floats
    depends: Bools
    satisfied: Bools
    """satisfied[s, c] for the states x_0 … x_S; one state where the turn was never reached."""
    scored: Bools
    met: Floats
    """met[s, c] for each step: what the judges said before anything latched; nan is unscored."""

    @cached_property
    def weight(self) -> float:
        """Σ_c w over the scored items; 0 where there is none."""
        return float(self.weights[self.scored].sum())

    @cached_property
    def step_rewards(self) -> Floats:
        """Σ_c w·r[s, c] / Σ_c w over the scored items c, for each step s; nan where nothing is scored."""
        if self.weight <= 0:
            return np.full(len(self.satisfied) - 1, np.nan)
        paid: Floats = earned(self.satisfied, self.depends) @ (self.weights * self.scored) / self.weight
        return paid

    @property
    def reward(self) -> float:
        """Eq. 6 for one checklist: R_t = Σ_s Σ_c w·r[s, c]; nan where nothing is scored."""
        return float(self.step_rewards.sum()) if self.weight > 0 else float("nan")

    @property
    def outcome(self) -> dict[str, bool | None]:
        """Whether each item is satisfied when the turn ends; None is unscored."""
        settled = zip(self.ids, self.satisfied[-1], self.scored, strict=True)
        return {id: bool(met) if known else None for id, met, known in settled}


@dataclass(frozen=True, eq=False)
class Score:
    """What a rollout earned. `steps[t]` is how many steps it took in turn t of the reference, 0 where it never came."""

    steps: tuple[int, ...]
    ledgers: Mapping[tuple[int, int], Ledger]
    """By (turn, variant), in that order."""
    carried: Floats | None = None
    """m[t]: what each turn counts behind a graded gate (`cm2.credit.graded`); None: every turn counts 1."""
    reading: Reading = "gated"
    discount: float = 1.0
    """With what it was scored; see `score`."""

    def of_turn(self, turn: int) -> list[Ledger]:
        """The ledgers of a turn: one a variant."""
        return [ledger for (t, _), ledger in self.ledgers.items() if t == turn]

    def worth(self, turn: int) -> float:
        """m[t]: what the turn counts."""
        return 1.0 if self.carried is None else float(self.carried[turn])

    @cached_property
    def turn_rewards(self) -> Floats:
        """R_t of each turn, averaged over its checklists; 0 where it has none, nan where nothing of it is scored.
        Behind a graded gate m[t]·R_t."""
        rewards = np.zeros(len(self.steps))
        for turn in {turn for turn, _ in self.ledgers}:
            known = [ledger.reward for ledger in self.of_turn(turn) if ledger.weight > 0]
            rewards[turn] = self.worth(turn) * np.mean(known) if known else np.nan
        return rewards

    @property
    def _turns(self) -> int:
        """L, less the turns in which nothing is scored."""
        return int((~np.isnan(self.turn_rewards)).sum())

    @property
    def reward(self) -> float | None:
        """Eq. 4: R = (1/L) Σ_t R_t ∈ [0, 1], L the number of turns of the reference; None where nothing is scored."""
        if not any(ledger.weight > 0 for ledger in self.ledgers.values()):
            return None
        return float(np.nansum(self.turn_rewards) / self._turns)

    @property
    def step_rewards(self) -> dict[tuple[int, int], float]:
        """What each (turn, step) added to R: they sum to R. The rewards of a critic-based algorithm."""
        added: dict[tuple[int, int], float] = {}
        for turn, count in enumerate(self.steps):
            known = [ledger.step_rewards for ledger in self.of_turn(turn) if ledger.weight > 0]
            shares = self.worth(turn) * np.mean(known, axis=0) / self._turns if known else np.zeros(count)
            added |= {(turn, step): float(share) for step, share in enumerate(shares)}
        return added

    @property
    def strict_pass(self) -> bool | None:
        """Whether every scored item of every turn of the reference is satisfied; None where nothing is scored."""
        known = [met for ledger in self.ledgers.values() for met in ledger.outcome.values() if met is not None]
        return all(known) if known else None

    def as_json(self) -> dict[str, Any]:
        """The score as JSON values, for the record of a rollout; with how it was scored, where not as by default."""
        how: dict[str, Any] = {} if self.reading == "gated" else {"reading": self.reading}
        how |= {"discount": self.discount} if self.discount < 1 else {}
        return how | {
            "reward": self.reward,
            "turns": [None if np.isnan(reward) else float(reward) for reward in self.turn_rewards],
            "strict_pass": self.strict_pass,
            "items": [
                {"turn": turn, "variant": variant, "outcome": ledger.outcome}
                for (turn, variant), ledger in self.ledgers.items()
            ],
        }


def score(
    checklists: Iterable[Checklist],
    verdicts: Iterable[Verdict],
    steps_per_turn: Sequence[int],
    reference_turns: int,
    reading: Reading = "gated",
    discount: float = 1.0,
) -> Score:
    """Score one rollout.

    Args:
        checklists: the reference's; several of one turn differ in `variant`.
        verdicts: of this rollout; several of one item and step are judgements that vote.
        steps_per_turn: how many steps the rollout took in each turn that it began.
        reference_turns: L, how many turns the reference has.
        reading: see `Credit.reading`.
        discount: what a turn counts for each earlier turn that left a strict item unsatisfied; see `Credit.discount`.

    Raises:
        DataError: checklists, verdicts and counts do not fit together (see `ledgers_of`, `tally`, `dependencies`).
    """
    if len(steps_per_turn) > reference_turns:
        raise DataError(
            f"the rollout has {len(steps_per_turn)} turns, its reference {reference_turns}",
            fix="pass the step counts of the rollout and the number of turns of its own reference",
        )
    checklists = list(checklists)
    steps = (*steps_per_turn, *[0] * (reference_turns - len(steps_per_turn)))
    by_place: dict[tuple[int, int], list[Verdict]] = {}
    for verdict in verdicts:
        by_place.setdefault((verdict.turn, verdict.variant), []).append(verdict)
    ledgers = {
        (checklist.turn, checklist.variant): ledger(
            checklist, by_place.get((checklist.turn, checklist.variant), ()), steps[checklist.turn], reading
        )
        for checklist in fitting(checklists, reference_turns)
    }
    worth = _carried(checklists, by_place, steps, discount) if discount < 1 else None
    return Score(steps, ledgers, worth, reading, discount)


def _carried(
    checklists: Sequence[Checklist],
    verdicts: Mapping[tuple[int, int], list[Verdict]],
    steps: Sequence[int],
    discount: float,
) -> Floats:
    """m[t], with the gate's own question: whether a strict item is unsatisfied when a turn that was taken ends."""
    missed = [False] * len(steps)
    for checklist in checklists:
        if 0 <= (turn := checklist.turn) < len(steps) and steps[turn]:
            mine = verdicts.get((turn, checklist.variant), ())
            missed[turn] = missed[turn] or bool(unmet_strict(checklist, mine, steps[turn]))
    return carried(missed, 1.0 - discount)


def fitting(checklists: Iterable[Checklist], reference_turns: int) -> list[Checklist]:
    """The checklists by turn and variant, those about the whole dialogue left out, once it is sure that they can be
    scored on a reference of so many turns.

    Raises:
        DataError: one is about a turn that the reference does not have, two are of one turn and variant, or the items
            of one do not fit together.
    """
    of_turns = (checklist for checklist in checklists if checklist.turn != WHOLE)
    ordered = sorted(of_turns, key=lambda checklist: (checklist.turn, checklist.variant))
    for before, checklist in zip([None, *ordered], ordered, strict=False):
        where = Where(turn=checklist.turn)
        if not 0 <= checklist.turn < reference_turns:
            message = f"a checklist is about turn {checklist.turn}, but the reference has {reference_turns} turns"
            raise DataError(message, where=where, fix="correct its turn; turns count from 0")
        if before is not None and (before.turn, before.variant) == (checklist.turn, checklist.variant):
            message = f"two checklists of the turn have variant {checklist.variant}"
            raise DataError(message, where=where, fix="number the variants of a turn 0, 1 …")
        dependencies(checklist)
    return ordered


def ledger(checklist: Checklist, verdicts: Iterable[Verdict], steps: int, reading: Reading = "gated") -> Ledger:
    """One checklist's account of the turn it is about, in which the rollout took so many steps (0: never reached)."""
    depends = dependencies(checklist)
    verdicts = list(verdicts)
    met = tally(checklist, verdicts, steps)
    applies = {v.item for v in verdicts if v.applies and (v.turn, v.variant) == (checklist.turn, checklist.variant)}
    absent = {verdict.item for verdict in verdicts if not verdict.applies} - applies
    if absent:
        depends = depends & np.array([item.id not in absent for item in checklist.items])
    return Ledger(
        ids=tuple(item.id for item in checklist.items),
        weights=np.array([item.weight for item in checklist.items], dtype=float),
        depends=depends,
        satisfied=latch(met, depends, reading),
        scored=scored(met, depends, reading),
        met=met,
    )


def satisfied(checklist: Checklist, verdicts: Iterable[Verdict], steps: int | None = None) -> dict[str, bool | None]:
    """Whether each item of a turn is satisfied in the end, read `gated`; None is unscored, which is no no.

    Args:
        checklist: of the turn.
        verdicts: of the rollout; those of other turns and variants are passed over.
        steps: how many steps the rollout took in the turn; None takes as many as the verdicts speak of, so that a turn
            without any verdict counts as never reached.
    """
    mine = [v for v in verdicts if v.turn == checklist.turn and v.variant == checklist.variant]
    if steps is None:
        steps = max((verdict.step for verdict in mine), default=-1) + 1
    return ledger(checklist, mine, steps).outcome


def unmet_strict(checklist: Checklist, verdicts: Iterable[Verdict], steps: int | None = None) -> list[str]:
    """Ids of the items without which the conversation may not go on, and which are not satisfied.

    The reading is `gated`, whatever the reward's is: a late but grounded answer lets the conversation go on. An
    unscored item is not held against the agent. Arguments as for `satisfied`.
    """
    strict = [item.id for item in checklist.items if item.required_for_next_turn]
    if not strict:
        return []
    outcome = satisfied(checklist, verdicts, steps)
    return [id for id in strict if outcome[id] is False]
