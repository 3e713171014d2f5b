"""An OpenAI-compatible chat server on loopback that says what a test scripts, over real sockets."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """One HTTP answer: a status, headers, a body (JSON value or raw text), seconds to wait, or a broken connection.

    `hang_up` closes the connection without an answer, `reset` resets it, `sent` is the share of the body's bytes that
    are sent before it is closed.
    """

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    hang_up: bool = False
    reset: bool = False
    sent: float = 1.0


def says(content: str | None = None, finish: str = "stop", tokens: int = 5, **message: Any) -> Reply:
    """A chat completion with this assistant message."""
    message = {"role": "assistant", "content": content} | message
    usage = {"prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 7 + tokens}
    return Reply({"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage})


def calls(*made: tuple[str, Any], finish: str = "tool_calls", **message: Any) -> Reply:
    """A chat completion that calls tools: (name, arguments as a value, or as text when it is a str)."""
    listed = [
        {
            "id": f"call_{index}",
            "type": "function",
            "function": {"name": name, "arguments": given if isinstance(given, str) else json.dumps(given)},
        }
        for index, (name, given) in enumerate(made)
    ]
    return says(None, finish, tool_calls=listed, **message)


def refuses(status: int, message: str = "no", **headers: str) -> Reply:
    """An error in OpenAI's shape; header names with underscores for hyphens."""
    body = {"error": {"message": message, "type": "error", "code": status}}
    return Reply(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


Script = list[Reply] | Callable[[dict[str, Any], int], Reply]


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that timed out or was killed has gone away: the tests ask for that."""


class OpenAIServer:
    """Serves a script: a list of replies in order (the last one again and again), or a function of request and number.

    Attributes:
        url: the base URL, including /v1.
        requests: every request body in order; `paths` and `headers` beside it.
    """

    def __init__(self, script: Script, port: int = 0):
        self.script = script
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.times: list[float] = []
        self._lock = threading.Lock()
        self._server = _QuietServer(("127.0.0.1", port), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> OpenAIServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def _next(self, body: dict[str, Any], headers: dict[str, str], path: str) -> Reply:
        with self._lock:
            number = len(self.requests)
            self.requests.append(body)
            self.headers.append(headers)
            self.paths.append(path)
            self.times.append(time.monotonic())
        if callable(self.script):
            return self.script(body, number)
        return self.script[min(number, len(self.script) - 1)]

    def _handler(server) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                reply = server._next(body, dict(self.headers), self.path)
                if reply.delay:
                    time.sleep(reply.delay)
                if reply.hang_up or reply.reset:
                    self._break(reply.reset)
                    return
                content = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
                data = content.encode()
                self.send_response(reply.status)
                for name, value in ({"Content-Type": "application/json"} | reply.headers).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: int(len(data) * reply.sent)])
                if reply.sent < 1.0:
                    self.wfile.flush()
                    self._break()

            def _break(self, reset: bool = False) -> None:
                self.close_connection = True
                if reset:  # closing without lingering sends RST
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                else:
                    self.connection.shutdown(socket.SHUT_RDWR)
                self.connection.close()

            def log_message(self, *_: object) -> None:
                """Say nothing on standard error."""

        return Handler
