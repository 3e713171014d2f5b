"""Settings of a benchmark's run: which model answers, who plays the user, and how much of the benchmark is run."""

from __future__ import annotations

import hashlib
import os
from typing import Annotated, Any, Literal, Protocol

import msgspec

from cm2.errors import ConfigError

BENCHMARKS = ("bfcl", "tau2", "toolsandbox")
Benchmark = Literal["bfcl", "tau2", "toolsandbox"]
NEEDS_USER = ("tau2", "toolsandbox")
MOST_RUNS = 64
NO_KEY = "EMPTY"
"""What servers without a key are given, as OpenAI's client wants one."""


class Identified(Protocol):
    """Settings that know which of them decide an answer, and where the results go."""

    output: str

    def identity(self) -> dict[str, Any]:
        """Those: results of one folder share them."""
        ...


class EvalConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One model on one benchmark."""

    benchmark: Benchmark
    output: str
    """Folder of the results; the same command goes on in it."""
    base_url: str
    """Where the agent's API starts."""
    model: str
    """The agent, as its endpoint knows it."""
    key: str = "OPENAI_API_KEY"
    """Environment variable with the agent's key; unset is fine for a server that wants none."""
    user_base_url: str | None = None
    """Where the user simulator's API starts; tau2 and toolsandbox have one."""
    user_model: str | None = None
    """Benchmarks are comparable only under the same user."""
    user_key: str | None = None
    """Environment variable with the user's key; as the agent's where the endpoint is the same."""
    user_temperature: float = 0.0
    """The user's; what tau2 publishes is 0."""
    thinking: Literal["keep", "drop"] = "keep"
    """Whether the agent's thinking of earlier steps stays in what it sees: as it was trained. The paper keeps it."""
    categories: list[str] = msgspec.field(default_factory=list)
    """Parts of the benchmark. Empty: those that need nothing from outside."""
    runs: Annotated[int, msgspec.Meta(ge=1, le=MOST_RUNS)] = 1
    """Repetitions of every task. The paper takes the mean of four on tau2-bench."""
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Only the first so many tasks of each category. Not comparable with anything published."""
    tasks: list[str] = msgspec.field(default_factory=list)
    """Only these task ids. Not comparable either."""
    temperature: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """The agent's. Unset: the harness's own (bfcl 0.001, tau2 0, toolsandbox the server's)."""
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Of one answer of the agent. Unset: the server's."""
    concurrency: Annotated[int, msgspec.Meta(ge=1)] = 4
    """Conversations at once."""
    timeout: Annotated[float, msgspec.Meta(gt=0)] = 600.0
    """Seconds for one request. A slow CPU needs more."""
    retries: Annotated[int, msgspec.Meta(ge=0)] = 2
    """Further tries of a request that failed, before the conversation counts as lost."""
    allow_errors: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Conversations that may be lost to others than the agent before the run fails."""
    seed: int = 0
    """Of what the harness draws; a repetition adds its number."""
    baseline: bool = True
    """Whether toolsandbox also plays an agent that refuses everything, which needs no model."""

    def __post_init__(self) -> None:
        if self.benchmark in NEEDS_USER and (self.user_base_url is None) != (self.user_model is None):
            raise ConfigError(
                "the user simulator needs an address and a model", fix="give --user-base-url and --user-model"
            )
        if self.benchmark in NEEDS_USER and self.user_model is None:
            raise ConfigError(
                f"{self.benchmark} plays conversations with a simulated user",
                fix="give --user-base-url and --user-model: a strong model, the same for all that you compare",
            )
        if self.limit is not None and self.tasks:
            raise ConfigError("--limit and --task both choose tasks", fix="use one of them")
        for name in ("base_url", "user_base_url"):
            value = getattr(self, name)
            if value is not None and not value.startswith(("http://", "https://")):
                raise ConfigError(
                    f"--{name.replace('_', '-')} is {value!r}", fix="give an address like http://127.0.0.1:8000/v1"
                )

    def secret(self, role: str) -> str:
        """The key for an endpoint of this run ("agent", "user"), from the environment."""
        if role == "agent":
            return os.environ.get(self.key) or NO_KEY
        if self.user_key is not None:
            return os.environ.get(self.user_key) or NO_KEY
        # Another server is not sent the agent's key unless it was asked for.
        return self.secret("agent") if self.user_base_url == self.base_url else NO_KEY

    def conversing(self) -> dict[str, Any]:
        """What a runner is told whose benchmark plays the user by a model."""
        told = ("model", "base_url", "user_model", "user_base_url", "user_temperature", "thinking", "temperature")
        more = ("max_tokens", "timeout", "retries", "concurrency", "tasks", "limit")
        return {name: getattr(self, name) for name in (*told, *more)}

    def identity(self) -> dict[str, Any]:
        """What decides an answer: results of one folder share it. Addresses, keys and patience are not in it."""
        left_out = (
            "output",
            "concurrency",
            "timeout",
            "retries",
            "allow_errors",
            "runs",
            "key",
            "user_key",
            "baseline",
        )
        # A server on loopback gets another port at every start; the model's name stays.
        return {
            name: value
            for name, value in msgspec.to_builtins(self).items()
            if name not in (*left_out, "base_url", "user_base_url")
        }


def digest(value: Any) -> str:
    """A short hash of a JSON value, the same for equal ones."""
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()[:16]
