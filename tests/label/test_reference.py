"""The reference labeller on hand-made dialogues: which duties it sees, and who passes and fails by them."""

from __future__ import annotations

import msgspec
import pytest
from label_builders import call, calls, checklist, failing, items, label, say, talk, tool

from cm2.check import All, Called, CameFrom, Equals, Fact, NotCalled, Number, OneOf, Pattern, Reply, Response
from cm2.checklist import validate
from cm2.dialogue import Dialogue, Step, ToolCall
from cm2.label.lint import lint_task

TOOLS = [
    tool("search_hotels", ("city",), city="string", stars="integer", sort={"type": "string", "default": "price"}),
    tool("book_hotel", ("hotel_id", "nights"), hotel_id="string", nights="integer", note="string"),
    tool("cancel_booking", ("code",), code="string"),
    tool("get_weather", ("city",), city="string"),
]


def found(ritz: str = "H12", sol: str = "H34") -> list[dict]:
    return [{"id": ritz, "name": "Ritz", "price": 120}, {"id": sol, "name": "Sol", "price": 80}]


def booking(ritz="H12", sol="H34", chosen=None, code="XK77", total=160, nights=2, reply=None) -> list[Step]:
    """Look up, book the cheapest, report."""
    return [
        call("search_hotels", found(ritz, sol), city="Paris"),
        call("book_hotel", {"code": code, "total": total}, hotel_id=chosen or sol, nights=nights),
        say(reply or f"Done: your code is {code}, the total is ${total}."),
    ]


ASK = "Book the cheapest hotel in Paris for two nights. Then tell me the code and the total."
BOOKED = talk((ASK, booking()), tools=TOOLS)


def test_a_lookup_a_write_and_a_report_give_these_items():
    turn = checklist(BOOKED)
    assert [(item.kind, item.focus_on) for item in turn.items] == [
        ("call", "assistant.tool_calls"),
        ("response", "tool.content"),
        ("write", "assistant.tool_calls"),
        ("response", "tool.content"),
        ("reply", "assistant.content.user_visible_reply"),
        ("reply", "assistant.content.user_visible_reply"),
    ]
    lookup, row, write, receipt, code, total = turn.items
    assert lookup.check == Called("search_hotels", {"city": Equals("Paris", fold=True)})
    assert row.check == Response("search_hotels", "min_by(@, &price).id")
    came_from = CameFrom("search_hotels", "min_by(@, &price).id")
    assert write.check == Called("book_hotel", {"hotel_id": came_from, "nights": Number(2)}, answered=True)
    assert receipt.check == Response("book_hotel", "code")
    assert code.check == Reply(states=[Fact([], "text", "book_hotel", "code")])
    assert total.check == Reply(states=[Fact([], "number", "book_hotel", "total")])
    assert write.depends_on == [row.id] and code.depends_on == [receipt.id]
    assert write.required_for_next_turn and not lookup.required_for_next_turn
    assert write.weight > lookup.weight > row.weight and code.weight > lookup.weight


def test_a_checklist_keeps_every_rule_and_passes_lint():
    labelled = label(BOOKED)
    assert all(validate(each, BOOKED) == [] for each in labelled.task.checklists)
    assert all(report.ok for report in lint_task(labelled.task))
    assert sum(item.weight for item in labelled.task.checklists[0].items) == pytest.approx(1, abs=1e-6)
    for item in labelled.task.checklists[0].items:
        assert item.question.endswith("?") and item.pass_condition.endswith(".") and item.evidence


def test_an_agent_in_a_world_with_other_ids_and_values_passes():
    other = talk((ASK, booking("A9001", "B4711", code="ZZ-1", total=999)), tools=TOOLS)
    assert failing(checklist(BOOKED), other) == set()


@pytest.mark.parametrize(
    ("run", "fails"),
    [
        (booking(chosen="H12"), {"write"}),
        (booking(chosen="H99"), {"write"}),
        (booking(nights=3), {"write"}),
        (booking(reply="Done: your code is QQ11, the total is $160."), {"reply"}),
        (booking(reply="Done: your code is XK77, the total is $161."), {"reply"}),
        (booking(reply="All done!"), {"reply"}),
        ([*booking()[:1], say("Done: your code is XK77, the total is $160.")], {"write", "response", "reply"}),
        ([say("Done: your code is XK77, the total is $160.")], {"call", "write", "response", "reply"}),
        ([booking()[0], call("book_hotel", {"error": "full"}, hotel_id="H34", nights=2), say("XK77, 160")],
         {"write", "response", "reply"}),
    ],
    ids=["other record", "made-up id", "other number", "other code", "other total", "no fact", "no write", "nothing",
         "error"],
)  # fmt: skip
def test_an_agent_that_does_something_else_fails_where_it_did(run, fails):
    assert failing(checklist(BOOKED), talk((ASK, run), tools=TOOLS)) == fails


