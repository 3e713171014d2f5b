"""Backend: what answers the calls that are not replayed, and what it means when it fails."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from cm2.dialogue import ToolCall
from cm2.errors import CM2Error
from cm2.simulate.replay import Context


class SimulatorError(CM2Error):
    """The simulated world failed to answer: the rollout fails, and the agent is not to blame.

    `fatal` says that the next call would fail likewise (a refused key, a budget that is reached).
    """

    def __init__(self, message: str, *, fix: str | None = None, fatal: bool = False):
        super().__init__(message, fix=fix)
        self.fatal = fatal


class Responder(Protocol):
    """One session's side of a backend.

    It may also have `depends(call, context) -> str`: what its answer depends on beside the call and the writes. One
    that has none depends on nothing else.
    """

    def respond(self, call: ToolCall, context: Context) -> str | Awaitable[str]:
        """The tool's answer as text (JSON where the tool speaks JSON; its own errors included).

        The call is well formed, the tool known, the arguments fit its schema. Raise only when the simulator itself
        failed.
        """


class Backend(Protocol):
    """What answers calls that are not replayed. One a world.

    `executable` says that a session owns its state: then `session` makes an independent copy of it, and the world
    neither replays nor shares answers. A backend whose answers must be awaited may say so by `asynchronous = True`, so
    that engines let other rollouts go on meanwhile.
    """

    executable: bool

    def session(self) -> Responder:
        """The backend for one rollout."""
