"""The folder of a training run made by hand: it learns, holds out tasks, and collapses late."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from cm2.dialogue import Dialogue
from cm2.formats.jsonlines import encode
from cm2.rollout.trace import Rollout
from cm2.train.best import compare, look_of
from cm2.train.reproduce import Record, Session, hash_of

CONFIG = {"input": "pool.tasks.jsonl", "output": "runs/rl", "updates": 160, "prompts": 8, "group": 8, "seed": 0}
KINDS = {"call": (0.35, 0.9), "argument": (0.25, 0.8), "reply": (0.5, 0.85), "order": (0.4, 0.7)}
DOMAINS = {"bank": (0.45, 0.85), "hotel": (0.35, 0.75), "clinic": (0.3, 0.7)}


def rows(steps: int = 140, turn: int = 105, seed: int = 0) -> list[dict[str, Any]]:
    """The metrics of every step; from `turn` on the policy collapses."""
    rng = np.random.default_rng(seed)
    found = []
    for t in range(steps):
        late, rise = max(0, t - turn), 1 - float(np.exp(-t / 45))
        slump = max(0.3, 1 - 0.018 * late)
        reward = (0.42 + 0.4 * rise) * slump
        row = {
            "step": t + 1,
            "generation": t,
            "loss": rng.normal(0, 0.02),
            "lr": 1.5e-4,
            "grad_norm": rng.gamma(8, 0.01),
        }
        row |= {"reward": reward + rng.normal(0, 0.05), "strict_pass": reward - 0.22 + rng.normal(0, 0.05)}
        row |= {"outcome": reward - 0.18 + rng.normal(0, 0.05), "reward_std": 0.3 * slump + rng.normal(0, 0.02)}
        row |= {"entropy": 0.3 * float(np.exp(-t / 90 - late / 14)) + 0.02 + rng.normal(0, 0.006)}
        row |= {"kl": 4e-4 * t * float(1.06**late) * np.exp(rng.normal(0, 0.2)), "clip_ratio": rng.gamma(2, 0.004)}
        row |= {"rollouts": 64, "failures": int(rng.random() < 0.1), "unscored": max(0.0, rng.normal(0.02, 0.008))}
        row |= {"judge_agreement": min(1.0, rng.normal(0.95, 0.02)), "malformed": max(0.0, rng.normal(0.05, 0.02))}
        row |= {"gold_training": reward + rng.normal(0, 0.04), "gold_reward": reward - 0.02 + rng.normal(0, 0.05)}
        row |= {"length": 62 - 12 * rise + rng.normal(0, 2), "steps": 3.1 + rng.normal(0, 0.1)}
        row |= {"truncated_share": max(0.0, rng.normal(0.02, 0.01)), "dead_groups": min(1.0, 0.1 + 0.02 * late)}
        row |= {"groups_stopped_early": 0, "tokens_generated": 3600, "tokens_trained": 2500}
        row |= {"seconds": 41 + rng.normal(0, 2), "seconds_rollout": 16 + rng.normal(0, 1), "seconds_judge": 0.03}
        row |= {f"duty/{name}": (a + (b - a) * rise) * slump + rng.normal(0, 0.05) for name, (a, b) in KINDS.items()}
        row |= {
            f"domain/{name}": (a + (b - a) * rise) * slump + rng.normal(0, 0.07) for name, (a, b) in DOMAINS.items()
        }
        found.append(
            {name: round(float(value), 6) if isinstance(value, float) else value for name, value in row.items()}
        )
    return found


def write_training_run(folder: Path, steps: int = 140, **config: Any) -> Path:
    """The folder; `config` adds settings."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = CONFIG | config
    told = {"verb": "rl", "config": settings, "inputs": {"input": "1f"}}
    (folder / "config.json").write_text(json.dumps(told))
    made = rows(steps)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    rng, best, looks = np.random.default_rng(1), None, []
    skill = rng.uniform(0.2, 0.8, 64)
    for step in range(0, steps + 1, 20):
        now = made[max(0, step - 1)]["reward"]
        rewards = np.clip(skill + now - 0.5 + rng.normal(0, 0.12, 64), 0, 1)
        rollouts = [
            Rollout(f"t{i}", Dialogue("t"), score={"reward": float(r), "strict_pass": bool(r > 0.9)})
            for i, r in enumerate(rewards)
        ]
        look = compare(look_of(step, rollouts), best)
        best = look if look.best else best
        looks.append(look)
    (folder / "heldout.jsonl").write_bytes(b"".join(encode(look) + b"\n" for look in looks))
    versions = {"python": "3.11.7", "cm2": "0.1.0", "cm2 code": "5f0c", "torch": "2.13.0", "trl": "0.26.0"}
    machine = {"system": "Linux x86_64", "processor": "a processor", "cores": 2, "threads": 1}
    first = Session(began="2026-01-05T09:00:00Z", versions=versions, machine=machine)
    second = Session(
        began="2026-01-05T11:30:00Z", resumed_from=80, versions=versions | {"torch": "2.14.0"}, machine=machine
    )
    record = Record(
        verb="rl", config=settings, config_hash=hash_of(settings), inputs={"input": "1f"}, seeds={"seed": 0},
        sessions=[first, second],
    )  # fmt: skip
    (folder / "reproduce.json").write_bytes(encode(record))
    return folder
