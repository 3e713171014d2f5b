"""Secrets never reach a file, a message or a log, and nothing else is changed."""

from __future__ import annotations

import json
import logging
import sqlite3
import time

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm2.llm import ModelError, ProviderError, scrub
from cm2.llm.scrub import HIDDEN, scrubbed, watch
from llm.door_cases import Provider, asks, error, models, said

SHAPED = [
    "sk-proj-abcdefghij1234567890ABCD",
    "sk-ant-api03-AbCdEfGh1234567890",
    "hf_AbCdEfGhIjKlMnOpQrSt12",
    "ghp_0123456789abcdefghijABCDEFGHIJ",
    "AKIAIOSFODNN7EXAMPLE",
    "AIzaSyA1234567890abcdefghijklmnopqrstu",
    "xoxb-123456789012-abcdefABCDEF",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "gsk_abcdefghij1234567890",
]


@pytest.mark.parametrize("secret", SHAPED)
@pytest.mark.parametrize("around", ["{}", "key={} and", '{{"a": "{}"}}', "({})", "at https://x.test/?a=1 {}."])
def test_keys_in_the_shapes_of_providers_are_hidden(secret, around):
    found = scrub(around.format(secret))
    assert secret not in found and secret[:12] not in found and HIDDEN in found
    assert scrub(found) == found


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("Authorization: Bearer abc.def-12345678", "Authorization: Bearer [hidden]"),
        ("authorization=Basic dXNlcjpwYXNzd29yZA==", "authorization=Basic [hidden]"),
        ("{'Authorization': 'Bearer abcdefgh12345678'}", "{'Authorization': 'Bearer [hidden]'}"),
        ('{"x-api-key": "0123456789abcdef"}', '{"x-api-key": "[hidden]"}'),
        ('{\\"api_key\\": \\"0123456789abcdef\\"}', '{\\"api_key\\": \\"[hidden]\\"}'),
        ("bearer abcdefghijklmnop", "bearer [hidden]"),
        ("http://me:hunter2@host:8000/v1", "http://me:[hidden]@host:8000/v1"),
        ("postgres://u:p%40ss@db/x", "postgres://u:[hidden]@db/x"),
        ("GET /v1?api_key=abc&n=1", "GET /v1?api_key=[hidden]&n=1"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nok", "[hidden]\nok"),
    ],
)
def test_headers_addresses_and_private_keys_are_hidden(text, hidden):
    assert scrub(text) == hidden == scrub(hidden)


@pytest.mark.parametrize(
    "text",
    [
        "the task-specific sk-learn-compatible-estimators",
        "authorization: required_by_the_clerk",
        "the token is Bearer",
        "order ABC-123 of 12.50 EUR, seat 14C, a@b.test, https://x.test/path?key=paris&q=1",
        "He said: api key? none.",
        '{"api_key": "none"}',
        "hf_dataset and gh_pages",
    ],
)
def test_ordinary_text_stays_as_it_was(text):
    assert scrub(text) == text


def test_values_of_key_variables_are_hidden_in_every_form(monkeypatch):
    secret = 'tr0ub"4dor/&ü3'
    monkeypatch.setenv("MY_SERVICE_TOKEN", secret)
    for form in (secret, json.dumps({"a": secret}), httpx.QueryParams({"q": secret}).__str__(), f"x{secret}y"):
        assert "tr0ub" not in scrub(form)
    assert scrubbed({secret: [secret, 1, None, {"b": f"<{secret}>"}]}) == {
        HIDDEN: [HIDDEN, 1, None, {"b": f"<{HIDDEN}>"}]
    }


def test_words_that_local_servers_are_given_as_keys_are_no_secrets(monkeypatch):
    watch("VLLM_TEST_KEY")
    monkeypatch.setenv("VLLM_TEST_KEY", "EMPTY")
    monkeypatch.setenv("SOME_PATH_KEY", "/home/me/keys/of/mine.pem")
    assert scrub("EMPTY is /home/me/keys/of/mine.pem") == "EMPTY is /home/me/keys/of/mine.pem"
    monkeypatch.setenv("VLLM_TEST_KEY", "long-enough-1")
    assert scrub("it is long-enough-1") == f"it is {HIDDEN}"


