"""Evaluating a checkpoint on held-out tasks: rollouts with local weights, judged, summed up with intervals.

The store of rollouts is append-only, so a killed evaluation goes on where it stopped; a failed rollout is tried again.
Three numbers say how good an agent is: the checklist reward R, the share of strict passes (every item satisfied), and,
where the task's world can tell, the share of true successes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import msgspec

from cm2.checklist import Task
from cm2.credit import Credit
from cm2.errors import DataError, Where
from cm2.evals.intervals import Interval, interval
from cm2.formats.jsonlines import encode
from cm2.formats.origin import claim, fingerprint
from cm2.formats.store import Store
from cm2.judge import ChecksJudge
from cm2.rollout.environment import Environment
from cm2.rollout.limits import Limits
from cm2.rollout.sampling import Sampling
from cm2.rollout.trace import Rollout, read_rollouts
from cm2.train.embedded import NAME, load_model, model_digest
from cm2.train.rl import read_all
from cm2.train.roll import score_of
from cm2.worlds import outcome_for, world_for

METRICS = ("reward", "strict_pass", "outcome")
Count = Annotated[int, msgspec.Meta(ge=1)]


class EvaluateConfig(msgspec.Struct, kw_only=True):
    """Which checkpoint runs which tasks, and how."""

    input: str
    """Tasks: dialogues with checklists that were never trained on."""
    output: str
    """A folder: rollouts.jsonl (resumable) and summary.json."""
    model: str = NAME
    """"embedded", a Hugging Face folder or name."""
    name: str = ""
    """What tables call the checkpoint (start, sft, rl); default the folder's name."""
    split: str = ""
    """What tables call the tasks (heldout, unseen); default the input's name."""
    temperature: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """0 is greedy: what a deployed agent does. 1 shows the policy that reinforcement learning sees."""
    group: Count = 1
    """Rollouts a task. More of them narrow the interval of a sampled policy."""
    limit: Count | None = None
    """Only the first so many tasks."""
    max_step_tokens: Count = 128
    """Tokens of one action."""
    max_tokens: Count = 2048
    """Tokens of a whole rollout."""
    max_steps: Count = 8
    """Steps of a turn."""
    batch: Count = 128
    """Rollouts decoded at once."""
    seed: int = 0
    """Of draws and worlds."""
    format: str = "auto"
    """The format of `input`, when it cannot be told from the rows."""

    @property
    def label(self) -> str:
        """The checkpoint's name in tables."""
        return self.name or Path(self.model).name

    @property
    def of(self) -> str:
        """The tasks' name in tables."""
        return self.split or Path(self.input).name.split(".")[0]

    @property
    def mode(self) -> str:
        """greedy or sampled."""
        return "greedy" if self.temperature == 0 else "sampled"


class Kind(msgspec.Struct):
    """Items of one kind: satisfied, not satisfied, unscored."""

    items: int = 0
    passed: int = 0
    failed: int = 0
    unscored: int = 0


class Evaluation(msgspec.Struct):
    """What came out."""

    name: str
    split: str
    mode: str
    model: str
    tasks: int = 0
    rollouts: int = 0
    valid: int = 0
    reward: Interval | None = None
    strict_pass: Interval | None = None
    outcome: Interval | None = None
    kinds: dict[str, Kind] = {}
    reasons: dict[str, int] = {}
    failures: dict[str, int] = {}
    generated_tokens: int = 0
    seconds: float = 0.0


Progress = Callable[[Iterator[Any], int], Iterator[Any]]
Load = Callable[[str], tuple[Any, Any]]


def several(
    config: EvaluateConfig, inputs: list[str], temperatures: list[float], progress: Progress
) -> list[Evaluation]:
    """The checkpoint on each input at each temperature, loaded once; into OUTPUT/NAME-SPLIT-MODE/ each (several sampled
    ones with their temperature).

    Args:
        config: what holds for all; `output` is the folder above.
        inputs, temperatures: every pair of them is an evaluation.
        progress: see `evaluate`.
    """
    load = cache(load_model)
    found = []
    for path in inputs:
        for temperature in temperatures:
            own = msgspec.structs.replace(config, input=path, temperature=temperature)
            which = f"{own.mode}-{temperature:g}" if sum(map(bool, temperatures)) > 1 and temperature else own.mode
            folder = Path(config.output) / f"{own.label}-{own.of}-{which}"
            found.append(evaluate(msgspec.structs.replace(own, output=str(folder)), progress, load))
    return found


