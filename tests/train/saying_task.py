"""Tasks that a model of random bytes can sometimes do, and such a model: reinforcement learning in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cm2.check import Reply
from cm2.checklist import Checklist, Task
from cm2.formats import write_task
from cm2.train.rl import RlConfig
from rollout.coffee_task import item, task
from rollout.tiny_models import tiny_chat

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 16}


def saying(i: int, patterns: tuple[str, ...] = ("[a-m]", "[A-Z]"), variants: int = 1) -> Task:
    """The reply should hold these; with several checklists a variant asks for one of them each."""
    one = task().dialogue
    one.id, one.turns = f"coffee-{i}", one.turns[:1]
    one.turns[0].user = f"Say something, number {i}."
    focus = "assistant.content.user_visible_reply"
    if variants > 1:
        lists = [
            Checklist(0, [item("C0", focus, 1.0, Reply(pattern=pattern))], v) for v, pattern in enumerate(patterns)
        ]
        return Task(one, lists)
    share = 1.0 / len(patterns)
    return Task(one, [Checklist(0, [item(f"C{n}", focus, share, Reply(pattern=p)) for n, p in enumerate(patterns)])])


def write(file: Path, tasks: list[Task]) -> str:
    file.write_text("".join(json.dumps(write_task(one, "openai")) + "\n" for one in tasks))
    return str(file)


def tiny_folder(folder: Path) -> str:
    model, tokenizer = tiny_chat(**SHAPE)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def settings(data: str, output: Path, model: str, **changes: Any) -> RlConfig:
    sizes: dict[str, Any] = {"prompts": 2, "group": 4, "updates": 4, "max_step_tokens": 6, "max_tokens": 1500}
    return RlConfig(input=data, output=str(output), model=model, **(sizes | {"lr": 1e-2, "seed": 3} | changes))


def numbers(folder: Path) -> list[dict[str, Any]]:
    """The metrics of a run, without clocks."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.startswith("seconds")} for line in lines]


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model" / "model.safetensors")
