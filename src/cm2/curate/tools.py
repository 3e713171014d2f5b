"""The tools of a row, compiled: what is wrong with them, and whether arguments fit.

Rows of a data set share tools, and often whole tool lists. So a list is kept by the bytes of its JSON, and a schema by
the bytes of the schema. Verdicts on calls are never kept: they belong to the row.

Validation is jsonschema-rs (see `cm2.formats.schema`): draft 2020-12 unless the schema names another. A schema is
checked at once, and compiled when it is first called.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import msgspec
import orjson

from cm2.curate.finding import Finding, Findings
from cm2.curate.wire import Data
from cm2.formats.jsonlines import encode, parse
from cm2.formats.schema import BROKEN, compile_schema, is_schema

_LOOSE = ("required", "additionalProperties", "type", "anyOf", "oneOf")
KEPT_LISTS, KEPT_SCHEMAS = 512, 2048
"""Lists and schemas that are kept; at some 20 kB each they stay below 50 MB."""


class Schema(msgspec.Struct):
    """A schema by its JSON, or why there is none: `problem` is a finding of the tool, `remote` only a flag. Without
    `text` there is nothing to check arguments against."""

    text: bytes = b""
    problem: Finding | None = None
    remote: bool = False
    validator: Any = None

    def fits(self, arguments: Any) -> bool:
        """Whether arguments fit; no where that cannot be told."""
        try:
            if self.validator is None:
                self.validator = compile_schema(orjson.loads(self.text))
            fits: bool = self.validator.is_valid(arguments)
            return fits
        except (ValueError, OverflowError, RecursionError):
            return False

    def violations(self, arguments: Any) -> Iterator[tuple[str, str]]:
        """(rule, sentence) for each place where the arguments do not fit."""
        try:
            if self.validator is None:
                self.validator = compile_schema(orjson.loads(self.text))
            for error in self.validator.iter_errors(arguments):
                yield _violation(error)
        except (ValueError, OverflowError, RecursionError) as error:
            yield "tool_schema", f"the arguments cannot be checked: {_short(str(error))}"


def _violation(error: Any) -> tuple[str, str]:
    place = error.instance_path
    rule = "tool_schema" if error.kind.name in _LOOSE and len(place) <= 1 else "tool_schema_strict"
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")
    return rule, f"argument '{text}': {_short(error.message)}" if text else _short(error.message)


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:197]}…"


@lru_cache(maxsize=KEPT_SCHEMAS)
def _schema(text: bytes) -> Schema:
    if text in (b"", b"null", b"{}"):
        return Schema()
    value, _ = parse(text)
    if not isinstance(value, (dict, bool)):
        return Schema(problem=Finding("tool_schema", "the parameters are no JSON Schema object"))
    # The meta-schema tells all that can be wrong with a schema, but for references, dialects and regular expressions.
    if b'"$' not in text and b'"pattern' not in text and is_schema(value):
        return Schema(text)
    try:
        return Schema(text, validator=compile_schema(value))
    except BROKEN as error:
        reason = str(error).split("\n", 1)[0]
        if "is not present in a registry" in reason or "Unknown meta-schema" in reason:
            return Schema(remote=True)
        rule = "tool_schema_strict" if "does not exist" in reason or "Recursion limit" in reason else "tool_schema"
        return Schema(problem=Finding(rule, f"the parameters are a broken JSON Schema: {_short(reason)}"))


class Tools(msgspec.Struct):
    """A row's tools by name, and what was found in the list itself."""

    schemas: dict[str, Schema] = {}
    violations: list[Finding] = []
    flags: list[Finding] = []
    structure: str | None = None
    """Why this is no list of tools at all."""
    broken: bool = False
    """Whether something else stands where the list should, rather than nothing."""


class _Function(msgspec.Struct, gc=False):
    name: str
    description: Any = None
    parameters: msgspec.Raw | bytes = b""


class _TypedFunction(_Function, gc=False):
    parameters: msgspec.Raw = msgspec.Raw()


class _Tool(msgspec.Struct, gc=False):
    function: _TypedFunction


class _Metadata(msgspec.Struct):
    tools: msgspec.Raw


_typed = msgspec.json.Decoder(list[_Tool]).decode
_metadata = msgspec.json.Decoder(_Metadata).decode
_text = msgspec.json.Decoder(str).decode
_UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)


