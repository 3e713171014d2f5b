"""Talk: a conversation being built, message by message, in the shape of OpenAI chat messages.

Logs write one action of an assistant in pieces (a thought, a call, another call, a reply). A piece that is added with
`join` goes into the assistant message before it, as long as no tool and no person has spoken since, so that an action
is one message and the answers of its tools stand right behind it.
"""

from __future__ import annotations

import json
from typing import Any

from cm2.imports.notes import Place
from cm2.imports.text import Block, Call, Result, as_text, error_text

Message = dict[str, Any]


class Talk:
    """Messages so far, and the tools that were offered.

    Attributes:
        messages: OpenAI chat messages.
        tools: function schemas, each name once.
        hosted: tools that the provider runs itself; a log need not offer them.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.tools: list[dict[str, Any]] = []
        self.hosted: set[str] = set()
        self._open = False

    def say(self, role: str, text: str, **extra: Any) -> None:
        """A message of a person or of the system."""
        self._open = False
        self.messages.append({"role": role, "content": text, **extra})

    def act(self, found: list[Block], place: Place, join: bool = False, **extra: Any) -> None:
        """A message of the assistant, from its parts. Answers of tools inside it divide it."""
        texts: list[str] = []
        thoughts: list[str] = []
        calls: list[Call] = []

        def flush(last: bool) -> None:
            nonlocal join
            if texts or thoughts or calls or (last and not join and not done):
                reply = "\n".join(texts) if texts else (None if calls or thoughts else "")
                self._assistant(reply, "\n".join(thoughts) if thoughts else None, calls, join, extra)
                join = True

        done = False
        for block in found:
            if block.result is not None:
                flush(False)
                done = True
                self.answer(block.result, place)
                texts, thoughts, calls = [], [], []
            elif block.call is not None:
                calls.append(block.call)
            elif block.thought is not None:
                thoughts.append(block.thought)
            elif block.text is not None:
                texts.append(block.text)
        flush(True)

    def _assistant(
        self, reply: str | None, thinking: str | None, calls: list[Call], join: bool, extra: dict[str, Any]
    ) -> None:
        message: Message
        if join and self._open and self.messages and self.messages[-1]["role"] == "assistant":
            message = self.messages[-1]
        else:
            message = {"role": "assistant", "content": None}
            self.messages.append(message)
        self._open = True
        if thinking:
            before = message.get("reasoning_content")
            message["reasoning_content"] = f"{before}\n{thinking}" if before else thinking
        if reply is not None:
            message["content"] = f"{message['content']}\n{reply}" if message["content"] else reply
        if calls:
            message.setdefault("tool_calls", []).extend(written(call) for call in calls)
        message.update(extra)

    def answer(self, result: Result, place: Place) -> None:
        """What a tool answered."""
        self._open = False
        message: Message = {"role": "tool", "content": error_text(result, place)}
        if result.id is not None:
            message["tool_call_id"] = result.id
        if result.name is not None:
            message["name"] = result.name
        self.messages.append(message)

    def close(self) -> None:
        """What is said from now on is another action."""
        self._open = False

    def offer(self, tools: list[dict[str, Any]]) -> None:
        """Tools that the agent could call."""
        names = {tool["function"]["name"] for tool in self.tools}
        for tool in tools:
            if tool["function"]["name"] not in names:
                names.add(tool["function"]["name"])
                self.tools.append(tool)


def written(call: Call) -> dict[str, Any]:
    """A call as a chat message holds it."""
    given = call.arguments
    if not isinstance(given, str):
        given = "{}" if given is None else json.dumps(given, ensure_ascii=False)
    function = {"name": call.name, "arguments": given}
    named: dict[str, Any] = {} if call.id is None else {"id": call.id}
    return {**named, "type": "function", "function": function}


def called(message: Message) -> list[Call]:
    """The calls of a chat message."""
    calls = message.get("tool_calls") or []
    return [Call(one["function"]["name"], one["function"]["arguments"], one.get("id")) for one in calls]


def key(message: Message) -> tuple[Any, ...]:
    """What makes two messages the same, in two records of one conversation: who said what, or called what. Ids,
    thinking, and what was said beside a call may differ, since histories are often repeated without them."""
    content = as_text(message.get("content")).strip()
    if message["role"] == "tool":
        return "tool", content
    calls = tuple((call.name, _same(call.arguments)) for call in called(message))
    return message["role"], "" if calls else content, calls


def _same(arguments: str) -> str:
    try:
        return json.dumps(json.loads(arguments), sort_keys=True)
    except (ValueError, RecursionError):
        return arguments
