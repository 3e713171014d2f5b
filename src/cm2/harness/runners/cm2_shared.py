"""What the runners share: the settings they are given, thinking in an assistant's message, and whose error it was.

Runs inside a harness's environment, where cm2 is not installed: nothing but the standard library here.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
from typing import Any

FIELDS = ("reasoning_content", "reasoning")
"""Where servers put thinking; it goes back under the name it came under."""
CONTEXT = re.compile(
    r"context_length_exceeded|maximum context length|context (?:size|window|length)|too many tokens|prompt is too long"
    r"|exceeds? the (?:model's )?(?:maximum|available) (?:context|length)|input length",
    re.IGNORECASE,
)


def settings() -> dict[str, Any]:
    """The settings in the file that the command line names. Ends this process when the one that started it is gone."""
    threading.Thread(target=_watch, daemon=True).start()
    with open(sys.argv[1], encoding="utf-8") as file:
        found: dict[str, Any] = json.load(file)
    return found


def _watch() -> None:
    """Whoever started this holds the other end of standard input; when it was killed nobody will read what we write."""
    while os.read(0, 1):  # not the buffered reader, which the end of the interpreter would find locked
        pass
    os.killpg(os.getpgid(0), signal.SIGKILL)


def check_tasks(asked: list[str], there: set[str]) -> None:
    """End with a sentence where a task was asked for that is not among those that are run, or none is left to run."""
    missing = sorted(set(asked) - there)
    if missing or not there:
        sys.exit(f"no such task in what is run here: {', '.join(missing)}" if missing else "there is no task to run")


def visible(content: str | None) -> str:
    """What a user sees of an answer whose thinking stands in the text."""
    text = (content or "").encode("utf-8", "replace").decode()  # half of a surrogate pair cannot be written down
    if "</think>" in text:  # it may have been opened in the prompt
        text = text.rpartition("</think>")[2].lstrip()
    return text.partition("<think>")[0]  # what was cut off while it thought


def thinking(message: Any) -> dict[str, str]:
    """The fields of an answer that hold thinking apart from the text."""
    found = {}
    for name in FIELDS:
        value = message.get(name) if isinstance(message, dict) else getattr(message, name, None)
        if isinstance(value, str) and value:
            found[name] = value
    return found


def broken(calls: Any) -> bool:
    """Whether one of the calls has arguments that are no JSON object."""
    return not all(is_object(call.function.arguments or "{}") for call in calls or [])


def is_object(text: str) -> bool:
    """Whether a text is a JSON object.

    NaN, Infinity and half of a surrogate pair are no JSON, though Python reads them: harnesses compare answers (NaN
    differs from itself), write them as UTF-8 or as Python, and would break down later.
    """
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict)


def remembered(message: Any, keep: bool) -> dict[str, Any]:
    """The assistant's message as it goes back into the history: with its thinking, or without any trace of it.

    Calls that do not read as JSON go back as text: no tool answers them, and servers refuse a history that holds them.
    """
    made: dict[str, Any] = {"role": "assistant", "content": message.content if keep else _less(message.content)}
    calls = message.tool_calls or []
    if broken(calls):
        told_calls = [f"{call.function.name}({call.function.arguments})" for call in calls]
        made["content"] = "\n".join(filter(None, [made["content"], *told_calls]))
    elif calls:
        made["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": call.function.arguments or "{}"},
            }
            for call in calls
        ]
    return made | (thinking(message) if keep else {})


def _less(content: str | None) -> str | None:
    return None if content is None else visible(content)


def owner(error: BaseException) -> str:
    """Whose error it was that a request ended in: a prompt that outgrew the model's window is the agent's own.

    Everything else that a request can raise lies between the harness and the model.
    """
    status = getattr(error, "status_code", None)
    return "agent" if status in (400, 413, 422) and CONTEXT.search(str(error)) else "infrastructure"


def told(error: BaseException) -> str:
    """An error in one line, with the cause that the client hides behind `Connection error.`"""
    text = f"{type(error).__name__}: {error}"
    cause = error.__cause__
    if cause is not None and str(cause) and str(cause) not in text:
        text += f" ({type(cause).__name__}: {cause})"
    return " ".join(text.split())[:500]
