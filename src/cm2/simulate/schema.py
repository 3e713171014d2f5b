"""Whether a call's arguments fit the tool's JSON Schema, and if not, a sentence the agent can act on.

Validators (`cm2.formats.schema`) are compiled once a schema and shared by all worlds. A schema that is itself broken
validates nothing: that is the data's fault, not the agent's.
"""

from __future__ import annotations

from typing import Any

import orjson

from cm2.dialogue import Tool
from cm2.formats.schema import validator_of


class ArgumentSchema:
    """The compiled schema of one tool's arguments."""

    def __init__(self, tool: Tool):
        schema = tool.parameters
        self.validator = validator_of(orjson.dumps(schema)) if isinstance(schema, dict) and schema else None

    @property
    def broken(self) -> bool:
        """Whether there is nothing to validate with: no schema, or one that does not compile."""
        return self.validator is None

    def violation(self, arguments: Any) -> str:
        """The first violations as one sentence that names the arguments, "" where they fit."""
        if self.validator is None or self.validator.is_valid(arguments):
            return ""
        found = [_sentence(error) for error in self.validator.iter_errors(arguments)]
        return "; ".join(dict.fromkeys(found[:3])) if found else "the arguments do not fit the tool's schema"


def _sentence(error: Any) -> str:
    kind = error.kind.as_dict() if hasattr(error.kind, "as_dict") else {}
    if error.kind.name == "required":
        return f"missing argument '{_path([*error.instance_path, kind.get('property')])}'"
    if error.kind.name == "additionalProperties":
        names = ", ".join(f"'{_path([*error.instance_path, name])}'" for name in kind.get("unexpected", []))
        return f"unexpected argument {names}"
    message = error.message if len(error.message) <= 200 else error.message[:197] + "…"
    place = _path(error.instance_path)
    return f"argument '{place}': {message}" if place else message


def _path(parts: Any) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
