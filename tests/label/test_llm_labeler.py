"""The LLM labeller, question by question: what is asked, what is kept, what is asked again, what is dropped and why."""

from __future__ import annotations

import math
from typing import Any

import pytest
from askers import AGAIN, FIRST, Scripted, label, turn_of
from label_builders import call, say, talk, tool

from cm2.check import Called, Equals
from cm2.checklist import validate
from cm2.dialogue import Step, Tool
from cm2.errors import ConfigError
from cm2.label.config import Drafting
from cm2.label.labelling import NO_ANSWER, NOTHING_PROPOSED
from cm2.label.lint import lint_task
from cm2.label.question import prompt_id, prompts
from cm2.llm import BudgetReached, ModelError, ProviderError
from cm2.llm.fence import Fence

CALLS, THINKING, REPLY, ANSWER = (
    "assistant.tool_calls",
    "assistant.content.thinking",
    "assistant.content.user_visible_reply",
    "tool.content",
)
DIALOGUE = talk(
    (
        "Book a sea view in Nice for my aunt.",
        [
            call("find", {"rooms": [{"id": "R-31", "price": 90}]}, city="Nice"),
            call("book", {"code": "N5D", "total": 180}, room="R-31", nights=2),
            say("Booked: code N5D, 180 in all. Breakfast is not included, your aunt can add it at the desk."),
        ],
    ),
    ("And cancel the old one, Q9.", [call("cancel", {"ok": True}, code="Q9"), say("Q9 is cancelled.")]),
    ("Thanks!", [say("You are welcome.")]),
    ("Hello?", []),
    tools=[
        tool("find", ("city",), city="string"),
        tool("book", ("room",), room="string", nights="integer"),
        tool("cancel", ("code",), code="string"),
    ],
    system="Say what is not included.",
)
EVIDENCE = {
    CALLS: (1, 'book({"room":"R-31"'),
    ANSWER: (0, '"id": "R-31"'),
    REPLY: (2, "Breakfast is not included"),
    THINKING: (2, "x"),
}


def item(id="C0", focus=REPLY, question="Does the reply say that breakfast is not included?", **changes: Any) -> dict:
    step, snippet = EVIDENCE[focus]
    return {
        "id": id,
        "evidence": [{"turn": 0, "step": step, "from": focus, "snippet": snippet}],
        "focus_on": focus,
        "question": question,
        "pass_condition": "It is said that breakfast costs extra or is not included, in any words.",
        "failure_examples": ["nothing is said about breakfast"],
        "required_for_next_turn": False,
        "depends_on": [],
        "weight": 0.5,
        "check": None,
        **changes,
    }


def booking(id="C1", **changes: Any) -> dict:
    question = "Did the assistant call `book` with the room from `find` for nights 2?"
    check = {
        "type": "called",
        "tool": "book",
        "arguments": {"room": {"op": "came_from", "tool": "find", "path": "rooms[*].id"}, "nights": NIGHTS},
    }
    return item(id, CALLS, **{"question": question, "check": check, **changes})


def found(id="C2", **changes: Any) -> dict:
    check = {"type": "response", "tool": "find", "path": "rooms[0].id"}
    return item(id, ANSWER, **{"question": "Did `find` return a room?", "check": check, **changes})


ANY_TEXT = {"op": "pattern", "pattern": ""}
NIGHTS = {"op": "equals", "value": 2}


def asker(first: list[Any], again: Any = ()) -> Scripted:
    """Turn 0 gets these items, the others none; what is asked again gets those."""

    def script(request):
        if request.stage == AGAIN:
            return again if isinstance(again, Exception) else {"items": list(again)}
        return {"items": first if turn_of(request) == 0 else []}

    return Scripted(script)


def drop(first: list[Any], again: Any = (), **config: Any):
    """The labelled dialogue, after both questions."""
    return label(DIALOGUE, asker(first, again), **config)


def questions(labelled) -> list[str]:
    return [each.question for checklist in labelled.task.checklists for each in checklist.items]


