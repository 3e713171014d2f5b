"""Spans: OpenTelemetry's GenAI conventions in every form, OpenInference, Phoenix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shop_logs import (
    ARGUMENTS,
    ASKED,
    CHAT_TOOLS,
    DONE,
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
from cm2.imports.spans import nested, read_span, typed

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
START = 1_767_225_600_000_000_000


def part(message: Value) -> Value:
    """A chat message in the form of the conventions since 1.37."""
    if message["role"] == "tool":
        return {
            "role": "tool",
            "parts": [{"type": "tool_call_response", "id": message["tool_call_id"], "response": message["content"]}],
        }
    parts: list[Value] = []
    if message.get("reasoning_content"):
        parts.append({"type": "reasoning", "content": message["reasoning_content"]})
    if message["content"]:
        parts.append({"type": "text", "content": message["content"]})
    for call in message.get("tool_calls", []):
        name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
        parts.append({"type": "tool_call", "id": call["id"], "name": name, "arguments": arguments})
    return {"role": message["role"], "parts": parts}


def any_value(value: Any) -> Value:
    """A JSON value as OTLP writes it."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [any_value(one) for one in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": [{"key": key, "value": any_value(one)} for key, one in value.items()]}}
    return {} if value is None else {"stringValue": value}


def attributes(values: Value) -> list[Value]:
    return [{"key": key, "value": any_value(value)} for key, value in values.items()]


def otlp(number: int, values: Value, name: str = "chat m", trace: str = TRACE, **more: Any) -> Value:
    """A line of the OTLP file exporter with one span."""
    span = {"traceId": trace, "spanId": f"{number:016x}", "name": name, "attributes": attributes(values)}
    span |= {
        "startTimeUnixNano": str(START + number),
        "endTimeUnixNano": str(START + number + 10**9),
        "status": {},
    } | more
    return {
        "resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [{"scope": {"name": "s"}, "spans": [span]}]}]
    }


def console(number: int, values: Value, name: str = "chat m", **more: Any) -> Value:
    """A span as the SDK's own to_json has it."""
    return {
        "name": name,
        "context": {"trace_id": f"0x{TRACE}", "span_id": f"0x{number:016x}", "trace_state": "[]"},
        "parent_id": None,
        "start_time": f"2026-01-01T00:00:{number:02d}.000000Z",
        "end_time": f"2026-01-01T00:00:{number:02d}.500000Z",
        "status": {"status_code": "UNSET"},
        "attributes": values,
        "events": [],
    } | more


def tool_span(number: int, call: int, text: str, **more: Any) -> Value:
    names = {1: "get_order", 2: "get_order", 3: "cancel_order"}
    values = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": names[call],
        "gen_ai.tool.call.id": f"call_{call}",
        "gen_ai.tool.call.arguments": json.dumps(ARGUMENTS[call - 1]),
        "gen_ai.tool.call.result": text,
    }
    return otlp(number, values, "execute_tool", **more)


def genai(form: str = "json") -> list[Value]:
    """The attributes of each call of the model; `form` is JSON text or structured values."""
    written = json.dumps if form == "json" else lambda value: value
    found = []
    for before, after in exchanges(chat()):
        system = [{"type": "text", "content": message["content"]} for message in before if message["role"] == "system"]
        found.append(
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.request.model": "gpt",
                "gen_ai.conversation.id": "conv-1",
                "gen_ai.system_instructions": written(system),
                "gen_ai.input.messages": written([part(message) for message in before if message["role"] != "system"]),
                "gen_ai.output.messages": written([part(after) | {"finish_reason": "stop"}]),
                "gen_ai.tool.definitions": written([{"type": "function", **tool["function"]} for tool in CHAT_TOOLS]),
                "gen_ai.usage.input_tokens": 7,
                "gen_ai.usage.output_tokens": 2,
            }
        )
    return found


