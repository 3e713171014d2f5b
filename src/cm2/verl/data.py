"""Data: cm2 tasks as rows of verl (`data.custom_cls`).

A row carries its task as text, because sessions are played in other processes and on other nodes; `raw_prompt` is
what verl shows in its logs. Importing this module registers the plug-in: a worker that can read the data can play it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from torch.utils.data import Dataset

import cm2.verl.plugin  # noqa: F401
from cm2.checklist import Task
from cm2.rollout.messages import opening_messages
from cm2.train.tasklist import read_all
from cm2.verl import NAME

FIELD = "cm2_task"
"""The column that holds a task."""


class Tasks(Dataset):  # type: ignore[type-arg]
    """The tasks of files that have checklists.

    Args:
        data_files: one file or several.
        config: section `data` of the configuration.
        max_samples: only the first so many; -1 takes all.
    """

    def __init__(
        self,
        data_files: str | Sequence[str],
        tokenizer: Any = None,
        config: Any = None,
        processor: Any = None,
        max_samples: int = -1,
        **_: Any,
    ):
        files = [data_files] if isinstance(data_files, str) else list(data_files)
        format = "auto" if config is None else config.get("cm2_format", "auto")
        limit = max_samples if max_samples > 0 else None
        tasks = [task for file in files for task in read_all(str(file), format, limit).tasks]
        self.rows = [msgspec.json.encode(task).decode() for task in tasks[:limit]]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        task = task_of(self.rows[index])
        return {
            "raw_prompt": opening_messages(task.dialogue),
            "agent_name": NAME,
            "data_source": NAME,
            "index": index,
            "reward_model": {"style": "checklist", "ground_truth": task.dialogue.id},
            FIELD: self.rows[index],
        }


def task_of(text: str) -> Task:
    """The task of a row."""
    return msgspec.json.decode(text, type=Task)
