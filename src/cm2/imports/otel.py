"""OpenTelemetry: spans and events of the GenAI semantic conventions, in the forms that they have had.

- attributes `gen_ai.input.messages`, `gen_ai.output.messages`, `gen_ai.system_instructions`, `gen_ai.tool.definitions`
  on the span or on the event `gen_ai.client.inference.operation.details` (1.37 and later)
- one event a message: `gen_ai.user.message`, …, `gen_ai.choice`, as span events or as log records (1.28 to 1.36)
- `gen_ai.prompt` and `gen_ai.completion`, as JSON or one attribute a field (OpenLLMetry and before)
- `ai.prompt.messages` and `ai.response.…` (Vercel's AI SDK), `langfuse.observation.…` (Langfuse's SDK)

Spans of tools are `execute_tool`; scores are events `gen_ai.evaluation.result`. Message contents are recorded
only where somebody switched that on; a call without them is `silent`.
"""

from __future__ import annotations

from typing import Any

from cm2.imports.bodies import tokens_of
from cm2.imports.notes import Place
from cm2.imports.schemas import read_tools
from cm2.imports.spans import Event, Span, at, rest
from cm2.imports.text import as_dict, as_id, as_list, as_text, unpacked
from cm2.imports.work import Kind, Ran, Score, Work, plain_score

_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("chat", "text_completion", "generate_content", "completion", "responses"), "llm"),
    "execute_tool": "tool",
    "invoke_agent": "agent",
    "invoke_workflow": "agent",
}
_LANGFUSE: dict[str, Kind] = {"generation": "llm", "tool": "tool", "agent": "agent", "chain": "agent", "span": "agent"}
_DETAILS = "gen_ai.client.inference.operation.details"
_EVENTS = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}
_SESSIONS = ("gen_ai.conversation.id", "session.id", "langfuse.session.id", "conversation.id", "thread.id")


_MODELS = ("gen_ai.response.model", "gen_ai.request.model", "langfuse.observation.model.name", "ai.model.id")


def session_of(attributes: dict[str, Any]) -> str | None:
    """The conversation that a span says it belongs to."""
    return next((found for path in _SESSIONS if (found := as_id(at(attributes, path)))), None)


def is_genai(span: Span) -> bool:
    """Whether a span is about a model, a tool or an agent."""
    return any(key in span.attributes for key in ("gen_ai", "llm", "openinference", "traceloop", "ai", "langfuse"))


def read_work(span: Span) -> Work:
    """What a span recorded."""
    found = span.attributes
    work = Work(_kind(span), span.id, span.parent, span.trace, span.name, span.start, span.end, error=span.error)
    work.session = session_of(found)
    work.user = as_id(at(found, "user.id")) or as_id(at(found, "enduser.id"))
    work.scores = [score for event in span.events if (score := _score(event, span.id)) is not None]
    model = next((as_text(named) for path in _MODELS if (named := at(found, path))), "")
    place = Place(work.notes, f"span[{span.id}]")
    rest(span, place)
    if work.kind == "tool":
        work.ran = _ran(span, place)
        return work
    request, response, paths = _bodies(span)
    if work.kind == "llm" or (work.kind == "agent" and _spoken(request)):
        if request is None and response is None:
            work.silent = work.kind == "llm"
        else:
            work.read(request, response, (f"{place.path}.{paths[0]}", f"{place.path}.{paths[1]}"))
    if work.exchange is not None:
        work.exchange.model = model or work.exchange.model
        work.exchange.id = as_id(at(found, "gen_ai.response.id")) or work.exchange.id
        work.exchange.tokens = tokens_of(_usage(found)) or work.exchange.tokens
        listed = (
            at(found, "gen_ai.tool.definitions") or at(found, "llm.request.functions") or at(found, "ai.prompt.tools")
        )
        if listed and not work.exchange.tools:
            work.exchange.tools = read_tools(listed, place.at("tools"))
    elif work.kind == "agent":
        work.request, work.response = request, response
    return work


