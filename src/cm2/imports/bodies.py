"""Bodies: what was sent to a model and what came back, in whatever form a log keeps it.

A request is a body of an API (chat, Responses, Anthropic), a list of messages, a text, or the arguments of a function
that a tracer wrapped. A response is a body, a message, a list of them, LangChain's generations, or a text.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cm2.errors import DataError
from cm2.imports.dialects import are_messages, is_message, read_message, read_messages
from cm2.imports.fields import names
from cm2.imports.notes import Notes, Place
from cm2.imports.schemas import read_tools
from cm2.imports.talk import Message, Talk
from cm2.imports.talk import key as same_key
from cm2.imports.text import Block, as_dict, as_id, as_text, blocks, said, unpacked

_LISTS = ("messages", "input", "contents", "message", "inputs", "prompt", "chat_history", "history", "conversation")
_SYSTEM = ("system", "instructions", "system_prompt", "systemInstruction", "system_instruction", "system_instructions")
_QUESTIONS = ("question", "query", "text", "user_input", "user_message", "user", "content", "prompt", "input", "task")
_ANSWERS = ("output", "answer", "response", "result", "text", "completion", "content", "output_text", "message")
_TOOLS = ("tools", "functions", "available_tools")
_BOOKKEEPING = names("body", "left")


class Exchange(msgspec.Struct):
    """One call of a model: what it saw, what it said, which tools it could call.

    `previous` names the response that the provider remembered the history of; `id` is that of this one's response.
    """

    before: list[Message] = []
    after: list[Message] = []
    tools: list[dict[str, Any]] = []
    hosted: set[str] = set()
    start: float = 0.0
    span: str = ""
    trace: str = ""
    model: str = ""
    previous: str | None = None
    id: str | None = None
    tokens: dict[str, int] = {}
    notes: Notes = msgspec.field(default_factory=Notes)


def read_exchange(request: Any, response: Any, notes: Notes, paths: tuple[str, str]) -> Exchange:
    """A request and its response, either of which may be None.

    Raises:
        DataError: neither holds a message.
    """
    talk = Talk()
    exchange = Exchange(notes=notes)
    places = [Place(notes, path) for path in paths]
    if request is not None:
        read_request(request, talk, places[0], exchange)
    count = len(talk.messages)
    talk.close()
    if response is not None:
        read_response(response, talk, places[1], exchange)
    exchange.before, exchange.after = talk.messages[:count], talk.messages[count:]
    exchange.tools, exchange.hosted = talk.tools, talk.hosted
    if not talk.messages:
        raise DataError("it holds no message")
    return exchange


def read_request(value: Any, talk: Talk, place: Place, exchange: Exchange) -> None:
    """What was sent, into `talk`.

    Raises:
        DataError: it cannot be read.
    """
    value = unpacked(value)
    if value is None:
        return
    if isinstance(value, str):
        talk.say("user", value)
    elif isinstance(value, list):
        _list(value, talk, place)
    elif isinstance(value, dict):
        if is_message(value):
            read_message(value, talk, place)
        else:
            _body(value, talk, place, exchange)
    else:
        raise DataError(f"the request at {place.path} is neither text, messages nor a body")


def _list(value: list[Any], talk: Talk, place: Place) -> None:
    if value and isinstance(value[0], list):  # LangChain: one list a prompt
        for index in range(1, len(value)):
            place.at(index).unmapped("a further prompt of the same call")
        return read_messages(value[0], talk, place.at(0))
    if value and all(isinstance(one, str) for one in value):
        return talk.say("user", "\n".join(value))
    read_messages(value, talk, place)


def _body(value: dict[str, Any], talk: Talk, place: Place, exchange: Exchange) -> None:
    if "kwargs" in value and isinstance(value["kwargs"], dict) and "messages" not in value:  # a wrapped function
        args = value.get("args")
        if not value["kwargs"] and isinstance(args, list) and args:
            return read_request(args[0], talk, place.at("args").at(0), exchange)
        return read_request(value["kwargs"], talk, place.at("kwargs"), exchange)
    for key in _SYSTEM:
        if value.get(key):
            inner = as_dict(value[key]).get("parts", value[key])
            talk.say("system", said(blocks(unpacked(inner), place.at(key))))
    for key in _TOOLS:
        if value.get(key):
            talk.offer(read_tools(value[key], place.at(key)))
    exchange.model = exchange.model or as_text(value.get("model"))
    exchange.previous = as_id(value.get("previous_response_id"))
    taken = _talk_of(value, talk, place)
    if taken is None:
        raise DataError(f"the request at {place.path or 'the top'} holds no messages: {', '.join(value) or 'empty'}")
    bookkeeping(value, {taken, *_SYSTEM, *_TOOLS}, place)


def _talk_of(value: dict[str, Any], talk: Talk, place: Place) -> str | None:
    """Read the messages of a body; the key that they stood under, or None."""
    for key in _LISTS:
        inner = unpacked(value.get(key))
        if isinstance(inner, list) and inner and (isinstance(inner[0], list) or are_messages(inner)):
            _list(inner, talk, place.at(key))
            question = unpacked(value.get("input"))
            if key in ("chat_history", "history") and isinstance(question, str):
                talk.say("user", question)
            return key
        if isinstance(inner, dict) and is_message(inner):
            read_message(inner, talk, place.at(key))
            return key
        if isinstance(inner, dict) and any(name in inner for name in ("messages", "input")):
            read_request(inner, talk, place.at(key), Exchange())
            return key
    for key in _LISTS:  # a list of messages of which one is broken: let it say so
        inner = unpacked(value.get(key))
        if isinstance(inner, list) and inner and not all(isinstance(one, str) for one in inner):
            read_messages(inner, talk, place.at(key))
            return key
    for key in ("prompts", *_QUESTIONS):
        said_there = value.get(key)
        if key == "prompts" and isinstance(said_there, list) and said_there:
            said_there = said_there[0]
        if isinstance(said_there, str) and said_there:
            talk.say("user", said_there)
            return key
    return None


def bookkeeping(value: dict[str, Any], taken: set[str], place: Place) -> None:
    """Note the fields of a body that are not taken: settings and counts stay in the log, unknown ones are kept."""
    for key, one in value.items():
        if key in taken or one in (None, "", [], {}):
            continue
        if key in _BOOKKEEPING:
            place.left(key)
        else:
            place.keep(key, one)


def read_response(value: Any, talk: Talk, place: Place, exchange: Exchange) -> None:
    """What came back, into `talk`.

    Raises:
        DataError: it cannot be read.
    """
    value = unpacked(value)
    if value is None:
        return
    if isinstance(value, str):
        talk.act([Block(text=value)], place)
    elif isinstance(value, list):
        if value and isinstance(value[0], dict) and ("message" in value[0] or "choices" in value[0]):
            return _choices(value, talk, place, exchange)
        if value and isinstance(value[0], list):
            return read_response(value[0], talk, place.at(0), exchange)
        if are_messages(value):
            return read_messages(value, talk, place)
        talk.act(blocks(value, place), place)  # the content blocks alone
    elif isinstance(value, dict):
        _answer(value, talk, place, exchange)
    else:
        talk.act([Block(text=as_text(value))], place)


def _answer(value: dict[str, Any], talk: Talk, place: Place, exchange: Exchange) -> None:
    exchange.model = as_text(value.get("model")) or exchange.model
    exchange.id = as_id(value.get("id")) or exchange.id
    exchange.tokens = tokens_of(value.get("usage", value.get("usage_metadata"))) or exchange.tokens
    for key in _TOOLS:
        if value.get(key):
            talk.offer(read_tools(value[key], place.at(key)))
    taken = {*_TOOLS, "instructions"}
    if isinstance(value.get("choices"), list):
        _choices(value["choices"], talk, place.at("choices"), exchange)
        taken.add("choices")
    elif isinstance(value.get("generations"), list):
        _generations(value["generations"], talk, place.at("generations"))
        taken.add("generations")
    elif value.get("type") == "message" and value.get("role") == "assistant" and isinstance(value.get("content"), list):
        talk.act(blocks(value["content"], place.at("content")), place)  # Anthropic
        taken.add("content")
    elif isinstance(value.get("output"), list) and (value.get("object") == "response" or are_messages(value["output"])):
        read_messages(value["output"], talk, place.at("output"))
        taken.add("output")
    elif is_message(value):
        return read_message(value, talk, place)
    elif are_messages(value.get("messages")):
        _continued(value["messages"], talk, place.at("messages"))
        taken.add("messages")
    else:
        told = next((key for key in _ANSWERS if value.get(key) not in (None, "", [], {})), None)
        if told is not None:
            read_response(value[told], talk, place.at(told), exchange)
            taken.add(told)
        elif value.get("error"):
            place.unmapped(f"the call failed: {as_text(value['error'])[:200]}", "error")
        elif value:
            talk.act([Block(text=as_text(value))], place)  # a structured answer
            return
    bookkeeping(value, taken, place)


def _choices(value: list[Any], talk: Talk, place: Place, exchange: Exchange) -> None:
    for index, choice in enumerate(value):
        if index:
            place.at(index).unmapped("a further choice of the same call")
            continue
        inner = as_dict(choice).get("message", as_dict(choice).get("text"))
        if isinstance(inner, str):
            talk.act([Block(text=inner)], place.at(index))
        elif isinstance(inner, dict):
            read_message({"role": "assistant", **inner}, talk, place.at(index).at("message"))
        elif isinstance(as_dict(choice).get("choices"), list):
            _choices(choice["choices"], talk, place.at(index), exchange)


def _generations(value: list[Any], talk: Talk, place: Place) -> None:
    if value and isinstance(value[0], list):
        value, place = value[0], place.at(0)
    for index, one in enumerate(value):
        if index:
            place.at(index).unmapped("a further choice of the same call")
        elif isinstance(one, dict) and isinstance(one.get("message"), dict):
            read_message(one["message"], talk, place.at(index).at("message"))
        elif isinstance(one, dict):
            talk.act([Block(text=as_text(one.get("text")))], place.at(index))


def _continued(values: list[Any], talk: Talk, place: Place) -> None:
    """The messages that came back, without those that were sent (an agent's state holds both)."""
    inner = Talk()
    read_messages(values, inner, place)
    sent = [same_key(message) for message in talk.messages if message["role"] != "system"]
    said_again = [message for message in inner.messages if message["role"] != "system"]
    if sent and [same_key(message) for message in said_again[: len(sent)]] == sent:
        talk.messages += said_again[len(sent) :]
    else:
        talk.messages += inner.messages


def tokens_of(value: Any) -> dict[str, int]:
    """Tokens in and out, as far as they are told."""
    found: dict[str, int] = {}
    for name, keys in (
        ("input", ("prompt_tokens", "input_tokens", "input", "promptTokens")),
        ("output", ("completion_tokens", "output_tokens", "output", "completionTokens")),
    ):
        number = next((value[key] for key in keys if key in value), None) if isinstance(value, dict) else None
        if isinstance(number, (int, float)) and not isinstance(number, bool) and 0 <= number < 1e15:
            found[name] = int(number)
    return found
