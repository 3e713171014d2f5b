"""Trunk: the frozen layers below the trained ones, computed once.

With `layers` only the top layers are trained. What comes out of those below is then the same for the policy and for the
start that it is held against, in every epoch and mini-batch: the first pass that reads a row keeps it (a few kilobytes
an id), and the others begin at the first trained layer. They share the weights too: a reference whose frozen weights
are equal to the policy's holds them in the same memory.

It works on transformers' modules from outside: a hook takes down what reaches the first trained layer; later the layers
below hand on what they are given. `of` tries that on a few ids and returns None for a model that does more in between.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from cm2.train import prefix
from cm2.train.prefix import Pack

Key = tuple[int, ...]


class Trunk:
    """Keeps hidden states by row.

    Args:
        layers: how many layers of the models are below the first trained one.
    """

    def __init__(self, layers: int):
        self.layers = layers
        self.generation: Any = None
        self._kept: dict[Key, tuple[torch.Tensor, torch.Tensor]] = {}

    def turn_to(self, generation: Any) -> None:
        """Rows of an earlier generation will not be asked for again."""
        if generation != self.generation:
            self._kept.clear()
            self.generation = generation

    def find(self, packed: Pack) -> torch.Tensor | None:
        """(1, N, width): what reaches the first trained layer, where every row of the pack has been read before."""
        rows = self._rows(packed)
        if not all(key in self._kept for key, _ in rows):
            return None
        first = self._kept[rows[0][0]][0]
        found = first.new_empty(packed.ids.shape[1], first.shape[-1])
        for key, stand in rows:
            states, places = self._kept[key]
            found[stand] = states[places]
        return found[None]

    def keep(self, packed: Pack, states: torch.Tensor) -> None:
        """states: (1, N, width), of the pack."""
        for key, stand in self._rows(packed):
            self._kept[key] = (states[0].detach(), stand)

    def _rows(self, packed: Pack) -> list[tuple[Key, torch.Tensor]]:
        ids = packed.ids[0]
        return [(tuple(ids[stand].tolist()), stand) for stand in packed.stands]

    @contextlib.contextmanager
    def noting(self, model: Any, packed: Pack) -> Iterator[None]:
        """Keep what the model computes below its first trained layer while the context lasts."""

        def note(_: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            self.keep(packed, args[0] if args else named["hidden_states"])

        handle = layers_of(model)[self.layers].register_forward_pre_hook(note, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    @contextlib.contextmanager
    def skipped(self, model: Any) -> Iterator[None]:
        """Let the layers below the first trained one hand on what they are given."""
        below = list(layers_of(model)[: self.layers])
        for layer in below:
            layer.forward = _hand_on
        try:
            yield
        finally:
            for layer in below:
                del layer.forward


def _hand_on(hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return hidden_states


def layers_of(model: Any) -> Any:
    """The stack of layers inside."""
    return prefix.core_of(model).model.layers


def of(model: Any, reference: Any = None) -> Trunk | None:
    """A trunk for these models, which `prefix.supports` says yes to, or None where they have none in common."""
    core = prefix.core_of(model)
    if core is not model or any(getattr(core.config, name, 0) for name in _DROPOUTS):
        return None
    stack = getattr(getattr(core, "model", None), "layers", None)
    if stack is None or _trained(core.get_input_embeddings()):
        return None
    layers = next((number for number, layer in enumerate(stack) if _trained(layer)), len(stack))
    if layers in (0, len(stack)):
        return None
    if reference is not None and not _alike(core, prefix.core_of(reference), layers):
        return None
    trunk = Trunk(layers)
    if not all(_works(trunk, one) for one in (core, reference) if one is not None):
        return None
    if reference is not None:
        _share(core, prefix.core_of(reference))
    return Trunk(layers)


_DROPOUTS = ("attention_dropout", "hidden_dropout", "embd_pdrop", "resid_pdrop")


def _trained(module: Any) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _alike(model: Any, reference: Any, layers: int) -> bool:
    """Whether two models compute the same below this layer."""
    if not hasattr(getattr(reference, "model", None), "layers") or type(model) is not type(reference):
        return False
    pairs = [(model.get_input_embeddings(), reference.get_input_embeddings())]
    pairs += list(zip(model.model.layers[:layers], reference.model.layers[:layers], strict=True))
    return all(
        a.shape == b.shape and a.device == b.device and torch.equal(a, b)
        for one, other in pairs
        for a, b in zip(one.parameters(), other.parameters(), strict=True)
    )


def _share(model: Any, reference: Any) -> None:
    """Let the reference's weights that are equal to frozen ones of the model be those."""
    theirs = dict(reference.named_parameters())
    for name, parameter in model.named_parameters():
        other = theirs.get(name)
        if other is None or parameter.requires_grad:
            continue
        if other.dtype == parameter.dtype and other.shape == parameter.shape and torch.equal(other, parameter):
            other.data = parameter.data


def _works(trunk: Trunk, model: Any) -> bool:
    """Whether the upper layers, given what the lower ones computed, compute what the whole does."""
    size = min(model.config.vocab_size, 100)
    rows = [[i % size for i in row] for row in ([2, 9, 4], [2, 6, 1, 3])]
    packed = prefix.to_device(prefix.pack([[5]] * 2, rows), next(model.parameters()).device)
    wanted = torch.cat(packed.places)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            with trunk.noting(model, packed):
                whole = prefix.logits_of(model, packed, wanted)
            upper = prefix.logits_of(model, packed, wanted, trunk)
    except (TypeError, RuntimeError, ValueError, KeyError, IndexError, AttributeError):
        return False
    finally:
        model.train(training)
        trunk.turn_to(object())
    return bool(torch.equal(whole, upper))
