"""What cannot hold: never an item that some verdicts would satisfy, and always one that none would."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judge_builders import call, say
from test_llm_judge import CALLS, CONTENT, REPLY, THINKING, item

from cm2.checklist import Checklist
from cm2.credit.satisfaction import dependencies, latch
from cm2.dialogue import Step
from cm2.judge.prospect import cannot_hold, first_part, negative

IDS = ("C0", "C1", "C2")


@st.composite
def cases(draw):
    steps = draw(
        st.lists(
            st.sampled_from([call("f", {"x": 1}), Step(calls=call("f").calls), say("done")]), min_size=1, max_size=3
        )
    )
    focus = st.sampled_from([CALLS, CONTENT, REPLY])
    depends = [draw(st.lists(st.sampled_from(IDS), unique=True, max_size=2)) for _ in IDS]
    items = [item(id, draw(focus), depends=on) for id, on in zip(IDS, depends, strict=True)]
    known = draw(st.dictionaries(st.sampled_from(IDS), st.just(None), max_size=2))
    met = {id: draw(st.lists(st.booleans(), min_size=len(steps), max_size=len(steps))) for id in known}
    return items, steps, met


@given(cases())
@settings(max_examples=300)
def test_it_agrees_with_trying_every_verdict_there_could_be(case):
    """A literal second implementation: all verdicts that the parts of the open items allow, latched by the equation."""
    items, steps, met = case
    depends = dependencies(Checklist(0, items))
    choices = []
    for one in items:
        first = first_part(one, steps)
        for s in range(len(steps)):
            free = one.id not in met
            choices.append(([False, True] if s >= first else [False]) if free else [met[one.id][s]])
    possible = np.zeros(len(items), dtype=bool)
    for values in product(*choices):
        said = np.array(values, dtype=float).reshape(len(items), len(steps)).T
        possible |= latch(said, depends, "gated")[-1]
    expected = {one.id for one, can in zip(items, possible, strict=True) if not can and one.id not in met}
    assert set(cannot_hold(items, steps, met)) == expected


def test_an_undecided_dependency_does_not_rule_anything_out():
    items = [item("C0"), item("C1", depends=["C0"])]
    steps = [call("f", {"x": 1}), call("f", {"x": 1})]
    assert set(cannot_hold(items, steps, {"C0": [False, False]})) == {"C1"}
    assert cannot_hold(items, steps, {"C0": [None, None]}) == {}
    assert cannot_hold([items[1]], steps, {}) == {}  # what it depends on is judged elsewhere


def test_either_reason_can_be_left_out():
    items, steps = [item("C0", REPLY), item("C1", CALLS, depends=["C0"])], [call("f", {"x": 1})] * 2
    assert set(cannot_hold(items, steps, {})) == {"C0", "C1"}
    assert set(cannot_hold(items, steps, {}, ungrounded=False)) == {"C0"}
    assert set(cannot_hold(items, steps, {}, absent=False)) == set()


def test_an_agent_that_says_nothing_earns_nothing():
    nothing = item("C0", REPLY, "Did the reply leave the price out?")
    assert set(cannot_hold([nothing], [call("f", {"x": 1}), say(" \u200b ")], {})) == {"C0"}
    thought = item("C0", THINKING, "Does the thinking avoid guessing?")
    assert set(cannot_hold([thought], [say("x")], {})) == {"C0"}


@pytest.mark.parametrize(
    ("question", "condition"),
    [
        ("Did the assistant call `book` with name “A”?", "`book` is called. Case does not matter."),
        ("Did `look` return a message?", "A response of `look` is no error and holds a message, whatever its value."),
        ("Did the assistant add the item?", "`add` is called and answered without an error. Other arguments are free."),
        (
            "Does the reply state the price?",
            "The reply states the price, in any spelling; it need not have to be exact.",
        ),
    ],
)
def test_plain_duties_are_not_taken_for_prohibitions(question, condition):
    one = item("C0", CALLS, question)
    one.pass_condition = condition
    assert not negative(one)


@pytest.mark.parametrize("kind", ["no_write", "refusal"])
def test_the_kind_alone_tells_a_prohibition(kind):
    assert negative(item("C0", CALLS, "Is all well?", kind=kind))
