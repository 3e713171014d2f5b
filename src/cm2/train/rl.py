"""Checklist reinforcement learning: tasks in, a better policy out.

    for every update:  take `prompts` tasks → roll out a group of each → judge → advantages → clipped policy gradient
                       with a KL penalty to the starting checkpoint

TRL's GRPOTrainer runs the loop (see `cm2.train.grpo`). What departs from plain GRPO, and why:

- advantages are those of `cm2.credit` (trajectory, turn or step level), one a token; F_norm is 1 by default;
- a group whose first `probe` members earned the same is not run to its end, it could teach nothing;
- the loss is the mean over sampled tokens; a token that was not sampled carries none;
- `layers` trains the top of the network only: cheaper per update, which on a CPU buys more updates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

import msgspec

from cm2.checklist import Task
from cm2.credit import Credit
from cm2.credit.config import Level, Normalise, Reading, TurnBaseline, TurnCredit
from cm2.errors import ConfigError, DataError, Where
from cm2.formats import read_tasks
from cm2.judge.judging import Judging
from cm2.judge.probes import Probing
from cm2.judge.run import fingerprint
from cm2.rollout.limits import Limits
from cm2.rollout.sampling import Sampling
from cm2.rollout.trace import Rollout, encode
from cm2.simulate.config import SimulatorConfig
from cm2.train import settings
from cm2.train.embedded import NAME, load_model, model_digest
from cm2.train.feedback import Feedback
from cm2.train.progress import Live, Stop
from cm2.train.roll import Roller, Row, rows_of, summary_of
from cm2.train.runs import Run
from cm2.worlds import outcome_for

KEPT_PROBLEMS = 5
Tasks = Iterable[tuple[int, Task]]
Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class RlConfig(msgspec.Struct, kw_only=True):
    """Everything that decides a run. The defaults suit the embedded model on a CPU; `recipes/` has the paper's."""

    input: str
    """Tasks: dialogues with checklists (cm2 label). Fresh ones at every update: a small pool is memorised."""
    output: str
    """The run folder. The same command goes on where a killed one stopped."""
    model: str = NAME
    """The cold start, also what the KL penalty holds on to: a run's model/ folder, a Hugging Face folder or name."""
    updates: Count = 200
    """Optimizer steps at the most."""
    minutes: Positive | None = None
    """Stop after so many minutes of training, resumed parts included."""
    prompts: Count = 8
    """Tasks an update. More of them steady the gradient."""
    group: Annotated[int, msgspec.Meta(ge=2)] = 8
    """Rollouts a task. The paper: 24 or 48, larger is better; on a CPU 8."""
    probe: Count | None = None
    """Members that are run first; where they all earn the same, the rest are not run. None runs all."""
    level: Level = "trajectory"
    """Where advantages are told apart; see `Credit`."""
    normalise: Normalise = "none"
    """Whether advantages are divided by the group's deviation; see `Credit`."""
    reading: Reading = "gated"
    """How items are paid that were judged true before their dependencies; see `Credit`."""
    turn_baseline: TurnBaseline = "group"
    """Turn level only; see `Credit`."""
    turn_credit: TurnCredit = "own"
    """Turn level only; see `Credit`."""
    lr: Positive = 2e-5
    """Learning rate after the warm-up, constant. The paper's 8B model: 3e-6."""
    warmup: Annotated[int, msgspec.Meta(ge=0)] = 2
    """Steps in which the learning rate rises."""
    beta: NotNegative = 1e-3
    """Coefficient of the KL penalty (k3) to the start. 0 saves the reference's forward pass and memory."""
    kl_gradient: Literal["k3", "unbiased"] = "k3"
    """k3: the gradient of the k3 estimate itself, as published. unbiased: k3 times the ratio, whose gradient is that of
    the reverse KL; choose it when the policy moves far from the start."""
    clip_low: Share = 0.2
    """How far the ratio to the sampling policy may fall before its gradient is cut. Matters when batches are reused."""
    clip_high: Positive = 0.2
    """How far it may rise; above clip_low it lets rare good actions grow faster."""
    loss: Literal["token_mean", "sequence_mean", "dr_grpo"] = "token_mean"
    """Mean over all sampled tokens of the batch (the paper), over each rollout's first, or over a constant length."""
    epochs: Count = 1
    """Passes over a batch of rollouts: cheap rollouts want 1, expensive ones 2 or more with clipping."""
    mini_batches: Count = 1
    """Optimizer steps a pass; must divide prompts × group."""
    layers: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Train only the top so many layers and the final norm; 0 trains everything."""
    lora: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Rank of LoRA adapters on all linear layers but the head; 0 trains the weights themselves."""
    temperature: Positive = 1.0
    """Of the rollouts. Lower is more careful and explores less; a group that agrees teaches nothing."""
    max_step_tokens: Count = 128
    """Tokens of one action; a longer one is cut off, and the rollout ends."""
    max_tokens: Count = 2048
    """Tokens of a whole rollout, its prompt included."""
    max_turns: Count | None = None
    """Turns of each dialogue that are played."""
    max_steps: Count = 8
    """Steps of a turn: ends an agent that calls tools in circles."""
    batch: Count = 128
    """Rollouts that are decoded at once."""
    micro_tokens: Count = 1536
    """Tokens of one forward and backward pass. Memory, not numbers, depends on it (about 1.5 MB a token at 135M)."""
    clip: Positive = 1.0
    """The largest gradient norm of a step."""
    weight_decay: NotNegative = 0.0
    """AdamW's pull to zero."""
    judging: Judging = msgspec.field(default_factory=Judging)
    """Who judges; see `Judging`. The default: compiled checks, without a model."""
    simulator: SimulatorConfig = msgspec.field(default_factory=SimulatorConfig)
    """Who answers the tools; see `SimulatorConfig`. The default: the task's own world, else replay and its fallback."""
    models: str | None = None
    """YAML file of the models that judge and simulate; needed where one of them asks a model."""
    probing: Probing = msgspec.field(default_factory=Probing)
    """What keeps an eye on the judge; see `Probing`. Off by default."""
    gold: Judging | None = None
    """The better judge of the probes; checks, where training pays by a model."""
    gold_models: str | None = None
    """YAML file of the gold judge's models; None: `models`."""
    calibration: str | None = None
    """File of `cm2 judge calibrate` about the judge: what canaries are held against."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the matrix products; auto: bfloat16 where the hardware multiplies it."""
    seed: int = 0
    """Decides the order of tasks, the worlds and every draw."""
    save_every: NotNegative = 300.0
    """Seconds between checkpoints (three times the model on disk); 0 makes none but on Ctrl-C."""
    format: str = "auto"
    """The format of `input`, when it cannot be told from the rows."""

    @property
    def credit(self) -> Credit:
        """The credit settings."""
        return Credit(
            reading=self.reading,
            level=self.level,
            normalise=self.normalise,
            turn_baseline=self.turn_baseline,
            turn_credit=self.turn_credit,
        )