@pytest.mark.parametrize(
    "run",
    [
        [call("get_weather", {"sky": "clear"}, city="Paris"), *booking()],
        [booking()[0], call("search_hotels", [], city="Paris", stars=5), *booking()[1:]],
        [call("search_hotels", {"error": "busy"}, city="paris"), *booking()],
        booking(reply="You're all set! It comes to 160 dollars in all; quote XK77 when you arrive."),
    ],
    ids=["extra look-up", "second search", "retry", "other wording"],
)
def test_another_way_to_the_same_result_passes(run):
    assert failing(checklist(BOOKED), talk((ASK, run), tools=TOOLS)) == set()


def test_independent_calls_may_come_in_any_order_and_in_parallel():
    ask = "What is the weather in Rome and in Oslo?"
    rome, oslo = (
        ("get_weather", {"city": city}, {"city": city, "degrees": n}) for city, n in (("Rome", 31), ("Oslo", 17))
    )
    reply = say("It is 31 degrees in Rome and 17 in Oslo.")
    reference = checklist(talk((ask, [calls(rome), calls(oslo), reply]), tools=TOOLS))
    assert [item.kind for item in reference.items].count("reply") == 2, "both cities' degrees are facts"
    for steps in ([calls(oslo), calls(rome), reply], [calls(rome, oslo), reply]):
        assert failing(reference, talk((ask, steps), tools=TOOLS)) == set()
    swapped = say("It is 17 degrees in Rome, that is all I know.")
    assert failing(reference, talk((ask, [calls(rome), calls(oslo), swapped]), tools=TOOLS)) == {"reply"}


def test_a_failed_attempt_a_malformed_call_and_a_duplicate_leave_no_item():
    malformed = Step(calls=[ToolCall("search_hotels", None, "m", '{"city": ', "unexpected end")])
    steps = booking()
    messy = [malformed, call("search_hotels", {"error": "no such city"}, city="Pariss"), steps[0], steps[0], *steps[1:]]
    tidy, untidy = checklist(BOOKED), checklist(talk((ASK, messy), tools=TOOLS))
    assert [item.check for item in untidy.items] == [item.check for item in tidy.items]


def test_a_search_that_found_nothing_and_was_widened_leaves_no_item():
    empty = call("search_hotels", [], city="Paris", stars=5)
    assert [item.check for item in items(talk((ASK, [empty, *booking()]), tools=TOOLS), "call")] == [
        Called("search_hotels", {"city": Equals("Paris", fold=True)})
    ]


def test_a_default_and_what_breaks_the_schema_are_not_asked_for():
    steps = [call("search_hotels", found(), city="Paris", sort="price", stars="many"), *booking()[1:]]
    (item,) = items(talk((ASK, steps), tools=TOOLS), "call")
    assert item.check.arguments.keys() == {"city"}


def test_free_text_is_matched_by_the_words_it_shares_with_the_user():
    ask = "Book the cheapest hotel in Paris for two nights, and note that I arrive after midnight with a dog."
    note = "Guest arrives after midnight, brings a dog"
    steps = [
        booking()[0],
        call("book_hotel", {"code": "XK77"}, hotel_id="H34", nights=2, note=note),
        say("Booked: code XK77."),
    ]
    reference = checklist(talk((ask, steps), tools=TOOLS))
    (write,) = [item for item in reference.items if item.kind == "write"]
    assert isinstance(write.check.arguments["note"], Pattern)
    steps[1] = call("book_hotel", {"code": "XK77"}, hotel_id="H34", nights=2, note="Late: midnight. Pet: 1 dog.")
    assert failing(reference, talk((ask, steps), tools=TOOLS)) == set()
    steps[1] = call("book_hotel", {"code": "XK77"}, hotel_id="H34", nights=2, note="none")
    assert "write" in failing(reference, talk((ask, steps), tools=TOOLS))


