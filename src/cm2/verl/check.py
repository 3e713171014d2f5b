"""Check: whether a written configuration is one that the installed verl takes, before any GPU is asked for.

Each line of a report is one thing that would otherwise fail late or silently: the plug-in and what it registers, the
composed configuration, verl's own validation and classes, the tokenizer's template, the tasks, the models' file.
What cannot be looked at here (a model that is only a name, a verl that is not installed) is `not checked`: neither good
nor bad.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from cm2.errors import ConfigError, DataError, Where, told
from cm2.verl import NAME, TESTED

Outcome = Literal["good", "bad", "not checked"]


class Line(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    what: str
    outcome: Outcome
    said: str = ""


class Report(msgspec.Struct, frozen=True):
    """All of them."""

    lines: list[Line]

    @property
    def good(self) -> bool:
        """Whether nothing is bad."""
        return all(line.outcome != "bad" for line in self.lines)

    @property
    def complete(self) -> bool:
        """Whether everything was looked at."""
        return all(line.outcome == "good" for line in self.lines)


def installed() -> bool:
    """Whether verl is there, as a package and not as some folder of that name."""
    try:
        importlib.metadata.version("verl")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def check(path: str | None = None, overrides: list[str] | None = None) -> Report:
    """Look at the plug-in, and at a configuration if one is given.

    Args:
        path: the file that `cm2 rl --engine verl` wrote.
        overrides: further settings, as on verl's command line.
    """
    report = Report([])
    if not installed():
        report.lines.append(
            Line("verl", "not checked", "not installed here; pip install 'cm2[verl]', or check it there")
        )
        if path is not None:
            _try(report, "section cm2", lambda: _section(_read(path)))
        return report
    _try(report, "verl", _version)
    _try(report, "plug-in", _registered)
    if path is None:
        return report
    found: dict[str, Any] = {}
    _try(report, "composition", lambda: found.update(config=compose(path, overrides or [])))
    if not found:
        return report
    config = found["config"]
    _try(report, "section cm2", lambda: _section(config))
    _try(report, "verl's validation", lambda: validate(config))
    _try(report, "data", lambda: _data(config))
    _try(report, "template", lambda: _template(config))
    return report


def compose(path: str, overrides: list[str]) -> Any:
    """The whole configuration as verl's own entry point composes it.

    Raises:
        ConfigError: hydra cannot.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    file = Path(path).resolve()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(file.parent), version_base=None):
            return hydra_compose(file.stem, overrides=overrides)
    except Exception as error:  # hydra's errors are of a dozen types; all mean that the file does not compose
        raise ConfigError(f"does not compose: {_first(error)}", where=Where(file=path)) from error


def validate(config: Any) -> str:
    """verl's own validation, and every section that has a class as that class; the model's only where it is at hand.

    Raises:
        ConfigError: verl says no.
    """
    from omegaconf import OmegaConf
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    said = io.StringIO()
    unresolved = OmegaConf.missing_keys(config)
    # What is not used stays open in verl's own defaults.
    if left := sorted(key for key in unresolved if not key.startswith(("reward.", "distillation."))):
        raise ConfigError(f"{', '.join(left)} must be set")
    sections = [
        "actor_rollout_ref.actor",
        "actor_rollout_ref.ref.fsdp_config",
        "actor_rollout_ref.rollout",
        "algorithm",
    ]
    here = Path(config.actor_rollout_ref.model.path).is_dir()
    try:
        with contextlib.redirect_stdout(said), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            critic = need_critic(config) and here  # its class reads the model
            if _lora_without_vllm(config):
                config = config.copy()
                config.actor_rollout_ref.model.lora_rank = 0  # verl asks vLLM which ranks it has kernels for
            validate_config(config, need_reference_policy(config), critic)
            if here:
                sections += ["actor_rollout_ref.model"] + ["critic"] * critic
            for name in sections:
                omega_conf_to_dataclass(OmegaConf.select(config, name))
    except Exception as error:
        raise ConfigError(f"verl says: {_first(error)}") from error
    return f"classes of {', '.join(name.removeprefix('actor_rollout_ref.') for name in sections)}"


def _lora_without_vllm(config: Any) -> bool:
    return bool(config.actor_rollout_ref.model.lora_rank) and importlib.util.find_spec("vllm") is None


def _try(report: Report, what: str, look: Callable[[], Any]) -> None:
    try:
        said = look()
    except _NotHere as note:
        report.lines.append(Line(what, "not checked", str(note)))
    except Exception as error:  # whatever is wrong with it, the next line is looked at all the same
        report.lines.append(Line(what, "bad", told(error)))
    else:
        report.lines.append(Line(what, "good", said if isinstance(said, str) else ""))


class _NotHere(Exception):
    """That something can only be looked at elsewhere."""


def _version() -> str:
    found = importlib.metadata.version("verl")
    return found if found == TESTED else f"{found}; {TESTED} is what the plug-in was tested with"


def _registered() -> str:
    """The plug-in as verl's processes load it: through the entry point too, whose failures verl keeps to itself."""
    from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn
    from verl.trainer.ppo.v1 import get_trainer_cls
    from verl.utils.import_utils import load_class_from_fqn

    import cm2.verl.plugin

    load_class_from_fqn(_agent_loop_registry[NAME]["_target_"], "agent loop")
    get_trainer_cls(NAME)
    get_adv_estimator_fn(NAME)
    points = [point.name for point in importlib.metadata.entry_points(group="verl.plugins")]
    asked = cm2.verl.PLUGIN in os.environ.get("VERL_USE_EXTERNAL_MODULES", "")
    how = [name for name, there in (("entry point", NAME in points), ("VERL_USE_EXTERNAL_MODULES", asked)) if there]
    if not how:
        how = ["import only: pip install cm2, or set VERL_USE_EXTERNAL_MODULES as a written run does"]
    return f"agent loop, trainer, estimator; by {' and '.join(how)}"


def _read(path: str) -> dict[str, Any]:
    found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ConfigError("is not a mapping", where=Where(file=path))
    return found


def _section(config: Any) -> str:
    from cm2.llm import load_models
    from cm2.verl.setting import setting_of

    setting = setting_of(config)
    if setting.models is not None:
        load_models(setting.models)
    return f"level {setting.credit.level}, judge {setting.judging.kind}, simulator {setting.simulator.kind}"


def _data(config: Any) -> str:
    from verl.utils.dataset.rl_dataset import get_dataset_class

    with contextlib.redirect_stdout(io.StringIO()):
        kind = get_dataset_class(config.data)
    rows = kind(data_files=config.data.train_files, config=config.data)
    if len(rows) < config.data.train_batch_size:
        raise DataError(f"{len(rows)} tasks are fewer than the {config.data.train_batch_size} of one update")
    return f"{len(rows)} tasks"


def _template(config: Any) -> str:
    from transformers import AutoTokenizer

    from cm2.rollout.template import ChatTemplate

    model = config.actor_rollout_ref.model
    if not Path(model.path).is_dir():
        raise _NotHere(f"{model.path} is no folder here; verl looks at it when it starts")
    tokenizer = AutoTokenizer.from_pretrained(model.path)
    if model.custom_chat_template:
        tokenizer.chat_template = model.custom_chat_template
    ChatTemplate(tokenizer)
    return "keeps what it rendered"


def _first(error: Exception) -> str:
    """Its first lines: hydra says what it called in the first and what was wrong in the second."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
