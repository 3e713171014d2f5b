"""A user without a model, for agents that no strong user is worth: it says what it wants, agrees, and leaves.

In tau2-bench it tells its reason and what it knows, then agrees to everything a few times, and ends. In ToolSandbox,
where the scenario says its first words, it leaves at the first answer. `python tests/harness/plain_user.py PORT` serves
it for `--user-base-url http://127.0.0.1:PORT/v1`.
"""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from servers.openai_server import OpenAIServer, Reply, calls, says

AGREES = 3
"""Answers that it agrees to before it ends."""
_PARTS = re.compile(r"(?:Reason for call|Known info):\n((?:\t\t.*\n?)+)")


def user(body: dict[str, Any], _: int) -> Reply:
    """What it says next."""
    messages = body["messages"]
    if any(tool["function"]["name"] == "end_conversation" for tool in body.get("tools") or []):
        return calls(("end_conversation", {}))
    said = sum(one["role"] == "assistant" for one in messages)
    if said == 0:
        told = _PARTS.findall(messages[0]["content"])
        return says(" ".join(" ".join(told).split()) or "I need help.")
    return says("Yes, please go on." if said <= AGREES else "###STOP###")


if __name__ == "__main__":
    with OpenAIServer(user, int(sys.argv[1])) as server:
        print(server.url, flush=True)
        threading.Event().wait()
