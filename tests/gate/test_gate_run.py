"""The gate on files of runs: what stops a change, what leaves it undecided, and what does neither."""

import json

import msgspec
import pytest

from cm2.assure.gate import run_gate
from cm2.assure.gate_case import write_result
from cm2.check import Called
from cm2.checklist import Checklist, Item, Task
from cm2.errors import ConfigError, DataError
from cm2.judge import ChecksJudge
from cm2.judge.run import JudgeConfig, judge_file
from cm2.llm import ProviderError
from cm2.rollout.trace import Failure, Rollout, encode
from cm2.verdict import Verdict, unscored
from gate.gate_builders import POLICY, gate, policy, run, states, statuses, suite, write


def runs(good, bad=0, **bad_fields):
    bad_fields = bad_fields or {"verified": False}
    return [run(f"good-{i}") for i in range(good)] + [run(f"bad-{i}", **bad_fields) for i in range(bad)]


def test_a_gate_passes_where_nothing_fails(tmp_path):
    result = gate(tmp_path, runs(3))
    assert (result.state, result.exit_code, result.dialogues, result.runs) == ("passed", 0, 3, 3)
    assert {rate.name: (rate.passed, rate.rate) for rate in result.duties} == {
        "identity-first": (3, 1.0),
        "states-amount": (3, 1.0),
    }


def test_one_failing_critical_duty_stops_it_and_names_place_and_owner(tmp_path):
    result = gate(tmp_path, runs(3, 1))
    (rule,) = result.ruled("failed")
    assert result.exit_code == 1 and rule.name == "critical: max_fails" and rule.owner == "@shop/identity"
    assert "identity-first in bad-0" in rule.message
    (case,) = result.with_status("failed")
    assert (case.dialogue, case.line, case.turn, case.question) == (
        "bad-0",
        4,
        -1,
        "Is the identity verified before a refund?",
    )
    assert case.reason


def test_a_major_duty_fails_freely_until_a_threshold_says_how_often(tmp_path):
    bad = runs(8, 2, stated=False)
    result = gate(tmp_path, bad)
    assert result.state == "passed" and any("nothing is asked of major" in note for note in result.notes)
    assert gate(tmp_path, bad, thresholds={"major": {"min_pass_rate": 0.8}}).state == "passed"
    result = gate(tmp_path, bad, thresholds={"major": {"min_pass_rate": 0.81}})
    assert states(result)["major: min_pass_rate"] == "failed"
    assert "80.0% pass, at least 81.0% must" in result.ruled("failed")[0].message
    assert gate(tmp_path, bad, thresholds={"major": {"max_fails": 2}}).state == "passed"
    assert gate(tmp_path, bad, thresholds={"major": {"max_fails": 1}}).state == "failed"
    result = gate(tmp_path, bad, duties={"states-amount": {"max_fails": 1}})
    assert states(result)["states-amount: max_fails"] == "failed"


def test_with_confidence_a_rate_fails_only_where_it_is_not_chance(tmp_path):
    """Wilson's interval of 8 of 10 ends at 0.943."""
    for least, state in ((0.94, "passed"), (0.95, "failed")):
        result = gate(
            tmp_path, runs(8, 2, stated=False), confidence=0.95, thresholds={"major": {"min_pass_rate": least}}
        )
        assert result.state == state, least
    narrow = gate(tmp_path, runs(8, 2, stated=False), confidence=0.5, thresholds={"major": {"min_pass_rate": 0.9}})
    assert narrow.state == "failed"


def test_a_duty_without_occasion_neither_passes_nor_fails(tmp_path):
    result = gate(tmp_path, [run("a"), run("b", verified=False, refund=False)])
    assert statuses(result, "identity-first") == {"a": "passed", "b": "not_applicable"}
    assert result.state == "passed" and result.duties[0].cases == 1


class Broken(ChecksJudge):
    """A judge whose provider does not answer about some dialogues."""

    def __init__(self, *lost):
        self.lost = lost

    async def judge_async(self, dialogue, turn, checklist, since=0, known=(), again=0):
        if dialogue.id in self.lost:
            return [
                Verdict(dialogue.id, turn, -1, item.id, None, reason=unscored("timeout"), owner="provider")
                for item in checklist.items
            ]
        return self.judge(dialogue, turn, checklist, since)


