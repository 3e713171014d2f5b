"""PPO on the TRL engine: the same loop, rollouts and clipped loss as `cm2.train.grpo`, with advantages of a critic.

    r_i   what the step whose last token i is has added to R (− beta·(log π_i − log π_start_i) where `kl_in` is reward)
    A_i   GAE over the sampled tokens (`cm2.train.gae`), whitened over the batch or not
    loss  −min(ρ·A, clip(ρ)·A) [+ beta·k3 where `kl_in` is loss] + coef·½·max((V − return)², (V_clip − return)²)

Values come from a linear head on the policy's last hidden state, in the forward pass that computes log-probabilities
anyway, padded or packed. The values that advantages rest on are those at sampling time: one pass without gradients
more than GRPO, which also gives the log-probabilities for the KL in the reward and for importance weights. All members
of all groups train: there is no group baseline, so a group whose members earned the same teaches too.

The head has an optimizer group, a gradient clip and a place in the checkpoint of its own; the policy's gradient is the
one that it would have without the critic, unless `trunk` lets the value loss through.
"""

from __future__ import annotations

from typing import Any

import torch

from cm2.errors import ConfigError
from cm2.train import prefix
from cm2.train.gae import gae, whitened
from cm2.train.grpo import Trainer, _padded
from cm2.train.ppo_config import PpoConfig
from cm2.train.value import ValueHead, explained, last_hidden, value_loss, width_of

_NUMBERS = ("value_loss", "value_clip_ratio", "value_mean", "value_explained", "return_mean", "advantage_std")