@pytest.mark.parametrize("form", ["json", "structured"])
@pytest.mark.parametrize("writer", [otlp, console])
def test_messages_in_attributes(tmp_path: Path, form: str, writer: Any) -> None:
    found = read(tmp_path, *(writer(number, values) for number, values in enumerate(genai(form))))
    expect(found.row)
    assert found.row["id"] == "conv-1" and found.told["records"] == 4
    assert found.row["meta"]["tokens"] == {"input": 28, "output": 8} and found.row["meta"]["model"] == "gpt"
    assert found.row["meta"]["started"] == "2026-01-01T00:00:00Z"


def test_the_order_of_the_file_does_not_matter(tmp_path: Path) -> None:
    spans = [otlp(number, values) for number, values in enumerate(genai())]
    expect(read(tmp_path, *reversed(spans)).row)


def test_one_request_with_all_spans_is_the_same(tmp_path: Path) -> None:
    spans = [
        otlp(number, values)["resourceSpans"][0]["scopeSpans"][0]["spans"][0] for number, values in enumerate(genai())
    ]
    (tmp_path / "one.json").write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}, indent=2))
    expect(run(tmp_path, str(tmp_path / "one.json")).row)


def test_messages_on_the_details_event(tmp_path: Path) -> None:
    name = "gen_ai.client.inference.operation.details"
    spans, logs = [], []
    for number, values in enumerate(genai("structured")):
        spans.append(otlp(number, {"gen_ai.operation.name": "chat"}))
        record = {"traceId": TRACE, "spanId": f"{number:016x}", "eventName": name, "attributes": attributes(values)}
        logs.append(
            {
                "resourceLogs": [
                    {"scopeLogs": [{"logRecords": [record | {"observedTimeUnixNano": str(START + number)}]}]}
                ]
            }
        )
    found = run(tmp_path, save(tmp_path, *spans, name="spans.jsonl"), save(tmp_path, *logs, name="logs.jsonl"))
    expect(found.row)
    assert found.summary.read == 8 == found.summary.used


def message_events(before: list[Value], after: Value) -> list[tuple[str, Value]]:
    """The events of one call, as the conventions of 1.28 to 1.36 had them."""
    names = {
        "system": "gen_ai.system.message",
        "user": "gen_ai.user.message",
        "assistant": "gen_ai.assistant.message",
        "tool": "gen_ai.tool.message",
    }
    found: list[tuple[str, Value]] = []
    for message in before:
        body = {key: message[key] for key in ("content", "tool_calls") if message.get(key)}
        if message["role"] == "assistant" and message.get("tool_calls"):
            body.pop("content", None)  # the instrumentation leaves the text beside calls out
        if message["role"] == "tool":
            body["id"] = message["tool_call_id"]
        found.append((names[message["role"]], body))
    message = {key: after[key] for key in ("role", "content", "tool_calls") if after.get(key)}
    return [*found, ("gen_ai.choice", {"index": 0, "finish_reason": "stop", "message": message})]


def test_one_log_record_a_message(tmp_path: Path) -> None:
    records = []
    for number, (before, after) in enumerate(exchanges(chat())):
        for order, (name, body) in enumerate(message_events(before, after)):
            record = {"traceId": TRACE, "spanId": f"{number:016x}", "eventName": name, "body": any_value(body)}
            record["observedTimeUnixNano"] = str(START + number * 1000 + order)
            records.append({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]})
    expect(read(tmp_path, *records).row, thinking=False, given=False)


def test_one_span_event_a_message(tmp_path: Path) -> None:
    spans = []
    for number, (before, after) in enumerate(exchanges(chat())):
        events = [
            {
                "name": name,
                "timeUnixNano": str(START + i),
                "attributes": attributes({"gen_ai.event.content": json.dumps(body)}),
            }
            for i, (name, body) in enumerate(message_events(before, after))
        ]
        spans.append(otlp(number, {"gen_ai.operation.name": "chat"}, events=events))
    expect(read(tmp_path, *spans).row, thinking=False, given=False)


