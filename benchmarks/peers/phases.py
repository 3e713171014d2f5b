"""The training phase on given rollouts: seconds, ids, operations, and the share of what the machine can multiply."""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from typing import Any

import msgspec
import torch
from rich.table import Table
from torch.nn.functional import linear
from torch.utils.flop_counter import FlopCounterMode

from cm2.rollout.driver import Driver
from cm2.rollout.limits import Limits
from cm2.rollout.sampling import Sampling
from cm2.train.embedded import load_model
from cm2.train.engine import make_trainer
from cm2.train.grpo import _select
from cm2.train.rl import RlConfig
from cm2.train.roll import Roller, Row, rows_of
from cm2.train.runs import Run
from cm2.worlds import world_for
from peers import torchrl_loss
from peers.trl_hotel import Clock, hotel_tasks

PHASES = ("reference", "forward", "backward")


class Found(msgspec.Struct):
    """What one way took."""

    name: str
    ids: int
    clock: Clock
    operations: dict[str, float] = {}
    """By phase; empty where they were not counted."""
    gradient: torch.Tensor | None = None

    def seconds(self, cpu: bool = False) -> float:
        """Of all phases."""
        of = self.clock.cpu_seconds if cpu else self.clock.seconds
        return sum(of[name] for name in PHASES)


class Bench:
    """A trainer with rollouts of the tasks, every other one with a negative advantage.

    Args:
        args: the script's options.
        rows: rollouts to use instead of sampled ones, a whole group after the other.
    """

    def __init__(self, args: argparse.Namespace, rows: list[Row] | None = None):
        self.args = args
        self.model, self.tokenizer = load_model(args.model)
        with tempfile.TemporaryDirectory() as scratch:
            config = RlConfig(
                input="",
                output=f"{scratch}/rl",
                model=args.model,
                prompts=args.tasks,
                group=args.group,
                layers=args.layers,
                beta=args.beta,
                temperature=args.temperature,
                micro_tokens=args.micro_tokens,
                seed=args.seed,
            )
            with Run(config.output, "rl", config, {}) as run:
                self.trainer = make_trainer(run, config, self.model, self.tokenizer, args.tasks)
        self.rows = rows or self._sampled(config)
        for number, row in enumerate(self.rows):
            row.advantages = [(-1.0) ** number * sampled for sampled in row.mask]
        self.trainer.roll = lambda indices, generation: self.rows
        self.trainer.current_gradient_accumulation_steps = 1
        self.ways = {
            name: getattr(self.trainer, name) for name in ("shared_prefix", "plain_head", "trunk", "micro_tokens")
        }
        self.model.train()

    def _sampled(self, config: RlConfig) -> list[Row]:
        args = self.args
        sampling = Sampling(temperature=args.temperature, max_step_tokens=args.step_tokens, seed=args.seed)
        roller = Roller(
            Driver(self.model, self.tokenizer, sampling),
            config.credit,
            group=args.group,
            limits=Limits(steps=args.steps),
            world=world_for,
        )
        groups = roller.roll(hotel_tasks(args.tasks, args.seed), args.seed)
        return [row for group in groups for row in rows_of(group, config.credit)[0]]

    def packed(self) -> Found:
        """Our way."""
        for name, value in self.ways.items():
            setattr(self.trainer, name, value)
        return self._measured("cm2, packed")

    def padded(self) -> Found:
        """TRL's own forward passes."""
        self.trainer.shared_prefix, self.trainer.plain_head, self.trainer.trunk = False, False, None
        return self._measured("TRL, padded")

    def _measured(self, name: str) -> Found:
        found = self._pass(name)
        if self.trainer.trunk is not None:
            self.trainer.trunk.turn_to(object())
        with FlopCounterMode(display=False) as counter:
            self._pass(name, counter, found.operations)
        return found

    def _pass(self, name: str, counter: Any = None, operations: dict[str, float] | None = None) -> Found:
        """Reference and gradient of the batch once; with a counter, what it counts by phase."""
        trainer, clock, computed = self.trainer, Clock(), 0
        self.model.zero_grad()

        def note(phase: str, before: float) -> float:
            if counter is None or operations is None:
                return 0.0
            now = float(counter.get_total_flops())
            operations[phase] = operations.get(phase, 0.0) + now - before
            return now

        if trainer.trunk is not None:
            trainer.trunk.turn_to(object())
            trainer.trunk.turn_to(trainer.generation)
        trainer.tokens_forward = 0
        inputs = [{"prompt": str(i)} for i in range(self.args.tasks) for _ in range(self.args.group)]
        with clock.counting("reference"):
            batch = trainer._generate_and_score_completions(inputs)
        at = note("reference", 0.0)
        if not trainer.shared_prefix and trainer.beta:
            computed += sum(batch[f"{name}_ids"].numel() for name in ("prompt", "completion"))
        for part, weight in self._parts(batch):
            with clock.counting("forward"):
                loss = trainer.compute_loss(trainer.model, part) * weight
            at = note("forward", at)
            with clock.counting("backward"):
                loss.backward()
            at = note("backward", at)
            if not trainer.shared_prefix:
                computed += part["prompt_ids"].numel() + part["completion_ids"].numel()
        gradient = torch.cat([p.grad.flatten() for p in self.model.parameters() if p.grad is not None])
        return Found(name, trainer.tokens_forward or computed, clock, {}, gradient.clone())

    def _parts(self, batch: dict[str, Any]) -> list[tuple[dict[str, Any], float]]:
        if self.trainer.shared_prefix:
            return self.trainer.micro_batches(batch)
        count, size = len(batch["completion_ids"]), self.args.micro_batch
        return [(_select(batch, torch.arange(i, min(i + size, count))), 1.0) for i in range(0, count, size)]

    def torchrl(self) -> Found:
        """TorchRL's loss; it has no reference pass here."""
        clock = Clock()
        self.model.zero_grad()
        ids = torchrl_loss.update(self.model, self.tokenizer, self.rows, self.args.micro_batch, clock)
        return Found("TorchRL, padded", ids, clock)

    def peak(self) -> float:
        """Operations a CPU second that torch reaches with the model's matrices and as many rows as one pass has."""
        best = 0.0
        with torch.no_grad():
            layer = self.model.model.layers[0]
            for module in (layer.self_attn.q_proj, layer.mlp.gate_proj, layer.mlp.down_proj):
                x = torch.randn(self.args.micro_tokens, module.in_features)
                for _ in range(6):
                    start = time.process_time()
                    linear(x, module.weight)
                    taken = time.process_time() - start
                    best = max(best, 2 * len(x) * module.weight.numel() / max(taken, 1e-9))
        return best


