"""Error rates and corrected pass rates: by hand, against literal formulas, and in simulations."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from cm2.assure.audit.case import ALL, Case, Population, Review, Said, Stratum, opinion
from cm2.assure.audit.correct import Estimate, combine, powered, ratio, rogan_gladen, share
from cm2.assure.audit.measure import Seen, measure, measure_all
from cm2.assure.audit.people import people
from cm2.checklist import Item
from cm2.judge.agreement import Confusion, exact


def test_powered_mean_by_hand():
    # n = 4, N = 10: mean f = .6, var f = .24; cov(y, f) = .5 - .75·.5 = .125
    # λ = .125 / (1.4·.24) = .37202; mean = .37202·.6 + (.75 − .37202·.5) = .78720
    # y − λf = (.628, .628, 1, 0): variance .13203; variance of the mean = λ²·.24/10 + .13203/4
    found = powered([1, 1, 1, 0], [1, 1, 0, 0], 0.6, 0.24, 10)
    lam = 0.125 / (1.4 * 0.24)
    rest = np.array([1 - lam, 1 - lam, 1, 0])
    assert found.lam == pytest.approx(lam)
    assert found.value == pytest.approx(lam * 0.6 + 0.75 - lam * 0.5) == pytest.approx(0.787202, abs=1e-6)
    assert found.variance == pytest.approx(lam**2 * 0.24 / 10 + rest.var() / 4)


def test_powered_mean_without_the_judge_is_the_plain_mean_and_with_it_the_repaired_one():
    y, f = [1, 0, 1, 1], [1, 1, 1, 0]
    assert powered(y, f, 0.5, 0.25, 100, lam=0).value == 0.75
    assert powered(y, f, 0.5, 0.25, 100, lam=1).value == pytest.approx(0.5 + (0 - 1 + 0 + 1) / 4)


@pytest.mark.parametrize(
    ("lam", "value", "low", "high"),
    [
        (0.0, 0.7, 0.41597423, 0.98402577),
        (0.5, 0.644625, 0.44527411, 0.84397589),
        (1.0, 0.58925, 0.41636247, 0.76213753),
        (None, 0.58925, 0.41636247, 0.76213753),
    ],
)
def test_powered_mean_is_what_its_authors_package_computes(lam, value, low, high):
    """ppi-python 0.2.3: ppi_mean_pointestimate and ppi_mean_ci at alpha 0.05, on 10 labels and 40 predictions."""
    y, f = [1, 0, 1, 1, 0, 1, 1, 0, 1, 1], [1, 0, 0.5, 1, 0.2, 0.9, 0.4, 0.1, 0.8, 1]
    others = np.round(np.random.default_rng(3).random(40), 2)
    found = powered(y, f, others.mean(), others.var(), 40, lam=lam)
    half = 1.959964 * math.sqrt(found.variance)
    assert (found.value, found.value - half, found.value + half) == pytest.approx((value, low, high), abs=1e-6)


def test_equal_weights_change_nothing_and_a_weight_of_two_is_two_reviews():
    y, f = [1, 0, 1, 1, 0], [1, 0, 0.5, 1, 0.2]
    plain, weighted = (powered(y, f, 0.6, 0.2, 50, w) for w in (None, [3] * 5))
    assert plain.value == pytest.approx(weighted.value) and plain.variance == pytest.approx(weighted.variance)
    twice = powered([*y, 1], [*f, 0.5], 0.6, 0.2, 50, lam=0.5)
    assert powered(y, f, 0.6, 0.2, 50, [1, 1, 2, 1, 1], lam=0.5).value == pytest.approx(twice.value)


def test_a_judge_that_tells_more_makes_the_interval_narrower():
    rng = np.random.default_rng(0)
    y = rng.random(2000) < 0.7
    good = np.where(rng.random(2000) < 0.95, y, ~y).astype(float)
    noise = rng.random(2000)
    at = slice(0, 200)
    widths = [powered(y[at], f[at], f.mean(), f.var(), 2000).variance for f in (good, noise)]
    assert widths[0] < widths[1] / 2


def test_seen_without_error_is_not_known_without_doubt():
    found, worth = share(powered([1] * 20, [1] * 20, 1.0, 0.0, 400))
    assert (found.value, worth) == (1.0, 20)
    assert found.low == pytest.approx(exact(20, 20)[0]) == pytest.approx(0.025 ** (1 / 20))


@given(st.lists(st.sampled_from([0.1, 1 / 3, 7.0]), min_size=1, max_size=40))
def test_rounding_of_weights_makes_no_certainty(weights):
    found, worth = share(powered([1] * len(weights), [1] * len(weights), 1.0, 0.0, 400, weights))
    assert found.value == 1.0 and found.low < 0.5 ** (1 / 40) and worth == pytest.approx(worth)
    assert worth <= len(weights) + 1e-9


def test_combining_two_equal_intervals_by_hand():
    found = combine([(0.5, Estimate(0.8, 0.7, 0.9)), (0.5, Estimate(0.2, 0.1, 0.4))])
    assert found.value == pytest.approx(0.5)
    assert found.low == pytest.approx(0.5 - math.hypot(0.05, 0.05))
    assert found.high == pytest.approx(0.5 + math.hypot(0.05, 0.1))
    turned = combine([(-1.0, Estimate(0.8, 0.7, 0.95)), (1.0, Estimate(1, 1, 1))])
    assert (turned.low, turned.value, turned.high) == pytest.approx((0.05, 0.2, 0.3))


def test_a_ratio_holds_its_value_and_is_open_where_the_lower_part_may_be_nothing():
    found = ratio(Estimate(0.2, 0.1, 0.3), Estimate(0.4, 0.3, 0.5))
    assert found.value == pytest.approx(0.5) and found.low < 0.5 < found.high
    assert found.low > 0.1 / 0.5 and found.high < 0.3 / 0.3
    assert ratio(Estimate(0.2, 0.1, 0.3), Estimate(0.4, 0.0, 0.5)).high == math.inf
    assert ratio(Estimate(0.0, 0.0, 0.1), Estimate(0.4, 0.3, 0.5)).low == 0


def test_rogan_gladen_by_hand():
    # p = .7, se = .9, sp = .8: (.7 + .8 − 1) / .7 = .714286
    found = rogan_gladen(0.7, 1000, 0.9, 200, 0.8, 100)
    assert found.value == pytest.approx(0.5 / 0.7)
    # Lang and Reiczigel, literally
    z = stats.norm.ppf(0.975)
    p, se, sp = (1000 * 0.7 + z * z / 2) / (1000 + z * z), (180 + 1) / 202, (80 + 1) / 102
    d = (p + sp - 1) / (se + sp - 1)
    shift = 2 * z * z * (d * se * (1 - se) / 202 - (1 - d) * sp * (1 - sp) / 102)
    error = math.sqrt(
        p * (1 - p) / (1000 + z * z) + d * d * se * (1 - se) / 202 + (1 - d) ** 2 * sp * (1 - sp) / 102
    ) / (se + sp - 1)
    assert (found.low, found.high) == pytest.approx((d + shift - z * error, d + shift + z * error))


def test_a_judge_like_a_coin_corrects_nothing():
    assert rogan_gladen(0.5, 100, 0.5, 50, 0.5, 50) is None
    assert rogan_gladen(0.5, 100, 0.3, 50, 0.6, 50) is None


def population(passed, failed, dialogues=None):
    spread = [(0, 1, failed), (1, 1, passed)] if dialogues is None else dialogues
    return Population("d", "major", Said(passed, passed, passed), Said(failed, 0, 0), spread=spread)


def seen(tp, fp, fn, tn, passed, failed):
    """Reviews of a stratified sample: each side weighs its size."""
    w, v = passed / max(1, tp + fp), failed / max(1, fn + tn)
    sides = ((True, True, tp, w), (True, False, fp, w), (False, True, fn, v), (False, False, tn, v))
    return [Seen("d", p, h, float(p), weight) for p, h, count, weight in sides for _ in range(count)]


def test_error_rates_are_weighted_back_to_the_population_by_hand():
    # 900 passes, 40 reviewed, 2 wrong: 45 false yes. 100 fails, 20 reviewed, 5 wrong: 25 false no.
    found = measure(population(900, 100), seen(38, 2, 5, 15, 900, 100))
    assert found.pass_rate.value == pytest.approx((855 + 25) / 1000)
    assert found.false_yes.value == pytest.approx(45 / (45 + 75))  # of what does not hold
    assert found.false_no.value == pytest.approx(25 / (855 + 25))
    assert found.wrong_yes.value == pytest.approx(0.05) and found.wrong_no.value == pytest.approx(0.25)
    assert found.agreement == pytest.approx(0.93)
    assert found.counts == Confusion(38, 2, 5, 15)
    chance = 0.9 * 0.88 + 0.1 * 0.12
    assert found.kappa == pytest.approx((0.93 - chance) / (1 - chance))
    # unweighted, the false yes would look like 2 / 17
    assert found.false_yes.value != pytest.approx(2 / 17)


def test_kappa_is_that_of_agreement_where_everything_is_reviewed():
    found = measure(population(60, 40), seen(50, 10, 5, 35, 60, 40))
    assert found.kappa == pytest.approx(Confusion(50, 10, 5, 35).kappa)
    assert found.kappa_low < found.kappa < found.kappa_high


@given(st.integers(1, 30), st.integers(0, 30), st.integers(0, 30), st.integers(1, 30), st.integers(1, 9))
def test_rogan_gladen_with_error_rates_of_the_same_logs_is_the_prediction_powered_rate(tp, fp, fn, tn, times):
    """Both are algebra on the same four numbers; they part where error rates come from elsewhere."""
    passed, failed = (tp + fp) * times, fn + tn
    found = measure(population(passed, failed), seen(tp, fp, fn, tn, passed, failed))
    assume(found.rates is not None and found.rates.sensitivity + found.rates.specificity > 1.001)
    assert found.rogan_gladen.value == pytest.approx(found.pass_rate.value)


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20), st.integers(0, 20), st.integers(1, 50))
def test_every_interval_holds_its_value_and_stays_a_share(tp, fp, fn, tn, times):
    passed, failed = (tp + fp) * times, (fn + tn) * times
    found = measure(population(passed, failed), seen(tp, fp, fn, tn, passed, failed))
    rates = ("false_yes", "false_no", "wrong_yes", "wrong_no", "judged_rate", "pass_rate", "rogan_gladen")
    for name in rates:
        one = getattr(found, name)
        if one is not None:
            assert -1e-9 <= one.low <= one.value + 1e-9 and one.value - 1e-9 <= one.high <= 1 + 1e-9, name


def test_a_side_that_nobody_reviewed_gives_no_rate():
    found = measure(population(900, 100), seen(38, 2, 0, 0, 900, 100))
    assert found.wrong_yes is not None
    assert (found.pass_rate, found.false_yes, found.false_no, found.kappa) == (None, None, None, None)


def test_dialogues_whose_outcomes_go_together_make_the_interval_wider():
    alone = measure(population(150, 50), seen(29, 1, 1, 9, 150, 50)).judged_rate
    blocks = measure(population(150, 50, [(0, 10, 5), (10, 10, 15)]), seen(29, 1, 1, 9, 150, 50)).judged_rate
    assert alone.value == blocks.value and blocks.high - blocks.low > 2 * (alone.high - alone.low)


ITEM = Item("i", "assistant.tool_calls", "q?", "p", 1.0)


def case(id, stratum, kind, duty="d"):
    return Case(
        id=id, stratum=stratum, dialogue=id, duty=duty, subject=duty, turn=-1, variant=0, item=ITEM, kind=kind,
        verdict=None, probability=0.1, certainty=float(kind == "pass"),
    )  # fmt: skip


def test_unscored_ties_and_what_cannot_be_told_are_in_no_rate_and_are_counted():
    strata = [
        Stratum(0, "pass", "d", "", 90, 4),
        Stratum(1, "fail", "d", "", 10, 2),
        Stratum(2, "unscored", "", "", 5, 1),
    ]
    cases = [case(n, 0, "pass") for n in range(4)] + [case(4, 1, "fail"), case(5, 1, "fail"), case(6, 2, "unscored")]
    truth = {0: "pass", 1: "cannot_tell", 2: None, 3: "not_applicable", 4: "fail", 5: "fail", 6: "pass"}
    whole = population(90, 10)
    whole.unscored = 5
    total, [duty] = measure_all(cases, strata, [whole, Population(ALL, "", whole.passed, whole.failed)], truth)
    for found in (total, duty):
        assert (found.cannot_tell, found.applies_not, found.undecided) == (1, 1, 1)
        assert found.counts == Confusion(tp=1, tn=2)
        assert found.pass_rate.value == pytest.approx(0.9)  # the one pass with a known truth stands for all 90
    assert duty.unscored == 5


def test_a_duty_with_few_reviews_borrows_no_error_rates():
    strata = [Stratum(0, "pass", "", "", 180, 40), Stratum(1, "fail", "", "", 20, 20)]
    cases = [case(n, 0, "pass", "big" if n else "small") for n in range(40)]
    cases += [case(40 + n, 1, "fail", "big" if n else "small") for n in range(20)]
    truth = {one.id: one.kind for one in cases} | {3: "fail", 45: "pass"}

    def some(name, passed, failed):
        return Population(name, "", Said(passed, passed, passed), Said(failed), spread=[(0, 1, failed), (1, 1, passed)])

    total, duties = measure_all(cases, strata, [some("small", 5, 1), some("big", 175, 19), some(ALL, 180, 20)], truth)
    small, big = duties
    assert small.rates is None and small.rogan_gladen is None and small.pass_rate is not None
    assert big.rates is not None and total.rates is not None
    rates = total.rates
    expected = (0.9 + rates.specificity - 1) / (rates.sensitivity + rates.specificity - 1)
    assert total.rogan_gladen.value == pytest.approx(min(1, expected))


WORLDS = [  # outcomes, share that holds, sensitivity, specificity, reviewed passes, reviewed fails
    (1000, 0.9, 0.98, 0.9, 40, 20),
    (600, 0.85, 0.97, 0.95, 30, 30),
    (2000, 0.95, 0.99, 0.7, 60, 40),
    (400, 0.5, 0.95, 0.8, 20, 20),
]


@pytest.mark.parametrize("world", WORLDS)
def test_nominal_95_percent_intervals_cover_the_truth(world):
    size, holds, se, sp, n_passed, n_failed = world
    rng = np.random.default_rng(7)
    yes = holds * se + (1 - holds) * (1 - sp)
    truth = {
        "pass_rate": holds,
        "rogan_gladen": holds,
        "false_yes": 1 - sp,
        "false_no": 1 - se,
        "wrong_yes": (1 - holds) * (1 - sp) / yes,
        "judged_rate": yes,
    }
    covered, asked, sums = dict.fromkeys(truth, 0), dict.fromkeys(truth, 0), []
    for _ in range(150):
        y = rng.random(size) < holds
        said = np.where(y, rng.random(size) < se, rng.random(size) >= sp)
        passed, failed = int(said.sum()), int((~said).sum())
        looked = []
        for verdict, n in ((True, n_passed), (False, n_failed)):
            at = np.flatnonzero(said == verdict)
            n = min(n, len(at))
            for i in rng.choice(at, n, replace=False):
                looked.append(Seen("d", verdict, bool(y[i]), float(verdict), len(at) / n))
        found = measure(population(passed, failed), looked)
        sums.append(found.pass_rate.value)
        for name, value in truth.items():
            one = getattr(found, name)
            if one is not None:
                asked[name] += 1
                covered[name] += one.low <= value <= one.high
    assert np.mean(sums) == pytest.approx(holds, abs=0.01)  # no bias, although the judge has one
    assert {name: covered[name] / asked[name] >= 0.9 for name in truth} == dict.fromkeys(truth, True), covered


def test_soft_votes_help_where_they_tell_something():
    rng = np.random.default_rng(1)
    errors = {"soft": [], "hard": []}
    for _ in range(80):
        chance = rng.beta(0.6, 0.3, 1000)
        y = rng.random(1000) < chance
        at = rng.choice(1000, 60, replace=False)
        soft = powered(y[at], chance[at], chance.mean(), chance.var(), 1000)
        errors["soft"].append(soft.value - y.mean())
        errors["hard"].append(y[at].mean() - y.mean())
        assert 0 < soft.lam <= 1
    assert np.std(errors["soft"]) < 0.8 * np.std(errors["hard"])


def test_people_are_compared_case_by_case_and_a_majority_is_the_truth():
    said = [("ana", 0, "pass"), ("bo", 0, "pass"), ("ana", 1, "fail"), ("bo", 1, "fail"), ("ana", 2, "pass"),
            ("bo", 2, "fail"), ("ana", 3, "fail"), ("bo", 3, "cannot_tell"), ("ana", 4, "pass")]  # fmt: skip
    found = people([Review(case=case, reviewer=name, decision=decision) for name, case, decision in said])
    assert found.reviewers == {"ana": 5, "bo": 4} and found.cases == 3
    assert found.agreement == pytest.approx(2 / 3) and found.base_rate == 0.5
    assert found.kappa == pytest.approx(Confusion(1, 1, 0, 1).kappa)
    assert opinion(["pass", "fail", "pass"]) == "pass" and opinion(["pass", "fail"]) is None
    assert opinion(["cannot_tell", "fail"]) == "fail" and opinion(["cannot_tell"]) == "cannot_tell"
