"""Freezing: a failure or a run that went well becomes a case that later versions are held to."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from cm2.assure.freeze import FreezeConfig, freeze
from cm2.assure.gate import run_gate
from cm2.assure.suite import load_suite
from cm2.errors import ConfigError, DataError
from cm2.formats import read_tasks
from cm2.judge import ChecksJudge
from cm2.policy import load_policy
from gate.gate_builders import policy, run, statuses, write
from gate.test_gate_endpoint import agent
from servers.openai_server import OpenAIServer, says


@pytest.fixture
def judged(tmp_path):
    """Runs, of which `bad` fails two duties, with their policy and verdicts."""
    dialogues = [run("good"), run("bad", verified=False, stated=False), run("bad", stated=False)]
    source, rules = write(tmp_path / "runs.jsonl", dialogues), policy(tmp_path)
    with open(tmp_path / "v.jsonl", "w") as file:
        seen = {}
        for dialogue in dialogues:
            seen[dialogue.id] = seen.get(dialogue.id, 0) + 1
            for checklist in load_policy(rules).checklists(dialogue):
                for verdict in ChecksJudge().judge(dialogue, checklist.turn, checklist):
                    verdict.rollout = str(seen[dialogue.id]) if seen[dialogue.id] > 1 else ""

                    file.write(msgspec.json.encode(verdict).decode() + "\n")
    return {"dialogues": source, "policy": rules, "verdicts": str(tmp_path / "v.jsonl"), "output": str(tmp_path / "s")}


def rows(folder):
    return [task for _, task in read_tasks(f"{folder}/tasks.jsonl")]


def test_a_failure_is_frozen_with_its_duty_and_who_wanted_it(judged):
    put = freeze(FreezeConfig(**judged, dialogue="bad", duty="identity-first", reason="INC-1", by="Ada")).put
    assert (put.task, put.items, put.tasks, put.suite_written) == ("bad", ["identity-first"], 1, True)
    (task,) = rows(judged["output"])
    assert task.dialogue.turns[0].user == "Refund order 7, I am Ada." and task.dialogue.system == "Be kind."
    assert [tool.name for tool in task.dialogue.tools] == ["verify", "refund"]
    assert task.dialogue.turns[0].steps[0].responses[0].content == '{"refunded": 20}'
    (checklist,) = task.checklists
    assert (checklist.turn, [item.id for item in checklist.items]) == (-1, ["identity-first"])
    frozen = task.dialogue.meta["frozen"]
    (line,) = frozen["duties"]
    assert frozen["kind"] == "failure" and line["by"] == "Ada" and line["reason"] == "INC-1"
    assert line["duty"] == "identity-first" and line["source"] == "runs.jsonl" and line["verdict"] and line["at"]


def test_the_frozen_case_stops_an_agent_that_fails_like_that_and_lets_a_better_one_pass(judged):
    freeze(FreezeConfig(**judged, dialogue="bad", duty="identity-first"))
    for script, state in ((agent(verified=False), "failed"), (agent(), "passed")):
        with OpenAIServer(script) as server:
            suite = load_suite(f"{judged['output']}/suite.yaml", {"base_url": server.url, "model": "m"})
            result = run_gate(suite)
        assert result.state == state and statuses(result, "identity-first") == {"bad": state}


def test_an_agent_that_leaves_the_record_gets_simulated_answers(judged):
    """The record has no call of `verify`: the better agent's is answered all the same."""
    freeze(FreezeConfig(**judged, dialogue="bad", duty="identity-first"))
    kept = []
    with OpenAIServer(agent()) as server:
        suite = load_suite(f"{judged['output']}/suite.yaml", {"base_url": server.url, "model": "m"})
        run_gate(suite, keep=kept.append)
    answers = {one.name: one.origin for step in kept[0].dialogue.turns[0].steps for one in step.responses}
    assert answers == {"verify": "simulated", "refund": "replayed"}


def test_freezing_again_changes_nothing_and_another_duty_is_added(judged):
    config = FreezeConfig(**judged, dialogue="bad", duty="identity-first")
    freeze(config)
    path = f"{judged['output']}/tasks.jsonl"
    before = Path(path).read_bytes()
    again = freeze(config).put
    assert not again.written and again.items == [] and Path(path).read_bytes() == before
    config.duty = "states-amount"
    assert freeze(config).put.items == ["states-amount"]
    (task,) = rows(judged["output"])
    assert [item.id for item in task.checklists[0].items] == ["identity-first", "states-amount"]
    assert sum(item.weight for item in task.checklists[0].items) == pytest.approx(1)
    assert [line["duty"] for line in task.dialogue.meta["frozen"]["duties"]] == ["identity-first", "states-amount"]


