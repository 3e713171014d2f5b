"""Environment: the state machine of one dialogue, the same for every engine.

It holds a transcript that starts with the reference's first user message. An engine shows `messages` to an agent and
feeds back the agent's step:

- a step with calls is answered with tool responses (a malformed call with an error that the agent may mend);
- a step without calls is the turn's final reply: the turn is judged, and if every strict item of it is satisfied the
  reference's next user message follows, else the rollout ends there.

It ends for a reason that somebody owns: `completed`, `strict` or `empty_reply` (owner agent), `limit_turns`,
`limit_steps` or `limit_tokens` (owner limit), or a failure of the simulator, judge, provider or data, which makes the
rollout worth nothing. A turn is judged once, when it ends, however it ends: credit that was earned is never lost.

There is one flow of control, written as coroutines. `feed` and `stop` run it to its end at once, with a session and a
judge that answer at once (one that asks a model then waits on its own, and must not be on the door's event loop);
`feed_async` and `stop_async` await both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

import msgspec

from cm2.checklist import Checklist, Task
from cm2.credit import fitting, unmet_strict
from cm2.dialogue import Dialogue, Step, ToolCall, ToolResponse, Turn
from cm2.errors import DataError, Where, told
from cm2.judge import Judge
from cm2.judge.judge import during
from cm2.llm import BudgetReached, ProviderError
from cm2.rollout.calls import identified
from cm2.rollout.limits import Limits
from cm2.rollout.messages import Message, assistant_message, opening_messages, tool_message
from cm2.rollout.trace import Failure, Rollout, Segment
from cm2.simulate.world import error_response
from cm2.verdict import Verdict

Respond = Callable[[ToolCall], Awaitable[ToolResponse]]
JudgeOne = Callable[[Checklist], Awaitable[list[Verdict]]]


class ToolSession(Protocol):
    """What answers the agent's calls: a `cm2.simulate.Session`.

    `turn` is set to the turn that the calls belong to. It may have `failed`: errors of its own that the agent was
    answered with, which cost the rollout.
    """

    turn: int

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
        ConfigError: the judge is one for dialogues that are over.
    """

    def __init__(self, task: Task, session: ToolSession, judge: Judge | None = None, limits: Limits | None = None):
        reference = task.dialogue
        if not reference.turns:
            raise DataError("the reference has no user message to start from", where=Where(dialogue=reference.id))
        fitting(task.checklists, len(reference.turns))
        during(judge)
        self.task, self.session, self.judge = task, session, judge
        self.limits = Limits() if limits is None else limits
        self.turn = 0
        self.tokens_used = 0
        self.done, self.reason, self.owner = False, "", ""
        self.failure: Failure | None = None
        self.broke: BudgetReached | None = None
        """That the judge had no money left, where that was it: no further rollout is worth starting."""
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

    @property
    def asynchronous(self) -> bool:
        """Whether an answer may take long: the judge or the session asks a model (`feed_async` lets others go on)."""
        return hasattr(self.judge, "judge_async") or bool(getattr(self.session, "asynchronous", False))

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
        return _at_once(self._feed(step, tokens, truncated, self._respond_now, self._judge_now))

    async def feed_async(self, step: Step, *, tokens: int = 0, truncated: bool = False) -> Observation:
        """`feed`, for worlds and judges that must be awaited."""
        return await self._feed(step, tokens, truncated, self.session.respond_async, self._judge_later)

    def stop(self, reason: str, owner: str) -> Observation:
        """End the rollout from outside (a driver's limit); the turn so far is judged."""
        return _at_once(self._stop(reason, owner, self._judge_now))

    async def stop_async(self, reason: str, owner: str) -> Observation:
        """`stop`, for judges that must be awaited."""
        return await self._stop(reason, owner, self._judge_later)

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
        if failed := getattr(self.session, "failed", None):
            self.fail("simulator", f"{len(failed)} of the agent's calls had no answer; the first: {told(failed[0])}")
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

    async def _feed(self, step: Step, tokens: int, truncated: bool, respond: Respond, judge: JudgeOne) -> Observation:
        step = self._take(step, tokens, truncated)
        try:
            if not truncated:
                for index, call in enumerate(step.calls):
                    step.responses.append(self._beyond(call, index) or await respond(call))
        except Exception as error:  # a world may be anyone's: its failure is put on record as the simulator's
            return self.fail("simulator", told(error), fatal=bool(getattr(error, "fatal", False)))
        return await self._after(step, truncated, judge)

    async def _stop(self, reason: str, owner: str, judge: JudgeOne) -> Observation:
        if not self.done:
            await self._judge_turn(judge)
            if not self.done:
                self._end(reason, owner)
        return self._observe([])

    async def _respond_now(self, call: ToolCall) -> ToolResponse:
        return self.session.respond(call)

    async def _judge_now(self, checklist: Checklist) -> list[Verdict]:
        assert self.judge is not None
        return self.judge.judge(self.dialogue, self.turn, checklist)

    async def _judge_later(self, checklist: Checklist) -> list[Verdict]:
        judge = getattr(self.judge, "judge_async", None)
        if judge is None:
            return await self._judge_now(checklist)
        found: list[Verdict] = await judge(self.dialogue, self.turn, checklist)
        return found

    def _take(self, step: Step, tokens: int, truncated: bool) -> Step:
        if self.done:
            raise RuntimeError(f"the rollout of {self.dialogue.id} has ended ({self.reason}); make a new Environment")
        self.tokens_used += tokens
        self.session.turn = self.turn
        turn = self.dialogue.turns[self.turn]
        calls = identified(step.calls, f"call_{self.turn}_{len(turn.steps)}")
        taken = Step(step.thinking, step.reply, calls, [])
        turn.steps.append(taken)
        self.messages.append(assistant_message(taken))
        return taken

    def _beyond(self, call: ToolCall, index: int) -> ToolResponse | None:
        if index < self.limits.calls:
            return None
        return error_response(call, f"too many calls in one step: only the first {self.limits.calls} were executed")

    async def _after(self, step: Step, truncated: bool, judge: JudgeOne) -> Observation:
        if truncated:
            return await self._stop("limit_tokens", "limit", judge)
        if step.calls:
            new = [tool_message(response) for response in step.responses]
            self.messages += new
            if self._out_of_tokens():
                await self._stop("limit_tokens", "limit", judge)
            elif len(self.dialogue.turns[self.turn].steps) >= self.limits.steps:
                await self._stop("limit_steps", "limit", judge)
            return self._observe(new)
        return await self._end_turn(step, judge)

    async def _end_turn(self, step: Step, judge: JudgeOne) -> Observation:
        unmet = await self._judge_turn(judge)
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

    async def _judge_turn(self, judge: JudgeOne) -> bool:
        """Judge the current turn, once; whether a strict item of it is unsatisfied.

        A verdict that the judge or its provider could not give makes the rollout worth nothing: paid for the rest of
        its items only, it would be compared with siblings that were paid for all of theirs.
        """
        unmet = False
        if self.judge is None or self._judged:
            return unmet
        self._judged = True
        for checklist in self.task.checklists:
            if checklist.turn != self.turn:
                continue
            try:
                found = await judge(checklist)
            except Exception as error:  # a judge may be remote or a plug-in: its failure is put on record as its own
                self.broke = error if isinstance(error, BudgetReached) else None
                fatal = self.broke is not None or (isinstance(error, ProviderError) and error.fatal)
                self.fail("judge", f"turn {self.turn}: {told(error)}", fatal=fatal)
                return unmet
            self.verdicts += found
            if (lost := next((verdict for verdict in found if verdict.failed), None)) is not None:
                self.fail("judge", f"turn {self.turn}: item {lost.item} is {lost.reason}")
                return unmet
            unmet = unmet or bool(unmet_strict(checklist, found, len(self.dialogue.turns[self.turn].steps)))
        return unmet

    def _out_of_tokens(self) -> bool:
        return self.limits.tokens is not None and self.tokens_used >= self.limits.tokens

    def _end(self, reason: str, owner: str) -> None:
        self.done, self.reason, self.owner = True, reason, owner

    def _observe(self, new: list[Message]) -> Observation:
        return Observation(new, self.done, self.reason, self.owner)


def _at_once(work: Coroutine[Any, Any, Observation]) -> Observation:
    """The result of work that never has to wait."""
    try:
        work.send(None)
    except StopIteration as done:
        found: Observation = done.value
        return found
    work.close()
    raise RuntimeError("a session or judge that is not awaited waited all the same")