def tools_of(data: Data) -> Tools:
    """The tools of a row: `tools`, or those in its `metadata`; either may be JSON text in JSON."""
    if data.tools:
        return _from_tools(bytes(data.tools))
    if data.metadata:
        return _from_metadata(bytes(data.metadata))
    return Tools(structure="the row has no 'tools'")


@lru_cache(maxsize=KEPT_LISTS)
def _from_tools(text: bytes) -> Tools:
    text = _inner(text)
    try:
        functions: list[Any] = [tool.function for tool in _typed(text)]
    except _UNREADABLE:
        value, error = parse(text)
        if not isinstance(value, list):
            nothing = error is None and value is None
            return Tools(structure=f"'tools' is {error or ('null' if nothing else 'not a list')}", broken=not nothing)
        functions = [_function(tool) for tool in value]
    return _listed(functions)


@lru_cache(maxsize=KEPT_LISTS)
def _from_metadata(text: bytes) -> Tools:
    inner = _inner(text)
    ours = inner is not text and inner.lstrip().startswith(b"{")  # else it is some other format's metadata
    try:
        tools = bytes(_metadata(inner).tools)
    except _UNREADABLE:
        broken = ours and parse(inner)[1] is not None
        return Tools(structure="'metadata' is not JSON" if broken else "'metadata' holds no 'tools'", broken=broken)
    found = _from_tools.__wrapped__(tools)  # the metadata is what is kept
    found.broken = found.broken and ours
    return found


def _inner(text: bytes) -> bytes:
    """JSON text in JSON, unwrapped."""
    if not text.startswith(b'"'):
        return text
    try:
        return _text(text).encode()
    except _UNREADABLE:
        return text


def _function(tool: Any) -> _Function | str:
    """A tool that the types refuse, or what is wrong with it."""
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict):
        return "the tool is not {'type': 'function', 'function': {…}}"
    name = function.get("name")
    if not isinstance(name, str):
        return "the tool has no name"
    return _Function(name, function.get("description"), encode(function.get("parameters")))


def _listed(functions: list[_Function | str]) -> Tools:
    found = Findings()
    schemas: dict[str, Schema] = {}
    descriptions = set()
    named = []
    for index, function in enumerate(functions):
        if isinstance(function, str) or not function.name.strip():
            message = function if isinstance(function, str) else "the tool has no name"
            found.reject("tool_schema", message, f"tools[{index}]")
            continue
        schema = _schema(bytes(function.parameters))
        if schema.problem is not None:
            found.reject(schema.problem.rule, schema.problem.message, f"tools[{index}].function.parameters")
        elif schema.remote:
            message = "the schema points to another document, which is not fetched: arguments are not checked"
            found.flag("remote_ref", message, f"tools[{index}].function.parameters")
        if function.name in schemas:
            found.reject("duplicate_tools_by_name", f"a second tool is named '{function.name}'", f"tools[{index}]")
        schemas.setdefault(function.name, schema)
        descriptions.add(str(function.description))
        named.append((index, function))
    if min(len(schemas), len(descriptions)) < len(named):
        _twins(named, found)
    return Tools(schemas, found.violations, found.flags)


def _twins(named: list[tuple[int, _Function]], found: Findings) -> None:
    contents: dict[bytes, str] = {}
    for index, function in named:
        keys = contents_of(function.name, function.description, parse(bytes(function.parameters))[0])
        twin = next((contents[key] for key in keys if key in contents), None)
        if twin is not None:
            message = f"the parameters of '{twin}', offered again"
            found.reject("duplicate_tools_by_schema", message, f"tools[{index}]")
        contents.update(dict.fromkeys(keys, function.name))


def contents_of(name: Any, description: Any, parameters: Any) -> list[bytes]:
    """What makes two tools the same: name and parameters, or description and parameters under another name.

    Parameters alone do not: many tools take one id.
    """
    said = [name]
    if description and isinstance(parameters, dict) and parameters.get("properties"):
        said.append(description)
    try:
        return [orjson.dumps([n, each, parameters], option=orjson.OPT_SORT_KEYS) for n, each in enumerate(said)]
    except (TypeError, RecursionError):  # a lone surrogate or endless nesting: the schema rule tells
        return []
