"""The full profile: whole tool lists, several turns, and an agent that keeps the rules that its prompt states."""

from __future__ import annotations

from functools import cache

import pytest

from cm2.dialogue import Dialogue
from cm2.judge.checks import states
from cm2.judge.statement import statement
from cm2.judge.values import is_error
from cm2.worlds import PROFILES, UNSEEN, MakeConfig, domains_of, make
from cm2.writes import changes_state

NAMES = list(PROFILES["full"])
VERIFIES = {
    "pharmacy": "verify_patient",
    "library": "verify_reader",
    "bank": "verify_customer",
    "telecom": "verify_caller",
    "clinic": "check_identity",
}
CONFIRM = ("wait for the customer's yes", "only after the customer has agreed", "explicit yes")


@cache
def made(name: str) -> list[Dialogue]:
    split = "unseen" if name in UNSEEN else "train"
    return list(make(MakeConfig(count=150, seed=2, split=split, domains=(name,))))


def told(dialogue: Dialogue, turn: int, key: str):
    return dialogue.meta["goal"]["told"][turn].get(key)


def writes(dialogue: Dialogue):
    for t, s, _, call, response in dialogue.calls():
        if changes_state(dialogue.tool(call.name), call.name) and not is_error(response):
            yield t, s, call


def test_there_are_eight_domains_to_train_on_and_two_that_are_not():
    assert len(domains_of("full", "train")) >= 8 and len(domains_of("full", "unseen")) == 2
    assert all(len(PROFILES["full"][name].box.tools) >= 6 for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_dialogues_have_two_to_four_turns_of_up_to_four_calls_and_a_reply(name):
    turns = {len(dialogue.turns) for dialogue in made(name)}
    assert turns == {2, 3, 4}
    for dialogue in made(name):
        assert all(1 <= len(turn.steps) <= 5 and turn.reply for turn in dialogue.turns)
        assert all(step.thinking for turn in dialogue.turns for step in turn.steps)


@pytest.mark.parametrize("name", NAMES)
def test_what_must_be_told_was_seen_before_and_is_told(name):
    for dialogue in made(name):
        seen = dialogue.system or ""
        for t, turn in enumerate(dialogue.turns):
            seen += "\n" + turn.user + "\n" + "\n".join(r.content for step in turn.steps for r in step.responses)
            for fact in told(dialogue, t, "facts") or ():
                value = fact["any_of"][0]
                assert str(value) in seen, (dialogue.id, value)
                assert states(statement(turn.reply), value, fact.get("kind", "text")), (dialogue.id, turn.reply)


@pytest.mark.parametrize("name", NAMES)
def test_refusals_and_questions_occur_in_every_domain(name):
    dialogues = made(name)
    for key in ("refuses", "asks"):
        share = sum(any(t.get(key) for t in d.meta["goal"]["told"]) for d in dialogues) / len(dialogues)
        assert 0.15 < share < 0.75, (key, share)


@pytest.mark.parametrize("name", NAMES)
def test_where_the_rules_want_a_yes_every_write_follows_a_question(name):
    checked = 0
    for dialogue in made(name):
        if any(text in dialogue.system for text in CONFIRM):
            for t, _, call in writes(dialogue):
                assert t > 0 and told(dialogue, t - 1, "asks"), (dialogue.id, call.name)
                checked += 1
    assert checked > 20


@pytest.mark.parametrize("name", VERIFIES)
def test_nothing_is_written_before_the_customer_is_verified(name):
    failed = 0
    for dialogue in made(name):
        verified = False
        for _, _, _, call, response in dialogue.calls():
            if call.name == VERIFIES[name]:
                verified = verified or not is_error(response)
                failed += is_error(response)
            elif not verified:
                assert not changes_state(dialogue.tool(call.name), call.name), dialogue.id
    assert failed > 5


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_found_before_they_are_used(name):
    """An argument that ends in _id stood in an earlier answer or in the user's words."""
    chained = 0
    for dialogue in made(name):
        seen = ""
        for t, turn in enumerate(dialogue.turns):
            seen += f"\n{dialogue.turns[t].user}"
            for step in turn.steps:
                for call in step.calls:
                    for key, value in call.arguments.items():
                        if key.endswith("_id"):
                            assert value in seen, (dialogue.id, key, value)
                            chained += 1
                seen += "".join(response.content for response in step.responses)
    assert chained > 40


@pytest.mark.parametrize("name", NAMES)
def test_people_word_their_wishes_in_many_ways(name):
    openings = [dialogue.turns[0].user for dialogue in made(name)]
    assert len(set(openings)) > 0.95 * len(openings)
    assert len({opening.split()[0] for opening in openings}) >= 8
