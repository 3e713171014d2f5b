"""Generating rollouts: our Driver beside TRL's tool loop and plain `generate` turn by turn, same model, same dialogues.

    python benchmarks/rollout.py [--model runs/demo/sft/model] [--tasks 4] [--group 8] [--temperature 1.0]

Tasks are made in the sample world "hotel"; tools are answered by the executable world, which is the same for all. One
process, one contender after the other, each warmed up with a group of its own. Timed is from the prompts as messages to
finished dialogues: rendering, decoding, tool calls, parsing; not judging, not copying weights (shown apart).

- cm2 Driver: rows join and leave at every token, the cache stays across turns, a group reads its prompt once and is
  decoded once for as long as its members agree.
- TRL GRPOTrainer: `_generate` with `environment_factory`: `model.generate` for all rollouts that called a tool, once a
  turn, each time from the first token of the prompt; the slowest row of a turn decides when the next one starts.
  A malformed call ends its rollout; ours answers with an error that the agent may mend.
- generate by turns: the same calls of `generate` without TRL, around our environment, in the fastest number type here.

An untrained model calls no tools and writes to the limit: give a `cm2 sft` model for real dialogues. At temperature 0
the members of a group are alike, so our Driver decodes one of them and the ratio says nothing; but then `same` tells
how many rollouts came out as ours, id for id. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from typing import Any, Protocol

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import msgspec
import torch
from rich.table import Table

from cm2.checklist import Task
from cm2.rollout import Environment
from cm2.rollout.decode import native_dtype
from cm2.rollout.driver import Driver
from cm2.rollout.limits import Limits
from cm2.rollout.sampling import Sampling
from cm2.rollout.template import ChatTemplate
from cm2.train.embedded import load_model
from cm2.train.progress import hush
from cm2.worlds import world_of
from peers.options import console, parser_of
from peers.trl_hotel import Clock, hotel_tasks, make_peer, rows_of


class Found(msgspec.Struct):
    """Rollouts of one run: the ids after each prompt, how many of them were sampled, in how many actions."""

    completions: list[list[int]]
    tokens: int
    steps: int
    seconds: float
    cpu_seconds: float


class Contender(Protocol):
    """One way to generate."""

    name: str

    def run(self, indices: list[int], seed: int) -> Found:
        """A group of rollouts for each of these tasks."""
        ...


class Ours:
    """See the module."""

    name = "cm2 Driver"

    def __init__(self, args: argparse.Namespace, tasks: list[Task]):
        self.args, self.tasks = args, tasks
        model, tokenizer = load_model(args.model)
        self.driver = Driver(model, tokenizer, sampling(args), batch=len(tasks) * args.group)
        start = time.perf_counter()
        self.driver.update_weights(model)
        self.copying = time.perf_counter() - start

    def run(self, indices: list[int], seed: int) -> Found:
        """See `Contender.run`."""
        environments = fresh(self.args, self.tasks, indices)
        clock = Clock()
        with clock.counting("generate"):
            rollouts = self.driver.run(environments, seeds=[seed * 10**6 + i for i in range(len(environments))])
        completions = []
        for rollout in rollouts:
            parts = [(segment.prompt if n else []) + segment.tokens for n, segment in enumerate(rollout.segments)]
            completions.append([id for part in parts for id in part])
        steps = sum(len(rollout.segments) for rollout in rollouts)
        return Found(completions, sum(rollout.generated_tokens for rollout in rollouts), steps, *clock.both("generate"))


class Trl:
    """See the module."""

    name = "TRL GRPOTrainer"

    def __init__(self, args: argparse.Namespace, tasks: list[Task], folder: str):
        self.args, self.rows = args, rows_of(tasks)
        model, tokenizer = load_model(args.model)
        self.trainer = make_peer(
            model,
            tokenizer,
            tasks,
            output=folder,
            batch=args.group,
            group=args.group,
            temperature=args.temperature,
            step_tokens=args.step_tokens,
            max_tokens=args.max_tokens,
            actions=args.steps,
        )
        self.trainer.model_wrapped = self.trainer.accelerator.prepare_model(model)
        model.train()
        self.clock = Clock()
        self.clock.watch(self.trainer, "_generate", "generate")

    def run(self, indices: list[int], seed: int) -> Found:
        """See `Contender.run`."""
        torch.manual_seed(seed)
        self.clock.seconds["generate"] = self.clock.cpu_seconds["generate"] = 0.0
        self.trainer._generate_and_score_completions([dict(self.rows[i]) for i in indices for _ in group_of(self.args)])
        _, completion_ids, mask, messages, *_ = self.clock.last["generate"]
        steps = sum(message["role"] == "assistant" for each in messages for message in each)
        return Found(completion_ids, sum(map(sum, mask)), steps, *self.clock.both("generate"))


class Turns:
    """See the module."""

    name = "generate by turns"

    def __init__(self, args: argparse.Namespace, tasks: list[Task]):
        self.args, self.tasks = args, tasks
        self.model, tokenizer = load_model(args.model, native_dtype())
        self.template = ChatTemplate(tokenizer)

    def run(self, indices: list[int], seed: int) -> Found:
        """See `Contender.run`."""
        torch.manual_seed(seed)
        environments = fresh(self.args, self.tasks, indices)
        clock = Clock()
        with clock.counting("generate"):
            completions, tokens, steps = self._finish(environments)
        return Found(completions, tokens, steps, *clock.both("generate"))

    def _finish(self, environments: list[Environment]) -> tuple[list[list[int]], int, int]:
        """Drive these to their end: the ids after each prompt, sampled ids, actions."""
        ids = [self.template.first_prompt(one.dialogue.tools, one.messages) for one in environments]
        first = [len(row) for row in ids]
        steps, tokens, open_ = 0, 0, list(range(len(ids)))
        while open_:
            for i, action in zip(open_, self._actions([ids[i] for i in open_]), strict=True):
                steps, tokens = steps + 1, tokens + len(action)
                ended = action[-1] in self.template.stop_ids
                seen = environments[i].feed(self.template.parse(action), tokens=len(action), truncated=not ended)
                ids[i] += action if seen.done else action + self.template.continuation(seen.new_messages)
                if len(ids[i]) - first[i] >= self.args.max_tokens:
                    environments[i].stop("limit_tokens", "limit")
            open_ = [i for i in open_ if not environments[i].done]
        return [row[n:] for row, n in zip(ids, first, strict=True)], tokens, steps

    def _actions(self, rows: list[list[int]]) -> list[list[int]]:
        """The next action of each row, its end token included."""
        width, stops = max(map(len, rows)), self.template.stop_ids
        pad = self.template.tokenizer.pad_token_id
        draws = {"do_sample": True, "temperature": self.args.temperature, "top_k": 0, "top_p": 1.0}
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=torch.tensor([[pad] * (width - len(row)) + row for row in rows]),
                attention_mask=torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows]),
                max_new_tokens=self.args.step_tokens,
                eos_token_id=stops,
                pad_token_id=pad,
                **(draws if self.args.temperature else {"do_sample": False}),
            )
        actions = []
        for row in out[:, width:].tolist():
            end = next((at for at, id in enumerate(row) if id in stops), len(row) - 1)
            actions.append(row[: end + 1])
        return actions


def group_of(args: argparse.Namespace) -> range:
    """The members of a group."""
    return range(args.group)


def sampling(args: argparse.Namespace) -> Sampling:
    """How our Driver draws. Its length limit counts the prompt, TRL's does not: it is left to the other limits."""
    return Sampling(temperature=args.temperature, max_step_tokens=args.step_tokens, max_tokens=2**20)


