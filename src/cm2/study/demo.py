"""The demo: dialogues -> checklists -> rewards -> a trained agent, on one machine without a GPU.

    worlds -> rules -> label -> lint -> SFT -> RL -> evaluation of start, SFT and RL -> report

Every stage is a command that a person could type (see `cm2.study.stages`). RL gets the time that the other stages
leave: its minutes are what remains of the budget after the evaluation that follows is set aside, as long as the SFT
checkpoint's own took. What comes out is told as it came out, with intervals; nothing is tuned on the evaluation
dialogues, and the two unseen domains are never trained on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from cm2.study.compare import compare, verdict_of
from cm2.study.stages import Stages


class Plan(msgspec.Struct, kw_only=True, frozen=True):
    """How large a run of the ladder is. The defaults fit 30 minutes on 2 cores, set-up (about 2 minutes) included."""

    minutes: float = 26.5
    """Budget of all stages together; RL gets what the others leave."""
    rl_minutes: float | None = None
    """A fixed time for RL instead, for studies that compare seeds."""
    sft_dialogues: int = 160
    """Few enough that mistakes remain for RL to mend, enough that the format is learnt."""
    sft_epochs: float = 1
    sft_lr: float = 3e-4
    sft_batch: int = 8
    sft_micro: int = 8
    """Dialogues of one forward pass; only memory depends on it (8 of some 850 tokens each: 9.4 GB were seen)."""
    rl_dialogues: int = 2000
    """Fresh dialogues for every update: a small pool is memorised and held-out reward does not move."""
    heldout: int = 112
    unseen: int = 48
    start: int = 16
    """Tasks for the untrained model, which rambles to its token limit and scores zero: a few show it."""
    prompts: int = 8
    """Dialogues an update."""
    group: int = 8
    """Rollouts a dialogue."""
    lr: float = 1.5e-4
    beta: float = 0.0
    """The KL penalty's reference pass costs a fifth of an update, which a demo of a few dozen spends on updates."""
    layers: int = 12
    """Of 30: training the top of the network makes an update a third cheaper."""
    temperature: float = 0.8
    """Of rollouts and of the sampled evaluation: the policy that is optimised is the one that is measured."""
    level: str = "trajectory"
    updates: int = 1000
    max_step_tokens: int = 64
    max_tokens: int = 2048
    seed: int = 0
    model: str = "embedded"
    profile: str = "short"


QUICK = Plan(
    minutes=3.0,
    sft_dialogues=24,
    rl_dialogues=40,
    heldout=8,
    unseen=6,
    start=2,
    prompts=4,
    group=4,
    updates=2,
)


class Splits(msgspec.Struct):
    """The files that training and evaluation need. `evaluation` maps a split's name to its labelled file."""

    sft: Path
    rl: Path
    evaluation: dict[str, Path]


def run(folder: Path, plan: Plan) -> dict[str, Any]:
    """Run or resume the whole demo in `folder`; returns the comparison, and writes summary.json and report.html."""
    stages = Stages(folder, total=20, budget=plan.minutes * 60)
    return ladder(folder, stages, plan, sample_worlds(stages, folder / "data", plan))


def sample_worlds(stages: Stages, data: Path, plan: Plan) -> Splits:
    """Reference dialogues of the sample worlds, through the rules, labelled and linted."""
    data.mkdir(parents=True, exist_ok=True)
    counts = {"sft": plan.sft_dialogues, "rl": plan.rl_dialogues, "heldout": plan.heldout, "unseen": plan.unseen}
    for offset, (name, count) in enumerate(counts.items()):
        split = name if name in ("heldout", "unseen") else "train"
        seed = plan.seed * 1000 + offset
        stages.run(
            f"worlds-{name}", f"making {count} dialogues: {name}", "worlds", "make", "-o", data / f"{name}.jsonl",
            "-n", count, "--seed", seed, "--split", split, "--profile", plan.profile,
        )  # fmt: skip
    return curated(stages, data, {name: data / f"{name}.jsonl" for name in counts})