def ways_table(bench: Bench) -> Table:
    """The same rollouts trained on in every way that there is here."""
    peak = bench.peak()
    found = [bench.packed(), bench.padded()]
    if torchrl_loss.installed():
        found.append(bench.torchrl())
    peak = max(peak, bench.peak())
    table = Table(
        title=f"the same {len(bench.rows)} rollouts trained on; peak {peak / 1e9:.0f} billion operations a CPU second"
    )
    table.add_column("way")
    for name in (
        "ids computed",
        *(f"{name}, CPU s" for name in PHASES),
        "all, CPU s",
        "all, s",
        "ours is",
        "difference",
    ):
        table.add_column(name, justify="right")
    first = found[0]
    for one in found:
        cells = []
        for name in PHASES:
            taken = one.clock.cpu_seconds[name]
            share = f" ({one.operations[name] / taken / peak:.0%})" if one.operations.get(name) else ""
            cells.append(f"{taken:.1f}{share}")
        off = ""
        if one is not first and one.gradient is not None and first.gradient is not None:
            off = f"{float((one.gradient - first.gradient).abs().max() / one.gradient.abs().max()):.0e}"
        mine = first.seconds(True) - (0 if one.clock.cpu_seconds["reference"] else first.clock.cpu_seconds["reference"])
        table.add_row(
            one.name,
            str(one.ids),
            *cells,
            f"{one.seconds(True):.1f}",
            f"{one.seconds():.1f}",
            f"{one.seconds(True) / mine:.2f} x",
            off,
        )
    return table


def scaling_table(bench: Bench) -> Table:
    """Packed against padded on made-up rollouts: siblings go the same way for a while and part at random."""
    base = {"group": 8, "turns": 2, "context": 128}
    table = Table(title="made-up rollouts of one task, a turn is 24 shown and 24 sampled ids")
    for name in ("group", "turns", "context", "ids packed", "ids padded", "packed, CPU s", "padded, CPU s", "ours is"):
        table.add_column(name, justify="right")
    cases = [base, *({**base, "group": n} for n in (2, 16)), *({**base, "turns": n} for n in (1, 6))]
    cases += [{**base, "context": n} for n in (16, 512)]
    for case in cases:
        args = argparse.Namespace(**{**vars(bench.args), "tasks": 1, "group": case["group"], "micro_batch": 4})
        rows = made_up(**case, vocabulary=bench.model.config.vocab_size, seed=bench.args.seed)
        bench.args, bench.rows = args, rows
        for number, row in enumerate(rows):
            row.advantages = [(-1.0) ** number * sampled for sampled in row.mask]
        bench.trainer.num_generations = case["group"]
        packed, padded = bench.packed(), bench.padded()
        factor = padded.seconds(True) / packed.seconds(True)
        told = [*case.values(), packed.ids, padded.ids]
        seconds = [f"{one.seconds(True):.1f}" for one in (packed, padded)]
        table.add_row(*map(str, told), *seconds, f"{factor:.2f} x")
    return table


def made_up(group: int, turns: int, context: int, vocabulary: int, seed: int) -> list[Row]:
    """Rollouts of random ids with one prompt; with every turn a sibling leaves its neighbour with even chances."""
    draw = random.Random(seed)

    def some(count: int) -> list[int]:
        return [draw.randrange(100, min(vocabulary, 40_000)) for _ in range(count)]

    prompt, ways = some(context), [some(48 * turns)]
    for _ in range(1, group):
        way = list(draw.choice(ways))
        leaves = next((n for n in range(turns) if draw.random() < 0.5), turns - 1)
        ways.append(way[: 48 * leaves + 6] + some(48 * turns - 48 * leaves - 6))
    mask = ([1] * 24 + [0] * 24) * turns
    logprobs = [-1.0 * one for one in mask]
    return [Row(prompt, way, mask, logprobs, [0.0] * len(mask), draw.random()) for way in ways]


def profile(bench: Bench) -> str:
    """The operators that take the most of our training phase."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    for name, value in bench.ways.items():
        setattr(bench.trainer, name, value)
    with record(activities=[ProfilerActivity.CPU]) as found:
        bench._pass("profiled")
    return found.key_averages().table(sort_by="self_cpu_time_total", row_limit=14, max_name_column_width=50)
