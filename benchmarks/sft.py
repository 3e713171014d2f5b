"""Fine-tuning speed on this machine: `cm2 sft` beside TRL's SFTTrainer, same model, same dialogues, same steps.

    python benchmarks/sft.py [DIALOGUES] [--steps 3] [--batch 8] [--micro-batch 4] [--defaults]

Without DIALOGUES it makes short ones in the sample worlds. Every contender runs in a process of its own; its speed is
the dialogues' tokens (padding not counted) over the seconds of its training loop. TRL is run as its documentation says
(`assistant_only_loss=True`), once with gradient checkpointing off and the number type that is fastest here, and with
--defaults also as it comes (checkpointing on, bfloat16 whatever the processor). Prints one JSON object a contender and
the ratios. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")


def main() -> None:
    """Run every contender and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dialogues", nargs="?")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--defaults", action="store_true", help="also TRL as it comes (slow without bfloat16)")
    parser.add_argument("--only", choices=("cm2", "trl", "trl-defaults"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(run(args)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        if args.dialogues is None:
            args.dialogues = f"{scratch}/dialogues.jsonl"
            _cm2("worlds", "make", "-o", args.dialogues, "-n", args.steps * args.batch, "--profile", "short", "--json")
        names = ["trl", "cm2", *(["trl-defaults"] if args.defaults else [])]
        found = {name: _apart(name, args) for name in names}
    for name in names:
        print(json.dumps({"contender": name} | found[name]))
    for name in names:
        if name != "cm2":
            wall = found["cm2"]["tokens_per_second"] / found[name]["tokens_per_second"]
            cpu = found["cm2"]["tokens_per_cpu_second"] / found[name]["tokens_per_cpu_second"]
            print(f"cm2 / {name}: {wall:.2f} x tokens a second, {cpu:.2f} x tokens a CPU second")


def _cm2(*argv: object) -> None:
    subprocess.run([sys.executable, "-m", "cm2", *map(str, argv)], check=True, stdout=subprocess.DEVNULL)


def _apart(name: str, args: argparse.Namespace) -> dict[str, float]:
    flags = {"--model": args.model, "--steps": args.steps, "--batch": args.batch, "--micro-batch": args.micro_batch}
    argv = [str(part) for pair in flags.items() for part in pair]
    command = [sys.executable, __file__, args.dialogues, "--only", name, *argv]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def run(args: argparse.Namespace) -> dict[str, float]:
    """Train one contender and measure its training loop."""
    from cm2.rollout.template import ChatTemplate
    from cm2.train.embedded import load_model
    from cm2.train.progress import hush
    from cm2.train.sft import SftConfig, prepare

    hush()
    with tempfile.TemporaryDirectory() as scratch:
        config = SftConfig(
            input=args.dialogues,
            output=f"{scratch}/run",
            model=args.model,
            epochs=1,
            batch=args.batch,
            micro_batch=args.micro_batch,
            limit=args.steps * args.batch,
            save_every=0,
        )
        model, tokenizer = load_model(args.model)
        examples = prepare(config, ChatTemplate(tokenizer)).examples
        if args.only == "cm2":
            trainer = ours(config, model, tokenizer, examples)
        else:
            trainer = trl(config, model, tokenizer, defaults=args.only == "trl-defaults")
        wall, cpu = time.perf_counter(), time.process_time()
        trainer.train()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    tokens = sum(len(one.ids) for one in examples)
    return {
        "tokens": tokens,
        "seconds": round(wall, 2),
        "tokens_per_second": round(tokens / wall, 1),
        "tokens_per_cpu_second": round(tokens / cpu, 1),
        "loss": round(trainer.state.log_history[0]["loss"], 4),
    }


def ours(config, model, tokenizer, examples):
    """The trainer that `cm2 sft` uses."""
    from cm2.train.prefix import supports
    from cm2.train.runs import Run
    from cm2.train.sft import ordered
    from cm2.train.trainer import make_trainer

    packs = supports(model)
    run = Run(config.output, "sft", config, {})
    return make_trainer(run, config, model, tokenizer, examples, ordered(examples, config, packs), packs)


def trl(config, model, tokenizer, defaults: bool):
    """TRL's trainer on the same dialogues as messages."""
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    from cm2.formats import read_tasks
    from cm2.rollout.decode import native_dtype
    from cm2.rollout.template import tool_schema

    rows = []
    for _, task in read_tasks(config.input):
        tools = [tool_schema(tool) for tool in task.dialogue.tools]
        rows.append({"messages": messages_of(task.dialogue), "tools": json.dumps(tools)})
    chosen = {} if defaults else {"gradient_checkpointing": False, "bf16": native_dtype() == torch.bfloat16}
    args = SFTConfig(
        output_dir=config.output,
        assistant_only_loss=True,
        num_train_epochs=1,
        per_device_train_batch_size=config.micro_batch,
        gradient_accumulation_steps=config.batch // config.micro_batch,
        learning_rate=config.lr,
        use_cpu=True,
        max_length=None,
        save_strategy="no",
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        **chosen,
    )
    data = Dataset.from_list(rows[: config.limit])
    trainer = SFTTrainer(model=model, args=args, train_dataset=data, processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    return trainer


def messages_of(dialogue) -> list[dict]:
    """The whole dialogue as messages."""
    from cm2.rollout.messages import assistant_message, opening_messages, tool_message

    messages = opening_messages(dialogue)
    for number, turn in enumerate(dialogue.turns):
        if number:
            messages.append({"role": "user", "content": turn.user})
        for step in turn.steps:
            messages += [assistant_message(step), *map(tool_message, step.responses)]
    return messages


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
    main()
