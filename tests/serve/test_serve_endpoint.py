"""The endpoint over a real socket: what clients see, whole and streamed, and what happens to those it cannot serve."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

import httpx
import pytest

from cm2.serve.app import EventStream
from cm2.serve.refusal import Refusal
from serve.endpoints import ASKED, TOOLS, Script, assembled, byte_template, local, running, tiny, whole

CALL = '<tool_call>{"name":"get_order","arguments":{"order":"7"}}</tool_call>'


def until(happens: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something that must happen."""
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Hello.", {"content": "Hello.", "finish": "stop"}),
        ("<think>easy</think>\nHello.", {"content": "Hello.", "reasoning_content": "easy", "finish": "stop"}),
        (f"Wait. {CALL}{CALL}", {"content": "Wait.", "finish": "tool_calls", "calls": 2}),
        (f"<think>look</think>{CALL}", {"reasoning_content": "look", "finish": "tool_calls", "calls": 1}),
        ("<tool_call>{oops</tool_call>", {"content": "<tool_call>{oops</tool_call>", "finish": "stop"}),
        ("", {"content": "", "finish": "stop"}),
        ("né 😀", {"content": "né 😀", "finish": "stop"}),
    ],
)
def test_a_streamed_answer_put_together_is_the_whole_one(said: str, expected: dict[str, Any]) -> None:
    with running(Script(said)) as server:
        answer = server.post(tools=TOOLS)
        assert answer.status_code == 200, answer.text
        found = whole(answer.json())
        assert found == assembled(server.stream(tools=TOOLS))
    count = expected.pop("calls", 0)
    assert found["tool_calls"] == [{"name": "get_order", "arguments": '{"order":"7"}'}] * count
    empty = {"role": "assistant", "content": "", "reasoning_content": "", "tool_calls": found["tool_calls"]}
    assert found == empty | expected


def test_the_tiny_model_says_the_same_streamed_and_whole() -> None:
    with running(local(), tiny()[1]) as server:
        settings = {"temperature": 1.0, "seed": 4, "max_tokens": 30, "n": 2, "logprobs": True, "return_token_ids": True}
        answer, chunks = server.post(**settings).json(), server.stream(**settings)
    for i in range(2):
        assert whole(answer, i) == assembled(chunks, i)
        ones = [one for chunk in chunks for one in chunk["choices"] if one["index"] == i]
        told = [token for one in ones for token in (one["logprobs"] or {"content": []})["content"]]
        assert told == answer["choices"][i]["logprobs"]["content"]
        assert ones[-1]["token_ids"] == answer["choices"][i]["token_ids"]
    assert answer["choices"][0]["token_ids"] != answer["choices"][1]["token_ids"]
    assert chunks[0]["prompt_token_ids"] == answer["prompt_token_ids"]


def test_usage_counts_what_the_tokenizer_counts_and_is_always_told() -> None:
    template = tiny()[1]
    with running(local(), template) as server:
        settings = {"temperature": 0, "max_tokens": 9, "tools": TOOLS, "n": 2, "return_token_ids": True}
        answer = server.post(**settings).json()
        chunks = server.stream(**settings)
        asked = server.stream(stream_options={"include_usage": True}, **settings)
    usage = answer["usage"]
    assert answer["prompt_token_ids"] == template.first_prompt(TOOLS, ASKED)
    assert usage["prompt_tokens"] == len(template.first_prompt(TOOLS, ASKED))
    assert usage["completion_tokens"] == sum(len(one["token_ids"]) for one in answer["choices"])
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    told = [chunk["usage"]["total_tokens"] for chunk in chunks if chunk.get("usage")]
    assert told == [usage["total_tokens"]] and "usage" in chunks[-1] and chunks[-1]["choices"]
    assert asked[-1]["choices"] == [] and asked[-1]["usage"]["total_tokens"] == usage["total_tokens"]
    assert not any(chunk.get("usage") for chunk in asked[:-1])


def test_a_call_that_is_none_is_content_with_a_flag_and_no_failure() -> None:
    with running(Script('Hm. <tool_call>{"name":7}</tool_call>')) as server:
        answer, chunks = server.post(tools=TOOLS), server.stream(tools=TOOLS)
    assert answer.status_code == 200 and answer.headers["x-cm2-malformed-calls"] == "1"
    (choice,) = answer.json()["choices"]
    assert choice["message"]["content"] == 'Hm. <tool_call>{"name":7}</tool_call>'
    assert "tool_calls" not in choice["message"] and choice["finish_reason"] == "stop"
    (wrong,) = choice["cm2"]["malformed_tool_calls"]
    assert wrong["text"] == '{"name":7}' and "name" in wrong["error"]
    assert chunks[-1]["choices"][0]["cm2"] == choice["cm2"]


