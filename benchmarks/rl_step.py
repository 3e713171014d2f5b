"""One update of reinforcement learning: `cm2 rl` beside TRL's GRPOTrainer, same tasks, same model, same trained layers.

    python benchmarks/rl_step.py [--model runs/demo/sft/model] [--tasks 4] [--group 8] [--layers 12]

Tasks are made in the sample world "hotel" and labelled; both trainers draw the same batch (same sampler, same seed),
ask the same executable world and pay the same checklist reward, with the same loss, KL penalty, optimizer and number
type. Both run their own training loop in this process, one after the other. The parts:

- generation: from prompts to finished dialogues, tool calls included; ours includes taking over the new weights;
- judging: the checklist reward;
- reference: the starting model's log-probabilities, for the KL penalty, and the advantages;
- forward, backward: over all micro-batches;
- rest: optimizer, clipping, logs.

`ids computed` is what goes through forward passes for log-probabilities, the reference's and padding included. With
--beta 0 there is no reference, and ours leaves out rollouts without advantage, which carry no loss.

Generations differ, so compare seconds with the tokens in view: by chance, and because TRL ends a rollout at a malformed
call, which ours answers with an error that the agent may mend. An untrained model writes to the limit and earns
nothing: give a `cm2 sft` model for a real update. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import msgspec
import torch
from rich.table import Table
from transformers import TrainerCallback

from cm2.checklist import Task
from cm2.formats import RowWriter, write_task
from cm2.rollout import Environment
from cm2.rollout.driver import Driver
from cm2.rollout.sampling import Sampling
from cm2.train.embedded import load_model
from cm2.train.engine import freeze
from cm2.train.progress import hush
from cm2.train.rl import RlConfig, train_rl
from cm2.worlds import world_of
from peers.options import console, parser_of
from peers.trl_hotel import Clock, hotel_tasks, make_peer

PARTS = ("generation", "judging", "reference", "forward", "backward", "rest", "whole step")
COUNTS = ("tokens generated", "ids computed")
Numbers = dict[str, float]


class Steps(TrainerCallback):
    """Takes down the numbers of each of TRL's steps."""

    def __init__(self, clock: Clock):
        self.clock = clock
        self.found: list[Numbers] = []
        self.computed = 0
        self._began = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self.clock.seconds.clear()
        self.computed = 0
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop it and read."""
        whole = time.perf_counter() - self._began
        seconds = self.clock.seconds
        parts = {name: seconds[name] for name in ("generation", "judging", "forward", "backward")}
        parts["reference"] = seconds["scored"] - seconds["generation"] - seconds["judging"]
        masks = self.clock.last["generation"][2]
        counts = {"tokens generated": sum(map(sum, masks)), "ids computed": self.computed}
        rewards = self.clock.last["judging"].nan_to_num().mean().item()
        rest = whole - sum(parts.values())
        self.found.append(parts | counts | {"rest": rest, "whole step": whole, "reward": rewards})


def theirs(args: argparse.Namespace, tasks: list[Task], scratch: Path) -> list[Numbers]:
    """The numbers of each step of TRL's trainer."""
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
        max_steps=args.updates,
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


def ours(args: argparse.Namespace, tasks: list[Task], scratch: Path) -> list[Numbers]:
    """The numbers of each step of `cm2 rl`."""
    with RowWriter(scratch / "tasks.jsonl") as writer:
        for task in tasks:
            writer.write(write_task(task, "openai"))
    config = RlConfig(
        input=str(scratch / "tasks.jsonl"),
        output=str(scratch / "rl"),
        model=args.model,
        updates=args.updates,
        prompts=args.tasks,
        group=args.group,
        layers=args.layers,
        beta=args.beta,
        temperature=args.temperature,
        max_step_tokens=args.step_tokens,
        max_steps=args.steps,
        seed=args.seed,
        save_every=0,
    )
    train_rl(config)
    lines = (scratch / "rl" / "metrics.jsonl").read_bytes().splitlines()
    return [_named(msgspec.json.decode(line)) for line in lines]


