"""Which driver decodes the rollouts of a run, and what may not be combined with it.

A process decodes with weights that it has. Where accelerate shards them over the processes (FSDP, DeepSpeed ZeRO 3)
none has: rollouts then need servers, to which the weights are handed over in full.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from cm2.errors import ConfigError
from cm2.rollout.driver import Driver
from cm2.rollout.sampling import Sampling
from cm2.train.processes import Processes
from cm2.train.punctual import Punctual
from cm2.train.rl_config import RlConfig


def sharded() -> str:
    """How a launcher of accelerate was told to shard the weights; empty where every process has all of them."""
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true"):
        return "FSDP"
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() in ("1", "true"):
        return "DeepSpeed ZeRO 3" if os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2") == "3" else ""
    return ""


def allowed(config: RlConfig, how: str) -> None:
    """Refuse what sharded weights (see `sharded`) do not go with.

    Raises:
        ConfigError: a setting does not.
    """
    if not how:
        return
    refused = {
        "generation.engine: local": (config.generation.engine == "local", "start vLLM servers and set engine: vllm"),
        "lora": (config.lora > 0, "adapters are small: train them with DDP"),
        "heldout": (config.heldout is not None, "evaluate checkpoints with cm2 evaluate"),
        "benchmarks": (bool(config.benchmarks.run), "evaluate checkpoints with cm2 eval"),
    }
    for name, (wrong, fix) in refused.items():
        if wrong:
            raise ConfigError(f"{name} does not go with weights that are sharded by {how}", fix=fix)


def let_go(driver: Any, folder: Path, processes: Processes) -> None:
    """After training: close connections, and remove the weights that were handed over."""
    if hasattr(driver, "close"):
        driver.close()
    processes.lead(lambda: shutil.rmtree(folder, ignore_errors=True))


def make_driver(
    config: RlConfig, folder: Path, model: Any, tokenizer: Any, sampling: Sampling, processes: Processes
) -> Driver:
    """The driver that the settings ask for.

    Args:
        config: the run's settings.
        folder: where weights are handed over, if the settings name no other place.
        model: the policy, not yet distributed.
        tokenizer: its tokenizer.
        sampling: how tokens are drawn.
        processes: those that train.
    """
    if config.generation.engine == "local":
        if config.overlap is None:
            return Driver(model, tokenizer, sampling, batch=config.batch)
        return Punctual(model, tokenizer, sampling, batch=config.batch, overlap=config.overlap)
    from cm2.rollout.served import ServedDriver

    return ServedDriver(
        config.generation,
        tokenizer,
        sampling,
        batch=config.batch,
        folder=folder,
        context=getattr(model.config, "max_position_embeddings", None),
        lead=processes.lead,
        first=processes.first,
    )
