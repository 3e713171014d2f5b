"""Chat messages to turns and steps: which message belongs to which action, and what is private."""

from __future__ import annotations

from copy import deepcopy

import pytest
from chat_builders import answer, ask, row, say, user, wanted

from cm2.dialogue import Step, ToolCall, ToolResponse, Turn
from cm2.errors import DataError, Where
from cm2.formats import read_row, write_row


def turns(*messages) -> list[Turn]:
    return read_row(row(*messages)).turns


def steps(*messages) -> list[Step]:
    return turns(user(), *messages)[0].steps


def test_a_call_its_response_and_the_reply_are_two_steps_of_one_turn():
    (turn,) = turns(user("Where?"), ask(), answer(), say("There."))
    assert turn.user == "Where?" and turn.reply == "There."
    first, last = turn.steps
    assert first.calls == [ToolCall("find", {"q": "x"}, "c0")] and first.reply is None
    assert first.responses == [ToolResponse('{"id": 7}', "c0")] and first.responses[0].value == {"id": 7}
    assert last == Step(reply="There.")


def test_null_content_is_absent_and_empty_content_of_a_reply_is_present():
    assert steps(say(None))[0].reply is None
    assert steps(say(""))[0].reply == ""
    assert steps(ask(content=""), answer())[0].reply is None


def test_messages_before_the_user_are_the_opening():
    dialogue = read_row(row({"role": "system", "content": "Be kind."}, say("Hello!"), user("Hi."), say("Yes?")))
    assert dialogue.system == "Be kind." and dialogue.opening == [Step(reply="Hello!")]
    assert len(dialogue.turns) == 1


def test_every_user_message_begins_a_turn():
    assert [len(turn.steps) for turn in turns(user(), user(), say(), user())] == [0, 1, 0]


def test_parallel_calls_in_one_message_or_several_are_one_step():
    first, second = wanted("a"), wanted("b")
    answers = [answer("1", "a"), answer("2", "b")]
    together = steps(ask(first, second), *answers)
    apart = steps(ask(first), ask(second), *answers)
    assert len(together) == len(apart) == 1
    assert apart[0].calls == together[0].calls and apart[0].responses == together[0].responses
    assert apart[0].response_to(0).content == "1" and apart[0].response_to(1).content == "2"


def test_a_reply_after_an_unanswered_call_is_a_step_of_its_own():
    call, reply = steps(ask(), say("Never mind."))
    assert call.calls and not call.responses and reply.reply == "Never mind."


def test_consecutive_replies_are_one_step_and_calls_after_an_answer_another():
    assert steps(say("One."), say("Two.")) == steps(say("One."), say("Two."))[:1]
    assert steps(say("One."), say("Two."))[0].reply == "One.\nTwo."
    assert len(steps(ask(), answer(), ask(wanted("c1")), answer(id="c1"))) == 2


def test_a_system_message_in_the_middle_is_no_turn_and_is_written_back():
    written = row(user(), say(), {"role": "system", "content": "Now in French."}, user(), say())
    dialogue = read_row(deepcopy(written))
    assert dialogue.system is None and len(dialogue.turns) == 2 and dialogue.turns[0].reply == "Here it is."
    assert write_row(dialogue, "openai") == written


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_reasoning_fields_are_thinking(key):
    (step,) = steps(say("So.", **{key: "Hm."}))
    assert (step.thinking, step.reply) == ("Hm.", "So.")


def test_tags_are_thinking_and_a_message_without_any_is_a_visible_reply():
    (step,) = steps(say("<think>\nHm.\n</think>\n\nSo."))
    assert (step.thinking, step.reply) == ("Hm.", "So.")
    assert steps(say("So."))[0].thinking is None


def test_a_refusal_is_a_visible_reply():
    assert steps(say(None, refusal="I cannot."))[0].reply == "I cannot."
    assert steps(say([{"type": "refusal", "refusal": "No."}]))[0].reply == "No."


def test_content_parts_are_joined_and_other_parts_named():
    parts = [{"type": "text", "text": "Look:"}, {"type": "image_url", "image_url": {"url": "x"}}]
    assert turns(user(parts), say())[0].user == "Look:\n[image_url]"


def test_arguments_may_be_text_or_an_object():
    (step,) = steps(ask(wanted(arguments='{"a": [1, 2.5]}'), wanted("c1", {"a": [1, 2.5]})))
    assert step.calls[0].arguments == step.calls[1].arguments == {"a": [1, 2.5]} and step.calls[1].valid


