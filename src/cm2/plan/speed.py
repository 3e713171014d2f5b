"""Speed: seconds of each part of an update, from the load, the device and the table of constants.

On a GPU, per device and with τ(B) the seconds of one decode step of B rollouts (the slower of reading weights and cache
and of computing, and the host's own time):

    generation   rounds · (mean tokens · τ(B) + tail · τ(1)), and the prefill of what is shown
    training     FLOP of forward, backward, recomputation, old and reference log-probabilities, over peak · MFU
    critic       of verl's PPO: values, forward, backward and recomputation of a second network without a vocabulary
    judge        prefilled tokens over peak · MFU, and its answers at the throughput of a full replica

On a CPU the measured constants `local_*` stand in, scaled by parameters.

Three ways to put the parts together: `lockstep`, one after the other; `overlapped`, where judge and simulator work on
some rollouts while others are generated (what the rollout driver does); `ahead`, where the next batch begins before the
update is done, so that only the busiest counts, at the price of rollouts that are one update old.
"""

from __future__ import annotations

import math

import msgspec

from cm2.errors import ConfigError
from cm2.plan.devices import Device
from cm2.plan.load import Calls, Load
from cm2.plan.memory import MOST_WEIGHTS, Memory
from cm2.plan.models import Dims
from cm2.plan.setup import Setup

Seconds = float
SMOL = 134_479_872
"""Parameters of SmolLM2-135M, which the `local_*` constants are measured with."""


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of the parts of one update."""

    generation: Seconds
    judge: Seconds
    simulator: Seconds
    reference: Seconds
    old: Seconds
    """Log-probabilities of the sampled tokens computed again: the sharded engine always does, the local one for
    importance weights and for PPO, whose values come out of the same pass. How stale they are costs no pass."""
    forward: Seconds
    backward: Seconds
    critic: Seconds
    """Of a critic that is a network of its own."""
    refit: Seconds
    """The new weights into the serving engine."""
    chain: Seconds
    """One rollout's own path when nobody is in its way: no overlap makes the rollouts shorter."""

    @property
    def training(self) -> Seconds:
        """All of the training phase."""
        return self.reference + self.old + self.forward + self.backward + self.critic + self.refit

    @property
    def lockstep(self) -> Seconds:
        """An update whose parts follow one another."""
        return self.generation + self.judge + self.simulator + self.training

    @property
    def overlapped(self) -> Seconds:
        """An update whose rollouts go each at its own pace."""
        return max(self.generation, self.judge, self.simulator, self.chain) + self.training

    @property
    def ahead(self) -> Seconds:
        """An update that waits for the busiest only."""
        return max(self.generation + self.training, self.judge, self.simulator)


def times(setup: Setup, load: Load, memory: Memory) -> Times:
    """The parts of one update."""
    judge, simulator = replicas(setup, load)
    generation = _local_generation(setup, load) if setup.device.cpu else _generation(setup, load, memory)
    forward, backward = training_flops(setup)
    forward, backward = forward * load.computed, backward * load.computed
    reference = forward if setup.recipe.beta else 0.0
    passes = setup.recipe.epochs
    if setup.device.cpu:
        rate, back = setup.constants["local_forward"] * 1e9, setup.constants["local_backward"] * 1e9
        rate, back = rate * setup.gpus, back * setup.gpus
        refit = 0.0
    else:
        dense = setup.constants["moe"] if setup.model.moe else 1.0
        peak = setup.device.flops * setup.gpus * dense
        rate, back = peak * setup.constants["mfu_forward"], peak * setup.constants["mfu_train"]
        refit = 2 * setup.model.parameters / setup.constants["refit"] if setup.engine == "sharded" else 0.0
    again = setup.engine == "sharded" or setup.recipe.importance != "none" or setup.recipe.algorithm == "ppo"
    values, learnt = critic_flops(setup)
    own = generation / max(memory.generation.rounds + _further_rounds(setup, memory), 1)
    calls = [(load.judge, judge), (load.simulator, simulator)]
    waits = sum(replica.alone * calls.calls / load.rolled for calls, replica in calls if replica)
    if load.judge.calls and judge and setup.recipe.judging.schedule in ("item", "published"):  # asked side by side
        points = setup.shape.turns * setup.shape.steps
        waits -= judge.alone * max(load.judge.calls / load.rolled - points, 0)
    return Times(
        generation=generation,
        judge=judge.busy(load.judge) if judge else 0.0,
        simulator=simulator.busy(load.simulator) if simulator else 0.0,
        reference=reference / rate,
        old=forward / rate if again else 0.0,
        forward=passes * forward / rate,
        backward=passes * backward / back,
        critic=load.computed * (values * (1 + passes) / rate + passes * learnt / back),
        refit=refit,
        chain=(own + waits) * (2 if setup.further else 1),  # further groups begin when the first are judged
    )


