"""Declared: the fallback, and answers for tools of which nobody recorded one.

The fallback says "nothing found" where a tool has no recorded answer. Here such a tool answers

1. with a value of the result schema that it declares (`outputSchema`, `returns` … beside its parameters);
2. else, a write with an acknowledgement that repeats its arguments and names a new id;
3. else, as the fallback does: nothing is found.

No language model, no cost; what comes is of the right form and means nothing.
"""

from __future__ import annotations

import random
from typing import Any

import msgspec

from cm2.dialogue import Tool, ToolCall
from cm2.simulate.fallback import Fallback
from cm2.simulate.instance import instance
from cm2.simulate.mint import is_id_name
from cm2.simulate.replay import Context, call_key

RESULT_KEYS = ("outputSchema", "output_schema", "returns", "return", "result", "results", "response", "responses")


class Declared(Fallback):
    """See the module. One a world; it keeps no state of its own."""

    def session(self) -> Declared:
        """The same backend: it has no state."""
        return self

    def respond(self, call: ToolCall, context: Context) -> str:
        """The answer to a well-formed call of a known tool."""
        if any(not example.error for example in self.examples.get(call.name, [])):
            return super().respond(call, context)
        rng = random.Random(f"{self.seed}\n{context.state.hash}\n{call_key(call)}")
        schema = result_schema(context.tool)
        if schema is not None:
            try:
                return _text(self._answering(instance(schema, rng), call))
            except ValueError:
                pass  # a schema that nothing was found for: as if it declared nothing
        if self.is_write(call):
            given = {name: value for name, value in call.arguments.items() if not isinstance(value, (dict, list))}
            return _text({"success": True, **({} if "id" in given else {"id": self.mint.make("0000", rng)}), **given})
        return self.not_found(call)

    def _answering(self, value: Any, call: ToolCall) -> Any:
        """The value with the call's arguments where it has fields of their names."""
        if isinstance(value, dict):
            return {
                name: call.arguments[name]
                if name in call.arguments and type(call.arguments[name]) is type(item) and is_id_name(name)
                else self._answering(item, call)
                for name, item in value.items()
            }
        return [self._answering(item, call) for item in value] if isinstance(value, list) else value


def result_schema(tool: Tool) -> dict[str, Any] | None:
    """The JSON Schema of a tool's answers, where it declares one beside its parameters; None where it does not.

    One that points elsewhere (`$ref`) is not used: it could not stand inside another schema.
    """
    wire = tool.wire if isinstance(tool.wire, dict) else {}
    inner = wire.get("function")
    for place in (wire, inner if isinstance(inner, dict) else {}):
        for key in RESULT_KEYS:
            schema = place.get(key)
            if isinstance(schema, dict) and ("type" in schema or "properties" in schema) and not _refers(schema):
                return schema
    return None


def _refers(value: Any) -> bool:
    if isinstance(value, dict):
        return "$ref" in value or any(map(_refers, value.values()))
    return isinstance(value, list) and any(map(_refers, value))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
