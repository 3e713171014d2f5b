"""Environment: the state machine of one dialogue, the same for every engine.

It holds a transcript that starts with the reference's first user message. An engine shows `messages` to an agent and
feeds back the agent's step:

- a step with calls is answered with tool responses (a malformed call with an error that the agent may mend);
- a step without calls is the turn's final reply: the turn is judged, and if every strict item of it is satisfied the
  reference's next user message follows, else the rollout ends there.

It ends for a reason that somebody owns: `completed`, `strict` or `empty_reply` (owner agent), `limit_turns`,
`limit_steps` or `limit_tokens` (owner limit), or a failure of the simulator, judge, provider or data, which makes the
rollout worth nothing. A turn is judged once, when it ends, however it ends: credit that was earned is never lost.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from cm2.checklist import Task
from cm2.credit import fitting, unmet_strict
from cm2.dialogue import Dialogue, Step, ToolCall, ToolResponse, Turn
from cm2.errors import DataError, Where, told
from cm2.judge import Judge
from cm2.rollout.limits import Limits
from cm2.rollout.trace import Failure, Rollout, Segment
from cm2.simulate.world import error_response
from cm2.verdict import Verdict

Message = dict[str, Any]
DEEPEST = 64


class ToolSession(Protocol):
    """What answers the agent's calls: a `cm2.simulate.Session`."""

    def respond(self, call: ToolCall) -> ToolResponse:
        """The answer, now."""

    async def respond_async(self, call: ToolCall) -> ToolResponse:
        """The answer, possibly later."""


class Observation(msgspec.Struct, frozen=True):
    """What a step led to: messages for the agent to read next, or the end and whose doing it is."""

    new_messages: list[Message]
    done: bool = False
    reason: str = ""
    owner: str = ""


class Environment:
    """See the module.

    Args:
        task: the reference dialogue and its checklists.
        session: this rollout's session of the group's world.
        judge: judges each turn when it ends; without one nothing is judged and no turn is gated.
        limits: when to stop.

    Raises:
        DataError: the reference has no turns, or its checklists cannot be scored (see `cm2.credit.fitting`).
    """

    def __init__(self, task: Task, session: ToolSession, judge: Judge | None = None, limits: Limits | None = None):
        reference = task.dialogue
        if not reference.turns:
            raise DataError("the reference has no user message to start from", where=Where(dialogue=reference.id))
        fitting(task.checklists, len(reference.turns))
        self.task, self.session, self.judge = task, session, judge
        self.limits = Limits() if limits is None else limits
        self.turn = 0
        self.tokens_used = 0
        self.done, self.reason, self.owner = False, "", ""
        self.failure: Failure | None = None
        self.verdicts: list[Verdict] = []
        self.dialogue = Dialogue(
            id=reference.id,
            turns=[Turn(reference.turns[0].user)],
            tools=reference.tools,
            system=reference.system,
            opening=reference.opening,
            source=reference.source,
            meta=reference.meta,
        )
        self.messages: list[Message] = opening_messages(self.dialogue)
        self._judged = False

    def feed(self, step: Step, *, tokens: int = 0, truncated: bool = False) -> Observation:
        """Take the agent's step and answer it.

        Args:
            step: thinking, calls or reply; its responses are ignored. It is not changed.
            tokens: how many tokens the agent generated for it.
            truncated: the step was cut off by a token limit: it is put on record, its calls are not executed, and the
                rollout ends.

        Raises:
            RuntimeError: the rollout has already ended.
        """
        step = self._take(step, tokens, truncated)
        try:
            if not truncated:
                for index, call in enumerate(step.calls):
                    step.responses.append(self._beyond(call, index) or self.session.respond(call))
        except Exception as error:  # a world may be anyone's: its failure is put on record as the simulator's
            return self.fail("simulator", told(error))
        return self._after(step, truncated)

    async def feed_async(self, step: Step, *, tokens: int = 0, truncated: bool = False) -> Observation:
        """`feed`, for worlds whose backend must be awaited."""
        step = self._take(step, tokens, truncated)
        try:
            if not truncated:
                for index, call in enumerate(step.calls):
                    step.responses.append(self._beyond(call, index) or await self.session.respond_async(call))
        except Exception as error:  # see `feed`
            return self.fail("simulator", told(error))
        return self._after(step, truncated)

    def stop(self, reason: str, owner: str) -> Observation:
        """End the rollout from outside (a driver's limit); the turn so far is judged."""
        if not self.done:
            self._judge_turn()
            if not self.done:
                self._end(reason, owner)
        return self._observe([])

    def fail(self, owner: str, message: str, *, fatal: bool = False) -> Observation:
        """End the rollout as worth nothing: the simulator, judge, provider or data failed, not the agent."""
        if self.failure is None:
            self.failure = Failure(owner, message, fatal)
            self._end(owner, owner)
        return self._observe([])

    def record(
        self, *, group: str = "", member: int = 0, seed: int = 0, segments: list[Segment] | None = None
    ) -> Rollout:
        """The rollout so far as a record."""
        return Rollout(
            task=self.task.dialogue.id,
            dialogue=self.dialogue,
            group=group,
            member=member,
            seed=seed,
            checklists=self.task.checklists,
            reference_turns=len(self.task.dialogue.turns),
            verdicts=self.verdicts,
            reason=self.reason,
            owner=self.owner,
            failure=self.failure,
            segments=segments or [],
            generated_tokens=self.tokens_used,
        )

    def _take(self, step: Step, tokens: int, truncated: bool) -> Step:
        if self.done:
            raise RuntimeError(f"the rollout of {self.dialogue.id} has ended ({self.reason}); make a new Environment")
        self.tokens_used += tokens
        turn = self.dialogue.turns[self.turn]
        calls = _identified(step.calls, f"call_{self.turn}_{len(turn.steps)}")
        taken = Step(step.thinking, step.reply, calls, [])
        turn.steps.append(taken)
        self.messages.append(assistant_message(taken))
        return taken

    def _beyond(self, call: ToolCall, index: int) -> ToolResponse | None:
        if index < self.limits.calls:
            return None
        return error_response(call, f"too many calls in one step: only the first {self.limits.calls} were executed")

    def _after(self, step: Step, truncated: bool) -> Observation:
        if truncated:
            return self.stop("limit_tokens", "limit")
        if step.calls:
            new = [tool_message(response) for response in step.responses]
            self.messages += new
            if self._out_of_tokens():
                self.stop("limit_tokens", "limit")
            elif len(self.dialogue.turns[self.turn].steps) >= self.limits.steps:
                self.stop("limit_steps", "limit")
            return self._observe(new)
        return self._end_turn(step)

    def _end_turn(self, step: Step) -> Observation:
        unmet = self._judge_turn()
        reference = self.task.dialogue.turns
        following = self.turn + 1
        if self.done:
            return self._observe([])
        if not (step.reply or "").strip() and reference[self.turn].reply:
            self._end("empty_reply", "agent")
        elif following >= len(reference):
            self._end("completed", "agent")
        elif unmet:
            self._end("strict", "agent")
        elif self.limits.turns is not None and following >= self.limits.turns:
            self._end("limit_turns", "limit")
        elif self._out_of_tokens():
            self._end("limit_tokens", "limit")
        else:
            self.turn, self._judged = following, False
            self.dialogue.turns.append(Turn(reference[following].user))
            message = {"role": "user", "content": reference[following].user}
            self.messages.append(message)
            return self._observe([message])
        return self._observe([])

    def _judge_turn(self) -> bool:
        """Judge the current turn, once; whether a strict item of it is unsatisfied."""
        unmet = False
        if self.judge is None or self._judged:
            return unmet
        self._judged = True
        for checklist in self.task.checklists:
            if checklist.turn != self.turn:
                continue
            try:
                found = self.judge.judge(self.dialogue, self.turn, checklist)
            except Exception as error:  # a judge may be remote or a plug-in: its failure is put on record as its own
                self.fail("judge", f"turn {self.turn}: {told(error)}")
                return unmet
            self.verdicts += found
            unmet = unmet or bool(unmet_strict(checklist, found, len(self.dialogue.turns[self.turn].steps)))
        return unmet

    def _out_of_tokens(self) -> bool:
        return self.limits.tokens is not None and self.tokens_used >= self.limits.tokens

    def _end(self, reason: str, owner: str) -> None:
        self.done, self.reason, self.owner = True, reason, owner

    def _observe(self, new: list[Message]) -> Observation:
        return Observation(new, self.done, self.reason, self.owner)