def test_every_turn_with_an_answer_is_asked_about_once():
    model = asker([item(), booking(), found()])
    labelled = label(DIALOGUE, model)
    assert [turn_of(request) for request in model.requests] == [0, 1, 2] and model.stages() == [FIRST] * 3
    assert labelled.proposed == 3 and not labelled.lost and labelled.cost == 0.75
    assert labelled.turns_out == {NOTHING_PROPOSED: 2, NO_ANSWER: 1} and labelled.empty == 2


def test_a_checklist_has_every_field_and_says_who_wrote_it():
    labelled = drop([item(), booking(depends_on=["C2"], required_for_next_turn=True), found(weight=1.0)])
    (checklist,) = labelled.task.checklists
    assert checklist.labeler == f"llm:scripted {prompt_id('turn')}" and checklist.turn == 0 and checklist.variant == 0
    told, made, room = checklist.items
    assert (told.id, made.id, room.id) == ("C0", "C1", "C2")
    assert (told.weight, made.weight, room.weight) == (0.25, 0.25, 0.5)
    assert told.kind == "model_reply" and told.check is None and told.failure_examples
    assert told.evidence[0].snippet == "Breakfast is not included" and "any words" in told.pass_condition
    assert made.kind == "model_call" and made.required_for_next_turn and made.depends_on == ["C2"]
    assert isinstance(made.check, Called) and made.check.arguments["nights"] == Equals(2)
    assert validate(checklist, DIALOGUE) == [] and all(report.ok for report in lint_task(labelled.task))


def test_the_reference_stands_in_front_byte_for_byte_and_the_turn_last():
    model = asker([item(evidence=[])])
    label(DIALOGUE, model, checklists=2)
    systems = {request.messages[0]["content"] for request in model.requests}
    users = [request.messages[1]["content"] for request in model.requests]
    shared = Fence.make(model.secret, DIALOGUE.id).transcript(DIALOGUE, tools=True)
    assert len(systems) == 1 and all(user.startswith(f"{shared}\n\n") for user in users)
    assert "checklist of turn 1:" in model.prompt(2)[len(shared) :]
    assert {request.affinity for request in model.requests} == {"d"}
    assert all(request.prompt == prompt_id("turn") and request.role == "labeler" for request in model.requests)


def test_nothing_of_the_dialogue_stands_outside_of_the_markers():
    marked = talk(
        ("zebra", [Step(thinking="zebra", reply="zebra"), call("zebra", {"zebra": 1}, zebra="zebra"), say("zebra")]),
        tools=[Tool("zebra", "zebra", {"properties": {"zebra": {"description": "zebra"}}})],
        system="zebra",
    )  # fmt: skip
    bad = item(question="Is it a zebra, if zebra?", evidence="zebra", check={"type": "zebra"}, depends_on=["zebra"])
    good = item(id="C8", question="Does the reply say zebra?")
    good["evidence"] = [{"turn": 0, "step": 2, "from": REPLY, "snippet": "zebra"}]
    model = Scripted(lambda request: {"items": [bad, good] if request.stage == FIRST else []})
    label(marked, model)
    label(marked, model, hybrid=True)
    assert model.stages() == [FIRST, AGAIN, FIRST, AGAIN]
    for request in model.requests:
        assert "zebra" not in request.messages[0]["content"]
        inside = False
        for line in request.messages[1]["content"].splitlines():
            inside = (inside or line.startswith("<<<data ")) and not line.startswith("<<<end ")
            assert inside or "zebra" not in line, line


