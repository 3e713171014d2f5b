"""A scripted OpenAI-compatible server on loopback: what it does with a request is a function of the request.

In process (`with Scripted(faulty()) as server`) or as a process of its own, for tests that kill clients:

    python tests/servers/scripted.py --port 0 --script faulty --share 0.3 --log calls.jsonl

prints its base URL and serves until its standard input is closed. Every request is logged: which question (a digest of
the body), its how-manieth time, what was done to it, and whether it was paid for (a completion with usage was sent).

`faulty` is a deterministic plan: the digest of a question decides whether its first try fails, and how; a few fail
twice. A further try succeeds, and a question that is put anew after a bad answer is never answered badly again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from servers import truth
from servers.openai_server import OpenAIServer, Reply
from servers.reader import read

HANG = 30.0
"""Seconds that a request which is to time out is held; the client's own limit must be below."""


@dataclass
class Behaviour(Reply):
    """What happens to one request, and what that is called."""

    kind: str = "good"

    @property
    def paid(self) -> bool:
        """Whether a provider would charge for it: a completion that arrives."""
        arrives = self.status == 200 and self.sent == 1.0 and not self.hang_up and not self.reset and self.delay < HANG
        return arrives and isinstance(self.body, dict)


Script = Callable[[dict[str, Any], int], Behaviour]
"""Of a request's body and how many times the same was sent before."""


def says(text: str | None, kind: str = "good", finish: str = "stop", **message: Any) -> Behaviour:
    """A chat completion with this text."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text} | message, "finish_reason": finish}
    return Behaviour({"object": "chat.completion", "choices": [choice], "usage": _usage(text or "")}, kind=kind)


def _usage(text: str) -> dict[str, int]:
    return {"prompt_tokens": 100, "completion_tokens": len(text) // 4 + 1, "total_tokens": 101 + len(text) // 4}


def good(body: dict[str, Any], tries: int = 0) -> Behaviour:
    """The true answer."""
    return says(json.dumps(truth.answer(body), ensure_ascii=False))


# --- faults: of the provider, and of the model -----------------------------------------------------------------------

_PAGE = "<!doctype html><html><head><title>502 Bad Gateway</title></head><body><h1>502</h1></body></html>"


def _error(kind: str, status: int, **headers: str) -> Behaviour:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Behaviour({"error": {"message": kind, "type": "error", "code": status}}, status, named, kind=kind)


def _like(true: Behaviour, kind: str, **changes: Any) -> Behaviour:
    return Behaviour(**({"body": true.body} | changes), kind=kind)


PROVIDER: dict[str, Callable[[Behaviour], Behaviour]] = {
    "rate_limit": lambda true: _error("rate_limit", 429, Retry_After="0.05"),
    "server_error": lambda true: _error("server_error", 500),
    "overloaded": lambda true: _error("overloaded", 503, Retry_After="0"),
    "conflict": lambda true: _error("conflict", 409),
    "error_page": lambda true: Behaviour(_PAGE, 502, {"Content-Type": "text/html"}, kind="error_page"),
    "page_for_answer": lambda true: Behaviour(_PAGE, 200, {"Content-Type": "text/html"}, kind="page_for_answer"),
    "empty_choices": lambda true: _like(true, "empty_choices", body=json.dumps(true.body | {"choices": []})),
    "half_an_answer": lambda true: _like(true, "half_an_answer", sent=0.5),
    "hang_up": lambda true: Behaviour(hang_up=True, kind="hang_up"),
    "reset": lambda true: Behaviour(reset=True, kind="reset"),
    "time_out": lambda true: _like(true, "time_out", delay=HANG),
}


def _text(true: Behaviour) -> str:
    return true.body["choices"][0]["message"]["content"]


def _changed(true: Behaviour, kind: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Behaviour:
    value = json.loads(_text(true))
    name = next((name for name in ("verdicts", "items") if name in value), None)
    if name is not None and value[name]:
        value[name] = change(value[name])
    return says(json.dumps(value), kind)


def _nan(true: Behaviour) -> Behaviour:
    return says(_text(true).replace("{", '{"confidence": NaN, ', 1), "nan")


MODEL: dict[str, Callable[[Behaviour], Behaviour]] = {
    "truncated": lambda true: says(_text(true)[: len(_text(true)) * 2 // 3], "truncated", finish="length"),
    "torn_json": lambda true: says(_text(true)[: len(_text(true)) * 2 // 3], "torn_json"),
    "refusal": lambda true: says(None, "refusal", refusal="I cannot help with that."),
    "refusal_in_prose": lambda true: says("I'm sorry, but I can't assist with that request.", "refusal_in_prose"),
    "filtered": lambda true: says("", "filtered", finish="content_filter"),
    "nothing": lambda true: says("", "nothing"),
    "nan": _nan,
    "wrong_ids": lambda true: _changed(true, "wrong_ids", lambda all: [one | {"id": f"X{one['id']}"} for one in all]),
    "duplicate_ids": lambda true: _changed(true, "duplicate_ids", lambda all: [*all, all[0]]),
    "missing_ids": lambda true: _changed(true, "missing_ids", lambda all: all[1:]),
    "void_quote": lambda true: _changed(true, "void_quote", lambda all: [_void(one) for one in all]),
}
HARMLESS: dict[str, Callable[[Behaviour], Behaviour]] = {
    "prose_around": lambda true: says(f"Let me see.\n\n{_text(true)}", "prose_around"),
    "code_fence": lambda true: says(f"```json\n{_text(true)}\n```", "code_fence"),
    "thinking_first": lambda true: says(f'<think>{{"verdicts": []}} no …</think>\n{_text(true)}', "thinking_first"),
    "slow": lambda true: _like(true, "slow", delay=0.2),
}


def _void(entry: dict[str, Any]) -> dict[str, Any]:
    holds = entry.get("holds") or entry.get("first_step") is not None
    return entry | {"quote": "zqx these words stand nowhere zqx"} if holds else entry


def faulty(share: float = 0.3, seed: int = 0, without: tuple[str, ...] = (), true: Script = good) -> Script:
    """A plan in which this share of the questions fails at first; see the module.

    Args:
        share: of first tries that fail (what is `HARMLESS` included).
        seed: another number makes another plan.
        without: kinds of faults that are left out. A time-out, which costs the test real time, comes a third as often.
        true: who answers otherwise.
    """
    of_provider = [kind for kind in PROVIDER if kind not in without for _ in range(3 if kind != "time_out" else 1)]
    others = [kind for kind in (*MODEL, *HARMLESS) if kind not in without for _ in range(3)]
    made = PROVIDER | MODEL | HARMLESS

    def script(body: dict[str, Any], tries: int) -> Behaviour:
        digest = hashlib.sha256(f"{seed} {digest_of(body)}".encode()).digest()
        draw = int.from_bytes(digest[:4], "big") / 2**32
        answer = true(body, tries)
        if draw >= share or tries > 1 or (tries == 1 and draw >= share / 5):
            return answer
        kinds = of_provider if tries or is_anew(body) else of_provider + others
        return made[kinds[digest[4 + tries] % len(kinds)]](answer)

    return script


def is_anew(body: dict[str, Any]) -> bool:
    """Whether a question is put once more because of what was answered."""
    messages = body["messages"]
    if any(message["role"] == "assistant" for message in messages):
        return True
    block = read(messages).block("items")
    return block is not None and any('"problem"' in line for line in block.lines)


def digest_of(body: dict[str, Any]) -> str:
    """What two tries of one question share."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


