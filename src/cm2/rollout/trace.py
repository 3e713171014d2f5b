"""Rollout: the record of one agent's run through one task, and its form as a line of JSON.

Every rollout ends for a reason that somebody owns (`owner`): the agent (it finished, or failed a strict item), a
limit, or, where the run is worth nothing (`failure`), the simulator, the judge, the provider of the agent's model, or
the data. A failed rollout is dropped from its group and from the loss; it is never a zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from cm2.checklist import Checklist
from cm2.dialogue import Dialogue
from cm2.errors import DataError, Where
from cm2.verdict import Verdict


class Segment(msgspec.Struct, omit_defaults=True):
    """Tokens of one step: `prompt` was rendered since the last segment (never trained), `tokens` were sampled.

    `logprobs` are those of `tokens` under the policy that sampled them, in the same order.
    """

    turn: int
    step: int
    tokens: list[int]
    logprobs: list[float] = []
    prompt: list[int] = []


class Failure(msgspec.Struct, omit_defaults=True):
    """Why a rollout is worth nothing, and whose fault that is: simulator, judge, provider or data."""

    owner: str
    message: str
    fatal: bool = False
    """The next rollout would fail likewise (a refused key, a wrong address)."""


class Rollout(msgspec.Struct, omit_defaults=True):
    """One run of one task. `dialogue` is the run itself; its turns line up with the reference's by index."""

    task: str
    """The reference dialogue's id."""
    dialogue: Dialogue
    group: str = ""
    """What the siblings of one world share."""
    member: int = 0
    """Which of its group this one is."""
    seed: int = 0
    agent: str = ""
    checklists: list[Checklist] = []
    """The reference's checklists that it was judged by."""
    reference_turns: int = 0
    """L of the method: how many turns the reference has."""
    verdicts: list[Verdict] = []
    reason: str = ""
    """Why it ended: completed, strict, empty_reply, limit_turns, limit_steps, limit_tokens, or the failure's owner."""
    owner: str = ""
    failure: Failure | None = None
    segments: list[Segment] = []
    prompt_tokens: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0
    outcome: dict[str, Any] = {}
    """The true outcome, where the task's world can tell."""
    score: dict[str, Any] = {}

    @property
    def valid(self) -> bool:
        """Whether the run says anything about the agent."""
        return self.failure is None

    @property
    def key(self) -> str:
        """What identifies it in a store."""
        return f"{self.task}#{self.group}#{self.member}"


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Rollout)


def encode(rollout: Rollout) -> bytes:
    """One line of JSON, without the newline."""
    return _ENCODER.encode(rollout)


def decode(line: bytes | str, where: Where | None = None) -> Rollout:
    """The rollout of one line.

    Raises:
        DataError: the line is no rollout.
    """
    try:
        return _DECODER.decode(line)
    except msgspec.DecodeError as error:
        raise DataError(f"this is no rollout: {error}", where=where, fix="pass a file that cm2 wrote") from error


class _Key(msgspec.Struct):
    task: str
    group: str = ""
    member: int = 0


def read_rollouts(path: str) -> Iterator[Rollout]:
    """The rollouts of a JSONL file; of several with one key (a failed one was tried again) the last.

    A torn last line (a killed run) is left out.

    Raises:
        DataError: another line is no rollout.
    """
    last: dict[tuple[str, str, int], int] = {}
    for number, line in _lines(path):
        try:
            key = msgspec.json.decode(line, type=_Key)
        except msgspec.DecodeError:
            continue  # the second pass says what is wrong with it
        last[key.task, key.group, key.member] = number
    for number, line in _lines(path):
        rollout = decode(line, Where(file=path, line=number))
        if last[rollout.task, rollout.group, rollout.member] == number:
            yield rollout


def _lines(path: str) -> Iterator[tuple[int, bytes]]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if line.endswith(b"\n") and line.strip():
                yield number, line
