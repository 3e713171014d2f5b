"""Driving two agents over real sockets: the same worlds, kill and resume, failures of a provider, prompts, money."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from cm2.assure.drive import Actor, DriveConfig, _played, drive, expected, read_prompt
from cm2.cli import main as command_line
from cm2.errors import ConfigError
from cm2.llm import Endpoint
from cm2.rollout.trace import read_rollouts
from cm2.verdict import WHOLE
from cm2.worlds import MakeConfig, make
from compare.compare_command import go, summary
from rollout.coffee_task import task
from rollout.test_collect import file_of, plays_the_reference
from servers.openai_server import OpenAIServer, calls, refuses, says

TASKS = 12


def worse(body, number=0):
    """Plays the reference, but on even tasks adds two of the item where one was asked for."""
    reply = plays_the_reference(body)
    made = reply.body["choices"][0]["message"].get("tool_calls") or []
    if made and made[0]["function"]["name"] == "add_item" and "wrong" in body["messages"][0]["content"]:
        return calls(("add_item", {"item_id": "mocha-7835", "quantity": 2}))
    return reply


@pytest.fixture
def tasks(tmp_path) -> str:
    """Twelve tasks; in the first eight the system prompt tempts the worse agent."""
    path = file_of(tmp_path, TASKS)
    rows = [json.loads(line) for line in (tmp_path / "tasks.jsonl").read_text().splitlines()]
    for row in rows[:8]:
        row["messages"][0]["content"] += " wrong"
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def drives(tasks: str, folder, url_a: str, url_b: str, **settings) -> DriveConfig:
    actors = [
        Actor(endpoint=Endpoint(url, name, backoff=0.001, retries=0)) for url, name in ((url_a, "a"), (url_b, "b"))
    ]
    return DriveConfig(tasks=tasks, folder=str(folder), a=actors[0], b=actors[1], **settings)


def test_two_agents_on_the_same_tasks_and_the_worse_one_is_found(tasks, tmp_path, capsys):
    with OpenAIServer(plays_the_reference) as a, OpenAIServer(worse) as b:
        argv = [tasks, "--endpoint-a", a.url, "--model-a", "old", "--endpoint-b", b.url, "--model-b", "new"]
        found = summary(capsys, *argv, "--runs", str(tmp_path / "runs"), "--fail-on", "worse", code=1)
    call = next(one for one in found["duties"] if one["duty"] == "assistant.tool_calls add_item")
    assert (call["contrast"]["n"], call["contrast"]["worse"], call["change"]) == (TASKS, 8, "worse")
    assert found["tasks"] == TASKS and {one["name"] for one in found["metrics"]} >= {"reward", "strict_pass"}
    assert found["spent"]["a"]["rollouts"] == found["spent"]["b"]["written"] == TASKS
    assert found["spent"]["a"]["generated_tokens"] > 0 and found["spent"]["a"]["cost"] is None


def test_both_play_with_the_same_seeds_and_the_same_worlds(tasks, tmp_path):
    with OpenAIServer(plays_the_reference) as server:
        drive(drives(tasks, tmp_path / "runs", server.url, server.url, group=2, seed=7))
    a, b = (
        {one.key: (one.seed, one.dialogue.turns) for one in read_rollouts(str(tmp_path / "runs" / f"{name}.jsonl"))}
        for name in "ab"
    )
    assert a == b and len(a) == 2 * TASKS and len({seed for seed, _ in a.values()}) == 2 * TASKS
    seeds = [sorted(r["seed"] for r in server.requests if r["model"] == name) for name in "ab"]
    assert seeds[0] == seeds[1]


def test_a_provider_that_fails_is_nobodys_loss_and_is_tried_again(tasks, tmp_path, capsys):
    """Half of B's requests fail at first: no pair is lost to A, and the next call mends it."""
    down = True

    def shaky(body, number):
        return refuses(503, "overloaded") if down and number % 3 == 0 else plays_the_reference(body)

    argv = [
        "--model-a",
        "a",
        "--model-b",
        "b",
        "--runs",
        str(tmp_path / "runs"),
        "--retries",
        "0",
        "--concurrency",
        "1",
    ]
    with OpenAIServer(plays_the_reference) as a, OpenAIServer(shaky) as b:
        argv = [tasks, "--endpoint-a", a.url, "--endpoint-b", b.url, *argv]
        first = summary(capsys, *argv)
        lost = first["b"]["lost"]["provider"]
        assert lost == TASKS and first["lost_tasks"] == TASKS
        assert all(one["contrast"] is None and one["unscored"] == TASKS for one in first["duties"])
        assert not first["metrics"]
        down = False
        second = summary(capsys, *argv)
    assert second["b"]["lost"] == {} and all(one["contrast"]["worse"] == 0 for one in second["duties"])
    assert second["spent"]["b"]["rollouts"] == TASKS + lost and second["spent"]["a"]["written"] == 0


