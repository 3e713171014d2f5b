"""The cascade: the light model decides where it is sure, and leaves everything else exactly as it was."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest
from test_classifier import CODES, code_dialogue, code_examples, small_model
from trust_builders import Oracle, item

from cm2.check import Reply
from cm2.checklist import Checklist
from cm2.dialogue import Dialogue, Step, Turn
from cm2.judge.cascade import CascadeJudge
from cm2.judge.classifier import Classifier, Guess
from cm2.judge.fitting import train
from cm2.judge.hybrid import HybridJudge
from cm2.judge.judging import Judging
from cm2.judge.make import make_judge
from cm2.verdict import Verdict


class Sure(Classifier):
    """Decides what it is told to, by item id."""

    def __init__(self, decides: dict[str, bool]):
        self.decides = decides

    def guess(self, items, dialogue, turn):
        steps = len(dialogue.turns[turn].steps)
        return [Guess((self.decides.get(one.id, False),) * steps, 0.99, one.id in self.decides) for one in items]


class Other(Oracle):
    """A judge to be awaited, which notes what it is asked and told."""

    def __init__(self, says):
        super().__init__(says)
        self.known: list[set[str]] = []

    async def judge_async(self, dialogue, turn, checklist, since=0, known=(), again=0):
        done = {verdict.item for verdict in known}
        self.known.append(done)
        self.asked.append([one.id for one in checklist.items if one.id not in done])
        return [
            Verdict(dialogue.id, turn, step, one.id, self.says(dialogue, turn, step, one), judge="other")
            for step in range(since, len(dialogue.turns[turn].steps))
            for one in checklist.items
            if one.id not in done
        ]


DIALOGUE = Dialogue("d", [Turn("hi", [Step(thinking="x"), Step(reply="hello")])])
CHECKLIST = Checklist(0, [item("C0"), item("C1"), item("C2")])


def judged(cascade, checklist=CHECKLIST, **more):
    return asyncio.run(cascade.judge_async(DIALOGUE, 0, checklist, **more))


def test_only_what_is_not_decided_is_asked_and_the_order_is_step_then_item():
    other = Other(lambda d, t, s, one: True)
    cascade = CascadeJudge(other, Sure({"C1": False}))
    found = judged(cascade)
    assert other.asked == [["C0", "C2"]]
    assert other.known == [{"C1"}], "what was decided grounds what depends on it"
    assert [(v.step, v.item, v.met, v.judge) for v in found] == [
        (step, id, met, judge)
        for step in (0, 1)
        for id, met, judge in (("C0", True, "other"), ("C1", False, "classifier"), ("C2", True, "other"))
    ]
    saved = cascade.saved
    assert (saved.turns, saved.turns_without_call, saved.items, saved.decided) == (1, 0, 3, 1)


def test_a_turn_that_is_decided_whole_needs_no_call():
    other = Other(lambda d, t, s, one: True)
    cascade = CascadeJudge(other, Sure({"C0": True, "C1": False, "C2": True}))
    assert [v.met for v in judged(cascade)] == [True, False, True] * 2
    assert other.asked == []
    assert cascade.saved.turns_without_call == 1
    assert cascade.judge(DIALOGUE, 0, CHECKLIST)[0].met is True


def test_what_the_other_judge_left_unscored_stays_unscored():
    cascade = CascadeJudge(Other(lambda d, t, s, one: None), Sure({"C1": True}))
    assert [v.met for v in judged(cascade) if v.item != "C1"] == [None] * 4


def test_what_is_known_already_is_neither_guessed_nor_asked():
    other = Other(lambda d, t, s, one: True)
    known = [Verdict("d", 0, s, "C0", False) for s in (0, 1)]
    found = judged(CascadeJudge(other, Sure({"C0": True, "C1": True})), known=known)
    assert {v.item for v in found} == {"C1", "C2"}
    assert other.known == [{"C0", "C1"}]


def test_since_and_turns_that_were_never_reached():
    cascade = CascadeJudge(Other(lambda d, t, s, one: True), Sure({"C0": True}))
    assert {v.step for v in judged(cascade, since=1)} == {1}
    assert asyncio.run(cascade.judge_async(DIALOGUE, 4, CHECKLIST)) == []


def test_items_that_share_an_id_are_left_to_the_other_judge():
    other = Other(lambda d, t, s, one: None)
    judged(CascadeJudge(other, Sure({"C0": True})), Checklist(0, [item("C0"), item("C0", "Another?"), item("C1")]))
    assert other.asked == [["C0", "C0", "C1"]]


def test_audited_items_are_asked_and_compared():
    other = Other(lambda d, t, s, one: one.id == "C0")
    cascade = CascadeJudge(other, Sure({"C0": True, "C1": True, "C2": False}), audit=1.0)
    assert [v.judge for v in judged(cascade)] == ["other"] * 6
    assert (cascade.saved.compared, cascade.saved.agreed) == (3, 2)
    assert cascade.saved.agreement == pytest.approx(2 / 3)
    assert CascadeJudge(other, Sure({})).saved.agreement is None


def test_checks_come_first():
    other = Other(lambda d, t, s, one: True)
    checked = Checklist(0, [item("C0", check=Reply(pattern="hello")), item("C1"), item("C2")])
    found = asyncio.run(HybridJudge(CascadeJudge(other, Sure({"C1": True}))).judge_async(DIALOGUE, 0, checked))
    assert [v.judge for v in found if v.step == 1] == ["checks", "classifier", "other"]
    assert other.known == [{"C0", "C1"}]


def test_settings_make_a_cascade_from_a_file(tmp_path):
    class Never:
        async def ask(self, request, check=None):
            raise AssertionError("nobody needs to be asked")

    small_model(yes_from=0.5, no_from=0.5).save(tmp_path / "model")
    judge = make_judge(Judging(kind="classifier", classifier=str(tmp_path / "model")), Never())
    found = judge.judge(DIALOGUE, 0, CHECKLIST)
    assert [v.item for v in found] == ["C0", "C1", "C2"] * 2
    assert all(v.met is not None for v in found)


def test_the_cascade_is_no_worse_than_its_target_and_saves_most_calls():
    """A judge that reads codes, on dialogues that the model never saw."""
    pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra 'classifier')")
    model = train(code_examples(700), target=0.05)
    rng = random.Random(77)
    differ = items = 0
    cascade = None
    for n in range(150):
        dialogue, said = code_dialogue(900_000 + n, rng)
        duties = Checklist(
            0,
            [
                item(f"C{i}", f"Does the reply tell {code}?", pass_condition=f"It says {code}.", kind="reply")
                for i, code in enumerate(rng.sample(CODES, 3))
            ],
        )

        def says(d, t, s, one, said=said):
            return s == 1 and one.question.split()[-1].strip("?") in said

        other = Other(says)
        cascade = cascade or CascadeJudge(other, model)
        cascade.inner = other
        for verdict in asyncio.run(cascade.judge_async(dialogue, 0, duties)):
            items += 1
            differ += verdict.met != says(dialogue, 0, verdict.step, duties.item(verdict.item))
    assert differ / items <= 0.05
    assert cascade.saved.decided / cascade.saved.items > 0.5
    assert cascade.saved.turns_without_call > 0.2 * cascade.saved.turns
    assert np.isclose(cascade.saved.items, 450)
