"""Limits: how long a rollout may go on before the environment ends it."""

from __future__ import annotations

import msgspec

from cm2.errors import ConfigError


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every limit that is reached ends the rollout, owner "limit"; what was earned until then is judged and kept."""

    turns: int | None = None
    """Turns of the reference that are played; None plays all. Lower it to train on the openings of long dialogues."""
    steps: int = 20
    """Steps in one turn. Raise it where references need more; lower it to stop an agent that calls tools in circles."""
    tokens: int | None = None
    """Tokens that the agent may generate in the whole rollout, as the driver counts them. None: no limit here."""
    calls: int = 20
    """Calls in one step that are executed; those beyond it get an error. It bounds what a runaway step costs."""

    def __post_init__(self) -> None:
        for name in ("turns", "steps", "tokens", "calls"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"limits.{name} is {value}", fix="use a number from 1 up")
