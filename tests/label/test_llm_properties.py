"""Whatever a model answers: what is kept obeys every rule, every kept check passes lint, no item goes uncounted."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
from askers import AGAIN, Scripted, given, label, oracle, turn_of
from hypothesis import HealthCheck, settings
from hypothesis import given as over
from hypothesis import strategies as st
from label_builders import call, say, talk, tool

from cm2.checklist import validate
from cm2.dialogue import Dialogue
from cm2.label.label_run import LabelSummary
from cm2.label.labelling import ModelLabelled
from cm2.label.lint import lint_task
from cm2.label.reference import ReferenceLabeler
from cm2.worlds import MakeConfig, make

DIALOGUE = talk(
    (
        "Book a room in Cairo.",
        [
            call("search", {"hotels": [{"id": "H62", "price": 90}]}, city="Cairo"),
            call("book", {"code": "N5D", "total": 360}, hotel="H62", nights=4),
            say("I booked it: code N5D, total 360."),
        ],
    ),
    ("Cancel Q9.", [call("cancel", {"ok": True, "fee": 12}, code="Q9"), say("Q9 is cancelled, the fee is 12.")]),
    ("Thanks!", [say("You are welcome.")]),
    tools=[
        tool("search", ("city",), city="string"),
        tool("book", ("hotel",), hotel="string", nights="integer"),
        tool("cancel", ("code",), code="string"),
    ],
)
REFERENCE = {
    each.turn: [given(item) for item in each.items] for each in ReferenceLabeler().label(DIALOGUE).task.checklists
}
NUMBERED = [f"C{number}" for number in range(99)]
PARTS = [
    "assistant.tool_calls",
    "assistant.content.thinking",
    "assistant.content.user_visible_reply",
    "tool.content",
]


def accounted(labelled: ModelLabelled) -> bool:
    """Whether every proposed item was kept, merged or dropped for a reason."""
    kept = sum(item.kind.startswith("model_") for each in labelled.task.checklists for item in each.items)
    dropped = sum(
        count for reason, count in labelled.items_out.items() if reason.startswith("model") and "asked" not in reason
    )
    return labelled.proposed == kept + labelled.merged + dropped


def sound(labelled: ModelLabelled) -> None:
    for checklist in labelled.task.checklists:
        assert validate(checklist, labelled.task.dialogue) == []
        assert checklist.items and [item.id for item in checklist.items] == [
            f"C{n}" for n in range(len(checklist.items))
        ]
    assert [report.failures for report in lint_task(labelled.task) if not report.ok] == []
    assert accounted(labelled)
    summary = LabelSummary()
    summary.add_drafted(labelled)
    assert summary.items == sum(len(each.items) for each in labelled.task.checklists)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
SNIPPETS = ["H62", "N5D", "total 360", "Cairo", "Cancel Q9", "You are welcome", 'search({"city": "Cairo"})', "", "zzz"]
POINTER = st.fixed_dictionaries(
    {
        "turn": st.integers(-1, 4),
        "step": st.integers(-1, 3),
        "from": st.sampled_from([*PARTS, "user"]),
        "snippet": st.sampled_from(SNIPPETS),
    }
)
QUESTIONS = [
    "Does the reply state the code?",
    "Does the reply state the total?",
    "If needed, does the reply state the code?",
    "Did the assistant call `book`?",
    "Did the assistant call `book` in step 1 and tell the user the code?",
    "Did `search` return a hotel?",
    "Did the assistant reply?",
    "Was the assistant polite about the code?",
]
CHECKS = [
    None,
    {"type": "called", "tool": "book"},
    {"type": "called", "tool": "cancel"},
    {
        "type": "called",
        "tool": "book",
        "arguments": {"hotel": {"op": "came_from", "tool": "search", "path": "hotels[::0]"}},
    },
    {"type": "not_called", "tools": ["cancel"]},
    {"type": "reply", "states": [{"any_of": ["N5D"], "tool": "book", "path": "code"}]},
    {"type": "reply", "pattern": "(?i)sorry|booked|cancel"},
    {"type": "response", "tool": "search", "path": "hotels[0].id"},
    {"type": "before", "first": {"type": "called", "tool": "search"}, "then": {"type": "called", "tool": "book"}},
    {"type": "any", "checks": []},
]
CHECKS += [item["check"] for items in REFERENCE.values() for item in items]
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "id": st.sampled_from(["C0", "C1", "C2", "x", ""]),
    "evidence": st.lists(POINTER, max_size=3) | JSON,
    "focus_on": st.sampled_from(PARTS),
    "question": st.sampled_from(QUESTIONS) | st.text(max_size=40),
    "pass_condition": st.sampled_from(["It is so.", "", "As in turn 3."]),
    "failure_examples": st.lists(st.text(max_size=5), max_size=3) | JSON,
    "required_for_next_turn": st.booleans() | JSON,
    "depends_on": st.lists(st.sampled_from(["C0", "C1", "C2", "C9", "x"]), max_size=3) | JSON,
    "weight": st.floats() | st.sampled_from([0, -1, 1, 0.5, "0.5", None, 10**400, True]),
    "check": st.sampled_from(CHECKS) | JSON,
}
CHANGE = st.sampled_from(sorted(FIELDS)).flatmap(lambda name: FIELDS[name].map(lambda value: {name: value}))


def answer(turn: int) -> st.SearchStrategy[list[Any]]:
    """Good items of the turn, items with a field or two changed, checks swapped among them, and junk."""
    good = st.sampled_from(REFERENCE.get(turn % 3) or REFERENCE[0]).map(copy.deepcopy)
    swapped = st.builds(lambda item, check: {**item, "check": check}, good, st.sampled_from(CHECKS))
    spoilt = st.builds(
        lambda item, *changes: {k: v for each in (item, *changes) for k, v in each.items()}, good, CHANGE
    )
    twice = st.builds(lambda item, change: {**item, **change}, spoilt, CHANGE)
    return st.lists(good | swapped | swapped | spoilt | spoilt | twice | JSON, max_size=9)


ANSWERS = st.tuples(*(answer(turn) for turn in range(6)))
"""First answers to turns 0 to 2, then second ones."""


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@over(ANSWERS, st.booleans(), st.sampled_from(["turn", "dialogue"]), st.booleans(), st.sampled_from([1, 3, 12]))
def test_whatever_is_answered_what_is_kept_is_sound_and_nothing_is_swallowed(answers, hybrid, per, repair_checks, most):
    def script(request):
        at = 3 * (request.stage == AGAIN)
        if per == "turn":
            return {"items": answers[at + turn_of(request)]}
        return {"turns": [{"turn": turn, "items": answers[at + turn]} for turn in range(3)]}

    model = Scripted(script)
    labelled = label(DIALOGUE, model, hybrid, per=per, repair_checks=repair_checks, most_items=most)
    sound(labelled)
    for checklist in labelled.task.checklists:
        assert sum(item.kind.startswith("model_") for item in checklist.items) <= most
    asked = [(request.where.turn, request.stage) for request in model.requests]
    assert len(set(asked)) == len(asked), "no question is asked twice"
    if hybrid:
        kept = [item for each in labelled.task.checklists for item in each.items if not item.kind.startswith("model_")]
        reference = [item for each in ReferenceLabeler().label(DIALOGUE).task.checklists for item in each.items]
        assert [(item.question, item.check) for item in kept] == [(item.question, item.check) for item in reference]


@settings(max_examples=60)
@over(st.lists(JSON, min_size=6, max_size=6))
def test_an_answer_of_any_shape_is_lost_or_labelled(values):
    labelled = label(DIALOGUE, Scripted(lambda request: values[3 * (request.stage == AGAIN) + turn_of(request)]))
    assert labelled.lost or not labelled.task.checklists


@cache
def world(profile: str) -> list[Dialogue]:
    return list(make(MakeConfig(count=16, seed=5, profile=profile, two_turns=0.3)))


@pytest.mark.parametrize("profile", ["short", "full"])
@pytest.mark.parametrize("per", ["turn", "dialogue"])
def test_a_model_that_proposes_the_reference_labellers_items_gets_all_of_them(profile, per):
    for dialogue in world(profile):
        model = Scripted(oracle(dialogue))
        labelled = label(dialogue, model, per=per)
        reference = ReferenceLabeler().label(dialogue).task
        assert AGAIN not in model.stages() and labelled.items_out == labelled.checks_out == {} and not labelled.merged
        assert [each.turn for each in labelled.task.checklists] == [each.turn for each in reference.checklists]
        for mine, its in zip(labelled.task.checklists, reference.checklists, strict=True):
            for got, wanted in zip(mine.items, its.items, strict=True):
                got.kind = wanted.kind
                assert got.weight == pytest.approx(wanted.weight)
                got.weight = wanted.weight
                assert got == wanted
        sound(label(dialogue, model, per=per))


def test_in_a_hybrid_labelling_the_same_items_are_merged_into_the_codes():
    for dialogue in world("short"):
        labelled = label(dialogue, Scripted(oracle(dialogue)), hybrid=True)
        reference = ReferenceLabeler().label(dialogue).task
        assert [each.items for each in labelled.task.checklists] == [each.items for each in reference.checklists]
        assert labelled.merged == labelled.proposed > 0


def test_a_spoilt_proposal_never_pays_for_less_than_the_reference_did():
    """Every check of the reference labeller, with one argument or fact taken out of it, is refused or still sound."""
    for dialogue in world("short"):
        script = oracle(dialogue)

        def spoilt(request, script=script):
            value = copy.deepcopy(script(request))
            for item in value["items"]:
                check = item["check"]
                if check["type"] == "called" and check.get("arguments"):
                    check["arguments"].pop(next(iter(check["arguments"])))
                elif check["type"] == "all":
                    check["checks"] = check["checks"][:1]
            return value

        sound(label(dialogue, Scripted(spoilt)))
