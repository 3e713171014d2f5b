"""What the harnesses logged becomes dialogues: as the agent saw it, with the official outcome, nothing lost a zero."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from cm2.assure.outcomes import read_judged
from cm2.cli import main
from cm2.dialogue import Dialogue
from cm2.errors import ConfigError, DataError
from cm2.formats import read_row, read_tasks
from cm2.harness import environments
from cm2.harness.dialogues import bfcl, tau2, toolsandbox, write
from cm2.harness.dialogues.told import Told, ToldCall, ToldTurn
from cm2.harness.dialogues.write import NO_TRANSCRIPT, DialoguesConfig, Summary
from cm2.harness.results import Outcome, Results
from cm2.harness.results import write as write_results
from cm2.judge.run import JudgeConfig, judge_file

CATEGORY = "multi_turn_base"
VERSION = "bfcl-eval==1"


def step(calls: list[dict[str, str]] | str, *answers: str, thinking: str = "") -> list[dict[str, Any]]:
    """One step of BFCL's log."""
    said: dict[str, Any] = {"role": "assistant", "content": calls}
    return [
        said | ({"reasoning_content": thinking} if thinking else {}),
        {"role": "handler_log", "content": "Successfully decoded model response."},
        *({"role": "tool", "content": answer} for answer in answers),
    ]


def log(*turns: tuple[str, list[list[dict[str, Any]]]]) -> list[Any]:
    """BFCL's log: the state first, then the turns."""
    return [
        [{"role": "state_info", "class_name": "Disk", "content": {}}],
        *(
            {"begin_of_turn_query": [{"role": "user", "content": user}]}
            | {f"step_{number}": one for number, one in enumerate(steps)}
            for user, steps in turns
        ),
    ]


def as_dialogue(messages: list[dict[str, Any]]) -> Dialogue:
    return read_row({"id": "x", "messages": messages}, "openai")


def test_bfcl_steps_keep_calls_answers_and_thinking() -> None:
    first = step([{"ls": "{}"}, {"cd": '{"folder": "a"}'}], '["a"]', "None", thinking="look first")
    found = as_dialogue(bfcl.messages({"inference_log": log(("go", [first, step("There.")]), ("more", []))}))
    assert [turn.user for turn in found.turns] == ["go", "more"]
    one, two = found.turns[0].steps
    assert one.thinking == "look first" and one.reply is None
    assert [(call.name, call.arguments) for call in one.calls] == [("ls", {}), ("cd", {"folder": "a"})]
    answers = [one.response_to(0), one.response_to(1)]
    assert [answer and answer.content for answer in answers] == ['["a"]', "None"]
    assert two.reply == "There." and not two.calls


def test_a_call_that_does_not_read_is_seen_and_one_that_failed_looks_failed() -> None:
    first = ("go", [step([{"ls": '{"oops": '}])])  # it ends the turn
    second = ("go on", [step([{"cd": "{}"}], "Error during execution: no folder")])
    found = as_dialogue(bfcl.messages({"inference_log": log(first, second)}))
    broken, failed = (turn.steps[0] for turn in found.turns)
    assert not broken.calls[0].valid and broken.calls[0].raw == '{"oops": '
    response = failed.response_to(0)
    assert response is not None and response.value == {"error": "Error during execution: no folder"}


def test_an_answer_whose_text_was_not_logged_still_ends_the_turn() -> None:
    found = as_dialogue(bfcl.messages({"inference_log": log(("go", [step([])]))}))
    assert found.turns[0].reply == bfcl.NOT_LOGGED
    assert bfcl.messages({"result": "Error during inference: [infrastructure] 500"}) == []


SIMULATION = {
    "messages": [
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": "My phone is dead."},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "a", "name": "look", "arguments": {"id": "L1"}, "requestor": "assistant"}],
            "raw_data": {"kept": {"reasoning_content": "look at the line"}},
        },
        {
            "role": "tool",
            "id": "a",
            "content": "Error: 1 error\nfield missing",
            "requestor": "assistant",
            "error": True,
        },
        {
            "role": "assistant",
            "content": "Try again.",
            "raw_data": {"kept": {"content": "<think>hm</think>Try again."}},
        },
        {"role": "user", "content": None, "tool_calls": [{"id": "u", "name": "toggle", "arguments": {}}]},
        {"role": "tool", "id": "u", "content": "on", "requestor": "user"},
        {"role": "user", "content": "It works."},
        {"role": "assistant", "content": "Fine."},
        {"role": "user", "content": "###STOP###"},
    ]
}


