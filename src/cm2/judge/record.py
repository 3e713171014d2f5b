"""Record: a state as plain values, the form in which expressions read it.

Only what has happened stands in it: in a turn, all earlier turns and this one so far; in a whole dialogue, all of it.

- `calls`: every tool call in order, each with
  `index` (running number over the dialogue), `turn`, `step`, `tool`, `args` (an object; empty where malformed),
  `ok` (well-formed, answered, and not by an error), `error` (the text of an error, else ""),
  `result` (the answer as JSON values, or its text; null without one), `text` (the answer as text),
  `writes` (whether such a call changes the world, see `cm2.writes`),
  `user` (the latest user message before it), `said` (what the agent had last said before that step),
  `beside` (what the agent said in the same step).
- `writes`: those of `calls` that change the world and were `ok`.
- `users`: every user message: `turn`, `text`.
- `replies`: everything that the agent said: `turn`, `step`, `text`, `final` (it ended the turn).
- `reply`: the final reply of the turn, of a whole dialogue the last one; "" where there is none.
- `tools`: the names of the tools; `system`: the system message, or "".
- `turn`: the turn that is judged; -1 for a whole dialogue.
"""

from __future__ import annotations

from typing import Any

from cm2.dialogue import Step, ToolCall
from cm2.judge.scope import State, final_reply
from cm2.judge.values import is_error, parsed
from cm2.verdict import WHOLE
from cm2.writes import changes_state

_BIG = 1 << 63


def record(state: State) -> dict[str, Any]:
    """The state as plain values. Shared between expressions: nobody may change it."""
    dialogue = state.dialogue
    tools = {tool.name: tool for tool in reversed(dialogue.tools)}
    calls: list[dict[str, Any]] = []
    users: list[dict[str, Any]] = []
    replies: list[dict[str, Any]] = []
    said = next((step.reply for step in reversed(dialogue.opening) if step.reply), "") or ""
    last = len(dialogue.turns) if state.turn == WHOLE else state.turn + 1
    for t, turn in enumerate(dialogue.turns[:last]):
        users.append({"turn": t, "text": turn.user})
        steps = state.steps if t == state.turn else turn.steps
        for s, step in enumerate(steps):
            for i, call in enumerate(step.calls):
                place = {"index": len(calls), "turn": t, "step": s, "user": turn.user, "said": said}
                calls.append(place | _call(step, i, call, tools.get(call.name)))
            if step.reply:
                final = s == len(steps) - 1 and final_reply(steps) is not None
                replies.append({"turn": t, "step": s, "text": step.reply, "final": final})
                said = step.reply
    ended = [one["text"] for one in replies if one["final"] and state.turn in (WHOLE, one["turn"])]
    return {
        "calls": calls,
        "writes": [call for call in calls if call["writes"] and call["ok"]],
        "users": users,
        "replies": replies,
        "reply": ended[-1] if ended else "",
        "tools": [tool.name for tool in dialogue.tools],
        "system": dialogue.system or "",
        "turn": state.turn,
    }


def _call(step: Step, i: int, call: ToolCall, tool: Any) -> dict[str, Any]:
    response = step.response_to(i)
    failed = response is not None and is_error(response)
    args = call.arguments if call.valid else {}
    return {
        "tool": call.name,
        "args": args,
        "ok": call.valid and response is not None and not failed,
        "error": (response.content if failed and response else "") or (call.error or ""),
        "result": parsed(response.content) if response is not None else None,
        "text": response.content if response is not None else "",
        "writes": changes_state(tool, call.name, args),
        "beside": step.reply or "",
    }


def storable(value: Any) -> Any:
    """The values without what no expression can hold: half surrogate pairs and integers of more than 64 bits."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and not -_BIG <= value < _BIG:
        return float(value) if abs(value) < 1 << 1000 else float("inf")
    if isinstance(value, dict):
        return {storable(key): storable(one) for key, one in value.items()}
    if isinstance(value, list):
        return [storable(one) for one in value]
    return value
