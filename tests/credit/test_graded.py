"""Graded gates, rising strictness, back-filling: hand numbers, a second implementation, the method as a limit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm2.credit import Credit, advantages, score
from cm2.credit.curriculum import strictness
from cm2.credit.graded import carried
from cm2.errors import ConfigError
from credit.credit_builders import checklist, item, said


def test_every_missed_turn_makes_all_later_ones_count_less():
    assert carried([False, True, False, True, False], 0.4).tolist() == pytest.approx([1, 1, 0.6, 0.6, 0.36])
    assert carried([True, True, True], 1.0).tolist() == [1, 0, 0]
    assert carried([True, True, True], 0.0).tolist() == [1, 1, 1]
    assert carried([], 0.5).tolist() == []


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=8), st.floats(0, 1))
def test_the_worth_of_a_turn_is_the_product_over_the_turns_before_it(missed, strict):
    found = carried(missed, strict)
    for t in range(len(missed)):
        wanted = 1.0
        for before in missed[:t]:
            wanted *= 1 - strict if before else 1
        assert found[t] == pytest.approx(wanted)


def three_turns(first: str, second: str, third: str, discount: float = 1.0, steps=(1, 1, 1)):
    """A rollout of three turns; in each C0 is strict (half the weight) and C1 is not. Letters: C0 then C1."""
    lists = [checklist(item("C0", 0.5, strict=True), item("C1", 0.5), turn=t) for t in range(3)]
    marks = [first, second, third]
    verdicts = [v for t in range(3) if steps[t] for v in said({"C0": marks[t][0], "C1": marks[t][1]}, turn=t)]
    return score(lists, verdicts, steps, 3, "gated", discount)


def test_partly_correct_work_earns_its_part_behind_a_graded_gate():
    right, half = three_turns("yy", "yy", "yy", 0.5), three_turns("ny", "yy", "yy", 0.5)
    assert right.reward == 1.0
    assert half.turn_rewards.tolist() == [0.5, 0.5, 0.5] and half.reward == pytest.approx(0.5)
    twice = three_turns("ny", "ny", "yy", 0.5)
    assert twice.turn_rewards.tolist() == [0.5, 0.25, 0.25]
    assert three_turns("ny", "yy", "yy", 0.0).reward == pytest.approx(0.5 / 3)  # the method: the rest was never reached
    assert three_turns("ny", "yy", "yy").reward == pytest.approx(2.5 / 3)  # no discount: an open gate
    assert three_turns("yn", "yy", "yy", 0.0).reward == pytest.approx(2.5 / 3)  # C1 is not strict


def test_step_rewards_still_sum_to_the_reward():
    one = three_turns("ny", "yn", "yy", 0.25)
    assert sum(one.step_rewards.values()) == pytest.approx(one.reward)
    assert one.step_rewards[2, 0] == pytest.approx(0.25 / 3)


def test_an_unscored_strict_item_is_no_miss():
    assert three_turns("-y", "yy", "yy", 0.0).reward == 1.0


def test_a_turn_that_was_never_reached_is_no_miss_and_earns_nothing():
    one = three_turns("yy", "ny", "yy", 0.5, steps=(1, 1, 0))
    assert one.turn_rewards.tolist() == [1.0, 0.5, 0.0]


@pytest.mark.parametrize("level", ["trajectory", "turn", "step"])
def test_at_full_strictness_every_level_gives_what_the_method_gives(level):
    """The same three rollouts, once ended by the method's gate and once run on behind a gate that pays nothing."""
    credit = Credit(level=level)
    method = [
        three_turns("yy", "yn", "yy"),
        three_turns("ny", "yy", "yy", steps=(1, 0, 0)),
        three_turns("yn", "ny", "yy", steps=(1, 1, 0)),
    ]
    graded = [
        three_turns("yy", "yn", "yy", 0.0),
        three_turns("ny", "yy", "yy", 0.0),
        three_turns("yn", "ny", "yy", 0.0),
    ]
    ours, theirs = (advantages(group, None, credit).steps for group in (graded, method))
    for mine, wanted in zip(ours, theirs, strict=True):
        assert {at: mine[at] for at in wanted} == pytest.approx(wanted)


