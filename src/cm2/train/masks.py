"""Example: a dialogue as the ids a model reads and the mask of those it must learn to write.

The segmentation is that of a rollout: `ChatTemplate.first_prompt` up to the agent's first action, each action encoded
on its own and closed by the end token, `ChatTemplate.continuation` between them. So what is trained is, id for id, what
the driver would see had the agent acted like this. Loss falls on actions: thinking, calls, reply and the end token that
the agent has to sample; never on prompts, tool responses, users, or an assistant's greeting before the first user.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from cm2.dialogue import Dialogue, Step
from cm2.errors import ConfigError
from cm2.rollout.messages import assistant_message, opening_messages, tool_message
from cm2.rollout.template import ChatTemplate
from cm2.rollout.trace import Segment

IGNORED = -100
"""The label of a position without loss."""
BEGINNING = 32
"""Examples share their beginning only where at least so many ids agree: less is not worth it."""
_ASKED = {"role": "user", "content": "x"}


class Example(msgspec.Struct):
    """Ids and, for each, whether it is trained. `cut` steps at the end did not fit."""

    dialogue: str
    ids: np.ndarray
    mask: np.ndarray
    steps: int
    cut: int = 0

    @property
    def labels(self) -> np.ndarray:
        """The ids where there is loss, IGNORED elsewhere; shifting is the trainer's business."""
        return np.where(self.mask, self.ids, IGNORED)


def action_ids(template: ChatTemplate, step: Step) -> list[int]:
    """What the agent would have sampled for this step, the end token included.

    Raises:
        ConfigError: the template opens an action with text that this step does not have (thinking, say).
    """
    opened = template.render([], [_ASKED], True)
    whole = template.render([], [_ASKED, assistant_message(step)])
    if not whole.startswith(opened):
        raise ConfigError(
            f"the chat template opens an action with {opened[-40:]!r}, but a step of the data does not begin like that",
            fix="use dialogues whose every step has thinking, or another chat template",
        )
    return template.encode(whole[len(opened) : whole.rindex(template.end) + len(template.end)])


def segments(template: ChatTemplate, dialogue: Dialogue) -> Iterator[Segment]:
    """The dialogue as a rollout would have recorded it: per step the prompt since the last one, and the action."""
    prompt: list[int] | None = None
    for t, turn in enumerate(dialogue.turns):
        for s, step in enumerate(turn.steps):
            if prompt is None:
                prompt = template.first_prompt(dialogue.tools, _before(dialogue, t))
            yield Segment(t, s, action_ids(template, step), [], prompt)
            messages = [tool_message(response) for response in step.responses]
            if s + 1 == len(turn.steps):
                messages += _users(dialogue, t + 1)
            prompt = template.continuation(messages)


def _before(dialogue: Dialogue, turn: int) -> list[dict]:
    """Everything before the first step, which stands in `turn`; turns before it had none."""
    messages = opening_messages(dialogue)
    return messages + [{"role": "user", "content": each.user} for each in dialogue.turns[1 : turn + 1]]


def _users(dialogue: Dialogue, turn: int) -> list[dict]:
    """The user messages from `turn` up to the next step."""
    messages = []
    for each in dialogue.turns[turn:]:
        messages.append({"role": "user", "content": each.user})
        if each.steps:
            break
    return messages


def example(template: ChatTemplate, dialogue: Dialogue, max_tokens: int | None = None) -> Example | None:
    """The dialogue as an Example, cut after the last step that fits `max_tokens`; None where none is left."""
    ids: list[int] = []
    mask: list[bool] = []
    steps = sum(len(turn.steps) for turn in dialogue.turns)
    kept = 0
    for segment in segments(template, dialogue):
        length = len(ids) + len(segment.prompt) + len(segment.tokens)
        if max_tokens is not None and length > max_tokens:
            break
        ids += [*segment.prompt, *segment.tokens]
        mask += [False] * len(segment.prompt) + [True] * len(segment.tokens)
        kept += 1
    if not kept:
        return None
    return Example(dialogue.id, np.array(ids, dtype=np.int32), np.array(mask), kept, steps - kept)


def schedule(ranks: Sequence[int], epochs: float, batch: int, seed: int) -> list[int]:
    """The order in which examples are trained: every epoch a new shuffle, cut into steps of `batch`.

    Which examples share a step is chance. Only inside a step are they sorted by `ranks`, so that its micro-batches hold
    examples that go well together. A step may span two epochs; the last may be short.
    """
    count = len(ranks)
    order: list[int] = []
    wanted = max(1, round(count * epochs))
    for epoch in range(-(-wanted // count)):
        order += np.random.default_rng([seed, epoch]).permutation(count).tolist()
    del order[wanted:]
    by = np.asarray(ranks)
    found: list[int] = []
    for start in range(0, wanted, batch):
        step = np.array(order[start : start + batch])
        found += step[np.argsort(by[step], kind="stable")].tolist()
    return found
