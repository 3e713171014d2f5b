"""Schemas: tools as every provider and tracer lists them, as function schemas; and the least schema that calls show.

A log without a tool list still shows which tools there were and with what they were called. The inferred schema says
only that: the names seen, a type where all values had the same, nothing required. It is marked in `meta.import`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from cm2.formats.json_text import loads
from cm2.formats.jsonlines import encode, parse
from cm2.imports.notes import Notes, Place
from cm2.imports.text import as_dict, as_list, unpacked

_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
_HOSTED = re.compile(r"(_preview)?(_\d{4}_\d{2}_\d{2}|_\d{8})?$")
_PARAMETERS = ("parameters", "input_schema", "inputSchema", "schema", "args_schema", "input")
Tool = dict[str, Any]


def read_tools(value: Any, place: Place) -> list[Tool]:
    """A list of tools to function schemas. What is no tool is noted."""
    try:
        known = _known(value.encode() if isinstance(value, str) else encode(value))
    except (RecursionError, UnicodeEncodeError):
        known = None
    return _listed(value, place) if known is None else list(known)


@lru_cache(maxsize=512)
def _known(text: bytes) -> tuple[Tool, ...] | None:
    """The tools of a list that logs repeat with every call; None where something of it has to be noted."""
    notes = Notes()
    value, error = parse(text)
    if error is not None:
        return None
    found = _listed(value, Place(notes))
    return None if notes.said or notes.kept else tuple(found)


def _listed(value: Any, place: Place) -> list[Tool]:
    value = unpacked(value)
    if isinstance(value, str) and value:
        place.unmapped(f"the tools are text that is no JSON: {value[:100]}")
    if isinstance(value, dict):  # one tool, a wrapper, or tools by name
        inner = next((value[key] for key in ("tools", "functions", "function_declarations") if key in value), None)
        if inner is not None:
            return _listed(inner, place)
        named = not ({"name", "function", "type"} & value.keys()) and all(isinstance(v, dict) for v in value.values())
        value = [{"name": name, **one} for name, one in value.items()] if named else [value]
    found: list[Tool] = []
    for index, one in enumerate(as_list(value)):
        one = unpacked(one)
        declared = as_dict(one).get("function_declarations", as_dict(one).get("functionDeclarations"))
        if isinstance(declared, list):
            found += _listed(declared, place.at(index))
            continue
        tool = _read(one)
        if tool is None:
            place.at(index).unmapped("no tool that can be read")
            place.keep(f"[{index}]", one)
        else:
            found.append(tool)
    return found


def _read(value: Any) -> Tool | None:
    if isinstance(value, str):
        return _tool(value, "", {}) if value else None
    if not isinstance(value, dict):
        return None
    for key in ("tool.json_schema", "json_schema", "toolSpec"):  # OpenInference, Bedrock
        if key in value and "name" not in value:
            return _read(unpacked(value[key]))
    if isinstance(value.get("tool"), dict) and "name" not in value:
        return _read(value["tool"])
    function = unpacked(value.get("function", value))
    if not isinstance(function, dict):
        return None
    name = function.get("name")
    if not isinstance(name, str) or not name:
        kind = value.get("type")
        if not isinstance(kind, str) or kind in ("function", "mcp", "custom", "namespace"):
            return None
        return _tool(_HOSTED.sub("", kind), "", {})
    description = function.get("description")
    schema: Any = next((unpacked(function[key]) for key in _PARAMETERS if function.get(key) is not None), {})
    if isinstance(as_dict(schema).get("json"), dict):
        schema = schema["json"]
    if value.get("type") == "custom" and not schema:
        schema = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
    return _tool(name, description if isinstance(description, str) else "", schema if isinstance(schema, dict) else {})


def _tool(name: str, description: str, parameters: dict[str, Any]) -> Tool:
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def infer(messages: Iterable[dict[str, Any]], only: set[str] | None = None) -> list[Tool]:
    """The least schemas that the calls of these messages fit, by name in order of first use; `only` of these names."""
    shapes: dict[str, dict[str, set[str]]] = {}
    for message in messages:
        for call in message.get("tool_calls") or []:
            name = call["function"]["name"]
            if not name.strip() or (only is not None and name not in only):
                continue
            shape = shapes.setdefault(name, {})
            for key, value in _arguments(call["function"]["arguments"]).items():
                shape.setdefault(key, set()).add(_TYPES.get(type(value), ""))
    return [_tool(name, "", _schema(shape)) for name, shape in shapes.items()]


def _arguments(text: Any) -> dict[str, Any]:
    try:
        return as_dict(loads(text))
    except (ValueError, RecursionError, TypeError):
        return {}


def _schema(shape: dict[str, set[str]]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for key, types in shape.items():
        if types <= {"integer", "number"}:
            properties[key] = {"type": "number" if "number" in types else "integer"}
        else:
            properties[key] = {"type": next(iter(types))} if len(types) == 1 and "" not in types else {}
    return {"type": "object", "properties": properties}