def opening_messages(dialogue: Dialogue) -> list[Message]:
    """Everything before the agent's first step: system prompt, greeting, first user message."""
    messages: list[Message] = []
    if dialogue.system is not None:
        messages.append({"role": "system", "content": dialogue.system})
    for step in dialogue.opening:
        messages.append(assistant_message(step))
        messages += [tool_message(response) for response in step.responses]
    messages.append({"role": "user", "content": dialogue.turns[0].user})
    return messages


def assistant_message(step: Step) -> Message:
    """An agent's step as an OpenAI-style message; arguments are JSON text, malformed ones as the agent wrote them."""
    message: Message = {"role": "assistant", "content": step.reply if step.reply is not None or step.calls else ""}
    if step.thinking is not None:
        message["reasoning_content"] = step.thinking
    if step.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _arguments(call)}}
            for call in step.calls
        ]
    return message


def tool_message(response: ToolResponse) -> Message:
    """A tool's response as an OpenAI-style message."""
    return {"role": "tool", "tool_call_id": response.call_id, "name": response.name, "content": response.content}


def _arguments(call: ToolCall) -> str:
    return call.raw if call.raw is not None else msgspec.json.encode(call.arguments).decode()


def _identified(calls: list[ToolCall], prefix: str) -> list[ToolCall]:
    """The calls, each with an id of its own: the agent's where it is the only one of that name, else ours."""
    seen: set[str] = set()
    found = []
    for index, call in enumerate(calls):
        id = call.id if call.id and call.id not in seen else f"{prefix}_{index}"
        while id in seen:  # an agent may have given another call the id that is ours
            id += "_"
        seen.add(id)
        if _too_deep(call.arguments):
            raw = call.raw or msgspec.json.encode(call.arguments).decode()
            found.append(ToolCall(call.name, None, id, raw, f"the arguments nest deeper than {DEEPEST} levels"))
        else:
            found.append(ToolCall(call.name, call.arguments, id, call.raw, call.error))
    return found


def _too_deep(value: Any, left: int = DEEPEST) -> bool:
    if isinstance(value, dict):
        return left == 0 or any(_too_deep(item, left - 1) for item in value.values())
    if isinstance(value, list):
        return left == 0 or any(_too_deep(item, left - 1) for item in value)
    return False
