"""Dialogue > Turn > Step: what happened between a person, an agent and its tools.

A dialogue is a list of turns. A turn starts with one user message and holds steps 0 … M-1. A step is one assistant
action (private thinking, then tool calls or a visible reply, sometimes both) together with the tool responses that the
action caused. A reply without calls ends the turn. Indexes are 0-based everywhere.

These are plain data. Reading outside formats, and writing them back without loss, is the business of `cm2.formats`;
what a format's canonical form would lose is kept in `wire` (see `Step.wire`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec


class Tool(msgspec.Struct, omit_defaults=True):
    """A tool that the agent may call. `parameters` is a JSON Schema for the arguments object."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    wire: Any = None
    """The tool as the outside format wrote it, when our canonical form would differ from it."""


class ToolCall(msgspec.Struct, omit_defaults=True):
    """One call that the agent asked for.

    `arguments` is the parsed JSON value (normally an object). Text that does not parse is kept in `raw`, `arguments` is
    then None and `error` says why: an agent's malformed call is seen and judged, never dropped.
    """

    name: str
    arguments: Any = msgspec.field(default_factory=dict)
    id: str | None = None
    raw: str | None = None
    error: str | None = None

    @property
    def valid(self) -> bool:
        """Whether the arguments parsed to a JSON object."""
        return self.error is None and isinstance(self.arguments, dict)


class ToolResponse(msgspec.Struct, omit_defaults=True):
    """What a tool answered. `content` is the text that the agent sees; `value` parses it once.

    `origin` tells where the answer came from: "recorded" (a log), "replayed", "simulated", or "error" (unknown tool,
    arguments that break the schema, malformed call).
    """

    content: str
    call_id: str | None = None
    name: str | None = None
    origin: str = "recorded"

    @property
    def value(self) -> Any:
        """The content as a JSON value, or the text itself where it is not JSON."""
        try:
            return msgspec.json.decode(self.content)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return self.content


class Step(msgspec.Struct, omit_defaults=True):
    """One assistant action and the tool responses it caused. None means absent, "" means present and empty."""

    thinking: str | None = None
    reply: str | None = None
    calls: list[ToolCall] = []
    responses: list[ToolResponse] = []
    wire: Any = None
    """The messages of this step as the outside format wrote them, kept only where writing our canonical form would not
    give them back. A writer uses them only while they still read to this step."""

    def response_to(self, index: int) -> ToolResponse | None:
        """The response to call `index`: by call id where both carry one, else by position."""
        call = self.calls[index]
        if call.id is not None:
            for response in self.responses:
                if response.call_id == call.id:
                    return response
        if index < len(self.responses):
            response = self.responses[index]
            if response.call_id is None or call.id is None:
                return response
        return None


class Turn(msgspec.Struct, omit_defaults=True):
    """One user message and the steps that answer it. `user` is its text (content parts joined by newlines)."""

    user: str
    steps: list[Step] = []
    wire: Any = None

    @property
    def reply(self) -> str | None:
        """The visible reply that ended the turn, or None where the last step still called tools or said nothing."""
        if not self.steps or self.steps[-1].calls:
            return None
        return self.steps[-1].reply


class Dialogue(msgspec.Struct, omit_defaults=True):
    """A whole conversation. `opening` holds assistant messages before the first user message (a greeting)."""

    id: str
    turns: list[Turn] = []
    tools: list[Tool] = []
    system: str | None = None
    opening: list[Step] = []
    source: str = ""
    meta: dict[str, Any] = {}
    wire: Any = None

    def tool(self, name: str) -> Tool | None:
        """The tool of that name, or None."""
        return next((tool for tool in self.tools if tool.name == name), None)

    def calls(self) -> Iterator[tuple[int, int, int, ToolCall, ToolResponse | None]]:
        """Every call in order, as (turn, step, index within the step, call, its response or None)."""
        for t, turn in enumerate(self.turns):
            for s, step in enumerate(turn.steps):
                for i, call in enumerate(step.calls):
                    yield t, s, i, call, step.response_to(i)
