"""Effects: one passing run frozen, others judged by what they leave behind and not by their route."""

from __future__ import annotations

import msgspec
import pytest
from label_builders import call, calls, say, talk, tool

from cm2.check import CameFrom, Equals
from cm2.checklist import Checklist, validate
from cm2.dialogue import Dialogue, Step, ToolCall, ToolResponse
from cm2.judge.checks import decide
from cm2.label.effects import EffectsLabeler, label_effects
from cm2.label.effects_lint import lint_whole
from cm2.label.effects_net import hands_over, is_write, net
from cm2.label.sources import Sources
from cm2.verdict import WHOLE

TOOLS = [
    tool("get_user", ("user_id",), user_id="string"),
    tool(
        "book_trip", ("user_id", "legs"), user_id="string", legs="array", price="number", vip="boolean", note="string"
    ),
    tool("cancel_trip", ("trip_id",), trip_id="string"),
    tool("update_address", ("user_id", "city"), user_id="string", city="string"),
    tool("send_voucher", ("user_id", "amount"), user_id="string", amount="integer"),
    tool("exchange_items", ("order_id",), order_id="string", item_ids="array", new_item_ids="array"),
    tool("transfer_to_human_agents", ("summary",), summary="string"),
]
LEGS = [{"flight": "HAT1", "date": "2024-05-17"}, {"flight": "HAT2", "date": "2024-05-18"}]
OK = {"ok": True}


def run(*steps: Step, user: str = "Please do it for u_1.", last: str = "All done.") -> Dialogue:
    return talk((user, [*steps, say(last)]), tools=TOOLS)


def book(response=None, **changes) -> Step:
    arguments = {"user_id": "u_1", "legs": LEGS, "price": 199.99, "note": "wants the window seat"} | changes
    return call("book_trip", response or {"trip_id": "TRP77"}, **arguments)


def frozen(dialogue: Dialogue, ids: str = "same") -> Checklist:
    (checklist,) = label_effects(dialogue, ids).checklists
    assert checklist.turn == WHOLE and validate(checklist, dialogue) == []
    return checklist


def failed(checklist: Checklist, other: Dialogue) -> set[str]:
    return {item.id for item in checklist.items if not decide(item.check, other, WHOLE, WHOLE).met}


BOOKED = run(call("get_user", {"user_id": "u_1", "city": "Rome"}, user_id="u_1"), book())


def test_a_run_with_one_change_gives_these_items():
    items = frozen(BOOKED).items
    assert [(item.id, item.severity) for item in items] == [
        ("outcome", "critical"),
        ("effect-book_trip", "major"),
        ("nothing-else-changed", "major"),
    ]
    assert sum(item.weight for item in items) == pytest.approx(1) and items[0].weight == pytest.approx(4 / 8)


def test_the_reference_passes_its_own_items():
    assert failed(frozen(BOOKED), BOOKED) == set()


@pytest.mark.parametrize(
    "other",
    [
        run(book()),  # without the look-up
        run(book(legs=LEGS[::-1])),  # a list in another order
        run(book(price="199.99", user_id="U_1")),  # a number as text, other case
        run(book(price=199.994)),  # rounded cents
        run(book(note="a seat at the window, please")),  # the assistant's own words
        run(book(vip=False)),  # an absent flag is off
        run(book(response={"error": "no seat"}), book()),  # an attempt that failed
        run(book(response="Error: no seat", price=1), book()),
        talk(("Hi", [say("Who are you?")]), ("u_1", [book(), say("Booked.")]), ("Bye", [say("Bye")]), tools=TOOLS),
    ],
)
def test_another_route_to_the_same_effect_passes(other):
    assert failed(frozen(BOOKED), other) == set()


@pytest.mark.parametrize(
    "other, expected",
    [
        (run(), {"outcome", "effect-book_trip"}),
        (run(book(response={"error": "no seat"})), {"outcome", "effect-book_trip"}),
        (run(book(price=250)), {"outcome", "effect-book_trip"}),
        (run(book(user_id="u_2")), {"outcome", "effect-book_trip"}),
        (run(book(legs=LEGS[:1])), {"outcome", "effect-book_trip"}),
        (run(book(legs=[*LEGS, LEGS[0]])), {"outcome", "effect-book_trip"}),
        (run(book(vip=True)), {"outcome", "effect-book_trip"}),
        (run(book(), book()), {"outcome", "nothing-else-changed"}),
        (run(book(), book(price=250)), {"outcome", "nothing-else-changed"}),
        (run(book(), call("send_voucher", OK, user_id="u_1", amount=5)), {"outcome", "nothing-else-changed"}),
        (run(Step(calls=[ToolCall("book_trip", None, raw="{", error="broken")])), {"outcome", "effect-book_trip"}),
    ],
)
def test_another_effect_fails_and_the_item_says_how(other, expected):
    assert failed(frozen(BOOKED), other) == expected