def test_tau2_shows_what_the_agent_saw_and_not_the_users_own_calls() -> None:
    found = as_dialogue(tau2.messages(SIMULATION))
    assert [step.reply for step in found.opening] == ["Hi!"]
    assert [turn.user for turn in found.turns] == ["My phone is dead.", "It works."]
    assert [call.name for *_, call, _ in found.calls()] == ["look"]
    looked, answered = found.turns[0].steps
    assert (looked.thinking, answered.thinking) == ("look at the line", "hm")
    assert answered.reply == "Try again."
    response = looked.response_to(0)
    assert response is not None and response.value == {"error": "Error: 1 error\nfield missing"}


def test_toolsandbox_drops_what_it_adds_to_the_messages(tmp_path: Path) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "get_wifi", "arguments": "{}"}}
    talk = [
        {"role": "system", "content": "Ask."},
        {"role": "user", "content": "Is it on?", "user_details": {}},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "name": "get_wifi", "content": "True", "tool_details": {}},
        {"role": "assistant", "content": "Yes.", "assistant_details": {}},
    ]
    found = as_dialogue(toolsandbox.messages(talk))
    assert found.system == "Ask." and found.turns[0].reply == "Yes." and found.turns[0].steps[0].reply is None
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios" / "wifi.json").write_text('{"milestone_mapping": {"0": [3, 1.0], "1": [4, 0.25]}}')
    assert toolsandbox.milestones(tmp_path, "wifi") == {"0": 1.0, "1": 0.25}
    assert toolsandbox.milestones(tmp_path, "other") == {}


def tool(name: str, /, **properties: str) -> dict[str, Any]:
    """A tool's description."""
    shape = {"type": "object", "properties": {key: {"type": kind} for key, kind in properties.items()}}
    return {"type": "function", "function": {"name": name, "description": name, "parameters": shape}}


def told(task: str) -> Told:
    """A task in which a file is made."""
    right = ToldCall(name="touch", arguments={"name": "a.txt"}, answer='{"made": "a.txt"}', changed=True)
    turns = [ToldTurn(user="Make a.txt.", calls=[right])]
    return Told(category=CATEGORY, task=task, tools=[tool("touch", name="string")], turns=turns, writes=["touch"])


MADE = step([{"touch": '{"name": "a.txt"}'}], '{"made": "a.txt"}')
WRONG = step([{"touch": '{"name": "b.txt"}'}], '{"made": "b.txt"}')


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of four tasks in two repetitions: right, wrong, lost to the endpoint, ended by the agent's own doing."""
    rows = {
        "t0": log(("Make a.txt.", [MADE, step("Done.")])),
        "t1": log(("Make a.txt.", [WRONG, step("Done.")])),
        "t2": None,
        "t3": None,
    }
    outcomes = []
    for run in (0, 1):
        place = tmp_path / "runs" / "raw" / f"run-{run}" / "result" / "cm2-agent" / "multi_turn"
        place.mkdir(parents=True)
        lines = [{"id": id, "result": [] if log else "Error", "inference_log": log or []} for id, log in rows.items()]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (place / f"BFCL_v4_{CATEGORY}_result.json").write_text(text)
        shared = {"category": CATEGORY, "run": run, "raw": f"raw/run-{run}/x.json"}
        outcomes += [
            Outcome(task="t0", score=1.0, passed=True, **shared),
            Outcome(task="t1", score=0.0, passed=False, error="state mismatch", **shared),
            Outcome(task="t2", owner="infrastructure", error="500", **shared),
            Outcome(task="t3", score=0.0, passed=False, owner="agent", error="prompt too long", **shared),
        ]
    results = Results(benchmark="bfcl", harness=VERSION, tasks="0", model="m", endpoint="http://x", runs=2)
    write_results(results, outcomes, tmp_path / "runs")
    monkeypatch.setattr(environments, "need", lambda name: SimpleNamespace(version=VERSION))
    monkeypatch.setattr(write, "ask", lambda name, where, tasks: {(CATEGORY, id): told(id) for id in tasks[CATEGORY]})
    return tmp_path


def written(folder: Path) -> tuple[Summary, list[Dialogue]]:
    config = DialoguesConfig(
        folder=str(folder / "runs"), output=str(folder / "d.jsonl"), checklists=str(folder / "c.jsonl")
    )
    summary = write.write(config)
    return summary, [task.dialogue for _, task in read_tasks(config.output)]


