"""One update of reinforcement learning, ours beside others: same tasks, same model, same trained layers, one command.

    python benchmarks/rl.py [--model runs/demo/sft/model] [--tasks 4] [--group 8] [--layers 12] [--rounds 1]

1. One update: `cm2 rl` and TRL's GRPOTrainer (its environment_factory path, and with --continuous also with
   transformers' continuous batching), each in its own training loop, in turn. Tasks are made in the sample world
   "hotel" and labelled; all draw the same batch (same sampler, same seed), ask the same executable world and pay the
   same checklist reward, with the same loss, KL penalty, optimizer and number type. The parts: generation (from prompts
   to finished dialogues, tools included; ours takes over the new weights), judging, reference (log-probabilities of the
   start, for the KL penalty), forward and backward (all micro-batches), rest (optimizer, clipping, logs). `CPU seconds`
   are of the whole process (ours without the optimizer's own step): on a machine with other work they say more than
   wall seconds do.
2. The same rollouts trained on three ways: our packed pass, TRL's padded one, and TorchRL's GRPOLoss where it is
   installed. With the share of the machine's peak: floating-point operations of the products (torch's FlopCounterMode;
   attention is not counted) a CPU second, over what torch reaches with the model's own matrices.
3. --scaling: packed against padded with the size of the group, the number of turns, and the context before them.
4. --memory: the largest resident memory of each trainer, measured in processes of their own.
5. --profile: where the training phase's time goes, by torch.profiler.

Generations differ, so compare seconds with the tokens in view: by chance, and because TRL ends a rollout at a malformed
call, which ours answers with an error that the agent may mend. An untrained model writes to the limit and earns
nothing: give a `cm2 sft` model for a real update.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from rich.table import Table

from cm2.checklist import Task
from cm2.rollout import Environment
from cm2.rollout.driver import Driver
from cm2.rollout.sampling import Sampling
from cm2.train.embedded import load_model
from cm2.train.progress import hush
from cm2.worlds import world_of
from peers.cm2_steps import ours
from peers.options import console, parser_of
from peers.phases import Bench, profile, scaling_table, ways_table
from peers.trl_hotel import hotel_tasks
from peers.trl_steps import Numbers, theirs

PARTS = ("generation", "judging", "reference", "forward", "backward", "rest", "whole step", "CPU seconds")
COUNTS = ("tokens generated", "ids computed")
CONTINUOUS = {
    "use_transformers_continuous_batching": True,
    # by default its cache takes what memory there is
    "transformers_continuous_batching_config": {"page_size": 64, "num_blocks": 256, "max_batch_tokens": 1024},
}


def warm_up(name: str, task: Task) -> None:
    """Start threads and load libraries: a few ids decoded by both, a short pass forward and backward."""
    model, tokenizer = load_model(name)
    driver = Driver(model, tokenizer, Sampling(max_step_tokens=4))
    driver.run([Environment(task, world_of(task).session())])
    ids = torch.arange(64)[None] % 50
    model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=True)
    model(input_ids=ids, labels=ids).loss.backward()


def mean(found: list[Numbers], name: str) -> float:
    """Over the measured updates."""
    return sum(one[name] for one in found) / len(found)


def updates_table(found: dict[str, list[Numbers]], args: argparse.Namespace) -> Table:
    """Means over the rounds, side by side; factors are over ours."""
    layers = f"top {args.layers} layers" if args.layers else "all layers"
    title = f"one update: {args.tasks} tasks x {args.group} rollouts, {args.model}, {layers}"
    table = Table(title=f"{title}, {torch.get_num_threads()} threads, {args.rounds} rounds")
    table.add_column("mean of an update")
    for name in found:
        table.add_column(name, justify="right")
    mine = next(iter(found.values()))

    def row(label: str, values: list[float], digits: int, factors: bool = True, end: bool = False) -> None:
        cells = [f"{values[0]:.{digits}f}"]
        for value in values[1:]:
            factor = f"  {value / values[0]:.2f} x" if factors and values[0] > 0 else ""
            cells.append(f"{value:.{digits}f}{factor}")
        table.add_row(label, *cells, end_section=end)

    for name in PARTS:
        label = name if name.startswith("CPU") else f"{name}, s"
        row(label, [mean(one, name) for one in found.values()], 2, end=name in ("rest", "CPU seconds"))
    paces = [1000 * mean(one, "generation") / max(1.0, mean(one, "tokens generated")) for one in found.values()]
    row("generation, ms a token", paces, 2)
    for name in COUNTS:
        row(name, [mean(one, name) for one in found.values()], 0)
    row("reward", [mean(one, "reward") for one in found.values()], 3, factors=False)
    assert mine is found["cm2 rl"]
    return table


def measure_updates(args: argparse.Namespace) -> dict[str, list[Numbers]]:
    """Every trainer's update, in turn, so many rounds."""
    sides = {"cm2 rl": lambda tasks, scratch: ours(args, tasks, scratch)}
    if args.only != "ours":
        sides["TRL GRPOTrainer"] = lambda tasks, scratch: theirs(args, tasks, scratch)
        if args.continuous:
            sides["TRL, continuous batching"] = lambda tasks, scratch: theirs(args, tasks, scratch, **CONTINUOUS)
    if args.only == "trl":
        del sides["cm2 rl"]
    found: dict[str, list[Numbers]] = {name: [] for name in sides}
    tasks = hotel_tasks(args.tasks, args.seed)
    warm_up(args.model, tasks[0])
    for _ in range(args.rounds):
        for name, side in sides.items():
            gc.collect()
            with tempfile.TemporaryDirectory() as scratch:
                found[name] += side(tasks, Path(scratch))
    return found


