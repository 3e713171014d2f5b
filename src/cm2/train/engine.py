"""Setting up the TRL engine for a run: arguments, what is trained, and what is left behind at the end."""

from __future__ import annotations

import time
from logging import ERROR, getLogger
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl import GRPOConfig

from cm2.errors import ConfigError
from cm2.rollout.decode import unwrap
from cm2.train import prefix, trunk
from cm2.train.grpo import Trainer
from cm2.train.ppo import PpoTrainer
from cm2.train.processes import Processes
from cm2.train.progress import hush
from cm2.train.rl_config import RlConfig
from cm2.train.runs import Run
from cm2.train.trainer import multiplies_bf16

_LOSSES = {"token_mean": "dapo", "sequence_mean": "grpo", "dr_grpo": "dr_grpo"}


class Deadline(TrainerCallback):
    """Stops training when the time is up, or when the next step would probably end after it.

    Args:
        seconds: left, or None.
        started: when the clock started (time.monotonic).
    """

    def __init__(self, seconds: float | None, started: float):
        self.seconds, self.started, self.steps = seconds, started, 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Look at the clock."""
        self.steps += 1
        used = time.monotonic() - self.started
        if self.seconds is not None and used + used / self.steps > self.seconds:
            control.should_training_stop = True


def make_trainer(
    run: Run, config: RlConfig, model: Any, tokenizer: Any, tasks: int, processes: Processes | None = None
) -> Trainer:
    """A trainer whose data set is the numbers of the tasks.

    Raises:
        ConfigError: `layers` is more than the model has.
    """
    hush()
    getLogger("trl").setLevel(ERROR)  # it warns of every row that was not run and so has no reward
    if config.layers:
        freeze(model, config.layers)
    cuda = torch.cuda.is_available()
    bf16 = config.dtype == "bfloat16" or (config.dtype == "auto" and multiplies_bf16())
    processes = processes or Processes()
    rows = config.prompts * config.group // processes.ranks
    args = GRPOConfig(
        output_dir=str(run.checkpoints_folder),
        max_steps=config.updates,
        per_device_train_batch_size=rows // config.mini_batches,
        gradient_accumulation_steps=1,
        steps_per_generation=config.mini_batches,
        num_iterations=config.epochs,
        num_generations=config.group,
        max_completion_length=config.max_tokens,
        learning_rate=config.lr,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=config.warmup,
        weight_decay=config.weight_decay,
        max_grad_norm=config.clip,
        optim="adamw_torch_fused",
        beta=config.beta,
        use_bias_correction_kl=config.kl_gradient == "unbiased",
        epsilon=config.clip_low,
        epsilon_high=config.clip_high,
        loss_type=_LOSSES[config.loss],
        scale_rewards="none",
        temperature=config.temperature,
        bf16=bf16,
        use_cpu=not cuda,
        gradient_checkpointing=False,
        seed=config.seed,
        data_seed=config.seed,
        ddp_find_unused_parameters=False,
        shuffle_dataset=True,
        save_strategy="no",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=cuda,
    )
    data = Dataset.from_dict({"prompt": [str(i) for i in range(tasks)]})
    parts = {"model": model, "args": args, "train_dataset": data, "processing_class": tokenizer}
    parts["peft_config"] = _adapters(config)
    trainer = PpoTrainer(ppo=config.ppo, **parts) if config.algorithm == "ppo" else Trainer(**parts)
    trainer.remove_callback(PrinterCallback)  # standard output belongs to the summary
    trainer.run, trainer.processes = run, processes
    trainer.micro_tokens = config.micro_tokens
    trainer.importance, trainer.importance_max = config.importance, config.importance_max
    trainer.shared_prefix = prefix.supports(trainer.model) and (
        trainer.ref_model is None or prefix.supports(trainer.ref_model)
    )
    if trainer.shared_prefix:
        models = [one for one in (trainer.model, trainer.ref_model) if one is not None]
        trainer.plain_head = all(map(prefix.ends_in_its_head, models))
        trainer.trunk = trunk.of(trainer.model, trainer.ref_model)
    return trainer


def freeze(model: Any, layers: int) -> None:
    """Leave only the top `layers` and the final norm trainable. The layers below then need no backward pass."""
    core = unwrap(model)
    stack = core.model.layers
    if layers > len(stack):
        raise ConfigError(f"layers is {layers}, but the model has {len(stack)}", fix="lower --layers, or 0 for all")
    for parameter in core.parameters():
        parameter.requires_grad_(False)
    for module in [*stack[-layers:], core.model.norm]:
        for parameter in module.parameters():
            parameter.requires_grad_(True)


def _adapters(config: RlConfig) -> Any:
    if not config.lora:
        return None
    from peft import LoraConfig

    return LoraConfig(r=config.lora, lora_alpha=2 * config.lora, target_modules="all-linear", task_type="CAUSAL_LM")
