"""ServeConfig: what is served, how its past is read, and what a client may ask for at most."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec

from cm2.errors import ConfigError
from cm2.listening import is_loopback

Thinking = Literal["keep", "drop"]
BackendName = Literal["auto", "cm2", "vllm", "sglang"]


class ServeConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """An endpoint for one checkpoint."""

    checkpoint: str
    """"embedded", a Hugging Face folder (a checkpoint of ours is one), or a Hugging Face name."""
    thinking: Thinking
    """Whether the `reasoning_content` of earlier assistant messages is read again. Training kept it; without a choice
    made on purpose two evaluations of one checkpoint could not be compared, so there is no default."""
    name: str = ""
    """What clients call the model. Default: the folder's name."""
    backend: BackendName = "auto"
    """Who decodes. "auto": vLLM, then SGLang, where one is installed; else our own decoder."""
    host: str = "127.0.0.1"
    """The address to listen on. One that other machines reach needs a key."""
    port: int = 8000
    """0 takes any that is free."""
    key_env: str = "CM2_SERVE_KEY"
    """The environment variable that holds the API key; never a flag, which every user of the machine could read."""
    slots: int = 16
    """Choices decoded at once. More raise throughput until memory or latency says no."""
    queue: int = 64
    """Choices that may wait beyond these. A client past that is told 429 and when to come back: a bounded wait beats a
    time-out."""
    workers: int = 0
    """Threads that decode, each on one core, for models that our lean decoder runs. 0: one per core of torch's."""
    context: int = 0
    """Longest conversation in tokens, answer included. 0: what the model was made for."""
    max_new_tokens: int = 2048
    """Tokens of an answer, where the client says nothing and at most: no answer may hold a slot for ever."""
    max_choices: int = 16
    """The largest `n`."""
    max_bytes: int = 8 << 20
    """The largest request body."""
    timeout: float = 600.0
    """Seconds until a request is ended with an error, waiting included."""
    drain: float = 60.0
    """Seconds that running requests get to finish after SIGTERM."""
    prefix_tokens: int = 32768
    """Tokens of finished conversations that stay in memory, so that the next turn does not read them again. 0: none."""
    backend_args: str = ""
    """More flags for vLLM or SGLang, as one would write them in a shell: `--tensor-parallel-size 2`."""
    seed: int | None = None
    """For requests that bring none. None: a fresh one each time."""

    def __post_init__(self) -> None:
        for name, low in (
            *(("slots", 1), ("queue", 0), ("workers", 0), ("context", 0), ("max_new_tokens", 1), ("max_choices", 1)),
            *(("max_bytes", 1024), ("timeout", 1e-3), ("drain", 0), ("prefix_tokens", 0), ("port", 0)),
        ):
            if getattr(self, name) < low:
                raise ConfigError(f"{name.replace('_', '-')} is {getattr(self, name)}; it must be at least {low}")
        if self.port > 65535:
            raise ConfigError(f"port is {self.port}; it must be at most 65535")
        if not self.key and not is_loopback(self.host):
            raise ConfigError(
                f"{self.host} is reached from other machines, and there is no API key",
                fix=f"set {self.key_env}, or leave --host out",
            )

    @property
    def key(self) -> str:
        """The API key; empty: everyone on this machine may ask."""
        return os.environ.get(self.key_env, "")

    @property
    def model(self) -> str:
        """What clients call the model."""
        return self.name or model_name(self.checkpoint)


def model_name(checkpoint: str) -> str:
    """A checkpoint's short name: its folder's, or that of the folder above one that is just called `model`."""
    parts = [part for part in Path(checkpoint).parts if part not in ("/", ".", "..")]
    while len(parts) > 1 and parts[-1] == "model":
        parts.pop()
    return parts[-1] if parts else "model"
