"""World: what the rollouts of one group share, so that siblings live in the same place.

A session is one rollout's view of the world. An answer depends on the call and on the writes that the session has made,
in order, and on nothing else: siblings that make the same call after the same writes see the same answer, whoever asked
first. Calls are answered by the first of these that can:

1. a recorded answer to an equal call (`replayed`);
2. an error, where the tool is unknown or the arguments break its schema (`error`);
3. the backend (`simulated`): the embedded fallback, an LLM, or an executable world.

An executable backend keeps the state itself, one copy a session; nothing is then replayed or shared. A backend that
raises is the simulator's failure (`SimulatorError`), never the agent's.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Protocol

import orjson

from cm2.dialogue import Dialogue, Tool, ToolCall, ToolResponse
from cm2.errors import CM2Error
from cm2.judge.values import is_error
from cm2.label.writes import changes_state
from cm2.simulate.fallback import Fallback
from cm2.simulate.replay import Context, Recordings, State, call_key
from cm2.simulate.schema import ArgumentSchema

Writes = Callable[[ToolCall], bool]


class SimulatorError(CM2Error):
    """The simulated world failed to answer: the rollout fails, and the agent is not to blame."""


class Responder(Protocol):
    """One session's side of a backend."""

    def respond(self, call: ToolCall, context: Context) -> str | Awaitable[str]:
        """The tool's answer as text (JSON where the tool speaks JSON; its own errors included).

        The call is well formed, the tool known, the arguments fit its schema. Raise only when the simulator itself
        failed.
        """


class Backend(Protocol):
    """What answers calls that are not replayed. One a world.

    `executable` says that a session owns its state: then `session` makes an independent copy of it, and the world
    neither replays nor shares answers.
    """

    executable: bool

    def session(self) -> Responder:
        """The backend for one rollout."""


class World:
    """The simulated world of one group of rollouts of one task.

    Args:
        dialogue: the reference, whose recorded answers are replayed and whose tools exist.
        backend: what answers the other calls; the embedded fallback where None.
        seed: varies what the fallback makes up.
        writes: tells whether a call changes the world; where None, the tool's name and description do.
    """

    def __init__(
        self, dialogue: Dialogue, *, backend: Backend | None = None, seed: int = 0, writes: Writes | None = None
    ):
        self.dialogue = dialogue
        self.tools = {tool.name: tool for tool in dialogue.tools}
        self._writes = writes
        self._whole_tool: dict[str, bool] = {}
        self._schemas: dict[str, ArgumentSchema] = {}
        self.backend: Backend = Fallback(dialogue, seed, self.is_write) if backend is None else backend
        self.recorded = Recordings(dialogue, self.changed) if not self.backend.executable else None
        self.answers: dict[tuple[str, str], str] = {}
        self.pending: dict[tuple[str, str], asyncio.Future[str]] = {}

    def session(self) -> Session:
        """A new rollout's view of this world, before any call."""
        return Session(self)

    def is_write(self, call: ToolCall) -> bool:
        """Whether this call, if it succeeds, changes the world."""
        if self._writes is not None:
            return self._writes(call)
        can = self._whole_tool.get(call.name)
        if can is None:
            can = self._whole_tool[call.name] = changes_state(self.tools.get(call.name), call.name)
        return can and changes_state(self.tools.get(call.name), call.name, call.arguments)

    def changed(self, call: ToolCall, response: ToolResponse) -> bool:
        """Whether the call did change the world: a write that was not answered with an error."""
        return call.valid and self.is_write(call) and not is_error(response)

    def schema(self, tool: Tool) -> ArgumentSchema:
        """The compiled schema of a tool's arguments."""
        found = self._schemas.get(tool.name)
        if found is None:
            found = self._schemas[tool.name] = ArgumentSchema(tool)
        return found