def test_a_date_may_be_written_in_any_usual_spelling():
    tools = [*TOOLS, tool("book_table", ("day", "time"), day="string", time="string")]
    ask = "Book a table on March 10th 2025 at 4 pm."

    def run(day: str, time: str) -> Dialogue:
        steps = [call("book_table", {"code": "T55X"}, day=day, time=time), say("Your table code is T55X.")]
        return talk((ask, steps), tools=tools)

    reference = checklist(run("2025-03-10", "16:00"))
    for day, time in (("03/10/2025", "4 pm"), ("March 10, 2025", "4:00 PM")):
        assert failing(reference, run(day, time)) == set()
    assert failing(reference, run("2025-03-11", "16:00")) == {"write"}


def test_lists_in_arguments_are_matched_member_by_member():
    tools = [
        tool("get_menu", ("query",), query="string"),
        tool("add_item", ("id",), id="string", extras={"type": "array"}),
    ]
    menu = {"items": [{"id": "latte-7", "name": "Latte"}], "extras": [{"id": "x-9", "name": "oat milk"}]}

    def run(id: str, extra: str) -> Dialogue:
        add = call("add_item", {"order": "O88"}, id=id, extras=[{"id": extra, "option": "oat milk"}])
        ask = "One latte with oat milk please."
        return talk((ask, [call("get_menu", menu, query="latte"), add, say("Your order is O88.")]), tools=tools)

    reference = checklist(run("latte-7", "x-9"))
    (write,) = [item for item in reference.items if item.kind == "write"]
    assert write.check.arguments == {
        "id": CameFrom("get_menu", "items[*].id"),
        "extras[*].id": CameFrom("get_menu", "extras[*].id"),
        "extras[*].option": Equals(["oat milk"], fold=True),
    }
    assert failing(reference, run("latte-7", "made-up")) == {"write"}


def test_a_value_that_the_user_named_is_matched_by_value_and_a_limit_picks_the_record():
    ask = "I want the hotel under $100 in Paris, 2 nights."
    (write,) = items(talk((ask, booking()), tools=TOOLS), "write")
    assert write.check.arguments["hotel_id"] == CameFrom("search_hotels", "[?price<=`100`].id")
    ask = "Book hotel H34 in Paris for 2 nights."
    (write,) = items(talk((ask, booking()), tools=TOOLS), "write")
    assert write.check.arguments["hotel_id"] == Equals("H34", fold=True)


def test_two_writes_are_two_duties_and_alike_ones_are_counted():
    ask = "Cancel both of my bookings, please."
    listed = {"bookings": [{"code": "AA11"}, {"code": "BB22"}]}
    tools = [*TOOLS, tool("list_bookings")]
    steps = [
        call("list_bookings", listed),
        call("cancel_booking", {"ok": True}, code="AA11"),
        call("cancel_booking", {"ok": True}, code="BB22"),
        say("Both are cancelled."),
    ]
    reference = checklist(talk((ask, steps), tools=tools))
    (write,) = [item for item in reference.items if item.kind == "write"]
    assert write.check.at_least == 2
    assert failing(reference, talk((ask, [*steps[:2], steps[3]]), tools=tools)) == {"write"}


def test_a_clarifying_question_is_about_what_the_next_message_answers():
    dialogue = talk(
        ("Book me a hotel please.", [say("Sure. Which city do you want to go to?")]),
        ("Paris", [say("And for how many nights?")]),
        ("2, the cheapest one. Tell me the code.", booking()),
        tools=TOOLS,
    )
    (city,) = items(dialogue, "clarification", 0)
    (nights,) = items(dialogue, "clarification", 1)
    assert "city" in city.question and "nights" in nights.question
    assert isinstance(nights.check, All) and NotCalled(["book_hotel"]) in nights.check.checks
    assert not city.required_for_next_turn

    def answers(reply: str, turn: int = 0) -> set[str]:
        run = Dialogue("d", [*dialogue.turns[:turn], type(dialogue.turns[0])("u", [say(reply)])], TOOLS)
        return failing(checklist(dialogue, turn), run, turn)

    assert answers("Happy to help! Where would you like to stay?") == set()
    assert answers("Could you give me more details?") == {"clarification"}
    assert answers("I booked a hotel in the city for you.") == {"clarification"}


def test_a_question_that_no_later_call_needed_leaves_no_item():
    dialogue = talk(("Hi.", [say("Hello, how are you today?")]), ("Fine.", [say("Good.")]), tools=TOOLS)
    labelled = label(dialogue)
    assert labelled.task.checklists == []
    assert labelled.turns_out == {"small talk: no call, no fact, no question about a value": 2}


