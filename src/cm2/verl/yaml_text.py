"""YamlText: nested settings with reasons as a file that a person reads and verl loads."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

WIDTH = 120


class Noted(msgspec.Struct, frozen=True):
    """A value and why it is so."""

    value: Any
    why: str


def render(tree: dict[str, Any], depth: int = 0) -> str:
    """The tree as YAML; a reason stands behind its value, or above it where the line would be too long."""
    lines: list[str] = []
    indent = "  " * depth
    for name, found in tree.items():
        value, why = (found.value, found.why) if isinstance(found, Noted) else (found, "")
        if isinstance(value, dict) and value:
            lines += _above(indent, why)
            lines += [f"{indent}{name}:", render(value, depth + 1).rstrip("\n")]
            continue
        if isinstance(value, str) and "\n" in value:
            lines += [*_above(indent, why), f"{indent}{name}: |"]
            lines += [f"{indent}  {line}".rstrip() for line in value.rstrip("\n").split("\n")]
            continue
        line = f"{indent}{name}: {_inline(value)}"
        if why and len(line) + len(why) + 4 <= WIDTH:
            line += f"  # {why}"
        else:
            lines += _above(indent, why)
        lines.append(line)
    return "\n".join(lines) + "\n"


def _above(indent: str, why: str) -> list[str]:
    lines, rest = [], why.split()
    while rest:
        line = f"{indent}#"
        while rest and (len(line) + 1 + len(rest[0]) <= WIDTH or line == f"{indent}#"):
            line += " " + rest.pop(0)
        lines.append(line)
    return lines


def _inline(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...").strip()
