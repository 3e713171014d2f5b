"""Record: what the trainer has to know of a rollout that a worker played, as one line of text.

It is the rollout less what credit does not read (texts, reasons, tokens): which steps were taken, the items, the
verdicts, and for every step where its sampled tokens stand in the response. Scores and advantages are made from it by
the same functions as for the local engine, so nothing about credit is decided twice.

The response of a rollout is everything after its first prompt: sampled tokens (mask 1) and what tools, people and the
template said in between (mask 0).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cm2.checklist import Item
from cm2.credit import Score
from cm2.dialogue import Dialogue, Step, Turn
from cm2.errors import DataError
from cm2.rollout.trace import Rollout, Segment


class Span(msgspec.Struct, frozen=True, array_like=True):
    """Where the sampled tokens of a step stand in the response."""

    turn: int
    step: int
    start: int
    count: int


class Record(msgspec.Struct, kw_only=True):
    """See the module."""

    rollout: Rollout
    """Stripped: of its dialogue only the number of steps of each turn is left."""
    spans: list[Span]
    length: int
    """Tokens of the response."""


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Record)


def record_of(rollout: Rollout) -> Record:
    """The record of a rollout that was just played."""
    spans, at = [], 0
    for number, segment in enumerate(rollout.segments):
        at += len(segment.prompt) if number else 0
        spans.append(Span(segment.turn, segment.step, at, len(segment.tokens)))
        at += len(segment.tokens)
    turns = [Turn("", [Step() for _ in turn.steps]) for turn in rollout.dialogue.turns]
    stripped = msgspec.structs.replace(
        rollout,
        dialogue=Dialogue(rollout.dialogue.id, turns),
        checklists=[
            msgspec.structs.replace(checklist, items=[_bare(item) for item in checklist.items])
            for checklist in rollout.checklists
        ],
        verdicts=[msgspec.structs.replace(verdict, reason="", evidence=[]) for verdict in rollout.verdicts],
        segments=[],
    )
    return Record(rollout=stripped, spans=spans, length=at)


def _bare(item: Item) -> Item:
    """What credit reads of an item: id, weight, dependencies, strictness."""
    return msgspec.structs.replace(item, question="", pass_condition="", evidence=[], failure_examples=[], check=None)


def encode(record: Record) -> str:
    """The record as text, which any queue between worker and trainer carries."""
    return _ENCODER.encode(record).decode()


def decode(text: str) -> Record:
    """The record of a text.

    Raises:
        DataError: it is none.
    """
    try:
        return _DECODER.decode(text)
    except msgspec.DecodeError as error:
        raise DataError(
            f"a row of the batch has no record of its rollout: {error}",
            fix="let the agent loop cm2 make the rollouts (rollout.agent.default_agent_loop=cm2)",
        ) from error


def mask_of(spans: Sequence[Span], length: int) -> list[int]:
    """1 for the tokens that the policy sampled."""
    mask = [0] * length
    for span in spans:
        mask[span.start : span.start + span.count] = [1] * span.count
    return mask


def logprobs_of(segments: Sequence[Segment], spans: Sequence[Span], length: int) -> list[float]:
    """Those of the sampled tokens under the policy that sampled them; 0 elsewhere."""
    found = [0.0] * length
    for segment, span in zip(segments, spans, strict=True):
        found[span.start : span.start + span.count] = segment.logprobs
    return found


def step_rewards(score: Score, spans: Sequence[Span], length: int) -> list[float]:
    """What each step added to R, on its last sampled token: they sum to R. A critic's rewards."""
    found, added = [0.0] * length, score.step_rewards
    for span in spans:
        if span.count:
            found[span.start + span.count - 1] += added.get((span.turn, span.step), 0.0)
    return found