@pytest.mark.parametrize(
    ("changes", "reason", "told"),
    [
        ({"evidence": []}, "evidence", "there is no evidence"),
        (
            {"evidence": [{"turn": 0, "step": 0, "from": REPLY, "snippet": "Breakfast is"}]},
            "evidence",
            "stands at turn 0",
        ),
        (
            {"evidence": [{"turn": 0, "step": 0, "from": "user", "snippet": "a sea view"}]},
            "evidence",
            "the user message is no evidence",
        ),
        ({"question": "If asked, does the reply name breakfast?"}, "conditional", "state the duty itself"),
        ({"question": "Does the reply of step 2 name breakfast?"}, "turn_number", "name"),
        ({"question": "Does the reply name breakfast and ask for the age?"}, "atomic", "ask one"),
        ({"question": "Does the reply politely refuse breakfast?"}, "style", "judges manners"),
        ({"question": "Does the assistant understand that breakfast is extra?"}, "observable", "about a mind"),
        ({"question": "Does the reply answer the question?"}, "trivial", "fits any turn"),
        ({"question": ""}, "form", "1 to 600 characters"),
        ({"question": None}, "form", "1 to 600 characters"),
        ({"focus_on": "user"}, "form", "focus_on is one of"),
        ({"focus_on": THINKING}, "focus", "the reference has no assistant.content.thinking"),
        ({"pass_condition": " "}, "pass_condition", "is empty"),
        ({"weight": 0}, "weight", "above 0"),
        ({"weight": -1}, "weight", "above 0"),
        ({"weight": math.nan}, "weight", "above 0"),
        ({"weight": math.inf}, "weight", "above 0"),
        ({"weight": 10**400}, "weight", "above 0"),
        ({"weight": None}, "weight", "above 0"),
        ({"weight": True}, "weight", "above 0"),
        ({"depends_on": ["C7"]}, "depends_on", "which is no item here"),
        ({"depends_on": ["C0"]}, "depends_on", "depends on itself"),
        ({"depends_on": ["C1"]}, "depends_on", "which focuses on assistant.tool_calls"),
    ],
)
def test_what_fails_is_asked_again_once_with_the_reason_then_dropped(changes, reason, told):
    bad = item(**changes)
    model = asker([bad, booking()], [bad])
    labelled = label(DIALOGUE, model)
    assert model.stages() == [FIRST] * 3 + [AGAIN]
    asked = model.prompt()
    assert f"- {reason}: " in asked and told in asked and '"id":"C0"' in asked and '"id":"C1"' not in asked
    assert questions(labelled) == [booking()["question"]]
    kind = "model" if reason == "form" else f"model_{'thinking' if changes.get('focus_on') else 'reply'}"
    assert labelled.items_out == {f"{kind}: {reason}": 1} and labelled.repaired == 0


def test_what_comes_back_mended_is_kept_in_its_place():
    bad = item(evidence=[])
    labelled = drop([bad, booking(depends_on=["C2"]), found(question="If possible, did `find` return a room?")],
                    [found(), item()])  # fmt: skip
    assert questions(labelled) == [item()["question"], booking()["question"], found()["question"]]
    assert labelled.repaired == 2 and labelled.items_out == {}
    assert labelled.task.checklists[0].items[1].depends_on == ["C2"], "the dependency waited for it"


def test_what_is_not_given_again_is_dropped_and_so_is_what_nobody_asked_for():
    labelled = drop([item(evidence=[]), booking()], [booking("C1"), booking("C9"), "junk", {"id": 3}])
    assert questions(labelled) == [booking()["question"]]
    assert labelled.items_out == {"model_reply: evidence": 1, "model: not_asked_for": 4}


def test_the_same_id_twice_in_a_second_answer_counts_once():
    labelled = drop([item(evidence=[])], [item(), item(question="Does the reply mention breakfast fees?")])
    assert questions(labelled) == [item()["question"]] and labelled.items_out == {"model: not_asked_for": 1}