def test_a_yes_must_be_sought_before_the_write_that_it_allows():
    look, write, done = booking()
    dialogue = talk(
        ("The cheapest hotel in Paris for 2 nights.", [look, say("Sol costs $80 a night. Shall I book it?")]),
        ("Yes please.", [write, done]),
        tools=TOOLS,
    )
    (confirm,) = items(dialogue, "confirmation")
    assert NotCalled(["book_hotel"]) in confirm.check.checks
    hasty = talk((dialogue.turns[0].user, [look, write, say("Sol at $80 is booked. Shall I do more?")]), tools=TOOLS)
    assert failing(checklist(dialogue), hasty) == {"confirmation"}
    polite = talk(
        (dialogue.turns[0].user, [look, say("There is Sol at $80. Do you want me to go ahead?")]), tools=TOOLS
    )
    assert failing(checklist(dialogue), polite) == set()
    (strict,) = [item for item in checklist(dialogue).items if item.kind == "response"]
    assert strict.required_for_next_turn, "the next turn books the id that this look-up returned"


def test_a_refusal_names_what_it_refuses_and_leaves_everything_as_it_was():
    ask = "Please order a pizza for me."
    dialogue = talk((ask, [say("I'm sorry, but I cannot order a pizza.")]), tools=TOOLS)
    (item,) = items(dialogue, "refusal")
    assert isinstance(item.check, All) and NotCalled(["book_hotel", "cancel_booking"]) in item.check.checks
    reference = checklist(dialogue)
    assert failing(reference, talk((ask, [say("Pizza is not something I am able to get.")]), tools=TOOLS)) == set()
    assert failing(reference, talk((ask, [say("I'm sorry, I can't help with that.")]), tools=TOOLS)) == {"refusal"}
    assert failing(reference, talk((ask, [say("Your pizza is on its way!")]), tools=TOOLS)) == {"refusal"}


def test_a_lookup_that_finds_no_fit_ends_in_a_refusal_without_any_write():
    ask = "Book a hotel under $50 in Paris for 2 nights."
    look = booking()[0]
    dialogue = talk((ask, [look, say("Sorry, there is no hotel under $50 in Paris.")]), tools=TOOLS)
    reference = checklist(dialogue)
    assert [item.kind for item in reference.items] == ["call", "refusal"]
    assert failing(reference, talk((ask, [look, say("Unfortunately nothing is that cheap.")]), tools=TOOLS)) == set()
    assert failing(reference, talk((ask, booking()), tools=TOOLS)) == {"refusal"}
    assert failing(reference, talk((ask, [say("Sorry, there is none.")]), tools=TOOLS)) == {"call", "refusal"}


def test_a_write_that_the_tool_refused_for_good_must_be_tried_and_reported():
    look = booking()[0]
    failed = call("book_hotel", {"error": "H34 is not available"}, hotel_id="H34", nights=2)
    reference = checklist(talk((ASK, [look, failed, say("Sorry, Sol is taken.")]), tools=TOOLS))
    assert [item.kind for item in reference.items] == ["call", "response", "write", "reply"]
    assert failing(reference, talk((ASK, [look, failed, say("Booked!")]), tools=TOOLS)) == {"reply"}
    assert failing(reference, talk((ASK, [look, say("Sorry, Sol is taken.")]), tools=TOOLS)) == {"write", "reply"}


def test_a_turn_that_only_looks_must_not_write():
    ask = "Which hotels are there in Paris?"
    look = booking()[0]
    reply = say("There are Ritz and Sol.")
    reference = checklist(talk((ask, [look, reply]), ("The second, 2 nights.", booking()[1:]), tools=TOOLS))
    assert [item.kind for item in reference.items if item.kind == "no_write"]
    assert failing(reference, talk((ask, [*booking()[:2], reply]), tools=TOOLS)) == {"no_write"}


def test_a_tool_that_reads_or_writes_by_an_argument_is_judged_by_the_argument():
    mode = {"type": "string", "enum": ["Check", "Book"]}
    tools = [tool("hotel_book", ("name", "kind"), name="string", kind=mode)]
    check = call("hotel_book", {"message": "available"}, name="Ritz", kind="Check")
    book = call("hotel_book", {"message": "confirmed"}, name="Ritz", kind="Book")
    dialogue = talk(
        ("I need the Ritz.", [check, say("It is free. Can I book it for you?")]),
        ("Yes", [book, say("Your room is booked!")]),
        tools=tools,
    )
    assert [item.kind for item in checklist(dialogue).items] == ["call", "confirmation"]
    assert NotCalled(["hotel_book"], {"kind": OneOf(["Book"])}) in checklist(dialogue).items[1].check.checks
    assert [item.kind for item in checklist(dialogue, 1).items] == ["write", "reply"]


