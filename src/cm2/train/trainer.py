"""The SFT engine: TRL's SFTTrainer with our examples, order and learning rate and, on a CPU, a loss without waste."""

from __future__ import annotations

import math
import os
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import numpy as np
import torch
from datasets import Dataset
from safetensors import SafetensorError
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

from cm2.errors import CM2Error
from cm2.rollout.decode import native_dtype
from cm2.rollout.handover import is_sharded, whole
from cm2.train.keeping import Kept
from cm2.train.loss import packed_loss, sparse_loss
from cm2.train.masks import IGNORED, Example
from cm2.train.processes import Processes
from cm2.train.runs import Run
from cm2.train.sft_config import SftConfig


class Trainer(Kept, SFTTrainer):
    """SFTTrainer that takes examples in a given order."""

    order: list[int]
    schedule: str
    warmup: float
    packs: bool
    product_dtype: str
    processes: Processes

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return self.order

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The learning rate over all steps. transformers' own warm-up spends the first step at a rate of zero."""
        if self.lr_scheduler is None:
            optimizer = self.optimizer if optimizer is None else optimizer
            self.lr_scheduler = LambdaLR(
                optimizer, lambda step: rate(step, num_training_steps, self.schedule, self.warmup)
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The token-mean loss. Elsewhere than on a CPU TRL's fused head does the same without building all logits."""
        labels = inputs["labels"]
        if labels.device.type != "cpu" or return_outputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        # The tokens of all processes are counted, and gradients are averaged over the processes.
        scale = 1 if num_items_in_batch is None else self.accelerator.num_processes
        ids = inputs["input_ids"]
        if not self.packs:
            return sparse_loss(model, ids, labels, num_items_in_batch) * scale
        sizes = inputs["attention_mask"].sum(1).tolist()
        rows = [row[:size].numpy() for row, size in zip(ids, sizes, strict=True)]
        masks = [row[:size].numpy() != IGNORED for row, size in zip(labels, sizes, strict=True)]
        return packed_loss(model, rows, masks, num_items_in_batch) * scale


def rate(step: int, steps: int, schedule: str, warmup: float) -> float:
    """The share of the peak learning rate at a 0-based step: a rise over `warmup` of all steps, then the fall."""
    rising = math.ceil(steps * warmup)
    if step < rising:
        return (step + 1) / (rising + 1)
    if schedule == "constant":
        return 1.0
    gone = (step - rising) / max(1, steps - rising)
    return 1.0 - gone if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * gone))


def evened(examples: list[Example], order: list[int], rows: int) -> tuple[list[Example], list[int]]:
    """Examples and an order whose length `rows` divides: what is added at its end has no loss. Else processes with a
    row too few would be given some of the first rows again."""
    missing = -len(order) % rows
    if not missing:
        return examples, order
    first = examples[order[0]]
    silent = Example(first.dialogue, first.ids[:2], np.zeros(2, dtype=bool), 0)
    return [*examples, silent], order + [len(examples)] * missing


def make_trainer(
    run: Run,
    config: SftConfig,
    model: Any,
    tokenizer: Any,
    examples: list[Example],
    order: list[int],
    packs: bool,
    processes: Processes | None = None,
) -> Trainer:
    """A trainer of `model` over the examples, in this order; `packs`: the model can read them packed."""
    processes = processes or Processes()
    if not processes.alone:
        examples, order = evened(examples, order, config.micro_batch * processes.ranks)
    bf16 = config.dtype == "bfloat16" or (config.dtype == "auto" and multiplies_bf16())
    args = SFTConfig(
        output_dir=str(run.checkpoints_folder),
        num_train_epochs=1,  # the order spans all epochs
        per_device_train_batch_size=config.micro_batch,
        gradient_accumulation_steps=config.batch // config.micro_batch // processes.ranks,
        learning_rate=config.lr,
        weight_decay=config.weight_decay,
        max_grad_norm=config.clip,
        optim="adamw_torch_fused",
        bf16=bf16,
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=config.checkpointing,
        seed=config.seed,
        ddp_find_unused_parameters=False,
        save_strategy="no",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    data = Dataset.from_dict({"input_ids": [one.ids for one in examples], "labels": [one.labels for one in examples]})
    trainer = Trainer(
        model=model, args=args, train_dataset=data, processing_class=tokenizer, peft_config=_adapters(config)
    )
    trainer.remove_callback(PrinterCallback)
    trainer.run, trainer.order = run, order
    trainer.packs, trainer.processes = packs, processes
    trainer.schedule, trainer.warmup = config.schedule, config.warmup
    trainer.product_dtype = "bfloat16" if bf16 else "float32"
    return trainer


def multiplies_bf16() -> bool:
    return torch.cuda.is_bf16_supported() if torch.cuda.is_available() else native_dtype() == torch.bfloat16


def _adapters(config: SftConfig) -> Any:
    if not config.lora:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=config.lora,
        lora_alpha=config.lora_alpha or 2 * config.lora,
        lora_dropout=config.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def sizes_of(model: Any) -> dict[str, int]:
    """How many parameters the model has, and how many of them are trained."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return {"parameters": sum(n for n, _ in sizes), "trained_parameters": sum(n for n, trained in sizes if trained)}


def save_result(run: Run, trainer: Any, tokenizer: Any) -> None:
    """Write RUN/model and, of a LoRA run, RUN/adapter; adapters are merged into the model.

    Raises:
        CM2Error: the disk has no room for it.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    state = whole(model, keep=trainer.processes.first) if is_sharded(model) else None
    try:
        trainer.processes.lead(lambda: _save(run, model, tokenizer, state))
    except (OSError, SafetensorError) as error:
        raise CM2Error(
            f"the model could not be written to {run.folder}: {error}",
            fix="free some room and run the same command again: it goes on from the last checkpoint",
        ) from error


def _save(run: Run, model: Any, tokenizer: Any, state: dict[str, Any] | None) -> None:
    if hasattr(model, "merge_and_unload"):
        with run.saving(run.adapter_folder) as folder:
            model.save_pretrained(folder)
        model = model.merge_and_unload()
    with run.saving(run.model_folder) as folder:
        model.save_pretrained(folder, state_dict=state)
        tokenizer.save_pretrained(folder)