def indexed(prefix: str, messages: list[Value]) -> Value:
    """One attribute a field, as OpenLLMetry wrote them."""
    found: Value = {}
    for i, message in enumerate(messages):
        found |= {f"{prefix}.{i}.role": message["role"], f"{prefix}.{i}.content": message["content"] or ""}
        if "tool_call_id" in message:
            found[f"{prefix}.{i}.tool_call_id"] = message["tool_call_id"]
        for j, call in enumerate(message.get("tool_calls", [])):
            inner = f"{prefix}.{i}.tool_calls.{j}"
            found |= {
                f"{inner}.id": call["id"],
                f"{inner}.name": call["function"]["name"],
                f"{inner}.arguments": call["function"]["arguments"],
            }
    return found


def test_one_attribute_a_field(tmp_path: Path) -> None:
    spans = []
    for number, (before, after) in enumerate(exchanges(chat())):
        values = {
            "llm.request.type": "chat",
            **indexed("gen_ai.prompt", before),
            **indexed("gen_ai.completion", [after]),
        }
        for i, tool in enumerate(CHAT_TOOLS):
            function = tool["function"]
            values |= {
                f"llm.request.functions.{i}.name": function["name"],
                f"llm.request.functions.{i}.parameters": json.dumps(function["parameters"]),
            }
        spans.append(otlp(number, values))
    expect(read(tmp_path, *spans).row, thinking=False)


def test_vercel_spans(tmp_path: Path) -> None:
    spans = []
    for number, (before, after) in enumerate(exchanges(chat())):
        calls = [
            {"toolCallId": c["id"], "toolName": c["function"]["name"], "input": c["function"]["arguments"]}
            for c in after.get("tool_calls", [])
        ]
        values = {
            "ai.prompt.messages": json.dumps([vercel(m) for m in before]),
            "ai.response.text": after["content"] or "",
        }
        spans.append(otlp(number, values | ({"ai.response.toolCalls": json.dumps(calls)} if calls else {})))
    expect(read(tmp_path, *spans).row, thinking=False, given=False)


def vercel(message: Value) -> Value:
    if message["role"] == "tool":
        inner = {
            "type": "tool-result",
            "toolCallId": message["tool_call_id"],
            "output": {"type": "text", "value": message["content"]},
        }
        inner["output"] = message["content"]
        return {"role": "tool", "content": [inner]}
    parts: list[Value] = [{"type": "text", "text": message["content"]}] if message["content"] else []
    for call in message.get("tool_calls", []):
        parts.append(
            {
                "type": "tool-call",
                "toolCallId": call["id"],
                "toolName": call["function"]["name"],
                "input": json.loads(call["function"]["arguments"]),
            }
        )
    return {"role": message["role"], "content": message["content"] if message["role"] == "system" else parts}


def test_a_tool_that_failed_is_an_error_even_where_its_text_is_none(tmp_path: Path) -> None:
    told = [otlp(number, values) for number, values in enumerate(with_error(LOST))]
    failed = {"code": 2, "message": "KeyError"}
    found = read(tmp_path, *told, tool_span(20, 1, FOUND), tool_span(21, 2, LOST, status=failed))
    expect(found.row)
    assert json.loads(found.row["messages"][4]["content"]) == {"error": LOST}


def with_error(text: str) -> list[Value]:
    found = genai()
    for values in found:
        values["gen_ai.input.messages"] = values["gen_ai.input.messages"].replace(f"Error: {LOST}", text)
    return found


def test_the_last_calls_are_answered_by_the_tools_own_spans(tmp_path: Path) -> None:
    spans = [otlp(number, values) for number, values in enumerate(genai()[:3])]
    found = read(tmp_path, *spans, tool_span(20, 3, DONE))
    assert found.row["messages"][-1] == {"role": "tool", "content": DONE, "tool_call_id": "call_3"}
    assert any("tool's own record" in note["what"] for note in found.told["made"])