def test_success_may_be_claimed_only_after_it_happened():
    ask = "Cancel my booking BB22."
    cancelled = call("cancel_booking", {"ok": True}, code="BB22")
    reference = checklist(talk((ask, [cancelled, say("It has been cancelled.")]), tools=TOOLS))
    assert [item.kind for item in reference.items] == ["write", "reply"]
    assert failing(reference, talk((ask, [cancelled, say("All done.")]), tools=TOOLS)) == set()
    assert failing(reference, talk((ask, [say("It has been cancelled.")]), tools=TOOLS)) == {"write", "reply"}


def test_a_fact_of_an_earlier_turn_is_a_duty_where_it_is_asked_for_now():
    look, _, _ = booking()
    dialogue = talk(
        ("Any hotel in Paris called Sol?", [look, say("Yes, there is Sol.")]),
        ("What is its price?", [say("Sol costs $80.")]),
        ("Thanks.", [say("You are welcome, Sol awaits you.")]),
        tools=TOOLS,
    )
    (price,) = checklist(dialogue, 1).items
    assert price.check == Reply(states=[Fact([], "number", "search_hotels", '[?name==`"Sol"`].price')])
    assert checklist(dialogue, 2).items == []


def test_a_long_text_may_be_told_in_other_words():
    tools = [tool("get_orders", ("patient",), patient="string")]
    order = {"message": "Take your medicine before you go to sleep and avoid alcohol for seven days."}
    ask = "What did the doctor tell me? I am Alexis."

    def run(reply: str) -> Dialogue:
        return talk((ask, [call("get_orders", order, patient="Alexis"), say(reply)]), tools=tools)

    reference = checklist(run("Take your medicine before you go to sleep and avoid alcohol for seven days."))
    assert failing(reference, run("The medicine is to be taken before sleep; no alcohol for seven days.")) == set()
    assert failing(reference, run("I have no idea.")) == {"reply"}


def test_labelling_is_deterministic_and_leaves_the_dialogue_alone():
    before = repr(BOOKED)
    assert label(BOOKED) == label(BOOKED)
    assert repr(BOOKED) == before


HALF = "A\udc00B"


@pytest.mark.parametrize(
    "steps",
    [
        [call("cancel_booking", {"ok": True}, code=HALF), say("It has been cancelled.")],
        [call("cancel_booking", {"ok": True, HALF: HALF}, code="BB22"), say(f"It {HALF} has been cancelled.")],
        [
            call(HALF, {"ok": True}, code="BB22"),
            call("cancel_booking", {"id": "Q9"}, code="BB22", note=HALF),
            say("Q9"),
        ],
    ],
    ids=["argument", "answer and reply", "tool"],
)
@pytest.mark.parametrize("user", ["Cancel my booking BB22.", f"Cancel BB22 {HALF}."])
def test_half_a_surrogate_pair_costs_no_more_than_the_items_about_it(steps, user):
    dialogue = talk((user, steps), ("Thanks", booking()), tools=TOOLS, system=HALF)
    labelled = label(dialogue)
    assert labelled.task.dialogue is dialogue and labelled.task.checklist(1).items
    assert all(report.ok for report in lint_task(labelled.task))
    assert all(failing(each, dialogue, each.turn) == set() for each in labelled.task.checklists)
    msgspec.json.encode(labelled.task.checklists)


def failing_where_it_was_cancelled(reply):
    """The items that this reply fails after a call that cancelled a booking; the reference says that it did."""
    ask = "Cancel my booking BB22."
    cancelled = call("cancel_booking", {"ok": True}, code="BB22")
    reference = checklist(talk((ask, [cancelled, say("It has been cancelled.")]), tools=TOOLS))
    return failing(reference, talk((ask, [cancelled, say(reply)]), tools=TOOLS))


@pytest.mark.parametrize(
    "reply",
    [
        "Sorry, your booking could not be cancelled.",
        "Nothing has been cancelled, it is done for.",
        "It wasn’t cancelled. You are all set otherwise.",
        "I was not able to get it cancelled.",
        "The request failed, it will be done soon.",
        "Unfortunately it cannot be done.",
    ],
)
def test_a_denial_reports_no_success(reply):
    assert failing_where_it_was_cancelled(reply) == {"reply"}