def fresh(args: argparse.Namespace, tasks: list[Task], indices: list[int]) -> list[Environment]:
    """Environments of these tasks, `group` each; nobody judges."""
    limits = Limits(steps=args.steps)
    worlds = [(tasks[i], world_of(tasks[i])) for i in indices]
    return [Environment(task, world.session(), None, limits) for task, world in worlds for _ in group_of(args)]


def measure(contender: Contender, args: argparse.Namespace) -> Found:
    """Warm up with the last task, then run all the others `rounds` times; the numbers are sums."""
    contender.run([args.tasks], args.seed + 10**3)
    runs = [contender.run(list(range(args.tasks)), args.seed + number) for number in range(args.rounds)]
    return Found(
        [ids for run in runs for ids in run.completions],
        *(sum(getattr(run, name) for run in runs) for name in ("tokens", "steps", "seconds", "cpu_seconds")),
    )


def table_of(results: dict[str, Found], args: argparse.Namespace) -> Table:
    """The contenders side by side; ratios are ours over theirs."""
    title = f"{args.tasks} tasks x {args.group} rollouts, model {args.model}, temperature {args.temperature:g}"
    table = Table(title=f"{title}, {torch.get_num_threads()} threads")
    columns = ("actions", "tokens", "seconds", "rollouts/s", "tokens/s", "ours is", "tokens/CPU s", "ours is")
    for name in ("contender", "rollouts", *columns, *(["same"] if args.temperature == 0 else [])):
        table.add_column(name, justify="left" if name == "contender" else "right")
    ours = results[Ours.name]
    for name, found in results.items():
        cells = [name, len(found.completions), found.steps, found.tokens, f"{found.seconds:.2f}"]
        cells.append(f"{len(found.completions) / found.seconds:.2f}")
        for took, our_time in ((found.seconds, ours.seconds), (found.cpu_seconds, ours.cpu_seconds)):
            rate = found.tokens / took
            cells += [f"{rate:.1f}", f"{ours.tokens / our_time / rate:.2f} x"]
        if args.temperature == 0:
            pairs = zip(found.completions, ours.completions, strict=True)
            cells.append(sum(a == b for a, b in pairs))
        table.add_row(*map(str, cells))
    return table


def main() -> None:
    """Measure the contenders and print the table."""
    parser = parser_of(__doc__, tasks=4)
    parser.add_argument("--max-tokens", type=int, default=512, help="peers: limit of all after the prompt")
    parser.add_argument("--rounds", type=int, default=1, help="batches that are measured")
    args = parser.parse_args()
    hush()
    tasks = hotel_tasks(args.tasks + 1, args.seed)
    results: dict[str, Found] = {}
    with tempfile.TemporaryDirectory() as scratch:
        ours = Ours(args, tasks)
        results[ours.name] = measure(ours, args)
        copying = ours.copying
        del ours
        for make_contender in (lambda: Trl(args, tasks, scratch), lambda: Turns(args, tasks)):
            gc.collect()
            contender: Any = make_contender()
            results[contender.name] = measure(contender, args)
            del contender
    out = console()
    out.print(table_of(results, args))
    out.print(f"cm2 copies the weights once an update: {copying:.2f} s, not in the table")


if __name__ == "__main__":
    main()
