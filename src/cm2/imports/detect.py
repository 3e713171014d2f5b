"""Detect: which format a record has, told by the fields that only this format has together.

Each record is asked for itself, since files mix: a folder of traces, observations and scores, a log of two APIs. Where
the user names the format, a record need only have what the format's reader needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cm2.imports import chat_rows, datasets, inspect_ai, langfuse, langsmith, mcp, openinference, tau
from cm2.imports.spans import Span, is_record, is_span
from cm2.imports.text import as_dict

FORMATS = (
    *("openai", "responses", "anthropic", "otel", "openinference", "langfuse", "langsmith", "phoenix", "inspect"),
    *("tau", "huggingface", "mcp"),
)
CHAT = ("openai", "responses", "anthropic")


def is_annotation(value: dict[str, Any]) -> bool:
    """Whether an object is an annotation of Phoenix."""
    named = "annotation_name" in value or ("name" in value and "annotator_kind" in value)
    return named and ("span_id" in value or "trace_id" in value)


def is_phoenix(value: dict[str, Any]) -> bool:
    """Whether an object is a span as Phoenix exports it: columns, or `span_kind` beside the context."""
    return is_annotation(value) or "context.span_id" in value or (is_span(value) and "span_kind" in value)


def detect(value: Any) -> str | None:
    """The format of a record, None where it is none."""
    if not isinstance(value, dict):
        return chat_rows.dialect(value) if chat_rows.is_row(value) else None
    for format, told in _TOLD:
        if told(value):
            return format
    if is_span(value):
        return "openinference" if _has_openinference(value) else "otel"
    if is_record(value) and "messages" not in value:
        return "otel"
    if datasets.is_row(value):
        return datasets.FORMAT
    return chat_rows.dialect(value) if chat_rows.is_row(value) else None


def _has_openinference(value: dict[str, Any]) -> bool:
    found = value.get("attributes")
    names = [as_dict(one).get("key") for one in found] if isinstance(found, list) else as_dict(found)
    return "openinference.span.kind" in names or "openinference" in names


_TOLD: tuple[tuple[str, Callable[[dict[str, Any]], bool]], ...] = (
    ("mcp", mcp.is_record),
    ("tau", tau.is_run),
    ("inspect", inspect_ai.is_sample),
    ("langsmith", lambda value: langsmith.is_run(value) or langsmith.is_feedback(value)),
    ("langfuse", lambda value: langfuse.is_observation(value) or langfuse.is_score(value)),
    ("phoenix", is_phoenix),
    ("langfuse", langfuse.is_trace),
)


def fits(format: str, value: Any) -> bool:
    """Whether a record can be of the format that the user named."""
    if format in CHAT:
        return isinstance(value, (dict, list)) and chat_rows.is_row(value)
    if not isinstance(value, dict):
        return False
    if format in ("otel", "openinference"):
        return is_span(value) or is_record(value)
    if format == "phoenix":
        return is_phoenix(value) or is_span(value)
    if format == "huggingface":
        return datasets.is_row(value) or isinstance(value.get("messages"), (list, str))
    if format == "langfuse":
        loose = ("input" in value or "output" in value) and "id" in value
        return loose or any(told(value) for name, told in _TOLD if name == format)
    return any(told(value) for name, told in _TOLD if name == format)


def speaks(span: Span) -> bool:
    """Whether a span is about a model, a tool or an agent at all (others are HTTP, databases, …)."""
    if span.kind in openinference.KINDS:
        return True
    told = ("gen_ai", "llm", "openinference", "traceloop", "ai", "langfuse", "tool", "input")
    return any(key in span.attributes for key in told) or any(event.name.startswith("gen_ai.") for event in span.events)
