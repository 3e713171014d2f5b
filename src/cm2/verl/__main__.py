"""`python -m cm2.verl check [RUN/verl.yaml] [KEY=VALUE …] [--json]`: whether verl takes plug-in and configuration.

Exit code 0 where nothing is bad, 1 where something is, 2 for wrong use. Run it where verl is installed; elsewhere it
says that it did not look.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import orjson

from cm2.verl.check import Report, check


def main(arguments: list[str]) -> int:
    """The exit code."""
    as_json = "--json" in arguments
    words = [word for word in arguments if word != "--json"]
    if not words or words[0] != "check":
        print(__doc__, file=sys.stderr)
        return 2
    files = [word for word in words[1:] if "=" not in word]
    if len(files) > 1:
        print(f"one configuration at a time: {', '.join(files)}", file=sys.stderr)
        return 2
    report = check(files[0] if files else None, [word for word in words[1:] if "=" in word])
    if as_json:
        print(orjson.dumps(summary(report)).decode())
    else:
        print("\n".join(lines(report)))
    return 0 if report.good else 1


def summary(report: Report) -> dict[str, Any]:
    """The report as JSON values."""
    return {"good": report.good, "complete": report.complete, "lines": msgspec.to_builtins(report.lines)}


def lines(report: Report) -> list[str]:
    """The report for a person."""
    return [f"{line.outcome:<12} {line.what}{': ' if line.said else ''}{line.said}" for line in report.lines]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
