"""The seconds of TRL's GRPOTrainer by part of a step: its own training loop, watched from outside."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from cm2.checklist import Task
from cm2.train.embedded import load_model
from cm2.train.engine import freeze
from cm2.train.rl import RlConfig
from peers.trl_hotel import Clock, make_peer

Numbers = dict[str, float]


class Steps(TrainerCallback):
    """Takes down the numbers of each of TRL's steps."""

    def __init__(self, clock: Clock):
        self.clock = clock
        self.found: list[Numbers] = []
        self.computed = 0
        self._began = (0.0, 0.0)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self.clock.seconds.clear()
        self.computed = 0
        self._began = time.perf_counter(), time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop it and read."""
        whole, cpu = time.perf_counter() - self._began[0], time.process_time() - self._began[1]
        seconds = self.clock.seconds
        parts = {name: seconds[name] for name in ("generation", "judging", "forward", "backward")}
        parts["reference"] = seconds["scored"] - seconds["generation"] - seconds["judging"]
        masks = self.clock.last["generation"][2]
        counts = {"tokens generated": sum(map(sum, masks)), "ids computed": self.computed}
        rewards = self.clock.last["judging"].nan_to_num().mean().item()
        rest = whole - sum(parts.values())
        self.found.append(parts | counts | {"rest": rest, "whole step": whole, "CPU seconds": cpu, "reward": rewards})


def theirs(args: argparse.Namespace, tasks: list[Task], scratch: Path, **settings: Any) -> list[Numbers]:
    """The numbers of each step of TRL's trainer; `settings` are further fields of GRPOConfig."""
    model, tokenizer = load_model(args.model)
    if args.layers:
        freeze(model, args.layers)
    config = RlConfig(input="", output="")
    trainer = make_peer(
        model,
        tokenizer,
        tasks,
        output=str(scratch / "trl"),
        batch=args.micro_batch,
        group=args.group,
        temperature=args.temperature,
        step_tokens=args.step_tokens,
        max_tokens=512,
        actions=args.steps,
        gradient_accumulation_steps=args.tasks * args.group // args.micro_batch,
        max_steps=1,
        learning_rate=config.lr,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=config.warmup,
        max_grad_norm=config.clip,
        optim="adamw_torch_fused",
        beta=args.beta,
        loss_type="dapo",
        scale_rewards="none",
        seed=args.seed,
        data_seed=args.seed,
        **settings,
    )
    clock = Clock()
    steps = Steps(clock)
    clock.watch(trainer, "_generate_and_score_completions", "scored")
    clock.watch(trainer, "_generate", "generation")
    clock.watch(trainer, "_calculate_rewards", "judging")
    clock.watch(trainer.accelerator, "backward", "backward")
    clock.watch(trainer, "compute_loss", "forward")
    inner = trainer._get_per_token_logps_and_entropies

    def counted(model: Any, ids: torch.Tensor, *rest: Any, **named: Any) -> Any:
        steps.computed += ids.numel()
        return inner(model, ids, *rest, **named)

    trainer._get_per_token_logps_and_entropies = counted  # type: ignore[method-assign]
    trainer.add_callback(steps)
    trainer.train()
    return steps.found