def memory(arguments: list[str]) -> dict[str, float]:
    """Gigabytes that each trainer held at most, in a process of its own."""
    found = {}
    for name in ("ours", "trl"):
        command = [sys.executable, __file__, *(one for one in arguments if one != "--memory"), "--only", name]
        found[name] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
    return found


def main() -> None:
    """Measure what was asked for and print tables."""
    parser = parser_of(__doc__, tasks=4)
    parser.add_argument("--layers", type=int, default=12, help="top layers that are trained, 0 for all (default 12)")
    parser.add_argument("--beta", type=float, default=1e-3, help="of the KL penalty (default 0.001)")
    parser.add_argument("--micro-batch", type=int, default=8, help="others' rows a pass (default 8; ours: by tokens)")
    parser.add_argument("--micro-tokens", type=int, default=1536, help="our ids a pass (default 1536)")
    parser.add_argument("--rounds", type=int, default=1, help="updates of each side, in turn (default 1)")
    parser.add_argument("--continuous", action="store_true", help="TRL also with transformers' continuous batching")
    parser.add_argument("--scaling", action="store_true", help="packed against padded, by group, turns and context")
    parser.add_argument("--memory", action="store_true", help="peak memory of ours and of TRL")
    parser.add_argument("--profile", action="store_true", help="where the training phase's time goes")
    parser.add_argument("--skip-updates", action="store_true", help="leave out whole updates: parts 2 to 5 only")
    parser.add_argument("--only", choices=("ours", "trl"), help="one side of part 1, and its peak memory in GB")
    args = parser.parse_args()
    if args.tasks * args.group % args.micro_batch:
        parser.error("--micro-batch must divide tasks x group")
    hush()
    if args.only:
        measure_updates(args)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
        return
    out = console()
    if args.memory:
        held = memory(sys.argv[1:])
        out.print(f"peak resident memory: cm2 rl {held['ours']:.2f} GB, TRL {held['trl']:.2f} GB")
    if not args.skip_updates:
        out.print(updates_table(measure_updates(args), args))
    bench = Bench(args)
    out.print(ways_table(bench))
    if args.scaling:
        out.print(scaling_table(bench))
    if args.profile:
        out.print(profile(bench), markup=False)


if __name__ == "__main__":
    main()