def training_flops(setup: Setup) -> tuple[float, float]:
    """FLOP of a token's forward and backward pass; recomputation belongs to the second."""
    model, recipe = setup.model, setup.recipe
    context = 0.0 if setup.device.cpu else setup.shape.total / 2
    forward = model.forward(context)
    if recipe.lora:
        backward = forward  # the frozen weights' inputs have gradients, the weights none
    elif recipe.layers:
        backward = 4.0 * recipe.layers * model.layer + 2.0 * model.head
    else:
        backward = 2 * forward
    return forward, backward + (forward if setup.engine == "sharded" else 0.0)


def critic_flops(setup: Setup) -> tuple[float, float]:
    """FLOP of a token's forward and backward pass of a critic that is a network; those of a head are nothing."""
    if setup.recipe.algorithm != "ppo" or setup.engine == "local":
        return 0.0, 0.0
    forward = setup.model.forward(setup.shape.total / 2, head=False)
    return forward, 3 * forward  # recomputed, as the policy is


def decode_step(model: Dims, device: Device, setup: Setup, batch: float, context: float, width: int = 1) -> Seconds:
    """τ(B): seconds of one decode step, on `width` devices, of `batch` sequences that see `context` tokens each."""
    experts = 1 - (1 - model.active / model.experts) ** batch if model.moe else 1.0  # those that some token of it needs
    mlp = 3 * model.layers * model.hidden * model.mlp * model.experts
    weights = 2.0 * (model.layers * model.attention + model.head + experts * mlp)
    read = (weights + batch * context * model.cache()) / (device.bandwidth * width * setup.constants["mbu"])
    dense = setup.constants["moe"] if model.moe else 1.0
    compute = batch * model.forward(context) / (device.flops * width * setup.constants["mfu_forward"] * dense)
    return max(read, compute) + setup.constants["engine_step"]


def _generation(setup: Setup, load: Load, memory: Memory) -> Seconds:
    shape, rounds = setup.shape, memory.generation.rounds
    full, alone = steps(setup, memory)
    tail = (setup.constants["longest"] - 1) * shape.generated
    rounds += _further_rounds(setup, memory)
    return rounds * (shape.generated * full + tail * alone) + prefill(setup, load)


def _further_rounds(setup: Setup, memory: Memory) -> int:
    """How often the room must be filled for the groups that replace silent ones, which begin after the others."""
    return math.ceil(setup.further * setup.recipe.group / setup.gpus / memory.generation.at_once)


def steps(setup: Setup, memory: Memory) -> tuple[Seconds, Seconds]:
    """τ(B) of the policy at a full batch and τ(1)."""
    shape, width = setup.shape, memory.generation.width
    context = (shape.prompt + shape.total) / 2
    batches = (memory.generation.at_once * width, 1)
    full, alone = (decode_step(setup.model, setup.device, setup, batch, context, width) for batch in batches)
    return full, alone


