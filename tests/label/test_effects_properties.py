"""Properties of effects on dialogues made at random: no order, route or spelling counts, and every change does."""

from __future__ import annotations

import json
import random

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from label_builders import call, say, talk, tool
from test_effects import TOOLS, failed

from cm2.assure.outcomes import Outcome, score
from cm2.check import Called
from cm2.checklist import validate
from cm2.dialogue import Dialogue, Step, ToolCall, Turn
from cm2.judge.checks import decide
from cm2.label.effects import EffectsLabeler, label_effects
from cm2.label.lint import lint_task
from cm2.verdict import WHOLE

IDS = st.sampled_from(["u_1", "u_2", "T77", "A-9", "x y z", "Ünï"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.floats(allow_nan=False, width=32) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def _order_free(effect: tuple[str, dict]) -> str:
    plain = {key: sorted(value) if isinstance(value, list) else value for key, value in effect[1].items()}
    return json.dumps([effect[0], plain], sort_keys=True)


@st.composite
def effects(draw: st.DrawFn) -> list[tuple[str, dict]]:
    """Different changes, each with arguments."""
    found = draw(
        st.lists(
            st.one_of(
                st.tuples(st.just("cancel_trip"), st.fixed_dictionaries({"trip_id": IDS})),
                st.tuples(
                    st.just("send_voucher"), st.fixed_dictionaries({"user_id": IDS, "amount": st.integers(1, 500)})
                ),
                st.tuples(
                    st.just("book_trip"),
                    st.fixed_dictionaries({"user_id": IDS, "legs": st.lists(IDS, min_size=1, max_size=3, unique=True)}),
                ),
            ),
            min_size=1,
            max_size=4,
            unique_by=_order_free,
        )
    )
    return found


def run(made: list[tuple[str, dict]], turns: int = 1) -> Dialogue:
    """A dialogue that makes these changes, spread over so many turns."""
    parts: list[list[Step]] = [[] for _ in range(turns)]
    for n, (name, arguments) in enumerate(made):
        parts[n * turns // max(len(made), 1)].append(call(name, {"ok": True}, **arguments))
    return talk(*((f"Go on ({n}).", [*part, say("Done.")]) for n, part in enumerate(parts)), tools=TOOLS)


@given(effects(), st.integers(1, 3), st.randoms(use_true_random=False))
def test_order_turns_and_spelling_do_not_count(made, turns, shuffle: random.Random):
    (checklist,) = label_effects(run(made)).checklists
    other = [(name, {key: _spelt(value, shuffle) for key, value in one.items()}) for name, one in made]
    shuffle.shuffle(other)
    assert failed(checklist, run(other, turns)) == set()


def _spelt(value, shuffle: random.Random):
    if isinstance(value, list):
        return shuffle.sample(value, len(value))
    return f"{value}.0" if isinstance(value, int) and shuffle.random() < 0.5 else value


@given(effects(), st.data())
def test_one_change_fewer_or_more_fails_the_outcome(made, data):
    (checklist,) = label_effects(run(made)).checklists
    left = data.draw(st.integers(0, len(made) - 1))
    fewer = failed(checklist, run(made[:left] + made[left + 1 :]))
    assert "outcome" in fewer and any(id.startswith("effect-") for id in fewer)
    more = failed(checklist, run([*made, ("send_voucher", {"user_id": "u_9", "amount": 1000})]))
    assert more == {"outcome", "nothing-else-changed"}


@given(effects(), st.integers(0, 3), st.integers(0, 15))
def test_a_wrong_outcome_scores_below_a_right_one(made, changes, told):
    """By counting what the items weigh: all of the lesser ones missing, against all of them there."""
    facts = {"total": 1250.5, "code": "Q89V", "ready": "09:30", "deposit": 230, "phone": "555-0152"}
    ask = "What is the total, the code, when is it ready, the deposit and the phone?"
    say_all = "The total is $1250.50, the code Q89V, ready at 09:30, deposit $230, phone 555-0152."
    steps = [call("get_user", dict(list(facts.items())[: told % 6]), user_id="u_1")]
    steps += [call(name, {"ok": True}, **arguments) for name, arguments in made[:changes]]
    if told > 7:
        steps.append(call("transfer_to_human_agents", "ok", summary="the rest"))
    reference = talk((ask, [*steps, say(say_all)]), tools=TOOLS)
    (checklist,) = label_effects(reference).checklists
    minor = {item.id for item in checklist.items if item.severity == "minor"}

    def scored(lost: set[str]) -> float:
        outcomes = [Outcome("d", "", 0, WHOLE, item, "fail" if item.id in lost else "pass") for item in checklist.items]
        found = score(outcomes)
        assert found is not None
        return found

    wrong = [{"outcome", "nothing-else-changed"}] if changes else [{"nothing-changed"}]
    wrong += [{"outcome", item.id} for item in checklist.items if item.id.startswith("effect-")]
    assert all(scored(lost) < scored(minor) for lost in wrong)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["book_trip", "delete_x", "get_user", "order", "", "größe", "ticket_update"]),
            st.dictionaries(st.text(max_size=6), VALUES, max_size=3) | VALUES,
            VALUES,
        ),
        max_size=4,
    ),
    st.booleans(),
    st.text(max_size=30),
)
def test_whatever_stands_in_a_log_the_items_hold_on_it_and_lint_agrees(made, known, words):
    steps = []
    for name, arguments, answer in made:
        step = call(name, answer)
        step.calls = [ToolCall(name, arguments, id="c0", error=None if isinstance(arguments, dict) else "no object")]
        steps.append(step)
    dialogue = Dialogue("d", [Turn("Do it, how many in total?", [*steps, Step(reply=words)])], TOOLS if known else [])
    labelled = EffectsLabeler().label(dialogue)
    for checklist in labelled.task.checklists:
        assert validate(checklist, dialogue) == []
        assert failed(checklist, dialogue) == set()
    assert all(report.ok for report in lint_task(labelled.task))
    again = msgspec.json.decode(msgspec.json.encode(labelled.task.checklists), type=list)
    assert again == msgspec.to_builtins(labelled.task.checklists)


@given(effects())
def test_each_effect_item_is_told_apart_by_its_own_argument(made):
    (checklist,) = label_effects(run(made)).checklists
    for item in checklist.items:
        if not item.id.startswith("effect-"):
            continue
        assert isinstance(item.check, Called)
        kept = [each for each in made if not decide(item.check, run([each]), WHOLE, WHOLE).met]
        assert len(kept) == len(made) - 1


def test_the_tool_of_a_number_takes_text_too():
    price = tool("charge_card", ("amount",), amount="number")
    dialogue = talk(("Pay", [call("charge_card", {"ok": True}, amount=12.5), say("Paid.")]), tools=[price])
    (checklist,) = label_effects(dialogue).checklists
    other = talk(("Pay", [call("charge_card", {"ok": True}, amount="12.50"), say("Paid.")]), tools=[price])
    assert failed(checklist, other) == set()
