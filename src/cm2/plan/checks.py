"""Checks: what the plan says of runs that somebody did, beside what they took.

Nothing here was used to choose a constant but the demo's own run, whose row is in sample, and the throughputs of the
two rows of NeMo RL, whose ratio is `moe`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cm2.plan.plan import Plan, make_plan
from cm2.plan.shape import Shape
from cm2.train.rl_config import RlConfig

NEMO = "NeMo RL 0.4 performance summary, DGX-H100, GRPO on policy"
PAPER = "arXiv 2602.12268: 64 GPUs, 680 h, about 1,000 updates at group 48"
LOCAL = "the project's own runs on 2 cores, seconds of a mean update"
PAPER_STEPS = 1000
PAPER_HOURS = 680.0


class Check(msgspec.Struct, frozen=True):
    """One prediction and its truth."""

    what: str
    predicted: float
    measured: float
    unit: str
    source: str

    @property
    def factor(self) -> float:
        """Predicted over measured."""
        return self.predicted / self.measured


def local(name: str, generated: float, shown: float, measured: tuple[float, float, float, float]) -> list[Check]:
    """The parts of a mean update of 64 rollouts on a CPU: rollout, forward, backward, whole; from tokens only."""
    shape = Shape(turns=1, steps=1, action=generated / 64, prompt=shown / 64, user=0, response=0)
    plan = make_plan(_recipe(group=8, prompts=8, layers=12, beta=0.0), gpu="cpu", shape=shape)
    said = (plan.times.generation, plan.times.forward, plan.times.backward, plan.times.lockstep)
    parts = ("rollouts", "forward", "backward", "whole")
    return [Check(f"{name}: {what}", s, m, "s", LOCAL) for what, s, m in zip(parts, said, measured, strict=True)]


def nemo(model: str, gpus: int, length: float, longest: float) -> Plan:
    """An update of 2,048 rollouts of that mean length on math questions of some hundred tokens, without a judge."""
    shape = Shape(turns=1, steps=1, action=length - 100, prompt=100, user=0, response=0)
    recipe = _recipe(prompts=64, group=32, max_tokens=4096, max_step_tokens=4096)
    return make_plan(
        recipe, gpus=gpus, model=model, engine="sharded", shape=shape, constants={"longest": longest / length}
    )


def paper(every: bool, judge_gpus: int = 8, parallel: int | None = None, shape: Shape | None = None) -> Plan:
    """The paper's run: 64 prompts of 48 rollouts, judge and simulator asked as published, on 64 devices in all.

    Args:
        every: ask about every item after every step; else only of what is not satisfied.
        judge_gpus: how many of the 64 judge and simulate, which is not published.
        parallel: most calls at once ("up to 20", of what is not published).
        shape: the mean dialogue, which is not published.
    """
    recipe = _recipe(
        prompts=64,
        group=48,
        mini_batches=24,
        updates=24 * PAPER_STEPS,
        beta=1e-3,
        max_tokens=10_000,
        max_step_tokens=8000,
        max_steps=30,
        judging={"kind": "llm", "schedule": "published"},
        simulator={"kind": "llm"},
    )
    return make_plan(
        recipe,
        gpus=64 - judge_gpus,
        model="Qwen3-8B",
        judge_gpus=judge_gpus,
        parallel=parallel,
        shape=shape,
        constants={"open": 1.0} if every else None,
    )


def checks() -> list[Check]:
    """All of them."""
    found = local("demo (in sample)", 3849.38, 8885.33, (18.84, 9.84, 9.72, 38.53))
    found += local("study, seed 0", 3838.46, 8930.46, (25.62, 12.73, 11.85, 50.30))
    found += local("study, seed 1", 3836.21, 8996.33, (27.47, 14.15, 13.54, 55.30))
    found += local("study, seed 2", 4137.50, 9279.21, (37.69, 15.86, 14.90, 68.59))
    found += local("Taskmaster-4", 7210.80, 29250.20, (211.64, 106.56, 91.04, 409.45))
    for model, gpus, length, seconds in (("Llama-3.1-8B", 16, 1060, 97.7), ("Qwen3-30B-A3B", 32, 3154, 225.0)):
        said = nemo(model, gpus, length, 4096).times.lockstep
        found.append(Check(f"{model}, {gpus} H100, {length} tokens", said, seconds, "s", NEMO))
    limits = Shape(prompt=2000, turns=5, steps=4, action=320, user=60, response=100)
    for what, plan in (
        ("every item asked", paper(True)),
        ("satisfied items skipped", paper(False)),
        ("every item, rollouts at the limits", paper(True, shape=limits)),
        ("every item, 20 calls at once", paper(True, parallel=20)),
    ):
        found.append(Check(f"paper, {what}", plan.gpu_hours, 64 * PAPER_HOURS, "GPU h", PAPER))
    return found


def _recipe(**given: Any) -> RlConfig:
    return msgspec.convert({"input": "tasks", "output": "run"} | given, RlConfig)
