"""Let a library write the log of the shop's agent: python write_log.py KIND SHOP.json FOLDER

Runs in an interpreter that has the library, which need not be the one of the tests. Nothing leaves loopback.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from endpoint import Endpoint

Value = dict[str, Any]
SHOP: Value = json.loads(Path(sys.argv[2]).read_text())
FOLDER = Path(sys.argv[3])
ANSWERS = {"call_1": SHOP["found"], "call_2": f"Error: {SHOP['lost']}", "call_3": SHOP["done"]}


def chat_agent(client: Any, run: Callable[[Any], str]) -> None:
    """The agent over OpenAI's chat."""
    messages: list[Value] = [{"role": "system", "content": SHOP["system"]}]
    for asked in SHOP["asked"]:
        messages.append({"role": "user", "content": asked})
        while True:
            message = (
                client.chat.completions.create(model="m", messages=messages, tools=SHOP["tools"]).choices[0].message
            )
            messages.append(message.model_dump(exclude_none=True))
            if not message.tool_calls:
                break
            messages += [{"role": "tool", "tool_call_id": call.id, "content": run(call)} for call in message.tool_calls]


def responses_agent(client: Any) -> None:
    """The agent over OpenAI's Responses."""
    tools = [{"type": "function", **tool["function"]} for tool in SHOP["tools"]]
    items: list[Value] = []
    for asked in SHOP["asked"]:
        items.append({"role": "user", "content": asked})
        while True:
            output = client.responses.create(model="m", instructions=SHOP["system"], input=items, tools=tools).output
            items += [one.model_dump(exclude_none=True) for one in output]
            calls = [one for one in output if one.type == "function_call"]
            if not calls:
                break
            items += [
                {"type": "function_call_output", "call_id": c.call_id, "output": ANSWERS[c.call_id]} for c in calls
            ]


def claude_agent(client: Any) -> None:
    """The agent over Anthropic's messages."""
    tools = [
        {"name": tool["function"]["name"], "description": "", "input_schema": tool["function"]["parameters"]}
        for tool in SHOP["tools"]
    ]
    messages: list[Value] = []
    for asked in SHOP["asked"]:
        messages.append({"role": "user", "content": asked})
        while True:
            reply = client.messages.create(
                model="c", max_tokens=9, system=SHOP["system"], messages=messages, tools=tools
            )
            messages.append(
                {"role": "assistant", "content": [one.model_dump(exclude_none=True) for one in reply.content]}
            )
            used = [one for one in reply.content if one.type == "tool_use"]
            if not used:
                break
            results = [
                {
                    "type": "tool_result",
                    "tool_use_id": one.id,
                    "content": ANSWERS[one.id],
                    "is_error": one.id == "call_2",
                }
                for one in used
            ]
            messages.append({"role": "user", "content": results})


def langchain_agent(url: str) -> None:
    """The agent over LangChain."""
    from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model="m", api_key="x", base_url=f"{url}/v1").bind(tools=SHOP["tools"])  # type: ignore[arg-type]
    messages: list[Any] = [SystemMessage(SHOP["system"])]
    for asked in SHOP["asked"]:
        messages.append(HumanMessage(asked))
        while True:
            reply: Any = model.invoke(messages)
            messages.append(reply)
            if not reply.tool_calls:
                break
            for call in reply.tool_calls:
                bad = call["id"] == "call_2"
                text = SHOP["lost"] if bad else ANSWERS[call["id"]]
                messages.append(ToolMessage(text, tool_call_id=call["id"], status="error" if bad else "success"))


def spans(kind: str, endpoint: Endpoint) -> None:
    """Spans (and log records) of an instrumentation, by OpenTelemetry's own JSON file exporters."""
    newest = kind in ("genai", "genai_event")
    contents = {"genai": "SPAN_ONLY", "genai_event": "EVENT_ONLY"}.get(kind, "true")
    os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = contents
    if newest:
        os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental"
    import openai
    from opentelemetry import _logs, trace
    from opentelemetry.exporter.otlp.json.file import FileSpanExporter
    from opentelemetry.exporter.otlp.json.file._log_exporter import FileLogExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    tracers, loggers = TracerProvider(), LoggerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(FileSpanExporter(str(FOLDER / "spans.jsonl"))))
    loggers.add_log_record_processor(SimpleLogRecordProcessor(FileLogExporter(str(FOLDER / "logs.jsonl"))))
    trace.set_tracer_provider(tracers)
    _logs.set_logger_provider(loggers)
    if kind in ("genai", "genai_event", "genai_events"):
        from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor

        OpenAIInstrumentor().instrument(logger_provider=loggers)
    elif kind == "openllmetry":
        from opentelemetry.instrumentation.openai import OpenAIInstrumentor as Traceloop

        Traceloop().instrument()
    elif kind == "openinference_anthropic":
        from openinference.instrumentation.anthropic import AnthropicInstrumentor

        AnthropicInstrumentor().instrument(tracer_provider=tracers)
    elif kind == "openinference_langchain":
        from openinference.instrumentation.langchain import LangChainInstrumentor

        LangChainInstrumentor().instrument(tracer_provider=tracers)
    else:
        from openinference.instrumentation.openai import OpenAIInstrumentor as OpenInference

        OpenInference().instrument(tracer_provider=tracers)
    tracer = trace.get_tracer("shop")

    def run(call: Any) -> str:
        told = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": call.function.name,
            "gen_ai.tool.call.id": call.id,
        }
        with tracer.start_as_current_span("execute_tool", attributes=told):
            return ANSWERS[call.id]

    client = openai.OpenAI(api_key="x", base_url=f"{endpoint.url}/v1")
    with tracer.start_as_current_span("agent"):
        if kind == "openinference_anthropic":
            import anthropic

            claude_agent(anthropic.Anthropic(api_key="x", base_url=endpoint.url))
        elif kind == "openinference_langchain":
            langchain_agent(endpoint.url)
        elif kind == "openinference_responses":
            responses_agent(client)
        else:
            chat_agent(client, run)
    tracers.shutdown()
    loggers.shutdown()