FREE = (
    *("input", "output", "updates", "minutes", "save_every", "format", "micro_tokens", "batch"),
    *("models", "gold_models", "probing.on_alarm"),
)
"""Settings on which no number of a step depends: they may change when a run is resumed."""


PROBED = ("gold_training", "gold_reward", "canary_rate", "given_rate", "hold_out_training", "hold_out_reward")
"""Numbers of the probes that a summary tells."""


class Tasklist(msgspec.Struct):
    """The tasks of a file that can be trained on, and what else stood there."""

    tasks: list[Task] = []
    dialogues: int = 0
    without_checklists: int = 0
    unreadable: int = 0
    problems: list[str] = []


def read_all(path: str, format: str = "auto", limit: int | None = None) -> Tasklist:
    """The tasks of a file that have checklists.

    Raises:
        DataError: there is none.
    """
    found = Tasklist()

    def problem(row: Any) -> None:
        found.unreadable += 1
        if len(found.problems) < KEPT_PROBLEMS:
            found.problems.append(f"line {row.line}: {row.error}")

    for _, task in read_tasks(path, format, on_error=problem):
        found.dialogues += 1
        if task.checklists and task.dialogue.turns:
            found.tasks.append(task)
        else:
            found.without_checklists += 1
        if len(found.tasks) == limit:
            break
    if not found.tasks:
        raise DataError(
            f"none of {found.dialogues} dialogues has a checklist",
            where=Where(file=path),
            fix="label it first: cm2 label IN -o OUT",
        )
    return found