def test_one_call_at_a_time_where_that_is_asked_for() -> None:
    with running(Script(f"{CALL}{CALL}and more")) as server:
        found = whole(server.post(tools=TOOLS, parallel_tool_calls=False).json())
    assert len(found["tool_calls"]) == 1 and found["content"] == "" and found["finish"] == "tool_calls"


def test_an_answer_cut_off_by_its_limit_says_so() -> None:
    with running(Script("Hello.", ended=False)) as server:
        assert whole(server.post().json())["finish"] == "length"


def test_calls_are_text_where_no_tool_was_offered() -> None:
    with running(Script(CALL)) as server:
        assert whole(server.post().json())["content"] == CALL
        assert whole(server.post(tools=TOOLS, tool_choice="none").json())["content"] == CALL


def test_sampling_reaches_the_decoder_as_it_was_asked_for() -> None:
    script = Script()
    with running(script, seed=11, max_new_tokens=50) as server:
        asked = {"temperature": 0.3, "top_p": 0.9, "top_k": 5, "seed": 4, "max_tokens": 7, "stop": "x", "n": 2}
        server.post(**asked)
        server.post(max_completion_tokens=1000)
        server.post(temperature=0)
    first, second, third = script.wants
    chosen = first.sampling
    assert (chosen.temperature, chosen.top_p, chosen.top_k, chosen.seed) == (0.3, 0.9, 5, 4)
    assert (first.max_tokens, first.stop, first.choices) == (7, ["x"], 2)
    assert (second.max_tokens, second.sampling.seed, second.sampling.temperature) == (50, 11, 1.0)
    assert third.sampling.greedy


def test_without_a_seed_every_request_draws_anew() -> None:
    script = Script()
    with running(script) as server:
        server.post()
        server.post()
    assert script.wants[0].sampling.seed != script.wants[1].sampling.seed


def test_requests_are_decoded_together_and_answered_each_with_its_own() -> None:
    with running(local(), tiny()[1], queue=16) as server:
        settings = [{"messages": [{"role": "user", "content": f"question {i}"}], "max_tokens": 8} for i in range(6)]
        alone = [whole(server.post(temperature=0, **one).json()) for one in settings]
        found: dict[int, Any] = {}

        def ask(i: int) -> None:
            found[i] = whole(server.post(temperature=0, **settings[i]).json())

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [found[i] for i in range(6)] == alone


def test_a_conversation_that_is_too_long_is_refused_with_openais_code() -> None:
    with running(Script(), context=64) as server:
        answer = server.post(messages=[{"role": "user", "content": "x" * 100}])
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "messages")
        assert "maximum context length is 64 tokens" in error["message"]
        assert server.post(messages=[{"role": "user", "content": "x"}]).status_code == 200
        assert server.post(messages=[{"role": "user", "content": "x"}], stream=True, n=1).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [("{", 400, "invalid_json"), ('{"model": "tiny"}', 400, "invalid_value"), ("x" * 3000, 413, "request_too_large")],
)
def test_bad_requests_are_told_what_is_wrong(body: str, status: int, code: str) -> None:
    with running(Script(), max_bytes=2000) as server:
        answer = server.post(body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_other_paths_methods_and_content_types_are_told_so() -> None:
    with running(Script()) as server:
        assert httpx.get(f"{server.url}/embeddings").json()["error"]["code"] == "not_found"
        assert httpx.get(f"{server.url}/chat/completions").status_code == 405
        form = httpx.post(f"{server.url}/chat/completions", data={"model": "tiny"})
        assert (form.status_code, form.json()["error"]["code"]) == (415, "unsupported_media_type")


def test_only_who_has_the_key_may_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret-ü")
    script = Script()
    with running(script, key_env="MY_KEY") as server:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "secret"}):
            answers = [
                httpx.post(
                    f"{server.url}/chat/completions", json={"model": "tiny", "messages": ASKED}, headers=headers
                ),
                httpx.get(f"{server.url}/models", headers=headers),
            ]
            assert [answer.status_code for answer in answers] == [401, 401]
            assert answers[0].json()["error"]["code"] == "invalid_api_key"
        assert script.wants == []
        good = {"authorization": "Bearer secret-ü".encode()}
        assert httpx.get(f"{server.url}/models", headers=good).status_code == 200
        assert httpx.get(server.url.replace("/v1", "/health")).status_code == 200