class Refused(ChecksJudge):
    """A judge whose key is refused."""

    async def judge_async(self, dialogue, turn, checklist, since=0, known=(), again=0):
        raise ProviderError("no such key", status=401)


def test_a_provider_that_fails_leaves_the_gate_undecided_and_never_blames_the_agent(tmp_path):
    result = gate(tmp_path, runs(3, 0), judge=Broken("good-1"))
    assert (result.state, result.exit_code) == ("undecided", 1) and not result.with_status("failed")
    assert statuses(result, "identity-first")["good-1"] == "unscored"
    assert "provider 2" in result.ruled("undecided")[0].message
    assert result.duties[0].rate == 1.0


def test_unscored_runs_within_what_is_allowed_do_not_matter(tmp_path):
    allowed = {"max_unscored": 0.4, "thresholds": {"critical": {"max_unscored": 0.4}}}
    assert gate(tmp_path, runs(3, 0), judge=Broken("good-1"), **allowed).state == "passed"


def test_a_failure_wins_over_what_is_undecided(tmp_path):
    assert gate(tmp_path, runs(3, 1), judge=Broken("good-1")).state == "failed"


def test_a_judge_that_is_refused_for_good_is_asked_no_more(tmp_path):
    result = gate(tmp_path, runs(3, 1), judge=Refused(), concurrency=1)
    assert result.state == "undecided" and not result.with_status("failed", "passed")
    assert sum("asked no more" in note for note in result.notes) == 1


def test_duties_that_checks_cannot_decide_are_told_and_critical_ones_leave_it_undecided(tmp_path):
    result = gate(tmp_path, runs(2), policy=policy(tmp_path, "minor"))
    assert result.state == "passed" and set(statuses(result, "polite").values()) == {"not_judged"}
    assert any("no check and were not judged: polite" in note for note in result.notes)
    result = gate(tmp_path, runs(2), policy=policy(tmp_path, "critical"))
    assert states(result)["critical: judged"] == "undecided"


def test_a_gate_that_judged_nothing_is_undecided(tmp_path):
    result = gate(tmp_path, [run("a", refund=False)])
    assert states(result)["judged"] == "undecided"


def item(id="C0", tool="refund", **fields):
    return Item(id, "assistant.tool_calls", "Is it refunded?", "yes", 1.0, check=Called(tool), kind="call", **fields)


def test_a_task_that_was_never_run_is_unscored(tmp_path):
    tasks = [Task(run(id), [Checklist(0, [item()])]) for id in "ab"]
    result = gate(tmp_path, [run("a")], policy=None, tasks=write(tmp_path / "t.jsonl", tasks))
    assert statuses(result, "call refund") == {"a": "passed", "b": "unscored"}
    assert result.state == "undecided" and result.lost == 1
    with pytest.raises(DataError, match="none of its dialogues is one of"):
        gate(tmp_path, [run("c")], policy=None, tasks=str(tmp_path / "t.jsonl"))


def test_checklists_on_the_rows_of_other_dialogues_and_a_policy_go_together(tmp_path):
    rows = [Task(run("a"), [Checklist(-1, [item(severity="critical")])])]
    result = gate(tmp_path, rows, policy=policy(tmp_path))
    assert {case.duty for case in result.cases} == {"C0", "identity-first", "states-amount"}
    with pytest.raises(DataError, match="no dialogue has a checklist"):
        gate(tmp_path, [run("a")], policy=None)


def test_a_run_counts_once_by_its_worst_turn(tmp_path):
    dialogue = run("a")
    dialogue.turns.append(run("b", refund=False).turns[0])
    lists = [Checklist(0, [item()]), Checklist(1, [item()])]
    result = gate(tmp_path, [Task(dialogue, lists)], policy=None)
    (case,) = result.cases
    assert (case.passed, case.failed, case.status, case.turn) == (0, 1, "failed", 1)


