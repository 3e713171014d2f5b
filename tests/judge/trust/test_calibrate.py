"""Calibration of stores by hand, of judges of known error rates, and through the command."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
import typer
from trust_builders import row, runs_of, write_rows
from typer.testing import CliRunner

from cm2.cli.calibrate import register
from cm2.errors import ConfigError, DataError
from cm2.judge.calibrate import CalibrateConfig, calibrate_file
from cm2.judge.calibration import load
from cm2.judge.pairing import opinion, whole


def run(path, labels, *stores, **settings):
    """Calibrate rows against rows."""
    names = [write_rows(path / f"run{i}.jsonl", rows) for i, rows in enumerate(stores)]
    settings = {"output": str(path / "out.json"), **settings}
    against = write_rows(path / "labels.jsonl", labels)
    return calibrate_file(CalibrateConfig(verdicts=names, against=against, **settings))


def test_counts_and_rates_by_hand(tmp_path):
    truth = [True] * 6 + [False] * 4
    said = [True] * 5 + [False] + [True] + [False] * 3
    found = run(
        tmp_path,
        [row(n, met) for n, met in enumerate(truth)],
        [row(n, met, step=0, judge="j1") for n, met in enumerate(said)],
    )
    total = found.total
    assert (total.counts.tp, total.counts.fp, total.counts.fn, total.counts.tn) == (5, 1, 1, 3)
    assert total.agreement.rate == 0.8
    assert total.base_rate == 0.6
    assert total.kappa == pytest.approx((0.8 - 0.52) / 0.48)
    assert total.pabak == pytest.approx(0.6)
    assert (total.false_yes.count, total.false_yes.n) == (1, 4)
    assert (total.false_no.count, total.false_no.n) == (1, 6)
    assert found.judge == ["j1"]
    assert total.repeat is None


def test_a_yes_at_any_step_is_a_yes_of_the_item(tmp_path):
    labels = [row(0, True), row(1, False), row(2, True), row(3, False)]
    said = {0: [False, True], 1: [True, False], 2: [False, None], 3: [False, False]}
    store = [row(n, met, step=s) for n, steps in said.items() for s, met in enumerate(steps)]
    counts = run(tmp_path, labels, store).total.counts
    assert (counts.tp, counts.fp, counts.fn, counts.tn, counts.judge_unscored) == (1, 1, 0, 1, 1)


def test_unscored_is_in_no_rate_and_kept_apart(tmp_path):
    labels = [row(0, True), row(1, None), row(2, False), row(3, True)]
    store = [row(0, None, step=0), row(1, True, step=0), row(2, False, step=0)]
    total = run(tmp_path, labels, store).total
    assert total.counts.n == 1
    assert (total.counts.judge_unscored, total.counts.truth_unscored, total.missing) == (1, 1, 1)
    assert (total.unscored.count, total.unscored.n) == (1, 2)
    assert total.false_no is None, "no scored verdict met a truth of yes"


def test_people_who_label_the_same_thing_vote_and_their_agreement_is_told(tmp_path):
    labels = [row(0, True), row(0, True), row(0, False), row(1, True), row(1, False), row(2, False), row(2, False)]
    total = run(tmp_path, labels, [row(n, True, step=0) for n in range(3)])
    assert total.total.counts.tp == 1
    assert total.total.counts.fp == 1
    assert total.total.counts.truth_unscored == 1, "one yes and one no are no answer"
    # things: (2, 1), (1, 1), (0, 2) of 7 ratings, 3 yes: differing pairs 4/2 + 2/1 = 4; by chance 2·3·4 = 24
    assert total.people == pytest.approx(1 - 6 * 4 / 24)


def test_opinions_and_whole_turns():
    assert opinion([True, False]) is None
    assert opinion([]) is None
    assert opinion([True, None, None]) is True
    assert whole([False, None, True]) is True
    assert whole([False, None]) is None
    assert whole([False]) is False


def test_labels_of_steps_compare_only_those_steps_and_step_by_step_too(tmp_path):
    labels = [row(0, False, step=1), row(0, True, step=2), row(1, False, step=0)]
    store = [row(0, True, step=0), row(0, False, step=1), row(0, True, step=2), row(1, False, step=0)]
    found = run(tmp_path, labels, store)
    assert (found.total.counts.tp, found.total.counts.tn, found.total.counts.fp) == (1, 1, 0)
    assert (found.steps.counts.tp, found.steps.counts.tn, found.steps.counts.n) == (1, 2, 3)


def test_rollouts_and_variants_are_told_apart(tmp_path):
    labels = [row(0, True, rollout="2"), row(0, False), row(0, True, variant=1)]
    store = [row(0, True, step=0, rollout="2"), row(0, False, step=0), row(0, False, step=0, variant=1)]
    counts = run(tmp_path, labels, store).total.counts
    assert (counts.tp, counts.tn, counts.fn) == (1, 1, 1)


def test_kind_and_focus_come_from_checklists_or_labels(tmp_path):
    task = {
        "id": "d0",
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
        "tools": [],
        "checklists": [
            {
                "turn": 0,
                "items": [
                    {
                        "id": "C0",
                        "focus_on": "tool.content",
                        "question": "Was it found?",
                        "pass_condition": "yes",
                        "weight": 1.0,
                        "kind": "response",
                    }
                ],
            }
        ],
    }
    tasks = write_rows(tmp_path / "tasks.jsonl", [task])
    labels = [row(0, True), row(1, True, kind="reply", focus_on="assistant.content.user_visible_reply")]
    found = run(tmp_path, labels, [row(n, True, step=0) for n in range(2)], checklists=tasks)
    assert set(found.kinds) == {"response", "reply"}
    assert set(found.focuses) == {"tool.content", "assistant.content.user_visible_reply"}
    assert not run(tmp_path, [row(0, True)], [row(0, True, step=0)]).kinds


def test_repeatability_by_hand(tmp_path):
    """Two runs over four items: alike on three."""
    labels = [row(n, True) for n in range(5)]
    first, second = [True, True, False, True, None], [True, True, False, False, True]
    found = run(tmp_path, labels, *([row(n, met, step=0) for n, met in enumerate(said)] for said in (first, second)))
    repeat = found.total.repeat
    assert repeat.items == 4, "the item that one run left unscored was not said twice"
    assert (repeat.identical.count, repeat.identical.n) == (3, 4)
    assert repeat.alpha == pytest.approx(1 - 7 * 2 / (2 * 5 * 3))


def test_a_judge_of_known_rates_is_measured_as_such(tmp_path):
    rng = np.random.default_rng(5)
    truth = (rng.random(1500) < 0.75).astype(int)
    said = runs_of(truth, 0.12, 0.03, rng, 0.3, runs=3)
    found = run(
        tmp_path,
        [row(n, bool(t)) for n, t in enumerate(truth)],
        *([row(n, bool(met), step=0) for n, met in enumerate(each)] for each in said),
    )
    total = found.total
    assert total.false_yes.low <= 0.12 <= total.false_yes.high
    assert total.false_no.low <= 0.03 <= total.false_no.high
    assert total.false_yes.effective < 0.8 * total.false_yes.n, "three runs over one item are not three items"
    assert total.vote_yes.rho_low <= 0.3 <= total.vote_yes.rho_high
    assert total.vote_yes.independent.n == 3
    assert total.vote_yes.correlated.n is None or total.vote_yes.correlated.n > 3


def test_duties_of_low_kappa_are_listed_but_not_where_the_truth_never_differs(tmp_path):
    rng = np.random.default_rng(2)
    labels, store = [], []
    for kind, n in (("coin", 0), ("good", 100), ("always", 200), ("few", 300)):
        for i in range(n, n + (100 if kind != "few" else 10)):
            truth = True if kind == "always" else i % 2 == 0
            wrong = {"coin": 0.5, "good": 0.02, "always": 0.02, "few": 0.5}[kind]
            labels.append(row(i, truth, kind=kind))
            store.append(row(i, truth != (rng.random() < wrong), step=0))
    found = run(tmp_path, labels, store)
    assert [(doubt.what, doubt.name, doubt.sure) for doubt in found.doubtful] == [("kind", "coin", True)]
    assert found.kinds["always"].kappa == 0


def test_a_doubtful_item_is_listed_with_its_question_when_its_task_has_many_rollouts(tmp_path):
    labels = [
        {"dialogue": "d", "turn": 0, "item": "C0", "met": n % 2 == 0, "rollout": str(n), "kind": "reply"}
        for n in range(30)
    ]
    store = [{**label, "met": True, "step": 0} for label in labels]
    found = run(tmp_path, labels, store)
    assert [doubt.name for doubt in found.doubtful if doubt.what == "item"] == ["d turn 0 C0"]


def test_the_votes_of_one_store_are_its_repeated_runs(tmp_path):
    """Rates are those of the majority, repeatability and vote advice those of a single judgement."""
    rng = np.random.default_rng(4)
    truth = np.zeros(400, dtype=int)
    said = runs_of(truth, 0.2, 0.0, rng, runs=5)
    store = [
        row(n, bool(said[:, n].sum() > 2), step=0, judge="vote of 5: m", votes=[bool(v) for v in said[:, n]])
        for n in range(400)
    ]
    found = run(tmp_path, [row(n, False) for n in range(400)], store)
    assert (found.runs, found.votes) == (1, 5)
    assert found.total.false_yes.rate == pytest.approx(0.058, abs=0.03)
    assert found.total.repeat.identical.rate == pytest.approx(0.8**5 + 0.2**5, abs=0.06)
    assert found.total.vote_yes.independent.n in (5, 7)
    assert found.total.vote_yes.rho < 0.1


def test_what_checks_decided_is_told_apart_from_what_a_model_did(tmp_path):
    labels = [row(n, True) for n in range(6)]
    store = [row(n, True, step=0) for n in range(4)]
    store += [row(n, s == 1 and n == 4, step=s, judge="m" if s else "skip") for n in (4, 5) for s in (0, 1)]
    found = run(tmp_path, labels, store)
    assert {name: group.counts.n for name, group in found.judges.items()} == {"checks": 4, "m": 2}
    assert found.judges["m"].false_no.rate == 0.5
    assert not run(tmp_path, labels, store[:4]).judges.get("m")


def test_saved_rates_are_read_by_kind_and_fall_back_on_all(tmp_path):
    labels = [row(n, False, kind="reply" if n < 40 else "rare") for n in range(45)]
    store = [row(n, n < 4, step=0) for n in range(45)]
    run(tmp_path, labels, store)
    found = load(tmp_path / "out.json")
    assert found.false_yes("reply").rate == 0.1
    assert found.false_yes("rare").rate == pytest.approx(4 / 45)
    assert found.false_yes("never seen").rate == pytest.approx(4 / 45)
    assert found.false_no("reply") is None
    (tmp_path / "out.json").write_text('{"version": 1}')
    with pytest.raises(DataError, match="no calibration"):
        load(tmp_path / "out.json")
    with pytest.raises(DataError, match="no such"):
        load(tmp_path / "absent.json")


def test_what_does_not_fit_is_told(tmp_path):
    with pytest.raises(DataError, match="labelled there"):
        run(tmp_path, [row(0, True)], [row(9, True, step=0)])
    with pytest.raises(DataError, match=r"labels\.jsonl:1"):
        run(tmp_path, [{"dialogue": "d"}], [row(0, True, step=0)])
    with pytest.raises(DataError, match="without a step"):
        run(tmp_path, [row(0, True)], [row(0, True)])
    with pytest.raises(ConfigError, match="inputs"):
        run(tmp_path, [row(0, True)], [row(0, True, step=0)], output=str(tmp_path / "run0.jsonl"))
    with pytest.raises(ConfigError):
        CalibrateConfig(verdicts=["a"], against="b", target=0.5)


def test_a_verdict_that_was_tried_again_counts_as_it_came_out_last(tmp_path):
    store = [row(0, None, step=0), row(1, None, step=0), row(0, True, step=0), row(1, None, step=0)]
    counts = run(tmp_path, [row(0, True), row(1, True)], store).total.counts
    assert (counts.tp, counts.judge_unscored) == (1, 1)


def test_a_torn_last_line_of_a_killed_store_is_left_out(tmp_path):
    store = tmp_path / "store.jsonl"
    write_rows(store, [row(0, True, step=0)])
    store.write_bytes(store.read_bytes() + b'{"dialogue": "d0", "tu')
    labels = write_rows(tmp_path / "labels.jsonl", [row(0, True)])
    config = CalibrateConfig(verdicts=[str(store)], against=labels, output=str(tmp_path / "out.json"))
    assert calibrate_file(config).total.counts.tp == 1


def test_command_prints_one_object_and_tables(tmp_path):
    app = typer.Typer()
    register(app)
    app.callback()(lambda: None)
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 60)
    labels = write_rows(tmp_path / "labels.jsonl", [row(n, bool(t), kind="reply") for n, t in enumerate(truth)])
    stores = [
        write_rows(tmp_path / f"s{i}.jsonl", [row(n, bool(t), step=0) for n, t in enumerate(said)])
        for i, said in enumerate(runs_of(truth, 0.3, 0.3, rng, runs=2))
    ]
    out = str(tmp_path / "cal" / "judge.json")
    arguments = ["calibrate", *stores, "--against", labels, "-o", out]
    told = CliRunner().invoke(app, [*arguments, "--json"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert found == msgspec.to_builtins(load(out))
    assert found["runs"] == 2
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments)
    assert shown.exit_code == 0
    for words in ("base rate", "kappa", "false yes", "independent"):
        assert words in shown.stdout