def test_spans_of_other_things_are_aside(tmp_path: Path) -> None:
    spans = [otlp(number, values) for number, values in enumerate(genai())]
    found = read(
        tmp_path, *spans, otlp(90, {"http.request.method": "GET"}, "GET"), otlp(91, {"db.system": "x"}, trace="b" * 32)
    )
    expect(found.row)
    assert found.summary.asides == {"a span that is about no model, tool or agent": 2}


def test_what_the_application_wrote_is_kept_and_the_conventions_rest_is_named(tmp_path: Path) -> None:
    calls = genai()
    for values in calls:
        values |= {"shop.tenant": "north", "server.port": 443, "gen_ai.request.temperature": 0.5}
    spans = [otlp(number, values) for number, values in enumerate(calls)]
    for line in spans:
        resource = {"service.name": "shop", "telemetry.sdk.language": "python"}
        line["resourceSpans"][0]["resource"]["attributes"] = attributes(resource)
    found = read(tmp_path, *spans)
    expect(found.row)
    assert found.told["kept"] == {
        f"span[{0:016x}].attributes.shop": {"tenant": "north"},
        "resource": {"service": {"name": "shop"}},
    }
    assert {"span[].attributes.server.port", "span[].attributes.gen_ai.request"} <= set(found.told["left"])


def test_calls_without_contents_say_how_to_record_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"):
        read(tmp_path, otlp(1, {"gen_ai.operation.name": "chat"}))
    assert "recorded without their messages" in (tmp_path / "out.jsonl.rejected.jsonl").read_text()


def test_evaluations_are_scores(tmp_path: Path) -> None:
    event = {
        "name": "gen_ai.evaluation.result",
        "attributes": attributes(
            {
                "gen_ai.evaluation.name": "faithful",
                "gen_ai.evaluation.score.value": 0.5,
                "gen_ai.evaluation.explanation": "half",
            }
        ),
    }
    spans = [otlp(number, values, events=[event] if number == 3 else []) for number, values in enumerate(genai())]
    found = read(tmp_path, *spans)
    assert found.row["meta"]["scores"] == {"faithful": 0.5}
    assert found.told["kept"]["scores.faithful.comment"] == "half" and found.summary.scored == 1


def test_another_system_message_does_not_divide_the_conversation(tmp_path: Path) -> None:
    calls = genai()
    calls[3]["gen_ai.system_instructions"] = json.dumps([{"type": "text", "content": "It is 12:01."}])
    found = read(tmp_path, *(otlp(number, values) for number, values in enumerate(calls)))
    expect(found.row)
    assert "It is 12:01." in found.told["kept"].values()
    assert any("another system message" in note["what"] for note in found.told["unmapped"])


def test_a_forgetful_agent_goes_on_with_its_conversation(tmp_path: Path) -> None:
    whole = [part(message) for message in chat()]
    values = [
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.input.messages": json.dumps(before),
            "gen_ai.output.messages": json.dumps([after]),
        }
        for before, after in (
            (whole[:2], whole[2]),
            (whole[:5], whole[5]),
            (whole[:7], whole[7]),
            (whole[5:9], whole[9]),
        )
    ]
    found = read(tmp_path, *(otlp(number, one) for number, one in enumerate(values)))
    expect(found.row, given=False)
    assert any("repeats only the last 3 messages" in note["what"] for note in found.told["made"])


def test_traces_of_one_session_are_one_conversation(tmp_path: Path) -> None:
    calls = genai()
    traces = ["a" * 32, "a" * 32, "b" * 32, "b" * 32]
    found = read(
        tmp_path, *(otlp(i, values, trace=trace) for i, (values, trace) in enumerate(zip(calls, traces, strict=True)))
    )
    expect(found.row)
    assert found.row["meta"]["traces"] == ["a" * 32, "b" * 32]
    for values in calls:
        del values["gen_ai.conversation.id"]
    apart = read(
        tmp_path, *(otlp(i, values, trace=trace) for i, (values, trace) in enumerate(zip(calls, traces, strict=True)))
    )
    assert [row["id"] for row in apart.rows] == ["a" * 32, "b" * 32]


