"""GitHub: a gate's result as annotations of a workflow.

An annotation is a workflow command on a line of its own, `::error file=…,title=…::message`. What stands in a dialogue
may hold line ends and `::`; escaped as the runner wants it (`%25`, `%0D`, `%0A`, and `%3A`, `%2C` in properties) it
stays inside the message. Whatever else is printed stands between `::stop-commands::TOKEN` and `::TOKEN::`, with a token
that no dialogue knows.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from cm2.assure.gate_case import Case, GateResult, Rule

SHOWN = 10
"""GitHub shows ten errors and ten warnings of a step; what is beyond is only counted."""
LONGEST = 1000
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029]")


def annotated(result: GateResult) -> Iterator[str]:
    """The lines of the workflow commands: first the rules that failed, then the failing cases, critical ones first,
    and flaky ones as warnings."""
    errors = [_of_rule(result, rule) for rule in result.ruled("failed") + result.ruled("undecided")]
    failing = result.with_status("failed")
    errors += [_of_case(result, case, "error") for case in failing]
    yield from _most(errors, "error")
    yield from _most([_of_case(result, case, "warning") for case in result.with_status("flaky")], "warning")


def _most(lines: list[str], level: str) -> Iterator[str]:
    if len(lines) <= SHOWN:
        yield from lines
        return
    yield from lines[: SHOWN - 1]
    yield command(level, f"and {len(lines) - SHOWN + 1} more", title="cm2 gate")


def _of_rule(result: GateResult, rule: Rule) -> str:
    message = rule.message + (f" ({rule.owner})" if rule.owner else "")
    file, line = duty_line(result.policy, rule.name.rpartition(": ")[0])
    return command("error", message, title=f"{result.suite} {rule.state}: {rule.name}", file=file, line=line)


def _of_case(result: GateResult, case: Case, level: str) -> str:
    where = f"{case.dialogue}, {case.where}" if case.where else case.dialogue
    message = f"{where}: {case.reason}" + (f" ({case.owner})" if case.owner else "")
    what = "flaky" if case.status == "flaky" else "newly failing" if case.new else "fails"
    file, line = duty_line(result.policy, case.duty)
    return command(level, message, title=f"{case.severity} duty {what}: {case.duty}", file=file, line=line)


def command(level: str, message: str, *, title: str = "", file: str | None = None, line: int | None = None) -> str:
    """A workflow command, with the message and its properties escaped."""
    properties = {"file": file, "line": None if line is None else str(line), "title": title or None}
    told = ",".join(f"{name}={_property(value)}" for name, value in properties.items() if value)
    return f"::{level} {told}::{_data(message[:LONGEST])}" if told else f"::{level}::{_data(message[:LONGEST])}"


def _data(text: str) -> str:
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return _CONTROL.sub(" ", text).encode("utf-8", "replace").decode()


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


@lru_cache(maxsize=4096)
def duty_line(policy: str | None, duty: str) -> tuple[str | None, int | None]:
    """Where in the policy's file a duty stands: the path as the repository knows it, and the line."""
    if policy is None:
        return None, None
    path = os.path.relpath(policy, os.environ.get("GITHUB_WORKSPACE") or os.getcwd())
    try:
        lines = Path(policy).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None, None
    named = re.compile(rf"""\s*(?:-\s+)?["']?id["']?:\s*["']?{re.escape(duty)}["']?\s*(?:#.*)?$""")
    return path, next((number for number, line in enumerate(lines, 1) if named.match(line)), 1)


@contextmanager
def no_commands(say: Callable[[str], None]) -> Iterator[None]:
    """While this holds, the runner takes nothing that is printed for a command."""
    token = secrets.token_hex(16)
    say(f"::stop-commands::{token}")
    try:
        yield
    finally:
        say(f"::{token}::")


def append_summary(markdown: str) -> bool:
    """Append to the job's summary; False where this is no workflow."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return False
    with open(path, "a", encoding="utf-8", errors="replace") as file:
        file.write(markdown + "\n")
    return True
