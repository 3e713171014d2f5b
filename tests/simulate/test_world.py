"""One world a group: replay, errors of the environment, and answers that siblings share."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm2.dialogue import Dialogue, Step, Tool, ToolCall, ToolResponse, Turn
from cm2.judge.values import is_error
from cm2.simulate import SimulatorError, World
from rollout.coffee_task import EMPTY, FULL, TOOLS, dialogue, made


def ask(session, name, **arguments) -> ToolResponse:
    return session.respond(ToolCall(name, arguments, "id1"))


ADD = {"item_id": "mocha-7835", "quantity": 1}


def test_a_recorded_call_is_replayed_whatever_its_key_order_and_number_form():
    session = World(dialogue()).session()
    response = session.respond(ToolCall("add_item", {"quantity": 1.0, "item_id": "mocha-7835"}, "c7"))
    assert response == ToolResponse('{"order_id": "51313", "line_id": "12691"}', "c7", "add_item", "replayed")


def test_true_is_not_one_and_text_is_not_a_number():
    tool = Tool("f", parameters={"type": "object"})
    world = World(Dialogue("d", [Turn("u", [made("f", {"a": 1}, {"r": "one"})])], [tool]))
    assert ask(world.session(), "f", a=True).origin == "simulated"
    assert ask(world.session(), "f", a=1).origin == "replayed"


def test_a_look_up_after_the_recorded_write_shows_what_was_written():
    session = World(dialogue()).session()
    assert json.loads(ask(session, "get_order", order_id="51313").content) == EMPTY
    ask(session, "add_item", **ADD)
    assert json.loads(ask(session, "get_order", order_id="51313").content) == FULL
    assert json.loads(ask(session, "get_order", order_id="51313").content) == FULL


def test_a_sibling_that_has_not_written_still_sees_the_old_state():
    world = World(dialogue())
    writer, reader = world.session(), world.session()
    ask(writer, "add_item", **ADD)
    ask(writer, "get_order", order_id="51313")
    assert json.loads(ask(reader, "get_order", order_id="51313").content) == EMPTY


def test_a_different_write_still_leads_to_the_recorded_state_after_a_write():
    session = World(dialogue()).session()
    assert ask(session, "add_item", item_id="latte-2323", quantity=2).origin == "simulated"
    assert json.loads(ask(session, "get_order", order_id="51313").content) == FULL


def test_polling_gets_the_recordings_in_order_and_then_the_last_again():
    steps = [made("get_status", {}, {"done": n}) for n in range(3)]
    world = World(Dialogue("d", [Turn("u", steps)], [Tool("get_status")]))
    for session in (world.session(), world.session()):
        seen = [json.loads(ask(session, "get_status").content)["done"] for _ in range(5)]
        assert seen == [0, 1, 2, 2, 2]


def test_a_failed_write_leaves_the_state_as_it_was():
    steps = [
        made("get_x", {}, {"x": 0}),
        made("set_x", {"x": 1}, {"error": "not allowed"}),
        made("get_x", {}, {"x": "still 0"}),
    ]
    session = World(Dialogue("d", [Turn("u", steps)], [Tool("get_x"), Tool("set_x")])).session()
    ask(session, "set_x", x=1)
    assert session.writes == [] and ask(session, "get_x").content == '{"x": 0}'
    assert ask(session, "get_x").content == '{"x": "still 0"}'


def test_an_unknown_tool_is_an_error_that_lists_the_tools():
    response = ask(World(dialogue()).session(), "fly", to="moon")
    assert response.origin == "error" and is_error(response)
    assert "unknown tool 'fly'" in response.content and "find_items" in response.content


@pytest.mark.parametrize(
    "arguments, told",
    [
        ({}, "missing argument 'query'"),
        ({"query": 3}, "argument 'query': 3 is not of type"),
        ({"query": "x", "size": 1}, "unexpected argument 'size'"),
        ({"query": "x", "limit": "many"}, "argument 'limit'"),
        ({"query": ("x",)}, "argument 'query'"),
    ],
)
def test_arguments_that_break_the_schema_are_an_error_that_names_them(arguments, told):
    response = World(dialogue()).session().respond(ToolCall("find_items", arguments))
    assert response.origin == "error" and told in response.content


def test_nested_arguments_are_named_by_their_path():
    lines = {"type": "array", "items": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}}
    tool = Tool("add", parameters={"type": "object", "properties": {"lines": lines}})
    response = ask(World(Dialogue("d", [Turn("u")], [tool])).session(), "add", lines=[{"id": "a"}, {"id": 2}, {}])
    assert "lines[1].id" in response.content and "missing argument 'lines[2].id'" in response.content


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "object", "properties": {"a": {"$ref": "https://example.com/x.json"}}},
        {"type": "objekt"},
        {"properties": {"a": {"type": "string", "pattern": "(["}}},
        {},
    ],
)
def test_a_schema_that_is_itself_broken_blames_nobody(parameters):
    tool = Tool("get_it", parameters=parameters)
    response = ask(World(Dialogue("d", [Turn("u")], [tool])).session(), "get_it", a="x")
    assert response.origin == "simulated"


def test_a_catastrophic_pattern_does_not_hang():
    tool = Tool("get_it", parameters={"properties": {"a": {"type": "string", "pattern": "^(a+)+$(?!x)"}}})
    response = ask(World(Dialogue("d", [Turn("u")], [tool])).session(), "get_it", a="a" * 40 + "!")
    assert response.origin in ("error", "simulated")


def test_a_recorded_call_that_breaks_the_schema_is_replayed_as_it_was_answered():
    world = World(Dialogue("d", [Turn("u", [made("find_items", {"q": "tea"}, {"items": []})])], TOOLS))
    assert ask(world.session(), "find_items", q="tea").origin == "replayed"


def test_a_malformed_call_is_an_error_and_is_replayed_where_it_was_recorded():
    bad = ToolCall("find_items", None, "x", '{"query": ', "unexpected end")
    session = World(dialogue()).session()
    assert session.respond(bad).origin == "error" and "unexpected end" in session.respond(bad).content
    step = Step(calls=[bad], responses=[ToolResponse("Error: bad request", "x")])
    world = World(Dialogue("d", [Turn("u", [step])], TOOLS))
    assert world.session().respond(bad).content == "Error: bad request"


def test_a_result_that_quotes_the_word_error_is_not_an_error():
    quoting = {"log": [{"level": "error", "text": "error: disk full"}], "error_count": 1}
    world = World(Dialogue("d", [Turn("u", [made("create_log", {}, quoting)])], [Tool("create_log")]))
    session = world.session()
    response = ask(session, "create_log")
    assert response.origin == "replayed" and not is_error(response) and len(session.writes) == 1


def test_writes_can_be_told_explicitly():
    world = World(dialogue(), writes=lambda call: call.name == "find_items")
    session = world.session()
    ask(session, "find_items", query="coffee")
    ask(session, "add_item", **ADD)
    assert [call.name for call, _ in session.writes] == ["find_items"]


class Failing:
    executable = False

    def session(self):
        return self

    def respond(self, call, context):
        raise KeyError("boom")


def test_a_backend_that_raises_is_the_simulators_failure():
    session = World(dialogue(), backend=Failing()).session()
    assert ask(session, "find_items", query="coffee").origin == "replayed"
    with pytest.raises(SimulatorError, match="find_items: KeyError"):
        ask(session, "find_items", query="tea")


class Counting:
    """An executable world: every session counts its own additions."""

    executable = True

    def __init__(self, start=0):
        self.count = start

    def session(self):
        return Counting(self.count)

    def respond(self, call, context):
        self.count += call.name == "add_item"
        return json.dumps({"count": self.count})


def test_an_executable_backend_keeps_one_state_a_session_and_nothing_is_replayed():
    world = World(dialogue(), backend=Counting())
    first, second = world.session(), world.session()
    assert ask(first, "add_item", **ADD).content == '{"count": 1}'
    assert ask(first, "add_item", **ADD).content == '{"count": 2}'
    assert ask(second, "get_order", order_id="51313") == ToolResponse('{"count": 0}', "id1", "get_order", "simulated")
    assert ask(first, "add_item", item_id=3, quantity=1).origin == "error"
    assert ask(first, "get_order", order_id="51313").content == '{"count": 2}'


class Remote:
    """An asynchronous backend that never says the same thing twice, and can be told to fail."""

    executable = False

    def __init__(self, failures=0):
        self.asked: Counter[str] = Counter()
        self.failures = failures

    def session(self):
        return self

    async def respond(self, call, context):
        self.asked[call.name] += 1
        await asyncio.sleep(0.01)
        if self.failures:
            self.failures -= 1
            raise TimeoutError("slow")
        return json.dumps({"n": sum(self.asked.values())})


def test_siblings_that_ask_at_once_wait_for_one_answer():
    backend = Remote()
    world = World(dialogue(), backend=backend)

    async def run():
        sessions = [world.session() for _ in range(8)]
        return await asyncio.gather(*(s.respond_async(ToolCall("find_items", {"query": "tea"})) for s in sessions))

    assert {response.content for response in asyncio.run(run())} == {'{"n":1}'.replace(":", ": ")}
    assert backend.asked["find_items"] == 1


def test_a_siblings_failure_is_its_own():
    world = World(dialogue(), backend=Remote(failures=1))

    async def run():
        calls = (world.session().respond_async(ToolCall("find_items", {"query": "tea"})) for _ in range(3))
        return await asyncio.gather(*calls, return_exceptions=True)

    failed, *answered = sorted(asyncio.run(run()), key=lambda one: not isinstance(one, Exception))
    assert isinstance(failed, SimulatorError) and len({response.content for response in answered}) == 1


def test_an_asynchronous_backend_that_is_asked_synchronously_is_waited_for():
    backend = Remote()
    session = World(dialogue(), backend=backend).session()
    assert ask(session, "find_items", query="tea").content == '{"n": 1}'
    assert ask(session, "find_items", query="tea").content == '{"n": 1}' and backend.asked["find_items"] == 1


def test_replay_in_the_same_state_only_leaves_other_states_to_the_backend():
    session = World(dialogue(), replay="same_state").session()
    assert ask(session, "get_order", order_id="51313").origin == "replayed"
    ask(session, "add_item", item_id="latte-2323", quantity=2)
    assert ask(session, "get_order", order_id="51313").origin == "simulated"
    other = World(dialogue(), replay="same_state").session()
    ask(other, "add_item", **ADD)
    response = ask(other, "get_order", order_id="51313")
    assert response.origin == "replayed" and json.loads(response.content) == FULL


class Looking(Remote):
    """Looks at the turn beside the call."""

    def depends(self, call, context):
        return str(context.turn)


def test_what_a_backend_says_it_looks_at_is_part_of_what_an_answer_is_shared_under():
    backend = Looking()
    world = World(dialogue(), backend=backend)
    early, late, late_too = world.session(), world.session(), world.session()
    late.turn = late_too.turn = 1
    first, second, third = (ask(one, "find_items", query="tea").content for one in (early, late, late_too))
    assert first != second == third
    early.turn = 1  # a session never sees the world waver
    assert ask(early, "find_items", query="tea").content == first


def test_the_context_tells_what_the_session_was_told_and_leaves_out_the_environments_own_errors():
    seen = []

    class Noting:
        executable = False

        def session(self):
            return self

        def respond(self, call, context):
            seen.append(context)
            return '{"ok": 1}'

    session = World(dialogue(), backend=Noting()).session()
    ask(session, "fly", to="moon")
    ask(session, "find_items", query="coffee")
    ask(session, "add_item", item_id="latte-2323", quantity=2)
    ask(session, "get_order", order_id="7")
    assert [(one.call.name, one.writes) for one in seen[-1].heard] == [("find_items", 0), ("add_item", 0)]
    assert [call.name for call, _ in seen[-1].writes] == ["add_item"]


MENU_CALLS = [
    ("find_items", {"query": "mocha"}),
    ("find_items", {"query": "coffee"}),
    ("find_items", {"query": "nothing like it"}),
    ("find_items", {"limit": 3}),
    ("get_order", {"order_id": "51313"}),
    ("get_order", {"order_id": "99999"}),
    ("add_item", ADD),
    ("add_item", {"item_id": "latte-2323", "quantity": 2}),
    ("add_item", {"item_id": "gone-1111", "quantity": 2}),
    ("get_opening_hours", {"day": "Friday"}),
    ("no_such_tool", {}),
]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(range(len(MENU_CALLS)))), max_size=24))
def test_the_same_call_after_the_same_writes_gets_the_same_answer_whoever_asks_first(schedule):
    """Three siblings take turns in any order; each must see what it would have seen alone in a fresh world."""
    world = World(dialogue(), seed=3)
    sessions = [world.session() for _ in range(3)]
    alone = [World(dialogue(), seed=3).session() for _ in range(3)]
    seen: dict[tuple, set[str]] = {}
    asked: Counter[tuple] = Counter()
    for who, which in schedule:
        name, arguments = MENU_CALLS[which]
        writes = tuple((call.name, json.dumps(call.arguments)) for call, _ in sessions[who].writes)
        answer = ask(sessions[who], name, **arguments)
        assert answer == ask(alone[who], name, **arguments)
        asked[who, which, writes] += 1
        seen.setdefault((which, writes, asked[who, which, writes]), set()).add(answer.content)
    assert all(len(answers) == 1 for answers in seen.values())