class PpoTrainer(Trainer):
    """See the module.

    Args:
        ppo: the critic's settings.
        kwargs: as for `Trainer`.

    Raises:
        ConfigError: the model is sharded, which the value head is not.
    """

    every_row = True

    def __init__(self, *, ppo: PpoConfig, **kwargs: Any):
        super().__init__(**kwargs)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ConfigError("the local PPO trains whole models: one process, or DDP", fix="use algorithm: grpo")
        self.ppo = ppo
        self.value_head = ValueHead(width_of(self.model)).to(self.accelerator.device)
        self._values: list[torch.Tensor] | None = None
        self._logps: torch.Tensor | None = None

    def losses(self) -> dict[str, float]:
        """See `Trainer.losses`; and the critic's."""
        kept = self._metrics["train"]
        mine = {name: sum(kept[name]) / len(kept[name]) for name in _NUMBERS if kept.get(name)}
        several = self.processes.every(mine)
        told = {name: [one[name] for one in several if name in one] for name in _NUMBERS}
        return super().losses() | {name: sum(values) / len(values) for name, values in told.items() if values}

    # --- a batch of rollouts: rewards, values, advantages

    def complete(self, out: dict[str, Any]) -> None:
        """Values, returns and advantages of a batch."""
        mask = out["completion_mask"] * out.get("tool_mask", 1)
        self._values = []
        logps = self.measured(out)
        values, self._values = torch.cat(self._values) * mask, None
        rewards = _padded([row.rewards or [0.0] * len(row.completion) for row in self._rows], out["completion_ids"])
        if self.ppo.kl_in == "reward" and self.beta != 0:
            rewards = rewards - self.beta * (logps - out["ref_per_token_logps"]) * mask
        advantages, returns = gae(rewards, values, mask, self.ppo.gamma, self.ppo.lam)
        self._tell(mask, values, returns, advantages)
        if self.ppo.whiten:
            advantages = whitened(advantages, mask, lambda sums: self.accelerator.reduce(sums, "sum"))
        out |= {"advantages": advantages, "old_values": values, "returns": returns}
        if self.importance != "none":
            self.correct(out, logps)

    def _tell(self, mask: torch.Tensor, values: torch.Tensor, returns: torch.Tensor, advantages: torch.Tensor) -> None:
        """Put on record how the critic did, over the sampled tokens of all processes."""
        sampled, kept = mask.bool(), self._metrics["train"]
        mine = tuple(each[sampled].cpu() for each in (values, returns, advantages))
        values, returns, advantages = (torch.cat(each) for each in zip(*self.processes.every(mine), strict=True))
        if values.numel():
            kept["value_mean"].append(float(values.mean()))
            kept["return_mean"].append(float(returns.mean()))
            kept["value_explained"].append(explained(values, returns))
            kept["advantage_std"].append(float(advantages.std(unbiased=False)))

    # --- values beside log-probabilities

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        if self._values is None or self.shared_prefix:
            found = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
            )
        else:
            with last_hidden(model) as seen:
                found = super()._get_per_token_logps_and_entropies(
                    model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
                )
            # The state before a token is the hidden state of the id before it.
            self._values += [self._value(hidden[:, -logits_to_keep - 1 : -1]) for hidden in seen]
        self._logps = found[0].detach() if self._values is not None else None
        return found

    def shared_logps(
        self, model: Any, ids: torch.Tensor, attention: torch.Tensor, mask: torch.Tensor, entropy: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See `Trainer.shared_logps`; with values where they are wanted."""
        if self._values is None:
            return super().shared_logps(model, ids, attention, mask, entropy)
        with last_hidden(model) as seen:
            found = super().shared_logps(model, ids, attention, mask, entropy)
        rows, columns = mask.nonzero(as_tuple=True)
        values = self._value(seen[0][0][self._places(ids, attention, mask, seen)])
        self._values.append(torch.zeros(mask.shape, device=ids.device).index_put((rows, columns), values))
        return found

    def _places(
        self, ids: torch.Tensor, attention: torch.Tensor, mask: torch.Tensor, seen: list[torch.Tensor]
    ) -> torch.Tensor:
        """Where in the pack the token stands that predicts each sampled id, in the order of `mask.nonzero()`."""
        width = mask.shape[1]
        prompts, completions = [], []
        for row, real in zip(ids, attention.bool(), strict=True):
            prompts.append(row[:-width][real[:-width]].tolist())
            completions.append(row[-width:][real[-width:]].tolist())
        packed = prefix.pack(prompts, completions)
        if len(seen) != 1 or seen[0].shape[1] != packed.ids.shape[1]:
            raise RuntimeError("the forward pass did not read the pack that the values are to be taken from")
        places = [packed.places[r][mask[r, : len(completions[r])].nonzero()[:, 0].cpu()] for r in range(len(ids))]
        return torch.cat(places).to(ids.device)

    def _value(self, hidden: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = self.value_head(hidden if self.ppo.trunk else hidden.detach())
        return values

    # --- the loss

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        beta, in_reward = self.beta, self.ppo.kl_in == "reward"
        self._values = []
        if in_reward:
            self.beta = 0.0  # the rewards have it
        try:
            policy = super()._compute_loss(model, inputs)
            values, logps = torch.cat(self._values), self._logps
        finally:
            self.beta, self._values, self._logps = beta, None, None
        mask = inputs["completion_mask"] * inputs.get("tool_mask", 1)
        each, cut = value_loss(values, inputs["old_values"], inputs["returns"], self.ppo.clip)
        loss = self._aggregated(each, mask, inputs)
        tokens, kept = mask.sum().clamp(min=1), self._metrics["train"]
        kept["value_loss"].append(float((each.detach() * mask).sum() / tokens))
        kept["value_clip_ratio"].append(float((cut * mask).sum() / tokens))
        if in_reward and beta != 0 and logps is not None:
            away = inputs["ref_per_token_logps"] - logps
            kept["kl"].append(float(((away.exp() - away - 1) * mask).sum() / tokens))
        return policy + self.ppo.coef * loss

    def _aggregated(self, each: torch.Tensor, mask: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
        """The mean over tokens that TRL's loss takes of the policy's terms."""
        if self.loss_type == "grpo":
            return ((each * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)).mean()
        if self.loss_type == "dr_grpo":
            return (each * mask).sum() / (each.shape[0] * int(self.max_completion_length or 1))
        tokens = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes
        steps = self.current_gradient_accumulation_steps / (self.args.steps_per_generation or 1)
        return (each * mask).sum() / (tokens * steps)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """See `Trainer.training_step`; the head's gradient is averaged over the processes and clipped by itself."""
        self.value_head.zero_grad()
        loss = super().training_step(model, inputs, num_items_in_batch)
        gradients = [one.grad for one in self.value_head.parameters() if one.grad is not None]
        for gradient in gradients if self.accelerator.num_processes > 1 else ():
            gradient.copy_(self.accelerator.reduce(gradient, "mean"))
        torch.nn.utils.clip_grad_norm_(self.value_head.parameters(), self.args.max_grad_norm)
        return loss

    # --- its place in optimizer and checkpoint

    def create_optimizer(self, model: Any = None) -> Any:
        """TRL's optimizer with a group more."""
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if fresh:
            optimizer.add_param_group(
                {"params": list(self.value_head.parameters()), "lr": self.ppo.lr, "weight_decay": 0.0}
            )
        return optimizer

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            self.value_head.save(output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.value_head.load(checkpoint)
