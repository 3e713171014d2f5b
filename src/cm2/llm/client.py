"""ChatClient: one conversation in, one assistant message out, from any OpenAI-compatible endpoint.

A request that the provider could not serve (408, 409, 425, 429, 5xx, timeouts, broken connections, an answer that is
no chat completion) is tried again a bounded number of times, with exponential backoff and full jitter, or when the
server's Retry-After says. Any other 4xx fails at once with the server's own message. What fails is a `ProviderError`:
nobody may take it for a wrong answer of the model.

The key is read from an environment variable when a request is made; it is in no configuration, record or message.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import httpx
import msgspec

from cm2.errors import CM2Error, ConfigError, Where
from cm2.llm.rates import Rates, read_rates
from cm2.llm.scrub import HIDDEN, scrub

RETRIED = frozenset({408, 409, 425, 429})
SPENT = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance"})
"""Error codes that come with 429 and that no waiting mends."""
MAX_ANSWER = 64 << 20
"""Bytes of an HTTP answer; a longer one is no chat completion."""


class _Scrubbing(logging.Filter):
    """httpx logs the address of every request; whoever turns that on shall not write a secret."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = scrub(record.getMessage()), ()
        return True


logging.getLogger("httpx").addFilter(_Scrubbing())


class ProviderError(CM2Error):
    """The provider of a model failed to answer.

    `status` is the last HTTP status, None where there was none. `again` says that the same request may succeed later,
    `rates` what the server said of its limits, `ended` that the whole run cannot go on.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        where: Where | None = None,
        fix: str | None = None,
        again: bool = False,
        rates: Rates | None = None,
        ended: bool = False,
    ):
        super().__init__(message, where=where, fix=fix)
        self.status, self.again, self.ended = status, again, ended
        self.rates = rates or Rates()

    @property
    def fatal(self) -> bool:
        """Whether the same will happen to the next request (a refused key, no money left, an unknown model or
        address, a provider that has stopped answering)."""
        return self.ended or self.status in (401, 402, 403, 404)


class Endpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which model answers, and how it samples."""

    base_url: str
    """Where the API starts, including its version: https://api.openai.com/v1, http://127.0.0.1:8000/v1."""
    model: str
    """The model's name as the endpoint knows it."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the key; when it is not set no key is sent, as local servers expect."""
    temperature: float | None = None
    """None leaves the server's default. 1.0 samples from the model as it is; 0 is (nearly) greedy."""
    top_p: float | None = None
    """Nucleus sampling; None leaves the server's default."""
    max_tokens: int | None = None
    """Tokens of one action; an action that is cut off ends its rollout. None leaves the server's default."""
    extra: dict[str, Any] = {}
    """Further fields of the request body, such as {"reasoning_effort": "low"}."""
    send_thinking: bool = True
    """Whether earlier thinking is sent back as reasoning_content. Turn off for endpoints that refuse the field."""
    timeout: float = 300.0
    """Seconds until a request counts as failed."""
    retries: int = 6
    """Further tries after the first."""
    backoff: float = 0.5
    """Seconds before the first further try; doubled each time, drawn at random below that."""
    longest_wait: float = 60.0
    """No wait is longer, whatever Retry-After says."""

    def __post_init__(self) -> None:
        if urlsplit(self.base_url).scheme not in ("http", "https"):
            raise ConfigError(f"{self.base_url!r} is no address of an endpoint", fix="give http(s)://HOST[:PORT]/v1")
        if self.retries < 0 or self.timeout <= 0 or self.backoff < 0:
            raise ConfigError("retries and backoff must be 0 or more, timeout more than 0")

    @property
    def name(self) -> str:
        """The model and its host, fit for records: no user, password or query."""
        parts = urlsplit(self.base_url)
        host = parts.hostname or ""
        return f"{self.model}@{host}:{parts.port}" if parts.port else f"{self.model}@{host}"


class Completion(msgspec.Struct):
    """What came back: the assistant message as the server wrote it, and what it cost."""

    message: dict[str, Any]
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tries: int = 1
    cached_tokens: int = 0
    """Of the prompt tokens, those that the provider's prefix cache had."""
    counted: bool = True
    """Whether the server reported tokens at all."""
    rates: Rates = Rates()