def train_rl(config: RlConfig) -> dict[str, Any]:
    """Train, or go on training, and return the summary; a finished run returns its summary at once.

    Raises:
        ConfigError: a setting is out of range, or the run folder holds another run.
        DataError: there is nothing to train on.
        KeyboardInterrupt: Ctrl-C or SIGTERM; a checkpoint was saved after the step at hand.
    """
    config = settings.check(RlConfig, config)
    if config.prompts * config.group % config.mini_batches:
        raise ConfigError(
            f"mini_batches {config.mini_batches} does not divide {config.prompts} prompts x {config.group} rollouts",
            fix="choose a divisor",
        )
    if config.layers and config.lora:
        raise ConfigError("layers and lora exclude each other", fix="give one of them")
    inputs = {"input": fingerprint(config.input), "model": model_digest(config.model)}
    inputs |= Feedback.asked(config.judging, config.simulator, config.models)
    with Run(config.output, "rl", config, inputs, FREE) as run:
        if run.summary is not None:
            return run.summary | {"finished_before": True}
        found = read_all(config.input, config.format)
        if len(found.tasks) < config.prompts:
            raise DataError(
                f"{len(found.tasks)} tasks are fewer than the {config.prompts} of one update",
                where=Where(file=config.input),
                fix="give more tasks or lower --prompts",
            )
        with feedback_of(config, run, found.tasks) as feedback:
            model, tokenizer = load_model(config.model)
            summary = _train(run, config, model, tokenizer, feedback)
        feedback.check()
        counts = {name: value for name, value in msgspec.to_builtins(found).items() if name != "tasks"}
        summary |= {"tasks": len(found.tasks)} | counts
        run.finish(summary)
        return summary | {"finished_before": False}


def feedback_of(config: RlConfig, run: Run, tasks: list[Task]) -> Feedback:
    """The judge, worlds and probes that the settings describe."""
    return Feedback(
        config.judging,
        config.simulator,
        config.probing,
        models=config.models,
        gold=config.gold,
        gold_models=config.gold_models,
        calibration=config.calibration,
        cache=str(run.folder / "llm.sqlite"),
        tasks=tasks,
        reading=config.reading,
        seed=config.seed,
    )


class Batch:
    """Rolls out the tasks of a step, stores the rollouts, and remembers the step's numbers."""

    def __init__(self, run: Run, config: RlConfig, roller: Roller, feedback: Feedback, model: Callable[[], Any]):
        self.run, self.config, self.roller, self.model = run, config, roller, model
        self.feedback, self.tasks = feedback, feedback.tasks
        self.numbers: dict[str, Any] = {}

    def __call__(self, indices: list[int], generation: int) -> list[Row]:
        """The rows of these tasks' groups, G a task; members that were not run are rows without a mask."""
        self.roller.driver.update_weights(self.model())
        self.roller.judge.seconds = 0.0
        groups = self.roller.roll([self.tasks[i] for i in indices], self.config.seed * 1_000_003 + generation)
        credited = [rows_of(group, self.config.credit)[0] for group in groups]
        self.numbers = summary_of(groups, credited, self.config.group)
        self.numbers["seconds_judge"] = round(self.roller.judge.seconds, 3)
        self._store(groups, generation)
        self.numbers |= self.feedback.numbers(groups, generation)
        stop = self.roller.driver.template.stop_ids[0]
        found: list[Row] = []
        for rows in credited:
            shown = next((row.prompt for row in rows if row.prompt), [stop])
            for row in rows + [Row(shown)] * (self.config.group - len(rows)):
                found.append(row if row.completion else Row(row.prompt or shown, [stop], [0], [0.0], [0.0]))
        return found

    def _store(self, groups: list[list[Rollout]], generation: int) -> None:
        folder = self.run.rollouts_folder
        folder.mkdir(exist_ok=True)
        first = generation * self.config.mini_batches * self.config.epochs + 1
        draft = folder / f".step-{first:05d}.tmp"
        draft.write_bytes(b"".join(encode(rollout) + b"\n" for group in groups for rollout in group))
        draft.replace(folder / f"step-{first:05d}.jsonl")


