"""Langfuse and LangSmith: their records, flat or as trees, with scores and feedback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from shop_logs import (
    ARGUMENTS,
    ASKED,
    CHAT_TOOLS,
    FOUND,
    LOST,
    REPLIES,
    Value,
    chat,
    exchanges,
    expect,
    read,
    run,
    save,
)

from cm2.errors import DataError

CLASSES = {"system": "SystemMessage", "user": "HumanMessage", "assistant": "AIMessage", "tool": "ToolMessage"}
KINDS = {"system": "system", "user": "human", "assistant": "ai", "tool": "tool"}


def langchain(message: Value, form: str = "lc", failed: tuple[str, ...] = ()) -> Value:
    """A chat message as LangChain writes it."""
    kind = KINDS[message["role"]]
    inner: Value = {"content": message["content"] or "", "type": kind}
    if message.get("tool_calls"):
        inner["tool_calls"] = [
            {
                "name": c["function"]["name"],
                "args": json.loads(c["function"]["arguments"]),
                "id": c.get("id"),
                "type": "tool_call",
            }
            for c in message["tool_calls"]
        ]
        inner["response_metadata"] = {"token_usage": {"total_tokens": 3}}
    if message["role"] == "tool":
        status = "error" if message["content"] in failed else "success"
        inner |= {"tool_call_id": message.get("tool_call_id"), "status": status}
    if form == "lc":
        return {
            "lc": 1,
            "type": "constructor",
            "id": ["langchain", "schema", "messages", CLASSES[message["role"]]],
            "kwargs": inner,
        }
    return {"type": kind, "data": inner} if form == "data" else inner


def observations() -> list[Value]:
    found = []
    for number, (before, after) in enumerate(exchanges(chat())):
        found.append(
            {
                "id": f"o{number}",
                "traceId": "t1",
                "type": "GENERATION",
                "name": "OpenAI-generation",
                "startTime": f"2026-01-01T00:00:0{number}.000Z",
                "endTime": f"2026-01-01T00:00:0{number}.900Z",
                "model": "gpt",
                "input": {"messages": before, "tools": CHAT_TOOLS},
                "output": after,
                "usageDetails": {"input": 4, "output": 1},
                "level": "DEFAULT",
                "latency": 0.9,
            }
        )
    return found


def trace(**more: Any) -> Value:
    return {
        "id": "t1",
        "timestamp": "2026-01-01T00:00:00Z",
        "name": "agent",
        "sessionId": "s1",
        "userId": "u1",
        "input": {"args": ["?"], "kwargs": {}},
    } | more


SCORES = [
    {"id": "1", "traceId": "t1", "name": "helpful", "value": 0.5, "dataType": "NUMERIC", "comment": "so so"},
    {"id": "2", "traceId": "t1", "name": "solved", "value": 1, "stringValue": "True", "dataType": "BOOLEAN"},
    {
        "id": "3",
        "traceId": "t1",
        "observationId": "o3",
        "name": "tone",
        "value": 0,
        "stringValue": "calm",
        "dataType": "CATEGORICAL",
    },
]


def told(found: Any) -> None:
    expect(found.row)
    meta = found.row["meta"]
    assert meta["scores"] == {"helpful": 0.5, "solved": True, "tone": "calm"}
    assert (meta["session"], meta["user"], meta["model"], meta["tokens"]) == (
        "s1",
        "u1",
        "gpt",
        {"input": 16, "output": 4},
    )
    assert found.row["id"] == "s1" and found.told["format"] == "langfuse"
    assert found.told["kept"]["scores.helpful.comment"] == "so so"


def test_a_langfuse_trace_with_everything_in_it(tmp_path: Path) -> None:
    told(read(tmp_path, trace(observations=observations(), scores=SCORES, htmlPath="/x")))


def test_langfuse_kinds_of_records_in_files_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    save(folder, *observations(), name="observations.jsonl.gz")
    save(folder, *SCORES, name="scores.jsonl")
    save(folder, trace(), name="traces.jsonl")
    found = run(tmp_path, str(folder))
    told(found)
    assert found.summary.files == 3 and found.summary.used == 8


def test_langfuse_snake_case_and_text(tmp_path: Path) -> None:
    names = {"traceId": "trace_id", "startTime": "start_time", "endTime": "end_time", "usageDetails": "usage_details"}
    rows = [{names.get(key, key): value for key, value in one.items()} for one in observations()]
    for row in rows:
        row |= {"input": json.dumps(row["input"]), "output": json.dumps(row["output"])}
    expect(read(tmp_path, *rows).row)


def test_langfuse_pages_of_its_api(tmp_path: Path) -> None:
    (tmp_path / "page.json").write_text(json.dumps({"data": observations(), "meta": {"page": 1}}, indent=1))
    expect(run(tmp_path, str(tmp_path / "page.json")).row)


def test_a_langfuse_session_without_generations_is_one_turn_a_trace(tmp_path: Path) -> None:
    tool = {
        "id": "x",
        "traceId": "t1",
        "type": "TOOL",
        "name": "get_order",
        "startTime": "2026-01-01T00:00:01Z",
        "input": {"args": [], "kwargs": ARGUMENTS[0]},
        "output": FOUND,
    }
    rows = [
        trace(input=ASKED[0], output=REPLIES[0]),
        tool,
        trace(id="t2", timestamp="2026-01-01T00:01:00Z", input={"question": ASKED[1]}, output={"answer": REPLIES[1]}),
    ]
    found = read(tmp_path, *rows)
    assert [turn.user for turn in found.dialogue.turns] == list(ASKED)
    assert [turn.reply for turn in found.dialogue.turns] == list(REPLIES)
    assert [call.name for *_, call, _ in found.dialogue.calls()] == ["get_order"]


def test_a_score_of_a_trace_that_is_not_there_is_rejected(tmp_path: Path) -> None:
    found = read(tmp_path, *observations(), SCORES[0] | {"traceId": "gone"})
    expect(found.row)
    assert "does not hold" in found.rejected[0]["reason"]


def test_a_score_without_a_value_is_said(tmp_path: Path) -> None:
    found = read(
        tmp_path, *observations(), {"id": "9", "traceId": "t1", "name": "empty", "value": None, "dataType": "NUMERIC"}
    )
    assert any("a score without a value: empty" in note["what"] for note in found.told["unmapped"])


def runs(form: str = "openai") -> list[Value]:
    """The runs of one trace: an agent, its calls of a model, its tools."""
    root = {
        "id": "r0",
        "trace_id": "r0",
        "run_type": "chain",
        "name": "agent",
        "inputs": {"q": ASKED[0]},
        "outputs": {"output": REPLIES[1]},
    }
    found: list[Value] = [root | {"start_time": "2026-01-01T00:00:00Z", "end_time": "2026-01-01T00:00:09Z"}]
    messages = chat(error=LOST if form != "openai" else f"Error: {LOST}")
    for number, (before, after) in enumerate(exchanges(messages)):
        run: Value = {
            "id": f"r{number + 1}",
            "trace_id": "r0",
            "parent_run_id": "r0",
            "run_type": "llm",
            "name": "ChatOpenAI",
        }
        run |= {
            "start_time": f"2026-01-01T00:00:0{number + 1}",
            "extra": {"metadata": {"thread_id": "th", "ls_model_name": "gpt", "tier": "gold"}},
        }
        if form == "openai":
            run |= {
                "inputs": {"messages": before, "tools": CHAT_TOOLS, "model": "gpt"},
                "outputs": {"choices": [{"message": after}]},
            }
        else:
            run["inputs"] = {"messages": [[langchain(m, form, (LOST,)) for m in before]]}
            run["outputs"] = {"generations": [[{"text": "", "message": langchain(after, form)}]]}
            run["extra"]["invocation_params"] = {"tools": CHAT_TOOLS}
        found.append(run)
    return found


@pytest.mark.parametrize("form", ["openai", "lc", "data", "plain"])
def test_langsmith_runs(tmp_path: Path, form: str) -> None:
    found = read(tmp_path, *runs(form))
    expect(found.row, thinking=form == "openai")
    assert found.row["id"] == "th" and found.told["records"] == 5 and found.told["format"] == "langsmith"
    assert found.told["kept"]["run[r1].metadata"] == {"thread_id": "th", "tier": "gold"}


def test_langsmith_trees_and_bulk_exports_and_feedback(tmp_path: Path) -> None:
    root, *children = runs()
    tree = root | {
        "child_runs": [
            {key: one for key, one in child.items() if key not in ("trace_id", "parent_run_id")} for child in children
        ]
    }
    tree["feedback_stats"] = {"solved": {"n": 1, "avg": 1.0, "values": {}}}
    feedback = {
        "id": "f",
        "run_id": "r0",
        "trace_id": "r0",
        "key": "tone",
        "score": None,
        "value": "calm",
        "comment": "!",
    }
    found = read(tmp_path, tree, feedback)
    expect(found.row)
    assert found.row["meta"]["scores"] == {"solved": 1.0, "tone": "calm"}
    bulk = [{key: json.dumps(one) if isinstance(one, dict) else one for key, one in run.items()} for run in runs()]
    expect(read(tmp_path, *bulk).row)


def test_feedback_that_names_only_its_run_finds_the_trace(tmp_path: Path) -> None:
    found = read(tmp_path, {"id": "f", "run_id": "r3", "key": "good", "score": True}, *runs())
    assert found.row["meta"]["scores"] == {"good": True}


def test_langsmith_errors_and_tools(tmp_path: Path) -> None:
    values = runs()[:-1]
    values[-1]["outputs"]["choices"][0]["message"]["tool_calls"][0].pop("id")
    tool = {
        "id": "rt",
        "trace_id": "r0",
        "parent_run_id": "r0",
        "run_type": "tool",
        "name": "cancel_order",
        "start_time": "2026-01-01T00:00:08Z",
        "inputs": ARGUMENTS[2],
        "outputs": None,
        "error": "TimeoutError()",
    }
    found = read(tmp_path, *values, tool)
    assert json.loads(found.row["messages"][-1]["content"]) == {"error": "TimeoutError()"}


def test_a_call_that_cannot_be_read_leaves_the_rest_of_its_trace(tmp_path: Path) -> None:
    values = observations()
    values[2]["input"] = {"messages": [7]}
    broken = values[0] | {"id": "o9", "traceId": "t9", "input": {"messages": [{"role": "narrator", "content": ""}]}}
    found = read(tmp_path, *values, broken)
    expect(found.row)
    assert any("cannot be read: the message at" in note["what"] for note in found.told["unmapped"])
    assert "narrator" in found.rejected[0]["reason"]


def test_an_input_that_is_no_message_stands_as_it_is(tmp_path: Path) -> None:
    root = {"trace_id": "r", "run_type": "chain", "outputs": {"output": "Done."}}
    found = read(
        tmp_path,
        root | {"id": "r", "inputs": {"topic": "orders"}},
        root | {"id": "s", "trace_id": "s", "inputs": {"a": 1, "b": "x"}},
    )
    assert [row["messages"][0]["content"] for row in found.rows] == ["orders", '{"a":1,"b":"x"}']


def test_a_trace_that_holds_no_message_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of its 2 records"):
        read(
            tmp_path,
            {"id": "r", "run_type": "chain", "inputs": {}, "outputs": {}},
            {"id": "x", "trace_id": "r", "run_type": "llm", "inputs": {}, "outputs": {}},
        )