def test_the_same_call_seen_by_two_tracers_is_one(tmp_path: Path) -> None:
    spans = [otlp(number, values) for number, values in enumerate(genai())]
    again = [otlp(number + 40, values) for number, values in enumerate(genai())]
    expect(read(tmp_path, *spans, *again, *spans).row)


def oi_message(message: Value) -> Value:
    found: Value = {"message.role": message["role"]}
    if message["content"]:
        found["message.content"] = message["content"]
    if "tool_call_id" in message:
        found["message.tool_call_id"] = message["tool_call_id"]
    calls = [
        {
            "tool_call.id": c["id"],
            "tool_call.function.name": c["function"]["name"],
            "tool_call.function.arguments": c["function"]["arguments"],
        }
        for c in message.get("tool_calls", [])
    ]
    if message.get("reasoning_content"):
        found["message.contents"] = [
            {"message_content.type": "reasoning", "message_content.text": message["reasoning_content"]}
        ]
    return found | ({"message.tool_calls": calls} if calls else {})


def flat(prefix: str, value: Any) -> Value:
    """Attributes of OpenInference as OpenTelemetry can hold them: one a field."""
    if isinstance(value, list):
        return {key: one for i, inner in enumerate(value) for key, one in flat(f"{prefix}.{i}", inner).items()}
    if isinstance(value, dict):
        return {key: one for name, inner in value.items() for key, one in flat(f"{prefix}.{name}", inner).items()}
    return {prefix: value}


def openinference(raw: bool, listed: bool = False) -> list[Value]:
    """The attributes of each call; `raw` with what was sent, `listed` as Phoenix has them in columns."""
    found = []
    for before, after in exchanges(chat()):
        messages = {"llm.input_messages": [oi_message(m) for m in before], "llm.output_messages": [oi_message(after)]}
        tools = [{"tool.json_schema": json.dumps(tool)} for tool in CHAT_TOOLS]
        values: Value = {
            "openinference.span.kind": "LLM",
            "llm.model_name": "gpt",
            "llm.token_count.prompt": 5,
            "session.id": "s-1",
        }
        for name, value in {**messages, "llm.tools": tools}.items():
            values |= {name: value} if listed else flat(name, value)
        if raw:
            values["input.value"] = json.dumps({"model": "gpt", "messages": before, "tools": CHAT_TOOLS})
            values["output.value"] = json.dumps({"id": "x", "choices": [{"index": 0, "message": after}]})
        found.append(values)
    return found


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("writer", [otlp, console])
def test_openinference(tmp_path: Path, raw: bool, writer: Any) -> None:
    found = read(
        tmp_path, *(writer(number, values, "ChatCompletion") for number, values in enumerate(openinference(raw)))
    )
    expect(found.row)
    assert found.told["format"] == "openinference" and found.row["meta"]["tokens"]["input"] == 20


def test_openinference_of_langchain(tmp_path: Path) -> None:
    from test_import_tracers import langchain

    spans = []
    for number, (before, after) in enumerate(exchanges(chat(error=LOST))):
        values = {
            "openinference.span.kind": "LLM",
            "input.value": json.dumps({"messages": [[langchain(m, failed=(LOST,)) for m in before]]}),
            "output.value": json.dumps(
                {"generations": [[{"text": "", "message": langchain(after)}]], "type": "LLMResult"}
            ),
            "llm.invocation_parameters": json.dumps({"model": "gpt", "tools": CHAT_TOOLS}),
        }
        spans.append(otlp(number, values))
    expect(read(tmp_path, *spans).row, thinking=False)


def phoenix(number: int, values: Value, kind: str = "LLM") -> Value:
    """A row of the data frame of spans."""
    row: Value = {
        "name": "ChatCompletion",
        "span_kind": kind,
        "parent_id": None,
        "status_code": "OK",
        "status_message": "",
        "events": [],
    }
    row |= {"start_time": 1_767_225_600_000 + number, "end_time": 1_767_225_600_100 + number}
    row |= {"context.span_id": f"{number:016x}", "context.trace_id": TRACE}
    return row | {f"attributes.{key}": value for key, value in values.items()}


