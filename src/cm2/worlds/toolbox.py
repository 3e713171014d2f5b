"""Toolbox: the tools of a domain, each declared once as a Python function with its schema beside it.

A handler takes the desk (the session's state) and the call's arguments, and returns a JSON value; what it refuses it
raises as `ToolError`, which the agent sees as `{"error": …}`. Arguments are declared in one word each: `string`,
`integer`, `number`, `date`, `time` or choices (`card|cash`), with `?` at the end where they may be left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cm2.dialogue import Tool

Handler = Callable[..., Any]
_FORMATS = ("date", "time")
_BOUNDS = {"integer": {"minimum": 1, "maximum": 1_000_000}, "number": {"minimum": 0, "maximum": 1_000_000}}
_NOTES = {"date": "YYYY-MM-DD", "time": "HH:MM"}


class ToolError(Exception):
    """A tool's own refusal (not found, not allowed): the agent reads the message."""


class Toolbox:
    """The tools of one domain, in order of declaration."""

    def __init__(self) -> None:
        self.tools: dict[str, Tool] = {}
        self.handlers: dict[str, Handler] = {}

    def tool(self, description: str, **arguments: str) -> Callable[[Handler], Handler]:
        """Declare the decorated function as a tool of that name; see the module for `arguments`."""

        def declare(handler: Handler) -> Handler:
            self.add(handler.__name__, description, arguments, handler)
            return handler

        return declare

    def add(self, name: str, description: str, arguments: dict[str, str], handler: Handler) -> None:
        """Declare a tool whose function has another name."""
        required = [key for key, kind in arguments.items() if not kind.endswith("?")]
        properties = {key: _schema(kind.rstrip("?")) for key, kind in arguments.items()}
        parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
        self.tools[name] = Tool(name, description, parameters)
        self.handlers[name] = handler


def _schema(kind: str) -> dict[str, Any]:
    if "|" in kind:
        return {"type": "string", "enum": kind.split("|")}
    if kind in _FORMATS:
        return {"type": "string", "format": kind, "description": _NOTES[kind]}
    return {"type": kind, **_BOUNDS.get(kind, {})}
