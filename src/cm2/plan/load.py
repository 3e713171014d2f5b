"""Load: the tokens of a batch of rollouts, and what it asks of the judge and the simulator.

A turn of M steps and q items that a model judges is asked about in

    published  M·q calls, each over the record so far, the item in front: a prefix cache has the rules only, and the
               record from the same item's question of the step before
    item       M·q calls, the item last: the record is read once
    step       M calls, all items in each
    turn       one call, all items in it

(`cm2.judge.schedule`). In those that ask after every step only what is still open is asked: the constant `open`.
Prefilled are tokens that a perfect prefix cache does not have; a group shares its prompt. With `resample` further
groups are rolled out and judged (`Setup.further`); as many as before are trained.
"""

from __future__ import annotations

import math

import msgspec

from cm2.plan.constants import Constants
from cm2.plan.memory import computed
from cm2.plan.setup import Setup
from cm2.plan.shape import Shape


class Calls(msgspec.Struct, frozen=True, kw_only=True):
    """Calls to a model and their tokens."""

    calls: float = 0.0
    prompt: float = 0.0
    prefilled: float = 0.0
    answers: float = 0.0

    def times(self, factor: float) -> Calls:
        """That many times as much."""
        return Calls(**{name: getattr(self, name) * factor for name in self.__struct_fields__})


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What one batch of rollouts is made of."""

    rollouts: int
    """Those that are trained."""
    rolled: float
    """Those that are rolled out and judged."""
    generated: float
    shown: float
    computed: float
    """Tokens of one forward pass of training over the batch."""
    judge: Calls
    simulator: Calls


def load(setup: Setup) -> Load:
    """The load of one batch."""
    n = setup.rolled
    return Load(
        rollouts=setup.rollouts,
        rolled=n,
        generated=n * setup.shape.generated,
        shown=n * setup.shape.shown,
        computed=setup.rollouts * computed(setup),
        judge=judge_calls(setup.shape, setup.recipe.judging.schedule, asked(setup), setup.recipe.group, setup.constants)
        .times(votes(setup))
        .times(n),
        simulator=simulator_calls(setup).times(n),
    )


def asked(setup: Setup) -> float:
    """Items of a turn that a model is asked about."""
    judging, constants = setup.recipe.judging, setup.constants
    share = {
        "checks": 0.0,
        "llm": 1.0,
        "hybrid": constants["unchecked"],
        "vote": constants["unchecked"] if judging.checks else 1.0,
        "classifier": constants["unsure"] * (constants["unchecked"] if judging.checks else 1.0),
    }[judging.kind]
    return setup.shape.items * share


def votes(setup: Setup) -> int:
    """How often each item is asked about."""
    return setup.recipe.judging.votes if setup.recipe.judging.kind == "vote" else 1


def judge_calls(
    shape: Shape, schedule: str, items: float, group: int, constants: Constants, every: bool = False
) -> Calls:
    """The calls of one rollout.

    Args:
        shape: the rollout.
        schedule: see the module.
        items: those of a turn that are asked about.
        group: rollouts that share their prompt.
        constants: lengths of rules, items and answers.
        every: ask about every item after every step, satisfied or not, as the paper's text has it.
    """
    if items <= 0:
        return Calls()
    rules, item, answer = constants["judge_rules"], constants["judge_item"], constants["judge_answer"]
    turns, steps = shape.turns, shape.steps
    ends = [shape.after(turn, steps) for turn in _points(turns)]
    record = shape.prompt / group + shape.total - shape.prompt
    if schedule == "turn":
        calls = turns * min(1.0, items)
        prompt = calls * (rules + max(items, 1) * item + _mean(ends))
        return Calls(
            calls=calls, prompt=prompt, prefilled=record + turns * items * item, answers=turns * items * answer
        )
    left = items if every else items * constants["open"]
    middle = _mean([shape.after(turn, step + 1) for turn in _points(turns) for step in _points(steps)])
    if schedule == "step":
        calls = turns * steps * min(1.0, left)
        prompt = calls * (rules + max(left, 1) * item + middle)
        pairs = turns * steps * left
        return Calls(calls=calls, prompt=prompt, prefilled=record + pairs * item, answers=pairs * answer)
    calls = turns * steps * left
    prompt = calls * (rules + item + middle)
    prefilled = record + calls * item if schedule == "item" else turns * left * (item + _mean(ends))
    return Calls(calls=calls, prompt=prompt, prefilled=prefilled, answers=calls * answer)


def simulator_calls(setup: Setup) -> Calls:
    """The calls of one rollout; recorded answers and executable worlds cost none."""
    if setup.recipe.simulator.kind != "llm":
        return Calls()
    calls = setup.shape.calls * setup.constants["simulated"]
    prompt = calls * setup.constants["simulator_prompt"]
    return Calls(calls=calls, prompt=prompt, prefilled=prompt, answers=calls * setup.shape.response)


def _points(count: float) -> list[float]:
    """0, 1 … for a count that may be a mean: the last one is where the fraction begins."""
    whole = max(math.floor(count), 1)
    return [index * count / whole for index in range(whole)]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