def test_all_that_failed_in_a_turn_is_one_question_and_what_stays_is_shown_in_short():
    model = asker([item(evidence=[]), item("C1", weight=0), booking("C2"), found("C3", question="")])
    label(DIALOGUE, model)
    assert model.stages().count(AGAIN) == 1
    asked = model.prompt()
    assert all(f"wrong with C{number}:" in asked for number in (0, 1, 3)) and "wrong with C2" not in asked
    assert f"C2 (assistant.tool_calls, weight 0.5): {booking()['question']}" in asked


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        ({"type": "called", "tool": "cancel"}, "reference"),
        ({"type": "called", "tool": "book", "arguments": {"nights": {"op": "equals", "value": 3}}}, "reference"),
        ({"type": "called", "tool": "book", "arguments": {"room": {"op": "equals", "value": "R-31"}}}, "hard_coded"),
        ({"type": "not_called", "tools": ["cancel"]}, "vacuous"),
        (
            {"type": "called", "tool": "book", "arguments": {"nights": {"op": "pattern", "pattern": ""}}},
            "indiscriminate",
        ),
        ({"type": "called", "tool": "fly"}, "tool"),
        ({"type": "sings"}, "form"),
        ({"type": "called", "tool": "book", "arguments": {"room": {"op": "came_from", "path": "rooms[::0]"}}}, "check"),
    ],
)
def test_a_check_that_is_refused_goes_alone_and_nothing_is_asked_again(check, reason):
    model = asker([booking(check=check)])
    labelled = label(DIALOGUE, model)
    assert model.stages() == [FIRST] * 3 and questions(labelled) == [booking()["question"]]
    assert labelled.task.checklists[0].items[0].check is None and labelled.checks_out == {reason: 1}


def test_a_check_that_other_turns_or_stock_phrases_satisfy_is_refused():
    stock = {"type": "reply", "pattern": "(?i)booked|taken care"}
    other = {"type": "any", "checks": [{"type": "reply", "pattern": "Q9"}, {"type": "reply", "pattern": "N5D"}]}
    for check, reason in ((stock, "stock_answer"), (other, "another_turn")):
        labelled = drop([item(check=check)])
        assert labelled.checks_out == {reason: 1} and questions(labelled) == [item()["question"]]


def test_a_compound_question_stays_only_with_its_check():
    question = "Did the assistant look for rooms and book the one that `find` gave?"
    assert questions(drop([booking(question=question)])) == [question]
    refused = drop([booking(question=question, check={"type": "called", "tool": "cancel"})])
    assert questions(refused) == [] and refused.items_out == {"model_call: atomic": 1}


def test_refused_checks_are_asked_again_where_that_is_wished():
    bad = booking(check={"type": "called", "tool": "cancel"})
    model = asker([item(), bad], [booking("C1", question="Is the room booked?"), item()])
    labelled = label(DIALOGUE, model, repair_checks=True)
    assert "wrong with C1:\n| - reference: " in model.prompt() and "wrong with C0" not in model.prompt()
    made = labelled.task.checklists[0].items[1]
    assert made.question == booking()["question"] and made.check is not None, "only the check was wanting"
    assert labelled.repaired == 1 and labelled.checks_out == {} and labelled.items_out == {"model: not_asked_for": 1}
    still = label(DIALOGUE, asker([bad], []), repair_checks=True)
    assert questions(still) == [bad["question"]] and still.checks_out == {"reference": 1} and still.items_out == {}


def test_dependencies_in_a_circle_are_told_and_dropped():
    circle = [found("C0", depends_on=["C1"]), found("C1", question="Did `book` return a code?", depends_on=["C0"])]
    circle[1] |= {
        "check": None,
        "evidence": [{"turn": 0, "step": 1, "from": ANSWER, "snippet": "N5D"}],
    }
    model = asker([*circle, item("C2")], circle)
    labelled = label(DIALOGUE, model)
    assert "- cycle: the dependencies run in a circle: C0 -> C1 -> C0" in model.prompt()
    assert questions(labelled) == [item()["question"]] and labelled.items_out == {"model_response: cycle": 2}