# --- the server ------------------------------------------------------------------------------------------------------


class Scripted:
    """Serves a script.

    Attributes:
        calls: a record a request, in order of arrival: `question`, `tries`, `kind`, `status`, `paid`, `anew`, `time`.
    """

    def __init__(self, script: Script, *, port: int = 0, log: str | None = None):
        self.script = script
        self.calls: list[dict[str, Any]] = []
        self._tries: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._log = open(log, "a", buffering=1) if log else None  # noqa: SIM115
        self._server = OpenAIServer(self._next, port)

    def __enter__(self) -> Scripted:
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()
        if self._log is not None:
            self._log.close()

    @property
    def url(self) -> str:
        """The base URL, including /v1."""
        return self._server.url

    def _next(self, body: dict[str, Any], number: int) -> Reply:
        question = digest_of(body)
        with self._lock:
            tries = self._tries[question]
            self._tries[question] += 1
        behaviour = self.script(body, tries)
        record = {"question": question, "tries": tries, "kind": behaviour.kind, "status": behaviour.status}
        record |= {"paid": behaviour.paid, "anew": is_anew(body), "time": time.time()}
        with self._lock:
            self.calls.append(record)
            if self._log is not None:
                self._log.write(json.dumps(record) + "\n")
        return behaviour


SCRIPTS: dict[str, Callable[[argparse.Namespace], Script]] = {
    "truth": lambda told: good,
    "faulty": lambda told: faulty(told.share, told.seed, tuple(told.without)),
}


def main() -> None:
    """Serve until standard input is closed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", choices=[*SCRIPTS], default="truth")
    parser.add_argument("--share", type=float, default=0.3, help="of the questions that fail at first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without", action="append", default=[], help="a kind of fault that is left out")
    parser.add_argument("--log", help="a JSONL file of the requests")
    told = parser.parse_args()
    with Scripted(SCRIPTS[told.script](told), port=told.port, log=told.log) as server:
        print(server.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
