"""Benchmarking: settings of benchmarks in the loop, each with the reason to change it (see `cm2.train.benchmarks`)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from cm2.errors import ConfigError
from cm2.harness.settings import Benchmark, EvalConfig
from cm2.serve.config import BackendName

AGENT = "policy"
"""What the harnesses call the model that trains."""
Count = Annotated[int, msgspec.Meta(ge=1)]


class Benchmarking(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which benchmarks a training run looks at, how often, and how much of them."""

    run: list[Benchmark] = []
    """bfcl, tau2, toolsandbox; each must be set up (`cm2 eval setup`). Empty: none."""
    every: Count = 50
    """Steps between two evaluations; there is one before the first step and one after the last too. Minutes each."""
    limit: Count = 4
    """The first so many tasks of each category. 4 of BFCL's four are 16 tasks: they see differences of about 0.3."""
    tasks: list[str] = []
    """These task ids in place of the first ones; of one benchmark only."""
    categories: list[str] = []
    """Parts of the benchmark; of one benchmark only. Empty: those that need nothing from outside."""
    user_base_url: str | None = None
    """Where the API of the simulated user starts; tau2 and toolsandbox have one."""
    user_model: str | None = None
    """The simulated user."""
    user_key: str | None = None
    """Environment variable with its key."""
    thinking: Literal["keep", "drop"] = "keep"
    """Whether earlier thinking stays in what the agent sees. Training keeps it."""
    temperature: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """The agent's. 0 is the least noise."""
    max_tokens: Count | None = None
    """Of one answer. Unset: as in the rollouts, `max_step_tokens`."""
    concurrency: Count = 4
    """Conversations at once."""
    timeout: Annotated[float, msgspec.Meta(gt=0)] = 600.0
    """Seconds for one answer."""
    retries: Annotated[int, msgspec.Meta(ge=0)] = 2
    """Further tries of a request that failed."""
    allow_errors: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Conversations that may be lost (and are left out) before the point has no score."""
    backend: BackendName = "cm2"
    """Who decodes; see `cm2 serve`. vLLM needs room beside the training."""

    def config(self, name: Benchmark, output: str, base_url: str, key: str, max_tokens: int) -> EvalConfig:
        """The evaluation of one benchmark.

        Raises:
            ConfigError: the settings do not go together.
        """
        if len(self.run) > 1 and (self.tasks or self.categories):
            raise ConfigError("benchmarks.tasks and benchmarks.categories are of one benchmark", fix="run one of them")
        user: dict[str, Any] = {
            "user_base_url": self.user_base_url,
            "user_model": self.user_model,
            "user_key": self.user_key,
        }
        if name == "bfcl":
            user = {}
        elif self.user_base_url is None or self.user_model is None:
            raise ConfigError(
                f"{name} plays conversations with a simulated user",
                fix="give --benchmark-user-base-url and --benchmark-user-model, the same for the whole run",
            )
        return EvalConfig(
            benchmark=name,
            output=output,
            base_url=base_url,
            model=AGENT,
            key=key,
            limit=None if self.tasks else self.limit,
            tasks=self.tasks,
            categories=self.categories,
            thinking=self.thinking,
            temperature=self.temperature,
            max_tokens=self.max_tokens or max_tokens,
            concurrency=self.concurrency,
            timeout=self.timeout,
            retries=self.retries,
            allow_errors=self.allow_errors,
            baseline=False,
            **user,
        )

    def consistent(self) -> None:
        """Fail where settings do not go together.

        Raises:
            ConfigError: they do not.
        """
        if len(set(self.run)) < len(self.run):
            raise ConfigError("benchmarks.run names one twice", fix="name each once")
        for name in self.run:
            self.config(name, ".", "http://127.0.0.1/v1", "", 1)

    def check(self) -> None:
        """Fail where an evaluation could not even begin.

        Raises:
            ConfigError: a category is unknown, or a harness is not set up.
        """
        from cm2.harness import environments
        from cm2.harness.run import ADAPTERS, categories

        for name in self.run:
            categories(self.config(name, ".", "http://127.0.0.1/v1", "", 1), ADAPTERS[name])
            environments.need(name)


FREE = tuple(
    f"benchmarks.{name}"
    for name in ("every", "user_base_url", "user_key", "concurrency", "timeout", "retries", "allow_errors", "backend")
)
"""Settings on which no number depends, but whether there is one."""