def test_the_step_level_scales_items_by_what_their_turn_counts():
    group = [three_turns("ny", "yy", "yy", 0.5), three_turns("yy", "nn", "yy", 0.5)]
    found = advantages(group, None, Credit(level="step")).steps
    # Turn 1: the first counts 1/2 there and has both items, the second 1 and has none: b = 1/4 for each item.
    assert found[0][1, 0] == pytest.approx(0.5 - 0.25) and found[1][1, 0] == pytest.approx(-0.25)


def test_an_expected_coin_is_the_discount():
    """Ending with probability p and going on with 1 − p are worth the same on average."""
    p, end, on = 0.3, three_turns("ny", "yy", "yy", steps=(1, 0, 0)), three_turns("ny", "yy", "yy")
    assert p * end.reward + (1 - p) * on.reward == pytest.approx(three_turns("ny", "yy", "yy", 1 - p).reward)


def test_strictness_rises_in_a_line_to_one_and_stays():
    assert [strictness(u, 0.2, 4) for u in (0, 1, 2, 4, 9)] == pytest.approx([0.2, 0.4, 0.6, 1.0, 1.0])
    assert strictness(50, 0.2, 0) == 0.2


def test_a_gate_that_is_unknown_or_out_of_range_is_refused():
    with pytest.raises(ConfigError, match=r"credit\.gate"):
        Credit(gate="open")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"credit\.strictness"):
        Credit(strictness=1.5)
    assert Credit(gate="graded", strictness=0.3).discount == pytest.approx(0.7)
    assert Credit(gate="chance", strictness=0.3).discount == Credit().discount == 1.0


def looked_up(marks):
    return score([checklist(item("C0", 0.5), item("C1", 0.5, ["C0"]))], said(marks), [3], 1)


def test_without_back_filling_only_the_step_that_satisfied_an_item_is_credited():
    """C0 holds after step 0, C1 (which rests on it) after step 2; the sibling does nothing: b = 1/2 for both."""
    group = [looked_up({"C0": "yyy", "C1": "nny"}), looked_up({"C0": "nnn", "C1": "nnn"})]
    filled = advantages(group, None, Credit(level="step")).steps[0]
    assert [filled[0, s] for s in range(3)] == [0.5, 0.5, 0.5]
    bare = advantages(group, None, Credit(level="step", backfill=False)).steps[0]
    assert [bare[0, s] for s in range(3)] == [0.5, -0.5, 0.5]  # step 1 led to C1, and is charged for it


def literally(satisfied, depends, weights, backfill):
    """Eq. 2, 3 and 8 to 10, item by item."""
    group, states, items = satisfied.shape
    out = np.zeros((group, states - 1))
    b = [np.mean([satisfied[i, -1, c] for i in range(group)]) for c in range(items)]
    for i in range(group):
        for s in range(states - 1):
            top = bottom = 0.0
            for c in range(items):
                ready = all(satisfied[i, s, d] for d in range(items) if depends[c, d])
                if not ready or satisfied[i, s, c]:
                    continue
                paid = satisfied[i, -1, c] if backfill else satisfied[i, s + 1, c]
                top, bottom = top + weights[c] * (float(paid) - b[c]), bottom + weights[c]
            out[i, s] = top / bottom if bottom else 0.0
    return out


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 4), st.integers(1, 4), st.integers(1, 3), st.booleans(), st.integers(0, 10_000))
def test_the_step_level_is_its_equations_with_and_without_back_filling(group, steps, items, backfill, seed):
    from cm2.credit.advantages import step

    rng = np.random.default_rng(seed)
    satisfied = np.concatenate([np.zeros((group, 1, items), bool), rng.random((group, steps, items)) < 0.4], 1)
    satisfied = np.maximum.accumulate(satisfied, axis=1)
    depends = np.tril(rng.random((items, items)) < 0.4, -1)
    weights = rng.random(items) + 0.1
    found = step(satisfied, depends, weights, np.ones((group, items), bool), "none", backfill)
    np.testing.assert_allclose(found, literally(satisfied, depends, weights, backfill), atol=1e-12)