def test_phoenix_rows_and_their_annotations(tmp_path: Path) -> None:
    spans = [phoenix(number, values) for number, values in enumerate(openinference(raw=False, listed=True))]
    note = {
        "span_id": f"{3:016x}",
        "annotation_name": "helpful",
        "annotator_kind": "HUMAN",
        "result.label": "yes",
        "result.score": 1.0,
        "result.explanation": "clear",
    }
    found = run(tmp_path, save(tmp_path, *spans, name="spans.jsonl"), save(tmp_path, note, name="annotations.jsonl"))
    expect(found.row)
    assert found.told["format"] == "phoenix" and found.row["meta"]["scores"] == {"helpful": 1.0}


def test_phoenix_parquet(tmp_path: Path) -> None:
    rows = [phoenix(number, values) for number, values in enumerate(openinference(raw=False, listed=True))]
    table = pa.Table.from_pylist(rows)
    times = pa.array([START + i * 1_000_003 for i in range(4)], pa.timestamp("ns", "UTC"))
    table = table.set_column(table.schema.get_field_index("start_time"), "start_time", times)
    pq.write_table(table, tmp_path / "spans.parquet")
    expect(run(tmp_path, str(tmp_path / "spans.parquet")).row)


def test_phoenix_pages_of_its_api(tmp_path: Path) -> None:
    data = []
    for number, values in enumerate(openinference(raw=True)):
        del values["openinference.span.kind"]  # the API tells it beside the attributes
        context = {"trace_id": TRACE, "span_id": f"{number:016x}"}
        data.append(
            {
                "id": "x",
                "name": "c",
                "context": context,
                "span_kind": "LLM",
                "start_time": f"2026-01-01T00:00:0{number}Z",
                "attributes": values,
            }
        )
    (tmp_path / "page.json").write_text(json.dumps({"data": data, "next_cursor": None}))
    expect(run(tmp_path, str(tmp_path / "page.json")).row)


def test_an_agents_run_without_calls_of_models_is_its_input_and_output(tmp_path: Path) -> None:
    agent = {"openinference.span.kind": "AGENT", "input.value": ASKED[0], "output.value": REPLIES[0]}
    tool = {
        "openinference.span.kind": "TOOL",
        "tool.name": "get_order",
        "input.value": json.dumps(ARGUMENTS[0]),
        "output.value": FOUND,
    }
    spans = [otlp(1, agent), otlp(2, tool, parentSpanId=f"{1:016x}")]
    found = read(tmp_path, *spans)
    assert [message["role"] for message in found.row["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert any("only inputs and outputs" in note["what"] for note in found.told["made"])
    assert found.dialogue.turns[0].reply == REPLIES[0]


def test_values_of_otlp_are_json() -> None:
    value = {"a": [1, 2.5, True, "x", {"b": None}]}
    assert typed(any_value(value)) == value
    assert typed({"string_value": None, "int_value": None, "bool_value": False}) is False
    assert typed({"anything": 1}) == {"anything": 1}


def test_attributes_nest_by_their_dots() -> None:
    flat = {"m.0.role": "user", "m.10.role": "b", "m.2.role": "a", "x": 1, "x.y": 2, "given": {"0": "kept"}}
    assert nested(flat) == {
        "m": [{"role": "user"}, {"role": "a"}, {"role": "b"}],
        "x": {"": 1, "y": 2},
        "given": {"0": "kept"},
    }
    assert nested({"x.y": 2, "x": 1}) == {"x": {"y": 2, "": 1}}


def test_ids_are_the_same_in_every_form() -> None:
    for trace in (TRACE, f"0x{TRACE}"):
        assert read_span({"traceId": trace, "spanId": "1"}).trace == TRACE
    assert read_span({"traceId": "S/kvNXezTaajzpKdDg5HNg==", "spanId": "1"}).trace == TRACE
