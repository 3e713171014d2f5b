"""Best of n: better replies for turns that failed, from an endpoint, judged by the same checks.

Where a turn failed and ended with a reply, the endpoint is asked for n other replies to everything before. Nobody runs
its tools, so an answer that calls one is none; the others take the reply's place and the turn is judged again. A reply
after which every blocking duty of the turn passes, none being unscored, is better than the one of the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec

from cm2.assure.export_formats import Pair
from cm2.assure.export_standing import Standing, standing_of
from cm2.assure.export_talk import Unsayable, action_of, talk_of
from cm2.assure.outcomes import Judged, decide_outcomes
from cm2.checklist import Checklist, Severity
from cm2.dialogue import Dialogue, Step
from cm2.judge import ChecksJudge
from cm2.llm import ChatClient, Endpoint, ProviderError, flow
from cm2.rollout.agents import step_of
from cm2.rollout.messages import assistant_message
from cm2.rollout.template import tool_schema
from cm2.verdict import WHOLE


class Sampler:
    """Asks an endpoint for better replies.

    Args:
        endpoint: whom.
        samples: replies of a turn.
        blocking: the least severity that blocks.
        most: dialogues that are asked about at most.

    Attributes:
        counts: what came of it.
    """

    def __init__(self, endpoint: Endpoint, samples: int, blocking: Severity = "major", most: int | None = None):
        self._endpoint, self._samples, self._blocking, self._most = endpoint, samples, blocking, most
        self.counts: dict[str, int] = {}
        self._judge = ChecksJudge()

    def __call__(self, judged: Judged, standing: Standing) -> Iterator[Pair]:
        """The pairs of a dialogue that fails: one for the first turn that does, where a better reply is found."""
        dialogue = judged.dialogue
        turn = next((number for number, verdict in enumerate(standing.turns) if verdict == "fail"), None)
        if turn is None or turn >= len(dialogue.turns) or dialogue.turns[turn].reply is None:
            self._count("no reply to better")
            return
        if self._most is not None and self.counts.get("turns", 0) >= self._most:
            self._count("beyond the limit")
            return
        last = len(dialogue.turns[turn].steps) - 1
        try:
            prompt, rejected = talk_of(dialogue, turn, last), action_of(dialogue, turn, last)
        except Unsayable as reason:
            self._count(str(reason))
            return
        self._count("turns")
        checklists = _checklists(judged, turn)
        for step in flow.wait(self._ask(dialogue, turn, last)):
            if isinstance(step, ProviderError):
                self._count("the provider failed")
            elif step.calls or not (step.reply or "").strip():
                self._count("no reply")
            elif not self._passes(dialogue, turn, step, checklists):
                self._count("no better reply")
            else:
                self._count("better reply")
                yield Pair(f"{dialogue.id}/{turn}/{last}", prompt, assistant_message(step), rejected)
                return

    async def _ask(self, dialogue: Dialogue, turn: int, last: int) -> list[Step | ProviderError]:
        messages = [_sent(message) for message in talk_of(dialogue, turn, last).messages]
        tools = [tool_schema(tool) for tool in dialogue.tools]

        async def one(client: ChatClient, seed: int) -> Step | ProviderError:
            try:
                return step_of((await client.complete(messages, tools, seed=seed)).message)
            except ProviderError as error:
                if error.fatal:
                    raise
                return error

        async with ChatClient(self._endpoint) as client:
            return list(await asyncio.gather(*(one(client, seed) for seed in range(self._samples))))

    def _passes(self, dialogue: Dialogue, turn: int, step: Step, checklists: list[Checklist]) -> bool:
        """Whether every blocking duty of the turn passes with that reply in place of the log's."""
        steps = [*dialogue.turns[turn].steps[:-1], step]
        changed = [*dialogue.turns[:turn], msgspec.structs.replace(dialogue.turns[turn], steps=steps, wire=None)]
        run = msgspec.structs.replace(dialogue, turns=changed, wire=None)
        verdicts = [one for checklist in checklists for one in self._judge.judge(run, turn, checklist)]
        found = standing_of(Judged(0, run, "", decide_outcomes(run, "", checklists, verdicts)), self._blocking)
        return found.turns[turn] == "pass"

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1


def _checklists(judged: Judged, turn: int) -> list[Checklist]:
    """The checklists of a turn, as its outcomes say."""
    variants = sorted({one.variant for one in judged.outcomes if one.turn == turn and turn != WHOLE})
    return [
        Checklist(turn, [one.item for one in judged.outcomes if (one.turn, one.variant) == (turn, variant)], variant)
        for variant in variants
    ]


def _sent(message: dict[str, object]) -> dict[str, object]:
    """A message as an endpoint takes it: arguments are text."""
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message
    told = []
    for call in calls:
        arguments = msgspec.json.encode(call["function"]["arguments"]).decode()
        told.append(call | {"function": call["function"] | {"arguments": arguments}})
    return message | {"tool_calls": told}
