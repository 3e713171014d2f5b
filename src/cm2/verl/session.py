"""Session: one dialogue of a rollout, played with an engine that is awaited; token in, token out.

    ids = first prompt
    until it is over:   engine samples an action from ids  →  environment answers  →  ids += sampled + rendered answer

The same rules as the local driver's (`cm2.rollout.driver`), so that the same sampled ids make the same rollout: sampled
ids are never rendered or tokenised again, an action that hits its limit is put on record and ends the rollout, and so
does a dialogue that has no room for another token. Turns are judged and gated by the environment. Whatever the engine
fails at is the provider's failure: it costs this rollout and no sibling.

An environment that waits for a judge or a simulator does so on the door's own event loop (`cm2.llm.flow`), while other
sessions of the process sample on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from cm2.dialogue import Step
from cm2.errors import told
from cm2.llm import flow
from cm2.rollout.environment import Environment, Observation
from cm2.rollout.template import ChatTemplate
from cm2.rollout.trace import Segment


class Sampled(msgspec.Struct, frozen=True):
    """What an engine sampled: ids and their log-probabilities under the policy that it served."""

    tokens: list[int]
    logprobs: list[float]


Sample = Callable[[list[int], int], Awaitable[Sampled]]
"""Continues ids by at most so many tokens."""


class Played(msgspec.Struct):
    """A session that has ended; the rest is on the environment's record."""

    segments: list[Segment] = []
    prompt: list[int] = []
    """Ids of the first prompt, also where nothing was sampled."""
    sampling: float = 0.0
    """Seconds in the engine."""
    answering: float = 0.0
    """Seconds in simulator and judge."""


async def play(
    environment: Environment, template: ChatTemplate, sample: Sample, *, max_step_tokens: int, max_tokens: int
) -> Played:
    """Drive the environment to its end.

    Args:
        environment: a fresh one.
        template: of the policy's tokenizer.
        sample: the engine.
        max_step_tokens: of one action.
        max_tokens: of the whole rollout, its prompt included.
    """
    shown = template.first_prompt(environment.dialogue.tools, environment.messages)
    played = Played(prompt=shown)
    ids = list(shown)
    while not environment.done:
        if len(ids) + 1 >= max_tokens:  # no room for another token
            await _answer(environment, played, environment.stop_async("limit_tokens", "limit"))
            break
        turn = len(environment.dialogue.turns) - 1
        step = len(environment.dialogue.turns[turn].steps)
        started = time.perf_counter()
        try:
            found = _whole(await sample(list(ids), min(max_step_tokens, max_tokens - 1 - len(ids))), template)
        except Exception as error:  # an engine may fail in any way: put on record, and the siblings go on
            environment.fail("provider", told(error), fatal=bool(getattr(error, "fatal", False)))
            break
        finally:
            played.sampling += time.perf_counter() - started
        played.segments.append(Segment(turn, step, found.tokens, found.logprobs, shown))
        ids += found.tokens
        ended = found.tokens[-1] in template.stop_ids
        seen = await _feed(environment, played, template.parse(found.tokens), len(found.tokens), not ended)
        if seen.done:
            break
        shown = template.continuation(seen.new_messages, ended)
        ids += shown
    return played


def _whole(found: Sampled, template: ChatTemplate) -> Sampled:
    """The action up to its end token; an engine that gives nothing, or ids without log-probabilities, has failed."""
    if not found.tokens:
        raise RuntimeError("the engine returned no token (was the request aborted?)")
    if len(found.logprobs) != len(found.tokens):
        raise RuntimeError(f"the engine returned {len(found.tokens)} ids and {len(found.logprobs)} log-probabilities")
    end = next((i + 1 for i, token in enumerate(found.tokens) if token in template.stop_ids), len(found.tokens))
    return Sampled(found.tokens[:end], found.logprobs[:end])


async def _feed(environment: Environment, played: Played, step: Step, tokens: int, truncated: bool) -> Observation:
    return await _answer(environment, played, environment.feed_async(step, tokens=tokens, truncated=truncated))


async def _answer(environment: Environment, played: Played, work: Coroutine[Any, Any, Observation]) -> Observation:
    started = time.perf_counter()
    try:
        return await (asyncio.wrap_future(flow.submit(work)) if environment.asynchronous else work)
    finally:
        played.answering += time.perf_counter() - started
