"""A receiver of webhooks on loopback that answers as it is told to and remembers what came."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hook:
    """What came, and what is answered: `answers` are statuses (0 hangs up, -1 says nothing for two seconds)."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        self.url = ""


@contextmanager
def hook() -> Iterator[Hook]:
    """A running receiver."""
    made = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.calls.append(({name.lower(): value for name, value in self.headers.items()}, body))
            status = made.answers.pop(0) if made.answers else 200
            if status == 0:
                self.connection.close()
                return
            if status == -1:
                time.sleep(2)
                status = 200
            self.send_response(status)
            if status in (301, 307):
                self.send_header("Location", made.url + "/elsewhere")
            self.send_header("Content-Length", "4")
            with suppress(BrokenPipeError, ConnectionResetError):  # nobody waited for it
                self.end_headers()
                self.wfile.write(b"told")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}/roll-back"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
