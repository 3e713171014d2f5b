"""Sending: what becomes of an alert outside: a line on standard error, a row in a person's queue, a call of a webhook.

Nothing here may stop the monitor. A webhook is called from a thread of its own, again after 1, 2, 4 … seconds where it
may help, and every try is a row in `deliveries.jsonl`; what is not settled when the monitor ends is tried again by the
next one. The receiver may get a call twice (the monitor was killed before it could note that it was made) and tells by
`Idempotency-Key`.

    X-CM2-Signature: t=SECONDS,v1=HEX    HEX = HMAC-SHA256(key, "SECONDS." + body)

`verify` is the receiver's half, which also refuses what is older than five minutes.
"""

from __future__ import annotations

import hashlib
import heapq
import hmac
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from cm2.assure.alerts import Alert, Escalation
from cm2.assure.rules import Rules, Webhook
from cm2.errors import CM2Error
from cm2.formats.store import Store
from cm2.llm.scrub import scrub

SIGNATURE = "X-CM2-Signature"
LONGEST = 300.0
RETRIED = frozenset({408, 409, 425, 429})
TOLERANCE = 300.0
_SAID = 200


class Delivery(msgspec.Struct, omit_defaults=True):
    """One try of calling a webhook."""

    alert: str
    hook: str
    attempt: int
    at: float
    ok: bool
    final: bool
    """No further try is made."""
    status: int | None = None
    said: str = ""


def sign(key: str, at: int, body: bytes) -> str:
    """The value of the signature header."""
    return f"t={at},v1={hmac.new(key.encode(), b'%d.' % at + body, hashlib.sha256).hexdigest()}"


def verify(key: str, header: str, body: bytes, now: float | None = None) -> bool:
    """Whether a body was signed by the holder of the key, within the last five minutes."""
    fields = dict(part.split("=", 1) for part in header.split(",") if "=" in part)
    if not fields.get("t", "").isdigit():
        return False
    at = int(fields["t"])
    fresh = abs((time.time() if now is None else now) - at) <= TOLERANCE
    return fresh and hmac.compare_digest(sign(key, at, body), f"t={at},v1={fields.get('v1', '')}")


def idempotency_key(alert: str, hook: str) -> str:
    """What tells a call from every other, in characters that a header may have."""
    return hashlib.blake2b(f"{hook}\0{alert}".encode(), digest_size=16).hexdigest()