def test_a_dialogue_in_which_nobody_answers_passes_nothing():
    for checklist in (frozen(BOOKED), frozen(REFUSED)):
        silent = msgspec.structs.replace(BOOKED, turns=[msgspec.structs.replace(t, steps=[]) for t in BOOKED.turns])
        assert failed(checklist, silent) == {item.id for item in checklist.items}


REFUSED = run(call("get_user", {"user_id": "u_1", "city": "Rome"}, user_id="u_1"), last="Sorry, I cannot refund that.")


def test_where_the_reference_changed_nothing_any_change_is_wrong():
    checklist = frozen(REFUSED)
    assert [(item.id, item.severity) for item in checklist.items] == [
        ("nothing-changed", "critical"),
        ("looked-up", "minor"),
    ]
    assert failed(checklist, run(call("send_voucher", OK, user_id="u_1", amount=5))) == {"nothing-changed", "looked-up"}
    assert failed(checklist, run(call("send_voucher", {"error": "no"}, user_id="u_1", amount=5))) == {"looked-up"}


def test_a_setting_that_a_later_one_replaces_is_no_duty_but_may_happen():
    def moved(*cities: str) -> Dialogue:
        return run(*(call("update_address", OK, user_id="u_1", city=city) for city in cities))

    checklist = frozen(moved("Rome", "Oslo"))
    assert [item.id for item in checklist.items] == ["outcome", "effect-update_address", "nothing-else-changed"]
    assert failed(checklist, moved("Oslo")) == set()
    assert failed(checklist, moved("Rome", "Oslo")) == set()
    assert failed(checklist, moved("Oslo", "Oslo")) == set()  # a setting made twice
    assert failed(checklist, moved("Rome")) == {"outcome", "effect-update_address"}
    assert failed(checklist, moved("Paris", "Oslo")) == {"outcome", "nothing-else-changed"}


def test_a_setting_that_the_reference_repeats_may_be_repeated_as_often():
    def moved(times: int) -> Dialogue:
        return run(*[call("update_address", OK, user_id="u_1", city="Oslo")] * times)

    labelled = EffectsLabeler().label(moved(5))
    assert labelled.items_out == {}
    checklist = frozen(moved(5))
    assert [failed(checklist, moved(times)) for times in (1, 2, 5)] == [set()] * 3
    assert failed(checklist, moved(6)) == {"outcome", "nothing-else-changed"}


def test_what_the_assistant_takes_back_itself_does_not_last_but_what_the_user_takes_back_does():
    made, back = book(), call("cancel_trip", OK, trip_id="TRP77")
    corrected = net(run(made, back), Sources(run(made, back)).all).effects
    assert [effect.lasts for effect in corrected] == [False, False]
    asked = talk(("Book.", [made, say("Done.")]), ("Cancel it.", [back, say("Done.")]), tools=TOOLS)
    assert [effect.lasts for effect in net(asked, Sources(asked).all).effects] == [True, True]
    checklist = frozen(run(made, back, last="I have undone it."))
    assert checklist.items[0].id == "nothing-changed"
    assert failed(checklist, run(made, back)) == set() and "nothing-changed" in failed(checklist, run(made))


def test_an_id_that_the_run_handed_out_is_matched_by_where_it_came_from():
    def dialogue(id: str, used: str | None = None) -> Dialogue:
        return talk(
            ("Book.", [book(response={"trip_id": id}), say(f"It is {id}.")]),
            ("Cancel it.", [call("cancel_trip", OK, trip_id=used or id), say("Cancelled.")]),
            tools=TOOLS,
        )

    checklist = frozen(dialogue("TRP77"))
    item = next(item for item in checklist.items if item.id == "effect-cancel_trip")
    assert item.check.arguments["trip_id"] == CameFrom("book_trip", "trip_id")
    assert failed(checklist, dialogue("XYZ01")) == set()
    assert {"outcome", "effect-cancel_trip"} <= failed(checklist, dialogue("XYZ01", used="TRP77"))


