"""Reading answers: the final JSON counts, strictly, and thinking is no part of it."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm2.llm.answer import Invalid, final_json, visible

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=5)
PROSE = st.text(alphabet=st.characters(exclude_characters="{}[]", exclude_categories=["Cs"]))


@given(PROSE, OBJECTS, PROSE, st.booleans())
def test_an_object_is_found_whatever_prose_stands_around_it(before, value, after, indented):
    written = json.dumps(value, indent=2 if indented else None, ensure_ascii=not indented)
    assert final_json(f"{before}\n{written}\n{after}") == value


@given(st.lists(OBJECTS, min_size=1, max_size=4))
def test_the_final_object_counts(values):
    text = "\nor rather\n".join(json.dumps(value) for value in values)
    assert final_json(text) == values[-1]


@given(OBJECTS, OBJECTS.filter(bool), st.data())
def test_a_final_object_that_is_cut_off_is_never_replaced_by_an_earlier_one(first, last, data):
    written = json.dumps(last)
    cut = data.draw(st.integers(2, len(written) - 1))
    with pytest.raises(Invalid):
        final_json(f"{json.dumps(first)} but finally {written[:cut]}")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ('Here it is:\n```\n{"a": 1}\n```\nGood luck!', {"a": 1}),
        ('{"a": "} ``` {"}', {"a": "} ``` {"}),
        ('{"draft": 1} no: {"a": {"b": []}}', {"a": {"b": []}}),
        ('use { carefully. {"a": 1}', {"a": 1}),
        ('it\'s "quoted { text. {"a": 1}', {"a": 1}),
        ('{"a": "\\u00e9\\ud83d\\ude00"}', {"a": "é😀"}),
    ],
)
def test_forms_that_models_write(text, value):
    assert final_json(text) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no json", "no JSON object"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "Infinity"),
        ('{"a": 1e999}', "too large"),
        ('{"a": 1, "b": {"c": 1, "c": 1}}', "'c' stands twice"),
        ('{"ok": 1} {"a": NaN}', "NaN"),
        ("{'a': 1}", "broken"),
        ('{"ok": 1} then {curly}', "broken"),
        ('{"ok": true}\n{"a": {"ok": true}', "broken"),
        ('{"a": 1,}', "broken"),
        ('{"a": "\\ud800"}', "surrogate"),
        ('{"a": ' + "9" * 5000 + "}", "cannot be read"),
        ("[" * 100_000 + "]" * 100_000, "no JSON object|deeply"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "deeply"),
    ],
)
def test_what_is_no_json_here(text, reason):
    with pytest.raises(Invalid, match=reason):
        final_json(text)


def test_arrays_are_looked_for_only_when_they_are_asked_for():
    assert final_json('see [1]: [{"a": 1}]', "array") == [{"a": 1}]
    assert final_json('see [1]: {"a": 1}') == {"a": 1}
    assert final_json(" true ", "boolean") is True
    with pytest.raises(Invalid):
        final_json("it is true", "boolean")


@pytest.mark.parametrize(
    "text", ["{" * 10**6, "{ " * 499_999, '{"' * 499_999, '"{' * 499_999, "[" * 10**6, "{ " * 400 + '"a" ' * 200_000]
)
def test_hostile_answers_are_read_in_bounded_time(text):
    started = time.process_time()
    for kind in ("object", "array"):
        with pytest.raises(Invalid):
            final_json(text, kind)
    assert time.process_time() - started < 15  # a quarter of a second to two; of the processor, which others use too


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": '<think>so {"a": 1}</think>\n answer'}, "answer"),
        ({"content": "\n<THINKING>x</THINKING>answer"}, "answer"),
        ({"content": "the template opened it </think> answer"}, "answer"),
        ({"content": '{"quote": "he wrote </think> there"}'}, '{"quote": "he wrote </think> there"}'),
        ({"content": "answer", "reasoning_content": "thought"}, "answer"),
        ({"content": [{"type": "text", "text": "an"}, {"type": "x"}, {"type": "text", "text": "swer"}]}, "answer"),
    ],
)
def test_thinking_is_no_part_of_an_answer(message, text):
    assert visible(message, "stop") == text


@pytest.mark.parametrize(
    ("message", "finish", "reason"),
    [
        ({"content": "x", "refusal": "I won't"}, "stop", "refused: I won't"),
        ({"content": "x"}, "content_filter", "content filter"),
        ({"content": "x"}, "length", "cut off"),
        ({"content": None}, "stop", "empty"),
        ({"content": "  "}, "stop", "only thinking|empty"),
        ({"content": "<think>for ever"}, "stop", "only thinking"),
        ({"content": None, "reasoning": "hm"}, "stop", "only thinking"),
        ({"content": None, "tool_calls": [{}]}, "stop", "calls a tool"),
        ({"content": 7}, "stop", "only thinking|empty"),
        ({"content": "half \ud800"}, "stop", "surrogate"),
    ],
)
def test_what_is_no_answer(message, finish, reason):
    with pytest.raises(Invalid, match=reason):
        visible(message, finish)