def test_a_killed_drive_goes_on_where_it_stopped(tasks, tmp_path, capsys):
    runs = tmp_path / "runs"

    def slow(body, number):
        time.sleep(0.03)
        return plays_the_reference(body)

    with OpenAIServer(slow) as server:
        argv = [tasks, "--endpoint-a", server.url, "--model-a", "a", "--model-b", "b", "--runs", str(runs)]
        argv += ["--concurrency", "2"]
        code = "from cm2.cli import main\nif 'compare' not in main.VERBS: main.VERBS += ('compare',)\nmain.main()"
        child = subprocess.Popen([sys.executable, "-c", code, "compare", *argv], stdout=subprocess.DEVNULL)
        store = runs / "b.jsonl"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and (not store.exists() or store.read_bytes().count(b"\n") < 3):
            time.sleep(0.02)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        held = store.read_bytes().count(b"\n")
        asked = len(server.requests)
        assert 3 <= held < TASKS
        found = summary(capsys, *argv)
    assert found["spent"]["a"]["written"] == 0 and found["spent"]["b"]["written"] == TASKS - held
    assert len(server.requests) - asked == 7 * (TASKS - held)
    assert found["tasks"] == TASKS and all(one["contrast"]["n"] == TASKS for one in found["duties"])


def test_two_prompts_of_one_model(tasks, tmp_path, capsys):
    """Only the prompt differs; the copy of the tasks that B plays has it, and the world is the same."""
    prompt = tmp_path / "new.md"
    prompt.write_text("You are wrong.\n")
    with OpenAIServer(worse) as server:
        argv = [tasks, "--endpoint-a", server.url, "--model-a", "m", "--system-b", str(prompt), "--limit", "12"]
        found = summary(capsys, *argv, "--runs", str(tmp_path / "runs"))
    told = {request["messages"][0]["content"] for request in server.requests}
    assert told == {"You serve coffee.", "You serve coffee. wrong", "You are wrong."}
    call = next(one for one in found["duties"] if one["duty"] == "assistant.tool_calls add_item")
    assert (call["contrast"]["a"], call["contrast"]["b"]) == (pytest.approx(4 / 12), 0.0)
    prompt.write_text("You are another.\n")
    assert go(*argv, "--runs", str(tmp_path / "runs")) == 2  # the store was begun with another prompt
    assert "other data" in " ".join(capsys.readouterr().err.split())


def test_tasks_that_do_not_read_keep_their_lines_under_another_prompt(tasks, tmp_path):
    """So that the agent with its own prompt plays, and tells of, what the other does."""
    lines = (tmp_path / "tasks.jsonl").read_text().splitlines()
    broken = [lines[0], "{no json", '{"messages": 3}', *lines[1:]]
    (tmp_path / "tasks.jsonl").write_text("\n".join(broken) + "\n")
    actor = Actor(endpoint=Endpoint("http://127.0.0.1:9", "m"), system="You are new.")
    config = DriveConfig(tasks=tasks, folder=str(tmp_path), a=actor, b=actor)
    _played(config, actor, str(tmp_path / "copy.jsonl"), whole=False)
    copied = (tmp_path / "copy.jsonl").read_text().splitlines()
    assert len(copied) == len(broken) and copied[1] == "{no json" and json.loads(copied[2]) == {"messages": 3}
    assert {json.loads(line)["messages"][0]["content"] for line in [copied[0], *copied[3:]]} == {"You are new."}


def test_a_policy_judges_what_both_did(tasks, tmp_path, capsys):
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "name: coffee\nduties:\n- id: one-mocha\n  severity: critical\n  question: Is one mocha added?\n"
        "  check: {type: called, tool: add_item, arguments: {quantity: {op: equals, value: 1}}}\n"
    )
    with OpenAIServer(plays_the_reference) as a, OpenAIServer(worse) as b:
        argv = [tasks, "--endpoint-a", a.url, "--model-a", "old", "--endpoint-b", b.url, "--model-b", "new"]
        found = summary(capsys, *argv, "--runs", str(tmp_path / "runs"), "--policy", str(policy))
    (duty,) = found["duties"]
    assert (duty["duty"], duty["change"], duty["correction"], duty["contrast"]["worse"]) == (
        "one-mocha",
        "worse",
        "holm",
        8,
    )


