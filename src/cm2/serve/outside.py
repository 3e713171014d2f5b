"""Outside: vLLM or SGLang as the one who decodes, in a process of its own behind the same front.

They get ids and give ids. Their own chat endpoints are not used: which text counts as thinking or as a call differs
from server to server and from version to version, and a checkpoint must be evaluated as it was trained. So the
template, the parser, the key, the queue and the errors are those of `cm2.serve.app`, whoever decodes.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import msgspec

from cm2.errors import ConfigError
from cm2.rollout.template import ChatTemplate
from cm2.serve.backend import Piece, Want
from cm2.serve.config import ServeConfig
from cm2.serve.refusal import Refusal

START = 900.0
"""Seconds that a server may take to load a model."""


class Outside(abc.ABC):
    """A server process, started on a free port of loopback with a key of its own.

    Subclasses say how it is started and what a request looks like.

    Args:
        python: the interpreter that has it.
        folder: the checkpoint.
        config: see `ServeConfig`.
        template: the checkpoint's.
        context: longest sequence.
    """

    name = ""

    def __init__(self, python: str, folder: str, config: ServeConfig, template: ChatTemplate, context: int):
        self.python, self.folder, self.config, self.template, self.context = python, folder, config, template, context
        self.key = secrets.token_urlsafe(24)
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.client: httpx.AsyncClient | None = None
        self.abandoned = False

    @abc.abstractmethod
    def command(self) -> tuple[list[str], dict[str, str]]:
        """The command line, and variables beside the environment's."""

    @abc.abstractmethod
    def generate(self, want: Want) -> AsyncGenerator[Piece]:
        """See `Backend.generate`."""

    async def open(self) -> None:
        """Start it, and wait until it answers."""
        self.port = _free_port()
        command, more = self.command()
        command += shlex.split(self.config.backend_args)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            stderr=sys.stderr.fileno(),
            env={**os.environ, **more},
            start_new_session=True,  # its workers end with it
        )
        limits = httpx.Limits(max_connections=None)
        headers = {"authorization": f"Bearer {self.key}"}
        self.client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}", headers=headers, limits=limits, timeout=None, trust_env=False
        )
        deadline = time.monotonic() + START
        while not await self._answers():
            ended = self.process.poll() is not None
            if ended or self.abandoned or time.monotonic() > deadline:
                await self.close()
                said = "ended" if ended else "was stopped" if self.abandoned else f"was not ready after {START:g} s"
                raise ConfigError(f"{self.name} {said}; what it told stands above", fix="try --backend cm2")
            await asyncio.sleep(0.5)

    def abandon(self) -> None:
        """See `Backend.abandon`."""
        self.abandoned = True

    async def close(self) -> None:
        """End it, and its workers."""
        if self.client is not None:
            await self.client.aclose()
        if self.process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self.process.wait, 20)
                break

    def alive(self) -> bool:
        """See `Backend.alive`."""
        return self.process is not None and self.process.poll() is None

    async def _answers(self) -> bool:
        assert self.client is not None
        try:
            return (await self.client.get("/health", timeout=5)).status_code == 200
        except httpx.HTTPError:
            return False

    async def events(self, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """The objects of a stream of server-sent events.

        Raises:
            Refusal: it failed; what it said is passed on.
        """
        assert self.client is not None
        try:
            async with self.client.stream("POST", path, json=body) as answer:
                if answer.status_code != 200:
                    said = (await answer.aread()).decode(errors="replace")[:500]
                    raise Refusal(502, f"{self.name} answered {answer.status_code}: {said}", "decoding_failed")
                async for line in answer.aiter_lines():
                    data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
                    if not data or data == "[DONE]":
                        continue
                    value = msgspec.json.decode(data)
                    if value.get("error"):
                        raise Refusal(502, f"{self.name} failed: {value['error']}", "decoding_failed")
                    yield value
        except (httpx.HTTPError, msgspec.DecodeError) as error:
            raise Refusal(502, f"{self.name} broke off: {type(error).__name__}: {error}", "decoding_failed") from error


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