def test_the_model_is_listed_and_another_is_not_found() -> None:
    with running(Script()) as server:
        (model,) = httpx.get(f"{server.url}/models").json()["data"]
        assert (model["id"], model["max_model_len"], model["thinking"]) == ("tiny", 4096, "keep")
        assert httpx.get(f"{server.url}/models/tiny").json()["id"] == "tiny"
        assert httpx.get(f"{server.url}/models/other").status_code == 404
        assert server.post(model="other").json()["error"]["code"] == "model_not_found"


def test_a_full_queue_says_when_to_come_back_and_takes_requests_again_later() -> None:
    script = Script("Hello.", hold=True)
    with running(script, slots=1, queue=1, max_choices=1) as server:
        found: list[httpx.Response] = []
        threads = [threading.Thread(target=lambda: found.append(server.post())) for _ in range(2)]
        for thread in threads:
            thread.start()
        until(lambda: server.endpoint.busy == 2)
        full = server.post()
        streamed = server.post(stream=True)
        assert full.status_code == streamed.status_code == 429
        assert full.json()["error"]["code"] == "queue_full" and int(full.headers["retry-after"]) >= 1
        script.release.set()
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in found] == [200, 200]
        assert server.post().status_code == 200 and server.endpoint.busy == 0


@pytest.mark.parametrize("stream", [False, True])
def test_whoever_hangs_up_frees_the_slot(stream: bool) -> None:
    script = Script("Hello.", hold=True)
    with running(script, slots=1, queue=0, max_choices=1) as server:
        host, port = server.url.split("/")[2].split(":")
        body = json.dumps({"model": "tiny", "messages": ASKED, "stream": stream}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        with socket.create_connection((host, int(port))) as client:
            client.sendall(head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body)
            until(lambda: script.open_ == 1)
            assert server.post().status_code == 429
        until(lambda: script.open_ == 0 and server.endpoint.busy == 0)
        script.release.set()
        assert server.post().status_code == 200


def test_an_answer_that_takes_too_long_is_ended() -> None:
    script = Script("Hello.", hold=True)
    with running(script, timeout=0.2) as server:
        answer = server.post()
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
        lines = server.post(stream=True).text.splitlines()
        assert any('"code":"timeout"' in line for line in lines)
        until(lambda: script.open_ == 0 and server.endpoint.busy == 0)


def test_a_client_that_does_not_read_is_left() -> None:
    ended: list[str] = []

    async def events() -> AsyncGenerator[bytes]:
        try:
            yield b"data: {}\n\n"
        finally:
            ended.append("events")

    async def stuck(message: Any) -> None:
        await asyncio.sleep(600 if message["type"] == "http.response.body" else 0)

    async def run() -> None:
        await EventStream(events(), lambda: ended.append("slot"), {}, 0.05)({}, stuck, stuck)

    asyncio.run(run())
    assert ended == ["events", "slot"]


def test_a_decoder_that_fails_is_an_error_and_never_an_empty_answer() -> None:
    script = Script(fail=Refusal(500, "decoding failed: out of memory", "decoding_failed"))
    with running(script) as server:
        answer = server.post()
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "decoding_failed")
        events = [line for line in server.post(stream=True).text.splitlines() if line]
        assert json.loads(events[-2].removeprefix("data: "))["error"]["code"] == "decoding_failed"
        assert server.endpoint.busy == 0


def test_while_it_is_being_stopped_new_requests_are_told_to_go_elsewhere() -> None:
    with running(Script()) as server:
        server.endpoint.draining = True
        answer = server.post()
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
        assert "retry-after" in answer.headers
        health = httpx.get(server.url.replace("/v1", "/health"))
        assert health.status_code == 503 and health.json()["status"] == "draining"


def test_fields_that_nobody_knows_are_named_in_the_answer() -> None:
    with running(Script()) as server:
        assert server.post(**{"made_up": 1, "other\n": 2}).headers["x-cm2-ignored"] == "made_up,other?"
        assert "x-cm2-ignored" not in server.post().headers


def test_the_prompt_that_opens_the_thinking_has_its_rest_read_as_thinking(monkeypatch: pytest.MonkeyPatch) -> None:
    template = byte_template()
    monkeypatch.setattr("cm2.serve.app.prompt_text", lambda *given: "<|im_start|>assistant\n<think>\n")
    with running(Script("so it is</think>\n\nHello."), template) as server:
        found = whole(server.post().json())
    assert (found["reasoning_content"], found["content"]) == ("so it is", "Hello.")
