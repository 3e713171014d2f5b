"""Token in, token out: what the model read is what is recorded, and randomness belongs to the rollout."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import pytest

pytest.importorskip("transformers")
pytestmark = pytest.mark.train

import torch  # noqa: E402

from cm2.checklist import Task  # noqa: E402
from cm2.dialogue import Dialogue, Step, ToolCall, Turn  # noqa: E402
from cm2.judge import ChecksJudge  # noqa: E402
from cm2.rollout import Environment, Limits, Rollout  # noqa: E402
from cm2.rollout.driver import Driver  # noqa: E402
from cm2.rollout.messages import assistant_message  # noqa: E402
from cm2.rollout.sampling import Sampling  # noqa: E402
from cm2.rollout.template import ChatTemplate  # noqa: E402
from cm2.simulate import SimulatorError, World  # noqa: E402
from rollout.coffee_task import task  # noqa: E402
from rollout.tiny_models import talkative, tiny_chat  # noqa: E402


@pytest.fixture(scope="module")
def chat():
    return talkative()


def short(id: str = "short", turns: int = 3) -> Task:
    """A few turns without tools, so that prompts are short."""
    return Task(Dialogue(id, [Turn(f"say {n} {id}", [Step(reply="yes")]) for n in range(turns)]))


def environments(of: list[Task], judge=None, **limits) -> list[Environment]:
    return [Environment(one, World(one.dialogue).session(), judge, Limits(steps=6, **limits)) for one in of]


def driver(chat, engines=None, sampling: Sampling | None = None, **settings) -> Driver:
    made = Driver(*chat, sampling or Sampling(max_step_tokens=60, max_tokens=900), **({"workers": 1} | settings))
    made.engines = engines or made.engines
    return made


def ids_of(rollout: Rollout) -> list[int]:
    return [token for segment in rollout.segments for token in (*segment.prompt, *segment.tokens)]


class Reader:
    """An engine that remembers what each row was given to read."""

    def __init__(self, engine):
        self.engine, self.rows, self.read, self.tokens = engine, {}, [], 0

    def start(self, prompts):
        rows, logits = self.engine.start(prompts)
        for row, prompt in zip(rows, prompts, strict=True):
            self.tokens += len(prompt)
            self.rows[row] = list(prompt)
        return rows, logits

    def fork(self, rows):
        new = self.engine.fork(rows)
        for row, source in zip(new, rows, strict=True):
            self.rows[row] = list(self.rows[source])
        return new

    def extend(self, rows, ids):
        for row, piece in zip(rows, ids, strict=True):
            self.rows[row] += piece
            self.tokens += len(piece)
        return self.engine.extend(rows, ids)

    def close(self, rows):
        self.read += [self.rows.pop(row) for row in rows]
        self.engine.close(rows)


class Speaker:
    """An engine that says scripted ids: for each row, the next script; after it, the end token for ever."""

    def __init__(self, template: ChatTemplate, scripts: list[list[list[int]]]):
        self.template, self.scripts, self.rows, self.next = template, list(scripts), {}, 0
        self.closed: list[int] = []

    def start(self, prompts):
        opened = list(range(self.next, self.next + len(prompts)))
        self.next += len(prompts)
        self.rows |= {row: [token for action in self.scripts.pop(0) for token in action] for row in opened}
        return opened, torch.stack([self._say(row) for row in opened])

    def fork(self, rows):
        raise AssertionError("siblings that are told the same never part")

    def extend(self, rows, ids):
        for row in rows:
            self.rows[row] = self.rows[row][1:]
        return torch.stack([self._say(row) for row in rows])

    def _say(self, row):
        logits = torch.zeros(len(self.template.tokenizer))
        logits[self.rows[row][0] if self.rows[row] else self.template.end_id] = 50.0
        return logits

    def close(self, rows):
        self.closed += rows


def spoken(template: ChatTemplate, step: Step) -> list[int]:
    """The ids with which the template itself would write a step, end token included."""
    user = [{"role": "user", "content": "x"}]
    whole = template.render([], [*user, assistant_message(step)])
    return template.encode(whole.removeprefix(template.render([], user, True)).rstrip("\n"))


@pytest.mark.parametrize("lean", [True, False])
def test_segments_are_exactly_the_ids_that_the_model_read(chat, lean):
    ours = driver(chat, lean=lean, batch=5)
    reader = Reader(ours.engines[0])
    ours.engines = [reader]
    found = ours.run(environments([short("a")] * 4 + [task()] * 3))
    assert len(reader.read) == 7 and sum(len(one.segments) for one in found) > 14
    assert sorted(ids_of(one)[:-1] for one in found) == sorted(reader.read)  # nobody reads the last sampled id
    assert {one.reason for one in found} > {"completed"}


@pytest.mark.parametrize("lean", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_are_those_of_a_fresh_teacher_forced_pass(chat, lean, temperature):
    sampling = Sampling(temperature=temperature, max_step_tokens=30, max_tokens=700, seed=4)
    found = driver(chat, sampling=sampling, lean=lean).run(environments([short("a")] * 3 + [task()] * 3))
    checked = 0
    for one in found:
        ids = ids_of(one)
        with torch.no_grad():
            logits = chat[0](torch.tensor([ids])).logits[0]
        truth = torch.log_softmax(logits / temperature, -1)
        at = 0
        for segment in one.segments:
            at += len(segment.prompt)
            places = range(at, at + len(segment.tokens))
            expected = [truth[place - 1, ids[place]].item() for place in places]
            assert segment.logprobs == pytest.approx(expected, abs=2e-4)
            at, checked = at + len(segment.tokens), checked + len(segment.tokens)
    assert checked > 60


def test_sampled_actions_alternate_with_what_the_environment_said(chat):
    ours = driver(chat)
    found = ours.run(environments([task()] * 6))
    template = ours.template
    assert any(len(one.segments) > 2 for one in found)
    for one in found:
        steps = [(t, s, step) for t, turn in enumerate(one.dialogue.turns) for s, step in enumerate(turn.steps)]
        assert [(segment.turn, segment.step) for segment in one.segments] == [(t, s) for t, s, _ in steps]
        for segment, (_, _, step) in zip(one.segments, steps, strict=True):
            said = template.parse(segment.tokens)
            assert (said.thinking, said.reply, len(said.calls)) == (step.thinking, step.reply, len(step.calls))
            assert len(segment.logprobs) == len(segment.tokens) > 0 and all(p <= 1e-6 for p in segment.logprobs)
        assert one.generated_tokens == sum(len(segment.tokens) for segment in one.segments)
        assert one.prompt_tokens + one.generated_tokens == len(ids_of(one))


def test_a_model_that_plays_the_reference_earns_everything_and_its_ids_are_the_templates(chat):
    template = ChatTemplate(chat[1])
    of = task()
    script = [spoken(template, step) for turn in of.dialogue.turns for step in turn.steps]
    speaker = Speaker(template, [script])
    (one,) = driver(chat, [speaker], Sampling(max_tokens=2000)).run(environments([of], ChecksJudge()))
    assert one.reason == "completed" and {(v.turn, v.item) for v in one.verdicts if v.met} == {
        (0, "C0"), (0, "C1"), (0, "C2"), (1, "C0"), (1, "C1")
    }  # fmt: skip
    env = Environment(of, World(of.dialogue).session())
    for turn in of.dialogue.turns:
        for step in turn.steps:
            env.feed(step)
    assert ids_of(one) == template.encode(template.render(of.dialogue.tools, env.messages).rstrip("\n"))
    assert [segment.tokens for segment in one.segments] == script and speaker.closed == [0]


def test_sampled_ids_are_never_tokenised_again(chat):
    """A model may spell a special token letter by letter: another tokenisation of the same text, kept as sampled."""
    template = ChatTemplate(chat[1])
    letters = [token for char in "<think>" for token in template.encode(char)]
    assert template.encode("<think>") != letters
    action = [*letters, *template.encode("x</think>hello"), template.end_id]
    (one,) = driver(chat, [Speaker(template, [[action, action]])]).run(environments([short(turns=2)]))
    assert [segment.tokens for segment in one.segments] == [action, action]
    assert one.dialogue.turns[0].steps[0] == Step(thinking="x", reply="hello")


def test_a_malformed_call_is_answered_and_can_be_mended(chat):
    template = ChatTemplate(chat[1])
    broken = [*template.encode('<tool_call>{"name":"find_items","arguments":{</tool_call>'), template.end_id]
    mended = spoken(template, Step(calls=[ToolCall("find_items", {"query": "coffee"})]))
    done = spoken(template, Step(reply="Mocha."))
    speaker = Speaker(template, [[broken, mended, done]])
    (one,) = driver(chat, [speaker], Sampling(max_tokens=2000)).run(environments([task()], ChecksJudge()))
    assert [step.responses[0].origin for step in one.dialogue.turns[0].steps[:2]] == ["error", "replayed"]
    assert "malformed call" in template.tokenizer.decode(one.segments[1].prompt) and one.reason == "strict"


def test_the_end_of_text_token_ends_an_action_too(chat):
    template = ChatTemplate(chat[1])
    assert len(template.stop_ids) >= 1
    action = [*template.encode("hi"), template.stop_ids[-1]]
    (one,) = driver(chat, [Speaker(template, [[action] * 3])]).run(environments([short()]))
    assert one.reason == "completed" and len(one.segments) == 3


def test_siblings_that_say_the_same_are_decoded_once(chat):
    """Greedy siblings never part, so four of them cost what one does, and each has the whole record."""
    ours = driver(chat, sampling=Sampling(temperature=0, max_step_tokens=60, max_tokens=900), batch=8)
    reader = Reader(ours.engines[0])
    ours.engines = [reader]
    found = ours.run(environments([short("a")] * 4))
    assert len({tuple(ids_of(one)) for one in found}) == 1 and found[0].segments
    assert reader.tokens == len(ids_of(found[0])) - 1  # nobody reads the last sampled id


def test_the_prompt_of_a_group_is_read_once(chat):
    ours = driver(chat, sampling=Sampling(max_step_tokens=1), batch=8)
    reader = Reader(ours.engines[0])
    ours.engines = [reader]
    of = [short(name, 1) for name in "aab"]
    found = ours.run(environments([of[0]] * 8 + [of[2]] * 4))
    assert reader.tokens == len(found[0].segments[0].prompt) + len(found[-1].segments[0].prompt)


def said(found: list[Rollout]) -> list[list[list[int]]]:
    return [[segment.tokens for segment in one.segments] for one in found]


def test_a_rollout_is_the_same_in_any_batch_order_and_number_of_workers(chat):
    of = [short("a"), short("a"), short("a"), task(), task(), short("b"), short("c")]
    seeds = [11, 12, 13, 14, 15, 16, 17]
    truth = said(driver(chat).run(environments(of), seeds=seeds))
    assert len({str(one) for one in truth}) == 7  # also siblings differ
    for settings in ({"batch": 2}, {"workers": 2, "batch": 4}, {"lean": False}):
        assert said(driver(chat, **settings).run(environments(of), seeds=seeds)) == truth, settings
    order = [5, 2, 0, 6, 4, 1, 3]
    mixed = driver(chat).run(environments([of[i] for i in order]), seeds=[seeds[i] for i in order])
    assert said(mixed) == [truth[i] for i in order]


def test_the_seed_of_the_sampling_and_of_the_rollout_both_matter(chat):
    def first(seed: int, own: int):
        sampling = Sampling(max_step_tokens=30, max_tokens=700, seed=seed)
        return str(said(driver(chat, sampling=sampling).run(environments([short()]), seeds=[own])))

    assert len({first(0, 0), first(1, 0), first(0, 1)}) == 3 and first(1, 1) == first(1, 1)


def test_greedy_siblings_say_the_same(chat):
    sampling = Sampling(temperature=0, max_step_tokens=20)
    found = driver(chat, sampling=sampling).run(environments([task()] * 3))
    assert len({str(one) for one in said(found)}) == 1


def test_workers_are_threads_that_share_the_weights_and_split_a_group(chat):
    ours = driver(chat, workers=3)
    seen: Counter[str] = Counter()
    for engine in ours.engines:
        extend = engine.extend
        engine.extend = lambda rows, ids, extend=extend: (
            seen.update([threading.current_thread().name]),
            extend(rows, ids),
        )[1]
    before = torch.get_num_threads()
    ours.run(environments([short()] * 9))
    assert len(seen) == 3 and torch.get_num_threads() == before
    assert len({id(engine.weights) for engine in ours.engines}) == 1


def test_an_action_that_is_too_long_is_cut_and_ends_the_rollout(chat):
    template = ChatTemplate(chat[1])
    endless = [template.encode("word ") * 50]
    sampling = Sampling(max_step_tokens=12)
    (one,) = driver(chat, [Speaker(template, [endless])], sampling).run(environments([short()], ChecksJudge()))
    assert (one.reason, one.owner, one.valid) == ("limit_tokens", "limit", True)
    assert len(one.segments[0].tokens) == 12 and template.end_id not in one.segments[0].tokens
    assert one.dialogue.turns[0].steps[0].reply.startswith("word word")


def test_a_rollout_never_grows_beyond_its_limit(chat):
    for most in (120, 130, 160):
        found = driver(chat, sampling=Sampling(max_tokens=most)).run(environments([short("a", 9)] * 6))
        assert all(len(ids_of(one)) <= most for one in found)
        assert {"limit_tokens"} <= {one.reason for one in found} and all(one.valid for one in found)


def test_what_the_environment_answered_counts_for_the_limit(chat):
    """After the first action there is no room for the next prompt: the turn is judged and nothing more is read."""
    template = ChatTemplate(chat[1])
    look = spoken(template, Step(calls=[ToolCall("find_items", {"query": "coffee"})]))
    of = task()
    prompt = len(template.first_prompt(of.dialogue.tools, environments([of])[0].messages))
    sampling = Sampling(max_tokens=prompt + len(look) + 10)
    (one,) = driver(chat, [Speaker(template, [[look]])], sampling).run(environments([of], ChecksJudge()))
    assert one.reason == "limit_tokens" and len(one.segments) == 1 and one.verdicts[0].met  # C0 was earned


@pytest.mark.parametrize("lean", [True, False])
def test_a_prompt_without_room_ends_its_rollout_and_no_other(chat, lean):
    long = short("long")
    long.dialogue.turns[0].user = "word " * 600  # more than the model's 2,048 positions
    ended = []
    ours = driver(chat, sampling=Sampling(max_step_tokens=20, max_tokens=2**20), lean=lean)
    found = ours.run(environments([short(), long, short("b")]), progress=ended.append)
    assert (found[1].reason, found[1].owner, found[1].segments) == ("limit_tokens", "limit", [])
    assert found[0].segments and found[2].segments and ended == [1, 1, 1]


def test_limits_of_the_environment_hold(chat):
    template = ChatTemplate(chat[1])
    reply = spoken(template, Step(reply="hi"))
    (one,) = driver(chat, [Speaker(template, [[reply] * 3])]).run(environments([short()], turns=2))
    assert one.reason == "limit_turns" and len(one.segments) == 2
    (one,) = driver(chat, [Speaker(template, [[reply] * 3])]).run(environments([short()], tokens=len(reply)))
    assert one.reason == "limit_tokens" and len(one.segments) == 1


class Broken:
    def respond(self, call):
        raise SimulatorError("gone")


def test_a_simulator_that_fails_costs_its_rollout_and_no_other(chat):
    template = ChatTemplate(chat[1])
    look = spoken(template, Step(calls=[ToolCall("find_items", {"query": "coffee"})]))
    of = [task(), task()]
    of[1].dialogue.turns[0].user = "another prompt"
    envs = environments(of)
    envs[0].session = Broken()
    speaker = Speaker(template, [[look], [look, spoken(template, Step(reply="no"))]])
    found = driver(chat, [speaker], Sampling(max_tokens=2000)).run(envs)
    assert [one.valid for one in found] == [False, True] and found[0].failure.owner == "simulator"
    assert sorted(speaker.closed) == [0, 1]


def test_groups_number_their_members(chat):
    names = ["x", "y", "x", "x"]
    ours = driver(chat, sampling=Sampling(max_step_tokens=1))
    found = ours.run(environments([short()] * 4), groups=names, seeds=[5, 6, 7, 8])
    assert [(one.group, one.member, one.seed) for one in found] == [("x", 0, 5), ("y", 0, 6), ("x", 1, 7), ("x", 2, 8)]
    assert [(one.group, one.member) for one in ours.run(environments([short()] * 2))] == [("short", 0), ("short", 1)]


def test_nobody_to_drive_is_no_work(chat):
    assert driver(chat).run([]) == []


def test_lists_of_different_lengths_are_refused(chat):
    with pytest.raises(ValueError, match="same length"):
        driver(chat).run(environments([short()]), seeds=[1, 2])


def test_new_weights_change_what_is_said(chat):
    model, tokenizer = tiny_chat()
    ours = Driver(model, tokenizer, Sampling(max_step_tokens=30), workers=2)
    before = said(ours.run(environments([short()] * 2)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-1.1)
    assert said(ours.run(environments([short()] * 2))) == before
    ours.update_weights(model)
    assert said(ours.run(environments([short()] * 2))) != before


def test_an_error_inside_the_engine_is_raised_and_its_rows_are_given_back(chat):
    ours = driver(chat, workers=2, batch=4)
    engine = ours.engines[0]
    extend, calls = engine.extend, []

    def failing(rows, ids):
        calls.append(1)
        if len(calls) == 3:
            raise MemoryError("no room")
        return extend(rows, ids)

    engine.extend = failing
    with pytest.raises(MemoryError, match="no room"):
        ours.run(environments([short()] * 8))
    assert all(length == 0 for length in engine.cache.lengths)
    engine.extend = extend
    assert all(one.segments for one in ours.run(environments([short()] * 8)))


class SlowJudge:
    """The checks, said later: each turn's verdicts wait for `before`."""

    def __init__(self, before):
        self.before, self.asked = before, 0

    def judge(self, dialogue, turn, checklist, since=0):
        return ChecksJudge().judge(dialogue, turn, checklist, since)

    async def judge_async(self, dialogue, turn, checklist, since=0):
        self.asked += 1
        await self.before(self.asked)
        return self.judge(dialogue, turn, checklist, since)