def curated(stages: Stages, data: Path, made: dict[str, Path]) -> Splits:
    """Rules on every file; checklists, and the proof that they are sound, on all but the one for SFT."""
    tasks = {}
    for name, file in made.items():
        kept = data / f"{name}.kept.jsonl"
        stages.run(
            f"filter-{name}",
            f"rules: {name}",
            "filter",
            file,
            "-o",
            kept,
            "--rejected",
            data / f"{name}.rejected.jsonl",
        )
        if name != "sft":
            tasks[name] = data / f"{name}.tasks.jsonl"
            stages.run(f"label-{name}", f"checklists: {name}", "label", kept, "-o", tasks[name])
            stages.run(f"lint-{name}", f"lint: {name}", "lint", tasks[name])
    return Splits(data / "sft.kept.jsonl", tasks.pop("rl"), tasks)


def ladder(folder: Path, stages: Stages, plan: Plan, splits: Splits) -> dict[str, Any]:
    """SFT, RL and the evaluations around them; the comparison and the report at the end."""
    sft, rl = folder / "sft", folder / "rl"
    evaluate(stages, folder, plan, splits, "start", plan.model, limit=plan.start)
    stages.run(
        "sft", f"cold start: SFT on {plan.sft_dialogues} dialogues", "sft", splits.sft, "-o", sft,
        "--model", plan.model, "--limit", plan.sft_dialogues, "--epochs", plan.sft_epochs, "--lr", plan.sft_lr,
        "--batch", plan.sft_batch, "--micro-batch", plan.sft_micro, "--max-tokens", plan.max_tokens,
        "--seed", plan.seed, "--save-every", 120,
    )  # fmt: skip
    evaluate(stages, folder, plan, splits, "sft", sft / "model")
    evaluation = stages.took("eval-sft")
    minutes = plan.rl_minutes if plan.rl_minutes is not None else max(0.5, (stages.left - evaluation - 25) / 60)
    minutes = stages.decide("rl-minutes", round(minutes, 2))
    stages.run(
        "rl", f"reinforcement learning: {plan.prompts} x {plan.group} rollouts an update", "rl", splits.rl, "-o", rl,
        "--model", sft / "model", "--minutes", minutes, "--updates", plan.updates, "--prompts", plan.prompts,
        "--group", plan.group, "--lr", plan.lr, "--beta", plan.beta, "--layers", plan.layers, "--level", plan.level,
        "--temperature", plan.temperature, "--max-step-tokens", plan.max_step_tokens,
        "--max-tokens", plan.max_tokens, "--seed", plan.seed, "--save-every", 240, about=minutes * 60,
    )  # fmt: skip
    evaluate(stages, folder, plan, splits, "rl", rl / "model", about=evaluation)
    found = compare([folder / "eval"], list(splits.evaluation))
    summary = {
        "verdict": verdict_of(found),
        "comparison": msgspec.to_builtins(found),
        "seconds": round(stages.elapsed),
        "stages": stages.times(),
        "plan": msgspec.to_builtins(plan),
    }
    stages.write("summary.json", summary)
    stages.run("report", "report", "report", folder, "-o", folder / "report.html")
    return summary


def evaluate(
    stages: Stages,
    folder: Path,
    plan: Plan,
    splits: Splits,
    name: str,
    model: str | Path,
    limit: int | None = None,
    about: float | None = None,
) -> None:
    """A checkpoint on every evaluation file, greedy and sampled; each into eval/NAME-SPLIT-MODE/."""
    files = list(splits.evaluation.values())
    stages.run(
        f"eval-{name}", f"evaluation of {name}: {', '.join(splits.evaluation)}; greedy, sampled", "evaluate", *files,
        "-o", folder / "eval", "--model", model, "--name", name,
        "--temperature", 0.0, "--temperature", plan.temperature,
        "--max-step-tokens", plan.max_step_tokens, "--max-tokens", plan.max_tokens, "--seed", plan.seed,
        *(["--limit", limit] if limit else []), about=about,
    )  # fmt: skip
