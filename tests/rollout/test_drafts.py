"""Guesses decide how long a rollout takes and nothing else."""

from __future__ import annotations

import asyncio
import random

import pytest

from cm2.rollout import drafts
from cm2.rollout.drafts import FREE, Draft

pytest.importorskip("transformers")

import torch

from cm2.checklist import Task
from cm2.dialogue import Dialogue, Step, Turn
from cm2.judge import ChecksJudge
from cm2.rollout import Environment, Limits
from cm2.rollout.decode import LlamaEngine
from cm2.rollout.driver import Driver, messages_of
from cm2.rollout.sampling import Sampling
from cm2.simulate import World
from rollout.coffee_task import task
from rollout.tiny_models import talkative, tiny_llama

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def chat():
    return talkative()


# --- what is guessed


def taught(*dialogues: list[int]) -> Draft:
    draft = Draft()
    for one in dialogues:
        draft.learn(one)
    return draft


def test_what_followed_the_same_ids_before_is_guessed():
    assert taught([1, 2, 3, 4, 5, 6]).guess([9, 1, 2], 10, 1)[0] == [3, 4, 5, 6]


def test_the_longest_known_past_decides():
    draft = taught([7, 1, 2, 3], [8, 1, 2, 4], [0, 1, 2, 4])
    assert draft.guess([7, 1, 2], 1, 1) == ([3], [3]) and draft.guess([5, 1, 2], 1, 1) == ([4], [2])


def test_nothing_is_guessed_of_a_past_that_nobody_had():
    assert taught([1, 2, 3]).guess([4, 5], 9, 1) == ([], []) and Draft().guess([1, 2, 3], 9, 1) == ([], [])


def test_a_guess_ends_before_what_others_go_on_after():
    assert taught([1, 2, 3, 4, 5]).guess([1, 2], 9, 1, stops=[5])[0] == [3, 4]


def test_no_more_is_guessed_than_there_is_room_for():
    draft = taught(list(range(100)))
    assert draft.guess([0, 1], 3, 1)[0] == [2, 3, 4] and draft.guess([0, 1], 0, 1)[0] == []
    for _ in range(50):
        draft.told(2, True)
        draft.told(3, True)
        draft.told(6, True)
        draft.told(12, True)
    assert len(draft.guess([0, 1], 99, 1)[0]) == drafts.LONGEST


def test_the_fuller_a_pass_the_surer_a_guess_must_be():
    """One id more of a pass over `rows` takes 1 / (FREE + rows) of it and saves a row's share, 1 / rows: guessed while
    the chance is above rows / (FREE + rows). Untried, an order is believed three times in four."""
    draft = taught([1, 2, 3])
    break_even = 3 * FREE  # 3 / 4 = rows / (FREE + rows)
    assert draft.guess([1, 2], 1, int(break_even) - 1)[0] == [3] and draft.guess([1, 2], 1, int(break_even))[0] == []


def test_an_order_that_is_mostly_wrong_is_no_longer_believed():
    draft = taught([1, 2, 3])
    assert draft.guess([1, 2], 1, 3)[0] == [3]  # a quarter is enough
    for _ in range(40):
        draft.told(2, False)
    assert draft.guess([1, 2], 1, 3)[0] == []


def test_a_recorded_dialogue_is_the_messages_that_an_environment_would_show():
    of = task()
    environment = Environment(of, World(of.dialogue).session(), None, Limits(steps=9))
    for turn in of.dialogue.turns:
        for step in turn.steps:
            environment.feed(step)

    def told(messages):
        return [(one["role"], one.get("content"), len(one.get("tool_calls") or [])) for one in messages]

    assert told(messages_of(of.dialogue)) == told(environment.messages)


# --- what guessing changes


def short(id: str = "short", turns: int = 3) -> Task:
    return Task(Dialogue(id, [Turn(f"say {n} {id}", [Step(reply="yes")]) for n in range(turns)]))


def environments(judge=None) -> list[Environment]:
    of = [short("a")] * 5 + [task()] * 3 + [short("b")] * 2
    return [Environment(one, World(one.dialogue).session(), judge, Limits(steps=6)) for one in of]


def rolled(chat, judge=None, compiled: bool | None = None, **settings):
    sampling = Sampling(max_step_tokens=40, max_tokens=700)
    made = Driver(*chat, sampling, **({"workers": 1} | settings))
    made.engines = [LlamaEngine(one.weights, compiled) for one in made.engines]
    reads = []
    for engine in made.engines:

        def counted(rows, ids, wanted, inner=engine.read):
            reads.append(sum(wanted) - len(wanted))
            return inner(rows, ids, wanted)

        engine.read = counted
    found = made.run(environments(judge))
    assert all(not any(engine.cache.lengths) for engine in made.engines)
    return found, reads


