"""Prompt: a request's messages to the ids that the model reads, by the template that training used.

A conversation comes back as text, so it is rendered anew; what the template writes is what fine-tuning read, id for id.
Thinking of earlier messages, which comes back as a field or, from some clients, as tags in the content, is kept or
dropped, as the server was told. Calls whose text was no call were handed out as content and are read back as what the
model wrote.
"""

from __future__ import annotations

import re
from typing import Any

from cm2.rollout.messages import assistant_message
from cm2.rollout.template import ChatTemplate, parse
from cm2.serve.ask import Ask
from cm2.serve.config import Thinking
from cm2.serve.refusal import invalid

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_TAGGED = re.compile(r"\s*<think(?:\s[^<>]*)?>(.*?)</think>\s*", re.DOTALL)
"""Thinking at the beginning of a content: some clients send it back like that."""


def prompt_text(template: ChatTemplate, ask: Ask, thinking: Thinking) -> str:
    """The text up to where the model's answer begins. Tools that may not be called are not shown.

    Raises:
        Refusal: the messages are not a conversation that the template can write.
    """
    messages = read_messages(ask.messages, thinking)
    try:
        return template.render(ask.tools if ask.tools and ask.reads_calls else [], messages, True)
    except Exception as error:  # templates are programs: what they refuse comes as any type
        raise invalid(f"the chat template cannot write these messages: {error}", "messages") from error


def read_messages(messages: list[dict[str, Any]], thinking: Thinking) -> list[dict[str, Any]]:
    """Messages as training wrote them.

    Raises:
        Refusal: a role, a content or a call that there is no way to show to the model.
    """
    if not messages:
        raise invalid("messages is empty", "messages")
    return [_read(message, f"messages[{i}]", thinking) for i, message in enumerate(messages)]


def _read(message: dict[str, Any], place: str, thinking: Thinking) -> dict[str, Any]:
    role = _ROLES.get(str(message.get("role")))
    if role is None:
        raise invalid(f"the role is one of {', '.join(_ROLES)}", f"{place}.role")
    content = _content(message.get("content"), place)
    if role == "assistant":
        return _assistant(message, content, place, thinking)
    if content is None:
        raise invalid(f"a message of the {role} needs content", f"{place}.content")
    found: dict[str, Any] = {"role": role, "content": content}
    if role == "tool":
        found |= {name: message[name] for name in ("tool_call_id", "name") if isinstance(message.get(name), str)}
    return found


def _assistant(message: dict[str, Any], content: str | None, place: str, thinking: Thinking) -> dict[str, Any]:
    made = message.get("tool_calls") or []
    if not isinstance(made, list):
        raise invalid("tool_calls is a list", f"{place}.tool_calls")
    if content is None:
        content = message["refusal"] if isinstance(message.get("refusal"), str) else None
    thought = message.get("reasoning_content") or message.get("reasoning")
    tagged = _TAGGED.match(content) if content is not None else None
    if content is not None and tagged is not None:
        thought = thought if isinstance(thought, str) else tagged.group(1).strip()
        content = content[tagged.end() :] or None
    if content is not None:
        content = content.lstrip("\n")  # no answer begins with a line break; some clients put one in front
    calls = [_call(call, f"{place}.tool_calls[{i}]") for i, call in enumerate(made)]
    if content is not None and "<tool_call>" in content and "</think>" not in content:
        step = parse(content)
        content, calls = step.reply, [*assistant_message(step).get("tool_calls", []), *calls]
    found: dict[str, Any] = {"role": "assistant", "content": content if content is not None or calls else ""}
    if calls:
        found["tool_calls"] = calls
    if thinking == "keep" and isinstance(thought, str):
        found["reasoning_content"] = thought
    return found


def _call(call: Any, place: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise invalid("a call is {'id': …, 'type': 'function', 'function': {'name': …, 'arguments': …}}", place)
    arguments = function.get("arguments")
    if arguments is None or arguments == "":
        arguments = "{}"
    if not isinstance(arguments, str | dict):
        raise invalid("arguments are JSON text", f"{place}.function.arguments")
    return {"id": call.get("id"), "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _content(content: Any, place: str) -> str | None:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise invalid("content is text or a list of text parts", f"{place}.content")
    texts = []
    for part in content:
        text = part.get("text", part.get("refusal")) if isinstance(part, dict) else part
        if not isinstance(text, str):
            raise invalid("only text parts can be read", f"{place}.content", "unsupported_value")
        texts.append(text)
    return "\n".join(texts)
