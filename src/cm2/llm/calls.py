"""CallLog: every call as a line of a JSONL file, for whoever wants to know what was asked and said.

Lines are whole and appended at once, so that processes may share the file. Secrets are taken out before anything else.
"""

from __future__ import annotations

import os
import time
from typing import Any

from cm2.errors import DataError, Where
from cm2.formats.jsonlines import encode
from cm2.llm.client import Completion
from cm2.llm.request import Request
from cm2.llm.scrub import scrubbed


class CallLog:
    """The file; without a path nothing is kept.

    Args:
        path: of the file; made where it does not exist.

    Raises:
        DataError: it cannot be written.
    """

    def __init__(self, path: str | None):
        self._file = -1
        if path is None:
            return
        try:
            os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            told = f"the log of calls cannot be written: {error.strerror}"
            raise DataError(told, where=Where(file=path), fix="check `log`") from error

    def call(
        self,
        request: Request,
        further: list[dict[str, Any]],
        key: bytes,
        stage: str,
        replica: str,
        done: Completion,
        cost: float | None,
        problem: str,
    ) -> None:
        """Append one call that was answered; `problem` is what is wrong with the answer."""
        if self._file < 0:
            return
        line = {
            "time": round(time.time(), 3),
            "role": request.role,
            "stage": stage,
            "where": str(request.where or ""),
            "prompt": request.prompt,
            "key": key.hex(),
            "model": replica,
            "tries": done.tries,
            "prompt_tokens": done.prompt_tokens,
            "cached_tokens": done.cached_tokens,
            "completion_tokens": done.completion_tokens,
            "cost": cost,
            "finish": done.finish_reason,
            "problem": problem,
            "messages": [*request.messages, *further],
            "answer": done.message,
        }
        os.write(self._file, encode(scrubbed(line)) + b"\n")

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
