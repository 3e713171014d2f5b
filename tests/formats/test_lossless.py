"""Reading and then writing gives back the same JSON value: for generated messages, and for every row of real files."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest
from chat_builders import TOOL
from hypothesis import given, settings
from hypothesis import strategies as st

from cm2.dialogue import Dialogue
from cm2.errors import DataError
from cm2.formats import detect_format, read_row, read_rows, write_row
from cm2.formats.wire import same

TEXT = st.sampled_from(
    ["", "a", " b ", "<think>c</think>", "<think>\nd\n</think>\n\ne", "</think>f", "<think>g", "é\ud800"]
)
PART = st.fixed_dictionaries({"type": st.just("text"), "text": TEXT}) | st.just({"type": "image_url"}) | TEXT
CONTENT = TEXT | st.none() | st.lists(PART, max_size=2)
ARGUMENTS = st.sampled_from(
    ['{"a": 1}', '{"a":1}', "{}", "", "{'a'", "[1]", '{"a": 1, "a": 2}', '{"h": "\\ud800"}', "NaN"]
)
ID = st.none() | st.sampled_from(["a", "b", 3])
CALL = st.fixed_dictionaries(
    {
        "function": st.fixed_dictionaries(
            {"name": st.sampled_from(["f", "g"])},
            optional={
                "arguments": ARGUMENTS | st.just({"a": True}) | st.just([1]) | st.none(),
                "strict": st.booleans(),
            },
        )
    },
    optional={"id": ID, "type": st.just("function")},
)
EXTRA = {"name": st.sampled_from(["n", 1]), "mark": st.integers(0, 1)}
MESSAGE = st.one_of(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "developer", "user"]), "content": CONTENT}, optional=EXTRA
    ),
    st.fixed_dictionaries(
        {"role": st.just("assistant")},
        optional={
            **EXTRA,
            "content": CONTENT,
            "tool_calls": st.none() | st.lists(CALL, max_size=2),
            "function_call": st.none() | st.just({"name": "f", "arguments": "{}"}),
            "reasoning_content": st.none() | TEXT,
            "reasoning": TEXT,
            "refusal": TEXT,
        },
    ),
    st.fixed_dictionaries(
        {"role": st.sampled_from(["tool", "function"]), "content": CONTENT | st.just({"a": 1}) | st.just([{"a": 1}])},
        optional={**EXTRA, "tool_call_id": ID, "tool_calls": st.just([])},
    ),
)
MESSAGES = st.lists(MESSAGE, max_size=8).flatmap(
    lambda rest: st.integers(0, len(rest)).map(
        lambda at: [*rest[:at], {"role": "user", "content": "hello"}, *rest[at:]]
    )
)


@settings(max_examples=300, deadline=None)
@given(MESSAGES, st.sampled_from(["openai", "nemotron"]))
def test_any_messages_come_back_exactly(messages, format):
    tools = (
        {"metadata": json.dumps({"tools": [TOOL]}), "uuid": "d"}
        if format == "nemotron"
        else {"tools": [TOOL], "id": "d"}
    )
    written = {**tools, "messages": messages}
    assert same(write_row(read_row(deepcopy(written), format), format), written)


def said(dialogue: Dialogue) -> object:
    """What a dialogue says, without how it was written: texts without outer white space, no difference between an
    empty reply and none, each call with its own answer."""
    turns = [[turn.user, [_step(step) for step in turn.steps]] for turn in dialogue.turns]
    tools = [[tool.name, tool.description, tool.parameters] for tool in dialogue.tools]
    opening = [_step(step) for step in dialogue.opening]
    return [dialogue.id, dialogue.source, dialogue.meta, dialogue.system, opening, turns, tools]


def _step(step) -> list:
    answers = [step.response_to(i) for i in range(len(step.calls))]
    calls = [
        [call.name, call.arguments, call.id, call.raw, answer and answer.content]
        for call, answer in zip(step.calls, answers, strict=True)
    ]
    loose = sorted(response.content for response in step.responses)
    return [(step.thinking or "").strip(), (step.reply or "").strip(), calls, loose]


@settings(max_examples=200, deadline=None)
@given(MESSAGES)
def test_what_is_written_canonically_says_the_same_when_it_is_read(messages):
    dialogue = read_row({"id": "d", "tools": [TOOL], "messages": messages})
    first = write_row(_bare(dialogue), "openai")
    assert write_row(read_row(deepcopy(first)), "openai") == first


def _bare(dialogue: Dialogue) -> Dialogue:
    """The dialogue as Python would make it: without wires."""
    dialogue.wire = None
    for noun in [*dialogue.opening, *dialogue.turns, *(step for turn in dialogue.turns for step in turn.steps)]:
        noun.wire = None
    return dialogue


def check(path) -> tuple[int, int]:
    """Every row of a file both ways; how many were read and how many are no dialogues."""
    good = bad = 0
    for row in read_rows(path):
        try:
            if row.value is None:
                raise DataError(row.error)
            dialogue = read_row(row.value)
        except DataError:
            bad += 1
            continue
        good += 1
        format = detect_format(row.value)
        other = {"openai": "nemotron", "nemotron": "openai"}[format]
        assert same(write_row(dialogue, format), row.value), f"line {row.line} does not come back"
        there = read_row(write_row(dialogue, other), other)
        assert same(said(there), said(dialogue)), f"line {row.line} says something else as {other}"
        assert same(said(read_row(write_row(there, format), format)), said(dialogue)), (
            f"line {row.line}, there and back"
        )
    return good, bad


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("apibank.jsonl.gz", 263, 0),
        ("corrupted.jsonl.gz", 260, 45),
        ("glaive_demo.jsonl.gz", 191, 0),
        ("nemogym_examples.jsonl.gz", 35, 0),
        ("nemotron_like.jsonl.gz", 513, 0),
        ("nemotron_parquet", 514, 0),
        ("reason_tool_use.jsonl.gz", 50, 0),
        ("sgd_dev.jsonl.gz", 600, 0),
        ("taubench_airline_gpt4o.jsonl.gz", 200, 0),
        pytest.param("taskmaster4.jsonl.gz", 3200, 0, marks=pytest.mark.slow),
        pytest.param("star_train.jsonl.gz", 4292, 0, marks=pytest.mark.slow),
        pytest.param("star_train_think.jsonl.gz", 4292, 0, marks=pytest.mark.slow),
    ],
)
def test_every_row_of_a_real_file_comes_back_and_says_the_same_in_the_other_format(shared_data, name, good, bad):
    assert check(shared_data / name) == (good, bad)