class ChatClient:
    """An asynchronous client of one endpoint; use it as a context manager.

    Args:
        endpoint: whom to ask.
        seed: of the jitter.
        transport: httpx transport, for tests.
    """

    path = "/chat/completions"
    """Below the base URL."""

    def __init__(self, endpoint: Endpoint, *, seed: int = 0, transport: httpx.AsyncBaseTransport | None = None):
        self.endpoint = endpoint
        self._rng = random.Random(seed)
        parts = urlsplit(endpoint.base_url)
        path, host = parts.path.rstrip("/") + self.path, parts.netloc.rpartition("@")[2]
        self._url = urlunsplit(parts._replace(path=path, netloc=host))
        user = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        self._http = httpx.AsyncClient(timeout=endpoint.timeout, limits=limits, transport=transport, auth=user)

    async def __aenter__(self) -> ChatClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def complete(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None, **fields: Any
    ) -> Completion:
        """One completion of a conversation.

        Args:
            messages: OpenAI-style chat messages.
            tools: OpenAI-style function tools.
            fields: further fields of this request (seed, response_format …); None takes a field out.

        Raises:
            ProviderError: no completion could be had.
        """
        number = 0
        while True:
            try:
                completion = await self.once(messages, tools, **fields)
            except ProviderError as error:
                if not error.again:
                    raise
                if number >= self.endpoint.retries:
                    raise self.exhausted(error, number + 1) from error
                await asyncio.sleep(self.pause(number, error.rates.retry_after))
                number += 1
            else:
                completion.tries = number + 1
                return completion

    async def once(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None, **fields: Any
    ) -> Completion:
        """One try. Its `ProviderError` says by `again` whether another makes sense."""
        body = _encode(self._body(messages, tools, fields))
        headers = self._headers() | {"Content-Type": "application/json"}
        try:
            async with (
                asyncio.timeout(self.endpoint.timeout),  # of the whole answer: one that trickles ends too
                self._http.stream("POST", self._url, content=body, headers=headers) as response,
            ):
                content = await _content(response)
        except (httpx.RequestError, TimeoutError) as error:
            text = f"{self.endpoint.name}: {type(error).__name__}: {error}".rstrip(": ")
            raise ProviderError(self._scrub(text), again=True) from error
        rates = read_rates(response.headers)
        if response.status_code == 200:
            completion = None if content is None else self._read(content, rates)
            if completion is None:
                told, spent = self._told(content or b"")
                said = f"{self.endpoint.name}: the answer is no chat completion: {told}".rstrip(": ")
                raise ProviderError(said, status=200, again=not spent, ended=spent)
            return completion
        raise self._refused(response, content or b"", rates)

    def pause(self, number: int, asked: float | None) -> float:
        """Seconds before the try after try `number` (from 0), when the server asked to wait so long."""
        if asked is not None:
            return min(asked + self._rng.uniform(0, self.endpoint.backoff), self.endpoint.longest_wait)
        backoff = min(self.endpoint.backoff * 2.0 ** min(number, 60), self.endpoint.longest_wait)
        return self._rng.uniform(0, backoff)

    def exhausted(self, error: ProviderError, tries: int) -> ProviderError:
        """The last failure of a request that is not tried again."""
        said = f"{error.message} (after {tries} tries)"
        return ProviderError(said, status=error.status, fix=error.fix, again=True, rates=error.rates)

    def _body(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, fields: dict[str, Any]
    ) -> dict[str, Any]:
        if not self.endpoint.send_thinking:
            messages = [{k: v for k, v in message.items() if k != "reasoning_content"} for message in messages]
        body: dict[str, Any] = {"model": self.endpoint.model, "messages": messages}
        if tools:
            body["tools"] = tools
        for name in ("temperature", "top_p", "max_tokens"):
            if getattr(self.endpoint, name) is not None:
                body[name] = getattr(self.endpoint, name)
        return {name: value for name, value in (body | self.endpoint.extra | fields).items() if value is not None}

    def _headers(self) -> dict[str, str]:
        key = self._key()
        return {"Authorization": f"Bearer {key}"} if key else {}

    def _key(self) -> str:
        return os.environ.get(self.endpoint.key_variable, "").strip()

    def _scrub(self, text: str) -> str:
        key, parts = self._key(), urlsplit(self.endpoint.base_url)
        for secret in (key, parts.password or "", parts.query):
            if len(secret) > 3:
                text = text.replace(secret, HIDDEN)
        return scrub(text)

    def _refused(self, response: httpx.Response, content: bytes, rates: Rates) -> ProviderError:
        status = response.status_code
        told, spent = self._told(content)
        return ProviderError(
            f"{self.endpoint.name} answered {status}: {told or response.reason_phrase}",
            status=status,
            fix=f"set {self.endpoint.key_variable}" if status == 401 else None,
            again=(status in RETRIED or status >= 500) and not spent,
            rates=rates,
            ended=spent,
        )

    @staticmethod
    def _read(content: bytes, rates: Rates) -> Completion | None:
        """The answer, None where it is no completion."""
        return _read(content, rates)

    def _told(self, content: bytes) -> tuple[str, bool]:
        """What the server says of its failure, and whether it is that no money is left."""
        try:
            value = json.loads(content)
        except (ValueError, RecursionError):
            value = content.decode(errors="replace")
        error = value.get("error", value) if isinstance(value, dict) else value
        said = error.get("message", error) if isinstance(error, dict) else error
        spent = isinstance(error, dict) and not SPENT.isdisjoint(map(str, (error.get("code"), error.get("type"))))
        return self._scrub(str(said))[:500], spent  # secrets go before the text is cut


def _encode(body: dict[str, Any]) -> bytes:
    """The body as JSON; half surrogate pairs, which break servers, become replacement characters."""
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:
        return (
            json.dumps(body, ensure_ascii=False).encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
        )


async def _content(response: httpx.Response) -> bytes | None:
    """The body of an answer, None where it is longer than is read."""
    parts, size = [], 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > MAX_ANSWER:
            return None
        parts.append(part)
    return b"".join(parts)


def _read(content: bytes, rates: Rates) -> Completion | None:
    try:
        value = json.loads(content)
        choice = value["choices"][0]
        message = choice["message"]
        usage = value.get("usage") or {}
        if not isinstance(message, dict):
            return None
        details = usage.get("prompt_tokens_details") or {}
        cached = details.get("cached_tokens") or usage.get("prompt_cache_hit_tokens") or 0
        return Completion(
            message=message,
            finish_reason=str(choice.get("finish_reason") or ""),
            prompt_tokens=max(0, int(usage.get("prompt_tokens") or 0)),
            completion_tokens=max(0, int(usage.get("completion_tokens") or 0)),
            cached_tokens=max(0, int(cached)),
            counted=bool(usage.get("prompt_tokens")),
            rates=rates,
        )
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError, RecursionError):
        return None
