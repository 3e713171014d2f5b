"""Messages: what an agent is shown of a dialogue, in the form of OpenAI's chat API."""

from __future__ import annotations

from typing import Any

import msgspec

from cm2.dialogue import Dialogue, Step, ToolCall, ToolResponse

Message = dict[str, Any]


def opening_messages(dialogue: Dialogue) -> list[Message]:
    """Everything before the agent's first step: system prompt, greeting, first user message."""
    messages: list[Message] = []
    if dialogue.system is not None:
        messages.append({"role": "system", "content": dialogue.system})
    for step in dialogue.opening:
        messages.append(assistant_message(step))
        messages += [tool_message(response) for response in step.responses]
    messages.append({"role": "user", "content": dialogue.turns[0].user})
    return messages


def assistant_message(step: Step) -> Message:
    """An agent's step as an OpenAI-style message; arguments are JSON text, malformed ones as the agent wrote them."""
    message: Message = {"role": "assistant", "content": step.reply if step.reply is not None or step.calls else ""}
    if step.thinking is not None:
        message["reasoning_content"] = step.thinking
    if step.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _arguments(call)}}
            for call in step.calls
        ]
    return message


def tool_message(response: ToolResponse) -> Message:
    """A tool's response as an OpenAI-style message."""
    return {"role": "tool", "tool_call_id": response.call_id, "name": response.name, "content": response.content}


def _arguments(call: ToolCall) -> str:
    return call.raw if call.raw is not None else msgspec.json.encode(call.arguments).decode()
