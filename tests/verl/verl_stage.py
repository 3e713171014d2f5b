"""What the contract tests put in verl's place: a written run, a tokenizer of bytes, an engine that reads a script."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from cm2.train.rl_config import RlConfig
from cm2.verl.check import compose
from cm2.verl.cluster import Cluster
from cm2.verl.config import written
from rollout.tiny_models import byte_tokenizer

CALL = '<tool_call>{{"name": "{name}", "arguments": {arguments}}}</tool_call><|im_end|>'
FIND = CALL.format(name="find_items", arguments='{"query": "coffee"}')
ADD = CALL.format(name="add_item", arguments='{"item_id": "mocha-7835", "quantity": 1}')
SAID = "I added one Mocha; your order 51313 has 1 line.<|im_end|>"
OPEN = "On Monday we open at 8.<|im_end|>"
SCRIPTS = {
    "all of it": [FIND, ADD, SAID, OPEN],
    "no look-up": [ADD, SAID],
    "says it only": [SAID],
    "wrong hours": [FIND, ADD, SAID, "We are always open.<|im_end|>"],
    "broken": [FIND, RuntimeError("the engine is gone")],
}


def tokenizer() -> Any:
    """Bytes, with our chat template."""
    from cm2.train.tokens import install_tokens

    made = byte_tokenizer()
    install_tokens(made)
    return made


def model_folder(folder: Path) -> str:
    """What verl reads of a model before it loads weights: its configuration and its tokenizer."""
    from transformers import LlamaConfig

    made = tokenizer()
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaConfig(vocab_size=len(made), architectures=["LlamaForCausalLM"], **shape).save_pretrained(folder)
    made.save_pretrained(folder)
    return str(folder)


def run_of(folder: Path, tasks: str, overrides: Sequence[str] = (), **given: Any) -> Any:
    """The composed configuration of a written run."""
    recipe = {"input": tasks, "output": str(folder / "run"), "model": "Qwen/Qwen3-1.7B", "prompts": 2, "group": 4}
    recipe |= {"updates": 4, "max_tokens": 6000, "max_step_tokens": 400}
    file = folder / "run" / "verl.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(written(msgspec.convert(recipe | given, RlConfig), Cluster(gpus=1)).text)
    return compose(str(file), list(overrides))


class Engine:
    """Stands for verl's server manager: each session (a request id) gets the next script and speaks it, act by act.

    Args:
        tokenizer: makes ids of the scripts.
        scripts: names of `SCRIPTS`, in the order in which sessions ask for their first action.
    """

    def __init__(self, tokenizer: Any, scripts: Sequence[str]):
        self.tokenizer, self.waiting = tokenizer, list(scripts)
        self.scripts: dict[str, list[Any]] = {}
        self.asked: list[dict[str, Any]] = []
        self.busy, self.most = 0, 0

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any], **_: Any
    ) -> Any:
        """See `LLMServerClient.generate`."""
        from verl.workers.rollout.replica import TokenOutput

        if request_id not in self.scripts:
            self.scripts[request_id] = list(SCRIPTS[self.waiting.pop(0)])
        self.asked.append({"request": request_id, "ids": list(prompt_ids), "params": sampling_params})
        self.busy += 1
        self.most = max(self.most, self.busy)
        await asyncio.sleep(0.01)
        self.busy -= 1
        action = self.scripts[request_id].pop(0)
        if isinstance(action, Exception):
            raise action
        ids = self.tokenizer(action, add_special_tokens=False)["input_ids"]
        versions = {"global_steps": 3, "min_global_steps": 3, "max_global_steps": 3}
        logs = [-0.01 * (i % 7 + 1) for i in range(len(ids))]
        return TokenOutput(token_ids=ids, log_probs=logs, stop_reason="completed", extra_fields=versions)


class Queue:
    """Stands for TransferQueue in one process: rows of named fields by key, and their tags."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.tags: dict[str, dict[str, Any]] = {}

    def kv_list(self, partition_id: str) -> dict[str, dict[str, dict[str, Any]]]:
        """The tags of every key."""
        return {partition_id: dict(self.tags)}

    def kv_clear(self, keys: list[str], partition_id: str) -> None:
        """Forget these keys."""
        for key in keys:
            self.rows.pop(key, None)
            self.tags.pop(key, None)

    def kv_batch_get(self, keys: list[str], partition_id: str, select_fields: list[str] | None = None) -> Any:
        """The fields that there are, of these rows."""
        from verl.utils.tensordict_utils import list_of_dict_to_tensordict

        first = self.rows[keys[0]]
        names = list(first) if select_fields is None else [name for name in select_fields if name in first]
        return list_of_dict_to_tensordict([{name: self.rows[key][name] for name in names} for key in keys])

    def kv_batch_put(
        self, keys: list[str], partition_id: str, fields: Any = None, tags: list[dict[str, Any]] | None = None
    ) -> Any:
        """Write fields and tags of these rows."""
        from transfer_queue import KVBatchMeta

        for i, key in enumerate(keys):
            row = self.rows.setdefault(key, {})
            self.tags.setdefault(key, {}).update(tags[i] if tags else {})
            for name in () if fields is None else fields.keys():
                value = fields[name][i]
                row[name] = getattr(value, "data", value) if type(value).__name__ == "NonTensorData" else value
        return KVBatchMeta(partition_id=partition_id, keys=keys, tags=[self.tags[key] for key in keys])

    async def async_kv_put(self, key: str, partition_id: str, tag: dict[str, Any]) -> None:
        """Write a tag."""
        self.tags.setdefault(key, {}).update(tag)

    async def async_kv_batch_put(
        self, keys: list[str], fields: Any, tags: list[dict[str, Any]], partition_id: str
    ) -> None:
        """Write fields and tags of these rows."""
        self.kv_batch_put(keys, partition_id, fields, tags)
