"""A request is taken or refused by name; nothing that would change the answer is quietly ignored."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cm2.serve.ask import read_ask
from cm2.serve.refusal import Refusal
from serve.endpoints import ASKED, TOOLS, config


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "tiny", "messages": ASKED} | fields).encode()


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"temperature": -1}, "temperature", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_value"),
        ({"top_p": 2}, "top_p", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 5}, "n", "invalid_value"),
        ({"stop": [""]}, "stop", "invalid_value"),
        ({"stop": ["x"] * 17}, "stop", "invalid_value"),
        ({"top_logprobs": 3}, "top_logprobs", "invalid_value"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"tools": [{"type": "function"}]}, "tools[0]", "invalid_value"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name", "invalid_value"),
        ({"tools": TOOLS, "tool_choice": "required"}, "tool_choice", "unsupported_value"),
        ({"tools": TOOLS, "tool_choice": {"function": {"name": "get_order"}}}, "tool_choice", "unsupported_value"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "unsupported_parameter"),
        ({"logit_bias": {"5": 100}}, "logit_bias", "unsupported_parameter"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs", "unsupported_parameter"),
        ({"messages": "hello"}, "messages", "invalid_value"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_name(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        read_ask(body(**fields), config())
    assert (refused.value.status, refused.value.param, refused.value.code) == (400, param, code)


def test_what_asks_for_nothing_special_is_taken() -> None:
    neutral = {"frequency_penalty": 0.0, "presence_penalty": 0, "response_format": {"type": "text"}, "logit_bias": {}}
    absent = {"stop": None, "seed": None, "tools": None, "n": None, "logprobs": None}
    ask, unknown = read_ask(body(**neutral, **absent, user="me", metadata={"a": "b"}, made_up=1), config())
    assert (ask.choices, ask.stops, ask.seed, unknown) == (1, [], None, ["made_up"])


def test_another_model_is_not_found() -> None:
    with pytest.raises(Refusal) as refused:
        read_ask(body(model="gpt-5"), config())
    assert (refused.value.status, refused.value.code) == (404, "model_not_found")


@pytest.mark.parametrize("sent", [b"", b"{", b"[]", b"7", b'{"model": "\xff"}', b"[" * 100_000])
def test_what_is_no_json_object_is_refused(sent: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        read_ask(sent, config())
    assert (refused.value.status, refused.value.code) == (400, "invalid_json")


def test_a_missing_field_is_named() -> None:
    with pytest.raises(Refusal) as refused:
        read_ask(b'{"model": "tiny"}', config())
    assert refused.value.param == "messages"
