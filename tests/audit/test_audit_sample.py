"""What is drawn, with which probability, and what it stands for."""

import json
from collections import Counter

import pytest
from audits import audit, logs, verdicts

from cm2.assure.audit import SampleConfig, draw
from cm2.assure.audit.book import Book
from cm2.assure.audit.doubt import certainty, level
from cm2.assure.outcomes import Outcome
from cm2.checklist import Checklist, Item
from cm2.dialogue import Dialogue
from cm2.errors import ConfigError, DataError
from cm2.judge.cascade import _verdicts
from cm2.judge.classifier import Guess
from cm2.verdict import Verdict

ITEM = Item("C0", "assistant.tool_calls", "q?", "p", 1.0)


def outcome(result="pass", **verdict) -> Outcome:
    return Outcome("d", "", 0, 0, ITEM, result, Verdict("d", 0, 0, "C0", result == "pass", **verdict))


@pytest.mark.parametrize(
    ("verdict", "expected", "yes"),
    [
        ({}, "checked", 1.0),
        ({"judge": "m"}, "alone", 1.0),
        ({"judge": "m", "votes": [True, True, True]}, "agreed", 1.0),
        ({"judge": "m", "votes": [True, None, True]}, "agreed", 1.0),
        ({"judge": "m", "votes": [True, False, True]}, "split", 2 / 3),
    ],
)
def test_the_judges_doubt_is_read_from_its_verdict(verdict, expected, yes):
    assert (level(outcome(**verdict)), certainty(outcome(**verdict))) == (expected, pytest.approx(yes))


def test_a_local_models_confidence_is_read_as_it_writes_it():
    [said] = _verdicts(Dialogue("d"), 0, Checklist(0, [ITEM]), ITEM, Guess((False,), 0.973, True))
    found = Outcome("d", "", 0, 0, ITEM, "fail", said)
    assert level(found) == "agreed" and certainty(found) == pytest.approx(0.027)


def drawn(folder, seed=0, **settings):
    return draw(SampleConfig(**logs(folder), **{"count": 40, "seed": seed} | settings))


def test_the_same_seed_draws_the_same_cases_and_another_others(tmp_path):
    key = [(case.dialogue, case.duty) for case in drawn(tmp_path).cases]
    assert key == [(case.dialogue, case.duty) for case in drawn(tmp_path).cases]
    assert key != [(case.dialogue, case.duty) for case in drawn(tmp_path, seed=1).cases]


def test_no_outcome_is_drawn_twice_and_all_are_what_the_stratum_says(tmp_path):
    sample = drawn(tmp_path, unscored=3, not_applicable=2)
    assert len({(case.dialogue, case.duty) for case in sample.cases}) == len(sample.cases) == 40
    by_stratum = Counter(case.stratum for case in sample.cases)
    for stratum in sample.strata:
        assert by_stratum[stratum.id] == stratum.drawn
        mine = [case for case in sample.cases if case.stratum == stratum.id]
        assert {case.kind for case in mine} == {stratum.verdict}
        assert all(case.probability == stratum.drawn / stratum.size for case in mine)
    assert Counter(case.kind for case in sample.cases)["unscored"] == 3
    assert Counter(case.kind for case in sample.cases)["not_applicable"] == 2


def test_populations_count_every_outcome_once(tmp_path):
    sample = drawn(tmp_path)
    found = {one.duty: one for one in sample.populations}
    every = [one for n in range(60) for one in verdicts(n)]
    for duty in ("identity-first", "confirm-before-refund", "polite"):
        mine = [one for one in every if one["item"] == duty]
        assert found[duty].passed.size == sum(one["met"] is True for one in mine)
        assert found[duty].failed.size == sum(one["met"] is False for one in mine)
        assert found[duty].not_applicable == sum(one.get("applies") is False for one in mine)
    assert found[""].passed.size == sum(one["met"] is True for one in every)
    assert found["identity-first"].spread == [(0, 1, 12), (1, 1, 48)]
    assert found["confirm-before-refund"].severity == "major"


def test_weights_sum_to_the_strata_exactly_and_to_any_part_without_bias(tmp_path):
    """Σ 1/π over the cases of a part estimates its size: here duties whose strata are shared."""
    config = logs(tmp_path)
    sums: Counter[tuple[str, str]] = Counter()
    draws = 300
    truth: Counter[tuple[str, str]] = Counter()
    sample = None
    for seed in range(draws):
        sample = draw(SampleConfig(**config, count=10, seed=seed))
        total = sum(1 / case.probability for case in sample.cases)
        assert total == pytest.approx(sum(one.size for one in sample.strata))
        for case in sample.cases:
            sums[case.duty, case.kind] += 1 / case.probability
    assert any(not one.duty for one in sample.strata)  # some share a stratum, or the test would show nothing
    for one in sample.populations:
        truth[one.duty, "pass"], truth[one.duty, "fail"] = one.passed.size, one.failed.size
    for key, size in truth.items():
        if key[0]:
            assert sums[key] / draws == pytest.approx(size, rel=0.12, abs=1.5), key


def test_the_queue_is_in_random_order_so_that_its_beginning_is_a_sample_too(tmp_path):
    kinds = [case.kind for case in drawn(tmp_path, count=60).cases]
    assert {"pass", "fail"} <= set(kinds[:20])
    assert [case.id for case in drawn(tmp_path).cases] == list(range(40))


def test_a_share_of_cases_wants_two_people(tmp_path):
    assert sum(case.wanted == 2 for case in drawn(tmp_path, double=0.25).cases) == 10


def test_secrets_and_what_a_database_refuses_do_not_get_in(tmp_path):
    place = audit(tmp_path, reply="key sk-proj-ABCDEFGHIJKLMNOP0123456789 \x00 \ud800")
    with Book(place) as book:
        text = json.dumps([json.dumps(book.dialogue(case.dialogue).turns[0].steps[-1].reply) for case in book.cases()])
    assert "ABCDEFGHIJ" not in text and "\\u0000" not in text
    assert oct((tmp_path / "audit.sqlite").stat().st_mode)[-3:] == "600"


def test_an_audit_is_never_overwritten_and_nothing_is_left_beside_it(tmp_path):
    audit(tmp_path)
    before = (tmp_path / "audit.sqlite").read_bytes()
    with pytest.raises(ConfigError, match="never overwritten"):
        audit(tmp_path)
    assert (tmp_path / "audit.sqlite").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "audit.sqlite",
        "logs.jsonl",
        "policy.yaml",
        "verdicts.jsonl",
    ]


def test_verdicts_of_other_dialogues_are_told(tmp_path):
    files = logs(tmp_path)
    (tmp_path / "verdicts.jsonl").write_text('{"dialogue":"other","turn":-1,"step":-1,"item":"polite","met":true}\n')
    with pytest.raises(DataError, match="about a duty of the dialogues"):
        draw(SampleConfig(**files))


def test_settings_that_make_no_sample_are_refused():
    for wrong in ({"count": 3}, {"count": 10, "unscored": 7}, {"double": 2.0}, {"checklists": "x", "policy": "y"}):
        with pytest.raises(ConfigError):
            SampleConfig(logs="a", verdicts="b", **wrong)