def _train(run: Run, config: RlConfig, model: Any, tokenizer: Any, feedback: Feedback) -> dict[str, Any]:
    from cm2.rollout.driver import Driver
    from cm2.train.engine import Deadline, make_trainer
    from cm2.train.keeping import Keeper, resume_path
    from cm2.train.trainer import save_result, sizes_of

    resumed, checkpoint = resume_path(run)
    run.resume_to(resumed)
    spent = sum(one["seconds"] for one in run.metrics())
    trainer = make_trainer(run, config, model, tokenizer, len(feedback.tasks))
    sampling = Sampling(
        temperature=config.temperature,
        max_step_tokens=config.max_step_tokens,
        max_tokens=config.max_tokens,
        seed=config.seed,
    )
    roller = Roller(
        Driver(trainer.model, tokenizer, sampling, batch=config.batch),
        config.credit,
        group=config.group,
        probe=config.probe,
        limits=Limits(turns=config.max_turns, steps=config.max_steps),
        judge=feedback.judge,
        world=feedback.world,
        outcome=outcome_for if config.simulator.kind == "auto" else None,
    )
    batch = Batch(run, config, roller, feedback, lambda: trainer.model)
    trainer.roll = batch

    def numbers(step: int) -> dict[str, Any]:
        seconds = {f"seconds_{name}": round(value, 3) for name, value in trainer.seconds.items()}
        told = batch.numbers | trainer.losses() | seconds | {"tokens_trained": trainer.tokens_forward}
        told |= feedback.alarms([*run.metrics(), told])
        stop.requested = stop.requested or feedback.stop
        return told

    minutes = None if config.minutes is None else config.minutes * 60 - spent
    with Stop() as stop, Live("rl", config.updates, resumed, seconds=minutes) as live:
        whole = config.epochs * config.mini_batches
        keeper = Keeper(run, live, stop, config.save_every or None, numbers, ("reward", "outcome", "kl"), whole)
        trainer.add_callback(keeper)
        trainer.add_callback(Deadline(minutes, time.monotonic()))
        if minutes is None or minutes > 0:
            trainer.train(resume_from_checkpoint=checkpoint)
    if stop.requested and trainer.state.global_step < config.updates:
        feedback.check()
        raise KeyboardInterrupt
    sizes = sizes_of(trainer.model)
    save_result(run, trainer, tokenizer)
    return _summary(run, config, resumed) | sizes | {"shared_prefix": trainer.shared_prefix}


def _summary(run: Run, config: RlConfig, resumed: int) -> dict[str, Any]:
    metrics = run.metrics()
    tail = max(1, len(metrics) // 5)

    def mean(name: str, part: list[dict[str, Any]]) -> float | None:
        values = [one[name] for one in part if one.get(name) is not None]
        return sum(values) / len(values) if values else None

    return {
        "run": str(run.folder),
        "model": str(run.model_folder),
        "start": config.model,
        "updates": len(metrics),
        "resumed_from": resumed,
        "first_reward": mean("reward", metrics[:tail]),
        "last_reward": mean("reward", metrics[-tail:]),
        "first_outcome": mean("outcome", metrics[:tail]),
        "last_outcome": mean("outcome", metrics[-tail:]),
        "last_kl": mean("kl", metrics[-tail:]),
        **{
            f"last_{name}": mean(name, metrics[-tail:])
            for name in (
                "gold_training",
                "gold_reward",
                "canary_rate",
                "given_rate",
                "hold_out_training",
                "hold_out_reward",
            )
            if any(name in one for one in metrics)
        },
        "alarms": list(dict.fromkeys(one["alarm"] for one in metrics if one.get("alarm"))),
        "rollouts": sum(one["rollouts"] for one in metrics),
        "failures": sum(one["failures"] for one in metrics),
        "tokens_generated": sum(one["tokens_generated"] for one in metrics),
        "tokens_trained": sum(one["tokens_trained"] for one in metrics),
        "seconds": round(sum(one["seconds"] for one in metrics), 1),
        "seconds_rollout": round(sum(one["seconds_rollout"] for one in metrics), 1),
    }