def prefill(setup: Setup, load: Load) -> Seconds:
    """Seconds of reading what the policy did not sample; a group's prompt is read once."""
    model, shape = setup.model, setup.shape
    fresh = load.shown - load.rolled * shape.prompt * (1 - 1 / setup.recipe.group)
    dense = setup.constants["moe"] if model.moe else 1.0
    rate = setup.device.flops * setup.gpus * setup.constants["mfu_forward"] * dense
    return fresh * model.forward((shape.prompt + shape.total) / 2) / rate


def _local_generation(setup: Setup, load: Load) -> Seconds:
    rate = setup.constants["local_decode"] * SMOL / setup.model.passed * setup.gpus
    return load.generated / rate


class Replicas(msgspec.Struct, frozen=True):
    """Servers of one model that share their calls."""

    count: float
    """How many; not a whole number where judge and simulator share them."""
    width: int
    """Devices of each."""
    slots: int
    """Calls at once on each."""
    work: Seconds
    """Of a whole replica, for a call among many."""
    alone: Seconds
    """Of a call that has a replica to itself."""
    parallel: int | None
    """Most calls at once on all."""

    @property
    def at_once(self) -> int:
        """Calls at once on all."""
        most = max(math.floor(self.count * self.slots), 1)
        return most if self.parallel is None else min(self.parallel, most)

    @property
    def rate(self) -> float:
        """Calls a second when there is no lack of them."""
        return min(self.count / self.work, self.at_once / self.alone)

    def busy(self, calls: Calls) -> Seconds:
        """Seconds until that many calls are answered."""
        return calls.calls / self.rate


def replicas(setup: Setup, load: Load) -> tuple[Replicas | None, Replicas | None]:
    """The judge's replicas and the simulator's; None where it is not asked or is not on devices of this plan. They are
    the same servers, as it is one model: each has the part of them with which both are done as early as can be.

    Raises:
        ConfigError: the devices cannot hold the model.
    """
    if not setup.judge_gpus or setup.device.cpu or not (load.judge.calls or load.simulator.calls):
        return None, None
    usable = setup.device.memory * setup.constants["serve_memory"]
    weights = 2 * setup.judge.parameters
    if weights > 0.9 * usable * setup.judge_gpus:
        least = math.ceil(weights / (0.9 * usable))
        fix = f"give --judge-gpus {least} or more, or 0 for an endpoint elsewhere"
        raise ConfigError(f"{setup.judge.name} does not fit on {setup.judge_gpus} x {setup.device.name}", fix=fix)
    width = 1
    while 2 * width <= setup.judge_gpus and weights > MOST_WEIGHTS * usable * width:
        width *= 2
    count = setup.judge_gpus // width

    def some(calls: Calls, number: float) -> Replicas:
        return _replicas(setup, calls, number, width, usable)

    if not load.simulator.calls:
        return some(load.judge, count), None
    if not load.judge.calls:
        return None, some(load.simulator, count)
    parts = [count * part / 40 for part in range(1, 40)]
    pairs = [(some(load.judge, count - part), some(load.simulator, part)) for part in parts]
    return min(pairs, key=lambda pair: max(pair[0].busy(load.judge), pair[1].busy(load.simulator)))


def _replicas(setup: Setup, calls: Calls, count: float, width: int, usable: float) -> Replicas:
    model, device = setup.judge, setup.device
    prompt, fresh, answer = (value / calls.calls for value in (calls.prompt, calls.prefilled, calls.answers))
    room = max(usable * width - 2 * model.parameters, 0)
    slots = int(min(max(room / (model.cache() * (prompt + answer)), 1), setup.constants["slots"]))
    dense = setup.constants["moe"] if model.moe else 1.0
    rate = device.flops * width * setup.constants["mfu_forward"] * dense
    prefill = fresh * model.forward(prompt / 2) / rate
    step, alone = (decode_step(model, device, setup, batch, prompt, width) for batch in (slots, 1))
    return Replicas(count, width, slots, prefill + answer * step / slots, prefill + answer * alone, setup.parallel)
