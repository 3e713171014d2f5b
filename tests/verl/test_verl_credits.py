"""What a worker sends and what the trainer makes of it: advantages, masks, who is left out, as on the local engine."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm2.checklist import Checklist, Item
from cm2.credit import Credit
from cm2.dialogue import Dialogue, Step, Turn
from cm2.errors import DataError
from cm2.rollout.trace import Failure, Rollout, Segment
from cm2.train.roll import rows_of, score_of
from cm2.verdict import Verdict
from cm2.verl.credits import credited
from cm2.verl.record import decode, encode, logprobs_of, mask_of, record_of, step_rewards

CHECKLISTS = [
    Checklist(
        0,
        [
            Item("C0", "tool.content", "Is it?", "so", 0.4, required_for_next_turn=True),
            Item("C1", "tool.content", "Is it?", "so", 0.6, depends_on=["C0"]),
        ],
    ),
    Checklist(1, [Item("C0", "assistant.content.user_visible_reply", "Is it?", "so", 1.0)]),
]
LEVELS = [
    Credit(),
    Credit(normalise="std"),
    Credit(level="turn"),
    Credit(level="turn", turn_baseline="survivors", turn_credit="to_go"),
    Credit(level="step"),
    Credit(level="step", normalise="std"),
    Credit(level="step", backfill=False),
    Credit(reading="strict", level="step"),
    Credit(level="blend"),
]


def rollout(steps: list[int], met: dict[tuple[int, int, str], bool | None], failed: bool = False) -> Rollout:
    """A rollout of so many steps a turn, with these verdicts; step s of turn t samples 2 + t + s tokens."""
    segments, first = [], True
    for turn, count in enumerate(steps):
        for step in range(count):
            tokens = list(range(2 + turn + step))
            shown = [9] * (5 if first else 1 + step)
            segments.append(Segment(turn, step, tokens, [-0.1 * (i + 1) for i in tokens], shown))
            first = False
    dialogue = Dialogue("d", [Turn("u", [Step(reply="r") for _ in range(count)]) for count in steps])
    verdicts = [Verdict("d", t, s, item, value, reason="why") for (t, s, item), value in met.items()]
    return Rollout(
        "d",
        dialogue,
        checklists=CHECKLISTS,
        reference_turns=2,
        verdicts=verdicts,
        segments=segments,
        failure=Failure("judge", "gone") if failed else None,
    )


@st.composite
def rollouts(draw) -> Rollout:
    steps = draw(st.lists(st.integers(1, 3), min_size=1, max_size=2))
    places = [
        (turn, step, item.id)
        for checklist in CHECKLISTS
        for turn in [checklist.turn]
        if turn < len(steps)
        for step in range(steps[turn])
        for item in checklist.items
    ]
    met = {place: draw(st.sampled_from([True, False, None])) for place in places}
    return rollout(steps, met, draw(st.integers(0, 5)) == 0)


def sent(one: Rollout):
    """A record after its way through a queue."""
    return decode(encode(record_of(one)))


@given(st.lists(rollouts(), min_size=2, max_size=6), st.sampled_from(LEVELS))
@settings(max_examples=200)
def test_advantages_and_masks_are_the_local_engines(group, credit):
    rows, given_ = rows_of(group, credit)
    records = [sent(one) for one in group]
    found = credited(["p"] * len(group), records, credit, len(group))
    assert found.trained == given_.trained
    for row, record, values, kept in zip(rows, records, found.advantages, found.trained, strict=True):
        assert values.tolist() == row.advantages
        mask = mask_of(record.spans, record.length)
        assert [one * kept for one in mask] == row.mask


@given(st.lists(rollouts(), min_size=3, max_size=6), st.sampled_from(LEVELS), st.data())
@settings(max_examples=100)
def test_a_failed_rollout_that_has_a_row_is_as_good_as_absent(group, credit, data):
    lost = data.draw(st.integers(0, len(group) - 1))
    records = [sent(one) for one in group]
    records[lost].rollout.failure = Failure("simulator", "gone")
    whole = credited(["p"] * len(group), records, credit, len(group))
    others = [record for i, record in enumerate(records) if i != lost]
    without = credited(["p"] * len(others), others, credit, len(group))
    assert not whole.trained[lost] and not whole.advantages[lost].any()
    kept = [values for i, values in enumerate(whole.advantages) if i != lost]
    for one, other in zip(kept, without.advantages, strict=True):
        np.testing.assert_array_equal(one, other)
    assert whole.metrics == without.metrics


def test_trajectory_level_by_hand():
    """R = (0.4 + 0.6 + 1)/2 = 1 and 0.4/2 = 0.2: mean 0.6, advantages ±0.4 on sampled tokens only."""
    good = rollout([2, 1], {(0, 0, "C0"): True, (0, 1, "C1"): True, (1, 0, "C0"): True})
    poor = rollout([2, 1], {(0, 0, "C0"): True, (0, 1, "C1"): False, (1, 0, "C0"): False})
    found = credited(["p", "p"], [sent(good), sent(poor)], Credit(), 2)
    # turn 0: 2 tokens, 2 shown, 3 tokens; turn 1: 1 shown, 3 tokens
    mask = [1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1]
    assert found.advantages[0].tolist() == pytest.approx([0.4 * one for one in mask])
    assert found.advantages[1].tolist() == pytest.approx([-0.4 * one for one in mask])
    assert found.metrics["cm2/reward/mean"] == pytest.approx(0.6)
    assert found.metrics["cm2/strict_pass/mean"] == 0.5


def test_step_rewards_stand_on_the_last_token_of_their_step_and_sum_to_the_reward():
    good = rollout([2, 1], {(0, 0, "C0"): True, (0, 1, "C1"): True, (1, 0, "C0"): True})
    record, score = sent(good), score_of(good, Credit())
    given_ = step_rewards(score, record.spans, record.length)
    assert given_ == pytest.approx([0, 0.2, 0, 0, 0, 0, 0.3, 0, 0, 0, 0.5])
    assert sum(given_) == pytest.approx(score.reward)


def test_log_probabilities_stand_where_their_tokens_do():
    record = sent(one := rollout([2], {(0, 0, "C0"): True}))
    assert logprobs_of(one.segments, record.spans, record.length) == [-0.1, -0.2, 0, 0, -0.1, -0.2, pytest.approx(-0.3)]


def test_groups_are_told_apart_by_uid_and_fillers_are_nobodys():
    good = rollout([1], {(0, 0, "C0"): True, (0, 0, "C1"): True})
    poor = rollout([1], {(0, 0, "C0"): False, (0, 0, "C1"): False})
    records = [sent(good), sent(good), sent(poor), None, sent(good)]
    found = credited(["a", "b", "a", "pad", "b"], records, Credit(), 3)
    assert found.advantages[0].any() and found.advantages[2].any()
    assert not found.advantages[1].any() and not found.advantages[4].any()
    assert not len(found.advantages[3]) and not found.trained[3]
    assert (found.metrics["cm2/rollouts"], found.metrics["cm2/failures"]) == (6, 2)
    assert found.metrics["cm2/groups_without_signal"] == 1


def test_a_record_is_small_and_holds_no_text():
    one = rollout([2, 1], {(0, 0, "C0"): True})
    one.dialogue.turns[0].steps[0].reply = "a secret of the customer" * 100
    text = encode(record_of(one))
    assert "secret" not in text and "why" not in text and "Is it?" not in text
    assert one.verdicts[0].reason == "why"  # the rollout itself is not changed


def test_a_row_of_another_agent_loop_is_refused():
    with pytest.raises(DataError, match="agent loop cm2"):
        decode("")


def test_rows_of_one_prompt_are_of_one_task():
    one = sent(rollout([1], {(0, 0, "C0"): True}))
    other = msgspec.structs.replace(one, rollout=msgspec.structs.replace(one.rollout, task="other"))
    with pytest.raises(DataError, match="different tasks"):
        credited(["p", "p"], [one, other], Credit(), 2)
