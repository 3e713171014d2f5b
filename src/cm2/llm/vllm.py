"""VllmServer: what a vLLM server can do beside answering, for a trainer whose rollouts it decodes.

It says what it serves, how it cuts a text into tokens, and loads weights in place from a folder that it sees. The last
is for development servers only (VLLM_SERVER_DEV_MODE=1): whoever reaches such a server can make it load anything, so it
belongs on a private network.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import msgspec

from cm2.errors import CM2Error, ConfigError
from cm2.llm.client import RETRIED
from cm2.llm.scrub import scrub

STARTED = "VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --enable-prefix-caching --logprobs-mode processed_logprobs"
LONGEST = 60.0


class Served(msgspec.Struct, frozen=True):
    """A model that a server serves."""

    name: str
    length: int | None = None
    """Tokens that a prompt and its answer may have together."""


class VllmServer:
    """One server; see the module. It is asked from code that is not asynchronous.

    Args:
        base_url: where its API starts, including /v1.
        retries: further tries of a request that failed for a reason that may pass.
        backoff: seconds before the first one.
    """

    def __init__(
        self,
        base_url: str,
        *,
        key_variable: str = "VLLM_API_KEY",
        timeout: float = 600.0,
        retries: int = 6,
        backoff: float = 0.5,
    ):
        parts = urlsplit(base_url)
        self.name = f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
        self._base = urlunsplit(parts._replace(path=parts.path.rstrip("/")))
        self._root = self._base.removesuffix("/v1")
        key = os.environ.get(key_variable, "").strip()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(timeout=timeout, headers=headers)
        self._retries, self._backoff = retries, backoff

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def models(self) -> list[Served]:
        """What it serves."""
        found = self._asked("GET", f"{self._base}/models")
        try:
            return [Served(str(one["id"]), one.get("max_model_len")) for one in found["data"]]
        except (KeyError, TypeError) as error:
            raise ConfigError(f"{self.name}: /v1/models tells no models", fix="is it a vLLM server?") from error

    def tokenize(self, text: str, model: str) -> list[int] | None:
        """The ids of a text, None where the server has no such service."""
        body = {"model": model, "prompt": text, "add_special_tokens": False}
        try:
            found = self._asked("POST", f"{self._root}/tokenize", body)
            return [int(token) for token in found["tokens"]]
        except ConfigError:
            return None
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{self.name}: /tokenize tells no tokens", fix="is it a vLLM server?") from error

    def load(self, folder: str) -> None:
        """Take the weights of a folder, as the server sees it, and forget what was computed with others.

        Raises:
            ConfigError: it is no development server.
            CM2Error: it could not.
        """
        body = {"method": "reload_weights", "kwargs": {"weights_path": folder}}
        self._asked("POST", f"{self._root}/collective_rpc", body)
        self._until(lambda: self._asked("POST", f"{self._root}/reset_prefix_cache"))

    def _until(self, ask: Callable[[], Any]) -> None:
        """Ask until it is done: vLLM refuses while a request holds blocks of the cache."""
        for number in range(self._retries + 1):
            found = ask()
            if not (isinstance(found, dict) and found.get("success") is False):
                return
            self._wait(number)
        raise CM2Error(
            f"{self.name}: the prefix cache could not be emptied; what the old weights computed would be used",
            fix="does somebody else ask this server? Training needs one of its own",
        )

    def _asked(self, method: str, url: str, body: Any = None) -> Any:
        """The answer of one request, as JSON."""
        number = 0
        while True:
            try:
                response = self._http.request(method, url, json=body)
            except httpx.RequestError as error:
                told = scrub(f"{self.name}: {type(error).__name__}: {error}".rstrip(": "))
                again = CM2Error(f"{told} ({number + 1} tries)", fix="see to the server and run the same command again")
                cause: Exception | None = error
            else:
                if response.status_code == 200:
                    return _json(response)
                told = scrub(
                    f"{self.name}: {urlsplit(url).path} answered {response.status_code}: {response.text[:300]}"
                )
                if response.status_code in (404, 405):
                    raise ConfigError(told, fix=f"start it like this: {STARTED}")
                again = CM2Error(told, fix="the server's own log says why")
                cause = None
                if not (response.status_code in RETRIED or response.status_code >= 502):
                    raise again
            if number >= self._retries:
                raise again from cause
            self._wait(number)
            number += 1

    def _wait(self, number: int) -> None:
        time.sleep(random.uniform(0.5, 1.0) * min(self._backoff * 2.0**number, LONGEST))


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None
