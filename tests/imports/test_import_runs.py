"""Runs of benchmarks and rows of data sets: Inspect, tau-bench and tau2, the Hugging Face hub, MCP."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
import zstandard
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
    expect,
    read,
    run,
    save,
)

from cm2.errors import DataError


def inspect_message(message: Value) -> Value:
    """A chat message as Inspect writes it."""
    found: Value = {"id": f"m{id(message)}", "role": message["role"], "content": message["content"] or ""}
    if message.get("reasoning_content"):
        found["content"] = [{"type": "reasoning", "reasoning": message["reasoning_content"], "redacted": False}]
    for call in message.get("tool_calls", []):
        name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
        found.setdefault("tool_calls", []).append(
            {"id": call["id"], "function": name, "arguments": arguments, "type": "function"}
        )
    if message["role"] == "tool":
        found |= {"tool_call_id": message["tool_call_id"], "function": "get_order"}
        if LOST in message["content"]:
            found |= {"content": "", "error": {"type": "unknown", "message": LOST}}
    return found


def sample(number: int = 1, **more: object) -> Value:
    messages = [inspect_message(message) for message in chat()]
    messages[1]["content"] = "attachment://abc"
    tools = [{"name": name, "description": "", "parameters": schema} for name, schema in SCHEMAS.items()]
    found: Value = {
        "id": f"s{number}",
        "epoch": 1,
        "input": "attachment://abc",
        "target": "cancelled",
        "messages": messages,
        "attachments": {"abc": ASKED[0]},
        "output": {"model": "m", "choices": []},
        "scores": {"match": {"value": "C", "answer": "yes", "explanation": "same", "history": []}},
        "metadata": {"kind": "easy"},
        "events": [{"event": "model", "tools": tools}, {"event": "state"}],
        "started_at": "2026-01-01T00:00:00+00:00",
        "completed_at": "2026-01-01T00:00:02+00:00",
        "uuid": "u",
    }
    return found | more


HEADER = {"version": 2, "status": "success", "eval": {"task": "orders", "model": "openai/gpt", "run_id": "r"}}


def zstd_zip(path: Path, members: dict[str, bytes]) -> None:
    """A zip whose members are compressed by zstd, as Inspect writes them: Python's zipfile cannot."""
    out, directory = io.BytesIO(), io.BytesIO()
    for name, data in members.items():
        packed, at = zstandard.compress(data), out.tell()
        sizes = struct.pack("<LLLHH", zlib.crc32(data), len(packed), len(data), len(name.encode()), 0)
        out.write(b"PK\x03\x04" + struct.pack("<HHHHH", 20, 0, 93, 0, 0) + sizes + name.encode() + packed)
        directory.write(b"PK\x01\x02" + struct.pack("<HHHHHH", 20, 20, 0, 93, 0, 0) + sizes)
        directory.write(struct.pack("<HHHLL", 0, 0, 0, 0, at) + name.encode())
    body, listed = out.getvalue(), directory.getvalue()
    end = struct.pack("<HHHHLLH", 0, 0, len(members), len(members), len(listed), len(body), 0)
    path.write_bytes(body + listed + b"PK\x05\x06" + end)


def check_inspect(row: Value) -> None:
    expect(row)
    meta = row["meta"]
    assert (meta["reward"], meta["scores"], meta["model"]) == (1.0, {"match": "C"}, "openai/gpt")
    assert (meta["sample_id"], meta["epoch"], meta["target"], meta["seconds"]) == ("s1", 1, "cancelled", 2.0)
    assert row["id"] == "orders-s1-1" and row["source"] == "inspect:orders"
    assert meta["import"]["kept"]["scores.match.explanation"] == "same"


def test_inspect_json(tmp_path: Path) -> None:
    (tmp_path / "log.json").write_text(json.dumps({**HEADER, "samples": [sample()], "reductions": []}, indent=2))
    found = run(tmp_path, str(tmp_path / "log.json"))
    check_inspect(found.row)
    assert found.told["path"] == "samples[0]"


@pytest.mark.parametrize("zstd", [True, False])
def test_inspect_eval(tmp_path: Path, zstd: bool) -> None:
    members = {
        "_journal/start.json": b'{"version": 2}',
        "samples/s1_epoch_1.json": json.dumps(sample()).encode(),
        "summaries.json": b"[]",
        "header.json": json.dumps(HEADER).encode(),
    }
    path = tmp_path / "log.eval"
    if zstd:
        zstd_zip(path, members)
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
    found = run(tmp_path, str(path))
    check_inspect(found.row)
    assert found.told["path"] == "samples/s1_epoch_1.json"


