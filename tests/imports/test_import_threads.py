"""Threads and notes: conversations out of calls that repeat each other, whatever their order and number."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cm2.imports.bodies import Exchange
from cm2.imports.notes import Notes, Place, plain
from cm2.imports.talk import Message, key
from cm2.imports.threads import common, overlap, threads

WORDS = st.text("abc", min_size=1, max_size=3)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """A conversation of some turns, each with some calls."""
    messages: list[Message] = []
    for turn in range(draw(st.integers(1, 4))):
        messages.append({"role": "user", "content": f"{turn} {draw(WORDS)}"})
        for step in range(draw(st.integers(0, 2))):
            id = f"c{turn}-{step}"
            function = {"name": "f", "arguments": f'{{"x": "{draw(WORDS)}"}}'}
            messages.append({"role": "assistant", "content": None, "tool_calls": [{"id": id, "function": function}]})
            messages.append({"role": "tool", "content": draw(WORDS), "tool_call_id": id})
        messages.append({"role": "assistant", "content": f"{turn} {draw(WORDS)}"})
    return messages


def calls(messages: list[Message], system: str | None = None) -> list[Exchange]:
    """The calls of the model behind a conversation, in order."""
    head = [] if system is None else [{"role": "system", "content": system}]
    found = []
    for at, message in enumerate(messages):
        if message["role"] == "assistant":
            before = copy.deepcopy([*head, *messages[:at]])
            found.append(Exchange(before, [copy.deepcopy(message)], start=float(at + 1), span=f"s{at}"))
    return found


@given(conversations(), st.data())
def test_calls_in_any_order_and_number_are_one_conversation(messages: list[Message], data: st.DataObject) -> None:
    given = calls(messages, "Be kind.")
    more = data.draw(st.lists(st.sampled_from(given), max_size=3))
    shuffled = data.draw(st.permutations([*given, *copy.deepcopy(more)]))
    found = threads(shuffled)
    assert [thread.messages for thread in found] == [messages]
    assert found[0].whole()[0]["content"] == "Be kind."
    assert len(found[0].exchanges) == len(shuffled)


@given(conversations(), conversations())
def test_two_conversations_share_what_they_have_in_common(left: list[Message], right: list[Message]) -> None:
    other = copy.deepcopy(right)
    other[-1]["content"] = "an answer that is nowhere else"
    found = threads([*calls(left), *calls(other)])
    whole = {str([key(message) for message in one]) for one in (left, other)}
    assert whole <= {str(thread.keys) for thread in found}
    assert len(found[0].keys) == max(len(thread.keys) for thread in found)
    for thread in found[1:]:
        assert thread.shared == common(thread.keys, found[0].keys)
        assert thread.keys[: thread.shared] == found[0].keys[: thread.shared]


@given(conversations(), st.integers(0, 20))
def test_a_window_over_the_history_loses_nothing(messages: list[Message], window: int) -> None:
    """An agent that sends only the end of the history, at least an answer of its own and what followed."""
    given = calls(messages)
    for exchange in given:
        before = exchange.before
        at = max((i for i, m in enumerate(before[:-1]) if m["role"] == "assistant"), default=0)
        exchange.before = before[min(at, window) :] if len({str(key(m)) for m in before}) == len(before) else before
    found = threads(given)
    assert [thread.messages for thread in found] == [messages]


def test_overlap_needs_an_answer_of_the_agent() -> None:
    u, a, t = ("user", "x", ()), ("assistant", "y", ()), ("tool", "z")
    assert overlap([u, a, u], [a, u, t]) == 2
    assert overlap([a, u, u], [u, u]) == 0
    assert overlap([u, a], [a, u]) == 1 and overlap([a, u], [u, a]) == 0


def test_a_call_that_answers_the_last_calls_continues_without_history() -> None:
    call = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}],
    }
    first = Exchange([{"role": "user", "content": "?"}], [call], start=1)
    second = Exchange(
        [{"role": "tool", "content": "!", "tool_call_id": "1"}], [{"role": "assistant", "content": "."}], start=2
    )
    found = threads([first, second])
    assert [[message["role"] for message in thread.messages] for thread in found] == [
        ["user", "assistant", "tool", "assistant"]
    ]


def test_no_calls_are_no_conversations() -> None:
    assert threads([]) == []


def test_keys_ignore_ids_and_the_order_of_arguments() -> None:
    def call(id: str, arguments: str) -> Any:
        return key(
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": id, "function": {"name": "f", "arguments": arguments}}],
            }
        )

    assert call("1", '{"a": 1, "b": 2}') == call("2", '{"b":2,"a":1}')
    assert call("1", '{"a": 1}') != call("1", '{"a": 2}')
    assert call("1", "not json") == call("1", "not json") != call("1", "not jsoN")


def test_notes_never_overwrite_and_say_things_once() -> None:
    notes = Notes()
    place = Place(notes).at("messages").at(3)
    for value in (1, 2, 1, None, "", []):
        place.keep("x", value)
    assert notes.kept == {"messages[3].x": 1, "messages[3].x (2)": 2}
    for at in range(5):
        Place(notes).at("messages").at(at).left("usage")
        Place(notes).unmapped("a picture", "p")
    assert [(note.kind, note.path) for note in notes.said] == [("left", "messages[].usage"), ("unmapped", "p")]
    assert plain("span[ab12].input[0].content[1]") == "span[].input[].content[]"


def test_notes_have_bounds() -> None:
    notes = Notes()
    for at in range(500):
        notes.unmapped(f"p{at}", "x")
        notes.keep(f"k{at}", f"{at} {'x' * 1000}")
    assert len(notes.said) == 200 and notes.more == 500 - 200 + (500 - len(notes.kept))
    assert len(notes.kept) < 101