def test_a_name_that_is_no_duty_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"`duties` names 'first', which is no duty.*identity-first"):
        gate(tmp_path, runs(1), duties={"first": {"max_fails": 0}})
    with pytest.raises(ConfigError, match="`owners` names"):
        gate(tmp_path, runs(1), owners={"first": "@x"})


def test_owners_of_the_suite_take_the_place_of_those_of_the_policy(tmp_path):
    result = gate(tmp_path, runs(1), owner="@all", owners={"states-amount": "@money"})
    assert {rate.name: rate.owner for rate in result.duties} == {
        "identity-first": "@shop/identity",
        "states-amount": "@money",
    }


# --- runs of one task ------------------------------------------------------------------------------------------------


def test_runs_that_share_an_id_or_a_task_are_runs_of_one_case(tmp_path):
    result = gate(tmp_path, [run("a"), run("a", stated=False), run("a")])
    case = next(case for case in result.cases if case.duty == "states-amount")
    assert (case.passed, case.failed, case.run, case.line) == (2, 1, "2", 2)
    assert result.flakiness.repeated == 2 and result.flakiness.flaky == 1
    named = [run(f"r{i}", task=1, stated=i > 0) for i in range(3)]
    result = gate(tmp_path, named, runs_of="task")
    assert [(case.dialogue, case.passed, case.failed) for case in result.cases] == [("1", 3, 0), ("1", 2, 1)]
    with pytest.raises(DataError, match=r"no 'trial' that names its task.*task"):
        gate(tmp_path, named, runs_of="trial")


def test_a_flaky_critical_case_fails_unless_it_is_known(tmp_path):
    mixed = [run("a"), run("a", verified=False), run("a")]
    first = gate(tmp_path, mixed)
    assert statuses(first, "identity-first") == {"a": "failed"} and first.state == "failed"
    write_result(first, str(tmp_path / "base.json"))
    again = gate(tmp_path, mixed, baseline=str(tmp_path / "base.json"))
    assert statuses(again, "identity-first") == {"a": "flaky"} and again.state == "passed"
    assert again.flakiness.known == 1 and list(again.flakiness.repeats) == ["a: identity-first"]
    strict = gate(tmp_path, mixed, baseline=str(tmp_path / "base.json"), thresholds={"critical": {"flaky": "none"}})
    assert strict.state == "failed"


def test_a_history_sharpens_what_is_known(tmp_path):
    """Passing and failing under one version; then nothing but failures: 0 of 6 against 8 of 10 is p 0.0035."""
    history = str(tmp_path / "history.jsonl")
    for _ in range(5):
        gate(tmp_path, [run("a"), run("a", stated=_ > 1)], history=history, version="v1")
    assert (tmp_path / "history.jsonl").read_text().count("\n") == 5
    once = gate(tmp_path, [run("a", stated=False)], history=history, version="v2")
    case = next(case for case in once.cases if case.duty == "states-amount")
    assert (case.status, case.record_passed, case.record_failed) == ("flaky", 8, 2)
    result = gate(tmp_path, [run("a", stated=False)] * 6, history=history, version="v3", thresholds={})
    case = next(case for case in result.cases if case.duty == "states-amount")
    assert case.worse and case.status == "failed" and states(result)["flaky: worse"] == "failed"


# --- the baseline ----------------------------------------------------------------------------------------------------


def base(folder, dialogues, **fields):
    write_result(gate(folder, dialogues, **fields), str(folder / "base.json"))
    return str(folder / "base.json")


def test_a_duty_that_fell_significantly_stops_it(tmp_path):
    """Two duties: McNemar's p of 6 lost cases is 1/64, times 2 is 0.031; of 5 it is 0.0625."""
    baseline = base(tmp_path, [run(f"r{i}") for i in range(10)])
    for lost, state in ((5, "passed"), (6, "failed")):
        now = [run(f"r{i}", stated=i >= lost) for i in range(10)]
        result = gate(tmp_path, now, baseline=baseline)
        assert states(result)["states-amount: baseline"] == state
    rate = next(rate for rate in result.duties if rate.name == "states-amount")
    assert (rate.before, rate.rate, rate.paired) == (1.0, 0.4, 10) and rate.p == pytest.approx(2 / 64)