@given(st.text())
def test_it_is_idempotent_on_any_text(text):
    once = scrub(text)
    assert scrub(once) == once


@pytest.mark.parametrize(
    "text", ["a" * 10**6, "sk-" * 300_000, "eyJ" * 300_000, "http://" * 140_000, "-----BEGIN PRIVATE KEY-----" * 30_000]
)
def test_it_takes_bounded_time(text):
    started = time.monotonic()
    scrub(text)
    assert time.monotonic() - started < 10


KEY = "cm2test-Zk93-secret-value-77"
PASSWORD = "pw-Qx81-in-the-address"
TOKEN = "tok-Jv52-in-the-query"
URL = f"http://me:{PASSWORD}@a.test/v1?access={TOKEN}"
PLANTED = [KEY, PASSWORD, TOKEN, SHAPED[0], "hunter2hunter2"]
LEAK = f"my key is {KEY}, {SHAPED[0]}, see {URL} and db://x:hunter2hunter2@h, Authorization: Bearer {KEY}"


def leaks(text):
    return [secret for secret in PLANTED if secret in text or secret[:10] in text]


def test_secrets_planted_everywhere_are_in_nothing_that_is_written(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PLANTED_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    cache, log = tmp_path / "c.sqlite", tmp_path / "log.jsonl"
    met = json.dumps({"met": True, "why": LEAK})
    schema = {"type": "object", "required": ["met", "why"]}
    replies = [
        error(500, LEAK),
        error(429, "x" * 480 + LEAK, Retry_After="0"),
        said(None, refusal=LEAK),
        said(met, reasoning_content=LEAK),
        error(400, LEAK),
        httpx.ConnectError(LEAK),
        error(503, LEAK),
        error(503, LEAK),
        said(LEAK),
        said(LEAK),
    ]
    provider, heard, raised, kept = Provider(replies), [], [], []
    settings = {"base_url": URL, "key_variable": "PLANTED_KEY", "retries": 2, "structured": "prompt"}
    with models(provider, settings, cache=str(cache), log=str(log), say=heard.append) as door:
        for number in range(4):
            try:
                request = asks(f"{number}: {LEAK}", schema=schema)
                kept.append(door.wait_ask(request, lambda value: "" if value["met"] is True else f"no: {LEAK}"))
            except (ModelError, ProviderError) as caught:
                raised.append(str(caught))
        assert provider.requests[0].headers["Authorization"].startswith(("Bearer", "Basic"))  # it is used …
        assert kept[0].value["why"] == scrub(LEAK)
        again = door.wait_ask(asks(f"0: {LEAK}", schema=schema))
        assert again.cached and again.value == kept[0].value and again.text == kept[0].text  # fresh or kept: the same
    assert len(raised) == 3 and len(kept) == 1
    written = {"raised": "".join(raised), "said": "".join(heard), "answers": repr(kept), "logging": caplog.text}
    written |= {file.name: file.read_bytes().decode("utf-8", "replace") for file in tmp_path.iterdir()}
    assert {"c.sqlite", "log.jsonl"} <= written.keys() and "HTTP Request" in written["logging"]
    assert {name: leaks(text) for name, text in written.items() if leaks(text)} == {}  # … and written nowhere
    assert HIDDEN in written["log.jsonl"] and HIDDEN in written["raised"]
    with sqlite3.connect(cache) as db:
        assert db.execute("SELECT count(*) FROM answers").fetchone() == (1,)
    db.close()


def test_an_answer_is_otherwise_kept_as_the_model_said_it(tmp_path):
    text = 'It "said": {\n\t£ 12.50, ünïcödé 😀 \\n & <b>\u2028} and nothing else'
    for _ in range(2):
        with models(Provider([text]), cache=str(tmp_path / "c.sqlite")) as door:
            assert door.wait_ask(asks(schema=None)).value == text
