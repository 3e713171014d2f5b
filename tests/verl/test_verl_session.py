"""A session plays a dialogue by the rules of the local driver: the same sampled ids are the same rollout."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("transformers")
pytestmark = pytest.mark.train

from cm2.checklist import Task  # noqa: E402
from cm2.dialogue import Dialogue, Step, Turn  # noqa: E402
from cm2.judge import ChecksJudge  # noqa: E402
from cm2.rollout import Environment, Limits, Rollout  # noqa: E402
from cm2.rollout.driver import Driver  # noqa: E402
from cm2.rollout.sampling import Sampling  # noqa: E402
from cm2.rollout.template import ChatTemplate  # noqa: E402
from cm2.simulate import World  # noqa: E402
from cm2.verl.session import Sampled, play  # noqa: E402
from rollout.coffee_task import task as coffee  # noqa: E402
from rollout.tiny_models import talkative  # noqa: E402


@pytest.fixture(scope="module")
def chat():
    return talkative()


def environment(task: Task, steps: int = 6) -> Environment:
    return Environment(task, World(task.dialogue).session(), ChecksJudge(), Limits(steps=steps))


def talk(turns: int) -> Task:
    return Task(Dialogue("talk", [Turn(f"say {n}", [Step(reply="yes")]) for n in range(turns)]))


def again(rollout: Rollout, tokenizer, task: Task, sampling: Sampling) -> Rollout:
    """The rollout played once more: the engine samples what the driver had sampled, and must have read the same."""
    left = list(rollout.segments)
    read: list[int] = []

    async def sample(ids: list[int], room: int) -> Sampled:
        segment = left.pop(0)
        read.extend(segment.prompt)
        assert ids == read
        assert room >= len(segment.tokens)
        read.extend(segment.tokens)
        return Sampled(segment.tokens, segment.logprobs)

    one = environment(task)
    limits = {"max_step_tokens": sampling.max_step_tokens, "max_tokens": sampling.max_tokens}
    played = asyncio.run(play(one, ChatTemplate(tokenizer), sample, **limits))
    assert not left
    return one.record(group=rollout.group, member=rollout.member, seed=rollout.seed, segments=played.segments)


@pytest.mark.parametrize(
    ("max_step_tokens", "max_tokens"),
    [(60, 1600), (12, 1600), (60, 960), (60, 900)],
    ids=["free", "cut actions", "little room", "less room"],
)
def test_the_same_sampled_ids_make_the_drivers_rollout(chat, max_step_tokens, max_tokens):
    sampling = Sampling(max_step_tokens=max_step_tokens, max_tokens=max_tokens)
    tasks = [coffee(), coffee(), coffee(), talk(4), talk(4)]
    found = Driver(*chat, sampling, workers=1).run([environment(task) for task in tasks])
    assert len({rollout.reason for rollout in found}) > 1 or max_step_tokens == 12
    for task, rollout in zip(tasks, found, strict=True):
        replay = again(rollout, chat[1], task, sampling)
        assert (replay.reason, replay.owner, replay.failure) == (rollout.reason, rollout.owner, rollout.failure)
        assert replay.segments == rollout.segments
        assert replay.verdicts == rollout.verdicts
        assert replay.dialogue == rollout.dialogue


def scripted(chat, task: Task, *actions: list[int] | Exception, max_tokens: int = 4000):
    """Play with an engine that samples these ids, one list an action; with them what it was asked."""
    asked: list[tuple[int, int]] = []

    async def sample(ids: list[int], room: int) -> Sampled:
        action = actions[len(asked)]
        asked.append((len(ids), room))
        if isinstance(action, Exception):
            raise action
        return Sampled(action, [-0.5] * len(action))

    one = environment(task)
    played = asyncio.run(play(one, ChatTemplate(chat[1]), sample, max_step_tokens=40, max_tokens=max_tokens))
    return one, played, asked


def ids(chat, text: str) -> list[int]:
    return ChatTemplate(chat[1]).encode(text)


def test_what_follows_the_end_token_is_no_action(chat):
    one, played, _ = scripted(chat, talk(1), ids(chat, "yes<|im_end|>and more"))
    assert played.segments[0].tokens == ids(chat, "yes<|im_end|>")
    assert len(played.segments[0].logprobs) == len(played.segments[0].tokens)
    assert one.reason == "completed"


def test_the_next_user_speaks_only_after_a_passed_gate(chat):
    one, played, _ = scripted(chat, coffee(), ids(chat, "I did nothing.<|im_end|>"))
    assert (one.reason, one.turn, len(played.segments)) == ("strict", 0, 1)
    other, played, _ = scripted(chat, talk(2), ids(chat, "yes<|im_end|>"), ids(chat, "yes<|im_end|>"))
    assert (other.reason, other.turn) == ("completed", 1)
    assert "say 1" in ChatTemplate(chat[1]).decode(played.segments[1].prompt)


def test_an_engine_that_fails_costs_the_rollout_and_is_no_zero(chat):
    one, _, _ = scripted(chat, talk(2), ids(chat, "yes<|im_end|>"), RuntimeError("the server is gone"))
    assert one.failure is not None
    assert (one.failure.owner, "the server is gone" in one.failure.message) == ("provider", True)
    one, _, _ = scripted(chat, talk(1), [])
    assert one.failure is not None and "no token" in one.failure.message


def test_a_prompt_without_room_is_never_sampled(chat):
    one, played, asked = scripted(chat, talk(1), max_tokens=20)
    assert (one.reason, played.segments, asked) == ("limit_tokens", [], [])
    assert len(played.prompt) > 20


def test_a_judge_that_must_be_awaited_is(chat):
    class Slow(ChecksJudge):
        async def judge_async(self, dialogue, turn, checklist, since=0):
            await asyncio.sleep(0.01)
            return self.judge(dialogue, turn, checklist, since)

    async def both():
        slow = Slow()
        made = [Environment(coffee(), World(coffee().dialogue).session(), slow, Limits()) for _ in range(3)]

        async def sample(_: list[int], room: int) -> Sampled:
            action = ids(chat, "no<|im_end|>")
            return Sampled(action, [0.0] * len(action))

        template = ChatTemplate(chat[1])
        await asyncio.gather(*(play(one, template, sample, max_step_tokens=40, max_tokens=4000) for one in made))
        return made

    for one in asyncio.run(both()):
        assert (one.reason, len(one.verdicts)) == ("strict", 3)
