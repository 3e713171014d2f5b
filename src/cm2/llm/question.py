"""A question in its forms: what decides its answer, how it is put to a server, and how it is put once more."""

from __future__ import annotations

from typing import Any

from cm2.formats.jsonlines import encode
from cm2.llm.abilities import effort_fields
from cm2.llm.answer import Invalid, final_json, said
from cm2.llm.config import RoleModel
from cm2.llm.neutral import neutral
from cm2.llm.prompt import load
from cm2.llm.request import Check, Request
from cm2.llm.schema import kind_of, violations

LAYOUT = 1
"""Part of every cache key: raised when the same content would mean another question."""
QUOTED = 4_000
"""Characters of an answer that is not valid, and of what is wrong with it, that are quoted back."""


def content(model: RoleModel, request: Request) -> dict[str, Any]:
    """Everything that decides an answer, and nothing else."""
    return {
        "layout": LAYOUT,
        "model": model.model,
        "temperature": model.temperature,
        "top_p": model.top_p,
        "max_tokens": request.max_tokens or model.max_tokens,
        "effort": effort_fields(model, request),
        "extra": model.extra,
        "messages": request.messages,
        "schema": request.schema,
        "sample": request.sample,
    }


def value_of(text: str, request: Request, check: Check | None) -> Any:
    """The value of an answer's text.

    Raises:
        Invalid: it is not what was asked for.
    """
    value: Any = text
    if request.schema is not None:
        value = final_json(text, kind_of(request.schema))
        if wrong := violations(request.schema, value):
            raise Invalid(f"the JSON does not fit the schema: {wrong}")
    if check is not None and (wrong := check(value)):
        raise Invalid(wrong)
    return value


def with_schema(messages: list[dict[str, Any]], schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages with the schema at their end, for servers without a JSON-schema mode."""
    asked = load("cm2.llm", "schema").fill(schema=encode(schema).decode())
    last = messages[-1] if messages else {}
    if last.get("role") == "user" and isinstance(last.get("content"), str):
        return [*messages[:-1], last | {"content": f"{last['content']}\n\n{asked}"}]
    return [*messages, {"role": "user", "content": asked}]


def once_more(request: Request, message: dict[str, Any], problem: str) -> list[dict[str, Any]]:
    """What follows the question after an answer that is not valid: the answer, and what is wrong with it."""
    schema = encode(request.schema).decode() if request.schema is not None else ""
    asked = load("cm2.llm", "repair").fill(problem=neutral(problem[:QUOTED]), schema=schema)
    answered = {"role": "assistant", "content": said(message)[:QUOTED] or "(no answer)"}
    return [answered, {"role": "user", "content": asked}]