def test_a_dependency_that_comes_too_late_is_the_items_fault_not_the_checks():
    late = found("C1", question="Did `book` return a code?", check={"type": "response", "tool": "book", "path": "code"})
    late["evidence"] = [{"turn": 0, "step": 1, "from": ANSWER, "snippet": "N5D"}]
    model = asker([booking("C0", depends_on=["C1"]), late], [booking("C0")])
    # The booking holds at the step that answers, and later too: it is earned one step after.
    assert label(DIALOGUE, model).items_out == {}
    short = talk(("Book R.", DIALOGUE.turns[0].steps[:2]), tools=DIALOGUE.tools)
    model = asker([booking("C0", depends_on=["C1"]), late], [booking("C0")])
    labelled = label(short, model)
    assert "- late: a dependency comes too late" in model.prompt()
    assert [each.depends_on for each in labelled.task.checklists[0].items] == [[], []] and labelled.repaired == 1


def test_an_item_whose_dependency_is_dropped_no_longer_depends_on_it():
    labelled = drop([found("C0", question="If any, did `find` return a room?"), booking("C1", depends_on=["C0"])])
    assert [each.depends_on for each in labelled.task.checklists[0].items] == [[]]


def test_ids_are_ours_whatever_the_model_calls_them():
    odd = [found("room"), booking("room", depends_on=["room"]), item("C0", depends_on=["room"]), item(7, weight=0.1)]
    odd[3]["question"] = "Does the reply say where breakfast can be added?"
    odd[1]["depends_on"] = []
    labelled = drop(odd)
    items = labelled.task.checklists[0].items
    assert [each.id for each in items] == ["C0", "C1", "C2", "C3"] and items[2].depends_on == ["C0"]


def test_weights_are_shares_and_none_is_next_to_nothing():
    weights = [1e300, 1e-300, 3, 30]
    asks = ["breakfast", "the desk", "the aunt", "the total"]
    items = [
        item(f"C{n}", question=f"Does the reply mention {what}?", weight=w)
        for n, (w, what) in enumerate(zip(weights, asks, strict=True))
    ]
    (checklist,) = drop(items).task.checklists
    assert sum(each.weight for each in checklist.items) == pytest.approx(1, abs=1e-6)
    assert [round(each.weight, 4) for each in checklist.items] == [0.9434, 0.0189, 0.0189, 0.0189]  # 1, .02, .02, .02


def test_two_hundred_items_are_cut_to_the_heaviest():
    words = [f"word{'abcdefghij'[n % 10]}{'klmnopqrstuvwxyzabcd'[n // 10]}" for n in range(200)]
    items = [item(f"C{n}", question=f"Does the reply mention {word}?", weight=n + 1) for n, word in enumerate(words)]
    labelled = drop(items, most_items=12)
    (checklist,) = labelled.task.checklists
    assert len(checklist.items) == 12 and labelled.proposed == 200
    assert questions(labelled) == [f"Does the reply mention {words[n]}?" for n in range(24, 36)]
    assert labelled.items_out == {"model: too_many": 164, "model_reply: too_many": 24}


def test_paraphrases_are_merged():
    again = item("C1", question="Is it said in the reply that breakfast is not included?", weight=0.25)
    labelled = drop([item(), again, booking("C2", weight=0.25)])
    assert labelled.merged == 1 and [each.weight for each in labelled.task.checklists[0].items] == [0.75, 0.25]


def test_doubles_go_before_the_heaviest_are_chosen():
    words = ("breakfast", "breakfast", "the desk", "the aunt", "the total")
    items = [item(f"C{n}", question=f"Does the reply mention {word}?", weight=5 - n) for n, word in enumerate(words)]
    labelled = drop(items, most_items=3)
    assert questions(labelled) == [f"Does the reply mention {word}?" for word in words[1:4]]
    assert labelled.merged == 1 and labelled.items_out == {"model_reply: too_many": 1}


def test_mended_and_stray_evidence_is_counted():
    pointers = [
        {"turn": 0, "step": 2, "from": REPLY, "snippet": "Breakfast  is not included"},
        {"turn": 0, "step": 2, "from": REPLY, "snippet": "nowhere"},
    ]
    labelled = drop([item(evidence=pointers)])
    assert labelled.mended == 2 and len(labelled.task.checklists[0].items[0].evidence) == 1