@pytest.mark.parametrize(
    "reply",
    [
        "No problem, it is cancelled.",
        "Don't worry, it's done.",
        "I can't wait to see you again: your booking is cancelled.",
        "Cancelled. This cannot be changed or refunded.",
        "Sorry for the wait. Your restaurant booking has been cancelled, nothing else is needed.",
    ],
)
def test_a_no_about_something_else_is_no_denial(reply):
    assert failing_where_it_was_cancelled(reply) == set()


def sent(ask: str, value, given=None, key: str = "to", required: bool = True) -> set[str]:
    """What a run with `given` fails where the reference sent `value`."""
    kind = "array" if isinstance(value, list) else "string"
    tools = [tool("send_parcel", (key,) if required else (), **{key: kind}), *TOOLS]

    def run(argument) -> Dialogue:
        return talk((ask, [call("send_parcel", {"code": "P77"}, **{key: argument}), say("It is P77.")]), tools=tools)

    return failing(checklist(run(value)), run(given))


def test_an_address_needs_its_numbers_and_a_word_that_tells():
    ask = "Send it to Bancroft Ave, number 7200, # 125C please."
    for good in ("7200 Bancroft Ave # 125C", "Bancroft Avenue 7200, 125c", "125C, 7200 bancroft ave"):
        assert sent(ask, "7200 Bancroft Ave # 125C", good) == set(), good
    for bad in ("Fifth Ave", "1 Bancroft Ave", "7200 Average Ave # 125C", "7200 125C", "17200 Bancroft Ave # 125C"):
        assert sent(ask, "7200 Bancroft Ave # 125C", bad) == {"write"}, bad


def test_free_text_needs_more_than_one_of_several_words():
    ask = "Write a note that the charger broke and the battery leaks, also on the road."
    value = "The customer's charger is broken; battery leaks on the road with noise"
    for good in ("Battery leaks", "leaking battery, charger dead", value):
        assert sent(ask, value, good, key="note") == set(), good
    for bad in ("a battery", "on the road", "battery battery", "with the"):
        assert sent(ask, value, bad, key="note") == {"write"}, bad


def test_a_list_that_the_user_named_in_full_holds_nothing_else():
    ask = "Send 5 and 3 and 8 and 12."
    for value in ([5], [5, 3], [5, 5], [5, 3, 8], [5, 3, 8, 12]):
        assert sent(ask, value, value, key="boxes") == set()
        assert sent(ask, value, value[::-1], key="boxes") == set(), "the order is free"
        assert sent(ask, value, [*value, 99], key="boxes") == {"write"}
        assert sent(ask, value, value[1:], key="boxes") == {"write"}


def test_one_of_a_thing_needs_no_number_from_the_user():
    assert sent("I want a parcel sent.", "1", "1", key="quantity") == set()
    assert sent("I want a parcel sent.", "1", "5", key="quantity") == {"write"}
    assert sent("I want a parcel sent.", "1", "5", key="quantity", required=False) == set()
    assert sent("I want a parcel sent.", "1", "5", key="user_id") == set(), "not a count"


def test_a_question_about_any_record_says_so():
    look = call("search_hotels", found(), city="Paris")
    (reply,) = items(talk(("Hotels in Paris?", [look, say("There is the Ritz.")]), tools=TOOLS), "reply")
    assert reply.check == Reply(states=[Fact([], "text", "search_hotels", "[*].name")])
    assert reply.question == "Does the reply state a name that `search_hotels` returned (“Ritz” or another record's)?"


def test_a_yes_may_be_sought_without_a_question():
    look, write, done = booking()
    ask = "The cheapest hotel in Paris for 2 nights."
    reply = say("Just confirm that the Sol is right and I'll send it to be booked.")
    dialogue = talk((ask, [look, reply]), ("It does.", [write, done]), tools=TOOLS)
    (confirm,) = items(dialogue, "confirmation")
    assert not [item for item in checklist(dialogue).items if "it was done" in item.question]
    assert NotCalled(["book_hotel"]) in confirm.check.checks
    reference = checklist(dialogue)
    assert failing(reference, talk((ask, [look, say("The Sol. Is that right?")]), tools=TOOLS)) == set()
    assert "confirmation" in failing(reference, talk((ask, [look, write, reply]), tools=TOOLS))
    assert "confirmation" in failing(reference, talk((ask, [look, say("Here is the Sol.")]), tools=TOOLS))
