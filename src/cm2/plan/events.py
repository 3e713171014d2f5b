"""A discrete-event simulation of one update and the next: rollouts that take turns at the policy, the simulator and the
judge, and the training that waits for them.

Every rollout is a process (simpy):

    for each turn:  for each step:  sample an action at the policy → if it calls tools, perhaps ask the simulator
                                    → judge, if the schedule asks after every step
                    judge, if the schedule asks once a turn

A station is a number of slots with one queue; what is served takes a random time with the mean that the plan computed.
A serving engine is slower for each the more it serves: `alone` is the mean of one that has it to itself, `mean` that of
one among as many as there are slots, and between them it is a straight line in the number under way when one begins.

Modes: `lockstep` sends all rollouts through a stage before the next begins; `overlapped` lets each go its own way and
trains when all are home; `ahead` starts the next batch while the update of the last one is computed, on other devices
than the policy's, and lets it start only when the update before is done (rollouts one update old).

Seeded; the same arguments give the same numbers.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from typing import Any, Literal, get_args

import msgspec

from cm2.errors import ConfigError, MissingExtra
from cm2.plan.load import Load
from cm2.plan.memory import Memory
from cm2.plan.setup import Setup
from cm2.plan.speed import Replicas, Times, prefill, replicas, steps

Mode = Literal["lockstep", "overlapped", "ahead"]
Draw = Literal["exponential", "gamma", "fixed"]
Process = Generator[Any, Any, None]
MODES: tuple[Mode, ...] = get_args(Mode)


class Service(msgspec.Struct, frozen=True):
    """A station: how many it serves at once, and how long one takes."""

    name: str
    slots: int
    mean: float
    draw: Draw = "exponential"
    """gamma: with the deviation `spread` times the mean."""
    spread: float = 0.5
    alone: float | None = None
    """None: as `mean`, however many are served."""

    def mean_among(self, others: int) -> float:
        """The mean of one that begins while so many others are served."""
        if self.alone is None or self.slots < 2:
            return self.mean
        return self.alone + (self.mean - self.alone) * min(others / (self.slots - 1), 1)


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What is simulated."""

    rollouts: int
    turns: int
    steps: int
    policy: Service
    judge: Service | None = None
    judge_calls: int = 0
    """Side by side, each time the judge is asked."""
    judge_every: Literal["turn", "step"] = "turn"
    simulator: Service | None = None
    simulated: float = 0.0
    """Share of the calls that are not recorded answers."""
    training: float = 0.0
    updates: int = 2
    seed: int = 0
    scale: float = 1.0
    """The part of the true number of rollouts, and of every station's slots, that is simulated."""


class Seen(msgspec.Struct, frozen=True):
    """What became of a station."""

    name: str
    slots: int
    served: int
    utilisation: float
    wait: float
    """Mean seconds in its queue."""
    longest: int
    """The longest queue."""


class Outcome(msgspec.Struct, frozen=True):
    """What a simulation shows."""

    mode: Mode
    update: float
    """Seconds from one update to the next."""
    rollout: float
    """Seconds of the rollout phase of a batch."""
    last: float
    """Seconds of a rollout phase in which fewer than a tenth of its rollouts were still going: stragglers."""
    stations: tuple[Seen, ...]
    bottleneck: str


