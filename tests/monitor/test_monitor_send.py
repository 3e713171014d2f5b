"""What becomes of an alert: queues, webhooks on a real server, and that nothing of it stops the monitor."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cm2.assure import alerts_send
from cm2.assure.alerts_send import SIGNATURE, sign, verify
from cm2.assure.rules import Rule, Rules, Webhook
from monitor.hook_server import Hook, hook
from monitor.monitor_cases import add, counted, look, monitor, row, rows_of

SECRET = "a-long-secret-of-the-test"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    monkeypatch.setenv("ROLLBACK_TOKEN", "Bearer let-me-in-please")
    monkeypatch.setattr(alerts_send.Courier, "_wait_of", staticmethod(lambda number: 0.01))
    with hook() as made:
        yield made


def rules(receiver: Hook, **fields: Any) -> Rules:
    made = Webhook(**({"url": receiver.url, "secret_env": "HOOK_SECRET", "timeout": 0.5, "retries": 3} | fields))
    rule = Rule(name="critical", when="failure", window=2, webhooks=["back"], escalate="queue.jsonl")
    return Rules(rules=[rule], webhooks={"back": made})


def run(tmp_path: Path, told: Rules, said: list[str] | None = None, ids: str = "12") -> None:
    add(tmp_path / "logs" / "a.jsonl", *(row(id, fine=False) for id in ids))
    with monitor(tmp_path / "logs", tmp_path / "state", told, said=said) as running:
        running.look()
        assert running.book.desk.courier.wait(10)


def test_a_webhook_is_told_once_and_can_tell_who_told_it(tmp_path: Path, receiver: Hook) -> None:
    run(tmp_path, rules(receiver, headers_env={"Authorization": "ROLLBACK_TOKEN"}))
    [(headers, body)] = receiver.calls
    told = json.loads(body)
    assert told["type"] == "alert.raised"
    assert told["alert"]["id"] == "critical/says-fine/1/raised"
    assert told["alert"]["examples"][0]["dialogue"] == "1"
    assert headers["authorization"] == "Bearer let-me-in-please"
    assert verify(SECRET, headers[SIGNATURE.lower()], body)
    assert not verify(SECRET, headers[SIGNATURE.lower()], body + b" ")
    assert not verify("another", headers[SIGNATURE.lower()], body)
    assert not verify(SECRET, headers[SIGNATURE.lower()], body, now=time.time() + 301)
    assert not verify(SECRET, "nonsense", body)
    assert SECRET not in (tmp_path / "state" / "deliveries.jsonl").read_text()
    run(tmp_path, rules(receiver), ids="3")  # the alert stands: nobody is told again
    assert len(receiver.calls) == 1


def test_the_signature_is_the_documented_formula() -> None:
    import hashlib
    import hmac

    expected = hmac.new(b"key", b'1700000000.{"a":1}', hashlib.sha256).hexdigest()
    assert sign("key", 1_700_000_000, b'{"a":1}') == f"t=1700000000,v1={expected}"


def test_what_may_help_is_tried_again_with_the_same_key(tmp_path: Path, receiver: Hook) -> None:
    receiver.answers = [503, 0, 429, 200]
    run(tmp_path, rules(receiver))
    assert len(receiver.calls) == 4
    assert len({headers["idempotency-key"] for headers, _ in receiver.calls}) == 1
    log = rows_of(tmp_path / "state" / "deliveries.jsonl")
    assert [(one["attempt"], one["ok"], one["final"]) for one in log] == [
        (1, False, False),
        (2, False, False),
        (3, False, False),
        (4, True, True),
    ]
    assert log[0]["status"] == 503 and "told" in log[0]["said"]


@pytest.mark.parametrize(("status", "calls"), [(400, 1), (307, 1), (500, 4), (-1, 4)])
def test_a_webhook_that_fails_is_given_up_and_the_monitor_goes_on(
    tmp_path: Path, receiver: Hook, status: int, calls: int
) -> None:
    receiver.answers = [status] * 20
    said: list[str] = []
    run(tmp_path, rules(receiver, timeout=0.2), said)
    assert len(receiver.calls) == calls
    assert all(headers and b"elsewhere" not in body for headers, body in receiver.calls)
    assert any(f"given up after {calls} tries" in text for text in said)
    assert rows_of(tmp_path / "state" / "deliveries.jsonl")[-1]["final"] is True
    run(tmp_path, rules(receiver), ids="3")
    assert len(receiver.calls) == calls  # given up is given up
    assert len(counted(tmp_path / "state")) == 3


def test_what_was_not_settled_is_tried_by_the_next_run(tmp_path: Path, receiver: Hook) -> None:
    add(tmp_path / "logs" / "a.jsonl", row("1", fine=False))
    down = rules(receiver, url="http://127.0.0.1:9/nobody", retries=50)
    with monitor(tmp_path / "logs", tmp_path / "state", down) as running:
        running.look()
        while not rows_of(tmp_path / "state" / "deliveries.jsonl"):
            assert not running.book.desk.courier.wait(0.1)
    tries = rows_of(tmp_path / "state" / "deliveries.jsonl")
    assert tries and not any(one["final"] for one in tries)
    with monitor(tmp_path / "logs", tmp_path / "state", rules(receiver, retries=50)) as running:
        assert running.book.desk.courier.wait(10)
    assert len(receiver.calls) == 1
    assert rows_of(tmp_path / "state" / "deliveries.jsonl")[-1]["attempt"] == len(tries) + 1


def test_an_old_alert_is_not_told_to_a_webhook_that_is_new(tmp_path: Path, receiver: Hook) -> None:
    silent = Rules(rules=[Rule(name="critical", when="failure", window=2)])
    add(tmp_path / "logs" / "a.jsonl", row("1", fine=False))
    look(tmp_path / "logs", tmp_path / "state", silent)
    run(tmp_path, rules(receiver), ids="2")
    assert receiver.calls == []


def test_a_secret_that_is_not_set_is_said_and_nothing_unsigned_is_sent(
    tmp_path: Path, receiver: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOOK_SECRET")
    said: list[str] = []
    run(tmp_path, rules(receiver), said)
    assert receiver.calls == []
    assert any("HOOK_SECRET is not set" in text for text in said)


def test_secrets_of_a_dialogue_do_not_travel(tmp_path: Path, receiver: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_API_KEY", "shop-key-0123456789")
    add(tmp_path / "logs" / "a.jsonl", row("shop-key-0123456789", fine=False))
    with monitor(tmp_path / "logs", tmp_path / "state", rules(receiver)) as running:
        running.look()
        running.book.desk.courier.wait(10)
    assert b"shop-key" not in receiver.calls[0][1] and b"[hidden]" in receiver.calls[0][1]


def test_the_queue_holds_each_failing_dialogue_once(tmp_path: Path, receiver: Hook) -> None:
    run(tmp_path, rules(receiver), ids="123")
    run(tmp_path, rules(receiver), ids="4")
    queue = rows_of(tmp_path / "state" / "queue.jsonl")
    assert [one["example"]["dialogue"] for one in queue] == ["1", "2", "3", "4"]
    assert queue[0]["example"]["line"] == 1 and queue[0]["severity"] == "critical"


def test_a_queue_that_cannot_be_written_waits_and_stops_nothing(tmp_path: Path, receiver: Hook) -> None:
    blocked = tmp_path / "state" / "queue.jsonl"
    blocked.mkdir(parents=True)
    said: list[str] = []
    run(tmp_path, rules(receiver), said)
    assert any("cannot be written now" in text for text in said)
    blocked.rmdir()
    run(tmp_path, rules(receiver), ids="3")
    assert [one["example"]["dialogue"] for one in rows_of(blocked)] == ["1", "2", "3"]
    assert len(counted(tmp_path / "state")) == 3
