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
from collections.abc import Callable
from typing import Any

import msgspec

from cm2.checklist import Task
from cm2.errors import DataError, Where
from cm2.rollout.limits import Limits
from cm2.rollout.sampling import Sampling
from cm2.rollout.trace import Rollout, encode
from cm2.train import quality, reproduce, settings, space, threads
from cm2.train.drivers import allowed, let_go, make_driver, sharded
from cm2.train.dynamic import Drawn, draw
from cm2.train.embedded import load_model
from cm2.train.feedback import Feedback
from cm2.train.inputs import digests_of
from cm2.train.joint import claim
from cm2.train.processes import Processes, join
from cm2.train.progress import Live, Stop
from cm2.train.rl_config import FREE, RlConfig
from cm2.train.roll import Roller, Row, credit_group, rows_of, strict_reward, summary_of
from cm2.train.runs import Run
from cm2.train.tasklist import Tasklist, read_all
from cm2.worlds import outcome_for

__all__ = ["FREE", "PROBED", "Batch", "RlConfig", "Tasklist", "feedback_of", "read_all", "train_rl"]

PROBED = ("gold_training", "gold_reward", "canary_rate", "given_rate", "hold_out_training", "hold_out_reward")
"""Numbers of the probes that a summary tells."""


def train_rl(config: RlConfig) -> dict[str, Any]:
    """Train, or go on training, and return the summary; a finished run returns its summary at once.

    Raises:
        ConfigError: a setting is out of range, or the run folder holds another run.
        DataError: there is nothing to train on.
        KeyboardInterrupt: Ctrl-C or SIGTERM; a checkpoint was saved after the step at hand.
    """
    config = settings.check(RlConfig, config)
    config.consistent()
    allowed(config, sharded())
    processes = join()
    processes.share(config.prompts, "prompts")
    processes.share(config.prompts * config.group // config.mini_batches, "rollouts of a mini-batch")
    inputs = processes.lead(lambda: digests_of(config))
    with claim(processes, config.output, "rl", config, inputs, FREE) as run:
        if run.summary is not None:
            return run.summary | {"finished_before": True}
        found = read_all(config.input, config.format)
        if len(found.tasks) < config.prompts:
            raise DataError(
                f"{len(found.tasks)} tasks are fewer than the {config.prompts} of one update",
                where=Where(file=config.input),
                fix="give more tasks or lower --prompts",
            )
        chosen = processes.lead(lambda: threads.settle(config.threads, run.folder))
        threads.settle(chosen if config.threads == "auto" else config.threads, run.folder)
        with feedback_of(config, run, found.tasks) as feedback:
            model, tokenizer = processes.in_turn(lambda: load_model(config.model))
            summary = _train(run, config, model, tokenizer, feedback, processes, inputs)
        processes.together(feedback.check)
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
        outage_minutes=config.outage_minutes,
        alarming=config.alarms,
        moving=config.gate != "ends" and config.curriculum > 0,
    )


class Batch:
    """Rolls out the tasks of a step, stores the rollouts, and remembers the step's numbers."""

    def __init__(
        self,
        run: Run,
        config: RlConfig,
        roller: Roller,
        feedback: Feedback,
        model: Callable[[], Any],
        processes: Processes | None = None,
    ):
        self.run, self.config, self.roller, self.model = run, config, roller, model
        self.processes = processes or Processes()
        self.feedback, self.tasks = feedback, feedback.tasks
        self.numbers: dict[str, Any] = {}

    def __call__(self, indices: list[int], generation: int) -> list[Row]:
        """The rows of these tasks' groups, G a task; members that were not run are rows without a mask."""
        self.roller.driver.update_weights(self.model())
        self.roller.judge.seconds = 0.0
        self.roller.credit = self.config.credit_of(self._first_step(generation) - 1)
        drawn = self.processes.together(lambda: self._draw(indices, generation))
        credited = [rows_of(group, self.roller.credit)[0] for group in drawn.groups]
        everyone = drawn.of_all(self.processes)
        self.numbers = self.processes.lead(lambda: self._numbers(everyone, generation))
        stop = self.roller.driver.template.stop_ids[0]
        found: list[Row] = []
        for rows in credited:
            shown = next((row.prompt for row in rows if row.prompt), [stop])
            for row in rows + [Row(shown)] * (self.config.group - len(rows)):
                found.append(row if row.completion else Row(row.prompt or shown, [stop], [0], [0.0], [0.0]))
        return found

    def _draw(self, indices: list[int], generation: int) -> Drawn:
        seed = self.config.seed * 1_000_003 + generation

        def roll(chosen: list[int], number: int, first: int) -> list[list[Rollout]]:
            further = number * 500_000_003  # no two rounds share a seed, and the first keeps the update's own
            return self.roller.roll([self.tasks[i] for i in chosen], seed + further, first)

        def signal(group: list[Rollout]) -> bool:
            return credit_group(group, self.roller.credit).signal

        return draw(indices, len(self.tasks), self.config.resample, seed, roll, signal, self.processes)

    def _numbers(self, drawn: Drawn, generation: int) -> dict[str, Any]:
        """Put the groups of all processes on record; what the metrics say of them."""
        credit, groups = self.roller.credit, drawn.first
        credited = [rows_of(group, credit)[0] for group in groups]
        found = summary_of(groups, credited, self.config.group, drawn.further)
        if self.config.algorithm == "ppo":  # its critic learns from members that earned the same, too
            found["groups_without_signal"] = sum(not any(any(row.mask) for row in rows) for rows in credited)
        if self.config.resample:
            found |= {"groups_resampled": len(drawn.further), "groups_replaced": drawn.replaced}
        if credit.gate != "ends":
            found |= {"strictness": credit.strictness, "reward_strict": strict_reward(groups, credit)}
        found["seconds_judge"] = round(self.roller.judge.seconds, 3)
        self._store(drawn.everyone, generation)
        found |= self.feedback.numbers(drawn.everyone, generation)
        return found | quality.numbers_of(groups, generation, found)

    def _first_step(self, generation: int) -> int:
        """The first optimizer step, from 1, that the rollouts of a generation serve."""
        return generation * self.config.mini_batches * self.config.epochs + 1

    def _store(self, groups: list[list[Rollout]], generation: int) -> None:
        folder = self.run.rollouts_folder
        folder.mkdir(exist_ok=True)
        first = self._first_step(generation)
        draft = folder / f".step-{first:05d}.tmp"
        lines = b"".join(encode(rollout) + b"\n" for group in groups for rollout in group)
        space.need(folder, len(lines), "the rollouts of an update")
        with space.telling(folder, "the rollouts of an update"):
            draft.write_bytes(lines)
        draft.replace(folder / f"step-{first:05d}.jsonl")


