"""Labels of a stratified sample: the rates are those of the whole that it was drawn from."""

from __future__ import annotations

import pytest
from scipy import stats
from trust_builders import row, write_rows

from cm2.errors import DataError
from cm2.judge.calibrate import CalibrateConfig, calibrate_file
from cm2.judge.calibrate_weights import weights_of
from cm2.judge.pairing import Place


def calibrated(path, labels, store):
    """Calibrate rows against rows."""
    verdicts = [write_rows(path / "run.jsonl", store)]
    against = write_rows(path / "labels.jsonl", labels)
    return calibrate_file(CalibrateConfig(verdicts=verdicts, against=against, output=str(path / "out.json")))


def sample(cases):
    """(truth, said, weight) as labels and a store, a dialogue each."""
    labels = [
        row(n, truth, per=1, **({} if weight is None else {"weight": weight}))
        for n, (truth, _, weight) in enumerate(cases)
    ]
    return labels, [row(n, said, per=1, step=0) for n, (_, said, _) in enumerate(cases)]


CASES = [(False, True, 10), *[(False, False, 2)] * 3, (True, False, 1), *[(True, True, 4)] * 5]


def test_rates_kappa_and_intervals_by_hand(tmp_path):
    found = calibrated(tmp_path, *sample(CASES))
    total = found.total
    assert found.weighted
    counts = total.counts
    assert (counts.tp, counts.fp, counts.fn, counts.tn) == (5, 1, 1, 3)  # what was seen
    assert (total.false_yes.count, total.false_yes.n) == (1, 4)
    assert total.false_yes.rate == pytest.approx(10 / 16)
    assert total.false_no.rate == pytest.approx(1 / 21)
    assert total.agreement.rate == pytest.approx(26 / 37)
    assert total.base_rate == pytest.approx(21 / 37) and total.judge_yes == pytest.approx(30 / 37)
    chance = (30 * 21 + 7 * 16) / 37**2
    assert total.kappa == pytest.approx((26 / 37 - chance) / (1 - chance))
    assert total.pabak == pytest.approx(2 * 26 / 37 - 1)
    # Σ (k − share·m)² = 18.75 over 4 dialogues: variance 4/3 · 18.75 / 16², 1.25 times that of 4 plain cases, so they
    # would say as much as 3.2; Kish's 2.29 are fewer.
    kish = 16**2 / (10**2 + 3 * 2**2)
    assert total.false_yes.effective == pytest.approx(kish)
    low = stats.beta.ppf(0.025, 0.625 * kish, 0.375 * kish + 1)
    assert total.false_yes.low == pytest.approx(low)


def test_a_sample_drawn_by_what_the_judge_said_gives_the_rates_of_the_whole(tmp_path):
    """Of 1,000: 800 yes, 40 of them wrong, and 200 no, 60 of them wrong. All no and every eighth yes are labelled."""
    drawn = [(False, True, 8)] * 5 + [(True, True, 8)] * 95 + [(True, False, 1)] * 60 + [(False, False, 1)] * 140
    total = calibrated(tmp_path, *sample(drawn)).total
    assert total.false_yes.rate == pytest.approx(40 / 180)
    assert total.false_no.rate == pytest.approx(60 / 820)
    assert total.base_rate == pytest.approx(0.82)
    plain = calibrated(tmp_path, *sample([(truth, said, None) for truth, said, _ in drawn])).total
    assert plain.false_yes.rate == pytest.approx(5 / 145)  # a fifth of what it is


def test_equal_weights_are_no_weights(tmp_path):
    plain = calibrated(tmp_path, *sample([(truth, said, None) for truth, said, _ in CASES]))
    alike = calibrated(tmp_path, *sample([(truth, said, 3.5) for truth, said, _ in CASES]))
    assert alike == plain and not alike.weighted


def test_verdicts_of_one_dialogue_count_for_less_with_weights_too(tmp_path):
    """Two dialogues, one all wrong and one all right: ten labels say no more than two."""
    labels = [row(n, False, per=5, weight=1 + n % 2) for n in range(10)]
    store = [row(n, n < 5, per=5, step=0) for n in range(10)]
    found = calibrated(tmp_path, labels, store).total.false_yes
    assert found.rate == pytest.approx(7 / 15) and found.effective < 2.1


def test_unscored_shares_and_steps_are_weighed(tmp_path):
    labels = [row(0, True, step=0, weight=3), row(1, True, step=0, weight=1)]
    store = [row(0, None, step=0), row(1, True, step=0)]
    found = calibrated(tmp_path, labels, store)
    assert found.total.unscored.rate == pytest.approx(3 / 4) and found.steps.unscored.rate == pytest.approx(3 / 4)
    assert found.total.false_yes is None and found.total.false_no.rate == 0


def test_several_people_are_one_case_with_one_weight(tmp_path):
    path = write_rows(tmp_path / "l.jsonl", [row(0, True, weight=2), row(0, False, weight=2), row(1, True)])
    assert weights_of(path) == {Place("d0", "", 0, 0, "C0"): 2.0}


@pytest.mark.parametrize("weight", [0, -1, True, "2", float("inf")])
def test_a_weight_that_is_none_is_refused_with_its_line(tmp_path, weight):
    with pytest.raises(DataError, match=r"labels.jsonl.*no number above 0"):
        calibrated(tmp_path, [row(0, True, weight=1.0), row(1, True, weight=weight)], [row(0, True, step=0)])
