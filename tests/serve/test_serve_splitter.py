"""An answer read in pieces is the answer read at once, and both are what training's parser reads."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm2.rollout.template import parse
from cm2.serve.splitter import Splitter

CALL = '<tool_call>{"name":"get_order","arguments":{"order":"7"}}</tool_call>'
PARTS = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        CALL,
        '{"name":"a"}',
        " ",
        "\n",
        "hm",
        "é",
        "<",
        "<thi",
        "x>",
    ]
)
TEXTS = st.lists(PARTS, max_size=8).map("".join)


def read(pieces: list[str], **how: Any) -> tuple[str, str, list[tuple[str, Any]], int]:
    """(thinking, content, calls, malformed calls)."""
    splitter = Splitter(**how)
    said = [one for piece in pieces for one in splitter.feed(piece)] + splitter.finish()
    text = {kind: "".join(one.text for one in said if one.kind == kind) for kind in ("thinking", "content")}
    calls = [(one.call.name, one.call.arguments) for one in said if one.call is not None]
    return text["thinking"], text["content"], calls, len(splitter.malformed)


@given(TEXTS, st.lists(st.integers(0, 60), max_size=12), st.booleans(), st.booleans())
def test_pieces_say_what_the_whole_says(text: str, cuts: list[int], calls: bool, opened: bool) -> None:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(edges)]
    assert read(pieces, calls=calls, opened=opened) == read([text], calls=calls, opened=opened)


@given(TEXTS)
def test_it_reads_what_the_parser_of_training_reads(text: str) -> None:
    thinking, content, calls, malformed = read([text])
    step = parse(text)
    if "</think>" in text and not text.lstrip().startswith("<think>"):
        return  # a lone closing tag: the one documented difference
    assert thinking == (step.thinking or "")
    assert calls == [(call.name, call.arguments) for call in step.calls if call.error is None]
    assert malformed == sum(call.error is not None for call in step.calls)
    if not malformed:
        assert content == (step.reply or "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello there.", ("", "Hello there.", [], 0)),
        ("<think>so</think>\n\nHello.", ("so", "Hello.", [], 0)),
        (f"<think>so</think>{CALL}", ("so", "", [("get_order", {"order": "7"})], 0)),
        (f"One moment. {CALL}", ("", "One moment.", [("get_order", {"order": "7"})], 0)),
        ("<think>never closed", ("never closed", "", [], 0)),
        ("<tool_call>{not json}</tool_call>", ("", "<tool_call>{not json}</tool_call>", [], 1)),
        ('<tool_call>{"name":"get_order","argu', ("", '<tool_call>{"name":"get_order","argu', [], 1)),
        ("<tool_call>a</think>b</tool_call>", ("", "<tool_call>a</think>b</tool_call>", [], 1)),
        ("a </think> b", ("", "a </think> b", [], 0)),
    ],
)
def test_thinking_content_and_calls_are_told_apart(text: str, expected: Any) -> None:
    assert read(list(text)) == expected


def test_text_is_told_as_soon_as_it_is_certain() -> None:
    splitter = Splitter()
    assert [one.text for one in splitter.feed("Hello ")] == ["Hello"]
    assert [one.text for one in splitter.feed("world <tool")] == [" world"]
    assert splitter.feed("_call>{") == []


def test_where_no_call_may_be_made_its_text_is_content() -> None:
    assert read([CALL], calls=False) == ("", CALL, [], 0)
