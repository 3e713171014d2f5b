"""App: the endpoint's routes, its key, its bounded queue, and what happens when a client leaves.

A request is checked before anything is computed, waits in a queue that is bounded, and ends with its client: whoever
hangs up frees the slot. Every failure is an error object with a code; none is an empty answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import msgspec

from cm2.errors import MissingExtra
from cm2.rollout.sampling import Sampling
from cm2.rollout.template import ChatTemplate
from cm2.serve.answer import Answer
from cm2.serve.ask import Ask, read_ask
from cm2.serve.backend import Backend, Piece, Want
from cm2.serve.config import ServeConfig
from cm2.serve.prompt import prompt_text
from cm2.serve.refusal import Refusal, invalid

try:
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import Response
    from starlette.routing import Route
    from starlette.types import Receive, Scope, Send
except ImportError as error:
    raise MissingExtra("the endpoint", "serve") from error

log = logging.getLogger("cm2.serve")
_DEFAULT_TEMPERATURE = 1.0
_GRACE = 5.0
"""Seconds beyond the time-out of a streamed answer in which its error can still be sent."""


class Endpoint:
    """One checkpoint behind OpenAI's chat-completions interface.

    Args:
        config: see `ServeConfig`.
        template: the checkpoint's.
        backend: who decodes; opened and closed with the application.
    """

    def __init__(self, config: ServeConfig, template: ChatTemplate, backend: Backend):
        self.config, self.template, self.backend = config, template, backend
        self.context = min(config.context or backend.context, backend.context)
        self.key = config.key.encode()
        self.draining = False
        self.busy = 0
        """Choices that are decoded or wait."""
        self.seconds = 1.0
        """How long a request takes, on average of late."""
        self.created = int(time.time())

    def app(self) -> Starlette:
        """The application."""

        @contextlib.asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            await self.backend.open()
            try:
                yield
            finally:
                await self.backend.close()

        routes = [
            Route("/health", self.health),
            Route("/v1/models", self.models),
            Route("/v1/models/{name:path}", self.model),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
        ]
        handlers: Any = {Refusal: _refuse, HTTPException: _lost, Exception: _broken}
        return Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)

    async def health(self, request: Request) -> Response:
        """Whether requests are taken, and how many are there; needs no key."""
        status = "draining" if self.draining else "ok" if self.backend.alive() else "failed"
        running = min(self.busy, self.config.slots)
        found = {"status": status, "running": running, "waiting": self.busy - running, "backend": self.backend.name}
        return _json(found, 200 if status == "ok" else 503)

    async def models(self, request: Request) -> Response:
        """The one model."""
        self._admit(request)
        return _json({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        """The model by its name."""
        self._admit(request)
        if request.path_params["name"] != self.config.model:
            raise Refusal(404, f"the model {request.path_params['name']!r} does not exist here", "model_not_found")
        return _json(self._model())

    def _model(self) -> dict[str, Any]:
        found = {"id": self.config.model, "object": "model", "created": self.created, "owned_by": "cm2"}
        return found | {"max_model_len": self.context, "thinking": self.config.thinking}

    async def chat(self, request: Request) -> Response:
        """A chat completion, whole or streamed."""
        self._admit(request)
        kind = request.headers.get("content-type", "").split(";")[0].strip()
        if kind != "application/json":
            raise Refusal(415, "send application/json", "unsupported_media_type")
        try:
            ask, unknown = read_ask(await self._body(request), self.config)
            headers = {"x-cm2-ignored": _header(unknown)} if unknown else {}
            want, text = await asyncio.to_thread(self._want, ask)
            answer = Answer(ask, self.template, want.ids, text.rstrip().endswith("<think>"))
            self._enter(ask.choices)
            if ask.stream:
                events = _events(ask, answer, self._work(request, want, answer))
                return EventStream(events, self._leave(ask), headers, self.config.timeout + _GRACE)
            try:
                async with contextlib.aclosing(self._work(request, want, answer)) as work:
                    async for _ in work:
                        pass
            finally:
                self._leave(ask)()
        except ClientDisconnect:
            return Response(status_code=499)
        if answer.malformed:
            headers["x-cm2-malformed-calls"] = str(answer.malformed)
        return _json(answer.whole(), headers=headers)

    def _want(self, ask: Ask) -> tuple[Want, str]:
        """What to generate, and the prompt as text."""
        text = prompt_text(self.template, ask, self.config.thinking)
        ids = self.template.encode(text)
        room = self.context - len(ids)
        if room < 1:
            message = (
                f"This model's maximum context length is {self.context} tokens. However, your messages and tools "
                f"resulted in {len(ids)} tokens, which leaves no room for an answer. Please reduce their length."
            )
            raise invalid(message, "messages", "context_length_exceeded")
        asked = ask.max_completion_tokens or ask.max_tokens or self.config.max_new_tokens
        seed = self.config.seed if ask.seed is None else ask.seed
        sampling = Sampling(
            temperature=_DEFAULT_TEMPERATURE if ask.temperature is None else ask.temperature,
            top_k=max(0, ask.top_k or 0),
            top_p=1.0 if ask.top_p is None else max(ask.top_p, 1e-6),
            seed=secrets.randbits(62) if seed is None else seed,
        )
        want = Want(
            ids=ids,
            sampling=sampling,
            max_tokens=min(asked, room, self.config.max_new_tokens),
            choices=ask.choices,
            stop=ask.stops,
            logprobs=(ask.top_logprobs or 0) if ask.logprobs else None,
        )
        return want, text

    async def _work(self, request: Request, want: Want, answer: Answer) -> AsyncGenerator[list[dict[str, Any]]]:
        """Chunks as they come. Ends when the answer is whole, the time is up, or the client has left."""
        started = time.monotonic()
        gone = asyncio.ensure_future(_left(request))
        pieces = self.backend.generate(want)
        step: asyncio.Future[Piece] | None = None
        try:
            while not answer.done:
                step = asyncio.ensure_future(anext(pieces))
                left = self.config.timeout - (time.monotonic() - started)
                await asyncio.wait({step, gone}, timeout=max(left, 0), return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    raise ClientDisconnect
                if not step.done():
                    raise Refusal(504, f"the answer took more than {self.config.timeout:g} s", "timeout")
                try:
                    piece = step.result()
                except StopAsyncIteration:
                    raise Refusal(502, "the answer broke off", "decoding_failed") from None
                yield answer.take(piece)
            self.seconds += 0.1 * (time.monotonic() - started - self.seconds)
        finally:
            gone.cancel()
            if step is not None and not step.done():
                step.cancel()
                await asyncio.wait({step})
            await pieces.aclose()

    def _enter(self, choices: int) -> None:
        """Take a place in the queue."""
        if self.draining:
            raise Refusal(503, "the endpoint is being stopped", "draining", retry_after=5)
        if not self.backend.alive():
            raise Refusal(503, "whoever decodes has ended; see the endpoint's log", "backend_failed", retry_after=30)
        limit = self.config.slots + self.config.queue
        if self.busy + choices > limit:
            wait = self.seconds * max(1.0, self.busy / self.config.slots)
            message = f"{self.busy} answers are being written or wait, and at most {limit} may; try again later"
            raise Refusal(429, message, "queue_full", retry_after=min(wait, 60))
        self.busy += choices

    def _leave(self, ask: Ask) -> Callable[[], None]:
        """What gives the place back."""

        def leave() -> None:
            self.busy -= ask.choices

        return leave

    def _admit(self, request: Request) -> None:
        """Who may ask.

        Raises:
            Refusal: the key is missing or wrong.
        """
        if not self.key:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), self.key):
            raise Refusal(401, "the API key is missing or wrong; send it as Authorization: Bearer", "invalid_api_key")

    async def _body(self, request: Request) -> bytes:
        found = bytearray()
        async for part in request.stream():
            found += part
            if len(found) > self.config.max_bytes:
                message = f"the request has more than {self.config.max_bytes:,} bytes"
                raise Refusal(413, message, "request_too_large")
        return bytes(found)


class EventStream(Response):
    """Server-sent events, and what is to be done when they end, however they end.

    Starlette's own streaming response cancels its iterator in a way that forbids it to clean up; here the iterator
    itself notices that the client has left. A client that stays but does not read is left after `seconds`.
    """

    def __init__(self, events: AsyncGenerator[bytes], end: Callable[[], None], headers: dict[str, str], seconds: float):
        super().__init__(headers=headers | {"cache-control": "no-store"}, media_type="text/event-stream")
        del self.headers["content-length"]
        self.events, self.end, self.seconds = events, end, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        try:
            async with contextlib.aclosing(self.events), asyncio.timeout(self.seconds):
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                async for event in self.events:
                    await send({"type": "http.response.body", "body": event, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            log.warning("a client did not read its answer; the connection is closed")
        finally:
            self.end()


async def _left(request: Request) -> None:
    """Returns when the client has hung up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _events(ask: Ask, answer: Answer, work: AsyncGenerator[list[dict[str, Any]]]) -> AsyncGenerator[bytes]:
    """Server-sent events. The usage is always told: with the last chunk, or as OpenAI does where it is asked for."""
    separate = ask.stream_options is not None and ask.stream_options.include_usage
    async with contextlib.aclosing(work):
        try:
            for chunk in answer.first():
                yield _event(chunk)
            async for chunks in work:
                for chunk in chunks:
                    if chunk is chunks[-1] and answer.done and not separate:
                        chunk["usage"] = answer.usage
                    yield _event(chunk)
            if separate:
                yield _event(answer.closing())
        except Refusal as refusal:  # the status has been sent: the client reads the error in the stream
            yield _event(refusal.body)
        except ClientDisconnect:
            return
        yield b"data: [DONE]\n\n"


def _header(names: list[str]) -> str:
    """Field names as a header may hold them."""
    return ",".join(sorted(re.sub(r"[^\w.-]", "?", name, flags=re.ASCII) for name in names))[:500]


def _event(value: Any) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, "application/json")


def _refuse(request: Request, refusal: Any) -> Response:
    return _json(refusal.body, refusal.status, refusal.headers)


def _lost(request: Request, problem: Any) -> Response:
    message = f"{request.method} {request.url.path} is not served here"
    return _json(Refusal(problem.status_code, message, "not_found").body, problem.status_code)


def _broken(request: Request, problem: Any) -> Response:
    return _json(Refusal(500, "internal error; see the endpoint's log", "internal_error").body, 500)
