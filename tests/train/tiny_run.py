"""A reinforcement learning run small enough for a test: a random Llama of two layers that is paid for letters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cm2.check import Reply
from cm2.checklist import Checklist, Task
from cm2.formats import write_task
from rollout.coffee_task import item, task

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 16}
TIMES = ("seconds", "llm_")
"""Numbers that may differ between two runs that are the same."""


def make_model(folder: Path) -> str:
    """A random model with its tokenizer."""
    from rollout.tiny_models import tiny_chat

    model, tokenizer = tiny_chat(**SHAPE)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def made(i: int, checks: bool = True, prefix: str = "coffee") -> Task:
    """A one-turn task that a model of random bytes can sometimes do: its reply holds certain letters."""
    one = task().dialogue
    one.id, one.turns, one.meta = f"{prefix}-{i}", one.turns[:1], {"domain": ("bar", "shop")[i % 2]}
    one.turns[0].user = f"Say something, number {i}."
    found = [
        item(f"C{n}", "assistant.content.user_visible_reply", 0.5, Reply(pattern=pattern) if checks else None)
        for n, pattern in enumerate(("[a-m]", "[A-Z]"))
    ]
    found[0].kind, found[1].kind = "small", "capital"
    return Task(one, [Checklist(0, found)])


def write_tasks(file: Path, count: int, checks: bool = True, prefix: str = "coffee") -> str:
    """A file of such tasks."""
    rows = [json.dumps(write_task(made(i, checks, prefix), "openai")) for i in range(count)]
    file.write_text("\n".join(rows) + "\n")
    return str(file)


def settings(folder: Path, model: str, tasks: str, **changes: Any) -> Any:
    """The settings of such a run."""
    from cm2.train.rl_config import RlConfig

    sizes = {"prompts": 2, "group": 4, "updates": 4, "max_step_tokens": 6, "max_tokens": 1500, "lr": 1e-2, "seed": 3}
    return RlConfig(**({"input": tasks, "output": str(folder), "model": model} | sizes | changes))


def numbers(folder: Path) -> list[dict[str, Any]]:
    """What a run put on record, without what only time decides."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.startswith(TIMES)} for line in lines]


def weights(folder: Path) -> dict[str, Any]:
    """The result's tensors."""
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")
