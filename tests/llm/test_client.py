"""The client over real sockets: what is tried again, what is not, and what never reaches a message."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from cm2.errors import ConfigError
from cm2.llm import ChatClient, Completion, Endpoint, ProviderError
from servers.openai_server import OpenAIServer, Reply, refuses, says

HELLO = [{"role": "user", "content": "hello"}]


def ask(script, messages=HELLO, tools=None, **settings) -> tuple[Completion, OpenAIServer]:
    with OpenAIServer(script) as server:
        return asyncio.run(_ask(server, messages, tools, settings)), server


async def _ask(server, messages, tools, settings) -> Completion:
    fields = {"backoff": 0.001, "retries": 3, "key_variable": "CM2_TEST_KEY"} | settings
    async with ChatClient(Endpoint(server.url, "m", **fields)) as client:
        return await client.complete(messages, tools)


def test_a_completion_comes_back_with_its_cost():
    completion, server = ask([says("hi", tokens=3)])
    assert completion.message["content"] == "hi"
    assert (completion.prompt_tokens, completion.completion_tokens, completion.tries) == (7, 3, 1)
    assert server.paths == ["/v1/chat/completions"]
    assert server.requests[0] == {"model": "m", "messages": HELLO}


def test_sampling_and_extra_fields_are_sent_only_when_set():
    _, server = ask([says("hi")], temperature=0.5, max_tokens=9, extra={"reasoning_effort": "low"})
    assert server.requests[0] == {
        "model": "m", "messages": HELLO, "temperature": 0.5, "max_tokens": 9, "reasoning_effort": "low"
    }  # fmt: skip


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 529])
def test_a_provider_error_is_tried_again(status):
    completion, server = ask([refuses(status), refuses(status), says("hi")])
    assert completion.tries == 3 and len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 403, 404, 413, 422])
def test_another_refusal_fails_at_once_with_the_servers_message(status):
    with OpenAIServer([refuses(status, "context too long: 9000 tokens")]) as server:
        with pytest.raises(ProviderError, match="context too long: 9000 tokens") as caught:
            asyncio.run(_ask(server, HELLO, None, {}))
        assert caught.value.status == status and len(server.requests) == 1


def test_tries_are_bounded_and_the_last_reason_is_told():
    with OpenAIServer([refuses(503, "overloaded")]) as server:
        with pytest.raises(ProviderError, match=r"503: overloaded \(after 4 tries\)"):
            asyncio.run(_ask(server, HELLO, None, {}))
        assert len(server.requests) == 4


def test_retry_after_in_seconds_is_honoured():
    _, server = ask([refuses(429, Retry_After="0.3"), says("hi")])
    assert server.times[1] - server.times[0] >= 0.3


def test_retry_after_as_a_date_is_honoured():
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    _, server = ask([refuses(429, Retry_After=when), says("hi")])
    assert server.times[1] - server.times[0] >= 0.5  # the date is cut to whole seconds


def test_no_wait_is_longer_than_the_limit_whatever_the_server_asks():
    started = time.monotonic()
    completion, _ = ask([refuses(429, Retry_After="3600"), says("hi")], longest_wait=0.05)
    assert completion.message["content"] == "hi" and time.monotonic() - started < 5


@pytest.mark.parametrize("body", ["not json", {"choices": []}, {"error": "x"}, {"choices": [{"message": None}]}, []])
def test_an_answer_that_is_no_completion_is_tried_again(body):
    completion, _ = ask([Reply(body), says("hi")])
    assert completion.tries == 2


def test_a_broken_connection_is_tried_again():
    completion, _ = ask([Reply(hang_up=True), says("hi")])
    assert completion.tries == 2


def test_a_timeout_is_tried_again():
    completion, _ = ask([Reply(says("late").body, delay=0.6), says("hi")], timeout=0.2)
    assert completion.message["content"] == "hi"


def test_nobody_listening_is_the_providers_failure():
    with OpenAIServer([says("hi")]) as server:
        url = server.url

    async def run():
        async with ChatClient(Endpoint(url, "m", retries=1, backoff=0.001)) as client:
            await client.complete(HELLO)

    with pytest.raises(ProviderError, match="ConnectError") as caught:
        asyncio.run(run())
    assert caught.value.status is None and not caught.value.fatal


def test_the_key_is_sent_but_never_told(monkeypatch):
    monkeypatch.setenv("CM2_TEST_KEY", "sk-very-secret-123")
    with OpenAIServer([refuses(401, "Incorrect API key provided: sk-very-secret-123")]) as server:
        with pytest.raises(ProviderError) as caught:
            asyncio.run(_ask(server, HELLO, None, {}))
        assert server.headers[0]["Authorization"] == "Bearer sk-very-secret-123"
    assert "sk-very-secret-123" not in str(caught.value) and "[hidden]" in str(caught.value)
    assert caught.value.fatal and "CM2_TEST_KEY" in str(caught.value)


def test_a_key_that_is_cut_by_the_message_limit_is_hidden_whole(monkeypatch):
    monkeypatch.setenv("CM2_TEST_KEY", "sk-very-secret-123")
    with (
        OpenAIServer([refuses(400, "x" * 490 + "sk-very-secret-123")]) as server,
        pytest.raises(ProviderError) as caught,
    ):
        asyncio.run(_ask(server, HELLO, None, {}))
    assert "sk-very" not in str(caught.value)


def test_no_key_no_header(monkeypatch):
    monkeypatch.delenv("CM2_TEST_KEY", raising=False)
    _, server = ask([says("hi")])
    assert "Authorization" not in server.headers[0]


def test_a_password_in_the_address_is_not_in_the_name():
    endpoint = Endpoint("https://me:hunter2@host.example:8443/v1?token=abc", "m")
    assert endpoint.name == "m@host.example:8443"


def test_thinking_can_be_left_out():
    messages = [*HELLO, {"role": "assistant", "content": "x", "reasoning_content": "secret thought"}]
    _, server = ask([says("hi")], messages, send_thinking=False)
    assert "reasoning_content" not in server.requests[0]["messages"][1]
    _, server = ask([says("hi")], messages)
    assert server.requests[0]["messages"][1]["reasoning_content"] == "secret thought"


@pytest.mark.parametrize("settings", [{"base_url": "localhost:8000"}, {"retries": -1}, {"timeout": 0}])
def test_a_bad_endpoint_is_refused_when_it_is_made(settings):
    with pytest.raises(ConfigError):
        Endpoint(**({"base_url": "http://h/v1", "model": "m"} | settings))


class Trickle(httpx.AsyncByteStream):
    """A body that comes in small pieces for ever."""

    def __init__(self, piece: bytes, pause: float):
        self.piece, self.pause = piece, pause

    async def __aiter__(self):
        while True:
            yield self.piece
            await asyncio.sleep(self.pause)


async def once(reply, **settings):
    transport = httpx.MockTransport(lambda request: reply)
    async with ChatClient(Endpoint("http://h/v1", "m", retries=0, **settings), transport=transport) as client:
        return await client.complete(HELLO)


def test_an_answer_that_trickles_for_ever_counts_as_failed_in_time():
    started = time.monotonic()
    with pytest.raises(ProviderError, match="TimeoutError"):
        asyncio.run(once(httpx.Response(200, stream=Trickle(b" ", 0.01)), timeout=0.3))
    assert time.monotonic() - started < 5


def test_an_answer_without_end_is_not_read_to_the_end():
    with pytest.raises(ProviderError, match="no chat completion"):
        asyncio.run(once(httpx.Response(200, stream=Trickle(b" " * (8 << 20), 0)), timeout=60))


def test_an_error_that_comes_as_a_success_is_told():
    reply = httpx.Response(200, json={"error": {"message": "no capacity", "code": 502}})
    with pytest.raises(ProviderError, match="no chat completion: no capacity"):
        asyncio.run(once(reply))


def test_user_and_password_of_an_address_are_sent_and_not_part_of_it():
    seen = []

    def answer(request):
        seen.append(request)
        return httpx.Response(200, json=says("hi").body)

    async def run():
        endpoint = Endpoint("http://me:p%40ss@h/v1", "m")
        async with ChatClient(endpoint, transport=httpx.MockTransport(answer)) as client:
            await client.complete(HELLO)

    asyncio.run(run())
    assert str(seen[0].url) == "http://h/v1/chat/completions"
    assert seen[0].headers["Authorization"] == "Basic bWU6cEBzcw=="


def test_cached_and_missing_token_counts():
    body = says("hi").body
    body["usage"] |= {"prompt_tokens": 50, "prompt_tokens_details": {"cached_tokens": 40}}
    assert asyncio.run(once(httpx.Response(200, json=body))).cached_tokens == 40
    body["usage"] = {"prompt_tokens": 50, "prompt_cache_hit_tokens": 30, "completion_tokens": None}
    done = asyncio.run(once(httpx.Response(200, json=body)))
    assert (done.cached_tokens, done.completion_tokens, done.counted) == (30, 0, True)
    del body["usage"]
    assert not asyncio.run(once(httpx.Response(200, json=body))).counted