def test_a_torn_eval_is_told(tmp_path: Path) -> None:
    zstd_zip(tmp_path / "log.eval", {"samples/a.json": json.dumps(sample()).encode(), "header.json": b"{}"})
    data = (tmp_path / "log.eval").read_bytes()
    (tmp_path / "log.eval").write_bytes(data[:200])
    with pytest.raises(DataError, match="the archive is damaged"):
        run(tmp_path, str(tmp_path / "log.eval"))


def test_a_damaged_sample_does_not_stop_the_others(tmp_path: Path) -> None:
    zstd_zip(
        tmp_path / "log.eval",
        {"samples/a.json": json.dumps(sample(1)).encode(), "samples/b.json": json.dumps(sample(2)).encode()},
    )
    data = bytearray((tmp_path / "log.eval").read_bytes())
    data[60:90] = b"x" * 30
    (tmp_path / "log.eval").write_bytes(data)
    found = run(tmp_path, str(tmp_path / "log.eval"))
    assert found.row["meta"]["sample_id"] == "s2" and found.rejected[0]["path"] == "samples/a.json"


def test_inspect_scores_of_every_kind(tmp_path: Path) -> None:
    scores = {"a": {"value": 0.5}, "b": {"value": {"x": 1, "y": "I"}}, "c": {"value": [1, 2]}}
    found = read(tmp_path, sample(scores=scores))
    assert found.row["meta"]["scores"] == {"a": 0.5, "b.x": 1, "b.y": "I"}
    assert "reward" not in found.row["meta"] and found.told["kept"]["scores.c.value"] == [1, 2]


def test_an_inspect_sample_that_failed_before_it_spoke_is_rejected(tmp_path: Path) -> None:
    found = read(tmp_path, sample(1), sample(2, messages=[], error={"message": "no key"}))
    assert found.rejected[0]["reason"] == "the sample has no messages; it failed: no key"


def tau_run(number: int = 0, **more: object) -> Value:
    task = {"user_id": "u", "instruction": "Cancel A1.", "actions": [{"name": "cancel_order", "kwargs": {}}]}
    traj = [*chat(), {"role": "user", "content": "Thanks! ###STOP###"}]
    return {"task_id": number, "trial": 1, "reward": 1.0, "info": {"task": task, "user_cost": 0.1}, "traj": traj} | more


def test_tau_bench(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps([tau_run(0), tau_run(1, reward=0.0)], indent=2))
    found = run(tmp_path, str(tmp_path / "results.json"))
    assert [row["id"] for row in found.rows] == ["tau-0-1", "tau-1-1"]
    assert [row["meta"]["reward"] for row in found.rows] == [1.0, 0.0]
    first = found.rows[0]
    expect(first, given=False)
    assert first["meta"]["instruction"] == "Cancel A1." and first["source"] == "tau-bench"
    assert first["meta"]["import"]["kept"]["task"]["actions"] == [{"name": "cancel_order", "kwargs": {}}]
    assert any("ends the simulation" in note["what"] for note in first["meta"]["import"]["made"])


def test_tau2(tmp_path: Path) -> None:
    messages: list[Value] = [{"role": "assistant", "content": "Hi! How can I help?", "turn_idx": 0}]
    for message in chat()[1:]:
        found = {"role": message["role"], "content": message["content"], "timestamp": "t", "cost": 0.0}
        for call in message.get("tool_calls", []):
            function = {"name": call["function"]["name"], "arguments": json.loads(call["function"]["arguments"])}
            found.setdefault("tool_calls", []).append({"id": call["id"], **function, "requestor": "assistant"})
        if message["role"] == "tool":
            bad = LOST in message["content"]
            found |= {
                "id": message["tool_call_id"],
                "requestor": "assistant",
                "error": bad,
                "content": LOST if bad else message["content"],
            }
        messages.append(found)
    parallel = {"role": "tool", "tool_messages": messages[3:5]}
    mine = [
        {
            "role": "user",
            "content": None,
            "tool_calls": [{"id": "x", "name": "reboot", "arguments": {}, "requestor": "user"}],
        },
        {"role": "tool", "id": "x", "content": "rebooted", "requestor": "user", "error": False},
    ]
    messages = [*messages[:3], parallel, messages[5], *mine, *messages[6:], {"role": "user", "content": "###STOP###"}]
    judged = {
        "reward": 0.0,
        "reward_breakdown": {"DB": 0.0, "COMMUNICATE": 1.0},
        "db_check": {"db_match": False, "db_reward": 0.0},
    }
    signatures = {
        name: {"name": name, "doc": name, "params": schema, "returns": {}} for name, schema in SCHEMAS.items()
    }
    document = {
        "timestamp": "t",
        "info": {
            "environment_info": {"domain_name": "shop", "policy": SYSTEM, "tool_defs": signatures},
            "agent_info": {"llm": "gpt"},
        },
        "tasks": [{"id": "7", "description": {"purpose": "cancel"}}],
        "simulations": [
            {
                "id": "sim",
                "task_id": "7",
                "trial": 2,
                "seed": 1,
                "termination_reason": "user_stop",
                "reward_info": judged,
                "messages": messages,
            }
        ],
    }
    (tmp_path / "tau2.json").write_text(json.dumps(document, indent=2))
    found_run = run(tmp_path, str(tmp_path / "tau2.json"))
    expect(found_run.row, thinking=False)
    meta = found_run.row["meta"]
    assert found_run.row["id"] == "tau-shop-7-2" and found_run.dialogue.opening[0].reply == "Hi! How can I help?"
    assert (meta["reward"], meta["scores"], meta["ended"]) == (0.0, {"DB": 0.0, "COMMUNICATE": 1.0}, "user_stop")
    assert found_run.told["kept"]["task"]["description"] == {"purpose": "cancel"}
    said = [note["what"] for note in found_run.told["unmapped"]]
    assert any("the user called a tool of its own" in what for what in said) and any(
        "rebooted" in what for what in said
    )