def langsmith(kind: str, endpoint: Endpoint) -> None:
    """Runs as the SDK posts them."""
    os.environ |= {"LANGSMITH_TRACING": "true", "LANGSMITH_API_KEY": "x", "LANGSMITH_ENDPOINT": endpoint.url}
    from langsmith import Client, traceable, wrappers

    client = Client(api_url=endpoint.url, api_key="x", auto_batch_tracing=False)
    if kind == "langsmith_langchain":
        from langsmith.run_helpers import tracing_context

        with tracing_context(enabled=True, client=client):
            traceable(run_type="chain", client=client)(lambda: langchain_agent(endpoint.url))()
    else:
        import openai

        wrapped = wrappers.wrap_openai(
            openai.OpenAI(api_key="x", base_url=f"{endpoint.url}/v1"), tracing_extra={"client": client}
        )
        agent = traceable(run_type="chain", client=client)(lambda: chat_agent(wrapped, lambda call: ANSWERS[call.id]))
        agent()
    client.flush()
    runs: dict[str, Value] = {}
    for path, body in endpoint.posted:
        if "/runs" not in path or not body.startswith(b"{"):
            continue
        found = json.loads(body)
        batch = [*found.get("post", []), *found.get("patch", [])] if "post" in found or "patch" in found else [found]
        for run in batch:
            id = run.get("id") or path.rsplit("/", 1)[-1]
            runs.setdefault(id, {}).update({key: value for key, value in run.items() if value is not None})
    (FOLDER / "runs.jsonl").write_text("".join(json.dumps(run) + "\n" for run in runs.values()))


def langfuse(_: str, endpoint: Endpoint) -> None:
    """Spans as the SDK makes them, by OpenTelemetry's own JSON file exporter."""
    os.environ |= {"LANGFUSE_PUBLIC_KEY": "x", "LANGFUSE_SECRET_KEY": "x"}
    os.environ |= {"LANGFUSE_HOST": endpoint.url, "LANGFUSE_BASE_URL": endpoint.url}
    from langfuse import Langfuse, observe
    from langfuse.openai import OpenAI
    from opentelemetry.exporter.otlp.json.file import FileSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    tracers = TracerProvider()
    Langfuse(tracer_provider=tracers)
    tracers.add_span_processor(SimpleSpanProcessor(FileSpanExporter(str(FOLDER / "spans.jsonl"))))
    client = OpenAI(api_key="x", base_url=f"{endpoint.url}/v1")
    observe()(lambda: chat_agent(client, lambda call: ANSWERS[call.id]))()
    tracers.force_flush()
    os._exit(0)  # its own threads wait for a server


def inspect(kind: str, _: Endpoint) -> None:
    """An evaluation by Inspect with its mock model."""
    from inspect_ai import Task, eval
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ContentReasoning, ModelOutput, ModelUsage, get_model
    from inspect_ai.scorer import includes
    from inspect_ai.solver import generate, system_message, use_tools, user_message
    from inspect_ai.tool import ToolCall, ToolDef, ToolError

    async def get_order(order_id: str) -> str:
        if order_id == "B2":
            raise ToolError(SHOP["lost"])
        return str(SHOP["found"])

    async def cancel_order(order_id: str, reason: str = "") -> str:
        return str(SHOP["done"])

    told = {"order_id": "the order", "reason": "why"}
    tools = [
        ToolDef(get_order, "get_order", "get_order!", {"order_id": told["order_id"]}),
        ToolDef(cancel_order, "cancel_order", "cancel_order!", told),
    ]

    def said(text: str, numbers: list[int], thought: str = "") -> Any:
        output = ModelOutput.from_content("mockllm/model", text)
        message = output.choices[0].message
        names = {1: "get_order", 2: "get_order", 3: "cancel_order"}
        message.tool_calls = [ToolCall(f"call_{n}", names[n], SHOP["arguments"][n - 1]) for n in numbers] or None
        if thought:
            message.content = [ContentReasoning(reasoning=thought)]
        output.usage = ModelUsage(input_tokens=5, output_tokens=2, total_tokens=7)
        return output

    one, two = SHOP["replies"]
    outputs = [said("", [1, 2], SHOP["thought"]), said(one, []), said("One moment.", [3]), said(two, [])]
    task = Task(
        dataset=[Sample(id="s1", input=SHOP["asked"][0], target="cancelled", metadata={"kind": "easy"})],
        solver=[
            system_message(SHOP["system"]),
            use_tools([tool.as_tool() for tool in tools]),
            generate(),
            user_message(SHOP["asked"][1]),
            generate(),
        ],
        scorer=includes(),
    )
    model = get_model("mockllm/model", custom_outputs=outputs)
    form = kind.removeprefix("inspect_")
    log = eval(task, model=model, log_format=form, log_dir=str(FOLDER), display="none")[0]  # type: ignore[arg-type]
    assert log.status == "success", log.error


if __name__ == "__main__":
    name = sys.argv[1]
    writers = {"langsmith": langsmith, "langfuse": langfuse, "inspect": inspect}
    writer = next((one for start, one in writers.items() if name.startswith(start)), spans)
    writer(name, Endpoint(SHOP))