def _usage(found: dict[str, Any]) -> Any:
    langfuse = unpacked(at(found, "langfuse.observation.usage_details"))
    return at(found, "gen_ai.usage") or langfuse or at(found, "ai.usage")


def _kind(span: Span) -> Kind:
    found = span.attributes
    kind = _KINDS.get(as_text(at(found, "gen_ai.operation.name")))
    if kind is not None:
        return kind
    kind = _LANGFUSE.get(as_text(at(found, "langfuse.observation.type")).lower())
    if kind is not None:
        return kind
    if at(found, "llm.request.type") or at(found, "gen_ai.prompt") is not None or at(found, "ai.prompt.messages"):
        return "llm"
    if any(event.name in _EVENTS or event.name == "gen_ai.choice" for event in span.events):
        return "llm"
    if at(found, "gen_ai.input.messages") is not None:
        return "llm"
    traceloop = as_text(at(found, "traceloop.span.kind"))
    if traceloop == "tool" or at(found, "gen_ai.tool.name") or at(found, "ai.toolCall.name"):
        return "tool"
    return "agent" if traceloop in ("workflow", "agent", "task") else "other"


def _spoken(request: Any) -> bool:
    """Whether what went into an agent's run are messages (not a function's arguments)."""
    inner = unpacked(request)
    return isinstance(as_dict(inner).get("messages"), list) or isinstance(inner, list)


def _bodies(span: Span) -> tuple[Any, Any, tuple[str, str]]:
    """What went in and out, and where it stood."""
    found = span.attributes
    for holder in (found, *(event.attributes for event in span.events if event.name == _DETAILS)):
        told, said = at(holder, "gen_ai.input.messages"), at(holder, "gen_ai.output.messages")
        if told is not None or said is not None:
            system = unpacked(at(holder, "gen_ai.system_instructions"))
            body = {"messages": unpacked(told), "system": system, "tools": at(holder, "gen_ai.tool.definitions")}
            inputs = body if told or system else None
            return inputs, unpacked(said), ("gen_ai.input", "gen_ai.output.messages")
    told, said = _from_events(span.events)
    if told or said:
        return {"messages": told} if told else None, said or None, ("events", "gen_ai.choice")
    told, said = at(found, "gen_ai.prompt"), at(found, "gen_ai.completion")
    for event in span.events:
        told = told or (event.name == "gen_ai.content.prompt" and at(event.attributes, "gen_ai.prompt")) or None
        said = said or (event.name == "gen_ai.content.completion" and at(event.attributes, "gen_ai.completion")) or None
    if told is not None or said is not None:
        return told, said, ("gen_ai.prompt", "gen_ai.completion")
    if at(found, "ai.prompt") is not None:
        return _vercel(found)
    told, said = at(found, "langfuse.observation.input"), at(found, "langfuse.observation.output")
    if told is not None or said is not None:
        return told, said, ("langfuse.observation.input", "langfuse.observation.output")
    entity = at(found, "traceloop.entity")
    return as_dict(entity).get("input"), as_dict(entity).get("output"), ("traceloop.input", "traceloop.output")


def _vercel(found: dict[str, Any]) -> tuple[Any, Any, tuple[str, str]]:
    messages = at(found, "ai.prompt.messages")
    request = unpacked(messages if messages is not None else at(found, "ai.prompt"))
    text, calls = at(found, "ai.response.text"), unpacked(at(found, "ai.response.toolCalls"))
    response: dict[str, Any] | None = None
    if text is not None or calls:
        named = [
            {"id": as_dict(one).get("toolCallId"), "name": as_dict(one).get("toolName"), **as_dict(one)}
            for one in as_list(calls)
        ]
        response = {"role": "assistant", "content": text, "tool_calls": named}
    return request, response, ("ai.prompt", "ai.response")


