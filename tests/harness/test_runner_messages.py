"""What the runners do to an assistant's message: thinking kept or dropped, broken calls, and whose error it was.

The file runs inside a harness's environment; here it is loaded by its path, as it imports nothing of theirs.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from cm2.harness.process import RUNNERS


@pytest.fixture(scope="module")
def shared() -> ModuleType:
    return loaded("cm2_shared")


def loaded(name: str) -> ModuleType:
    """A file of the runners as a module."""
    spec = importlib.util.spec_from_file_location(f"{name}_under_test", RUNNERS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def message(content: str | None, *calls: tuple[str, str | None], **more: Any) -> SimpleNamespace:
    """An assistant's message as OpenAI's client has it."""
    made = [
        SimpleNamespace(id=f"call-{n}", function=SimpleNamespace(name=name, arguments=arguments))
        for n, (name, arguments) in enumerate(calls)
    ]
    return SimpleNamespace(content=content, tool_calls=made or None, **more)


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        ("Hello.", "Hello."),
        (None, ""),
        ("<think>\nhm\n</think>\n\nHello.", "Hello."),
        ("hm, opened in the prompt</think>Hello.", "Hello."),
        ("<think>cut off while", ""),
        ("<think>a</think>b<think>c</think> d", "d"),
        ("  indented", "  indented"),
        ("half \ud83d of one", "half ? of one"),
    ],
)
def test_a_user_sees_an_answer_without_its_thinking(shared: ModuleType, content: str | None, seen: str) -> None:
    assert shared.visible(content) == seen


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_kept_thinking_goes_back_under_the_name_it_came_under(shared: ModuleType, field: str) -> None:
    given = message("Hello.", ("look", "{}"), **{field: "hm"})
    kept, dropped = shared.remembered(given, True), shared.remembered(given, False)
    assert kept[field] == "hm" and field not in dropped
    assert kept["tool_calls"] == dropped["tool_calls"]
    assert kept["tool_calls"][0] == {
        "id": "call-0",
        "type": "function",
        "function": {"name": "look", "arguments": "{}"},
    }


def test_thinking_in_the_text_is_kept_or_dropped_with_it(shared: ModuleType) -> None:
    given = message("<think>hm</think>Hello.")
    assert shared.remembered(given, True) == {"role": "assistant", "content": "<think>hm</think>Hello."}
    assert shared.remembered(given, False) == {"role": "assistant", "content": "Hello."}


def test_an_answer_without_text_stays_without(shared: ModuleType) -> None:
    assert shared.remembered(message(None, ("look", "{}")), False)["content"] is None


NO_OBJECTS = [
    '{"a": ',
    "[1]",
    '"text"',
    "null",
    "nonsense",
    '{"a": NaN}',
    '{"a": 1e999}',
    r'{"a": "\ud83d"}',
    "[" * 9999,
]


@pytest.mark.parametrize("arguments", NO_OBJECTS)
def test_calls_that_are_no_json_object_go_back_as_text(shared: ModuleType, arguments: str) -> None:
    given = message("So:", ("good", "{}"), ("bad", arguments))
    assert shared.broken(given.tool_calls)
    made = shared.remembered(given, True)
    assert "tool_calls" not in made  # no tool answers them, and servers refuse a history that holds them
    assert made["content"] == f"So:\ngood({{}})\nbad({arguments})"


def test_a_call_without_arguments_has_none(shared: ModuleType) -> None:
    given = message(None, ("look", ""), ("see", None))
    assert not shared.broken(given.tool_calls)
    assert [one["function"]["arguments"] for one in shared.remembered(given, True)["tool_calls"]] == ["{}", "{}"]


@pytest.mark.parametrize(
    ("name", "arguments", "made"),
    [
        ("ls", {"a": True}, "ls(a=True)"),
        ("nowhere.ls", {}, "nowhere.ls()"),
        ("open", {"file": "f"}, "open_is_no_tool()"),
        ("json.dumps", {}, "json_dumps_is_no_tool()"),
        ("ls() or open", {}, "no call 'ls() or open'"),
        ("ls\n", {}, "no call 'ls\\n'"),
        ("ls", {"a=open('f','w'),b": 1}, "no call 'ls'"),
    ],
)
def test_a_call_becomes_no_other_python_than_a_call_of_a_tool(
    shared: ModuleType, monkeypatch: pytest.MonkeyPatch, name: str, arguments: dict[str, Any], made: str
) -> None:
    monkeypatch.setitem(sys.modules, "cm2_shared", shared)
    text = f"{name}({','.join(f'{key}={value!r}' for key, value in arguments.items())})"
    assert loaded("run_bfcl").harmless(text, name, arguments, {"open", "json"}) == made


class Refused(Exception):
    """An error as OpenAI's client and LiteLLM raise it."""

    def __init__(self, said: str, status: int | None):
        super().__init__(said)
        self.status_code = status


@pytest.mark.parametrize(
    ("said", "status", "owner"),
    [
        ("This model's maximum context length is 8192 tokens, however you requested 9000", 400, "agent"),
        ("{'code': 'context_length_exceeded'}", 400, "agent"),
        ("the request exceeds the available context size", 400, "agent"),
        ("invalid tool schema", 400, "infrastructure"),
        ("maximum context length cache is broken", 500, "infrastructure"),
        ("no such model", 404, "infrastructure"),
        ("slow down", 429, "infrastructure"),
        ("Connection error.", None, "infrastructure"),
    ],
)
def test_only_a_prompt_that_outgrew_its_window_is_the_agents(
    shared: ModuleType, said: str, status: int | None, owner: str
) -> None:
    assert shared.owner(Refused(said, status)) == owner


def test_an_error_is_told_in_one_line_with_its_cause(shared: ModuleType) -> None:
    error = Refused("Connection error.", None)
    error.__cause__ = OSError("refused\nby the other side")
    told = shared.told(error)
    assert told == "Refused: Connection error. (OSError: refused by the other side)"
