"""Scores through Langfuse's own client, against a server on loopback that keeps what it is sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

pytest.importorskip("langfuse", reason="Langfuse is not installed here: make test-interop")

import langfuse

from cm2.assure.outcomes import Judged
from cm2.check import Called
from cm2.interop.duties import Duties, read_chat
from cm2.interop.langfuse import send_scores
from cm2.policy import Duty, Policy

POLICY = Policy("p", [Duty(id="look-first", question="Was the order looked up?", check=Called("get_order"))])


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    kept: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path.endswith("/scores"):
                kept.extend(json.loads(body))
            answer = b'{"successes": [], "errors": []}'
            self.send_response(207)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}", kept
    running.shutdown()


def test_a_failed_duty_arrives_as_a_boolean_score_of_its_trace(server: tuple[str, list[dict[str, Any]]]) -> None:
    url, kept = server
    dialogue = read_chat([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Done."}], id="trace-1")
    dialogue.meta = {"import": {"format": "langfuse"}}
    client = langfuse.Langfuse(public_key="pk", secret_key="sk", base_url=url, tracing_enabled=True)
    sent = send_scores(client, [Judged(1, dialogue, "", Duties(POLICY).outcomes(dialogue))])
    scores = {one["name"]: one for one in kept}
    assert sent.scores == 2 and set(scores) == {"look-first", "cm2"}
    assert (scores["look-first"]["traceId"], scores["look-first"]["value"]) == ("trace-1", 0.0)
    assert scores["look-first"]["dataType"] == "BOOLEAN" and "get_order" in scores["look-first"]["comment"]
    assert (scores["cm2"]["value"], scores["cm2"]["dataType"]) == (0.0, "NUMERIC")
