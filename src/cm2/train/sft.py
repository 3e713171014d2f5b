"""Cold-start fine-tuning: dialogues in, a model out that acts like them. TRL's SFTTrainer runs the loop.

What departs from TRL's own preparation, and why:

- ids and mask are made here (see `cm2.train.masks`), so that training reads what rollouts will;
- every step is a random set of dialogues; inside it those that begin alike (one agent's system prompt and tools) stand
  together, and on a CPU a micro-batch reads their common beginning once, without padding, and applies the output head
  where there is loss only (see `cm2.train.loss`);
- bfloat16 only where the processor multiplies it natively; no gradient checkpointing unless asked for.

The loss is the mean over the trained tokens of a step, however they fall into micro-batches, and into processes
(`torchrun`): each computes its part of every step, the first one alone writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np

from cm2.checklist import Task
from cm2.errors import ConfigError, DataError, Where
from cm2.formats import read_tasks
from cm2.formats.origin import fingerprint
from cm2.rollout.template import ChatTemplate
from cm2.train import settings
from cm2.train.drivers import sharded
from cm2.train.embedded import load_model, model_digest
from cm2.train.joint import claim
from cm2.train.masks import BEGINNING, Example, example, schedule
from cm2.train.processes import Processes, join
from cm2.train.progress import Live, Stop, hush
from cm2.train.runs import Run
from cm2.train.sft_config import FREE, SftConfig

__all__ = ["Prepared", "SftConfig", "ordered", "prepare", "train_sft"]

KEPT_PROBLEMS = 5
Tasks = Iterable[tuple[int, Task]]


class Prepared(msgspec.Struct):
    """Examples, and the dialogues that gave none or only a part."""

    examples: list[Example] = []
    dialogues: int = 0
    cut: int = 0
    too_long: int = 0
    without_actions: int = 0
    unreadable: int = 0
    problems: list[str] = []


def prepare(
    config: SftConfig, template: ChatTemplate, progress: Callable[[Tasks], Tasks] = lambda tasks: tasks
) -> Prepared:
    """Read the dialogues and turn them into ids and masks.

    Raises:
        DataError: there is nothing to train on.
    """
    found = Prepared()

    def problem(row: Any) -> None:
        found.unreadable += 1
        if len(found.problems) < KEPT_PROBLEMS:
            found.problems.append(f"line {row.line}: {row.error}")

    for _, task in progress(read_tasks(config.input, config.format, on_error=problem)):
        found.dialogues += 1
        if not any(turn.steps for turn in task.dialogue.turns):
            found.without_actions += 1
            continue
        one = example(template, task.dialogue, config.max_tokens)
        if one is None:
            found.too_long += 1
            continue
        found.cut += one.cut > 0
        found.examples.append(one)
        if len(found.examples) == config.limit:
            break
    if not found.examples:
        raise DataError(
            f"none of {found.dialogues} dialogues can be trained: {found.too_long} have no step within "
            f"{config.max_tokens} tokens, {found.without_actions} have no assistant message",
            where=Where(file=config.input),
            fix="raise --max-tokens" if found.too_long else "give dialogues with assistant messages",
        )
    return found


def train_sft(config: SftConfig, progress: Callable[[Tasks], Tasks] = lambda tasks: tasks) -> dict[str, Any]:
    """Train, or go on training, and return the summary; a finished run returns its summary at once.

    Raises:
        ConfigError: a setting is out of range, or the run folder holds another run.
        DataError: there is nothing to train on.
        KeyboardInterrupt: Ctrl-C or SIGTERM; a checkpoint was saved after the step at hand.
    """
    config = settings.check(SftConfig, config)
    if how := sharded():
        raise ConfigError(f"cm2 sft trains whole models, not weights that are sharded by {how}", fix="use DDP, or lora")
    processes = join()
    if config.batch % (config.micro_batch * processes.ranks):
        several = "" if processes.alone else f" in each of {processes.ranks} processes"
        raise ConfigError(
            f"micro_batch {config.micro_batch}{several} does not divide batch {config.batch}",
            fix="choose a divisor of the batch",
        )
    inputs = processes.lead(lambda: {"input": fingerprint(config.input), "model": model_digest(config.model)})
    with claim(processes, config.output, "sft", config, inputs, FREE) as run:
        if run.summary is not None:
            return run.summary | {"finished_before": True}
        hush()
        model, tokenizer = processes.in_turn(lambda: load_model(config.model))
        prepared = processes.together(lambda: prepare(config, ChatTemplate(tokenizer), progress))
        resumed, summary = _train(run, config, model, tokenizer, prepared.examples, processes)
        counts = {name: getattr(prepared, name) for name in prepared.__struct_fields__}
        summary |= counts | {"resumed_from": resumed, "examples": len(prepared.examples)}
        run.finish(summary)
        return summary | {"finished_before": False}


def _train(
    run: Run, config: SftConfig, model: Any, tokenizer: Any, examples: list[Example], processes: Processes
) -> tuple[int, dict[str, Any]]:
    from cm2.train.agreement import Agreement
    from cm2.train.keeping import Keeper, resume_path
    from cm2.train.prefix import supports
    from cm2.train.trainer import make_trainer, save_result, sizes_of

    lengths = np.array([len(one.ids) for one in examples])
    trained = np.array([int(one.mask.sum()) for one in examples])
    packs = supports(model)
    order = ordered(examples, config, packs)
    steps = -(-len(order) // config.batch)
    resumed, checkpoint = processes.lead(lambda: resume_path(run))
    run.resume_to(resumed)

    def numbers(step: int) -> dict[str, Any]:
        mine = order[(step - 1) * config.batch : step * config.batch]
        epoch = min(step * config.batch, len(order)) / len(examples)
        return {"tokens": int(lengths[mine].sum()), "loss_tokens": int(trained[mine].sum()), "epoch": round(epoch, 4)}

    with Stop() as stop, Live("sft", steps, resumed) as live:
        live.console.quiet = not processes.first
        trainer = make_trainer(run, config, model, tokenizer, examples, order, packs, processes)
        trainer.add_callback(Keeper(run, live, stop, config.save_every or None, numbers))
        trainer.add_callback(Agreement(processes, stop))
        with processes.watched():
            trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.state.global_step < steps:
        raise KeyboardInterrupt
    sizes = sizes_of(trainer.model)  # before adapters are merged
    save_result(run, trainer, tokenizer)
    metrics = processes.lead(run.metrics)
    tail = metrics[-max(1, steps // 10) :]
    seconds = sum(one["seconds"] for one in metrics)
    return resumed, {
        "run": str(run.folder),
        "model": str(run.model_folder),
        "start": config.model,
        "steps": steps,
        "epochs": config.epochs,
        "tokens": sum(one["tokens"] for one in metrics),
        "loss_tokens": sum(one["loss_tokens"] for one in metrics),
        "first_loss": metrics[0]["loss"],
        "last_loss": sum(one["loss"] for one in tail) / len(tail),
        "seconds": round(seconds, 1),
        "tokens_per_second": round(sum(one["tokens"] for one in metrics) / max(seconds, 1e-9), 1),
        "dtype": trainer.product_dtype,
    } | sizes


def ordered(examples: list[Example], config: SftConfig, packs: bool) -> list[int]:
    """The order of training; inside a step equal beginnings stand together where they can be shared, else lengths."""
    known: dict[bytes, int] = {}
    if packs:
        ranks = [known.setdefault(one.ids[:BEGINNING].tobytes(), len(known)) for one in examples]
    else:
        ranks = [-len(one.ids) for one in examples]
    return schedule(ranks, config.epochs, config.batch, config.seed)
