"""Thinking in tags: what is private never leaks into the visible reply."""

from __future__ import annotations

import pytest

from cm2.errors import Where
from cm2.formats.content import content_text, split_thinking, tagged


@pytest.mark.parametrize(
    ("text", "private", "visible"),
    [
        ("<think>a</think>b", ["a"], "b"),
        ("b<think>a</think>c", ["a"], "b\nc"),
        ("<think>a</think>b<think>c</think>d", ["a", "c"], "b\nd"),
        ("<think></think>b", [""], "b"),
        ("<think>a", ["a"], ""),
        ("a</think>b", ["a"], "b"),
        ("</think>a<think>b", ["", "b"], "a"),
        ("<think>a<think>b</think>c", ["a<think>b"], "c"),
        ("plain", [], "plain"),
    ],
)
def test_sections_are_split_and_in_doubt_private(text, private, visible):
    assert split_thinking(text) == (private, visible)


def test_what_is_tagged_is_split_again():
    assert split_thinking(tagged("why", "so")) == (["why"], "so")
    assert split_thinking(tagged("why", None)) == (["why"], "")


def test_many_tags_take_linear_time():
    private, visible = split_thinking("<think>a</think>" * 20_000)
    assert len(private) == 20_000 and visible == ""


def test_null_is_no_text_and_parts_are_joined():
    assert content_text(None, Where()) == ""
    assert content_text(["a", {"type": "text", "text": "b"}, {"type": "file"}], Where()) == "a\nb\n[file]"
