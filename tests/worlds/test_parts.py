"""The parts of a world: tools and their schemas, the state of a session, what changed, and wording."""

from __future__ import annotations

import json
import random

import pytest

from cm2.dialogue import ToolCall
from cm2.simulate.schema import ArgumentSchema
from cm2.worlds.engine import Desk, Engine
from cm2.worlds.goal import compare
from cm2.worlds.script import Script, fact_of
from cm2.worlds.toolbox import Toolbox, ToolError
from cm2.worlds.wording import Voice, expand, fill

box = Toolbox()


@box.tool("Cups of a colour.", colour="red|blue", most="integer?")
def find_cups(desk: Desk, colour: str, most: int | None = None):
    return {"cups": [row for row in desk.where("cups", colour=colour) if most is None or row["price"] <= most]}


@box.tool("Buy a cup.", cup_id="string", day="date")
def buy_cup(desk: Desk, cup_id: str, day: str):
    cup = desk.find("cups", cup_id)
    if cup["sold"]:
        raise ToolError(f"{cup_id} is sold")
    cup["sold"] = True
    return {"code": desk.make("sales", {"cup_id": cup["cup_id"], "day": day})}


CUPS = {
    "C1": {"cup_id": "C1", "colour": "red", "price": 3, "sold": False},
    "C2": {"cup_id": "C2", "colour": "red", "price": 5, "sold": False},
    "C3": {"cup_id": "C3", "colour": "blue", "price": 4, "sold": True},
}


def engine(seed: int = 0) -> Engine:
    return Engine(box.handlers, {"cups": CUPS, "sales": {}}, seed)


def ask(desk: Desk, name: str, **arguments):
    return json.loads(desk.respond(ToolCall(name, arguments)))


def test_one_word_declares_an_arguments_schema():
    schema = ArgumentSchema(box.tools["find_cups"])
    assert schema.violation({"colour": "red"}) == ""
    assert "colour" in schema.violation({}) and "green" in schema.violation({"colour": "green"})
    assert schema.violation({"colour": "red", "most": 0}) and schema.violation({"colour": "red", "least": 1})
    assert box.tools["buy_cup"].parameters["properties"]["day"]["format"] == "date"


def test_a_look_up_ignores_case_and_an_absent_filter():
    desk = engine().session()
    assert [row["cup_id"] for row in ask(desk, "find_cups", colour="RED ")["cups"]] == ["C1", "C2"]
    assert [row["cup_id"] for row in ask(desk, "find_cups", colour="red", most=4)["cups"]] == ["C1"]


def test_refusals_are_errors_that_change_nothing():
    desk = engine().session()
    assert ask(desk, "buy_cup", cup_id="C3", day="2025-01-01") == {"error": "C3 is sold"}
    assert ask(desk, "buy_cup", cup_id="C9", day="2025-01-01") == {"error": "cup C9 not found"}
    assert desk.tables == engine().tables()


def test_a_code_follows_from_the_record_whatever_the_route_to_it():
    direct, long = engine().session(), engine().session()
    ask(long, "find_cups", colour="blue")
    ask(long, "buy_cup", cup_id="C2", day="2025-01-01")
    code = ask(direct, "buy_cup", cup_id="C1", day="2025-01-01")["code"]
    assert ask(long, "buy_cup", cup_id="c1", day="2025-01-01")["code"] == code
    assert ask(engine().session(), "buy_cup", cup_id="C1", day="2025-01-02")["code"] != code
    assert ask(engine(1).session(), "buy_cup", cup_id="C1", day="2025-01-01")["code"] != code


def test_equal_records_have_different_codes():
    desk = engine().session()
    assert desk.make("sales", {"a": 1}) != desk.make("sales", {"a": 1})
    assert len(desk["sales"]) == 2


def test_changes_name_what_was_made_changed_and_removed_without_the_ids_of_new_records():
    desk = engine().session()
    code = ask(desk, "buy_cup", cup_id="C1", day="2025-01-01")["code"]
    other = desk.make("sales", {"parent": code, "tags": [code]})
    del desk.tables["cups"]["C3"]
    changes, ids = compare(engine().tables(), desk.tables, desk.issued)
    assert sorted(ids) == sorted([code, other])
    assert ("sales", {"cup_id": "C1", "day": "2025-01-01"}) in changes.made
    assert ("sales", {"parent": "new sales", "tags": ["new sales"]}) in changes.made
    assert changes.changed == [("cups", "C1", {"sold": True})] and changes.removed == [("cups", "C3")]


def test_what_was_undone_is_no_change():
    desk = engine().session()
    ask(desk, "buy_cup", cup_id="C1", day="2025-01-01")
    desk.tables["cups"]["C1"]["sold"] = False
    desk.tables["sales"].clear()
    changes, _ = compare(engine().tables(), desk.tables, desk.issued)
    assert (changes.made, changes.changed, changes.removed) == ([], [], [])


def test_a_script_executes_its_calls_and_keeps_what_must_be_told():
    script = Script(engine(), list(box.tools.values()), random.Random(0), "Sell cups.")
    script.user("A red cup, please.")
    cup = script.call("find_cups", "Look for <colour>.", colour="red")["cups"][0]
    done = script.call("buy_cup", "Buy it.", cup_id=cup["cup_id"], day="2025-01-01")
    script.reply("{Bought|Done}: $<price>, code <code>.", "price code", "Tell.", cup, done)
    dialogue, goal = script.finish()
    assert [step.thinking for step in dialogue.turns[0].steps] == ["Look for red.", "Buy it.", "Tell."]
    assert goal.told[0].codes == [0] and goal.told[0].facts == [fact_of(3)]
    assert goal.changes.made == [("sales", {"cup_id": "C1", "day": "2025-01-01"})]
    script.user("Again!")
    with pytest.raises(AssertionError, match="C3 is sold"):
        script.call("buy_cup", cup_id="C3", day="2025-01-01")


def test_facts_know_numbers_times_and_dates():
    kinds = [fact_of(value).kind for value in (3, 2.5, "14:30", "2025-01-01", "K7Q", "May 3")]
    assert kinds == ["number", "number", "time", "date", "text", "text"]


def test_choices_nest_and_values_come_through_untouched():
    rng = random.Random(1)
    ways = {expand(rng, "{a|b{c|d}}e") for _ in range(60)}
    assert ways == {"ae", "bce", "bde"}
    assert fill("<a> and <b>", a=1, b="{x|y} <a>") == "1 and {x|y} <a>"
    with pytest.raises(KeyError):
        fill("<missing>")


@pytest.mark.parametrize("style", ["plain", "lower", "chat", "slip"])
def test_a_style_touches_the_words_and_never_the_values(style):
    text = "Please book The <name> for you, thanks."
    said = {Voice(random.Random(seed), style).say(text, name="Please The Ritz") for seed in range(30)}
    assert all("Please The Ritz" in one for one in said)
    if style == "plain":
        assert said == {"Please book The Please The Ritz for you, thanks."}
    if style == "chat":
        assert said == {"pls book the Please The Ritz for u, thx"}
    if style == "slip":
        assert len(said) > 3 and all(len(one) == len(text) - len("<name>") + len("Please The Ritz") for one in said)
