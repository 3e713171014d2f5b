"""The regression suite's benchmark: its statistics by hand, its variants, and what it says of real runs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from cm2.label.effects import label_effects
from cm2.verdict import WHOLE
from cm2.worlds import MakeConfig

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def bench():
    """The benchmark as a module."""
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    spec = importlib.util.spec_from_file_location("regression_suite", FOLDER / "regression_suite.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["regression_suite"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "scores, passed, expected",
    [
        ([1, 0], [True, False], 1.0),
        ([0, 1], [True, False], 0.0),
        ([1, 1], [True, False], 0.5),
        ([0.9, 0.4, 0.4, 0.1], [True, True, False, False], 3.5 / 4),
        ([1, 2], [True, True], float("nan")),
    ],
)
def test_auc_is_the_share_of_pairs_in_order_ties_half(bench, scores, passed, expected):
    found = bench.auc(np.array(scores, float), np.array(passed))
    assert found == pytest.approx(expected, nan_ok=True)


def test_the_halves_split_the_tasks(bench):
    tasks = [str(n) for n in range(50)]
    tune, measure = ([task for task in tasks if bench.in_half(task, half)] for half in ("tune", "measure"))
    assert sorted([*tune, *measure]) == sorted(tasks) and set(tune).isdisjoint(measure) and len(tune) == 17


def test_variants_of_worlds_come_out_as_the_world_says(bench):
    import variants

    made = list(variants.variants_of(MakeConfig(count=6, seed=3), seed=3))
    by_kind: dict[str, list[bool]] = {}
    for _, _, passed, _, kind in made:
        by_kind.setdefault(kind, []).append(passed)
    for kind in ("reference", "other words", "repeated look-up", "failed try first"):
        assert all(by_kind[kind])
    for kind in ("dropped write", "only says it is done"):
        assert not any(by_kind[kind])


def test_a_frozen_reference_passes_itself_and_fails_where_a_write_is_missing(bench):
    runs = bench.world_runs(4, 5, "heldout")
    frozen = {run.task: label_effects(run.dialogue).checklists[0] for run in runs if run.kind == "reference"}
    assert all(checklist.turn == WHOLE for checklist in frozen.values())
    for run in runs:
        failed = {each.item.id for each in bench.judged(run.dialogue, frozen[run.task]) if each.result == "fail"}
        if run.kind == "reference":
            assert not failed
        if run.kind == "dropped write":
            assert "outcome" in failed


def test_frozen_runs_of_a_real_agent_order_the_others_as_well_as_gold_actions_do(bench, shared_data):
    """On the half of the tasks that the method was written on; the other half is for `--half measure`."""
    runs = bench.read_runs(str(shared_data / "taubench_airline_gpt4o.jsonl.gz"), "tune", "task_id", "reward")
    pairs = list(bench.pairs_of(runs))
    assert (len(runs), len(pairs), sum(pair.passed for pair in pairs)) == (68, 81, 48)

    def area(name: str) -> float:
        return bench.auc(np.array([p.scores[name] for p in pairs]), np.array([p.passed for p in pairs]))

    assert area("suite") >= area("gold writes") - 0.03
    assert area("suite, outcome item") >= area("same writes") > area("fewer writes")
