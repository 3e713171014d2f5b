"""Runs lm-eval on a folder of task files, category by category; a category that is there is not run again.

What is done on purpose, and why:
- torch, transformers and datasets are those of the Python that runs cm2, behind all that lm-eval's environment has;
- the model is loaded once for all categories, in float32 unless told otherwise: two checkpoints differ by little, and
  rounding is not to hide it;
- of every example the harness's own numbers are written down, not only their mean: they are paired with another's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from cm2_shared import settings


def main() -> None:
    """Evaluate what the settings name."""
    given = settings()
    sys.path += [path for path in given["packages"] if path not in sys.path]
    out = Path(given["samples"])
    out.mkdir(parents=True, exist_ok=True)
    missing = [name for name in given["categories"] if not (out / f"{name}.json").exists()]
    if not missing:
        return

    import torch
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    torch.set_num_threads(given["threads"])
    model = HFLM(
        pretrained=given["model"],
        device=given["device"] or ("cuda" if torch.cuda.is_available() else "cpu"),
        dtype=given["dtype"],
        batch_size=given["batch"],
    )
    manager = TaskManager(include_path=given["tasks"], include_defaults=False)
    for name in missing:
        task = given["prefix"] + name
        found = simple_evaluate(
            model=model, tasks=[task], task_manager=manager, log_samples=True, bootstrap_iters=0, verbosity="ERROR"
        )
        rows = [row(sample) for sample in found["samples"][task]]
        part = out / f".{name}.part"
        part.write_text(json.dumps(rows))
        part.replace(out / f"{name}.json")


def row(sample: dict[str, Any]) -> dict[str, Any]:
    """What is kept of an example: its id, and the numbers that the harness found."""
    found = {"id": sample["doc"]["id"]}
    for name in ("acc", "acc_norm"):
        if name in sample:
            found[name] = float(sample[name])
    if "bits_per_byte" in sample:
        found["loglikelihood"], found["bytes"] = map(float, sample["bits_per_byte"])
    else:
        found["loglikelihoods"] = [float(one[0]) for one in sample["filtered_resps"]]
    return found


if __name__ == "__main__":
    main()