def sharegpt() -> list[Value]:
    calls = [
        {"name": name, "arguments": arguments}
        for name, arguments in zip(("get_order", "get_order", "cancel_order"), ARGUMENTS, strict=True)
    ]
    return [
        {"from": "human", "value": ASKED[0]},
        {"from": "function_call", "value": json.dumps(calls[:2])},
        {"from": "observation", "value": FOUND},
        {"from": "observation", "value": f"Error: {LOST}"},
        {"from": "gpt", "value": REPLIES[0]},
        {"from": "human", "value": ASKED[1]},
        {"from": "function_call", "value": json.dumps(calls[2])},
        {"from": "observation", "value": DONE},
        {"from": "gpt", "value": REPLIES[1]},
    ]


def test_sharegpt_with_speakers_for_tools(tmp_path: Path) -> None:
    tools = json.dumps([{"name": name, "description": "", "parameters": schema} for name, schema in SCHEMAS.items()])
    found = read(tmp_path, {"id": 5, "system": SYSTEM, "tools": tools, "conversations": sharegpt(), "quality": 4})
    expect(found.row, thinking=False, beside=False)
    assert found.row["id"] == "5" and found.told["format"] == "huggingface" and found.told["kept"] == {"quality": 4}


def test_sharegpt_with_tags(tmp_path: Path) -> None:
    def tag(number: int, name: str) -> str:
        return f"<tool_call>\n{json.dumps({'name': name, 'arguments': ARGUMENTS[number]})}\n</tool_call>"

    def answer(text: str) -> str:
        return f"<tool_response>\n{text}\n</tool_response>"

    tools = [{"name": name, "parameters": schema} for name, schema in SCHEMAS.items()]
    system = f"{SYSTEM}<tools>{json.dumps(tools)}</tools>"
    conversation = [
        {"from": "system", "value": system},
        {"from": "human", "value": ASKED[0]},
        {"from": "gpt", "value": f"<think>\n{THOUGHT}\n</think>\n{tag(0, 'get_order')}\n{tag(1, 'get_order')}"},
        {"from": "tool", "value": f"{answer(FOUND)}{answer(f'Error: {LOST}')}"},
        {"from": "gpt", "value": REPLIES[0]},
        {"from": "human", "value": ASKED[1]},
        {"from": "gpt", "value": f"One moment.\n{tag(2, 'cancel_order')}"},
        {"from": "tool", "value": answer(DONE)},
        {"from": "gpt", "value": REPLIES[1]},
    ]
    found = read(tmp_path, {"id": "h", "conversations": conversation})
    assert found.dialogue.system == system
    found.row["messages"][0]["content"] = SYSTEM
    expect(found.row)


def test_messages_as_text_and_nemotron(tmp_path: Path) -> None:
    rows = [
        {"uuid": "a", "messages": json.dumps(chat()), "available_tools": json.dumps(CHAT_TOOLS)},
        {"uuid": "b", "messages": chat(), "metadata": json.dumps({"tools": CHAT_TOOLS})},
    ]
    found = read(tmp_path, *rows)
    assert [row["id"] for row in found.rows] == ["a", "b"]
    for row in found.rows:
        expect(row)


def test_preferences_are_two_dialogues(tmp_path: Path) -> None:
    row = {
        "id": "p",
        "prompt": [{"role": "user", "content": "Hi"}],
        "chosen": [{"role": "assistant", "content": "Hello!"}],
        "rejected": "No.",
        "score_chosen": 9,
    }
    found = read(tmp_path, row)
    assert [(one["id"], one["meta"]["preference"], one["messages"][-1]["content"]) for one in found.rows] == [
        ("p#chosen", "chosen", "Hello!"),
        ("p#rejected", "rejected", "No."),
    ]
    assert found.summary.used == 1 and found.summary.dialogues == 2