def test_every_scored_conversation_is_a_row_with_its_official_outcome(folder: Path) -> None:
    summary, rows = written(folder)
    assert [(row.meta["task_id"], row.meta["run"], row.meta["reward"]) for row in rows] == [
        *(("t0", 0, 1.0), ("t1", 0, 0.0), ("t3", 0, 0.0)),
        *(("t0", 1, 1.0), ("t1", 1, 0.0), ("t3", 1, 0.0)),
    ]
    assert rows[0].id == rows[3].id == f"bfcl/{CATEGORY}/t0"
    assert rows[1].meta["error"] == "state mismatch" and "failed (state mismatch)" in rows[1].source
    assert rows[0].tools[0].name == "touch" and rows[0].meta["raw"] == "raw/run-0/x.json"
    assert (summary.dialogues, summary.passed, summary.without_transcript) == (6, 2, 2)


def test_what_was_lost_is_set_aside_and_never_a_failure(folder: Path) -> None:
    summary, rows = written(folder)
    assert summary.unscored == {"infrastructure": 2} and not any(row.meta["task_id"] == "t2" for row in rows)
    aside = [json.loads(line) for line in (folder / "d.jsonl.unscored.jsonl").read_text().splitlines()]
    assert [(one["task"], one.get("run", 0), one["owner"], "score" in one) for one in aside] == [
        ("t2", 0, "infrastructure", False),
        ("t2", 1, "infrastructure", False),
    ]


def test_an_error_of_the_agents_own_without_a_transcript_stays_a_failure(folder: Path) -> None:
    _, rows = written(folder)
    assert rows[2].turns[0].user == NO_TRANSCRIPT and rows[2].meta["owner"] == "agent"


def test_judging_the_rows_by_the_right_answers_says_why_a_task_failed(folder: Path) -> None:
    summary, _ = written(folder)
    assert (summary.tasks, summary.items_out) == (4, {})
    store = str(folder / "v.jsonl")
    judge_file(JudgeConfig(input=str(folder / "d.jsonl"), output=store, checklists=str(folder / "c.jsonl")))
    found = {
        (one.dialogue.meta["task_id"], one.dialogue.meta["run"]): {
            outcome.item.id: outcome.result for outcome in one.outcomes
        }
        for one in read_judged(str(folder / "d.jsonl"), store, checklists=str(folder / "c.jsonl"))
    }
    assert found["t0", 0] == found["t0", 1] == dict.fromkeys(["did-touch", "nothing-else-changed", "acted"], "pass")
    assert found["t1", 1] == {"did-touch": "fail", "nothing-else-changed": "pass", "acted": "pass"}
    assert found["t3", 0]["did-touch"] == "fail"


def test_another_version_of_the_harness_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "need", lambda name: SimpleNamespace(version="bfcl-eval==2"))
    summary, _ = written(folder)
    assert any("bfcl-eval==2" in note and VERSION in note for note in summary.notes)


def test_a_file_of_lost_conversations_goes_when_nothing_is_lost_any_more(folder: Path) -> None:
    written(folder)
    results, outcomes = write.read(folder / "runs")
    write_results(results, [one for one in outcomes if not one.lost], folder / "runs")
    summary, _ = written(folder)
    assert not summary.unscored and not (folder / "d.jsonl.unscored.jsonl").exists()


def test_wrong_use_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one file"):
        DialoguesConfig(folder="x", output="a.jsonl", checklists="./a.jsonl")
    with pytest.raises(DataError, match="no folder of a benchmark's results"):
        write.write(DialoguesConfig(folder=str(tmp_path), output=str(tmp_path / "d.jsonl")))


def cli(*words: str) -> Any:
    """The command, as a person types it."""
    main._register()
    return CliRunner().invoke(main.app, ["eval", "dialogues", *words], standalone_mode=False)


def test_the_command_prints_one_object_and_names_what_it_wrote(folder: Path) -> None:
    found = cli(str(folder / "runs"), "-o", str(folder / "d.jsonl"), "--json")
    assert found.exception is None
    summary = json.loads(found.stdout)
    assert (summary["dialogues"], summary["unscored"]) == (6, {"infrastructure": 2})
    assert summary["outputs"] == [str(folder / "d.jsonl"), str(folder / "d.jsonl.unscored.jsonl")]
    assert not (folder / "c.jsonl").exists()  # nobody asked for checklists
    found = cli(str(folder / "runs"), "-o", str(folder / "d.jsonl"), "--checklists", str(folder / "c.jsonl"))
    shown = " ".join(found.stdout.split())
    assert "infrastructure 2" in shown and "for 4 tasks" in shown and (folder / "c.jsonl").exists()
