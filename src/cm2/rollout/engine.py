"""Engine: token ids in, next-token logits out, with a cache per row. The driver knows nothing else of a model.

Two kinds exist. `HFEngine` (here) runs any causal language model of transformers through its own forward pass; the rows
share one padded cache. `LlamaEngine` (see `cm2.rollout.decode`) is our lean decoder for Llama-family models on a CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch


class Engine(Protocol):
    """What the driver needs of a model. Rows are small integers that the engine hands out."""

    def start(self, prompts: list[list[int]]) -> tuple[list[int], torch.Tensor]:
        """Read prompts, each into a new row. Returns (rows, logits after each: (rows, vocabulary))."""
        ...

    def fork(self, rows: list[int]) -> list[int]:
        """A new row for each of these, with the same past."""
        ...

    def extend(self, rows: list[int], ids: list[list[int]]) -> torch.Tensor:
        """Append ids (one or more) to each of the rows, which are all that are open.

        Returns logits after each: (rows, vocabulary).
        """
        ...

    def close(self, rows: list[int]) -> None:
        """Forget these rows."""
        ...

    def update_weights(self, model: Any) -> None:
        """Take the weights that `model` has now."""
        ...


@runtime_checkable
class Reading(Engine, Protocol):
    """An engine that can be given guesses: it tells the logits after several ids of a row, and takes ids back."""

    def trim(self, rows: list[int], lengths: list[int]) -> None:
        """Forget what stands in these rows beyond their first so many ids."""
        ...

    def read(self, rows: list[int], ids: list[list[int]], wanted: list[int]) -> torch.Tensor:
        """As `extend`, with logits after each of the last `wanted[i]` ids of row i: (their sum, vocabulary)."""
        ...


class HFEngine:
    """The generic engine: transformers' forward pass over one padded cache of all open rows.

    Ids are padded on the left of every piece, so a row's cache has holes; the attention mask leaves them out and
    position ids count real tokens only. Correct for any model with `position_ids` and full attention; slower than it
    could be.
    """

    def __init__(self, model: Any):
        self.model = model
        self.rows: list[int] = []
        self.next_row = 0
        self.cache: Any = None
        self.mask: Any = None
        self.lengths: dict[int, int] = {}

    def update_weights(self, model: Any) -> None:
        """The live model itself is used, so there is nothing to copy."""
        self.model = model

    def start(self, prompts: list[list[int]]) -> tuple[list[int], torch.Tensor]:
        """See `Engine.start`."""
        import torch
        from transformers import DynamicCache

        cache: Any = DynamicCache()
        mask = torch.zeros(len(prompts), 0, dtype=torch.long, device=self.model.device)
        logits, mask = self._forward(cache, mask, prompts, [0] * len(prompts))
        if self.rows:
            cache, mask = _join(self.cache, self.mask, cache, mask)
        self.cache, self.mask = cache, mask
        return self._opened([len(prompt) for prompt in prompts]), logits

    def fork(self, rows: list[int]) -> list[int]:
        """See `Engine.fork`."""
        import torch

        order = {row: i for i, row in enumerate(self.rows)}
        every = torch.tensor([*range(len(self.rows)), *(order[row] for row in rows)], device=self.model.device)
        self.mask = self.mask[every]
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[every], layer.values[every]
        return self._opened([self.lengths[row] for row in rows])

    def _opened(self, lengths: list[int]) -> list[int]:
        """Numbers for rows that were added at the end of the cache."""
        new = list(range(self.next_row, self.next_row + len(lengths)))
        self.next_row += len(new)
        self.rows += new
        self.lengths.update(zip(new, lengths, strict=True))
        return new

    def extend(self, rows: list[int], ids: list[list[int]]) -> torch.Tensor:
        """See `Engine.extend`."""
        given = dict(zip(rows, ids, strict=True))
        if set(given) != set(self.rows):
            raise ValueError("extend takes every open row")
        pieces = [given[row] for row in self.rows]
        logits, self.mask = self._forward(self.cache, self.mask, pieces, [self.lengths[row] for row in self.rows])
        for row, piece in given.items():
            self.lengths[row] += len(piece)
        order = {row: i for i, row in enumerate(self.rows)}
        return logits[[order[row] for row in rows]]

    def close(self, rows: list[int]) -> None:
        """See `Engine.close`."""
        import torch

        gone = set(rows)
        keep = torch.tensor([i for i, row in enumerate(self.rows) if row not in gone], device=self.model.device)
        self.rows = [row for row in self.rows if row not in gone]
        for row in gone:
            del self.lengths[row]
        if not self.rows:
            self.cache = self.mask = None
            return
        used = self.mask[keep].any(0)  # columns that only closed rows used go too
        self.mask = self.mask[keep][:, used]
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[keep][:, :, used], layer.values[keep][:, :, used]

    def _forward(self, cache: Any, mask: Any, pieces: list[list[int]], lengths: list[int]) -> tuple[Any, Any]:
        import torch

        width = max(len(piece) for piece in pieces)
        ids = torch.zeros(len(pieces), width, dtype=torch.long)
        real = torch.zeros(len(pieces), width, dtype=torch.long)
        positions = torch.zeros(len(pieces), width, dtype=torch.long)
        for i, (piece, length) in enumerate(zip(pieces, lengths, strict=True)):
            ids[i, width - len(piece) :] = torch.tensor(piece)
            real[i, width - len(piece) :] = 1
            positions[i, width - len(piece) :] = torch.arange(length, length + len(piece))
        device = self.model.device
        mask = torch.cat([mask, real.to(device)], dim=1)
        training = self.model.training
        self.model.eval()
        with torch.no_grad():
            out = self.model(
                input_ids=ids.to(device),
                attention_mask=mask,
                position_ids=positions.to(device),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        self.model.train(training)
        return out.logits[:, -1].float(), mask


def _join(old: Any, old_mask: Any, new: Any, new_mask: Any) -> tuple[Any, Any]:
    """Put two padded caches under each other, the shorter one padded on the left."""
    import torch
    from torch.nn.functional import pad

    width = max(old_mask.shape[1], new_mask.shape[1])
    for a, b in zip(old.layers, new.layers, strict=True):
        for name in ("keys", "values"):
            parts = [pad(t, (0, 0, width - t.shape[2], 0)) for t in (getattr(a, name), getattr(b, name))]
            setattr(b, name, torch.cat(parts))
    masks = [pad(m, (width - m.shape[1], 0)) for m in (old_mask, new_mask)]
    return new, torch.cat(masks)
