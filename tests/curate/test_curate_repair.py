"""Repairs: each changes what it names, nothing else, and says so on the row."""

from __future__ import annotations

import copy
import json

import pytest
from row_builders import TOOL, nemotron, openai, silent

from cm2.curate import check_row, make_profile
from cm2.curate.repair import REPAIRS, named, repair
from cm2.errors import ConfigError

PUBLISHED = make_profile("published")


def repaired(row, *names) -> dict:
    before = copy.deepcopy(row)
    changed, done = repair(row, named(names))
    assert row == before, "a repair changed the row it was given"
    assert set(done) == set(names) and changed["cm2"]["repairs"] == done
    return changed


def test_a_silent_log_becomes_a_published_row():
    row = silent()
    row["messages"][2]["reasoning_content"] = "I should book."
    row["messages"][4]["reasoning_content"] = "Done."
    assert not check_row(row, PUBLISHED).kept
    changed = repaired(row, "wrap_plain_text", "move_reasoning")
    assert check_row(changed, PUBLISHED).kept
    assert changed["messages"][2]["content"] == "<think>\nI should book.\n</think>"
    assert changed["messages"][4]["content"] == "<think>\nDone.\n</think>\n\nIt is booked."
    assert json.loads(changed["messages"][3]["content"]) == {"result": "Booked: B1"}
    assert "reasoning_content" not in changed["messages"][2]


def test_a_greeting_is_dropped_but_not_the_system_message():
    row = openai()
    row["messages"].insert(1, {"role": "assistant", "content": "Hello!"})
    assert repaired(row, "drop_greeting")["messages"] == openai()["messages"]


def test_a_dialogue_that_was_cut_short_ends_with_its_last_reply():
    row = openai()
    row["messages"] += [{"role": "user", "content": "And a taxi."}]
    changed = repaired(row, "cut_tail")
    assert changed["messages"] == openai()["messages"] and check_row(changed, PUBLISHED).kept


@pytest.mark.parametrize("row", [openai(), nemotron()], ids=["openai", "nemotron"])
def test_tools_that_stand_twice_are_offered_once(row):
    if "metadata" in row:
        row["metadata"] = json.dumps({"tools": [TOOL, TOOL], "more": 1})
    else:
        row["tools"] = [TOOL, TOOL]
    changed = repaired(row, "dedupe_tools")
    assert check_row(changed, PUBLISHED).kept
    if "metadata" in row:
        assert json.loads(changed["metadata"]) == {"tools": [TOOL], "more": 1}


def test_tools_of_one_name_and_different_parameters_are_not_guessed_between():
    other = copy.deepcopy(TOOL)
    other["function"]["parameters"] = {"type": "object"}
    row = openai(tools=[TOOL, other])
    assert repair(row, named(["dedupe_tools"])) == (row, [])


def test_a_call_without_a_type_gets_one():
    row = openai()
    del row["messages"][2]["tool_calls"][0]["type"]
    assert check_row(repaired(row, "add_call_type"), PUBLISHED).kept


def test_a_good_row_stays_itself():
    for row in (openai(), nemotron()):
        assert repair(row, named(REPAIRS)) == (row, [])


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"messages": None, "tools": None},
        {"messages": ["x", 3], "tools": "x", "metadata": 1},
        {"messages": [{}], "metadata": "{"},
        {"messages": [{"role": "assistant", "tool_calls": [1], "reasoning": 3}], "tools": [1, None, {}]},
    ],
)
def test_repairs_pass_over_what_is_no_dialogue(row):
    assert repair(row, named(REPAIRS))[0] is row


def test_earlier_repairs_stay_recorded():
    row = {**silent(), "cm2": {"repairs": ["drop_greeting"], "note": 1}}
    changed, done = repair(row, named(["wrap_plain_text"]))
    assert done == ["wrap_plain_text"]
    assert changed["cm2"] == {"repairs": ["drop_greeting", "wrap_plain_text"], "note": 1}


def test_an_unknown_repair_is_one_clear_sentence():
    with pytest.raises(ConfigError, match="no repair 'wrap'"):
        named(["wrap"])