def evaluate(
    config: EvaluateConfig, progress: Progress = lambda chunks, total: chunks, load: Load = load_model
) -> Evaluation:
    """Roll out the tasks that the store does not hold yet, and sum up all of them.

    Args:
        config: what to do.
        progress: wraps the chunks of work, given how many there are.
        load: gives the model and its tokenizer, by name; called only when there is something to roll out.

    Raises:
        ConfigError: the store holds an evaluation of something else.
        DataError: no task has a checklist.
    """
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    store_file = str(folder / "rollouts.jsonl")
    settings = [
        config.temperature,
        config.group,
        config.max_step_tokens,
        config.max_tokens,
        config.max_steps,
        config.seed,
    ]
    asked = {
        "input": fingerprint(config.input),
        "model": model_digest(config.model),
        "settings": msgspec.json.encode(settings).decode(),
    }
    claim(store_file, asked, note=False)
    tasks = _distinct(read_all(config.input, config.format, config.limit).tasks, config.input)
    with Store(store_file, key=_key) as store:
        claim(store_file, asked)
        missing = [
            (i, member)
            for i, task in enumerate(tasks)
            for member in range(config.group)
            if f"{task.dialogue.id}##{member}" not in store.done
        ]
        if missing:
            for rollout in _roll(config, tasks, missing, progress, load):
                store.append(rollout)
    wanted = {task.dialogue.id for task in tasks}
    result = summarise(config, (one for one in read_rollouts(store_file) if one.task in wanted))
    draft = folder / ".summary.tmp"
    draft.write_bytes(msgspec.json.format(encode(result), indent=2))
    draft.replace(folder / "summary.json")
    return result


def _distinct(tasks: list[Task], file: str) -> list[Task]:
    seen: set[str] = set()
    for task in tasks:
        if task.dialogue.id in seen:
            where = Where(file=file, dialogue=task.dialogue.id)
            raise DataError("two tasks have the same id", where=where, fix="make the ids unique")
        seen.add(task.dialogue.id)
    return tasks


def _roll(
    config: EvaluateConfig,
    tasks: list[Task],
    missing: list[tuple[int, int]],
    progress: Progress,
    load: Load,
) -> Iterator[Rollout]:
    from cm2.rollout.driver import Driver

    sampling = Sampling(
        temperature=config.temperature,
        max_step_tokens=config.max_step_tokens,
        max_tokens=config.max_tokens,
        seed=config.seed,
    )
    driver = Driver(*load(config.model), sampling, batch=config.batch)
    judge, limits = ChecksJudge(), Limits(steps=config.max_steps)
    chunks = [missing[at : at + 2 * config.batch] for at in range(0, len(missing), 2 * config.batch)]
    for chunk in progress(iter(chunks), len(chunks)):
        worlds = {i: world_for(tasks[i], config.seed) for i, _ in chunk}
        environments = [Environment(tasks[i], worlds[i].session(), judge, limits) for i, _ in chunk]
        seeds = [i * 1009 + member for i, member in chunk]
        for (_, member), rollout in zip(
            chunk, driver.run(environments, groups=[""] * len(chunk), seeds=seeds), strict=True
        ):
            rollout.member, rollout.agent = member, config.label
            if rollout.valid:
                rollout.score = score_of(rollout, Credit()).as_json()
                rollout.outcome = outcome_for(rollout)
            for segment in rollout.segments:  # an evaluation is not trained on
                segment.logprobs = []
            yield rollout


def _key(row: dict[str, Any]) -> str:
    key = f"{row['task']}#{row.get('group', '')}#{row.get('member', 0)}"
    return f"{key}#failed" if row.get("failure") else key


def metric(rollout: Rollout, name: str) -> float | None:
    """One of `METRICS` of a rollout as a number; None where it is not known."""
    value = rollout.outcome.get("success") if name == "outcome" else rollout.score.get(name)
    return None if value is None else float(value)


def by_task(rollouts: Iterator[Rollout], name: str) -> dict[str, float]:
    """The mean of a metric over the valid rollouts of each task."""
    found: dict[str, list[float]] = {}
    for rollout in rollouts:
        value = metric(rollout, name) if rollout.valid else None
        if value is not None:
            found.setdefault(rollout.task, []).append(value)
    return {task: sum(values) / len(values) for task, values in found.items()}


def summarise(config: EvaluateConfig, rollouts: Iterator[Rollout]) -> Evaluation:
    """The summary of an evaluation's rollouts."""
    result = Evaluation(config.label, config.of, config.mode, config.model)
    kept = list(rollouts)
    result.tasks, result.rollouts = len({one.task for one in kept}), len(kept)
    for rollout in kept:
        result.generated_tokens += rollout.generated_tokens
        result.seconds += rollout.seconds
        if rollout.failure is not None:
            owner = rollout.failure.owner
            result.failures[owner] = result.failures.get(owner, 0) + 1
            continue
        result.valid += 1
        result.reasons[rollout.reason] = result.reasons.get(rollout.reason, 0) + 1
        kinds = {(c.turn, c.variant, item.id): item.kind or "(none)" for c in rollout.checklists for item in c.items}
        for ledger in rollout.score["items"]:
            for id, met in ledger["outcome"].items():
                tally = result.kinds.setdefault(kinds[ledger["turn"], ledger["variant"], id], Kind())
                tally.items += 1
                tally.passed += met is True
                tally.failed += met is False
                tally.unscored += met is None
    for name in METRICS:
        setattr(result, name, interval(list(by_task(iter(kept), name).values())))
    result.seconds = round(result.seconds, 1)
    return result