def need_simpy() -> Any:
    """The module simpy.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import simpy
    except ImportError as error:
        raise MissingExtra("the simulation", "plan") from error
    return simpy


class Station:
    """A queue with slots, and the books of what it did."""

    def __init__(self, env: Any, service: Service, seed: int):
        simpy = need_simpy()
        self.env, self.service = env, service
        self.resource = simpy.Resource(env, capacity=max(service.slots, 1))
        self.draws = random.Random(seed)
        self.served, self.busy, self.waited, self.longest = 0, 0.0, 0.0, 0

    def serve(self) -> Process:
        """Queue, be served, leave."""
        came = self.env.now
        with self.resource.request() as turn:
            self.longest = max(self.longest, len(self.resource.queue))
            yield turn
            self.waited += self.env.now - came
            mean = self.service.mean_among(self.resource.count - 1)
            time = self.draw(mean)
            yield self.env.timeout(time)
            self.busy += time
            self.served += 1

    def draw(self, mean: float) -> float:
        """A random service time of that mean."""
        if mean <= 0 or self.service.draw == "fixed":
            return mean
        if self.service.draw == "exponential":
            return self.draws.expovariate(1 / mean)
        shape = self.service.spread**-2
        return self.draws.gammavariate(shape, mean / shape)

    def seen(self, seconds: float) -> Seen:
        """The books, after that many seconds."""
        slots = max(self.service.slots, 1)
        used = self.busy / (slots * seconds) if seconds else 0.0
        return Seen(self.service.name, slots, self.served, used, self.waited / max(self.served, 1), self.longest)


def simulate(job: Job, mode: Mode) -> Outcome:
    """Run `job.updates` updates.

    Raises:
        MissingExtra: simpy is not installed.
        ConfigError: there is no such mode.
    """
    if mode not in MODES:
        raise ConfigError(f"there is no mode {mode!r}", fix=f"use {', '.join(MODES)}")
    simpy = need_simpy()
    env = simpy.Environment()
    services = [service for service in (job.policy, job.judge, job.simulator) if service is not None]
    stations = {service.name: Station(env, service, job.seed * 31 + at) for at, service in enumerate(services)}
    run = _Run(env, job, stations, mode)
    env.process(run.updates())
    env.run()
    seen = [station.seen(env.now) for station in stations.values()]
    trained = job.updates * job.training / env.now if env.now else 0.0
    seen.append(Seen("training", 1, job.updates, trained, 0.0, 0))
    busiest = max(seen, key=lambda one: one.utilisation)
    phases = job.updates or 1
    return Outcome(mode, env.now / phases, run.rolling / phases, run.straggling / phases, tuple(seen), busiest.name)


class _Run:
    """The processes of a simulation."""

    def __init__(self, env: Any, job: Job, stations: dict[str, Station], mode: Mode):
        self.env, self.job, self.mode = env, job, mode
        self.policy = stations[job.policy.name]
        self.judge = stations[job.judge.name] if job.judge else None
        self.simulator = stations[job.simulator.name] if job.simulator else None
        self.draws = random.Random(job.seed * 31 + 17)
        self.rolling = self.straggling = 0.0

    def updates(self) -> Process:
        """Batches and updates, one after the other or one ahead."""
        training = None
        for _ in range(self.job.updates):
            yield from self.batch()
            if training is not None:
                yield training  # rollouts are never more than one update old
            if self.mode == "ahead":
                training = self.env.timeout(self.job.training)
            else:
                yield self.env.timeout(self.job.training)
        if training is not None:
            yield training

    def batch(self) -> Process:
        """The rollouts of a batch."""
        began = self.env.now
        ended: list[float] = []
        if self.mode == "lockstep":
            yield from self.stages()
        else:
            everyone = [self.env.process(self.rollout(ended)) for _ in range(self.job.rollouts)]
            yield self.env.all_of(everyone)
            self.straggling += self.env.now - sorted(ended)[int(0.9 * (len(ended) - 1))]
        self.rolling += self.env.now - began

    def rollout(self, ended: list[float]) -> Process:
        """One dialogue, at its own pace."""
        for _ in range(self.job.turns):
            for step in range(self.job.steps):
                yield from self.policy.serve()
                if step + 1 < self.job.steps and self._simulates():
                    yield from self.simulator.serve()  # type: ignore[union-attr]
                if self.job.judge_every == "step":
                    yield from self.judged()
            if self.job.judge_every == "turn":
                yield from self.judged()
        ended.append(self.env.now)

    def judged(self) -> Process:
        """All questions of a moment, side by side."""
        if self.judge is not None:
            yield self.env.all_of([self.env.process(self.judge.serve()) for _ in range(self.job.judge_calls)])

    def stages(self) -> Process:
        """All rollouts through one stage after the other."""
        n = self.job.rollouts
        for _ in range(self.job.turns):
            for step in range(self.job.steps):
                yield self.env.all_of([self.env.process(self.policy.serve()) for _ in range(n)])
                if step + 1 < self.job.steps and self.simulator is not None:
                    some = sum(self._simulates() for _ in range(n))
                    yield self.env.all_of([self.env.process(self.simulator.serve()) for _ in range(some)])
                if self.job.judge_every == "step":
                    yield self.env.all_of([self.env.process(self.judged()) for _ in range(n)])
            if self.job.judge_every == "turn":
                yield self.env.all_of([self.env.process(self.judged()) for _ in range(n)])

    def _simulates(self) -> bool:
        return self.simulator is not None and self.draws.random() < self.job.simulated


MOST = 20_000
"""Calls of a batch that are simulated one by one; beyond it rollouts and slots are scaled down together."""


def job_of(setup: Setup, load: Load, memory: Memory, times: Times, seed: int = 0, updates: int = 2) -> Job:
    """What to simulate of a plan."""
    judge, simulator = replicas(setup, load)
    turns, acts = max(round(setup.shape.turns), 1), max(round(setup.shape.steps), 1)
    every: Literal["turn", "step"] = "turn" if setup.recipe.judging.schedule == "turn" else "step"
    moments = turns * (acts if every == "step" else 1)
    side = max(round(load.judge.calls / load.rolled / moments), 1) if judge else 0
    events = load.rolled * (turns * acts * 2 + moments * side)
    limits = [service.at_once for service in (judge, simulator) if service]
    smallest = min([memory.generation.at_once * setup.gpus, *limits])
    scale = min(1.0, max(MOST / events, 1 / smallest))
    rollouts = max(round(load.rolled * scale), 1)
    slots = min(memory.generation.at_once * setup.gpus, load.rolled)
    spread = setup.constants["spread"]
    action, alone = _action(setup, load, memory, times, turns * acts)
    return Job(
        rollouts=rollouts,
        turns=turns,
        steps=acts,
        policy=Service("policy", max(round(slots * scale), 1), action, "gamma", spread, alone),
        judge=_service("judge", judge, load.judge.calls, load.rolled * moments * side, scale, spread),
        judge_calls=side,
        judge_every=every,
        simulator=_service("simulator", simulator, load.simulator.calls, load.simulator.calls, scale, spread),
        simulated=min(load.simulator.calls / (load.rolled * turns * max(acts - 1, 1)), 1.0) if simulator else 0.0,
        training=times.training,
        updates=updates,
        seed=seed,
        scale=scale,
    )


def _action(setup: Setup, load: Load, memory: Memory, times: Times, number: int) -> tuple[float, float | None]:
    """Seconds of one action in a full batch and alone, its prefill included."""
    if setup.device.cpu:
        return times.generation / number / max(load.rolled / (memory.generation.at_once * setup.gpus), 1), None
    full, alone = steps(setup, memory)
    tokens = setup.shape.generated / number
    read = prefill(setup, load) * setup.gpus / load.rolled / number
    return tokens * full + read * memory.generation.at_once, tokens * alone + read


def _service(
    name: str, found: Replicas | None, calls: float, simulated: float, scale: float, spread: float
) -> Service | None:
    """The station of some replicas: with every slot at work it serves at their rate. Where more or fewer calls are
    simulated than the plan has (they are whole numbers), each is as much shorter or longer."""
    if found is None:
        return None
    slots, each = max(round(found.at_once * scale), 1), calls / simulated
    alone = min(found.alone, found.at_once / found.rate) * each
    return Service(name, slots, slots / (found.rate * scale) * each, "gamma", spread, alone)
