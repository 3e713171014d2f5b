"""The seconds of `cm2 rl` by part of a step, from its own metrics."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import msgspec

from cm2.checklist import Task
from cm2.formats import RowWriter, write_task
from cm2.train.grpo import Trainer
from cm2.train.rl import RlConfig, train_rl
from peers.trl_hotel import Clock

Numbers = dict[str, float]


def ours(args: argparse.Namespace, tasks: list[Task], scratch: Path) -> list[Numbers]:
    """The numbers of one update of `cm2 rl`."""
    with RowWriter(scratch / "tasks.jsonl") as writer:
        for task in tasks:
            writer.write(write_task(task, "openai"))
    config = RlConfig(
        input=str(scratch / "tasks.jsonl"),
        output=str(scratch / "rl"),
        model=args.model,
        updates=1,
        prompts=args.tasks,
        group=args.group,
        layers=args.layers,
        beta=args.beta,
        temperature=args.temperature,
        max_step_tokens=args.step_tokens,
        max_steps=args.steps,
        micro_tokens=args.micro_tokens,
        seed=args.seed,
        save_every=0,
    )
    clock, inner = Clock(), Trainer.training_step
    clock.watch(Trainer, "training_step", "step")
    try:
        train_rl(config)
    finally:
        Trainer.training_step = inner  # type: ignore[method-assign]
    lines = (scratch / "rl" / "metrics.jsonl").read_bytes().splitlines()
    return [_named(msgspec.json.decode(line)) | {"CPU seconds": clock.cpu_seconds["step"]} for line in lines]


def _named(line: dict[str, Any]) -> Numbers:
    parts = {name: line[f"seconds_{name}"] for name in ("reference", "forward", "backward")}
    parts |= {"generation": line["seconds_rollout"] - line["seconds_judge"], "judging": line["seconds_judge"]}
    rest = line["seconds"] - sum(parts.values())
    counts = {"tokens generated": line["tokens_generated"], "ids computed": line["tokens_trained"]}
    return parts | counts | {"rest": rest, "whole step": line["seconds"], "reward": line["reward"] or 0.0}
