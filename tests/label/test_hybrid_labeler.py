"""The hybrid labeller: code first, a model adds only what code cannot see."""

from __future__ import annotations

import gzip
import json

import msgspec
import pytest
from askers import AGAIN, FIRST, Scripted, label, oracle
from label_builders import call, say, talk, tool

from cm2.checklist import validate
from cm2.formats import read_row
from cm2.label.lint import lint_task
from cm2.label.question import prompt_id
from cm2.label.reference import ReferenceLabeler
from cm2.label.weigh import LEAST, weighed

REPLY = "assistant.content.user_visible_reply"
DIALOGUE = talk(
    (
        "Book a sea view in Nice, what is the code?",
        [
            call("find", {"id": "R31X"}, city="Nice"),
            call("book", {"code": "N5DZ"}, room="R31X"),
            say("Booked, your code is N5DZ. Breakfast is not included."),
        ],
    ),
    ("Thanks!", [say("You are welcome. The desk opens at noon.")]),
    tools=[tool("find", ("city",), city="string"), tool("book", ("room",), room="string")],
)
CODE = ReferenceLabeler().label(DIALOGUE).task.checklists[0].items


def item(id="C9", question="Does the reply say that breakfast is not included?", weight=0.5, turn=0, **changes) -> dict:
    step, snippet = ((2, "Breakfast is not included"), (0, "The desk opens at noon"))[turn]
    return {
        "id": id,
        "evidence": [{"turn": turn, "step": step, "from": REPLY, "snippet": snippet}],
        "focus_on": REPLY,
        "question": question,
        "pass_condition": "It is said, in any words.",
        "failure_examples": [],
        "required_for_next_turn": False,
        "depends_on": [],
        "weight": weight,
        "check": None,
        **changes,
    }


def of_turn(number, *items):
    return Scripted(
        lambda request: {"items": [*items] if request.where.turn == number and request.stage == FIRST else []}
    )


def test_the_codes_items_come_first_with_their_checks_and_the_models_after_them():
    labelled = label(DIALOGUE, of_turn(0, item(weight=0.25)), hybrid=True)
    (checklist,) = labelled.task.checklists
    assert checklist.labeler == f"hybrid:scripted {prompt_id('turn')}"
    assert [(each.question, each.check) for each in checklist.items[:-1]] == [
        (each.question, each.check) for each in CODE
    ]
    added = checklist.items[-1]
    assert added.id == f"C{len(CODE)}" and added.kind == "model_reply" and added.weight == pytest.approx(0.2)
    assert [each.weight for each in checklist.items[:-1]] == pytest.approx([0.8 * each.weight for each in CODE])
    assert validate(checklist, DIALOGUE) == [] and all(report.ok for report in lint_task(labelled.task))


def test_the_model_is_shown_what_code_has_and_asked_for_the_rest():
    model = of_turn(0)
    label(DIALOGUE, model, hybrid=True)
    shown = model.prompt(0)
    for each in CODE:
        assert f"| {each.id} ({each.focus_on}, weight {each.weight:.2g}): {each.question}" in shown
    assert f"Number your items on from C{len(CODE)}" in shown
    assert "decided by code" not in model.prompt(1), "there is nothing to show of the second turn"


def test_the_model_may_depend_on_the_codes_items_even_where_it_uses_their_ids_itself():
    answer = next(each.id for each in CODE if each.focus_on == "tool.content")
    own = item("C0", question="Does the reply warn about breakfast?", depends_on=[answer])
    (checklist,) = label(DIALOGUE, of_turn(0, own), hybrid=True).task.checklists
    assert checklist.items[-1].depends_on == [answer] and len(checklist.items) == len(CODE) + 1


def test_what_code_has_said_already_goes_in_favour_of_the_code():
    reply = next(each for each in CODE if each.focus_on == REPLY)
    again = item(question=reply.question, required_for_next_turn=True)
    again["evidence"][0]["snippet"] = "your code is N5DZ"
    labelled = label(DIALOGUE, of_turn(0, again), hybrid=True)
    assert labelled.merged == 1 and labelled.task.checklists[0].items == CODE


@pytest.mark.parametrize("weight", [1e-9, 0.001, 0.3, 1, 7, 1e300])
def test_opinions_weigh_at_most_as_much_as_what_can_be_checked(weight):
    items = [item(f"C{n}", f"Does the reply mention {what}?", weight) for n, what in enumerate(("toast", "breakfast"))]
    (checklist,) = label(DIALOGUE, of_turn(0, *items), hybrid=True).task.checklists
    asked = min(1, max(2 * weight, 2 * LEAST))
    assert sum(each.weight for each in checklist.items[-2:]) == pytest.approx(asked / (1 + asked))
    assert sum(each.weight for each in checklist.items) == pytest.approx(1, abs=1e-6)


