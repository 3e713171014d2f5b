"""Evidence of a model: it stands where it points, is mended where only white space differs, or is told off."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_builders import call, say, talk, tool

from cm2.checklist import Evidence, evidence_stands, part_of
from cm2.dialogue import Dialogue, Step, ToolCall, Turn
from cm2.label.evidence import LONGEST, MOST_POINTERS, PARTS, verified
from cm2.llm.fence import Fence

CALLS, THINKING, REPLY, ANSWER = PARTS
STEPS = [
    call("find", {"hotels": [{"id": "H-7", "name": "Park  Inn"}]}, city="Paris", stars=4),
    Step(thinking="Two rooms, so\nH-7 it is.", reply="I booked H-7.\nIt costs $120 `in all`."),
]
LATER = [say("You are welcome to H-7.")]
DIALOGUE = talk(
    ("Hello there.", [say("Good day to you.")]),
    ("Find me a cheap place in Paris.", STEPS),
    ("Thanks!", LATER),
    tools=[tool("find", (), city="string")],
)


def pointer(snippet, turn=1, step=1, source=REPLY) -> dict:
    return {"turn": turn, "step": step, "from": source, "snippet": snippet}


def check(*given, turn=1):
    return verified(list(given), DIALOGUE, turn)


def test_a_snippet_that_stands_is_kept_as_it_is():
    found = check(pointer("booked H-7"), pointer('find({"city":"Paris"', step=0, source=CALLS))
    assert found.pointers == [
        Evidence(1, 1, REPLY, "booked H-7"),
        Evidence(1, 0, CALLS, 'find({"city":"Paris"'),
    ]
    assert not found.problems and not found.mended


@pytest.mark.parametrize(
    ("snippet", "step", "source", "exact"),
    [
        ('{"city": "Paris", "stars": 4}', 0, CALLS, '{"city":"Paris","stars":4}'),
        ('"name": "Park Inn"', 0, ANSWER, '"name": "Park  Inn"'),
        ("I booked H-7. It costs", 1, REPLY, "I booked H-7.\nIt costs"),
        ("| I booked H-7.\n| It costs", 1, REPLY, "I booked H-7.\nIt costs"),
        ("  booked\u00a0H-7 ", 1, REPLY, "booked H-7"),
        ("Two rooms, so H-7", 1, THINKING, "Two rooms, so\nH-7"),
        ("in all'.", 1, REPLY, "in all`."),
    ],
)
def test_a_snippet_that_misses_by_white_space_becomes_the_exact_text(snippet, step, source, exact):
    found = check(pointer(snippet, step=step, source=source))
    assert [each.snippet for each in found.pointers] == [exact] and found.mended == 1
    assert all(evidence_stands(each, DIALOGUE) for each in found.pointers)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (pointer("a cheap place", source="user"), "the user message is no evidence"),
        (pointer("a cheap place", source="turn.user message"), "the user message is no evidence"),
        (pointer("a cheap place in Paris"), "it stands only in a user message"),
        (pointer("booked H-7", step=0), "it stands at turn 1 step 1 assistant.content.user_visible_reply"),
        (pointer("booked H-7", source=THINKING), "it stands at turn 1 step 1 assistant.content.user_visible_reply"),
        (pointer("booked H-8"), "copy it exactly"),
        (pointer("bookedx H-7"), "copy it exactly"),
        (pointer("H-7", turn=2, step=0), "comes later than turn 1"),
        (pointer("H-7", turn=9), "names a turn from 0 to 2"),
        (pointer("H-7", turn=-1), "names a turn from 0 to 2"),
        (pointer("H-7", turn=True), "names a turn from 0 to 2"),
        (pointer("H-7", step=2), "turn 1 has the steps 0 to 1"),
        (pointer("H-7", step=None), "turn 1 has the steps 0 to 1"),
        (pointer("..."), "the snippet is empty"),
        (pointer(None), "the snippet is empty"),
        (pointer("H-7", source="reply"), "evidence comes from one of"),
        ("H-7", "evidence is an object"),
    ],
)
def test_a_pointer_that_does_not_stand_is_told_with_where_to_look(given, told):
    found = check(given)
    assert not found.pointers and told in found.problems[0]


def test_no_evidence_at_all_is_a_problem():
    for nothing in (None, [], {}, "x", 3):
        assert verified(nothing, DIALOGUE, 1).problems == [
            "there is no evidence; quote the place in the turn on which the item rests"
        ]


def test_evidence_of_earlier_turns_alone_is_not_enough():
    early = pointer("Good day", turn=0, step=0)
    assert check(early).pointers == [] and "no evidence is from turn 1" in check(early).problems[0]
    assert len(check(early, pointer("booked")).pointers) == 2


def test_what_stands_is_kept_beside_what_does_not():
    found = check(pointer("nowhere to be seen"), pointer("booked H-7"))
    assert len(found.pointers) == 1 and len(found.problems) == 1


def test_many_pointers_and_long_snippets_are_bounded():
    long = Dialogue("d", [Turn("u", [Step(reply="word " * 999)])])
    found = verified([{**pointer("word " * 900, turn=0, step=0)}], long, 0)
    assert len(found.pointers[0].snippet) == LONGEST and evidence_stands(found.pointers[0], long)
    assert len(check(*[pointer(f"H-7{'.' * (n % 2)}") for n in range(99)]).problems) <= MOST_POINTERS


def test_an_argument_that_is_no_text_is_no_crash():
    odd = Dialogue("d", [Turn("u", [Step(calls=[ToolCall("f", {"x": "\ud800"})])])])
    (found,) = verified([pointer("f(", turn=0, step=0, source=CALLS)], odd, 0).pointers
    assert found.snippet == "f("
    assert not verified([pointer("g(", turn=0, step=0, source=CALLS)], odd, 0).pointers


TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


@given(TEXT, TEXT, TEXT)
def test_whatever_is_quoted_from_the_prompt_stands_in_the_reference(before, quoted, after):
    """A line of the fenced transcript, read back as evidence, is found; and whatever is found really stands there."""
    dialogue = Dialogue("d", [Turn("u", [Step(reply=before + quoted + after)])])
    shown = Fence("bcdfghjk").transcript(dialogue)
    for line in shown.splitlines():
        snippet = line.removeprefix("| ")
        found = verified([pointer(snippet, turn=0, step=0)], dialogue, 0)
        assert all(evidence_stands(each, dialogue) for each in found.pointers)
    exact = verified([pointer(quoted, turn=0, step=0)], dialogue, 0)
    assert bool(exact.pointers) == any(map(str.isalnum, quoted))
    assert all(each.snippet in part_of(dialogue.turns[0].steps[0], REPLY) for each in exact.pointers)