def assert_same(found, truth):
    for one, other in zip(found, truth, strict=True):
        assert [s.tokens for s in one.segments] == [s.tokens for s in other.segments]
        assert [s.prompt for s in one.segments] == [s.prompt for s in other.segments]
        assert (one.reason, one.dialogue) == (other.reason, other.dialogue)
        for mine, theirs in zip(one.segments, other.segments, strict=True):
            assert mine.logprobs == pytest.approx(theirs.logprobs, abs=2e-4)


def seer(truth, wrong: float, seed: int = 0):
    """Guesses what will really be said, each id with this chance of another one; siblings' futures by turns."""
    draw = random.Random(seed)
    futures = []
    for one in truth:
        ids = []
        for segment in one.segments:
            ids += segment.prompt + segment.tokens
        futures.append(ids)

    def guess(self, ids, most, rows, stops=()):
        ways = [one for one in futures if one[: len(ids)] == list(ids)]
        if not ways:
            return [], []
        found = []
        for token in draw.choice(ways)[len(ids) : len(ids) + min(most, draw.randint(0, 9))]:
            if token in stops:
                break
            found.append((token + 1) % 200 if draw.random() < wrong else token)
        return found, [2] * len(found)

    return guess


@pytest.mark.parametrize("compiled", [None, False])
@pytest.mark.parametrize("wrong", [0.0, 0.3])
def test_rollouts_are_the_same_however_good_the_guesses(chat, monkeypatch, wrong, compiled):
    truth, _ = rolled(chat, drafts=False)
    monkeypatch.setattr(Draft, "guess", seer(truth, wrong))
    found, reads = rolled(chat, compiled=compiled)
    assert_same(found, truth)
    assert sum(reads) > 100  # ids were guessed: this tested something


def test_right_guesses_save_passes(chat, monkeypatch):
    truth, before = rolled(chat, drafts=False)
    monkeypatch.setattr(Draft, "guess", seer(truth, 0.0))
    _, after = rolled(chat)
    assert len(after) < len(before) / 2


def test_rollouts_are_the_same_with_the_guesses_that_it_makes_itself(chat, monkeypatch):
    truth, _ = rolled(chat, drafts=False)
    monkeypatch.setattr(drafts, "FREE", 1000.0)  # guesses cost nothing, so many are made
    found, reads = rolled(chat)
    assert_same(found, truth)
    assert sum(reads) > 50


def test_rollouts_that_wait_for_a_judge_are_the_same(chat, monkeypatch):
    class Slow:
        def judge(self, dialogue, turn, checklist, since=0):
            return ChecksJudge().judge(dialogue, turn, checklist, since)

        async def judge_async(self, dialogue, turn, checklist, since=0):
            await asyncio.sleep(0.002)
            return self.judge(dialogue, turn, checklist, since)

    truth, _ = rolled(chat, ChecksJudge(), drafts=False)
    monkeypatch.setattr(Draft, "guess", seer(truth, 0.2))
    found, reads = rolled(chat, Slow())
    assert_same(found, truth)
    assert [one.verdicts for one in found] == [one.verdicts for one in truth] and sum(reads) > 50


# --- taking back


@pytest.mark.parametrize("compiled", [None, False])
def test_what_is_taken_back_leaves_no_trace(compiled):
    model = tiny_llama()
    from cm2.rollout.decode import LlamaWeights

    engine = LlamaEngine(LlamaWeights(model), compiled)
    draw = random.Random(5)
    true: dict[int, list[int]] = {}
    for _ in range(60):
        action = draw.choice(["start", "fork", "grow", "grow", "trim", "close"])
        row = draw.choice(sorted(true)) if true else None
        if action == "start" or row is None:
            ids = [draw.randrange(97) for _ in range(draw.randint(1, 40))]
            (new,), logits = engine.start([ids])
            true[new] = ids
            check(model, logits, [ids])
        elif action == "fork":
            (new,) = engine.fork([row])
            true[new] = list(true[row])
        elif action == "grow":
            more = [draw.randrange(97) for _ in range(draw.randint(1, 20))]
            wanted = draw.randint(1, len(more))
            logits = engine.read([row], [more], [wanted])
            true[row] = true[row] + more
            check(model, logits, [true[row][: len(true[row]) - n] for n in reversed(range(wanted))])
        elif action == "trim":
            length = draw.randint(1, len(true[row]))
            engine.trim([row], [length])
            true[row] = true[row][:length]
        else:
            engine.close([row])
            del true[row]
    assert len(true) > 1
    rows = sorted(true)
    check(model, engine.extend(rows, [[7]] * len(rows)), [[*true[row], 7] for row in rows])
    engine.close(rows)
    assert not any(engine.cache.lengths) and not getattr(engine.cache, "readers", {})


def check(model, logits, sequences):
    with torch.no_grad():
        expected = torch.stack([model(torch.tensor([one])).logits[0, -1] for one in sequences])
    assert (logits - expected).abs().max() < 1e-4 * expected.std()