def test_several_checklists_are_independent_draws():
    def script(request):
        if turn_of(request) or request.stage == AGAIN:
            return {"items": []}
        return {"items": [[item()], [booking(evidence=[])], [item(), found("C1")]][request.sample]}

    model = Scripted(script)
    labelled = label(DIALOGUE, model, checklists=3)
    assert [(turn_of(each), each.sample) for each in model.requests] == [
        *((turn, sample) for turn in range(3) for sample in range(3)),
        (0, 1),
    ]
    assert [(each.turn, each.variant, len(each.items)) for each in labelled.task.checklists] == [(0, 0, 1), (0, 2, 2)]
    assert labelled.empty == 7 and labelled.turns_out == {NOTHING_PROPOSED: 2, NO_ANSWER: 1}


def test_one_question_for_a_whole_dialogue():
    cancelled = {
        **item("C0", CALLS, "Did the assistant call `cancel` for “Q9”?", check={"type": "called", "tool": "cancel"}),
        "evidence": [{"turn": 1, "step": 0, "from": CALLS, "snippet": "cancel("}],
    }

    def script(request):
        if request.stage == AGAIN:
            return {"turns": [{"turn": 0, "items": [item()]}, {"turn": 1, "items": [cancelled]}]}
        first = [item(evidence=[]), booking()]
        return {"turns": [{"turn": t, "items": [first, [{**cancelled, "weight": 0}], []][t]} for t in range(3)]}

    model = Scripted(script)
    labelled = label(DIALOGUE, model, per="dialogue")
    assert model.stages() == [FIRST, AGAIN] and "Write the checklists of these turns: 0, 1, 2." in model.prompt(0)
    assert "checklist items for the turns 0, 1." in model.prompt(1)
    assert [(each.turn, len(each.items)) for each in labelled.task.checklists] == [(0, 2), (1, 1)]
    assert labelled.task.checklists[0].labeler == f"llm:scripted {prompt_id('dialogue')}" and labelled.repaired == 2


def test_an_answer_about_a_dialogue_names_every_turn_once():
    for turns in ([0, 1], [0, 1, 2, 2]):
        model = Scripted(lambda request, turns=turns: {"turns": [{"turn": t, "items": []} for t in turns]})
        labelled = label(DIALOGUE, model, per="dialogue")
        assert [lost.owner for lost in labelled.lost] == ["model"] and labelled.lost[0].turns == [0, 1, 2]


@pytest.mark.parametrize("junk", [None, [], "x", 3, {}, {"items": None}, {"items": {}}, {"turns": []}])
def test_an_answer_without_items_is_the_models_failure_and_labels_nothing(junk):
    model = Scripted(lambda request: junk if turn_of(request) == 1 else {"items": [item()]})
    labelled = label(DIALOGUE, model)
    assert [(lost.turns, lost.variant, lost.owner) for lost in labelled.lost] == [([1], 0, "model")]
    assert labelled.task.checklists == []


@pytest.mark.parametrize("stage", [FIRST, AGAIN])
@pytest.mark.parametrize(
    ("error", "owner"), [(ProviderError("busy", status=503), "provider"), (ModelError("prose", cost=0.5), "model")]
)
def test_a_lost_answer_leaves_the_dialogue_unlabelled_and_says_whose_doing_it_is(stage, error, owner):
    model = Scripted(
        lambda request: error if request.stage == stage and turn_of(request) == 0 else {"items": [item(evidence=[])]}
    )
    labelled = label(DIALOGUE, model)
    assert [(lost.turns, lost.owner, lost.message) for lost in labelled.lost] == [([0], owner, str(error))]
    assert labelled.task.checklists == [] and labelled.items_out == {}
    assert labelled.cost == (0.25 * (len(model.requests) - 1)) + (0.5 if owner == "model" else 0)


