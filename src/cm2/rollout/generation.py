"""Generation: who decodes the rollouts of a training run.

`local`, the default, decodes in the training process. `vllm` asks vLLM servers that are started beside it and that see
the folder into which the weights are saved: before every batch of rollouts they load them in place. A server is started
with

    VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --enable-prefix-caching --logprobs-mode processed_logprobs
"""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from cm2.errors import ConfigError

Positive = Annotated[float, msgspec.Meta(gt=0)]


class Generation(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """See the module."""

    engine: Literal["local", "vllm"] = "local"
    """vllm where the model is large, or sharded over processes so that none of them could decode."""
    base_url: str | list[str] = ""
    """Where the servers' API starts, with its version: http://127.0.0.1:8000/v1. A list names replicas: the rollouts
    of a task go to the same one, which has read their prompt."""
    model: str = ""
    """The model's name at the servers (--served-model-name); empty: the one that they serve."""
    weights: str = ""
    """The folder that weights are handed over by, on a disk that trainer and servers share. Empty: RUN/weights. In
    memory (/dev/shm) it is fastest."""
    seen_as: str = ""
    """The same folder as the servers see it, where they run in a container or on another machine."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Of the weights that are handed over; what the servers compute with."""
    agreement: Positive = 0.25
    """The largest mean difference, in nats, between servers and trainer on a few prompt tokens after each hand-over.
    bfloat16 makes some hundredths; a larger one is another model, or weights that did not arrive."""
    concurrency: Annotated[int, msgspec.Meta(ge=1)] = 256
    """Requests under way at each replica, at most."""
    retries: Annotated[int, msgspec.Meta(ge=0)] = 6
    """Further tries of a request, over all replicas; after that its rollout has failed and counts for nothing."""
    backoff: Annotated[float, msgspec.Meta(ge=0)] = 0.5
    """Seconds before the first further try; doubled each time."""
    timeout: Positive = 600.0
    """Seconds until a request counts as failed."""
    key_variable: str = "VLLM_API_KEY"
    """The environment variable that holds the servers' key, where they were started with one."""

    def __post_init__(self) -> None:
        if self.engine == "local":
            return
        if not self.urls:
            raise ConfigError("generation.base_url is needed for vllm", fix="give http://HOST:PORT/v1, or a list")
        for url in self.urls:
            if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
                raise ConfigError(f"generation.base_url {url!r} is no address", fix="give http(s)://HOST[:PORT]/v1")

    @property
    def urls(self) -> list[str]:
        """The servers' addresses."""
        found = [self.base_url] if isinstance(self.base_url, str) else self.base_url
        return [url.rstrip("/") for url in found if url]


FREE = tuple(
    f"generation.{name}"
    for name in (
        "base_url",
        "model",
        "weights",
        "seen_as",
        "concurrency",
        "retries",
        "backoff",
        "timeout",
        "key_variable",
    )
)
"""Settings on which no number depends: they may change when a run is resumed."""