def test_items_about_the_whole_dialogue_are_judged_when_it_is_over(tmp_path, capsys):
    made = task()
    first = made.checklists[0].items[1]
    made.checklists.append(type(made.checklists[0])(WHOLE, [first]))
    source = file_of(tmp_path, 3, checklists=made.checklists)
    with OpenAIServer(plays_the_reference) as server:
        argv = [
            source,
            "--endpoint-a",
            server.url,
            "--model-a",
            "a",
            "--model-b",
            "b",
            "--runs",
            str(tmp_path / "runs"),
        ]
        found = summary(capsys, *argv)
    assert all(one["contrast"]["a"] == 1.0 for one in found["duties"]) and found["lost_tasks"] == 0
    assert any(one["duty"] == "assistant.tool_calls add_item" for one in found["duties"])


def test_a_dry_run_asks_nothing_and_says_what_it_would_take(tasks, tmp_path, capsys):
    with OpenAIServer(plays_the_reference) as server:
        argv = [tasks, "--endpoint-a", server.url, "--model-a", "a", "--model-b", "b", "--group", "2"]
        found = summary(capsys, *argv, "--dry-run")
    assert (found["tasks"], found["rollouts"], found["actions"]) == (TASKS, 4 * TASKS, 4 * TASKS * 7)
    assert not server.requests and found["detectable"]["0.1"] > 0.3
    assert not (tmp_path / "runs").exists()


def test_a_price_that_is_known_is_told(tasks, tmp_path):
    with OpenAIServer(plays_the_reference) as server:
        endpoint = Endpoint(server.url, "gpt-4o-mini")
        actor = Actor(endpoint=endpoint)
        found = drive(DriveConfig(tasks=tasks, folder=str(tmp_path / "runs"), a=actor, b=actor, limit=2))
    spent = found.spent["a"]
    assert (spent.prompt_tokens, spent.generated_tokens) == (2 * 7 * 7, 2 * 7 * 5)
    assert spent.cost is not None and spent.cost > 0


def test_sample_worlds_tell_the_true_outcome_of_both(tmp_path, capsys):
    from cm2.checklist import Task
    from cm2.formats import write_task

    made = list(make(MakeConfig(count=4, profile="short")))
    source = tmp_path / "short.jsonl"
    source.write_text("".join(json.dumps(write_task(Task(one), "openai")) + "\n" for one in made))
    policy = tmp_path / "policy.yaml"
    policy.write_text("name: p\nduties:\n- id: q\n  question: Is it kind?\n")
    with OpenAIServer([says("I cannot.")]) as server:
        argv = [str(source), "--endpoint-a", server.url, "--model-a", "a", "--model-b", "b"]
        found = summary(capsys, *argv, "--runs", str(tmp_path / "runs"), "--policy", str(policy))
    metrics = {one["name"]: one for one in found["metrics"]}
    assert metrics["outcome"]["contrast"]["n"] == 4 and metrics["outcome"]["change"] == "could be chance"
    assert found["not_judged"] == ["q"] and found["duties"] == []


@pytest.mark.parametrize("text", [None, "", b"\xff\xfe\x00"])
def test_a_prompt_that_is_none_is_one_sentence(tmp_path, text):
    path = tmp_path / "prompt.md"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=r"prompt\.md"):
        read_prompt(str(path))


def test_tasks_are_not_overwritten(tmp_path, capsys):
    source = tmp_path / "tasks-a.jsonl"
    source.write_text("{}\n")
    argv = [str(source), "--endpoint-a", "http://127.0.0.1:9/v1", "--model-a", "a", "--model-b", "b"]
    assert go(*argv, "--runs", str(tmp_path)) == 2
    assert "a file that this command writes" in " ".join(capsys.readouterr().err.split())
    assert source.read_text() == "{}\n"


def test_expected_counts_both_agents(tasks, tmp_path):
    found = expected(drives(tasks, tmp_path, "http://a/v1", "http://b/v1", limit=5))
    assert (found.tasks, found.rollouts, found.actions) == (5, 10, 70)
    assert command_line.VERBS
