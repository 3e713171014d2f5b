"""Config: a recipe of `cm2 rl` as a configuration of verl, with the reason beside every line.

The file takes verl's own defaults (`ppo_trainer`) and says what differs. verl counts some things in other units than
a recipe: mini-batches in prompts, steps in batches of rollouts, warm-up likewise. What a recipe asks for and verl
cannot do is refused or told (`cm2.verl.refusals`).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec

from cm2.rollout.template import CHAT_TEMPLATE
from cm2.train.rl_config import RlConfig
from cm2.verl import NAME, PLUGIN, TESTED
from cm2.verl.cluster import Cluster, Sizes, sizes_of
from cm2.verl.refusals import CRITIC_LR, divided, notes_of, refused
from cm2.verl.section import section
from cm2.verl.yaml_text import Noted, render

FILE = "verl.yaml"
LOSSES = {
    "token_mean": "token-mean",
    "sequence_mean": "seq-mean-token-mean",
    "dr_grpo": "seq-mean-token-sum-norm",
}
WORKERS = 8
"""Processes of a node that play sessions."""


class Written(msgspec.Struct, frozen=True):
    """A configuration that was made of a recipe."""

    tree: dict[str, Any]
    text: str
    notes: tuple[str, ...]


def written(recipe: RlConfig, cluster: Cluster) -> Written:
    """The configuration of a recipe on a cluster.

    Raises:
        ConfigError: verl or the cluster cannot do what the recipe says.
    """
    recipe.consistent()
    refused(recipe)
    divided(recipe, cluster)
    sizes = sizes_of(recipe, cluster)
    folder = Path(recipe.output).resolve()
    workers = max(1, min(recipe.prompts, WORKERS * cluster.nodes))
    tree: dict[str, Any] = {
        "defaults": ["ppo_trainer", "_self_"],
        "hydra": {
            "searchpath": Noted(["pkg://verl.trainer.config"], "verl's own defaults"),
            "run": {"dir": str(folder / "hydra")},
        },
        "cm2": Noted(section(recipe, folder, workers), "who judges and answers, how it is credited"),
        "data": _data(recipe),
        "actor_rollout_ref": {
            "model": _model(recipe, cluster),
            "actor": _actor(recipe, cluster, sizes),
            "ref": {"fsdp_config": _placing(recipe, sizes)},
            "rollout": _rollout(recipe, cluster, sizes, workers),
        },
        "algorithm": _algorithm(recipe),
        "reward": {"num_workers": Noted(1, "not asked: sessions bring their rewards")},
        "trainer": _trainer(recipe, cluster, folder),
        "ray_kwargs": {
            "ray_init": {
                "runtime_env": {
                    "env_vars": {
                        "VERL_USE_EXTERNAL_MODULES": Noted(PLUGIN, "a plug-in that does not load fails every process"),
                    }
                }
            }
        },
    }
    if recipe.algorithm == "ppo":
        tree["critic"] = _critic(recipe, cluster, sizes)
    head = (
        f"# verl {TESTED}: {recipe.prompts} prompts x {recipe.group} rollouts on {cluster.gpus} x {cluster.gpu} in "
        f"{cluster.nodes} node(s).\n# Written by cm2 rl --engine verl from a recipe, and by the same command again.\n"
    )
    return Written(tree, head + render(tree), (*notes_of(recipe), *sizes.notes))


def steps_of(recipe: RlConfig) -> int:
    """Batches of rollouts of the whole run: a recipe counts optimizer steps."""
    return math.ceil(recipe.updates / (recipe.epochs * recipe.mini_batches))


def _data(recipe: RlConfig) -> dict[str, Any]:
    tasks = str(Path(recipe.input).resolve())
    held = recipe.heldout
    return {
        "train_files": [tasks],
        "val_files": Noted(
            [tasks if held is None else str(Path(held).resolve())],
            "never read for validation (test_freq -1), but verl wants a file" if held is None else "held out",
        ),
        "val_max_samples": Noted(1, "see val_files") if held is None else recipe.heldout_tasks,
        "custom_cls": {"path": "pkg://cm2.verl.data", "name": "Tasks"},
        "cm2_format": recipe.format,
        "train_batch_size": Noted(recipe.prompts, "prompts of a step"),
        "max_prompt_length": Noted(recipe.max_tokens, "cm2.max_tokens limits prompt and response together"),
        "max_response_length": Noted(recipe.max_tokens, "likewise"),
        "seed": recipe.seed,
        "dataloader_num_workers": Noted(1, "rows are in memory"),
    }


def _model(recipe: RlConfig, cluster: Cluster) -> dict[str, Any]:
    path = Path(recipe.model)
    found: dict[str, Any] = {
        "path": Noted(
            str(path.resolve()) if path.is_dir() else recipe.model, "the cold start, also what KL holds on to"
        ),
        "use_remove_padding": True,
        "enable_gradient_checkpointing": True,
    }
    if recipe.lora:
        found |= {
            "lora_rank": recipe.lora,
            "lora_alpha": Noted(2 * recipe.lora, "as the local engine"),
            "target_modules": "all-linear",
        }
    if cluster.template == "cm2":
        found["custom_chat_template"] = Noted(CHAT_TEMPLATE, "keeps earlier thinking, so that sampled ids can be kept")
    return found


def _placing(recipe: RlConfig, sizes: Sizes) -> dict[str, Any]:
    found: dict[str, Any] = {
        "param_offload": Noted(sizes.offload, "weights wait in the processor's memory while others work")
    }
    if recipe.lora:
        found["model_dtype"] = Noted("bf16", "frozen weights need no 32 bits")
    return found


def _actor(recipe: RlConfig, cluster: Cluster, sizes: Sizes) -> dict[str, Any]:
    batches = recipe.epochs * recipe.mini_batches
    return {
        "strategy": "fsdp2",
        "ppo_mini_batch_size": Noted(
            recipe.prompts // recipe.mini_batches,
            f"in prompts: {recipe.prompts * recipe.group // recipe.mini_batches} rollouts an optimizer step",
        ),
        "ppo_epochs": recipe.epochs,
        "data_loader_seed": recipe.seed,
        "use_dynamic_bsz": Noted(True, "micro-batches by tokens"),
        "ppo_max_token_len_per_gpu": Noted(
            max(recipe.micro_tokens, recipe.max_tokens), "tokens of one pass; the longest rollout must fit"
        ),
        "clip_ratio": recipe.clip_low,
        "clip_ratio_low": recipe.clip_low,
        "clip_ratio_high": recipe.clip_high,
        "clip_ratio_c": Noted(3.0, "verl's own: a bad action whose ratio rose beyond it has no gradient"),
        "loss_agg_mode": LOSSES[recipe.loss],
        "loss_scale_factor": Noted(recipe.max_tokens, "the constant length of Dr. GRPO")
        if recipe.loss == "dr_grpo"
        else None,
        "entropy_coeff": 0,
        "use_kl_loss": recipe.beta > 0 and not _kl_in_reward(recipe),
        "kl_loss_coef": recipe.beta,
        "kl_loss_type": Noted(
            "low_var_kl" if recipe.kl_gradient == "k3" else "k3+",
            "k3" if recipe.kl_gradient == "k3" else "the value of k3, the gradient of k2, which is the reverse KL's",
        ),
        "grad_clip": recipe.clip,
        "optim": {
            "lr": recipe.lr,
            "lr_warmup_steps": Noted(math.ceil(recipe.warmup / batches), "in steps of the trainer"),
            "lr_scheduler_type": "constant",
            "weight_decay": recipe.weight_decay,
        },
        "fsdp_config": _placing(recipe, sizes)
        | {"optimizer_offload": Noted(sizes.offload, "likewise the optimizer's state"), "seed": recipe.seed},
    }


def _rollout(recipe: RlConfig, cluster: Cluster, sizes: Sizes, workers: int) -> dict[str, Any]:
    return {
        "name": cluster.engine,
        "n": Noted(recipe.group, "rollouts a prompt"),
        "temperature": recipe.temperature,
        "top_p": 1.0,
        "top_k": -1,
        "seed": recipe.seed,
        "max_model_len": Noted(recipe.max_tokens, "a whole rollout"),
        "tensor_model_parallel_size": Noted(sizes.width, "devices of one copy: as few as leave room for its cache"),
        "gpu_memory_utilization": Noted(sizes.share, "of a device, what training leaves"),
        "enable_prefix_caching": Noted(True, "the turns of a rollout, and a group's prompt, are read once"),
        "calculate_log_probs": Noted(True, "what importance weights compare with"),
        "load_format": Noted("safetensors", "verl passes on adapters only: the engine loads the base model itself")
        if recipe.lora
        else Noted("dummy", "verl passes all weights on"),
        "agent": {
            "default_agent_loop": NAME,
            "num_workers": Noted(
                workers, "processes that play sessions; each opens its own door to judge and simulator"
            ),
        },
        "val_kwargs": {
            "temperature": recipe.heldout_temperature,
            "do_sample": recipe.heldout_temperature > 0,
            "n": 1,
        },
    }


def _algorithm(recipe: RlConfig) -> dict[str, Any]:
    ppo = recipe.algorithm == "ppo"
    found: dict[str, Any] = {
        "adv_estimator": Noted("gae", "step rewards through a critic")
        if ppo
        else Noted(NAME, f"level {recipe.level}, made by cm2.credit from the sessions' verdicts"),
        "norm_adv_by_std_in_grpo": Noted(recipe.normalise == "std", "for the record: cm2.credit.normalise decides"),
        "use_kl_in_reward": _kl_in_reward(recipe),
        "rollout_correction": {
            "rollout_is": Noted(
                None if recipe.importance == "none" else recipe.importance,
                "truncated ratio of the trainer's and the serving engine's probabilities",
            ),
            "rollout_is_threshold": recipe.importance_max,
        },
    }
    if ppo:
        found |= {"gamma": recipe.ppo.gamma, "lam": recipe.ppo.lam}
    if _kl_in_reward(recipe):
        found |= {"kl_penalty": "kl", "kl_ctrl": {"type": "fixed", "kl_coef": recipe.beta}}
    if recipe.resample:
        found["filter_groups"] = {
            "enable": Noted(True, "groups whose rollouts all earned the same are replaced"),
            "metric": "reward",
        }
    return found


def _critic(recipe: RlConfig, cluster: Cluster, sizes: Sizes) -> dict[str, Any]:
    path = Path(recipe.model)
    placing = _placing(recipe, sizes)
    return {
        "strategy": "fsdp2",
        "model": {"path": str(path.resolve()) if path.is_dir() else recipe.model},
        "optim": {"lr": Noted(CRITIC_LR, "verl's critic is a whole network; ppo.lr is of the local engine's head")},
        "cliprange_value": 1e9 if recipe.ppo.clip is None else recipe.ppo.clip,
        "ppo_max_token_len_per_gpu": max(recipe.micro_tokens, recipe.max_tokens),
        "fsdp": placing | {"optimizer_offload": sizes.offload},
    }


def _trainer(recipe: RlConfig, cluster: Cluster, folder: Path) -> dict[str, Any]:
    return {
        "v1": {
            "trainer_mode": Noted(NAME, "unknown to verl where the plug-in is not loaded, which ends the run at once")
        },
        "nnodes": cluster.nodes,
        "n_gpus_per_node": cluster.each,
        "total_training_steps": Noted(
            steps_of(recipe), f"batches of rollouts: {recipe.updates} updates of the recipe's optimizer steps"
        ),
        "total_epochs": Noted(1_000_000, "the steps end it"),
        "default_local_dir": str(folder / "checkpoints"),
        "resume_mode": Noted("auto", "the same command goes on from the last checkpoint"),
        "save_freq": cluster.save_steps,
        "max_actor_ckpt_to_keep": 2,
        "max_critic_ckpt_to_keep": 2,
        "val_before_train": recipe.heldout is not None,
        "test_freq": -1
        if recipe.heldout is None
        else math.ceil(recipe.evaluate_every / (recipe.epochs * recipe.mini_batches)),
        "logger": Noted(["console", "tensorboard"], "TENSORBOARD_DIR says where"),
        "project_name": NAME,
        "experiment_name": folder.name,
    }


def _kl_in_reward(recipe: RlConfig) -> bool:
    return recipe.algorithm == "ppo" and recipe.ppo.kl_in == "reward" and recipe.beta > 0
