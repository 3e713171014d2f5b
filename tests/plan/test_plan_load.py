"""Calls and tokens by hand, and against a literal second count of the schedules."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm2.errors import ConfigError
from cm2.plan.constants import Constants
from cm2.plan.load import judge_calls
from cm2.plan.plan import make_plan
from cm2.plan.setup import fitted
from cm2.plan.shape import Shape, of_tasks
from cm2.train.rl import RlConfig

CONSTANTS = Constants({"judge_rules": 100, "judge_item": 10, "judge_answer": 7, "open": 1.0})
SHAPE = Shape(turns=3, steps=3, items=6)


def recipe(**given):
    return msgspec.convert(
        {"input": "in", "output": "out", "max_tokens": 10_000, "max_step_tokens": 4000} | given, RlConfig
    )


def test_the_default_dialogue_is_that_of_the_cost_table():
    """docs/judge.md, made, history of 4,000 tokens: 54 calls against 3 for 3 turns x 3 steps x 6 items."""
    assert Shape() == SHAPE and SHAPE.total == 3980
    table = Constants()
    published = judge_calls(SHAPE, "published", 6, 1, table, every=True)
    turn = judge_calls(SHAPE, "turn", 6, 1, table)
    assert (published.calls, turn.calls) == (54, 3)
    # counted by a model of the prompts: 156k and 11k read, 70k and 6.1k anew with a perfect cache
    assert published.prompt == pytest.approx(156e3, rel=0.15)
    assert turn.prompt == pytest.approx(11e3, rel=0.10)
    assert published.prefilled == pytest.approx(70e3, rel=0.20)
    assert turn.prefilled == pytest.approx(6.1e3, rel=0.15)


def literal(schedule, shape, items):
    """Every question of a rollout, one by one."""
    calls = prompt = answers = 0
    record = shape.prompt
    for _ in range(int(shape.turns)):
        record += shape.user
        for step in range(int(shape.steps)):
            record += shape.action
            if step + 1 < shape.steps:
                record += shape.response
            if schedule in ("published", "item"):
                for _ in range(items):
                    calls, prompt, answers = calls + 1, prompt + 100 + 10 + record, answers + 7
            elif schedule == "step":
                calls, prompt, answers = calls + 1, prompt + 100 + 10 * items + record, answers + 7 * items
        if schedule == "turn":
            calls, prompt, answers = calls + 1, prompt + 100 + 10 * items + record, answers + 7 * items
    return calls, prompt, answers, record


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["published", "item", "step", "turn"]),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(1, 8),
    st.integers(0, 3000),
)
def test_calls_and_tokens_equal_a_literal_count(schedule, turns, steps, items, prompt):
    shape = Shape(turns=turns, steps=steps, items=items, prompt=prompt)
    found = judge_calls(shape, schedule, items, 1, CONSTANTS)
    calls, read, answers, record = literal(schedule, shape, items)
    assert (found.calls, found.answers) == (calls, answers)
    assert found.prompt == pytest.approx(read)
    assert shape.total == pytest.approx(record)
    assert found.prefilled <= found.prompt


def test_items_that_are_satisfied_are_not_asked_again():
    all_of_them = judge_calls(SHAPE, "published", 6, 1, Constants(), every=True)
    open_ones = judge_calls(SHAPE, "published", 6, 1, Constants())
    assert open_ones.calls == all_of_them.calls / 2


@pytest.mark.parametrize(
    ("judging", "share"),
    [
        ({"kind": "checks"}, 0),
        ({"kind": "llm"}, 1),
        ({"kind": "hybrid"}, 0.25),
        ({"kind": "vote", "votes": 5}, 0.25 * 5),
        ({"kind": "vote", "votes": 5, "checks": False}, 5),
    ],
)
def test_answers_follow_from_who_judges(judging, share):
    plan = make_plan(recipe(judging=judging, prompts=2, group=4), gpus=1)
    assert plan.load.judge.answers == pytest.approx(8 * 3 * 6 * 60 * share)


def test_worlds_and_recorded_answers_cost_no_simulator_call():
    assert make_plan(recipe()).load.simulator.calls == 0
    plan = make_plan(recipe(simulator={"kind": "llm"}, prompts=2, group=4))
    assert plan.load.simulator.calls == pytest.approx(8 * 6 * 0.27)


def test_training_computes_every_token_or_a_groups_prompt_once():
    sharded = make_plan(recipe(prompts=2, group=4), gpus=2)
    local = make_plan(recipe(prompts=2, group=4), gpus=1)
    assert sharded.load.computed == 8 * 3980
    assert local.load.computed == 2 * 1400 + 8 * 2580
    assert sharded.load.generated == 8 * 1800


def test_dialogues_beyond_the_recipes_limits_are_cut_and_that_is_said():
    shape, note = fitted(Shape(), recipe(max_tokens=1990))
    assert shape.total == pytest.approx(1990, rel=1e-3) and "prompt 1400 → 700" in note
    assert fitted(Shape(), recipe()) == (Shape(), None)
    assert fitted(Shape(), recipe(max_step_tokens=64, max_turns=2))[0].generated == 2 * 3 * 64


def test_a_file_of_tasks_says_how_long_its_dialogues_are(tmp_path):
    from cm2.checklist import Checklist, Item, Task
    from cm2.dialogue import Dialogue, Step, ToolCall, ToolResponse, Turn
    from cm2.formats import RowWriter, write_task

    steps = [
        Step(calls=[ToolCall(name="f", arguments={})], responses=[ToolResponse(content="x" * 400)]),
        Step(reply="y" * 80),
    ]
    dialogue = Dialogue("d", turns=[Turn(user="u" * 40, steps=steps)], system="s" * 800)
    items = [Item(id=f"C{i}", focus_on="tool.content", question="q", pass_condition="p", weight=0.5) for i in range(2)]
    path = tmp_path / "t.jsonl"
    with RowWriter(str(path)) as out:
        out.write(write_task(Task(dialogue, [Checklist(0, items)]), "openai"))
    shape = of_tasks(str(path))
    assert (shape.turns, shape.steps, shape.items, shape.prompt, shape.user) == (1, 2, 2, 200, 10)
    assert shape.response == 100 and 10 < shape.action < 20


def test_a_judge_that_does_not_fit_its_devices_is_a_sentence():
    with pytest.raises(ConfigError, match=r"does not fit on 1 x rtx4090.*--judge-gpus"):
        make_plan(recipe(judging={"kind": "llm"}), gpu="rtx4090", judge_gpus=1)
