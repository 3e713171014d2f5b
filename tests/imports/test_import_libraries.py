"""Logs that the libraries themselves write, read back: the shop's agent runs under each tracer, on loopback.

The libraries are not needed to import logs and are not installed with the project. These tests use them where the
interpreter of the tests has them, or another one that $CM2_LIBRARIES_PYTHON names; they skip, saying so, without.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from shop_logs import ARGUMENTS, ASKED, CHAT_TOOLS, DONE, FOUND, LOST, REPLIES, SYSTEM, THOUGHT, expect, run

from cm2.dialogue import Tool
from cm2.formats import read_row

WRITER = Path(__file__).parent / "writers" / "write_log.py"
OTEL = "opentelemetry.exporter.otlp.json.file"
KINDS = {  # what is written: the modules that it takes, what it must read to
    "inspect_eval": (("inspect_ai",), {}),
    "inspect_json": (("inspect_ai",), {}),
    "genai": ((OTEL, "opentelemetry.instrumentation.openai_v2"), {"thinking": False, "given": False}),
    "genai_event": ((OTEL, "opentelemetry.instrumentation.openai_v2"), {"thinking": False, "given": False}),
    "genai_events": ((OTEL, "opentelemetry.instrumentation.openai_v2"), {"thinking": False, "given": False}),
    "openllmetry": ((OTEL, "opentelemetry.instrumentation.openai"), {"thinking": False}),
    "openinference_openai": ((OTEL, "openinference.instrumentation.openai"), {"thinking": False}),
    "openinference_responses": ((OTEL, "openinference.instrumentation.openai"), {}),
    "openinference_anthropic": ((OTEL, "openinference.instrumentation.anthropic"), {}),
    "openinference_langchain": (
        (OTEL, "openinference.instrumentation.langchain", "langchain_openai"),
        {"thinking": False},
    ),
    "langsmith": (("langsmith", "openai"), {"thinking": False}),
    "langsmith_langchain": (("langsmith", "langchain_openai"), {"thinking": False}),
    "langfuse": ((OTEL, "langfuse", "openai"), {"thinking": False}),
}
PYTHON = os.environ.get("CM2_LIBRARIES_PYTHON", sys.executable)


@functools.cache
def missing(modules: tuple[str, ...]) -> str:
    """The first module that the interpreter lacks."""
    for module in modules:
        if subprocess.run([PYTHON, "-c", f"import {module}"], capture_output=True).returncode:
            return module
    return ""


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_library_wrote_reads_back(tmp_path: Path, kind: str) -> None:
    modules, options = KINDS[kind]
    if lacking := missing(modules):
        pytest.skip(f"{lacking} is not installed; name an interpreter that has it in $CM2_LIBRARIES_PYTHON")
    shop = {"system": SYSTEM, "asked": ASKED, "thought": THOUGHT, "replies": REPLIES, "arguments": ARGUMENTS}
    shop |= {"found": FOUND, "lost": LOST, "done": DONE, "tools": CHAT_TOOLS}
    (tmp_path / "shop.json").write_text(json.dumps(shop))
    folder = tmp_path / "logs"
    folder.mkdir()
    command = [PYTHON, str(WRITER), kind, str(tmp_path / "shop.json"), str(folder)]
    written = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert written.returncode == 0, written.stderr[-2000:]
    for empty in [file for file in folder.iterdir() if not file.stat().st_size]:
        empty.unlink()
    found = run(tmp_path, str(folder))
    assert not found.rejected
    row = found.row
    if kind.startswith("inspect"):
        assert row["meta"]["reward"] == 1.0 and row["id"] == "task-s1-1"
        assert {tool.name: required(tool) for tool in read_row(row).tools} == {
            "get_order": ["order_id"],
            "cancel_order": ["order_id"],
        }
        row["tools"] = CHAT_TOOLS  # the library writes the schemas in its own words
    expect(row, **options)


def required(tool: Tool) -> list[str]:
    """The arguments that a tool must have."""
    names: list[str] = tool.parameters.get("required", [])
    return names
