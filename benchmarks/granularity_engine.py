"""Cells of the granularity lab again, with a transformer, through the trainer that users have (`cm2 rl`).

    python benchmarks/granularity_engine.py -o runs/engine                       # a tiny random Llama; minutes
    python benchmarks/granularity_engine.py -o runs/engine --levels step,blend --flips 0.15 --updates 100
    python benchmarks/granularity_engine.py -o runs/engine-135m --model embedded  # SmolLM2-135M; hours on two cores

The tasks are three short ones of the sample worlds with a second turn. The cold start is `cm2 sft` on dialogues of an
agent that chooses among the lab's messages at random (`granularity_lab.graph.actions`), so that a tiny model with a
tokenizer made for these dialogues writes whole calls and replies, mostly wrong ones. The judge of `cm2 rl` is then
replaced by one that flips each verdict at the given rate. What is reported is the true reward: checks without noise on
the stored rollouts. Every run resumes; the cold start is made once.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np

from cm2.checklist import Checklist, Task
from cm2.credit import score
from cm2.dialogue import Dialogue
from cm2.formats import write_task
from cm2.judge import ChecksJudge
from cm2.label.reference import ReferenceLabeler
from cm2.rollout import Environment
from cm2.rollout.trace import read_rollouts
from cm2.verdict import Verdict
from cm2.worlds import MakeConfig, make, world_of
from granularity_lab.graph import STEPS, Graph, Open

DOMAINS = ("hotel", "bank", "telecom")


class Flipping(ChecksJudge):
    """Checks, each verdict turned round at a rate. The draws follow the order of judging, which a seed repeats."""

    def __init__(self, rate: float, seed: int):
        self.rate, self.rng = rate, np.random.default_rng(seed)

    def judge(self, dialogue: Dialogue, turn: int, checklist: Checklist, since: int = 0) -> list[Verdict]:
        """See `Judge.judge`."""
        found = super().judge(dialogue, turn, checklist, since)
        for verdict in found:
            if verdict.met is not None and self.rng.random() < self.rate:
                verdict.met = not verdict.met
        return found


def tasks() -> list[Task]:
    """One two-turn dialogue a domain."""
    found = []
    for dialogue in make(MakeConfig(profile="short", two_turns=1.0, count=3, domains=DOMAINS, seed=1)):
        task = ReferenceLabeler().label(dialogue).task
        if len(dialogue.turns) == 2:
            found.append(task)
    return found


def random_dialogues(chosen: list[Task], count: int, seed: int) -> list[Dialogue]:
    """Dialogues of an agent that picks a message at random, gates open."""
    graph, rng = Graph(chosen), np.random.default_rng(seed)
    found = []
    for number in range(count):
        i = number % len(chosen)
        environment = Environment(chosen[i], world_of(chosen[i]).session(), Open(), graph.limits)
        while not environment.done:
            choices = graph.choices[i][environment.turn]
            environment.feed(choices[int(rng.integers(len(choices)))])
        made = environment.dialogue
        made.id = f"{made.id}-{number}"
        found.append(made)
    return found


def cold_start(folder: Path, chosen: list[Task], epochs: float) -> str:
    """A tiny Llama that writes the lab's messages at random; its model folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from cm2.train.sft import SftConfig, train_sft
    from cm2.train.tokens import install

    data = folder / "random.jsonl"
    dialogues = random_dialogues(chosen, 600, 0)
    lines = [json.dumps(write_task(Task(each, []), "openai")) for each in dialogues]
    data.write_text("\n".join(lines) + "\n")
    start = folder / "random-model"
    if not start.exists():
        import torch

        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        core.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=1500, initial_alphabet=alphabet))
        end = "<|endoftext|>"
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=end, pad_token=end)
        torch.manual_seed(0)
        shape = {"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": 4}
        room = {"num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 2048}
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape, **room))
        install(model, tokenizer)
        model.save_pretrained(start)
        tokenizer.save_pretrained(start)
    config = SftConfig(
        input=str(data), output=str(folder / "sft"), model=str(start), epochs=epochs, lr=3e-3, batch=16, micro_batch=16
    )
    train_sft(config)
    return str(folder / "sft" / "model")


def run(folder: Path, pool: str, model: str, level: str, flip: float, args: argparse.Namespace) -> list[float]:
    """One run of `cm2 rl`; the true reward of each update."""
    from cm2.train import feedback
    from cm2.train.rl import RlConfig, train_rl

    name = f"{level}-{flip}-{args.seed}"
    plain = feedback.make_judge
    feedback.make_judge = lambda *_: Flipping(flip, args.seed)
    try:
        config = RlConfig(
            input=pool,
            output=str(folder / name),
            model=model,
            updates=args.updates,
            prompts=3,
            group=args.group,
            level=level,
            judge_flip=flip if level == "blend" else 0.0,
            lr=args.lr,
            warmup=0,
            beta=0.0,
            max_steps=STEPS,
            max_step_tokens=64,
            max_tokens=1500,
            seed=args.seed,
            save_every=120,
        )
        train_rl(config)
    finally:
        feedback.make_judge = plain
    return [true_reward(file) for file in sorted((folder / name / "rollouts").glob("step-*.jsonl"))]


def true_reward(file: Path) -> float:
    """The mean reward of an update's rollouts as checks without noise see them."""
    judge, found = ChecksJudge(), []
    for one in read_rollouts(str(file)):
        verdicts = [
            verdict
            for checklist in one.checklists
            if checklist.turn < len(one.dialogue.turns)
            for verdict in judge.judge(one.dialogue, checklist.turn, checklist)
        ]
        counts = [len(turn.steps) for turn in one.dialogue.turns]
        found.append(score(one.checklists, verdicts, counts, one.reference_turns).reward or 0.0)
    return float(np.mean(found))


def main() -> None:
    """Run the chosen cells and print a table."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("-o", "--output", type=Path, default=Path("runs/lab-engine"))
    options.add_argument("--levels", default="trajectory,step,blend,turn")
    options.add_argument("--flips", default="0.15,0")
    options.add_argument("--updates", type=int, default=60)
    options.add_argument("--group", type=int, default=24)
    options.add_argument("--lr", type=float, default=1e-3)
    options.add_argument("--epochs", type=float, default=14.0, help="of the tiny model's cold start")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--model", default="", help="a model folder or embedded, in place of the tiny one")
    given = options.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    chosen = tasks()
    pool = given.output / "pool.jsonl"
    pool.write_text("".join(json.dumps(write_task(task, "openai")) + "\n" for task in chosen))
    model = given.model or cold_start(given.output, chosen, given.epochs)
    rows: list[dict[str, Any]] = []
    for flip in map(float, given.flips.split(",")):
        for level in given.levels.split(","):
            curve = run(given.output, str(pool), model, level, flip, given)
            fifth = max(len(curve) // 5, 1)
            row = {"level": level, "flip": flip, "updates": len(curve)}
            rows.append(row | {"first": np.mean(curve[:fifth]), "last": np.mean(curve[-fifth:]), "all": np.mean(curve)})
            print(json.dumps(row | {"curve": [round(x, 3) for x in curve]}), flush=True)
    print("\n| level | flips | updates | true reward, first fifth | last fifth | mean |\n|---|---|---|---|---|---|")
    for row in rows:
        numbers = f"{row['first']:.3f} | {row['last']:.3f} | {row['all']:.3f}"
        print(f"| {row['level']} | {row['flip']:.0%} | {row['updates']} | {numbers} |")


if __name__ == "__main__":
    main()
