"""Head: log-probabilities of chosen ids from the last hidden states, without ever holding the logits of all places.

A place's logits are 49,000 numbers and more, and autograd keeps several copies. Where the head is not trained none need
be kept: the gradient of a chosen id's log-probability with respect to the hidden state is

    (W[id] - sum_v p[v] W[v]) / temperature,

and the second term, the mean row of the head under p, is one product more while the logits of a few places are at hand.
So the backward pass has nothing left to do but to weigh rows of W. It takes no more products than the plain way.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import linear

CHUNKS = {"cpu": 64}
"""Places whose logits are held at once, by device: on a CPU so few that they stay in its cache."""
CHUNK = 2048
"""On any other device."""


def usable(head: Any) -> bool:
    """Whether the head's weights are all here (not a shard of them) and get no gradient in what is going on."""
    weight = head.weight
    whole = type(weight) is torch.nn.Parameter and weight.shape == (head.out_features, head.in_features)
    return whole and not (torch.is_grad_enabled() and any(p.requires_grad for p in head.parameters()))


class Head(torch.autograd.Function):
    """Log-probabilities of `ids`, where `line` says at which of the states each is drawn, and entropies of the states.

    hidden: (places, width); weight: (vocabulary, width), which gets no gradient, as bias does not; temperature divides
    the logits. The entropies carry no gradient; they are empty unless asked for.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        line: torch.Tensor,
        ids: torch.Tensor,
        temperature: float,
        entropy: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See the module."""
        places = len(hidden)
        chosen = hidden.new_empty(len(ids), dtype=torch.float32)
        entropies = hidden.new_empty(places if entropy else 0, dtype=torch.float32)
        wanted = ctx.needs_input_grad[0]
        means = torch.empty_like(hidden) if wanted else None
        order = line.argsort()
        counts = torch.bincount(line, minlength=places)
        at = 0
        chunk = CHUNKS.get(hidden.device.type, CHUNK)
        for start in range(0, places, chunk):
            stop = min(start + chunk, places)
            logits = linear(hidden[start:stop], weight, bias).float()
            if temperature != 1:
                logits /= temperature
            norms = logits.logsumexp(-1)
            mine = order[at : at + int(counts[start:stop].sum())]
            at += len(mine)
            chosen[mine] = logits[line[mine] - start, ids[mine]] - norms[line[mine] - start]
            if means is None and not entropy:
                continue
            p = (logits - norms[:, None]).exp_()
            if entropy:
                entropies[start:stop] = norms - torch.linalg.vecdot(p, logits)
            if means is not None:
                means[start:stop] = p.to(weight.dtype) @ weight
        if means is not None:
            ctx.save_for_backward(means, weight, line, ids)
            ctx.temperature = temperature
        ctx.mark_non_differentiable(entropies)
        return chosen, entropies

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        """See the module."""
        means, weight, line, ids = ctx.saved_tensors
        given = (grads[0] / ctx.temperature).to(means.dtype)
        found = -means * torch.zeros_like(means[:, 0]).index_add(0, line, given)[:, None]
        found.index_add_(0, line, weight[ids].to(means.dtype) * given[:, None])
        return found, None, None, None, None, None, None