def _from_events(events: list[Event]) -> tuple[list[Any], list[Any]]:
    told: list[Any] = []
    said: list[Any] = []
    for event in events:
        if event.name not in _EVENTS and event.name != "gen_ai.choice":
            continue
        body = unpacked(event.body)
        if not isinstance(body, dict) or not body:
            content = unpacked(at(event.attributes, "gen_ai.event.content"))
            flat = {key: unpacked(one) for key, one in event.attributes.items() if key not in ("gen_ai", "event")}
            body = content if isinstance(content, dict) else flat
        if event.name == "gen_ai.choice":
            index = body.get("index")
            message = unpacked(body.get("message", body))
            message = message if isinstance(message, dict) else {"content": as_text(message)}
            if index in (None, 0, "0") or not said:
                calls = body.get("tool_calls")
                more = {"tool_calls": unpacked(calls)} if calls and "tool_calls" not in message else {}
                said.append({"role": "assistant", "content": None, **_known(message), **more})
        else:
            id = body.get("id", body.get("tool_call_id"))
            more = {"tool_call_id": id} if event.name == "gen_ai.tool.message" and id is not None else {}
            told.append({"content": None, **_known(body), "role": _EVENTS[event.name], **more})
    return told, said


def _known(body: dict[str, Any]) -> dict[str, Any]:
    taken = ("content", "tool_calls", "name", "reasoning_content", "refusal")
    return {key: body[key] for key in taken if body.get(key) is not None}


def _ran(span: Span, place: Place) -> Ran | None:
    found = span.attributes
    name = as_text(at(found, "gen_ai.tool.name") or at(found, "ai.toolCall.name") or at(found, "traceloop.entity.name"))
    given, result = at(found, "gen_ai.tool.call.arguments"), at(found, "gen_ai.tool.call.result")
    if given is None and result is None:
        vercel = as_dict(at(found, "ai.toolCall"))
        given, result = vercel.get("args"), vercel.get("result")
    if given is None and result is None:
        given, result = at(found, "langfuse.observation.input"), at(found, "langfuse.observation.output")
    if given is None and result is None:
        entity = as_dict(at(found, "traceloop.entity"))
        given, result = entity.get("input"), entity.get("output")
    id = as_id(at(found, "gen_ai.tool.call.id")) or as_id(at(found, "ai.toolCall.id"))
    return ran(name or span.name.removeprefix("execute_tool "), given, result, span.error, place, id)


def ran(name: str, given: Any, result: Any, error: str | None, place: Place, id: str | None = None) -> Ran | None:
    """A tool's run, from what tracers record of one: the arguments of a wrapped function, messages of LangChain."""
    if not name:
        return None
    given = unpacked(given)
    if isinstance(given, dict) and isinstance(given.get("kwargs"), dict) and given.keys() <= {"args", "kwargs"}:
        if given.get("args"):
            place.keep("args", given["args"])
        given = given["kwargs"]
    if isinstance(given, dict) and given.keys() == {"input"}:
        given = unpacked(given["input"])
    if given is not None and not isinstance(given, dict):
        given = {"input": given}
        place.made("the argument of this tool has no name in the log; it is called 'input'")
    inner = unpacked(result)
    if isinstance(inner, dict) and isinstance(as_dict(inner.get("data", inner.get("kwargs"))).get("content"), str):
        stored = as_dict(inner.get("data", inner.get("kwargs")))  # a message of LangChain
        result, id = stored["content"], id or as_id(stored.get("tool_call_id"))
    elif isinstance(inner, dict) and inner.get("role") == "tool" and "content" in inner:
        result, id = inner["content"], id or as_id(inner.get("tool_call_id"))
    elif isinstance(inner, dict) and inner.keys() == {"output"}:
        return ran(name, given, inner["output"], error, place, id)
    text = as_text(result) if result is not None else error
    return Ran(name, given if given is not None else {}, text, id, error is not None)


def _score(event: Event, span: str) -> Score | None:
    if event.name not in ("gen_ai.evaluation.result", "gen_ai.evaluation"):
        return None
    found = as_dict(at(event.attributes, "gen_ai.evaluation"))
    score = as_dict(found.get("score"))
    value = plain_score(score.get("value"), score.get("label"), found.get("label"))
    if value is None:
        return None
    return Score(as_text(found.get("name")) or "evaluation", value, span, as_text(found.get("explanation")) or None)
