"""The gate with an endpoint: it runs the suite's tasks in the simulated environment, over real sockets."""

from __future__ import annotations

from cm2.assure.flaky import needed_repeats
from cm2.assure.gate import run_gate
from cm2.assure.suite import read_suite
from cm2.check import Called
from cm2.checklist import Checklist, Item, Task
from gate.gate_builders import policy, run, states, statuses, write
from servers.openai_server import OpenAIServer, Reply, calls, refuses, says


def agent(stated=True, verified=True):
    """An agent that does what the task wants, once what was asked of it stands in the request."""

    def answer(body, number) -> Reply:
        taken = sum(message["role"] == "assistant" for message in body["messages"]) + (not verified)
        if taken == 0:
            return calls(("verify", {"name": "Ada"}))
        if taken == 1:
            return calls(("refund", {"order": 7}))
        return says("You get 20 dollars back." if stated else "Done.")

    return answer


def tasks(folder, count=2, checklists=()):
    return write(folder / "tasks.jsonl", [Task(run(f"t{i}"), list(checklists)) for i in range(count)])


def go(folder, script, **fields):
    with OpenAIServer(script) as server:
        endpoint = {"base_url": server.url, "model": "m", "retries": 0, "backoff": 0.001}
        fields = {"policy": policy(folder), "endpoint": endpoint} | fields
        if "tasks" not in fields:
            fields["tasks"] = tasks(folder)
        kept = []
        return run_gate(read_suite(fields), keep=kept.append), server, kept


def test_an_endpoint_that_keeps_its_duties_passes(tmp_path):
    result, server, kept = go(tmp_path, agent(), repeats=3)
    assert result.state == "passed" and (result.dialogues, result.runs, len(kept)) == (2, 6, 6)
    assert {(case.passed, case.failed) for case in result.cases} == {(3, 0)}
    assert result.source.startswith("m@127.0.0.1") and len(server.requests) == 18


def test_one_that_breaks_a_duty_is_stopped(tmp_path):
    result, _, _ = go(tmp_path, agent(verified=False))
    assert result.state == "failed" and set(statuses(result, "identity-first").values()) == {"failed"}


def test_the_prompt_of_the_suite_takes_the_place_of_the_tasks(tmp_path):
    _, server, _ = go(tmp_path, agent(), system="Answer in verse.")
    assert {body["messages"][0]["content"] for body in server.requests} == {"Answer in verse."}
    _, server, _ = go(tmp_path, agent())
    assert {body["messages"][0]["content"] for body in server.requests} == {"Be kind."}


def test_an_agent_that_is_flaky_is_seen_as_such(tmp_path):
    turns = []

    def answer(body, number):
        if body["messages"][-1]["role"] == "tool" and body["messages"][-1]["name"] == "refund":
            turns.append(number)
            return agent(stated=len(turns) % 2 == 0)(body, number)
        return agent()(body, number)

    result, _, _ = go(tmp_path, answer, tasks=tasks(tmp_path, 1), repeats=4, concurrency=1)
    (case,) = result.with_status("flaky")
    assert (case.duty, case.passed, case.failed) == ("states-amount", 2, 2)
    assert result.state == "passed" and result.flakiness.repeats == {
        "t0: states-amount": needed_repeats(0.5, 0.0, 0.05, 0.8)
    }


def test_a_provider_that_is_down_leaves_it_undecided(tmp_path):
    result, _, _ = go(tmp_path, [refuses(503, "overloaded")])
    assert result.state == "undecided" and result.lost == 2 and not result.with_status("failed")
    assert {case.unscored_by for case in result.cases} == {"provider"}
    assert states(result)["judged"] == "undecided"


def test_a_key_that_is_refused_leaves_tasks_that_were_never_run_unscored(tmp_path):
    result, server, _ = go(tmp_path, [refuses(401, "bad key")], tasks=tasks(tmp_path, 12), concurrency=1)
    assert result.state == "undecided" and len(server.requests) == 8 and result.lost == 12
    assert any("bad key" in note for note in result.notes)
    assert {case.unscored_by for case in result.cases} == {"provider", "data"}


def test_strict_items_of_turns_gate_a_run_and_items_of_the_whole_dialogue_do_not(tmp_path):
    whole = Item(
        "refunded", "assistant.tool_calls", "Refunded?", "yes", 1.0, check=Called("refund"), severity="critical"
    )
    strict = Item(
        *("C0", "assistant.tool_calls", "Verified?", "yes", 1.0),
        check=Called("verify"),
        kind="call",
        required_for_next_turn=True,
    )
    long = run("t")
    long.turns.append(run("x").turns[0])
    rows = [Task(long, [Checklist(0, [strict]), Checklist(-1, [whole])])]
    path = write(tmp_path / "long.jsonl", rows)
    result, server, _ = go(tmp_path, agent(verified=False), tasks=path, policy=None)
    assert len(server.requests) == 2, "the second turn is not played"
    assert statuses(result, "call verify") == {"t": "failed"} and statuses(result, "refunded") == {"t": "passed"}
