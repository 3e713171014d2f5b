"""Equations 2 and 3 and E against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from credit_builders import checklist, item, said

from cm2.credit.satisfaction import backfilled, dependencies, earned, eligible, latch, scored, tally
from cm2.errors import DataError
from cm2.verdict import Verdict

# C0 is what a tool answered; C1 rests on C0. The judge says over four steps:
#            s=0  s=1  s=2  s=3
#   C0        n    y    n    y     (wavers: must latch at 1)
#   C1        y    y    n    y     (true before C0 is)
ITEMS = (item("C0", 0.4), item("C1", 0.6, ["C0"]))
MARKS = {"C0": "nyny", "C1": "yyny"}


def arrays(marks=MARKS, items=ITEMS):
    one = checklist(*items)
    return tally(one, said(marks), len(next(iter(marks.values())))), dependencies(one)


def table(values) -> list[list[int]]:
    return np.asarray(values).astype(int).tolist()


def test_gated_waits_for_the_dependency_in_the_state_before_the_step():
    met, depends = arrays()
    satisfied = latch(met, depends, "gated")
    # x_0: nothing. x_1: C0 no; C1 said yes but C0 is not in x_0. x_2: C0. C1 said yes at step 1, but C0 was not in x_1:
    # the same step does not count. x_3: C1 said no at step 2; C0 said no again and stays. x_4: C1, C0 being in x_3.
    assert table(satisfied) == [[0, 0], [0, 0], [1, 0], [1, 0], [1, 1]]
    # r: C0 flips at step 1, C1 at step 3.
    assert table(earned(satisfied, depends)) == [[0, 0], [1, 0], [0, 0], [0, 1]]
    # E: C0 while unsatisfied (steps 0, 1); C1 once C0 holds and until it is satisfied (steps 2, 3).
    assert table(eligible(satisfied, depends)) == [[1, 0], [1, 0], [0, 1], [0, 1]]
    # r~: every eligible step of an item that ends up satisfied.
    assert table(backfilled(satisfied, depends)) == [[1, 0], [1, 0], [0, 1], [0, 1]]


def test_strict_latches_the_early_yes_which_then_never_pays():
    met, depends = arrays()
    satisfied = latch(met, depends, "strict")
    assert table(satisfied) == [[0, 0], [0, 1], [1, 1], [1, 1], [1, 1]]
    assert table(earned(satisfied, depends)) == [[0, 0], [1, 0], [0, 0], [0, 0]]
    assert table(eligible(satisfied, depends)) == [[1, 0], [1, 0], [0, 0], [0, 0]]
    assert table(backfilled(satisfied, depends)) == [[1, 0], [1, 0], [0, 0], [0, 0]]


def test_strict_lets_an_ungrounded_yes_carry_what_rests_on_it():
    # C1 rests on C0, which never holds; C2 rests on C1. Strict: the yes on C1 latches unpaid, and C2 pays after it.
    items = (item("C0", 0.2), item("C1", 0.3, ["C0"]), item("C2", 0.5, ["C1"]))
    met, depends = arrays({"C0": "nn", "C1": "yy", "C2": "ny"}, items)
    assert table(earned(latch(met, depends, "strict"), depends)) == [[0, 0, 0], [0, 0, 1]]
    assert table(earned(latch(met, depends, "gated"), depends)) == [[0, 0, 0], [0, 0, 0]]


def test_without_early_yes_both_readings_agree():
    met, depends = arrays({"C0": "nynn", "C1": "nnny"})
    assert table(latch(met, depends, "gated")) == table(latch(met, depends, "strict"))
    assert table(earned(latch(met, depends, "gated"), depends)) == [[0, 0], [1, 0], [0, 0], [0, 1]]


def test_backfilled_is_zero_for_an_item_that_is_never_satisfied():
    met, depends = arrays({"C0": "yn", "C1": "nn"})
    satisfied = latch(met, depends, "gated")
    assert table(eligible(satisfied, depends)) == [[1, 0], [0, 1]]
    assert table(backfilled(satisfied, depends)) == [[1, 0], [0, 0]]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_dependency_met_in_the_same_step_does_not_count_whatever_the_order_of_the_items(order):
    items = [ITEMS[i] for i in order]
    met, depends = arrays({"C0": "y", "C1": "y"}, items)
    paid = earned(latch(met, depends, "gated"), depends)[0]
    assert dict(zip([each.id for each in items], paid.tolist(), strict=True)) == {"C0": True, "C1": False}


def test_a_chain_of_dependencies_takes_one_step_a_link():
    items = (item("C2", 0.2, ["C1"]), item("C1", 0.3, ["C0"]), item("C0", 0.5))
    met, depends = arrays({"C0": "yyy", "C1": "yyy", "C2": "yyy"}, items)
    assert table(earned(latch(met, depends, "gated"), depends)) == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]


def test_a_group_is_handled_in_one_go():
    first, depends = arrays()
    second, _ = arrays({"C0": "ynnn", "C1": "nynn"})
    together = latch(np.stack([first, second]), depends, "gated")
    assert table(together[0]) == table(latch(first, depends, "gated"))
    assert table(together[1]) == table(latch(second, depends, "gated"))
    assert table(earned(together, depends)[1]) == [[1, 0], [0, 1], [0, 0], [0, 0]]


def test_the_majority_of_judgements_decides_ties_are_no_and_unscored_never_votes():
    def judged(*values) -> float:
        verdicts = [Verdict("d", 0, 0, "C0", value) for value in values]
        return float(tally(checklist(item("C0", 1.0)), verdicts, 1)[0, 0])

    assert judged(True, True, False) == 1
    assert judged(True, False) == 0
    assert judged(True, None, None) == 1
    assert judged(False, None) == 0
    assert np.isnan(judged(None, None))
    assert np.isnan(judged())


def test_verdicts_of_another_turn_variant_or_item_do_not_vote():
    one = checklist(item("C0", 1.0), turn=1, variant=1)
    others = [Verdict("d", 0, 0, "C0", True, 1), Verdict("d", 1, 0, "C0", True, 0), Verdict("d", 1, 0, "C9", True, 1)]
    assert np.isnan(tally(one, others, 1)[0, 0])
    assert tally(one, [*others, Verdict("d", 1, 0, "C0", False, 1)], 1)[0, 0] == 0


def test_a_verdict_about_a_step_that_was_not_taken_is_refused():
    with pytest.raises(DataError, match="step 2, but the turn has 2 steps"):
        tally(checklist(*ITEMS), said({"C0": "nny"}), 2)


def test_a_dependency_on_nothing_and_an_id_used_twice_are_refused():
    with pytest.raises(DataError, match="C7, which is no item"):
        dependencies(checklist(item("C0", 1.0, ["C7"])))
    with pytest.raises(DataError, match="share an id"):
        dependencies(checklist(item("C0", 0.5), item("C0", 0.5)))


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ({"C0": "--", "C1": "nn"}, [False, True]),  # C1 is a no whatever C0 is
        ({"C0": "--", "C1": "yn"}, [False, True]),  # the yes at step 0 comes before C0 can hold: a no as well
        ({"C0": "--", "C1": "ny"}, [False, False]),  # whether C1 pays hangs on C0, which nobody decided
        ({"C0": "n-", "C1": "ny"}, [True, True]),  # C0 was decided somewhere: it counts as not satisfied
        ({"C0": "y-", "C1": "-y"}, [True, True]),
        ({"C0": "y-", "C1": "--"}, [True, False]),
    ],
)
def test_an_item_is_unscored_when_never_decided_or_when_it_hangs_on_one_never_decided(marks, expected):
    met, depends = arrays(marks)
    assert scored(met, depends, "gated").tolist() == expected


def test_a_turn_never_reached_settles_every_item_as_a_no():
    one = checklist(*ITEMS)
    met, depends = tally(one, [], 0), dependencies(one)
    assert scored(met, depends, "gated").tolist() == [True, True]
    assert table(latch(met, depends, "gated")) == [[0, 0]]
    assert earned(latch(met, depends, "gated"), depends).shape == (0, 2)