def test_ids_by_origin_let_another_world_pass():
    def dialogue(trip: str) -> Dialogue:
        look = call("get_user", {"trips": [{"trip_id": trip}]}, user_id="u_1")
        return run(look, call("cancel_trip", OK, trip_id=trip))

    assert failed(frozen(dialogue("AB12"), "origin"), dialogue("CD34")) == set()
    assert failed(frozen(dialogue("AB12"), "same"), dialogue("CD34")) == {"outcome", "effect-cancel_trip"}


def test_lists_that_belong_together_keep_their_pairs():
    def swap(old: list[str], new: list[str]) -> Dialogue:
        return run(call("exchange_items", OK, order_id="W1", item_ids=old, new_item_ids=new))

    checklist = frozen(swap(["a1", "b2"], ["x3", "y4"]))
    assert failed(checklist, swap(["b2", "a1"], ["y4", "x3"])) == set()
    assert failed(checklist, swap(["a1", "b2"], ["y4", "x3"])) == {"outcome", "effect-exchange_items"}


def test_the_same_change_twice_is_asked_for_twice():
    gift = call("send_voucher", OK, user_id="u_1", amount=50)
    checklist = frozen(run(gift, gift))
    assert "effect-send_voucher-2" not in {item.id for item in checklist.items}
    assert failed(checklist, run(gift)) == {"outcome", "effect-send_voucher"}
    assert failed(checklist, run(gift, gift, gift)) == {"outcome", "nothing-else-changed"}


def test_handing_over_is_no_change_but_an_item_of_its_own():
    handed = run(call("transfer_to_human_agents", "Transfer successful", summary="wants money back"))
    checklist = frozen(handed)
    assert [(item.id, item.severity) for item in checklist.items] == [
        ("nothing-changed", "critical"),
        ("escalated", "minor"),
    ]
    assert failed(checklist, run(last="No.")) == {"escalated"}
    assert failed(frozen(run(last="Sorry, no.")), handed) == set()
    assert hands_over("transfer_to_human_agents") and not hands_over("transfer_money") and not hands_over("get_agent")


def test_a_total_that_the_user_asked_for_must_be_told():
    ask = "How many suitcases may I take in total?"
    told = run(call("get_user", {"tier": "silver"}, user_id="u_1"), user=ask, last="You may take a total of 4 bags.")
    checklist = frozen(told)
    assert [item.id for item in checklist.items if item.kind == "told"] == ["told-total"]
    assert failed(checklist, run(user=ask, last="In total that makes four bags.")) == set()
    assert "told-total" in failed(checklist, run(user=ask, last="You may take a total of 6 bags."))
    assert "told-total" in failed(checklist, run(user=ask, last="You may take some bags. Flight 4 is late."))


def test_of_the_news_of_a_reply_any_will_do():
    def told(last: str) -> Dialogue:
        answer = {"opens": "09:00", "phone": "555-0152"}
        return run(call("get_user", answer, user_id="u_1"), user="What do you know of u_1?", last=last)

    checklist = frozen(told("It opens at 09:00, the phone is 555-0152."))
    assert [item.id for item in checklist.items if item.kind == "told"] == ["told-answer-get-user"]
    assert failed(checklist, told("From 9 am.")) == set()
    assert failed(checklist, told("I know.")) == {"told-answer-get-user"}


def test_a_value_that_is_told_in_another_spelling_is_kept_by_lint():
    cabin = run(
        call("get_user", {"cabin": "basic_economy"}, user_id="u_1"),
        user="Which cabin am I in?",
        last="You are in Basic Economy.",
    )
    labelled = EffectsLabeler().label(cabin)
    told = [item for item in labelled.task.checklists[0].items if item.kind == "told"]
    assert [item.id for item in told] == ["told-cabin"] and not labelled.items_out
    assert not decide(told[0].check, run(last="You are in business."), WHOLE, WHOLE).met


def test_a_log_without_answers_is_judged_by_its_calls():
    bare = run(call("cancel_trip", None, trip_id="T1"), last="Done.")
    checklist = frozen(bare)
    assert failed(checklist, bare) == set()
    assert failed(checklist, run(last="Done.")) == {"outcome", "effect-cancel_trip"}


def test_a_log_with_some_answers_allows_the_tries_that_failed_in_it():
    partly = run(
        call("cancel_trip", {"error": "unknown"}, trip_id="T0"), call("cancel_trip", None, trip_id="T1"), last="Done."
    )
    labelled = EffectsLabeler().label(partly)
    assert labelled.items_out == {} and labelled.task.checklists[0].items[0].id == "outcome"


