"""Effects: which calls change the world that a dialogue happens in.

A call changes it when it is a write (its tool's name and description say so, or whoever made the world does) and was
not answered with an error.
"""

from __future__ import annotations

from collections.abc import Callable

from cm2.dialogue import Dialogue, ToolCall, ToolResponse
from cm2.judge.values import is_error
from cm2.writes import changes_state

Writes = Callable[[ToolCall], bool]


class Effects:
    """See the module.

    Args:
        dialogue: whose tools are called.
        writes: tells whether a call is a write; where None, the tool's name and description do.
    """

    def __init__(self, dialogue: Dialogue, writes: Writes | None = None):
        self._tools = {tool.name: tool for tool in dialogue.tools}
        self._writes = writes
        self._whole_tool: dict[str, bool] = {}

    def is_write(self, call: ToolCall) -> bool:
        """Whether this call, if it succeeds, changes the world."""
        if self._writes is not None:
            return self._writes(call)
        tool = self._tools.get(call.name)
        can = self._whole_tool.get(call.name)
        if can is None:
            can = self._whole_tool[call.name] = changes_state(tool, call.name)
        return can and changes_state(tool, call.name, call.arguments)

    def changed(self, call: ToolCall, response: ToolResponse) -> bool:
        """Whether the call did change the world."""
        return call.valid and self.is_write(call) and not is_error(response)