def _train(
    run: Run,
    config: RlConfig,
    model: Any,
    tokenizer: Any,
    feedback: Feedback,
    processes: Processes,
    inputs: dict[str, str],
) -> dict[str, Any]:
    from cm2.train.agreement import Agreement
    from cm2.train.benchmarks import Benchmarks
    from cm2.train.engine import Deadline, make_trainer
    from cm2.train.heldout import Heldout
    from cm2.train.keeping import Keeper, resume_path
    from cm2.train.trainer import save_result, sizes_of

    resumed, checkpoint = processes.lead(lambda: resume_path(run))
    run.resume_to(resumed)
    processes.lead(lambda: reproduce.note(run, "rl", config, inputs, resumed, feedback.say) and None)
    spent = processes.lead(lambda: sum(one["seconds"] for one in run.metrics()))
    trainer = make_trainer(run, config, model, tokenizer, len(feedback.tasks), processes)
    sampling = Sampling(
        temperature=config.temperature,
        max_step_tokens=config.max_step_tokens,
        max_tokens=config.max_tokens,
        seed=config.seed,
    )
    roller = Roller(
        make_driver(config, run.folder / "weights", trainer.model, tokenizer, sampling, processes),
        config.credit,
        group=config.group,
        probe=config.probe,
        limits=Limits(turns=config.max_turns, steps=config.max_steps),
        judge=feedback.judge,
        world=feedback.world,
        outcome=outcome_for if config.simulator.kind == "auto" else None,
    )
    batch = Batch(run, config, roller, feedback, lambda: trainer.model, processes)
    trainer.roll = batch
    held = processes.together(
        lambda: Heldout(
            run, config, roller.driver, feedback, lambda: trainer.model, tokenizer, resumed, processes.first
        )
    )
    looked = processes.together(
        lambda: Benchmarks(run, config, lambda: trainer.model, tokenizer, resumed, processes.first)
    )
    run.make_room(trainer.checkpoint_bytes())

    def numbers(step: int) -> dict[str, Any]:
        seconds = {f"seconds_{name}": round(value, 3) for name, value in trainer.seconds.items()}
        trained = sum(processes.every(trainer.tokens_forward))
        told = batch.numbers | trainer.losses() | seconds | {"tokens_trained": trained}
        told |= processes.lead(lambda: held.after(step) | looked.after(step))
        told |= processes.lead(lambda: feedback.alarms([*run.metrics(), told | {"step": step}]))
        stop.requested = stop.requested or feedback.stop
        return told

    minutes = None if config.minutes is None else config.minutes * 60 - spent
    with Stop() as stop, Live("rl", config.updates, resumed, seconds=minutes) as live:
        live.console.quiet = not processes.first
        whole = config.epochs * config.mini_batches
        keeper = Keeper(run, live, stop, config.save_every or None, numbers, ("reward", "outcome", "kl"), whole)
        trainer.add_callback(keeper)
        trainer.add_callback(Deadline(minutes, time.monotonic()))
        trainer.add_callback(Agreement(processes, stop))
        if minutes is None or minutes > 0:
            with processes.watched():
                processes.lead(held.start)
                processes.lead(looked.start)
                trainer.train(resume_from_checkpoint=checkpoint)
    if stop.requested and trainer.state.global_step < config.updates:
        processes.together(feedback.check)
        raise KeyboardInterrupt
    last = trainer.state.global_step
    sizes = sizes_of(trainer.model) | processes.lead(lambda: held.end(last) | looked.end(last))
    save_result(run, trainer, tokenizer)
    let_go(roller.driver, run.folder / "weights", processes)
    return processes.lead(lambda: _summary(run, config, resumed)) | sizes | {"shared_prefix": trainer.shared_prefix}


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