@pytest.mark.parametrize(
    ("arguments", "value"),
    [('{"a": ', None), ("{'a': 1}", None), ('{"a": NaN}', None), ("", None), ('"x"', "x"), ("[1]", [1]), (7, 7)],
)
def test_a_malformed_call_is_kept_with_its_fault_and_never_dropped(arguments, value):
    (call,) = steps(ask(wanted(arguments=arguments)), answer())[0].calls
    assert not call.valid and call.error and call.name == "find"
    assert call.arguments == value and call.raw == (arguments if isinstance(arguments, str) else None)


def test_arguments_that_nest_too_deeply_are_a_malformed_call():
    deep = '{"a":' * 20_000 + "1" + "}" * 20_000
    (call,) = steps(ask(wanted(arguments=deep)))[0].calls
    assert not call.valid and call.raw == deep


def test_responses_without_ids_are_matched_by_position_and_with_ids_by_id():
    calls = ask(wanted("a"), wanted("b"))
    bare = [{"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}]
    (step,) = steps(calls, *bare)
    assert [step.response_to(i).content for i in (0, 1)] == ["1", "2"]
    (step,) = steps(calls, answer("2", "b"), answer("1", "a"))
    assert [step.response_to(i).content for i in (0, 1)] == ["1", "2"]


def test_the_legacy_function_call_and_its_function_message_are_a_call_and_a_response():
    called = {"role": "assistant", "content": None, "function_call": {"name": "find", "arguments": "{}"}}
    (step,) = steps(called, {"role": "function", "name": "find", "content": "found"})
    assert step.calls == [ToolCall("find", {})] and step.response_to(0) == ToolResponse("found", None, "find")


def test_a_json_value_as_tool_content_is_its_text():
    (step,) = steps(ask(), answer({"id": 7}))
    assert step.responses[0].value == {"id": 7}
    (step,) = steps(ask(), answer([{"id": 7}, {"id": 8}]))
    assert step.responses[0].value == [{"id": 7}, {"id": 8}]
    (step,) = steps(ask(), answer([{"type": "text", "text": "seven"}]))
    assert step.responses[0].content == "seven"


@pytest.mark.parametrize(
    ("messages", "says", "path"),
    [
        (None, "null, not a list", "messages"),
        ({"role": "user"}, "an object, not a list", "messages"),
        ([], "'user'", "messages"),
        ([say()], "'user'", "messages"),
        (["hello"], "text, not an object", "messages[0]"),
        ([user(), {"content": "x"}], "no role", "messages[1]"),
        ([user(), {"role": "human", "content": "x"}], "'human'", "messages[1]"),
        ([user(), {"role": 7, "content": "x"}], "7", "messages[1]"),
        ([user(), say(), user(3)], "a number", "messages[2]"),
        ([user(), say([3])], "content part", "messages[1]"),
        ([user(), ask(), answer(), ask({"id": "c1"})], "tool call", "messages[3]"),
        ([user(), ask("find")], "tool call", "messages[1]"),
    ],
)
def test_what_is_no_dialogue_is_an_error_with_file_line_and_path(messages, says, path):
    with pytest.raises(DataError, match=says.replace("[", r"\[")) as caught:
        read_row({**row(), "messages": messages}, where=Where(file="f.jsonl", line=3))
    where = caught.value.where
    assert (where.file, where.line, where.path) == ("f.jsonl", 3, path)
    assert str(caught.value).startswith(f"f.jsonl:3, dialogue d, at {path}: ")


def test_an_edited_step_is_written_as_edited_and_its_neighbours_as_they_were_read():
    odd = say([{"type": "text", "text": "One."}], name="agent")
    dialogue = read_row(row(user(), odd, user(), deepcopy(odd)))
    dialogue.turns[0].steps[0].reply = "Two."
    messages = write_row(dialogue, "openai")["messages"]
    assert messages[1] == say("Two.") and messages[3] == odd


def test_an_edit_that_python_calls_equal_is_an_edit():
    dialogue = read_row(row(user(), ask(wanted(arguments={"on": 1}))))
    dialogue.turns[0].steps[0].calls[0].arguments = {"on": True}
    (call,) = write_row(dialogue, "openai")["messages"][1]["tool_calls"]
    assert call["function"]["arguments"] == '{"on": true}'


def test_edited_user_and_system_texts_win_over_what_was_read():
    written = row({"role": "developer", "content": "Old."}, user([{"type": "text", "text": "Old."}]), say())
    dialogue = read_row(written)
    dialogue.system, dialogue.turns[0].user = "New.", "New."
    messages = write_row(dialogue, "openai")["messages"]
    assert messages[:2] == [{"role": "system", "content": "New."}, user("New.")]
