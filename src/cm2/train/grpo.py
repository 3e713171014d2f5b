"""The TRL engine: GRPOTrainer with our rollouts, our advantages, and a forward pass that shares prompts.

TRL keeps the loop, the sampler, the loss (clipping, k3 KL to the cold start, aggregation), the optimizer, distribution
and resuming. Where we step in:

- `rollout_func` runs our groups, and `_generate_and_score_completions` then puts (B, T) advantages in the place of
  TRL's scalar ones, which its loss provides for;
- sampled log-probabilities of the driver serve as the old ones where a batch is optimised more than once, or those of
  the trainer where `importance` corrects for the difference;
- `training_step` cuts a batch into micro-batches by tokens, whole groups where they fit, and leaves out rows that carry
  no loss; the sum of their losses is the loss of the batch, so memory changes and numbers do not;
- log-probabilities come from the prefix-shared forward (`cm2.train.prefix`) where the model supports it, with logits
  only at sampled positions.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from cm2.train import importance, prefix
from cm2.train.head import Head, usable
from cm2.train.keeping import Kept
from cm2.train.micro import cut
from cm2.train.micro import padded as _padded
from cm2.train.micro import select as _select
from cm2.train.micro import unpadded as _unpadded
from cm2.train.order import Order
from cm2.train.portions import dealt, evened
from cm2.train.processes import Processes
from cm2.train.roll import Row
from cm2.train.staleness import Staleness
from cm2.train.trunk import Trunk

_SCALED_BY_ROWS = ("grpo", "dr_grpo")


class Trainer(Kept, GRPOTrainer):
    """See the module. Set `roll` (task indices and a seed to rows, `group` of them a task) before training."""

    roll: Any
    args: GRPOConfig
    micro_tokens: int = 1536
    shared_prefix: bool = False
    plain_head: bool = False
    """Whether the model's logits are its output head's, as they are."""
    trunk: Trunk | None = None
    """What the frozen layers compute, where the lower ones are frozen."""
    importance: importance.Mode = "none"
    importance_max: float = 2.0
    every_row: bool = False
    """Whether a row without advantage is trained all the same: a critic learns from it."""
    seconds: dict[str, float]
    _buffered_inputs: Any

    def __init__(self, **kwargs: Any):
        super().__init__(**(kwargs | {"rollout_func": _rollout, "reward_funcs": [_reward]}))
        self.processes = Processes()
        self.seconds = {"rollout": 0.0, "forward": 0.0, "backward": 0.0}
        self.tokens_forward = 0
        self._rows: list[Row] = []
        self._loss_mask: torch.Tensor | None = None
        self._give_old = False
        self._sampler: torch.Tensor | None = None
        self.staleness = Staleness()

    def losses(self) -> dict[str, float]:
        """KL, entropy and the share of clipped ratios of the step at hand, from TRL's own accounts, and how stale its
        rollouts were."""
        names = {"kl": "kl", "entropy": "entropy", "clip_ratio": "clip_ratio/region_mean"}
        names |= {"importance_cut": "importance_cut", "importance_mean": "importance_mean"}
        kept = self._metrics["train"]
        found = {name: sum(kept[key]) / len(kept[key]) for name, key in names.items() if kept.get(key)}
        return found | self.staleness.numbers(self.state.global_step - 1, self.processes.every)

    @property
    def _steps_a_generation(self) -> int:
        return (self.args.steps_per_generation or 1) * self.num_iterations

    @property
    def generation(self) -> int:
        """Which batch of rollouts the step at hand belongs to: it follows from the step, so resuming repeats it."""
        return self.state.global_step // self._steps_a_generation

    def _get_train_sampler(self, dataset: Any = None) -> Order:
        """TRL's sampler, in an order that a resumed run repeats (see `cm2.train.order`)."""
        args: Any = self.args  # TRL fills in what its types leave open
        data: Any = self.train_dataset if dataset is None else dataset
        group = int(args.num_generations)
        return Order(
            data_source=data,
            mini_repeat_count=group,
            batch_size=args.generation_batch_size // group,
            repeat_count=self._steps_a_generation,
            shuffle=bool(self.shuffle_dataset),
            seed=args.seed,
        )

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """TRL's, but rows that were dealt to several processes are not shuffled a second time."""
        parts = self.args.steps_per_generation or 1
        if self.processes.alone or parts == 1:
            return super()._prepare_inputs(generation_batch)
        if self._step % self._steps_a_generation == 0 or self._buffered_inputs is None:
            batch = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = split_tensor_dict(batch, parts)
        return self._buffered_inputs[self._step % parts]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        start = time.perf_counter()
        self._give_old = self._steps_a_generation > 1
        out = super()._generate_and_score_completions(inputs)
        self._give_old = False
        out["advantages"] = _padded([row.advantages for row in self._rows], out["completion_ids"])
        first = {tuple(row.prompt): i for i, row in reversed(list(enumerate(self._rows)))}
        out["prompt_index"] = torch.tensor(
            [first[tuple(row.prompt)] for row in self._rows], device=self.accelerator.device
        )
        self._loss_mask = None
        self.complete(out)
        self.seconds["reference"] = time.perf_counter() - start - self.seconds["rollout"]
        return out

    def complete(self, out: dict[str, Any]) -> None:
        """Add to a batch of rollouts what needs the policy that they are trained with."""
        if self.importance != "none":
            self.correct(out, self.measured(out))

    def measured(self, out: dict[str, Any]) -> torch.Tensor:
        """Log-probabilities (B, T) of the sampled ids of a batch under the policy as it is now, as training computes
        them."""
        self._loss_mask = out["completion_mask"] * out.get("tool_mask", 1)
        ids = torch.cat([out["prompt_ids"], out["completion_ids"]], 1)
        attention = torch.cat([out["prompt_mask"], out["completion_mask"]], 1)
        with torch.no_grad():
            logps, _, _ = self._get_per_token_logps_and_entropies(
                self.model, ids, attention, self._loss_mask.shape[1], self.args.per_device_train_batch_size
            )
        self._loss_mask = None
        return logps

    def correct(self, out: dict[str, Any], policy: torch.Tensor) -> None:
        """Fold truncated importance weights into the advantages; the clipped ratio is then to `policy`, the weights'
        own log-probabilities at sampling time (see `cm2.train.importance`)."""
        mask = out["completion_mask"] * out.get("tool_mask", 1)
        sampler = _padded([row.logprobs for row in self._rows], out["completion_ids"])
        weights = importance.truncated(policy, sampler, mask, self.importance, self.importance_max)
        out["advantages"] = out["advantages"] * weights
        if "old_per_token_logps" in out:
            out["old_per_token_logps"] = policy
        tokens = float(mask.sum())
        mine = (tokens, importance.cut(weights, mask, self.importance_max) * tokens, float((weights * mask).sum()))
        tokens, lost, whole = (sum(each) for each in zip(*self.processes.every(mine), strict=True))
        kept = self._metrics["train"]
        kept["importance_cut"].append(lost / max(tokens, 1.0))
        kept["importance_mean"].append(whole / max(tokens, 1.0))

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """One optimizer step's gradient, in micro-batches."""
        self.seconds |= {"rollout": 0.0, "reference": 0.0, "forward": 0.0, "backward": 0.0}
        self.tokens_forward = 0
        model.train()
        batch = self._prepare_inputs(inputs)
        self.staleness.begin()
        self._step += 1
        total = torch.zeros((), device=self.accelerator.device)
        parts = evened(self.micro_batches(batch), self.processes)
        for number, (part, weight) in enumerate(parts):
            last = number == len(parts) - 1
            # DeepSpeed takes its step inside the backward pass that is said to be the last.
            self.accelerator.gradient_state._set_sync_gradients(last)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                start = time.perf_counter()
                with self.compute_loss_context_manager():
                    loss = self.compute_loss(model, part) * weight
                middle = time.perf_counter()
                self.accelerator.backward(loss)
                self.seconds["forward"] += middle - start
                self.seconds["backward"] += time.perf_counter() - middle
                total += loss.detach()
        return total

    def micro_batches(self, batch: dict[str, Any]) -> list[tuple[dict[str, Any], float]]:
        """The rows with loss in micro-batches of up to `micro_tokens`, with the factor of each one's loss.

        A row without advantage has no loss unless KL or entropy act on it; one that may not be trained (it failed, or
        was not run) is in no mean either. A batch without any loss gives its first row, whose gradient is zero, so that
        every process takes part in every step.
        """
        mask = batch["completion_mask"] * batch.get("tool_mask", 1)
        matters = mask.any(1)
        if self.beta == 0 and not self._entropy_bonus_enabled and not self.every_row:
            matters &= ((batch["advantages"] * mask) != 0).any(1)
        rows = matters.nonzero()[:, 0].tolist() or [0]
        ids = [prompt + own for prompt, own in zip(*_unpadded(batch), strict=True)]
        prompts = batch["prompt_index"].tolist() if self.shared_prefix else [0] * len(ids)
        count = self._counted(mask) if self.loss_type in _SCALED_BY_ROWS else 1.0
        found = []
        for part in cut(rows, ids, prompts, self.micro_tokens, self.shared_prefix):
            index = torch.tensor(part, device=batch["completion_ids"].device)
            found.append((_select(batch, index), self._weight(part, count, mask)))
        return found

    def _counted(self, mask: torch.Tensor) -> float:
        """The rows of a step that may be trained, of each process in the mean; gradients are averaged over those."""
        return sum(self.processes.every(int(mask.any(1).sum()))) / self.processes.ranks

    def _weight(self, part: list[int], count: float, mask: torch.Tensor) -> float:
        """What makes the micro-batches' losses add up to the batch's: TRL divides some losses by the rows it sees."""
        if self.loss_type in _SCALED_BY_ROWS:
            return len(part) / max(count, 1.0)
        if self.loss_type == "bnpo":
            return float(mask[part].sum() / mask.sum().clamp(min=1))
        return 1.0

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        self._loss_mask = inputs["completion_mask"] * inputs.get("tool_mask", 1)
        self._sampler = inputs.get("sampling_per_token_logps")
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self._loss_mask = self._sampler = None

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **rest: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        if self._give_old:
            self._give_old = False
            return _padded([row.logprobs for row in self._rows], input_ids[:, -logits_to_keep:]), None, None
        mask = attention_mask[:, -logits_to_keep:] if self._loss_mask is None else self._loss_mask
        if not self.shared_prefix:
            found = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **rest
            )
            self.staleness.see(found[0], self._sampler, mask)
            return found
        if torch.is_grad_enabled():
            logps, entropies = self.shared_logps(model, input_ids, attention_mask, mask, compute_entropy)
            self.staleness.see(logps, self._sampler, mask)
            return logps, entropies, None
        parts = [
            self.shared_logps(model, input_ids[rows], attention_mask[rows], mask[rows], compute_entropy)
            for rows in self._chunks(attention_mask)
        ]
        logps = torch.cat([logps for logps, _ in parts])
        return logps, torch.cat([e for _, e in parts if e is not None]) if compute_entropy else None, None

    def _chunks(self, attention_mask: torch.Tensor) -> list[slice]:
        """Neighbouring rows, a few at a time, for passes without gradients."""
        sizes = attention_mask.sum(1).tolist()
        found, start, size = [], 0, 0
        for row, own in enumerate(sizes):
            if row > start and size + own > 4 * self.micro_tokens:
                found.append(slice(start, row))
                start, size = row, 0
            size += own
        return [*found, slice(start, len(sizes))]

    def shared_logps(
        self, model: Any, ids: torch.Tensor, attention: torch.Tensor, mask: torch.Tensor, entropy: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Log-probabilities (B, T), and entropies, of the completion ids where `mask` is 1; 0 elsewhere."""
        width = mask.shape[1]
        prompts, completions = [], []
        for row, seen in zip(ids, attention.bool(), strict=True):
            prompts.append(row[:-width][seen[:-width]].tolist())
            completions.append(row[-width:][seen[-width:]].tolist())
        packed = prefix.to_device(prefix.pack(prompts, completions), ids.device)
        self.tokens_forward += packed.ids.shape[1]
        rows, columns = mask.nonzero(as_tuple=True)
        places = torch.cat(
            [packed.places[r][mask[r, : len(completions[r])].nonzero()[:, 0].cpu()] for r in range(len(ids))]
        )
        # Siblings that share a place share its logits: each is computed once.
        unique, line = places.unique(return_inverse=True)
        line = line.to(ids.device)
        drawn = ids[:, -width:][rows, columns]
        if self.trunk is not None:
            self.trunk.turn_to(self.generation)
        head = prefix.core_of(model).get_output_embeddings() if self.plain_head else None
        if head is not None and usable(head) and not (entropy and self._entropy_bonus_enabled):
            with self.accelerator.autocast():
                states = prefix.states_of(model, packed, unique, self.trunk)
                chosen, spread = Head.apply(states, head.weight, head.bias, line, drawn, self.temperature, entropy)
            empty = torch.zeros(mask.shape, dtype=chosen.dtype, device=ids.device)
            logps = empty.index_put((rows, columns), chosen)
            return logps, empty.index_put((rows, columns), spread[line]) if entropy else None
        with self.accelerator.autocast():
            logits = prefix.logits_of(model, packed, unique, self.trunk)
        logits = logits.float()
        if self.temperature != 1:
            logits = logits / self.temperature
        norms = logits.logsumexp(-1)
        chosen = logits[line, drawn] - norms[line]
        logps = torch.zeros(mask.shape, dtype=chosen.dtype, device=ids.device).index_put((rows, columns), chosen)
        if not entropy:
            return logps, None
        with torch.set_grad_enabled(self._entropy_bonus_enabled and torch.is_grad_enabled()):
            found = (norms - (torch.softmax(logits, -1) * logits).sum(-1))[line]
            entropies = torch.zeros(mask.shape, dtype=found.dtype, device=ids.device).index_put((rows, columns), found)
        return logps, entropies


def _rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
    """TRL's rollout function. `prompts` are indices of tasks as text, each repeated G times in a row."""
    start = time.perf_counter()
    group = trainer.num_generations
    indices = [int(prompt) for prompt in prompts[::group]]
    trainer.staleness.sampled(trainer.state.global_step)
    rows: list[Row] = trainer.roll(indices, trainer.generation)
    rows = dealt(rows, trainer.args.steps_per_generation, trainer.processes)
    trainer._rows = rows
    completions = [row.completion for row in rows]
    width = max(len(ids) for ids in completions)
    trainer._loss_mask = torch.zeros(len(rows), width, dtype=torch.long, device=trainer.accelerator.device)
    for mask, row in zip(trainer._loss_mask, rows, strict=True):
        mask[: len(row.mask)] = torch.tensor(row.mask)
    trainer.seconds["rollout"] = time.perf_counter() - start
    return {
        "prompt_ids": [row.prompt for row in rows],
        "completion_ids": completions,
        "logprobs": [row.logprobs for row in rows],
        "env_mask": [row.mask for row in rows],
        "cm2_reward": [row.reward for row in rows],
    }


def _reward(cm2_reward: list[float | None], **_: Any) -> list[float | None]:
    """The checklist reward, which the rollout has brought along; None is unscored."""
    return cm2_reward


_reward.__name__ = "checklist"
