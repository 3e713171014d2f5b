"""The Nemotron row, and both ways between the formats."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest
from chat_builders import TOOL, answer, ask, nemotron, row, say, user, wanted

from cm2.dialogue import Dialogue, Step, Tool, ToolCall, ToolResponse, Turn
from cm2.errors import DataError
from cm2.formats import detect_format, read_row, write_row


def bare(message: dict) -> dict:
    """The message as the data set has it."""
    kept = {key: value for key, value in message.items() if key in ("role", "content", "tool_calls")}
    return {**kept, "content": kept["content"] or "", "tool_calls": kept.get("tool_calls", [])}


MESSAGES = [
    bare({"role": "system", "content": "Be kind."}),
    bare(user()),
    bare(ask(wanted("a"), wanted("b"), content="<think>\nBoth.\n</think>")),
    bare(answer("1")),
    bare(answer("2")),
    bare(say("<think>\nDone.\n</think>\n\nThere.")),
]
PLAIN = nemotron(*MESSAGES)


def test_tools_live_in_the_metadata_and_thinking_in_the_content():
    dialogue = read_row(deepcopy(PLAIN))
    assert detect_format(PLAIN) == "nemotron" and dialogue.id == "d"
    assert [tool.name for tool in dialogue.tools] == ["find"] and dialogue.system == "Be kind."
    first, last = dialogue.turns[0].steps
    assert (first.thinking, first.reply) == ("Both.", None) and (last.thinking, last.reply) == ("Done.", "There.")


def test_tool_messages_answer_the_calls_by_position():
    (first, _) = read_row(deepcopy(PLAIN)).turns[0].steps
    assert [first.response_to(i).content for i in (0, 1)] == ["1", "2"]


def test_what_the_row_says_of_itself_is_meta_where_it_is_not_the_usual():
    assert read_row(deepcopy(PLAIN)).meta == {"license": "CC BY 4.0", "generator": "someone"}
    assert read_row({**PLAIN, "reasoning": "off", "mine": 1}).meta.items() >= {"reasoning": "off", "mine": 1}.items()


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"license": None},
        {"license": ""},
        {"metadata": json.dumps({"tools": [TOOL]}, indent=1)},
        {"metadata": json.dumps({"tools": [TOOL], "seed": 7})},
        {"metadata": {"tools": [TOOL]}},
        {"metadata": None},
        {"metadata": "{}"},
        {"uuid": 3},
        {"source": 3},
        {"source": "here"},
        {"extra": {"a": 1}, "format": "x"},
        {"messages": [user(), say("<think>unclosed"), {**user(), "tool_calls": None}, {**say("x"), "name": "n"}]},
    ],
)
def test_odd_rows_come_back_exactly(change):
    written = {**deepcopy(PLAIN), **change}
    assert write_row(read_row(deepcopy(written), "nemotron"), "nemotron") == written


@pytest.mark.parametrize("key", [key for key in PLAIN if key != "messages"])
def test_an_absent_key_stays_absent(key):
    written = {name: value for name, value in PLAIN.items() if name != key}
    assert write_row(read_row(deepcopy(written), "nemotron"), "nemotron") == written


def test_edited_tools_are_written_and_the_rest_of_the_metadata_is_kept():
    dialogue = read_row({**PLAIN, "metadata": json.dumps({"seed": 7, "tools": [TOOL]})})
    dialogue.tools.append(Tool("more"))
    metadata = json.loads(write_row(dialogue, "nemotron")["metadata"])
    assert metadata["seed"] == 7 and [tool["function"]["name"] for tool in metadata["tools"]] == ["find", "more"]


def test_a_field_that_was_absent_is_written_once_it_says_something():
    dialogue = read_row({key: value for key, value in PLAIN.items() if key != "license"})
    dialogue.meta["license"] = "MIT"
    assert write_row(dialogue, "nemotron")["license"] == "MIT"


def test_reasoning_follows_the_dialogue():
    dialogue = read_row(deepcopy(PLAIN))
    for step in dialogue.turns[0].steps:
        step.thinking = None
    assert write_row(dialogue, "nemotron")["reasoning"] == "off"


@pytest.mark.parametrize("metadata", ["no json", "[]", 7, '{"tools": 3}'])
def test_broken_metadata_is_an_error_that_names_it(metadata):
    with pytest.raises(DataError) as caught:
        read_row({**PLAIN, "metadata": metadata}, "nemotron")
    assert caught.value.where.path.startswith("metadata")


def test_from_openai_and_back_nothing_that_the_nouns_hold_is_lost():
    meta = {"reward": 1, "license": "MIT", "uuid": "u", "metadata": "m", "checklists": 0, "tools": 1, "source": "s"}
    written = row(user(), ask(reasoning_content="Why."), answer(), say(), meta=meta)
    dialogue = read_row(deepcopy(written))
    there = write_row(dialogue, "nemotron")
    assert all(set(message) == {"role", "content", "tool_calls"} for message in there["messages"])
    back = read_row(json.loads(json.dumps(there)), "nemotron")
    assert (back.id, back.source, back.meta, back.tools) == ("d", "test", meta, dialogue.tools)
    assert (
        back.turns[0].steps[0].thinking == "Why." and back.turns[0].steps[0].calls == dialogue.turns[0].steps[0].calls
    )
    assert write_row(back, "openai") == written


def test_from_nemotron_to_openai_responses_get_the_ids_of_their_calls():
    messages = write_row(read_row(deepcopy(PLAIN)), "openai")["messages"]
    assert [m.get("tool_call_id") for m in messages if m["role"] == "tool"] == ["a", "b"]
    assert messages[2]["reasoning_content"] == "Both." and messages[2]["content"] is None


def test_and_back_to_nemotron_the_row_is_the_same():
    there = write_row(read_row(deepcopy(PLAIN)), "openai")
    assert write_row(read_row(there), "nemotron") == PLAIN


@pytest.mark.parametrize(
    "responses",
    [
        [ToolResponse("2", "b"), ToolResponse("1", "a")],
        [ToolResponse("2", "b")],
        [ToolResponse("?", "z")],
        [ToolResponse("1", "a"), ToolResponse("?", "z"), ToolResponse("2", "b")],
        [ToolResponse("1", "a"), ToolResponse("2", "b"), ToolResponse("?", "z")],
        [],
    ],
)
def test_every_call_keeps_its_own_answer_whatever_the_order(responses):
    step = Step(calls=[ToolCall("find", {}, "a"), ToolCall("find", {}, "b")], responses=responses)
    row = write_row(Dialogue("d", [Turn("x", [step])]), "nemotron")
    (back,) = read_row(row, "nemotron").turns[0].steps

    def answers(step):
        return [found and found.content for found in (step.response_to(0), step.response_to(1))]

    assert answers(back) == answers(step)
    assert sorted(r.content for r in back.responses) == sorted(r.content for r in responses)
