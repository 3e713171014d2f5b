"""Examples: the same segmentation as a rollout's, loss on what the agent writes and on nothing else."""

from itertools import groupby

import numpy as np
import pytest

pytest.importorskip("transformers")
pytestmark = pytest.mark.train

from cm2.dialogue import Dialogue, Step, Tool, ToolCall, ToolResponse, Turn  # noqa: E402
from cm2.rollout.driver import Driver  # noqa: E402
from cm2.rollout.environment import Environment  # noqa: E402
from cm2.rollout.run import default_world  # noqa: E402
from cm2.rollout.sampling import Sampling  # noqa: E402
from cm2.rollout.template import ChatTemplate  # noqa: E402
from cm2.train.masks import IGNORED, example, schedule, segments  # noqa: E402
from rollout.coffee_task import dialogue, task  # noqa: E402
from rollout.tiny_models import tiny_chat  # noqa: E402


@pytest.fixture(scope="module")
def chat():
    return tiny_chat(max_position_embeddings=8192)


@pytest.fixture(scope="module")
def template(chat):
    return ChatTemplate(chat[1])


def runs(template, one):
    """The text of each unbroken run of trained ids."""
    pairs = groupby(zip(one.ids.tolist(), one.mask.tolist(), strict=True), key=lambda pair: pair[1])
    return [template.tokenizer.decode([id for id, _ in run]) for trained, run in pairs if trained]


class Scripted:
    """An engine that wants the next id of a script, whatever it reads."""

    def __init__(self, script, vocabulary):
        self.script, self.vocabulary, self.read = list(script), vocabulary, []

    def _next(self):
        import torch

        logits = torch.full((1, self.vocabulary), -1e9)
        logits[0, self.script.pop(0)] = 0.0
        return logits

    def start(self, prompts):
        self.read += prompts[0]
        return [0], self._next()

    def extend(self, rows, ids):
        self.read += ids[0]
        return self._next()

    def close(self, rows):
        pass


def test_an_example_is_id_for_id_what_the_driver_reads_of_an_agent_that_acts_like_it(chat, template):
    model, tokenizer = chat
    script = [id for segment in segments(template, dialogue()) for id in segment.tokens]
    driver = Driver(model, tokenizer, Sampling(max_tokens=8000, max_step_tokens=4000), lean=False)
    engine = Scripted(script, len(tokenizer))
    driver.engines = [engine]
    rollout = driver.run([Environment(task(), default_world(task(), 0).session())])[0]
    assert rollout.reason == "completed"
    assert [(s.turn, s.step, s.prompt, s.tokens) for s in rollout.segments] == [
        (s.turn, s.step, s.prompt, s.tokens) for s in segments(template, dialogue())
    ]
    one = example(template, dialogue())
    assert one.ids.tolist() == [*engine.read, rollout.segments[-1].tokens[-1]]


def test_trained_runs_are_exactly_the_assistants_parts_with_the_end_token(template):
    assert runs(template, example(template, dialogue())) == [
        '<tool_call>{"name":"find_items","arguments":{"query":"coffee"}}</tool_call><|im_end|>',
        '<tool_call>{"name":"get_order","arguments":{"order_id":"51313"}}</tool_call><|im_end|>',
        '<tool_call>{"name":"add_item","arguments":{"item_id":"mocha-7835","quantity":1}}</tool_call><|im_end|>',
        '<tool_call>{"name":"get_order","arguments":{"order_id":"51313"}}</tool_call><|im_end|>',
        "<think>done</think>I added one Mocha; your order 51313 has 1 line.<|im_end|>",
        '<tool_call>{"name":"get_opening_hours","arguments":{"day":"Monday"}}</tool_call><|im_end|>',
        "On Monday we open at 8.<|im_end|>",
    ]


def test_the_whole_example_reads_as_the_template_renders_the_conversation(template):
    call = ToolCall("ping", {"n": 1})
    turns = [
        Turn("one", [Step("hm", "wait", [call, call], [ToolResponse("a"), ToolResponse("b")]), Step(reply="")]),
        Turn("two", [Step(reply="second")]),
    ]
    one = example(template, Dialogue("d", turns, [Tool("ping")], opening=[Step(reply="hello")]))
    calls = [{"type": "function", "function": {"name": "ping", "arguments": {"n": 1}}}] * 2
    messages = [
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "wait", "reasoning_content": "hm", "tool_calls": calls},
        {"role": "tool", "content": "a"},
        {"role": "tool", "content": "b"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "second"},
    ]
    assert template.tokenizer.decode(one.ids) == template.render([Tool("ping")], messages).removesuffix("\n")
    assert "hello" not in "".join(runs(template, one))


def test_a_turn_without_steps_and_a_last_user_message_stay_in_the_prompt(template):
    turns = [
        Turn("unheard"),
        Turn("heard", [Step(reply="yes")]),
        Turn("again"),
        Turn("more", [Step(reply="no")]),
        Turn("bye"),
    ]
    one = example(template, Dialogue("d", turns))
    assert runs(template, one) == ["yes<|im_end|>", "no<|im_end|>"]
    text = template.tokenizer.decode(one.ids)
    assert "unheard" in text and "again" in text and "bye" not in text


def test_text_that_quotes_template_tokens_adds_no_message(template):
    plain = example(template, Dialogue("d", [Turn("x", [Step(reply="y")])]))
    quoting = example(template, Dialogue("d", [Turn("x<|im_end|>", [Step(reply="y<|im_end|>\n<|im_start|>user")])]))
    ends = [one.ids.tolist().count(template.end_id) for one in (plain, quoting)]
    assert ends == [2, 2]


@pytest.mark.parametrize("kept", [1, 3, 6])
def test_a_long_dialogue_is_cut_after_the_last_step_that_fits(template, kept):
    parts = [len(s.prompt) + len(s.tokens) for s in segments(template, dialogue())]
    exact = sum(parts[:kept])
    for room in (exact, exact + parts[kept] - 1):
        one = example(template, dialogue(), room)
        assert (len(one.ids), one.steps, one.cut) == (exact, kept, 7 - kept)
        assert one.ids[-1] == template.end_id and one.mask[-1]


def test_a_dialogue_of_which_no_step_fits_or_that_has_none_gives_no_example(template):
    first = next(segments(template, dialogue()))
    assert example(template, dialogue(), len(first.prompt) + len(first.tokens) - 1) is None
    assert example(template, Dialogue("d", [Turn("anyone?")])) is None


def test_labels_are_the_ids_where_trained_and_ignored_elsewhere(template):
    one = example(template, dialogue())
    assert np.array_equal(one.labels[one.mask], one.ids[one.mask])
    assert set(one.labels[~one.mask].tolist()) == {IGNORED}


def test_the_schedule_visits_every_example_once_an_epoch_and_sorts_inside_steps_only():
    ranks = np.random.default_rng(0).integers(10, 500, 37)
    order = schedule(ranks, 2, 8, seed=3)
    assert sorted(order) == sorted([*range(37)] * 2)
    steps = [order[i : i + 8] for i in range(0, 74, 8)]
    assert all(sorted(ranks[step]) == ranks[step].tolist() for step in steps)
    assert max(ranks[step].mean() for step in steps) < np.sort(ranks)[-8:].mean()  # chance decides who shares a step
    assert order == schedule(ranks, 2, 8, seed=3) != schedule(ranks, 2, 8, seed=4)


def test_half_an_epoch_visits_half_of_the_examples():
    assert len(set(schedule([5] * 10, 0.5, 4, 0))) == 5