def test_a_tool_that_looks_or_does_by_its_argument():
    both = tool("ticket", ("mode",), mode={"type": "string", "enum": ["Check", "Book"]}, id="string")

    def dialogue(*modes: str) -> Dialogue:
        return talk(("Go", [*(call("ticket", OK, mode=m, id="A7") for m in modes), say("Done.")]), tools=[both])

    checklist = frozen(dialogue("Check", "Book"))
    assert failed(checklist, dialogue("Check", "Check", "Book")) == set()
    assert failed(checklist, dialogue("Check")) == {"outcome", "effect-ticket"}
    assert failed(frozen(dialogue("Check")), dialogue("Check", "Book")) >= {"nothing-changed"}
    assert is_write(both, "ticket") and not is_write(both, "ticket", {"mode": "Check"})


def test_lint_refuses_a_whole_item_that_any_dialogue_satisfies():
    checklist = frozen(BOOKED)
    weak = msgspec.structs.replace(checklist.items[1], check=checklist.items[2].check)
    (report,) = lint_whole(Checklist(WHOLE, [msgspec.structs.replace(weak, weight=1.0)]), BOOKED)
    assert report.ok  # what only forbids may hold on an idle run
    from cm2.check import Called, Reply

    for check, test in (
        (Reply(pattern="(?i)done|okay"), "vacuous"),
        (Reply(pattern="(?i)all done|taken care"), "stock_answer"),
        (Called("book_trip", {"price": Equals(3)}), "reference"),
        (Called("book_trip", at_least=0, at_most=0), "reference"),
    ):
        item = msgspec.structs.replace(weak, weight=1.0, check=check)
        (report,) = lint_whole(Checklist(WHOLE, [item]), BOOKED)
        assert [failure.test for failure in report.failures][:1] == [test]


@pytest.mark.parametrize(
    "odd",
    [
        Dialogue("d"),
        talk(("Hi", []), tools=TOOLS),
        talk(("Hi", [say("")]), tools=[]),
        talk(("Hi", [Step(calls=[ToolCall("book_trip", None, raw="{", error="broken")])]), tools=TOOLS),
        talk(("Hi", [Step(calls=[ToolCall("book_trip", ["a list"], id="x")])]), tools=TOOLS),
        talk(("Hi", [call("book_trip", "Error: no", **{"a b": 1, "": [None, {}], "user_id": None})]), tools=TOOLS),
        talk(("Hi", [call("book_trip", OK, **{"a-b": "x", "legs": [], "price": float("inf")}), say("ok")]), tools=[]),
        talk(("Hi", [call("delete_all", OK, text="\ud800", deep={"a": [[1], {"b": None}]}), say("Gone.")]), tools=[]),
        talk(("Hi", [calls(("book_trip", {}, OK), ("book_trip", {}, OK)), say("Twice.")]), tools=TOOLS),
        talk(("Hi", [Step(responses=[ToolResponse("stray")]), say("Well.")]), tools=TOOLS),
    ],
)
def test_odd_dialogues_give_sound_items_or_a_reason(odd):
    labelled = EffectsLabeler().label(odd)
    if not labelled.task.checklists:
        assert labelled.turns_out
    for checklist in labelled.task.checklists:
        assert validate(checklist, odd) == [] and failed(checklist, odd) == set()


def test_a_value_that_nests_too_deeply_is_told_and_not_labelled():
    deep: list = []
    for _ in range(900):
        deep = [deep]
    labelled = EffectsLabeler().label(run(call("book_trip", OK, user_id="u_1", legs=deep)))
    assert labelled.task.checklists == [] and labelled.turns_out == {"a value nests too deeply to be compared": 1}


def test_thousands_of_tools_are_forbidden_without_a_check_each():
    many = [tool(f"delete_thing_{n}x") for n in range(3000)]
    dialogue = talk(("Hi", [call("get_user", {"name": "Ann"}, user_id="u_1"), say("Ann.")]), tools=[*TOOLS, *many])
    checklist = frozen(dialogue)
    other = talk(("Hi", [call(many[2500].name, OK), say("Ann.")]), tools=[*TOOLS, *many])
    assert "nothing-changed" in failed(checklist, other) and failed(checklist, dialogue) == set()
    assert len(msgspec.json.encode(checklist)) < 200_000