class Courier:
    """Calls webhooks, from a thread of its own.

    Args:
        rules: the webhooks.
        path: the log of deliveries.
        say: takes in a line for a person.
    """

    def __init__(self, rules: Rules, path: str, say: Callable[[str], None]):
        self._hooks, self._say = rules.webhooks, say
        self._tries: dict[tuple[str, str], int] = {}
        self._settled: set[tuple[str, str]] = set()
        self.counts: dict[tuple[str, str], int] = {}
        """Tries by webhook and result (ok, failed, gave_up)."""
        self._store = Store(path, key=self._read)
        self._due: list[tuple[float, int, str, str, bytes]] = []
        self._changed = threading.Condition()
        self._ended = self._busy = False
        self._number = 0
        self._thread: threading.Thread | None = None

    def _read(self, row: dict[str, object]) -> int:
        """Take in a row; its key is nothing, every row stays."""
        delivery = msgspec.convert(row, Delivery)
        key = (delivery.alert, delivery.hook)
        self._tries[key] = self._tries.get(key, 0) + 1
        if delivery.final:
            self._settled.add(key)
        result = "ok" if delivery.ok else "gave_up" if delivery.final else "failed"
        self.counts[delivery.hook, result] = self.counts.get((delivery.hook, result), 0) + 1
        return 0

    def send(self, alert: Alert, hooks: Iterable[str]) -> None:
        """Call these webhooks as soon as may be; those that were called, or given up, are left alone."""
        body = msgspec.json.encode({"type": f"alert.{alert.state}", "alert": alert})
        body = scrub(body.decode()).encode()
        with self._changed:
            for hook in hooks:
                key = (alert.id, hook)
                if hook in self._hooks and key not in self._settled:
                    self._number += 1
                    heapq.heappush(self._due, (time.monotonic(), self._number, alert.id, hook, body))
            if self._due and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="cm2-webhooks", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def wait(self, patience: float) -> bool:
        """Wait until nothing is due, at most so many seconds; whether that is so."""
        end = time.monotonic() + patience
        with self._changed:
            while self._due or self._busy:
                left = end - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return True

    def close(self) -> None:
        """End; what is under way is noted first."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        self._store.close()

    def _run(self) -> None:
        import httpx

        with httpx.Client(follow_redirects=False) as client:
            while True:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
                    while not self._ended and (not self._due or self._due[0][0] > time.monotonic()):
                        self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
                    if self._ended:
                        return
                    _, number, alert, name, body = heapq.heappop(self._due)
                    self._busy = True
                again = self._try(client, alert, name, body)
                if again is not None:
                    with self._changed:
                        heapq.heappush(self._due, (time.monotonic() + again, number, alert, name, body))

    def _try(self, client: object, alert: str, name: str, body: bytes) -> float | None:
        """One try; the seconds until the next, where there is to be one."""
        hook, key = self._hooks[name], (alert, name)
        attempt = self._tries.get(key, 0) + 1
        status, said, may_help = _call(client, hook, idempotency_key(alert, name), body)
        ok = status is not None and 200 <= status < 300
        final = ok or not may_help or attempt > hook.retries
        delivery = Delivery(alert, name, attempt, time.time(), ok, final, status, "" if ok else said)
        try:
            self._store.append(delivery)
        except OSError as error:  # the disk is full: the call was made all the same
            self._say(f"the delivery of {alert} to {name} could not be noted: {error}")
            self._tries[key] = attempt
        if not ok and final:
            self._say(f"webhook {name} was not told of {alert}: {said}; given up after {attempt} tries")
        return None if final else self._wait_of(attempt - 1)

    @staticmethod
    def _wait_of(number: int) -> float:
        """Seconds before the try after try `number` (from 0)."""
        return min(2.0 ** min(number, 60), LONGEST)


def _call(client: object, hook: Webhook, key: str, body: bytes) -> tuple[int | None, str, bool]:
    """The status, what went wrong, and whether another try may help."""
    import httpx

    headers = {"Content-Type": "application/json", "Idempotency-Key": key, "User-Agent": "cm2-monitor"}
    for header, variable in hook.headers_env.items():
        value = os.environ.get(variable, "").strip()
        if not value:
            return None, f"the variable {variable} is not set", True
        headers[header] = value
    if hook.secret_env is not None:
        secret = os.environ.get(hook.secret_env, "")
        if not secret:
            return None, f"the variable {hook.secret_env} is not set", True
        headers[SIGNATURE] = sign(secret, int(time.time()), body)
    assert isinstance(client, httpx.Client)
    try:
        with client.stream("POST", hook.url, content=body, headers=headers, timeout=hook.timeout) as response:
            status = response.status_code
            said = b"" if status < 300 else next(response.iter_bytes(4 * _SAID), b"")[: 4 * _SAID]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return None, scrub(f"{type(error).__name__}: {error}")[:_SAID], True
    text = scrub(f"{status} {said.decode(errors='replace')}".strip())[:_SAID]
    return status, text, status in RETRIED or status >= 500


class Noted(msgspec.Struct, omit_defaults=True):
    """A row of `alerts.jsonl`: an alert, and who was to be told of it."""

    alert: Alert
    webhooks: list[str] = []


class Desk:
    """Where alerts are noted, said and handed on.

    Args:
        folder: the state folder; `alerts.jsonl`, `deliveries.jsonl` and the queues are in it.
        rules: what is done about an alert.
        say: takes in a line for a person.
    """

    def __init__(self, folder: str, rules: Rules, say: Callable[[str], None]):
        self._folder, self._say = folder, say
        self._rules = {rule.name: rule for rule in rules.rules}
        self._known: list[Noted] = []
        self._alerts = Store(os.path.join(folder, "alerts.jsonl"), key=self._read)
        self._waiting: list[Escalation] = []
        self.courier = Courier(rules, os.path.join(folder, "deliveries.jsonl"), say)
        for noted in self._known:  # of an earlier run: who was to be told of it then, whatever the rules are now
            self.courier.send(noted.alert, noted.webhooks)
        self._known.clear()

    def _read(self, row: dict[str, object]) -> str:
        noted = msgspec.convert(row, Noted)
        self._known.append(noted)
        return noted.alert.id

    @property
    def settled(self) -> bool:
        """Whether everything that was to be noted is."""
        return not self._waiting

    def take(self, found: Iterable[Alert | Escalation], quiet: bool = False) -> int:
        """Note alerts, say them and hand them on; how many were raised and are new. Those that were noted before are
        left alone.

        Args:
            found: what the rules said.
            quiet: note only; nobody is told.
        """
        raised = 0
        for one in found:
            if isinstance(one, Escalation):
                self._waiting.append(one)
                continue
            if one.id in self._alerts.done:
                continue
            rule = self._rules[one.rule]
            hooks = [] if quiet else rule.webhooks
            self._alerts.append(Noted(one, hooks))
            self._known.clear()
            raised += one.state == "raised"
            if rule.log and not quiet:
                self._say(one.said)
            self.courier.send(one, hooks)
        self.queue()
        return raised

    def queue(self) -> None:
        """Add to the queues what is not in them; what cannot be added now waits."""
        waiting, self._waiting = self._waiting, []
        for queue in sorted({one.queue for one in waiting}):
            mine = [one for one in waiting if one.queue == queue]
            path = str(Path(self._folder) / queue)
            try:
                with Store(path, key=_queued) as store:
                    for one in mine:
                        row = msgspec.to_builtins(one)
                        row.pop("queue")
                        if _queued(row) not in store.done:
                            store.append(row)
            except (CM2Error, OSError) as error:
                self._say(f"the queue {path} cannot be written now: {error}")
                self._waiting += mine

    def close(self) -> None:
        """End."""
        self.courier.close()
        self._alerts.close()


def _queued(row: dict[str, object]) -> tuple[object, object, object]:
    example = row["example"]
    assert isinstance(example, dict)
    return row["alert"], example["dialogue"], example.get("rollout", "")