@pytest.mark.parametrize("error", [ProviderError("no such key", status=401), BudgetReached("enough")])
def test_what_ends_the_run_is_raised_when_what_is_under_way_is_back(error):
    model = Scripted(lambda request: error if turn_of(request) == 1 else {"items": []})
    with pytest.raises(type(error)):
        label(DIALOGUE, model)
    assert len(model.requests) == 3


def test_thinking_is_shown_and_asked_about_only_where_it_is_wished():
    thoughtful = talk(("Hi", [Step(thinking="The secret plan is tea.", reply="Tea is on its way.")]), tools=[])
    about = item(question="Does the thinking weigh tea against coffee?", focus=REPLY, focus_on=THINKING)
    about["evidence"] = [{"turn": 0, "step": 0, "from": THINKING, "snippet": "plan is tea"}]
    model = Scripted(lambda request: {"items": [about] if request.stage == FIRST else []})
    assert len(questions(label(thoughtful, model))) == 1 and "secret plan" in model.prompt(0)
    hidden = label(thoughtful, model, thinking=False)
    assert questions(hidden) == [] and hidden.items_out == {"model_thinking: focus": 1}
    assert "secret plan" not in model.prompt(1) and "thinking is not judged" in model.requests[1].messages[0]["content"]


def test_of_thousands_of_tools_those_that_were_called_are_shown():
    pool = [Tool(f"tool_{n}", "x", {}) for n in range(5000)]
    many = talk(("Hi", [call("tool_4321", {"a": 1}), say("Done with it.")]), tools=pool)
    model = Scripted(lambda request: {"items": []})
    label(many, model, tools=3)
    shown = [line for line in model.prompt(0).splitlines() if line.startswith("| tool_") and line.endswith(": x")]
    assert shown == ["| tool_0: x", "| tool_1: x", "| tool_4321: x"]


def test_a_long_response_is_cut_and_may_still_be_quoted():
    long = talk(("Hi", [call("find", "start " + "x" * 5000 + " end", city="Nice"), say("Here it is.")]), tools=[])
    about = item(focus=ANSWER, question="Did `find` return the start of the list?")
    about["evidence"] = [{"turn": 0, "step": 0, "from": ANSWER, "snippet": "start xxx"}]
    model = Scripted(lambda request: {"items": [about]})
    labelled = label(long, model, cut=400)
    assert "x" * 1000 not in model.prompt(0) and len(questions(labelled)) == 1


def test_a_dry_run_supposes_items_that_have_to_be_asked_for_again():
    for per, calls in (("turn", [FIRST] * 3 + [AGAIN] * 3), ("dialogue", [FIRST, AGAIN])):
        model = Scripted(lambda request: request.planned)
        labelled = label(DIALOGUE, model, per=per)
        assert model.stages() == calls and not labelled.lost and labelled.task.checklists == []


def test_the_schema_of_the_answer_takes_what_is_planned_and_refuses_less():
    jsonschema = pytest.importorskip("jsonschema")
    model = Scripted(lambda request: request.planned)
    label(DIALOGUE, model)
    label(DIALOGUE, model, per="dialogue")
    for request in model.requests:
        jsonschema.validate(request.planned, request.schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"items": [{}]}, request.schema)
    jsonschema.validate({"items": [item(), booking()]}, model.requests[0].schema)


def test_the_settings_are_checked_when_they_are_made():
    for wrong in ({"checklists": 0}, {"most_items": 0}, {"width": 0}, {"tools": -1}, {"cut": 5}):
        with pytest.raises(ConfigError):
            Drafting(**wrong)


def test_prompts_have_ids_that_change_with_their_text():
    ids = prompt_id("turn").split("+")
    assert [id.split("@")[0] for id in ids] == ["label/rules", "label/turn", "label/mend"]
    assert len({prompt.id for prompt in (*prompts("turn"), *prompts("dialogue"))}) == 4
