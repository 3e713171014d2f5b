"""The prefix-shared forward pass: forward and backward of the same rollouts, once packed and once padded.

    python benchmarks/prefix.py [--model runs/demo/sft/model] [--tasks 4] [--group 8] [--layers 12]

Rollouts are sampled from the model in the sample world "hotel", a group a task. The same trainer then computes their
loss twice: packed (`shared_prefix`: what rollouts have in common is read once) and padded as any trainer does it, in
micro-batches of up to the same number of ids. Each rollout gets an advantage of +1 or -1 in turn, so that all carry
loss. The gradients must agree: the last column is their largest difference, relative to the largest entry. Run it on a
quiet machine.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import msgspec
import torch
from rich.table import Table

from cm2.rollout.driver import Driver
from cm2.rollout.limits import Limits
from cm2.rollout.sampling import Sampling
from cm2.train.embedded import load_model
from cm2.train.engine import make_trainer
from cm2.train.progress import hush
from cm2.train.rl import RlConfig
from cm2.train.roll import Roller, Row, rows_of
from cm2.train.runs import Run
from cm2.worlds import world_for
from peers.options import console, parser_of
from peers.trl_hotel import Clock, hotel_tasks


class Found(msgspec.Struct):
    """What one way took."""

    ids: int
    passes: int
    forward: float
    backward: float
    gradient: torch.Tensor


def sampled(args: argparse.Namespace, config: RlConfig, model: Any, tokenizer: Any) -> list[Row]:
    """Groups of rollouts as rows, every other one with a negative advantage."""
    sampling = Sampling(temperature=args.temperature, max_step_tokens=args.step_tokens, seed=args.seed)
    driver = Driver(model, tokenizer, sampling)
    roller = Roller(driver, config.credit, group=args.group, limits=Limits(steps=args.steps), world=world_for)
    groups = roller.roll(hotel_tasks(args.tasks, args.seed), args.seed)
    rows = [row for group in groups for row in rows_of(group, config.credit)[0]]
    for number, row in enumerate(rows):
        row.advantages = [(-1.0) ** number * sampled for sampled in row.mask]
    return rows


def measure(trainer: Any, batch: dict[str, Any], shared: bool) -> Found:
    """The batch's gradient by micro-batches, after a warm-up with the first of them."""
    trainer.shared_prefix = shared
    parts = trainer.micro_batches(batch)
    for number, part in enumerate([parts[0], *parts]):
        if number < 2:
            trainer.model.zero_grad()
            clock, trainer.tokens_forward, padded = Clock(), 0, 0
        inputs, weight = part
        padded += inputs["prompt_ids"].numel() + inputs["completion_ids"].numel()
        with clock.counting("forward"):
            loss = trainer.compute_loss(trainer.model, inputs) * weight
        with clock.counting("backward"):
            loss.backward()
    gradients = [p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]
    ids = trainer.tokens_forward if shared else padded
    return Found(ids, len(parts), clock.seconds["forward"], clock.seconds["backward"], torch.cat(gradients).clone())


def table_of(packed: Found, padded: Found, args: argparse.Namespace) -> Table:
    """Both ways side by side."""
    layers = f"top {args.layers} layers" if args.layers else "all layers"
    title = f"{args.tasks} tasks x {args.group} rollouts, model {args.model}, {layers} trained"
    table = Table(title=f"{title}, {torch.get_num_threads()} threads")
    for name in ("way", "ids computed", "passes", "forward, s", "backward, s", "both, s", "packed is", "difference"):
        table.add_column(name, justify="left" if name == "way" else "right")
    whole = packed.forward + packed.backward
    off = float((packed.gradient - padded.gradient).abs().max() / padded.gradient.abs().max())
    for name, found, told in (("packed", packed, ""), ("padded", padded, f"{off:.1e}")):
        both = found.forward + found.backward
        counts = [f"{found.ids}", f"{found.passes}"]
        times = [f"{found.forward:.2f}", f"{found.backward:.2f}", f"{both:.2f}", f"{both / whole:.2f} x"]
        table.add_row(name, *counts, *times, told)
    return table


def main() -> None:
    """Sample rollouts, measure both ways and print the table."""
    parser = parser_of(__doc__, tasks=4)
    parser.add_argument("--layers", type=int, default=12, help="top layers that are trained, 0 for all (default 12)")
    parser.add_argument("--micro-tokens", type=int, default=1536, help="ids of one pass (default 1536)")
    args = parser.parse_args()
    hush()
    with tempfile.TemporaryDirectory() as scratch:
        config = RlConfig(
            input="",
            output=f"{scratch}/rl",
            model=args.model,
            prompts=args.tasks,
            group=args.group,
            layers=args.layers,
            temperature=args.temperature,
            micro_tokens=args.micro_tokens,
            beta=0.0,
            seed=args.seed,
        )
        model, tokenizer = load_model(args.model)
        rows = sampled(args, config, model, tokenizer)
        with Run(config.output, "rl", config, {}) as run:
            trainer = make_trainer(run, config, model, tokenizer, args.tasks)
        if not trainer.shared_prefix:
            parser.error(f"the prefix-shared forward pass does not support the model {args.model}")
        trainer.trunk = None  # packing alone: what frozen layers computed is not remembered
        trainer.roll = lambda indices, generation: rows
        trainer.current_gradient_accumulation_steps = 1
        model.train()
        inputs = [{"prompt": str(i)} for i in range(args.tasks) for _ in range(args.group)]
        batch = trainer._generate_and_score_completions(inputs)
        console().print(table_of(measure(trainer, batch, True), measure(trainer, batch, False), args))


if __name__ == "__main__":
    main()