def _named(line: dict[str, Any]) -> Numbers:
    parts = {name: line[f"seconds_{name}"] for name in ("reference", "forward", "backward")}
    parts |= {"generation": line["seconds_rollout"] - line["seconds_judge"], "judging": line["seconds_judge"]}
    rest = line["seconds"] - sum(parts.values())
    counts = {"tokens generated": line["tokens_generated"], "ids computed": line["tokens_trained"]}
    return parts | counts | {"rest": rest, "whole step": line["seconds"], "reward": line["reward"] or 0.0}


def warm_up(name: str, task: Task) -> None:
    """Start threads and load libraries: a few ids decoded by both, a short pass forward and backward."""
    model, tokenizer = load_model(name)
    driver = Driver(model, tokenizer, Sampling(max_step_tokens=4))
    driver.run([Environment(task, world_of(task).session())])
    ids = torch.arange(64)[None] % 50
    model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=True)
    model(input_ids=ids, labels=ids).loss.backward()


def table_of(mine: list[Numbers], peer: list[Numbers], args: argparse.Namespace) -> Table:
    """Means over the measured steps, side by side."""
    layers = f"top {args.layers} layers" if args.layers else "all layers"
    title = f"one update: {args.tasks} tasks x {args.group} rollouts, model {args.model}, {layers} trained"
    table = Table(title=f"{title}, {torch.get_num_threads()} threads")
    for name in ("mean of a step", "cm2 rl", "TRL GRPOTrainer", "TRL / cm2"):
        table.add_column(name, justify="left" if name == "mean of a step" else "right")

    def mean(found: list[Numbers], name: str) -> float:
        return sum(one[name] for one in found) / len(found)

    def row(label: str, a: float, b: float, digits: int, end: bool = False) -> None:
        ratio = f"{b / a:.2f} x" if a > 0 else ""
        table.add_row(label, f"{a:.{digits}f}", f"{b:.{digits}f}", ratio, end_section=end)

    for name in PARTS:
        row(f"{name}, s", mean(mine, name), mean(peer, name), 2, end=name in ("rest", "whole step"))
    paces = (1000 * mean(found, "generation") / max(1.0, mean(found, "tokens generated")) for found in (mine, peer))
    row("generation, ms a token", next(paces), next(paces), 2)
    for name in COUNTS:
        row(name, mean(mine, name), mean(peer, name), 0)
    table.add_row("reward", f"{mean(mine, 'reward'):.3f}", f"{mean(peer, 'reward'):.3f}", "")
    return table


def main() -> None:
    """Run both trainers and print the table."""
    parser = parser_of(__doc__, tasks=4)
    parser.add_argument("--layers", type=int, default=12, help="top layers that are trained, 0 for all (default 12)")
    parser.add_argument("--beta", type=float, default=1e-3, help="of the KL penalty (default 0.001)")
    parser.add_argument("--micro-batch", type=int, default=8, help="TRL's rows a pass (default 8; ours: by tokens)")
    parser.add_argument("--updates", type=int, default=1, help="updates that are run (default 1)")
    parser.add_argument("--skip", type=int, default=0, help="leave the first so many out of the means (default 0)")
    args = parser.parse_args()
    if not 0 <= args.skip < args.updates:
        parser.error("--skip must be less than --updates")
    if args.tasks * args.group % args.micro_batch:
        parser.error("--micro-batch must divide tasks x group")
    hush()
    tasks = hotel_tasks(args.tasks * args.updates, args.seed)
    warm_up(args.model, tasks[0])
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for run in (ours, theirs):
            gc.collect()
            found.append(run(args, tasks, Path(scratch))[args.skip :])
    console().print(table_of(found[0], found[1], args))


if __name__ == "__main__":
    main()
