"""The airline's policy: sound in itself, decidable on real runs, and measured without looking where nobody may."""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import pytest

from cm2.assure.outcomes import Judged, Outcome, decide_outcomes
from cm2.check import Expression
from cm2.checklist import Item
from cm2.dialogue import Dialogue
from cm2.formats import read_tasks
from cm2.judge.judge import ChecksJudge
from cm2.policy import Duty, Policy, load_policy
from cm2.policy.lint import lint_policy
from cm2.verdict import WHOLE

ROOT = Path(__file__).resolve().parents[2]
POLICY = ROOT / "recipes" / "policies" / "airline.yaml"
RUNS = "taubench_airline_gpt4o.jsonl.gz"


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(POLICY)


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("airline_benchmark", ROOT / "benchmarks" / "airline.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def dialogues(rows: list[dict], folder: Path) -> list[Dialogue]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [task.dialogue for _, task in read_tasks(str(path), "openai")]


def outcomes(policy: Policy, dialogue: Dialogue) -> dict[str, Outcome]:
    checklists = policy.checklists(dialogue)
    judge = ChecksJudge()
    verdicts = [one for checklist in checklists for one in judge.judge(dialogue, checklist.turn, checklist)]
    return {one.duty: one for one in decide_outcomes(dialogue, "", checklists, verdicts)}


def test_every_duty_is_decided_by_checks_alone_and_says_where_it_comes_from(policy: Policy) -> None:
    for duty in policy.duties:
        assert isinstance(duty.check, Expression), duty.id
        assert duty.applies_when is None or isinstance(duty.applies_when, Expression), duty.id
        assert duty.note and duty.question.endswith("?") and duty.scope == "dialogue", duty.id


def test_every_duty_has_an_example_that_passes_and_one_that_fails(policy: Policy) -> None:
    for duty in policy.duties:
        wanted = {"pass", "fail"} | ({"not_applicable"} if duty.applies_when is not None else set())
        assert wanted <= {test.expect for test in duty.tests}, duty.id


def test_lint_finds_nothing_to_complain_of(policy: Policy) -> None:
    reports = lint_policy(policy).duties
    assert sum(report.run for report in reports) == sum(len(duty.tests) for duty in policy.duties)
    assert [report for report in reports if report.failures or report.warnings] == []


def test_every_example_comes_out_as_it_says(policy: Policy, tmp_path: Path) -> None:
    cases = [(duty, test) for duty in policy.duties for test in duty.tests]
    rows = [{"id": str(i), "messages": test.messages, "tools": test.tools} for i, (_, test) in enumerate(cases)]
    found = dialogues(rows, tmp_path)
    assert len(found) == len(cases)
    wrong = []
    for (duty, test), dialogue in zip(cases, found, strict=True):
        alone = Policy(name="one", duties=[msgspec.structs.replace(duty, tests=[])])
        got = outcomes(alone, dialogue)[duty.id]
        if got.result != test.expect:
            wrong.append(f"{duty.id} / {test.name}: {got.result}, not {test.expect} ({got.reason})")
    assert wrong == []


def test_a_careless_run_fails_more_critical_duties_than_a_careful_one(policy: Policy, tmp_path: Path) -> None:
    duty = policy.duty("cancelled-only-when-allowed")
    assert duty is not None
    examples = {test.expect: test for test in duty.tests}
    rows = [{"id": expect, "messages": examples[expect].messages} for expect in ("pass", "fail")]
    careful, careless = (outcomes(policy, dialogue) for dialogue in dialogues(rows, tmp_path))
    critical = [
        sum(one.result == "fail" and one.item.severity == "critical" for one in run.values())
        for run in (careful, careless)
    ]
    assert critical[1] > critical[0]


def test_nothing_of_the_measured_runs_stands_in_the_policy(shared_data: Path) -> None:
    text = POLICY.read_text(encoding="utf-8")
    with gzip.open(shared_data / RUNS, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    seen: set[str] = set()
    for row in rows:
        told = json.dumps(row["messages"][1:])
        seen |= set(
            re.findall(r"\b[a-z]+_[a-z]+_\d{4}\b|\bHAT\d{3}\b|\b(?:credit|gift)_card_\d{7}\b|certificate_\d{7}", told)
        )
        seen |= set(re.findall(r'\\"reservation_id\\": \\"([A-Z0-9]{6})\\"', told))
    assert len(seen) > 200
    assert {one for one in seen if one in text} == set()


def test_real_runs_are_scored_almost_all(shared_data: Path, policy: Policy, benchmark: ModuleType) -> None:
    found = [task.dialogue for _, task in read_tasks(str(shared_data / RUNS))]
    tuning = benchmark.tuning_tasks({dialogue.meta["task_id"] for dialogue in found})
    results = [
        one.result
        for dialogue in found
        if dialogue.meta["task_id"] in tuning
        for one in outcomes(policy, dialogue).values()
        if one.result != "not_applicable"
    ]
    assert len(results) > 1000
    assert results.count("unscored") <= 0.02 * len(results)
    assert 0.05 < results.count("fail") / len(results) < 0.5


def test_auc_counts_pairs_with_ties_as_half(benchmark: ModuleType) -> None:
    scores = np.array([3.0, 1.0, 2.0, 1.0])
    rewards = np.array([1, 1, 0, 0])
    # pairs: 3>2 1, 3>1 1, 1<2 0, 1=1 a half
    assert benchmark.auc(scores, rewards) == pytest.approx(2.5 / 4)
    assert np.isnan(benchmark.auc(scores, np.ones(4, dtype=int)))


def test_the_interval_is_over_tasks_and_holds_the_estimate(benchmark: ModuleType) -> None:
    rng = np.random.default_rng(1)
    rewards = np.tile([0, 1], 40)
    scores = rewards + rng.normal(size=80)
    apart = benchmark.auc_interval(scores, rewards, np.arange(80))
    together = benchmark.auc_interval(np.repeat(scores, 4), np.repeat(rewards, 4), np.repeat(np.arange(80), 4))
    assert apart.low < apart.value < apart.high
    assert together.value == pytest.approx(apart.value)
    assert together.high - together.low == pytest.approx(apart.high - apart.low, rel=0.15)  # copies add nothing


def test_the_split_is_half_of_the_tasks_whatever_order_they_come_in(benchmark: ModuleType) -> None:
    first = benchmark.tuning_tasks(set(range(50)))
    assert first == benchmark.tuning_tasks({49 - task for task in range(50)})
    assert len(first) == 25


def test_scores_of_a_dialogue_by_hand(benchmark: ModuleType) -> None:
    def outcome(severity: str, result: str) -> Outcome:
        item = Item(f"{severity}-{result}", "assistant.tool_calls", "?", "?", 1.0, severity=severity)  # type: ignore[arg-type]
        return Outcome("d", "", 0, WHOLE, item, result)  # type: ignore[arg-type]

    rows = [("critical", "fail"), ("major", "fail"), ("minor", "pass"), ("critical", "unscored"), ("major", "pass")]
    judged = Judged(1, Dialogue("d"), "", [outcome(*row) for row in rows])
    found = benchmark.scores_of(judged)
    assert found["penalty"] == -6
    assert found["share"] == pytest.approx(3 / 9)  # of 4 + 2 + 1 + 2 that are scored, 1 + 2 pass
    assert found["critical"] == -1 and found["any critical"] == -1
    assert found["critical first"] == pytest.approx(-(1 + 6 / 7))


def test_rewards_of_the_measuring_half_are_not_read_before_the_end(
    benchmark: ModuleType, policy: Policy, tmp_path: Path
) -> None:
    duty = policy.duty("cancelled-only-when-allowed")
    assert duty is not None
    examples = {test.expect: test.messages for test in duty.tests}
    tuning = benchmark.tuning_tasks(set(range(8)))
    path = tmp_path / "runs.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for task in range(8):
            for trial, expect in enumerate(("pass", "fail")):
                meta = {"task_id": task, "trial": trial}
                if task in tuning:  # the others have none: reading it would fail
                    meta["reward"] = float(expect == "pass")
                file.write(json.dumps({"id": f"{task}-{trial}", "messages": examples[expect], "meta": meta}) + "\n")
    small = tmp_path / "small.json"
    alone = Policy(
        name="small", duties=[Duty(id=duty.id, question=duty.question, severity="critical", check=duty.check)]
    )
    small.write_bytes(msgspec.json.encode(alone))
    told = benchmark.measure(path, small, final=False)
    assert set(told["auc"]) == {"tuning"}
    assert told["auc"]["tuning"]["critical first"].value == 1.0
    assert told["unscored"] == told["unscored_measuring"] == 0
    with pytest.raises(KeyError):
        benchmark.measure(path, small, final=True)