def test_a_newly_failing_critical_case_stops_it_and_one_that_failed_before_does_not(tmp_path):
    allowed = {"thresholds": {"critical": {"max_fails": 9}}}
    baseline = base(tmp_path, [run("a"), run("b", verified=False)], **allowed)
    same = gate(tmp_path, [run("a"), run("b", verified=False)], baseline=baseline, **allowed)
    assert same.state == "passed"
    worse = gate(tmp_path, [run("a", verified=False), run("b")], baseline=baseline, **allowed)
    assert states(worse)["critical: newly failing"] == "failed"
    assert [case.dialogue for case in worse.cases if case.new] == ["a"]


def test_a_duty_that_was_rewritten_is_not_compared(tmp_path):
    baseline = base(tmp_path, [run(f"r{i}") for i in range(6)])
    text = POLICY.replace("any_of: [20]", "any_of: [20.0, 21]")
    result = gate(
        tmp_path, [run(f"r{i}", stated=False) for i in range(6)], baseline=baseline, policy=policy(tmp_path, text=text)
    )
    assert "states-amount: baseline" not in states(result) and states(result)["identity-first: baseline"] == "passed"
    assert any("6 cases whose duty was changed" in note for note in result.notes)


def test_a_missing_baseline_is_told(tmp_path):
    with pytest.raises(DataError, match=r"there is no such baseline.*cm2 gate SUITE -o"):
        gate(tmp_path, runs(1), baseline=str(tmp_path / "absent.json"))


# --- other sources ---------------------------------------------------------------------------------------------------


def test_verdicts_that_are_there_are_not_made_again(tmp_path):
    lists = [Checklist(0, [item(severity="critical")])]
    source = write(tmp_path / "runs.jsonl", [Task(run("a"), lists), Task(run("b", refund=False), lists)])
    judge_file(JudgeConfig(source, str(tmp_path / "v.jsonl")))
    result = run_gate(suite(tmp_path, None, policy=None, dialogues=source, verdicts=str(tmp_path / "v.jsonl")))
    assert statuses(result, "C0") == {"a": "passed", "b": "failed"} and result.state == "failed"


def test_a_store_of_rollouts_is_read_and_its_lost_ones_are_unscored(tmp_path):
    path = tmp_path / "rollouts.jsonl"
    lost = Rollout("a", run("a"), member=1, failure=Failure("provider", "503"))
    lost.dialogue.turns = []
    path.write_bytes(b"".join(encode(one) + b"\n" for one in (Rollout("a", run("a")), lost)))
    result = run_gate(suite(tmp_path, None, dialogues=str(path)))
    cases = {case.duty: (case.passed, case.failed, case.unscored, case.unscored_by) for case in result.cases}
    assert cases == {"identity-first": (1, 0, 1, "provider"), "states-amount": (1, 0, 1, "provider")}
    assert result.state == "undecided" and (result.runs, result.lost) == (1, 1)


def test_rows_that_do_not_read_are_told_and_stop_nothing(tmp_path):
    asked = suite(tmp_path, runs(2))
    with open(asked.dialogues, "a") as file:
        file.write("not json\n")
    result = run_gate(asked)
    assert result.unreadable == 1 and result.state == "passed" and any("line 3" in note for note in result.notes)


def test_secrets_in_a_reason_are_not_written(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOP_API_KEY", "a-very-secret-value-1234")

    class Quoting(ChecksJudge):
        def judge(self, dialogue, turn, checklist, since=0):
            said = super().judge(dialogue, turn, checklist, since)
            return [msgspec.structs.replace(one, reason="it said a-very-secret-value-1234") for one in said]

    result = gate(tmp_path, runs(0, 1), judge=Quoting())
    assert "[hidden]" in result.with_status("failed")[0].reason
    assert "very-secret" not in json.dumps(msgspec.to_builtins(result))


def test_an_order_of_runs_does_not_matter(tmp_path):
    one = gate(tmp_path, [run("a"), run("b", verified=False), run("c", stated=False)])
    other = gate(tmp_path, [run("c", stated=False), run("b", verified=False), run("a")])
    told = [[(case.key, case.status, case.definition, case.reason) for case in result.cases] for result in (one, other)]
    assert told[0] == told[1]
