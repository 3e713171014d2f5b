"""Hand-over: the policy's weights in a folder that generation servers load, and whether they arrived.

The folder is a Hugging Face model, written under another name and renamed when it is whole; adapters are added into the
weights while they are written. Of weights that are sharded over processes all of them take part, and one writes.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cm2.errors import CM2Error

NAME = "current"


@contextlib.contextmanager
def hand_over(
    model: Any, folder: Path, dtype: str, lead: Callable[[Callable[[], Any]], Any], first: bool = True
) -> Iterator[Path]:
    """The folder that holds the weights, while the model is as it was saved (its adapters merged)."""
    from cm2.rollout.decode import merged

    with merged(model) as core:
        parts = whole(core, dtype, keep=first) if is_sharded(core) else None
        lead(lambda: save(core, whole(core, dtype) if parts is None else parts, folder))
        yield folder / NAME


def whole(core: Any, dtype: str | None = None, keep: bool = True) -> dict[str, Any]:
    """The weights by name, in full and without adapters; as they are, or in another type.

    Of sharded ones every process has to ask for all; only the one that `keep`s them needs the memory.
    """
    import torch

    parameters = dict(core.named_parameters(remove_duplicate=False))
    found = {}
    for name, tensor in core.state_dict().items():
        if ".lora_" in name or ".modules_to_save" in name:
            continue
        full = _full(parameters.get(name, tensor))
        if not keep:
            continue
        kind = getattr(torch, dtype) if dtype and full.is_floating_point() else full.dtype
        found[name.replace(".base_layer", "")] = full.detach().to("cpu", kind)
    return found


def is_sharded(model: Any) -> bool:
    """Whether each process has a part of the weights only."""
    parameter = next(model.parameters())
    return hasattr(parameter, "full_tensor") or hasattr(parameter, "ds_id")


def _full(tensor: Any) -> Any:
    """A tensor of which every process may have a part; all of them take part."""
    if hasattr(tensor, "full_tensor"):
        return tensor.full_tensor()
    if hasattr(tensor, "ds_id"):
        import deepspeed

        with deepspeed.zero.GatheredParameters([tensor]):
            return tensor.detach().clone()
    return tensor


def save(core: Any, state: dict[str, Any], folder: Path) -> None:
    """Write them.

    Raises:
        CM2Error: there is no room.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    draft, target = folder / f".{NAME}", folder / NAME
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        tied = set(getattr(core, "_tied_weights_keys", None) or ())
        shared = bool(getattr(core.config, "tie_word_embeddings", False))
        kept = {name: one.contiguous() for name, one in state.items() if not (shared and name in tied)}
        save_file(kept, draft / "model.safetensors", metadata={"format": "pt"})
        core.config.save_pretrained(draft)
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
    except (OSError, SafetensorError) as error:
        raise CM2Error(
            f"the weights for the servers could not be written to {folder}: {error}",
            fix="free some room, or name another folder by generation.weights",
        ) from error


def local_logprobs(model: Any, ids: list[int]) -> list[float] | None:
    """The trainer's own log-probabilities of these ids from the second on; None where no process has the weights."""
    import torch

    parameter = next(model.parameters())
    if is_sharded(model):
        return None
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids], device=parameter.device)).logits[0, :-1].float()
    finally:
        model.train(training)
    picked = torch.log_softmax(logits, -1).gather(-1, torch.tensor(ids[1:], device=logits.device)[:, None])
    found: list[float] = picked[:, 0].tolist()
    return found


def agreed(told: dict[int, list[float]], wanted: list[float] | None, most: float, names: list[str]) -> float | None:
    """The mean difference of the servers from the trainer, or from the first server where the trainer cannot tell.

    Raises:
        CM2Error: it is more than `most` for one of them.
    """
    wanted = next(iter(told.values())) if wanted is None else wanted
    found = []
    for number, theirs in told.items():
        apart = float(np.mean(np.abs(np.subtract(theirs, wanted)))) if len(theirs) == len(wanted) else float("inf")
        if not apart <= most:
            raise CM2Error(
                f"{names[number]} loaded the weights, and its log-probabilities are still {apart:.2f} nats from the "
                f"trainer's: another model, or another folder than {NAME}",
                fix="serve the policy's own folder; see generation.weights, seen_as and agreement",
            )
        found.append(apart)
    return max(found, default=None)
