"""Function schemas to tools: faults stay readable, what was read comes back."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest
from chat_builders import TOOL

from cm2.dialogue import Tool
from cm2.errors import DataError, Where
from cm2.formats.tools import read_tools, write_tools

HERE = Where(path="tools")


def test_a_function_schema_is_a_tool_and_needs_no_wire():
    (tool,) = read_tools([TOOL], HERE)
    assert tool == Tool("find", "Find.", TOOL["function"]["parameters"]) and tool.wire is None
    assert write_tools([tool]) == [TOOL]


def test_tools_may_be_json_text_or_absent():
    assert read_tools(json.dumps([TOOL]), HERE) == read_tools([TOOL], HERE)
    assert read_tools(None, HERE) == []


@pytest.mark.parametrize(
    "odd",
    [
        {"name": "find", "description": "Find.", "parameters": {}},
        {"type": "function", "function": {"description": "no name", "parameters": {}}},
        {"type": "function", "function": {"name": "find", "parameters": "dict(q=str)"}},
        {"type": "function", "function": {"name": "find", "description": None, "parameters": None, "strict": True}},
        {"type": "function", "function": {"name": "find"}, "cache_control": {"type": "ephemeral"}},
    ],
)
def test_an_odd_tool_is_read_and_written_back_as_it_stood(odd):
    tools = read_tools([deepcopy(odd)], HERE)
    assert tools[0].name == odd.get("function", odd).get("name", "") and isinstance(tools[0].parameters, dict)
    assert write_tools(tools) == [odd]


def test_an_edited_tool_is_written_as_edited():
    tools = read_tools([{"name": "find", "parameters": {"default": 1}}], HERE)
    tools[0].parameters = {"default": True}
    (written,) = write_tools(tools)
    assert written["function"]["parameters"]["default"] is True


@pytest.mark.parametrize(
    ("value", "path"), [({}, "tools"), ("[", "tools"), (7, "tools"), (["find"], "tools[0]"), ([TOOL, 3], "tools[1]")]
)
def test_what_is_no_list_of_objects_is_an_error_with_its_place(value, path):
    with pytest.raises(DataError) as caught:
        read_tools(value, HERE)
    assert caught.value.where.path == path
