"""Making a judge from its settings: one place for the command line, rollouts and training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from cm2.errors import ConfigError
from cm2.formats.origin import fingerprint
from cm2.judge.form import form
from cm2.judge.hybrid import HybridJudge
from cm2.judge.judge import AsyncJudge, ChecksJudge, Judge
from cm2.judge.judging import Judging
from cm2.judge.llm import LLMJudge
from cm2.judge.vote import VoteJudge
from cm2.llm import Asker

SAMPLING = ("model", "temperature", "top_p", "max_tokens", "effort", "efforts", "extra")
"""What of a judge's `RoleModel` decides its verdicts; where it is and how often it is tried does not."""
_LATER = ("votes", "quorum", "checks", "classifier", "audit")


def make_judge(config: Judging | None = None, models: Asker | Sequence[Asker] | None = None) -> Judge:
    """The judge that the settings describe; ChecksJudge without any.

    Args:
        config: who judges, and how.
        models: whom to ask (`cm2.llm.Models`, whose role `judge` answers). Several give one vote each.

    Raises:
        ConfigError: a model is needed and none is given; several are given and the kind is not vote.
    """
    config = Judging() if config is None else config
    if config.kind == "checks":
        return ChecksJudge()
    askers: list[Asker] = [] if models is None else list(models) if isinstance(models, Sequence) else [models]
    if not askers:
        raise ConfigError(
            f"the judge {config.kind!r} asks a model, and none is given", fix="give --base-url and --model"
        )
    if len(askers) > 1 and config.kind != "vote":
        raise ConfigError(f"{len(askers)} models were given to one judge", fix="use --judge vote for several")
    made: AsyncJudge
    if config.kind == "vote":
        made = VoteJudge(_panel(config, askers), config.quorum)
    else:
        made = LLMJudge(askers[0], config)
        if config.kind == "classifier":
            # Here and not above: it needs statistics that a rollout on the free checks should not wait for.
            from cm2.judge.cascade import CascadeJudge

            made = CascadeJudge(made, cast(str, config.classifier), audit=config.audit)
    if config.by_checks:
        made = HybridJudge(made)
    made.identity = identity(config, askers)  # type: ignore[attr-defined]
    return made


def identity(config: Judging, askers: Sequence[Any]) -> str:
    """What verdicts of this judge have in common, so that a store is not continued by another one: settings, prompt,
    models and how they sample."""
    settings = msgspec.to_builtins(config)
    if config.kind not in ("vote", "classifier"):
        settings = {name: value for name, value in settings.items() if name not in _LATER}
    told = {"settings": settings, "prompt": _form(config).prompt.id, "models": [_model(asker) for asker in askers]}
    if config.kind == "classifier":
        told["classifier"] = fingerprint(cast(str, config.classifier))
    return msgspec.json.encode(told, order="sorted").decode()


def _form(config: Judging) -> Any:
    return form("step" if config.schedule == "item" else config.schedule)


def _model(asker: Any) -> dict[str, Any]:
    try:
        model = asker.config.of("judge")
    except AttributeError:
        return {"model": type(asker).__name__}
    told = {name: msgspec.to_builtins(getattr(model, name)) for name in SAMPLING}
    return {name: value for name, value in told.items() if value is not None and value != {}}


def _panel(config: Judging, askers: list[Asker]) -> list[AsyncJudge]:
    if len(askers) == 1:
        return [
            LLMJudge(askers[0], config, sample=k, stage=f"judge: {config.schedule}, vote {k + 1}")
            for k in range(config.votes)
        ]
    return [LLMJudge(asker, config, stage=f"judge: {config.schedule}, judge {k + 1}") for k, asker in enumerate(askers)]
