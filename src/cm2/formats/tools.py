"""Tools ⇄ function schemas: what both formats share.

A list of `{"type": "function", "function": {"name", "description", "parameters"}}`, its JSON text, or the older list of
bare functions. A tool that lacks a name or has parameters of another kind is read all the same (name "", parameters {},
the original in `wire`): finding faults in tools is the business of the rules, and a file must be readable to have its
faults found.
"""

from __future__ import annotations

from typing import Any

from cm2.dialogue import Tool
from cm2.errors import DataError, Where
from cm2.formats.json_text import loads
from cm2.formats.wire import named, same


def read_tools(value: Any, where: Where) -> list[Tool]:
    """The tools of a row; none where there is no list.

    Raises:
        DataError: it is neither a list of objects, nor JSON text of one, nor null.
    """
    if isinstance(value, str):
        try:
            value = loads(value)
        except (ValueError, RecursionError) as error:
            fix = "expected a list of function schemas"
            raise DataError(f"the tools are text that is not JSON: {error}", where=where, fix=fix) from error
    if value is None:
        return []
    if not isinstance(value, list):
        fix = "expected a list of {'type': 'function', 'function': {…}}"
        raise DataError(f"the tools are {named(value)}, not a list", where=where, fix=fix)
    return [_read_tool(tool, where.but(path=f"{where.path}[{i}]")) for i, tool in enumerate(value)]


def _read_tool(value: Any, where: Where) -> Tool:
    if not isinstance(value, dict):
        raise DataError(f"the tool is {named(value)}, not an object", where=where)
    function = value.get("function", value)
    if not isinstance(function, dict):
        raise DataError(f"the tool's function is {named(function)}, not an object", where=where)
    name, description, parameters = (function.get(key) for key in ("name", "description", "parameters"))
    tool = Tool(
        name if isinstance(name, str) else "",
        description if isinstance(description, str) else "",
        parameters if isinstance(parameters, dict) else {},
    )
    if not same(_canonical(tool), value):
        tool.wire = value
    return tool


def write_tools(tools: list[Tool]) -> list[dict[str, Any]]:
    """Function schemas, each as it was read while that still says the same."""
    return [_write_tool(tool) for tool in tools]


def _write_tool(tool: Tool) -> dict[str, Any]:
    if isinstance(tool.wire, dict):
        held = _read_tool(tool.wire, Where())
        if (held.name, held.description) == (tool.name, tool.description) and same(held.parameters, tool.parameters):
            return tool.wire
    return _canonical(tool)


def _canonical(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}
