"""World: what the rollouts of one group share, so that siblings live in the same place.

A session is one rollout's view of the world. Calls are answered by the first of these that can:

1. a recorded answer to an equal call (`replayed`);
2. an error, where the tool is unknown or the arguments break its schema (`error`);
3. the answer that this session got to the same call since its last write: a rollout never sees the world waver;
4. the backend (`simulated`): the embedded fallback, a language model, or an executable world.

What a backend answers depends on the call, on the writes that the session has made, in order, and on what the backend
says it looks at besides (`depends`; the fallback looks at nothing else). The group's world keeps each answer under
these three: siblings for whom they are equal see the same answer, and who asked first changes nothing.

An executable backend keeps the state itself, one copy a session; nothing is then replayed or shared. A backend that
raises is the simulator's failure (`SimulatorError`), never the agent's.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable
from typing import Any, Literal

import orjson

from cm2.dialogue import Dialogue, Tool, ToolCall, ToolResponse
from cm2.errors import told
from cm2.llm import BudgetReached, flow
from cm2.simulate.backend import Backend, SimulatorError
from cm2.simulate.effects import Effects, Writes
from cm2.simulate.fallback import Fallback
from cm2.simulate.replay import Context, Heard, Recordings, State, call_key
from cm2.simulate.schema import ArgumentSchema

Replay = Literal["always", "same_state"]
OnFailure = Literal["drop", "error"]
Place = tuple[str, str, str]


class World:
    """The simulated world of one group of rollouts of one task.

    Args:
        dialogue: the reference, whose recorded answers are replayed and whose tools exist.
        backend: what answers the other calls; the embedded fallback where None.
        seed: varies what the fallback makes up.
        writes: tells whether a call changes the world; where None, the tool's name and description do.
        replay: "always" replays a recorded call whatever was written since, from the state that resembles the session's
            most; "same_state" only in the very state that it was recorded in, and leaves the rest to the backend.
        on_failure: what a session does when the backend failed: "drop" raises, which ends the rollout; "error" answers
            with a tool error, keeps the failure (`Session.failed`) and goes on.
    """

    def __init__(
        self,
        dialogue: Dialogue,
        *,
        backend: Backend | None = None,
        seed: int = 0,
        writes: Writes | None = None,
        replay: Replay = "always",
        on_failure: OnFailure = "drop",
    ):
        self.dialogue, self.replay, self.on_failure = dialogue, replay, on_failure
        self.tools = {tool.name: tool for tool in dialogue.tools}
        self.effects = Effects(dialogue, writes)
        self._schemas: dict[str, ArgumentSchema] = {}
        self.fallback = Fallback(dialogue, seed, self.effects.is_write)
        self.backend: Backend = self.fallback if backend is None else backend
        self.recorded = Recordings(dialogue, self.effects.changed) if not self.backend.executable else None
        self.answers: dict[Place, str] = {}
        self.pending: dict[tuple[Place, int], asyncio.Future[None]] = {}

    def session(self) -> Session:
        """A new rollout's view of this world, before any call."""
        return Session(self)

    def schema(self, tool: Tool) -> ArgumentSchema:
        """The compiled schema of a tool's arguments."""
        found = self._schemas.get(tool.name)
        if found is None:
            found = self._schemas[tool.name] = ArgumentSchema(tool)
        return found


