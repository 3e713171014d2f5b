"""TorchRL's GRPOLoss over rollouts that somebody else made: forward and backward on the same rows.

TorchRL (0.14) generates with vLLM, SGLang or transformers' `generate`, which the table of rollouts has already; what is
its own is the loss over a wrapped policy. Install it beside this project: pip install torchrl.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch

from cm2.train.roll import Row
from peers.trl_hotel import Clock


def installed() -> bool:
    """Whether TorchRL can be imported."""
    try:
        import tensordict  # noqa: F401
        import torchrl.objectives.llm  # noqa: F401
    except ImportError:
        return False
    return True


def update(model: Any, tokenizer: Any, rows: list[Row], micro_batch: int, clock: Clock) -> int:
    """One update's gradient in micro-batches of so many rows, on `clock`. Returns the ids that were computed."""
    from tensordict import TensorDict
    from torchrl.modules.llm import TransformersWrapper
    from torchrl.objectives.llm.grpo import GRPOLoss

    warnings.filterwarnings("ignore", module="torchrl|tensordict")
    policy = TransformersWrapper(
        model, tokenizer=tokenizer, input_mode="tokens", generate=False, pad_output=True, return_log_probs=True
    )
    loss_of = GRPOLoss(policy, masking_strategy="rlhf", entropy_bonus=True, entropy_coeff=0.0, kl_to_ref_coeff=None)
    computed, parts = 0, [rows[i : i + micro_batch] for i in range(0, len(rows), micro_batch)]
    for part in parts:
        width = max(len(row.prompt) + len(row.completion) for row in part)

        def padded(values: list[list[float]], dtype: torch.dtype, width: int = width) -> torch.Tensor:
            return torch.tensor([[0] * (width - len(one)) + one for one in values]).to(dtype)

        ids = padded([row.prompt + row.completion for row in part], torch.long)
        before = [[0.0] * len(row.prompt) for row in part]
        tokens = TensorDict(
            {
                ("tokens", "full"): ids,
                ("masks", "all_attention_mask"): padded(
                    [[1.0] * len(row.prompt + row.completion) for row in part], torch.bool
                ),
                ("masks", "all_assistant_mask"): padded(
                    [b + [float(m) for m in row.mask] for b, row in zip(before, part, strict=True)], torch.bool
                ),
                ("log_probs", "full"): padded(
                    [b + row.logprobs for b, row in zip(before, part, strict=True)], torch.float32
                ),
                "advantage": padded(
                    [b + row.advantages for b, row in zip(before, part, strict=True)], torch.float32
                ).unsqueeze(-1),
            },
            batch_size=[len(part)],
        )
        computed += ids.numel()
        with clock.counting("forward"):
            found = loss_of(tokens)
            loss = found.loss_objective / len(parts)
        with clock.counting("backward"):
            loss.backward()
    return computed
