"""The real harnesses, where their environments exist; a server that forgets requests; the errors of endpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cm2.harness import environments
from cm2.harness.environments import Environment
from servers.openai_server import OpenAIServer, Reply, calls, refuses

MALFORMED = Reply('{"choices": [{"message": ')
NO_CHOICES = Reply({"id": "x", "object": "chat.completion", "choices": []})
BROKEN = refuses(500, "the server fell over")
LONG = refuses(400, "This model's maximum context length is 4096 tokens, your messages have 9000")
TIMEOUT = 3.0
SLOW = Reply({"choices": []}, delay=3 * TIMEOUT)


def nonsense(name: str) -> Reply:
    """A call whose arguments are no JSON."""
    return calls((name, '{"oops": '))


def environment(name: str) -> Environment:
    """The environment of a harness; skips, saying so, where it was not set up."""
    found = environments.find(name)
    if found is None:
        pytest.skip(f"the harness of {name} is not set up here: cm2 eval setup {name} (make test-benchmarks)")
    return found


def data(found: Environment, inside: str) -> Path:
    """A folder of an installed harness."""
    return next(Path(found.folder).glob(f"lib/python*/site-packages/{inside}"))


class Server(OpenAIServer):
    """Keeps no requests unless it is asked to: a whole benchmark has thousands of long ones."""

    keeps = False

    def _next(self, body: dict[str, Any], headers: dict[str, str], path: str) -> Reply:
        reply = super()._next(body, headers, path)
        if not self.keeps:
            self.requests.clear()
            self.headers.clear()
        return reply