class Session:
    """One rollout's view of a world.

    Attributes:
        turn: which turn of the dialogue is being played; whoever plays it says so.
        failed: what the simulator failed at, in order.

    Raises:
        SimulatorError: the backend failed to start a session.
    """

    def __init__(self, world: World):
        self.world = world
        self.turn = 0
        self.state = State()
        self.writes: list[tuple[ToolCall, str]] = []
        self.heard: list[Heard] = []
        self.failed: list[SimulatorError] = []
        self._asked: dict[tuple[str, str], int] = {}
        self._given: dict[tuple[str, str], str] = {}
        try:
            self._backend: Any = world.backend.session()
        except Exception as error:  # see `_ask`
            raise SimulatorError(f"the simulator failed to start: {told(error)}") from error

    @property
    def asynchronous(self) -> bool:
        """Whether an answer may take long (a model is asked)."""
        return bool(getattr(self.world.backend, "asynchronous", False))

    def respond(self, call: ToolCall) -> ToolResponse:
        """Answer a call, now; what must be awaited is awaited on the background loop of `cm2.llm.flow`.

        Raises:
            SimulatorError: the backend failed.
        """
        key = call_key(call)
        response = self._known(call, key)
        if response is None:
            try:
                if self.asynchronous:
                    response = self._simulated(call, key, flow.wait(_off_loop(self._awaited(call, key))))
                else:
                    response = self._simulated(call, key, self._now(call, key))
            except SimulatorError as error:
                response = self._failed(call, error)
        return self._remember(call, key, response)

    async def respond_async(self, call: ToolCall) -> ToolResponse:
        """Answer a call with a backend that may be asynchronous; siblings that ask the same at once wait for one.

        Raises:
            SimulatorError: the backend failed.
        """
        key = call_key(call)
        response = self._known(call, key)
        if response is None:
            try:
                response = self._simulated(call, key, await self._awaited(call, key))
            except SimulatorError as error:
                response = self._failed(call, error)
        return self._remember(call, key, response)

    def _now(self, call: ToolCall, key: str) -> str:
        context = self._context(call)
        place = self._place(call, key, context)
        shared = None if place is None else self.world.answers.get(place)
        if shared is not None:
            return shared
        answer = self._ask(call, context)
        if not isinstance(answer, str):
            answer = flow.wait(_off_loop(_finished(call, answer)))
        return (
            answer if place is None else self.world.answers.setdefault(place, answer)
        )  # a sibling may have been first

    async def _awaited(self, call: ToolCall, key: str) -> str:
        context = self._context(call)
        place = self._place(call, key, context)
        if place is None:
            return await _finished(call, self._ask(call, context))
        under_way = place, id(asyncio.get_running_loop())
        while place not in self.world.answers:
            waiting = self.world.pending.get(under_way)
            if waiting is not None:
                await asyncio.wait([waiting])  # a sibling is asking; if it fails or is cancelled we ask ourselves
                continue
            future = self.world.pending[under_way] = asyncio.get_running_loop().create_future()
            try:
                self.world.answers.setdefault(place, await _finished(call, self._ask(call, context)))
            finally:
                del self.world.pending[under_way]
                future.set_result(None)
        return self.world.answers[place]

    def _context(self, call: ToolCall) -> Context:
        return Context(self.world.tools[call.name], self.state, self.writes, self.turn, list(self.heard))

    def _place(self, call: ToolCall, key: str, context: Context) -> Place | None:
        """What an answer is shared under; None where answers are not shared."""
        if self.world.backend.executable:
            return None
        depends = getattr(self._backend, "depends", None)
        try:
            return key, self.state.hash, depends(call, context) if depends is not None else ""
        except Exception as error:  # see `_ask`
            raise _failure(call, error) from error

    def _ask(self, call: ToolCall, context: Context) -> str | Awaitable[str]:
        try:
            answer: str | Awaitable[str] = self._backend.respond(call, context)
            return answer
        except Exception as error:  # a backend is a plug-in: whatever it raises is its own failure, put on record
            raise _failure(call, error) from error

    def _known(self, call: ToolCall, key: str) -> ToolResponse | None:
        """The answer that no backend is needed for."""
        world, place = self.world, (key, self.state.hash)
        if world.recorded is not None and key in world.recorded:
            nth = self._asked.get(place, 0)
            found = world.recorded.find(key, self.state, nth, exactly=world.replay == "same_state")
            if found is not None:
                self._asked[place] = nth + 1
                return ToolResponse(found, call.id, call.name, "replayed")
        if not call.valid:
            return error_response(call, f"malformed call: {call.error or 'the arguments are not a JSON object'}")
        tool = world.tools.get(call.name)
        if tool is None:
            names = ", ".join(sorted(world.tools)[:20]) or "none"
            return error_response(call, f"unknown tool '{call.name}'; the tools are: {names}")
        violation = world.schema(tool).violation(call.arguments)
        if violation:
            return error_response(call, f"invalid arguments for {call.name}: {violation}")
        given = self._given.get(place)
        return None if given is None else ToolResponse(given, call.id, call.name, "simulated")

    def _simulated(self, call: ToolCall, key: str, content: str) -> ToolResponse:
        if not self.world.backend.executable:
            self._given[key, self.state.hash] = content
        return ToolResponse(content, call.id, call.name, "simulated")

    def _failed(self, call: ToolCall, error: SimulatorError) -> ToolResponse:
        self.failed.append(error)
        if self.world.on_failure == "drop" or error.fatal:
            raise error
        content = self.world.fallback.error(call, f"{call.name} is temporarily unavailable")
        return ToolResponse(content, call.id, call.name, "error")

    def _remember(self, call: ToolCall, key: str, response: ToolResponse) -> ToolResponse:
        if response.origin == "error":
            return response
        self.heard.append(Heard(call, response.content, len(self.writes)))
        if self.world.effects.changed(call, response):
            self.state = self.state.after(key, call.name)
            self.writes = [*self.writes, (call, response.content)]
        return response


async def _finished(call: ToolCall, answer: str | Awaitable[str]) -> str:
    """The answer of a backend, awaited where it must be."""
    try:
        return answer if isinstance(answer, str) else await answer
    except Exception as error:  # see `Session._ask`
        raise _failure(call, error) from error


def _off_loop(work: Any) -> Any:
    """The coroutine, unless this is the very loop that it would be waited for on."""
    try:
        here = asyncio.get_running_loop()
    except RuntimeError:
        return work
    if here is flow.loop():
        if inspect.iscoroutine(work):
            work.close()
        raise SimulatorError("a world that asks a model cannot be waited for here", fix="use Environment.feed_async")
    return work


def error_response(call: ToolCall, message: str) -> ToolResponse:
    """An error of the environment itself: the agent sees it and may mend the call."""
    return ToolResponse(orjson.dumps({"error": message}).decode(), call.id, call.name, "error")


def _failure(call: ToolCall, error: Exception) -> SimulatorError:
    if isinstance(error, SimulatorError):
        return error
    fatal = isinstance(error, BudgetReached) or bool(getattr(error, "fatal", False))
    return SimulatorError(f"the simulator failed to answer {call.name}: {told(error)}", fatal=fatal)
