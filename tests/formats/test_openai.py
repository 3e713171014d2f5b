"""The OpenAI row: keys that are not ours survive, edits win."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest
from chat_builders import TOOL, answer, ask, row, say, user

from cm2.dialogue import Dialogue, Step, Tool, ToolCall, ToolResponse, Turn
from cm2.errors import DataError
from cm2.formats import read_row, write_row

PLAIN = row(user(), ask(), answer(), say(), meta={"reward": 1})


def test_a_canonical_row_needs_no_wire_at_all():
    dialogue = read_row(deepcopy(PLAIN))
    assert dialogue.wire is None and all(s.wire is None for turn in dialogue.turns for s in turn.steps)
    assert (dialogue.id, dialogue.source, dialogue.meta) == ("d", "test", {"reward": 1})
    assert write_row(dialogue, "openai") == PLAIN


@pytest.mark.parametrize(
    "change",
    [
        {"id": 7},
        {"id": None},
        {"id": ""},
        {"source": None},
        {"source": {"file": "x"}},
        {"meta": {}},
        {"meta": None},
        {"meta": [1]},
        {"tools": None},
        {"tools": []},
        {"tools": json.dumps([TOOL])},
        {"model": "gpt", "usage": {"tokens": 3}, "rest": 1, "wire": None, "absent": ["id"]},
        {"messages": [user(), say("<think>a</think>b"), user(), say("c")]},
        {"messages": [user(), say("b", reasoning_content="a"), user(), say("<think>a</think>c")]},
    ],
)
def test_odd_rows_come_back_exactly(change):
    written = {**deepcopy(PLAIN), **change}
    assert write_row(read_row(deepcopy(written)), "openai") == written


@pytest.mark.parametrize("key", ["id", "source", "tools", "meta"])
def test_an_absent_key_stays_absent_until_the_dialogue_says_something(key):
    written = {name: value for name, value in PLAIN.items() if name != key}
    dialogue = read_row(deepcopy(written))
    assert write_row(dialogue, "openai") == written
    dialogue.id, dialogue.source, dialogue.tools, dialogue.meta = "new", "new", [Tool("new")], {"new": 1}
    assert write_row(dialogue, "openai")[key]


def test_an_edit_wins_over_the_value_that_was_read():
    written = {**deepcopy(PLAIN), "id": 7, "tools": json.dumps([TOOL]), "source": None, "meta": None, "extra": 1}
    dialogue = read_row(written)
    dialogue.id, dialogue.source, dialogue.tools, dialogue.meta = "new", "new", [Tool("new")], {"new": 1}
    after = write_row(dialogue, "openai")
    assert (after["id"], after["source"], after["meta"], after["extra"]) == ("new", "new", {"new": 1}, 1)
    assert after["tools"] == [{"type": "function", "function": {"name": "new", "description": "", "parameters": {}}}]


def test_legacy_functions_are_tools():
    written = {"id": "d", "functions": [TOOL["function"]], "messages": [user(), say()]}
    dialogue = read_row(deepcopy(written))
    assert dialogue.tools[0].name == "find" and write_row(dialogue, "openai") == written
    dialogue.tools = [Tool("other")]
    after = write_row(dialogue, "openai")
    assert "functions" not in after and after["tools"][0]["function"]["name"] == "other"


def test_a_dialogue_without_an_id_gets_one_from_its_content():
    bare = {"messages": [user(), say()]}
    first, again, other = read_row(bare), read_row(deepcopy(bare)), read_row({"messages": [user("x"), say()]})
    assert first.id == again.id != other.id and first.id.startswith("made-")


@pytest.mark.parametrize("id", [{}, [], True])
def test_an_id_that_is_no_name_is_an_error(id):
    with pytest.raises(DataError, match="the id is"):
        read_row({**PLAIN, "id": id})


def test_a_dialogue_made_in_python_is_written_and_read_again():
    steps = [
        Step("Hm.", None, [ToolCall("find", {"q": "é"}, "c")], [ToolResponse("7", "c", "find")]),
        Step(reply="It is 7."),
    ]
    dialogue = Dialogue("d", [Turn("Find.", steps)], [Tool("find")], "Be kind.", [Step(reply="Hello!")], "s", {"m": 1})
    assert read_row(json.loads(json.dumps(write_row(dialogue, "openai")))) == dialogue


def test_the_wire_of_a_dialogue_survives_json():
    import msgspec

    written = {**PLAIN, "id": 7, "extra": [1], "messages": [user([{"type": "text", "text": "x"}]), say(name="n")]}
    dialogue = msgspec.json.decode(msgspec.json.encode(read_row(deepcopy(written))), type=Dialogue)
    assert write_row(dialogue, "openai") == written