def test_other_lines_keep_their_bytes_and_a_suite_that_was_edited_stays(judged, tmp_path):
    freeze(FreezeConfig(**judged, dialogue="bad", duty="identity-first"))
    path, suite = tmp_path / "s" / "tasks.jsonl", tmp_path / "s" / "suite.yaml"
    odd = b'{"id":  "mine", "messages": [{"role": "user", "content": "hi"}],"tools":[]}\n'
    path.write_bytes(odd + path.read_bytes())
    suite.write_text("name: mine\n")
    freeze(FreezeConfig(**judged, dialogue="bad", run="2", duty="states-amount"))
    assert path.read_bytes().startswith(odd) and suite.read_text() == "name: mine\n"
    assert [task.dialogue.id for task in rows(judged["output"])] == ["mine", "bad", "bad#2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dialogue": "absent"}, "there is no dialogue 'absent'.*it has good, bad"),
        ({"run": "3"}, "there is no run 3 of dialogue 'bad'"),
        ({"duty": "absent"}, "it has no duty 'absent'.*identity-first, states-amount"),
        ({"dialogue": "good"}, "identity-first did not fail there: pass.*no duty fails there: use --passing"),
        ({"run": "2"}, "identity-first did not fail there: pass.*duties that fail there: states-amount"),
        ({"duty": None}, "give --verdicts and --duty"),
        ({"verdicts": "absent.jsonl"}, "no such file"),
        ({"policy": None}, "it has no duty.*give --policy or --checklists"),
    ],
)
def test_what_cannot_be_frozen_is_told_and_nothing_is_written(judged, tmp_path, change, message):
    config = {**judged, "dialogue": "bad", "duty": "identity-first"} | change
    with pytest.raises((DataError, ConfigError), match=message):
        freeze(FreezeConfig(**config))
    assert not (tmp_path / "s").exists()


def test_another_task_of_the_same_id_is_not_written_over(judged, tmp_path):
    (tmp_path / "s").mkdir()
    other = run("bad")
    other.turns[0].user = "Something else."
    write(tmp_path / "s" / "tasks.jsonl", [other])
    with pytest.raises(DataError, match="another task of this id"):
        freeze(FreezeConfig(**judged, dialogue="bad", duty="identity-first"))


def test_secrets_are_taken_out(tmp_path, judged, monkeypatch):
    monkeypatch.setenv("SHOP_TOKEN", "s3cr3t-value-of-the-shop")
    dialogue = run("bad", verified=False, note="s3cr3t-value-of-the-shop")
    dialogue.turns[0].user += " My key is sk-abcdefghijklmnop1234."
    dialogue.turns[0].steps[0].responses[0].content = '{"refunded": 20, "token": "s3cr3t-value-of-the-shop"}'
    write(tmp_path / "runs.jsonl", [run("good"), dialogue])
    freeze(FreezeConfig(**judged, dialogue="bad", duty="identity-first", reason="key sk-abcdefghijklmnop1234"))
    text = (tmp_path / "s" / "tasks.jsonl").read_text()
    assert "s3cr3t" not in text and "sk-abc" not in text and text.count("[hidden]") >= 4


def test_a_run_that_went_well_is_labelled_by_its_effects(judged):
    found = freeze(FreezeConfig(**judged, dialogue="good", kind="passing", reason="golden"))
    (task,) = rows(judged["output"])
    assert found.kind == "passing" and found.put.items and {one.turn for one in task.checklists} == {-1}
    assert task.dialogue.meta["frozen"]["duties"][0]["reason"] == "golden"
    for script, state in ((agent(), "passed"), (agent(verified=False), "passed"), ([says("Done.")], "failed")):
        with OpenAIServer(script) as server:
            suite = load_suite(f"{judged['output']}/suite.yaml", {"base_url": server.url, "model": "m"})
            assert run_gate(suite).state == state


def test_one_run_is_not_both(judged):
    freeze(FreezeConfig(**judged, dialogue="bad", duty="identity-first"))
    with pytest.raises(DataError, match="has it already"):
        freeze(FreezeConfig(**judged, dialogue="bad", kind="passing"))


def test_a_failure_of_one_turn_is_held_against_that_turn(tmp_path, judged):
    text = Path(judged["policy"]).read_text().replace("- id: states-amount", "- id: states-amount\n    scope: turn")
    Path(judged["policy"]).write_text(text)
    rules = load_policy(judged["policy"])
    dialogue = run("two", stated=True)
    dialogue.turns.append(run("x", stated=False).turns[0])
    write(tmp_path / "runs.jsonl", [dialogue])

    with open(judged["verdicts"], "wb") as file:
        for checklist in rules.checklists(dialogue):
            for verdict in ChecksJudge().judge(dialogue, checklist.turn, checklist):
                file.write(msgspec.json.encode(verdict) + b"\n")
    freeze(FreezeConfig(**judged, dialogue="two", duty="states-amount"))
    (task,) = rows(judged["output"])
    assert [checklist.turn for checklist in task.checklists] == [1]
    line = json.loads((tmp_path / "s" / "tasks.jsonl").read_text())["meta"]["frozen"]["duties"][0]
    assert line["turn"] == 1
