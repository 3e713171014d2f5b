"""OpenAI's chat, OpenAI's Responses and Anthropic's messages: dialogues, and logs of single calls."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from shop_logs import (
    ARGUMENTS,
    ASKED,
    CHAT_TOOLS,
    DONE,
    FOUND,
    LOST,
    REPLIES,
    SCHEMAS,
    SYSTEM,
    THOUGHT,
    Value,
    chat,
    exchanges,
    expect,
    read,
    save,
)

ANTHROPIC_TOOLS = [{"name": name, "description": "", "input_schema": schema} for name, schema in SCHEMAS.items()]
RESPONSES_TOOLS = [{"type": "function", "name": name, "parameters": schema} for name, schema in SCHEMAS.items()]


def use(number: int, name: str) -> Value:
    return {"type": "tool_use", "id": f"call_{number}", "name": name, "input": ARGUMENTS[number - 1]}


def result(number: int, text: str, **more: bool) -> Value:
    return {"type": "tool_result", "tool_use_id": f"call_{number}", "content": [{"type": "text", "text": text}], **more}


def claude() -> list[Value]:
    return [
        {"role": "user", "content": ASKED[0]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": THOUGHT, "signature": "c2ln"},
                use(1, "get_order"),
                use(2, "get_order"),
            ],
        },
        {"role": "user", "content": [result(1, FOUND), result(2, LOST, is_error=True)]},
        {"role": "assistant", "content": [{"type": "text", "text": REPLIES[0]}]},
        {"role": "user", "content": [{"type": "text", "text": ASKED[1], "cache_control": {"type": "ephemeral"}}]},
        {"role": "assistant", "content": [{"type": "text", "text": "One moment."}, use(3, "cancel_order")]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_3", "content": DONE}]},
        {"role": "assistant", "content": REPLIES[1]},
    ]


def called(number: int, name: str) -> Value:
    arguments = json.dumps(ARGUMENTS[number - 1])
    return {
        "type": "function_call",
        "id": f"fc_{number}",
        "call_id": f"call_{number}",
        "name": name,
        "arguments": arguments,
    }


def answered(number: int, text: str) -> Value:
    return {"type": "function_call_output", "call_id": f"call_{number}", "output": text}


def said(text: str) -> Value:
    return {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    }


def items() -> list[Value]:
    return [
        {"role": "user", "content": [{"type": "input_text", "text": ASKED[0]}]},
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": THOUGHT}],
            "encrypted_content": "x",
        },
        called(1, "get_order"),
        called(2, "get_order"),
        answered(1, FOUND),
        answered(2, f"Error: {LOST}"),
        said(REPLIES[0]),
        {"role": "user", "content": ASKED[1]},
        said("One moment."),
        called(3, "cancel_order"),
        answered(3, DONE),
        said(REPLIES[1]),
    ]


def test_chat_rows_keep_everything(tmp_path: Path) -> None:
    row = {"id": "d1", "messages": chat(), "tools": CHAT_TOOLS, "reward": 1, "customer": {"tier": "gold"}, "model": "m"}
    found = read(tmp_path, row)
    expect(found.row)
    assert found.row["id"] == "d1" and found.row["meta"]["reward"] == 1.0 and found.row["meta"]["model"] == "m"
    assert found.told == {"format": "openai", "file": "log.jsonl", "line": 1, "kept": {"customer": {"tier": "gold"}}}
    assert found.summary.formats == {"openai": 1} and found.summary.scored == 1


def test_a_list_of_messages_alone_is_a_dialogue(tmp_path: Path) -> None:
    found = read(tmp_path, {"id": "a", "messages": chat()}, chat())
    assert [row["id"][:7] for row in found.rows] == ["a", "openai-"]
    for row in found.rows:
        expect(row, given=False)


def test_calls_without_ids_are_matched_by_position(tmp_path: Path) -> None:
    found = read(tmp_path, {"messages": chat(ids=False), "tools": CHAT_TOOLS})
    expect(found.row)
    assert found.told["made"][0]["path"] == "id"
    again = read(tmp_path, {"messages": chat(ids=False), "tools": CHAT_TOOLS})
    assert again.row["id"] == found.row["id"]


def test_inferred_schemas_say_no_more_than_the_calls(tmp_path: Path) -> None:
    found = read(tmp_path, {"id": "d", "messages": chat()})
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in found.row["tools"]}
    assert schemas["get_order"] == {"type": "object", "properties": {"order_id": {"type": "string"}}}
    assert set(schemas["cancel_order"]["properties"]) == {"order_id", "reason"}


def test_a_call_of_a_tool_that_was_not_offered_is_not_made_good(tmp_path: Path) -> None:
    found = read(tmp_path, {"id": "d", "messages": chat(), "tools": CHAT_TOOLS[:1]})
    assert [tool["function"]["name"] for tool in found.row["tools"]] == ["get_order"]


def test_malformed_arguments_are_seen_and_not_mended(tmp_path: Path) -> None:
    messages = chat()
    messages[7]["tool_calls"][0]["function"]["arguments"] = '{"order_id": "A1"'
    call = read(tmp_path, {"id": "d", "messages": messages, "tools": CHAT_TOOLS}).dialogue.turns[1].steps[0].calls[0]
    assert not call.valid and call.raw == '{"order_id": "A1"'


def test_anthropic_blocks(tmp_path: Path) -> None:
    row = {"model": "claude", "max_tokens": 9, "system": [{"type": "text", "text": SYSTEM}], "messages": claude()}
    found = read(tmp_path, {"id": "d", **row, "tools": ANTHROPIC_TOOLS})
    expect(found.row)
    assert found.told["format"] == "anthropic"
    assert found.row["messages"][4]["content"] == f'{{"error":"{LOST}"}}'
    assert any("marks this answer as an error" in note["what"] for note in found.told["made"])
    assert found.told["kept"] == {"messages[4].content[0].cache_control": {"type": "ephemeral"}}
    assert "messages[].content[].signature" in found.told["left"]


def test_anthropic_hosted_tools_divide_the_message(tmp_path: Path) -> None:
    content = [
        {"type": "text", "text": "I look it up."},
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "q"}},
        {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [{"type": "web_search_result", "url": "u"}]},
        {"type": "text", "text": "Found."},
        {"type": "redacted_thinking", "data": "…"},
    ]
    found = read(
        tmp_path, {"id": "d", "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": content}]}
    )
    roles = [message["role"] for message in found.row["messages"]]
    assert roles == ["user", "assistant", "tool", "assistant"]
    assert found.row["messages"][1]["content"] == "I look it up." and found.row["messages"][3]["content"] == "Found."
    assert any("hid or encrypted" in note["what"] for note in found.told["unmapped"])


def test_responses_items(tmp_path: Path) -> None:
    row = {"model": "m", "instructions": SYSTEM, "input": items(), "tools": RESPONSES_TOOLS}
    found = read(tmp_path, {"id": "d", **row})
    expect(found.row)
    assert found.told["format"] == "responses"
    assert [note["path"] for note in found.told["unmapped"]] == ["input[1].encrypted_content"]


def test_responses_hosted_tools_are_calls_with_answers(tmp_path: Path) -> None:
    output = [
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}},
        {"type": "mcp_list_tools", "id": "l", "server_label": "s", "tools": [{"name": "ask", "input_schema": {}}]},
        {
            "type": "mcp_call",
            "id": "mcp_1",
            "name": "ask",
            "arguments": "{}",
            "output": None,
            "error": {"message": "down"},
        },
        {"type": "code_interpreter_call", "id": "ci", "code": "1+1", "outputs": [{"type": "logs", "logs": "2"}]},
        {"type": "item_reference", "id": "gone"},
        said("Done."),
    ]
    found = read(
        tmp_path,
        {
            "object": "response",
            "id": "resp_1",
            "input": "Go.",
            "output": output,
            "tools": [{"type": "web_search_preview"}],
        },
    )
    messages = found.row["messages"]
    calls = [call["function"]["name"] for m in messages for call in m.get("tool_calls", [])]
    assert calls == ["web_search", "ask", "code_interpreter"]
    assert json.loads(messages[4]["content"]) == {"error": "down"}
    names = {tool["function"]["name"] for tool in found.row["tools"]}
    assert names == {"web_search", "ask", "code_interpreter"} and found.told["inferred_tools"] == ["code_interpreter"]
    assert any("item_reference" in note["what"] for note in found.told["unmapped"])


@pytest.mark.parametrize("outer", ["request", "body", "kwargs"])
def test_logs_of_calls_become_the_longest_conversation(tmp_path: Path, outer: str) -> None:
    rows = []
    for before, after in exchanges(chat()):
        response = {
            "id": "c",
            "choices": [{"index": 0, "message": after}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2},
        }
        rows.append({outer: {"model": "m", "messages": before, "tools": CHAT_TOOLS}, "response": response})
    found = read(tmp_path, *rows)
    expect(found.row)
    assert found.summary.used == 4 and found.row["meta"]["tokens"] == {"input": 12, "output": 8}


def test_two_conversations_whose_calls_alternate_stay_two(tmp_path: Path) -> None:
    other = copy.deepcopy(chat())
    other[1]["content"] = "And C3?"
    calls = [exchanges(chat()), exchanges(other)]
    rows = [
        {"request": {"messages": logs[i][0]}, "response": {"choices": [{"message": logs[i][1]}]}}
        for i in range(4)
        for logs in calls
    ]
    found = read(tmp_path, *rows)
    assert [len(dialogue.turns) for dialogue in found.dialogues] == [2, 2]
    assert [dialogue.turns[0].user for dialogue in found.dialogues] == [ASKED[0], "And C3?"]


def test_conversations_that_begin_alike_stay_apart(tmp_path: Path) -> None:
    hello = {"role": "assistant", "content": "Hello! How can I help?"}
    logs = []
    for number in range(3):
        messages = chat()
        messages[6]["content"] = f"Then cancel it, says customer {number}."
        logs.append(exchanges([messages[0], {"role": "user", "content": "Hi"}, hello, *messages[1:]]))
    rows = [
        {"request": {"messages": log[step][0]}, "response": {"choices": [{"message": log[step][1]}]}}
        for step in range(5)
        for log in logs
    ]
    found = read(tmp_path, *rows)
    assert [row["messages"][8]["content"] for row in found.rows] == [
        f"Then cancel it, says customer {n}." for n in range(3)
    ]
    assert [len(row["messages"]) for row in found.rows] == [12, 12, 12]
    assert all("branch" not in row["meta"]["import"] for row in found.rows)


def test_a_retry_is_a_branch(tmp_path: Path) -> None:
    calls = exchanges(chat())
    retry = {"role": "assistant", "content": "I cannot cancel it."}
    rows = [
        {"request": {"messages": before}, "response": {"choices": [{"message": after}]}}
        for before, after in [*calls, (calls[2][0], retry)]
    ]
    found = read(tmp_path, *rows)
    assert [len(row["messages"]) for row in found.rows] == [10, 8]
    first, second = found.rows
    assert second["id"] == f"{first['id']}#2"
    assert second["meta"]["import"]["branch"] == {"of": first["id"], "shared": 6}


def test_responses_that_name_the_one_before_continue_it(tmp_path: Path) -> None:
    whole = items()
    parts = [(whole[:1], whole[1:4]), (whole[4:6], whole[6:7]), (whole[7:8], whole[8:10]), (whole[10:11], whole[11:])]
    rows = []
    for number, (sent, output) in enumerate(parts):
        request = {
            "instructions": SYSTEM,
            "input": sent,
            "tools": RESPONSES_TOOLS,
            "previous_response_id": f"r{number - 1}" if number else None,
        }
        rows.append({"request": request, "response": {"object": "response", "id": f"r{number}", "output": output}})
    expect(read(tmp_path, *rows).row)


def test_anthropic_calls_and_batches(tmp_path: Path) -> None:
    whole = claude()
    rows = []
    for at in (1, 3, 5, 7):
        content = whole[at]["content"]
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        message = {"type": "message", "role": "assistant", "content": parts, "stop_reason": "end_turn"}
        request = {"system": SYSTEM, "messages": whole[:at], "tools": ANTHROPIC_TOOLS, "max_tokens": 5}
        rows.append({"custom_id": f"b{at}", "request": request, "result": {"type": "succeeded", "message": message}})
    found = read(tmp_path, *rows)
    expect(found.row)
    assert found.row["id"] == "b1" and found.told["format"] == "anthropic"


def test_calls_of_a_named_conversation_need_no_history(tmp_path: Path) -> None:
    rows = [
        {"conversation_id": "k", "request": {"messages": before}, "response": {"choices": [{"message": after}]}}
        for before, after in exchanges(chat())
    ]
    found = read(tmp_path, *reversed(rows))
    assert found.row["id"] == "k"


@pytest.mark.parametrize(("asked", "told"), [("inputs", "outputs"), ("input", "output"), ("body", "response")])
def test_wrappers_of_questions_and_answers(tmp_path: Path, asked: str, told: str) -> None:
    found = read(tmp_path, {"id": "x", asked: {"question": "Why?"}, told: {"answer": "So."}})
    assert [message["content"] for message in found.row["messages"]] == ["Why?", "So."]


def test_a_further_choice_is_said(tmp_path: Path) -> None:
    choices = [{"message": {"role": "assistant", "content": text}} for text in ("one", "two")]
    found = read(
        tmp_path,
        {"id": "x", "request": {"messages": [{"role": "user", "content": "?"}]}, "response": {"choices": choices}},
    )
    assert found.row["messages"][-1]["content"] == "one"
    assert found.told["unmapped"] == [{"path": "response.choices[1]", "what": "a further choice of the same call"}]


def test_pictures_are_said_and_kept(tmp_path: Path) -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    content = [{"type": "text", "text": "What is this?"}, picture]
    found = read(
        tmp_path,
        {"id": "x", "messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "A dog."}]},
    )
    assert found.dialogue.turns[0].user == "What is this?\n[image_url]"
    assert found.told["kept"] == {"messages[0].content[1]": picture}
    assert "image_url" in found.told["unmapped"][0]["what"]


def test_values_that_are_too_large_are_named(tmp_path: Path) -> None:
    found = read(tmp_path, {"id": "x", "messages": chat(), "blob": "x" * 50_000})
    assert "kept" not in found.told and found.told["left"] == ["blob (too large to copy (50,002 bytes))"]


def test_from_insists(tmp_path: Path) -> None:
    save(tmp_path, {"id": "x", "messages": chat(), "tools": CHAT_TOOLS})
    found = read(
        tmp_path,
        {"id": "x", "messages": chat(), "tools": CHAT_TOOLS},
        {"traceId": "x", "type": "SPAN"},
        format="anthropic",
    )
    assert found.told["format"] == "anthropic"
    assert "none of the format 'anthropic'" in found.rejected[0]["reason"]


def test_a_call_that_is_no_object_rejects_the_row_with_its_place(tmp_path: Path) -> None:
    messages = chat()
    messages[2]["tool_calls"] = [7]
    found = read(tmp_path, {"id": "bad", "messages": messages}, {"id": "good", "messages": chat()})
    assert [row["id"] for row in found.rows] == ["good"]
    assert found.rejected[0]["line"] == 1 and "messages[2].tool_calls[0]" in found.rejected[0]["reason"]
    assert found.rejected[0]["row"]["id"] == "bad"