def test_without_items_of_the_code_the_models_weigh_everything():
    labelled = label(
        DIALOGUE, of_turn(1, item(question="Does the reply say when the desk opens?", turn=1)), hybrid=True
    )
    assert [each.weight for each in labelled.task.checklists[1].items] == [1.0]
    assert labelled.task.checklists[0].items == CODE


def test_weights_of_the_code_alone_are_not_touched():
    assert weighed(CODE, []) is CODE


@pytest.mark.parametrize("per", ["turn", "dialogue"])
def test_a_model_that_adds_nothing_of_use_leaves_exactly_the_references_checklists(per):
    junk = [{"junk": 1}, 5, item(evidence=[]), item(question="Did the assistant reply?"), item(weight=-1)]

    def script(request):
        return {"items": junk} if per == "turn" else {"turns": [{"turn": turn, "items": junk} for turn in range(2)]}

    model = Scripted(script)
    labelled = label(DIALOGUE, model, hybrid=True, per=per)
    reference = ReferenceLabeler().label(DIALOGUE)
    assert AGAIN in model.stages()
    assert [each.items for each in labelled.task.checklists] == [each.items for each in reference.task.checklists]
    assert labelled.alone == reference.alone


def test_a_models_double_in_another_turn_costs_the_double_its_check_not_the_codes_item():
    """With the double, lint would lend the code's item the last turn's answer, on which its check holds."""
    rome = call("find", {"id": "R99X"}, city="Rome")
    dialogue = talk(
        ("Find a room in Nice.", [call("find", {"id": "R31X"}, city="Nice"), say("There is one.")]),
        ("Book it.", [call("book", {"code": "A1B"}, room="R31X"), say("Code A1B.")]),
        ("And the other.", [call("book", {"code": "A2B"}, room="R32X"), say("Code A2B.")]),
        ("Something in Rome.", [call("find", {"error": "busy"}, city="Nice"), rome, say("It is R99X.")]),
        tools=DIALOGUE.tools,
    )
    code = ReferenceLabeler().label(dialogue).task
    first = code.checklist(0).items[0]
    double = {
        **item(),
        "focus_on": "assistant.tool_calls",
        "question": "Did the assistant call `find` again?",
        "evidence": [{"turn": 1, "step": 0, "from": "assistant.tool_calls", "snippet": "book("}],
        "check": msgspec.to_builtins(first.check),
    }
    labelled = label(dialogue, of_turn(1, double), hybrid=True)
    assert labelled.checks_out == {"twin": 1}
    assert [each.items for each in labelled.task.checklists if each.turn != 1] == [
        each.items for each in code.checklists if each.turn != 1
    ]
    assert all(report.ok for report in lint_task(labelled.task))


REAL = ("star_train", "taskmaster4", "sgd_dev", "apibank", "glaive_demo", "reason_tool_use", "nemogym_examples")


@pytest.fixture(scope="module", params=REAL)
def real(request, shared_data):
    """Six dialogues of each kind of real data."""
    lines = gzip.decompress((shared_data / f"{request.param}.jsonl.gz").read_bytes()).decode().splitlines()
    return [read_row(json.loads(line)) for line in lines[:: len(lines) // 6][:6]]


def test_on_real_dialogues_a_junk_model_leaves_exactly_the_references_items(real):
    for dialogue in real:
        junk = Scripted(lambda request: {"items": [{"id": "C0"}, "no", item(), item(weight=0), {"check": "}"}]})
        labelled = label(dialogue, junk, hybrid=True)
        reference = ReferenceLabeler().label(dialogue)
        assert [(each.turn, each.items) for each in labelled.task.checklists] == [
            (each.turn, each.items) for each in reference.task.checklists
        ]
        assert labelled.alone == reference.alone and not labelled.lost


def test_on_real_dialogues_the_references_items_are_all_kept_from_a_models_mouth(real):
    for dialogue in real:
        labelled = label(dialogue, Scripted(oracle(dialogue)))
        assert labelled.items_out == labelled.checks_out == {} and not labelled.merged
        reference = ReferenceLabeler().label(dialogue).task.checklists
        assert [[item.check for item in each.items] for each in labelled.task.checklists] == [
            [item.check for item in each.items] for each in reference
        ]