def test_questions_and_answers(tmp_path: Path) -> None:
    rows = [
        {"id": "1", "instruction": "Add.", "input": "1 2", "output": "3", "history": [["Hi", "Hello"]]},
        {"id": "2", "prompt": "Add 1 2.", "completion": "3"},
        {"id": "3", "question": "?", "answer": "!", "system_prompt": "Short."},
    ]
    found = read(tmp_path, *rows)
    assert [[message["content"] for message in row["messages"]] for row in found.rows] == [
        ["Hi", "Hello", "Add.\n\n1 2", "3"],
        ["Add 1 2.", "3"],
        ["Short.", "?", "!"],
    ]


def test_mcp_results_inside_other_logs_are_opened(tmp_path: Path) -> None:
    messages = chat()
    messages[3]["content"] = json.dumps(
        {"content": [{"type": "text", "text": FOUND}], "structuredContent": {"status": "open"}, "isError": False}
    )
    messages[4]["content"] = {"content": [{"type": "text", "text": LOST}], "isError": True}
    messages[8]["content"] = {"content": [], "structuredContent": json.loads(DONE)}
    found = read(tmp_path, {"id": "m", "messages": messages, "tools": CHAT_TOOLS})
    expect(found.row)
    assert found.told["kept"] == {"messages[3].content.structuredContent": {"status": "open"}}
    assert json.loads(found.row["messages"][4]["content"]) == {"error": LOST}


def test_a_result_that_only_looks_like_one_stays_as_it_is(tmp_path: Path) -> None:
    messages = chat()
    messages[3]["content"] = '{"content": "a page", "url": "u"}'
    found = read(tmp_path, {"id": "m", "messages": messages})
    assert found.row["messages"][3]["content"] == '{"content": "a page", "url": "u"}'


def rpc(number: int, call: int | None = None, **more: object) -> Value:
    message: Value = {"jsonrpc": "2.0", "id": number}
    if call is not None:
        name = "cancel_order" if call == 3 else "get_order"
        message |= {"method": "tools/call", "params": {"name": name, "arguments": ARGUMENTS[call - 1]}}
    return message | more


def test_mcp_traffic(tmp_path: Path) -> None:
    listed = [{"name": name, "inputSchema": schema} for name, schema in SCHEMAS.items()]
    log = [
        rpc(0, method="initialize"),
        rpc(1, method="tools/list"),
        rpc(1, result={"tools": listed}),
        rpc(2, 1),
        rpc(3, 2),
        rpc(3, result={"content": [{"type": "text", "text": LOST}], "isError": True}),
        rpc(2, result={"content": [{"type": "text", "text": FOUND}]}),
        rpc(4, 3),
        rpc(4, error={"code": -32000, "message": "down"}),
    ]
    found = read(tmp_path, *({"session_id": "s", "at": 1, "message": one} for one in log))
    steps = found.dialogue.turns[0].steps
    assert [[call.arguments for call in step.calls] for step in steps] == [list(ARGUMENTS[:2]), [ARGUMENTS[2]]]
    assert [[json.loads(answer.content) for answer in step.responses] for step in steps] == [
        [json.loads(FOUND), {"error": LOST}],
        [{"error": "down"}],
    ]
    assert {tool.name: tool.parameters for tool in found.dialogue.tools} == SCHEMAS
    assert found.dialogue.turns[0].user == "(this log has no user messages)"
    assert any("the user message" in note["what"] for note in found.told["made"])


def test_a_bare_mcp_result_belongs_to_no_conversation(tmp_path: Path) -> None:
    found = read(
        tmp_path, {"content": [{"type": "text", "text": "x"}], "isError": False}, {"id": "a", "messages": chat()}
    )
    assert "without the call" in found.rejected[0]["reason"]


def test_an_unknown_speaker_is_rejected_with_those_known(tmp_path: Path) -> None:
    found = read(tmp_path, {"conversations": [{"from": "narrator", "value": "x"}]}, {"id": "a", "messages": chat()})
    assert "from 'narrator'; known are human" in found.rejected[0]["reason"]


def test_a_row_without_a_user_is_rejected(tmp_path: Path) -> None:
    save(tmp_path, {"messages": chat()[:1]})
    found = read(tmp_path, {"id": "no", "messages": [chat()[0], chat()[5]]}, {"id": "a", "messages": chat()})
    assert found.rejected[0]["reason"] == "no message is of the user"
