"""TRL's GRPOTrainer as an agent's trainer: its tool loop in the sample world "hotel" of the short profile.

TRL (1.16) continues a rollout while the last message has calls and ends it with the first that has none: dialogues of
one user turn, which the short profile's are. Its tools are the methods of an environment class, so all tasks are of one
domain. The class hands every call to the session of the task's executable world, the one that our environment asks. Two
things are set so that both sides read the same: the prompts show the task's own tool signatures (not those TRL derives
from the methods), and each action, not only the whole completion, has a token limit.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial, wraps
from logging import ERROR, getLogger
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from cm2.checklist import Task
from cm2.credit import score
from cm2.dialogue import Dialogue, Step, ToolCall, ToolResponse, Turn
from cm2.judge import ChecksJudge
from cm2.label.reference import ReferenceLabeler
from cm2.rollout.decode import native_dtype
from cm2.rollout.messages import opening_messages
from cm2.rollout.template import tool_schema
from cm2.worlds import MakeConfig, make, world_of

DOMAIN = "hotel"


def hotel_tasks(count: int, seed: int = 0) -> list[Task]:
    """So many labelled tasks of the domain."""
    labeler = ReferenceLabeler()
    config = MakeConfig(count=2 * count + 8, seed=seed, profile="short", domains=(DOMAIN,))
    labelled = (labeler.label(dialogue).task for dialogue in make(config))
    return list(itertools.islice((task for task in labelled if task.checklists), count))


class Hotel:
    """TRL's environment: one instance a rollout, reset for the next; public methods are the tools."""

    def __init__(self, tasks: list[Task]):
        self._tasks = tasks
        self._session: Any = None

    def reset(self, **row: Any) -> None:
        """A fresh session of the world of the row's task."""
        self._session = world_of(self._tasks[row["task"]]).session()

    def search_hotels(self, city: str) -> str:
        """Look up the hotels of a city.

        Args:
            city: its name.
        """
        return self._answer("search_hotels", city=city)

    def book_hotel(self, hotel_id: str, nights: int) -> str:
        """Book a hotel.

        Args:
            hotel_id: its id.
            nights: how many.
        """
        return self._answer("book_hotel", hotel_id=hotel_id, nights=nights)

    def cancel_hotel(self, code: str) -> str:
        """Take a booking back.

        Args:
            code: that the booking was answered with.
        """
        return self._answer("cancel_hotel", code=code)

    def _answer(self, tool: str, **arguments: Any) -> str:
        return self._session.respond(ToolCall(tool, arguments)).content


def rows_of(tasks: list[Task]) -> list[dict[str, Any]]:
    """The tasks as rows of TRL's data set; `environment` tells which tools the prompt shows."""
    return [
        {"prompt": opening_messages(task.dialogue), "task": index, "environment": _shown(task)}
        for index, task in enumerate(tasks)
    ]


def _shown(task: Task) -> str:
    return " ".join(tool.name for tool in task.dialogue.tools)


def make_peer(
    model: Any,
    tokenizer: Any,
    tasks: list[Task],
    *,
    output: str,
    batch: int,
    group: int,
    temperature: float,
    step_tokens: int,
    max_tokens: int,
    actions: int,
    **settings: Any,
) -> GRPOTrainer:
    """TRL's trainer on these tasks, as its documentation sets one up.

    Args:
        batch: rows of one forward and backward pass.
        group: completions a task.
        temperature: of the sampling; 0 is greedy.
        step_tokens: limit of one action.
        max_tokens: limit of a completion, tool answers included.
        actions: limit of actions in a rollout.
        settings: other fields of GRPOConfig.
    """
    getLogger("trl").setLevel(ERROR)
    draws = {"do_sample": False} if temperature == 0 else {}
    config = GRPOConfig(
        output_dir=output,
        per_device_train_batch_size=batch,
        num_generations=group,
        temperature=temperature or 1.0,
        top_p=1.0,
        top_k=0,
        max_completion_length=max_tokens,
        max_tool_calling_iterations=actions - 1,
        generation_kwargs={"max_new_tokens": step_tokens, "use_cache": True} | draws,
        bf16=native_dtype() == torch.bfloat16,
        use_cpu=True,
        gradient_checkpointing=False,
        save_strategy="no",
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **settings,
    )
    shown = {_shown(task): task.dialogue.tools for task in tasks}
    trainer = GRPOTrainer(
        model=model,
        args=config,
        reward_funcs=[named("checklist", checklist_reward, tasks)],
        train_dataset=Dataset.from_list(rows_of(tasks)),
        processing_class=tokenizer,
        environment_factory={name: partial(Hotel, tasks) for name in shown},
    )
    trainer.remove_callback(PrinterCallback)
    for name, tools in shown.items():
        trainer._env_tools[name] = [tool_schema(tool) for tool in tools]
    return trainer


def named(name: str, function: Callable[..., Any], *given: Any) -> Callable[..., Any]:
    """`function` with its first arguments given, under a name of its own (TRL logs rewards by name)."""
    found = partial(function, *given)
    found.__name__ = name  # type: ignore[attr-defined]
    return found


def checklist_reward(
    tasks: list[Task], completions: list[list[dict[str, Any]]], task: list[int], **_: Any
) -> list[float | None]:
    """The reward of our training, from TRL's messages. An environment's `get_reward` would not see the reply."""
    return [reward_of(tasks[index], messages) for index, messages in zip(task, completions, strict=True)]


def reward_of(task: Task, messages: list[dict[str, Any]]) -> float | None:
    """What a completion earned under the task's checklist; None where nothing of it was scored."""
    reference = task.dialogue
    turn = Turn(reference.turns[0].user, _steps(messages))
    dialogue = Dialogue(reference.id, [turn], reference.tools, system=reference.system)
    judge = ChecksJudge()
    verdicts = [found for checklist in task.checklists for found in judge.judge(dialogue, 0, checklist)]
    return score(task.checklists, verdicts, [len(turn.steps)], len(reference.turns)).as_json()["reward"]


def _steps(messages: list[dict[str, Any]]) -> list[Step]:
    steps: list[Step] = []
    for message in messages:
        if message["role"] == "tool":
            call = steps[-1].calls[len(steps[-1].responses)]
            steps[-1].responses.append(ToolResponse(message["content"], call.id, call.name, "simulated"))
            continue
        asked = [call["function"] for call in message.get("tool_calls") or []]
        calls = [ToolCall(one["name"], one["arguments"], f"call_{len(steps)}_{i}") for i, one in enumerate(asked)]
        content = message.get("content") or ""
        steps.append(Step(message.get("reasoning_content"), None if calls and not content else content, calls))
    return steps


class Clock:
    """Adds up the seconds and CPU seconds of blocks and of watched methods, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.cpu_seconds: dict[str, float] = defaultdict(float)
        self.last: dict[str, Any] = {}
        """What each watched method returned last."""

    @contextlib.contextmanager
    def counting(self, name: str) -> Iterator[None]:
        """Count what happens in the block."""
        start, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start
            self.cpu_seconds[name] += time.process_time() - cpu

    def watch(self, owner: Any, method: str, name: str) -> None:
        """Count the calls of this object's method from now on."""
        inner = getattr(owner, method)

        @wraps(inner)
        def watched(*args: Any, **kwargs: Any) -> Any:
            with self.counting(name):
                self.last[name] = inner(*args, **kwargs)
            return self.last[name]

        setattr(owner, method, watched)

    def both(self, name: str) -> tuple[float, float]:
        """Seconds and CPU seconds."""
        return self.seconds[name], self.cpu_seconds[name]
