"""Trainer: verl's synchronous trainer with the advantages of cm2.

It takes one step where verl computes advantages. verl goes first (a KL penalty in the reward, truncated importance
weights, for PPO the critic's GAE over step rewards); for GRPO the advantages are then replaced by those of the records
that the sessions sent along, group by group. Everything else is verl's.
"""

from __future__ import annotations

from typing import Any

import torch
import transfer_queue as tq
from omegaconf import DictConfig
from tensordict import TensorDict
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from cm2.errors import ConfigError
from cm2.rollout.template import ChatTemplate
from cm2.verl import NAME
from cm2.verl.credits import credited
from cm2.verl.record import Record, decode
from cm2.verl.setting import setting_of


@register_trainer(NAME)
class ChecklistTrainer(PPOTrainerSync):  # type: ignore[misc]
    """See the module.

    Raises:
        ConfigError: the configuration has no usable section `cm2`, or asks for another agent loop.
    """

    def __init__(self, config: DictConfig):
        from cm2.verl.plugin import own

        self.setting = setting_of(config)
        loop = config.actor_rollout_ref.rollout.agent.default_agent_loop
        if loop != NAME:
            raise ConfigError(f"the agent loop is {loop!r}", fix="set rollout.agent.default_agent_loop=cm2")
        own()
        super().__init__(config)

    def _build_replay_buffer(self) -> Any:
        # The mode is only the name under which verl found this class; its own code asks whether it is "sync".
        self.trainer_mode = "sync"
        return super()._build_replay_buffer()

    def _init_tokenizer(self) -> None:
        super()._init_tokenizer()
        ChatTemplate(self.tokenizer)  # one that cannot carry a dialogue would fail in every session, much later

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        keys, partition = list(batch.keys), batch.partition_id
        fillers = [bool(tag.get("is_padding", False)) for tag in batch.tags]
        batch = super()._compute_advantage(batch, metrics)
        fields = ["uid", "response_mask", "loss_mask", "extra_fields"]
        data = tq.kv_batch_get(keys=keys, partition_id=partition, select_fields=fields)
        records = [_record(extra, filler) for extra, filler in zip(data["extra_fields"], fillers, strict=True)]
        group = self.config.actor_rollout_ref.rollout.n
        found = credited([_text(uid) for uid in data["uid"]], records, self.setting.credit, group)
        metrics.update(found.metrics)
        masks = [torch.as_tensor(mask) for mask in data["response_mask"]]
        output: dict[str, torch.Tensor] = {}
        if self.config.algorithm.adv_estimator == NAME:
            given = [_row(values, mask) for values, mask in zip(found.advantages, masks, strict=True)]
            output |= {"advantages": _nested(given), "returns": _nested([row.clone() for row in given])}
        if any(record is not None and not kept for record, kept in zip(records, found.trained, strict=True)):
            # The loss reads one of these masks, the count of tokens that it is divided by the other.
            for name in ("response_mask", "loss_mask"):
                rows = [torch.as_tensor(mask) for mask in data[name]]
                pairs = zip(rows, found.trained, strict=True)
                output[name] = _nested([mask if kept else torch.zeros_like(mask) for mask, kept in pairs])
        if output:
            fields = TensorDict(output, batch_size=len(keys))
            batch = tq.kv_batch_put(keys=keys, partition_id=partition, fields=fields)
        return batch


def _record(extra: Any, filler: bool) -> Record | None:
    """The record of a row; none of a row that only fills the batch up (it is a copy of another)."""
    extra = getattr(extra, "data", extra)
    return None if filler else decode((extra or {}).get(NAME, ""))


def _text(uid: Any) -> str:
    return str(getattr(uid, "data", uid))


def _row(values: Any, mask: torch.Tensor) -> torch.Tensor:
    """Advantages as long as the response, and none where verl has taken a token out of the loss."""
    row = torch.zeros(mask.shape, dtype=torch.float32)
    row[: len(values)] = torch.from_numpy(values).to(torch.float32)
    return row * mask


def _nested(rows: list[torch.Tensor]) -> torch.Tensor:
    nested: torch.Tensor = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
    return nested