class Session:
    """One rollout's view of a world: the writes it has made, and nothing else, decide what it sees.

    Raises:
        SimulatorError: the backend failed to start a session.
    """

    def __init__(self, world: World):
        self.world = world
        self.state = State()
        self.writes: list[tuple[ToolCall, str]] = []
        self._asked: dict[tuple[str, str], int] = {}
        try:
            self._backend = world.backend.session()
        except Exception as error:  # see `_ask`
            raise SimulatorError(f"the simulator failed to start: {type(error).__name__}: {error}") from error

    def respond(self, call: ToolCall) -> ToolResponse:
        """Answer a call.

        Raises:
            SimulatorError: the backend failed, or it can only be awaited (`respond_async`).
        """
        key = call_key(call)
        response = self._without_backend(call, key)
        if response is None:
            shared = None if self.world.backend.executable else self.world.answers.get((key, self.state.hash))
            if shared is None:
                answer = self._ask(call)
                if not isinstance(answer, str):
                    if inspect.iscoroutine(answer):
                        answer.close()
                    raise SimulatorError(
                        f"the backend answered {call.name} with {type(answer).__name__} instead of text",
                        fix="an asynchronous backend needs Environment.feed_async",
                    )
                shared = self._share(key, answer)
            response = ToolResponse(shared, call.id, call.name, "simulated")
        return self._remember(call, key, response)

    async def respond_async(self, call: ToolCall) -> ToolResponse:
        """Answer a call with a backend that may be asynchronous; siblings that ask at the same time wait for one."""
        key = call_key(call)
        response = self._without_backend(call, key)
        if response is None:
            text = await (self._awaited(call) if self.world.backend.executable else self._awaited_shared(call, key))
            response = ToolResponse(text, call.id, call.name, "simulated")
        return self._remember(call, key, response)

    async def _awaited_shared(self, call: ToolCall, key: str) -> str:
        place = (key, self.state.hash)
        while place not in self.world.answers:
            waiting = self.world.pending.get(place)
            if waiting is not None:
                await asyncio.wait([waiting])  # a sibling is asking; if it fails or is cancelled we ask ourselves
                continue
            future = self.world.pending[place] = asyncio.get_running_loop().create_future()
            try:
                self._share(key, await self._awaited(call))
            finally:
                del self.world.pending[place]
                future.set_result("")
        return self.world.answers[place]

    async def _awaited(self, call: ToolCall) -> str:
        answer = self._ask(call)
        if not isinstance(answer, str):
            try:
                answer = await answer
            except Exception as error:
                raise _failed(call, error) from error
        return answer

    def _ask(self, call: ToolCall) -> str | Awaitable[str]:
        context = Context(self.world.tools[call.name], self.state, self.writes)
        try:
            return self._backend.respond(call, context)
        except Exception as error:  # a backend is a plug-in: whatever it raises is its own failure, put on record
            raise _failed(call, error) from error

    def _share(self, key: str, answer: str) -> str:
        if self.world.backend.executable:
            return answer
        return self.world.answers.setdefault((key, self.state.hash), answer)  # a sibling's thread may have been first

    def _without_backend(self, call: ToolCall, key: str) -> ToolResponse | None:
        world = self.world
        if world.recorded is not None and key in world.recorded:
            place = (key, self.state.hash)
            nth = self._asked.get(place, 0)
            self._asked[place] = nth + 1
            found = world.recorded.find(key, self.state, nth)
            if found is not None:
                return ToolResponse(found, call.id, call.name, "replayed")
        if not call.valid:
            return error_response(call, f"malformed call: {call.error or 'the arguments are not a JSON object'}")
        tool = world.tools.get(call.name)
        if tool is None:
            names = ", ".join(sorted(world.tools)[:20]) or "none"
            return error_response(call, f"unknown tool '{call.name}'; the tools are: {names}")
        violation = world.schema(tool).violation(call.arguments)
        return error_response(call, f"invalid arguments for {call.name}: {violation}") if violation else None

    def _remember(self, call: ToolCall, key: str, response: ToolResponse) -> ToolResponse:
        if response.origin != "error" and self.world.changed(call, response):
            self.state = self.state.after(key, call.name)
            self.writes = [*self.writes, (call, response.content)]
        return response


def error_response(call: ToolCall, message: str) -> ToolResponse:
    """An error of the environment itself: the agent sees it and may mend the call."""
    return ToolResponse(orjson.dumps({"error": message}).decode(), call.id, call.name, "error")


def _failed(call: ToolCall, error: Exception) -> SimulatorError:
    return SimulatorError(f"the simulator failed to answer {call.name}: {type(error).__name__}: {error}")