def judged(judge):
    return environments([task()] * 4 + [short("b")] * 3 + [task()] * 2, judge)


@pytest.mark.parametrize("workers, room", [(1, 900), (2, 900), (1, 420)])
def test_answers_that_must_be_awaited_change_nothing_but_the_order(chat, workers, room):
    async def later(number):
        await asyncio.sleep(0.003 * (number * 7 % 5))

    judge, small = SlowJudge(later), Sampling(max_step_tokens=60, max_tokens=room)
    sync = driver(chat, sampling=small, workers=workers).run(judged(ChecksJudge()))
    slow = driver(chat, sampling=small, workers=workers).run(judged(judge))
    assert {one.reason for one in sync} & ({"limit_tokens"} if room < 900 else {"completed", "strict", "limit_tokens"})
    assert judge.asked and [ids_of(one) for one in slow] == [ids_of(one) for one in sync]
    assert [one.verdicts for one in slow] == [one.verdicts for one in sync]
    assert [one.reason for one in slow] == [one.reason for one in sync]


def test_other_rollouts_are_decoded_while_one_is_judged(chat):
    made = driver(chat)
    reader = made.engines[0] = Reader(made.engines[0])

    async def until_others_went_on(number):
        if number > 1:
            return
        seen = reader.tokens
        for _ in range(1000):
            if reader.tokens > seen + 5:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("nothing was decoded meanwhile")

    rollouts = made.run(judged(SlowJudge(until_others_went_on)))
    assert all(one.failure is None for one in rollouts)


def test_a_judge_that_fails_later_costs_its_rollout_only(chat):
    async def broken(number):
        if number == 1:
            raise RuntimeError("the judge is ill")

    rollouts = driver(chat).run(judged(SlowJudge(broken)))
    failed = [one for one in rollouts if one.failure is not None]
    assert len(failed) == 1 and failed[0].failure.owner == "judge" and "ill" in failed[0].failure.message
