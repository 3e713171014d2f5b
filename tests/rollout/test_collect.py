"""Collecting rollouts of an endpoint: a resumable store over real sockets, and the verb `cm2 rollout`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time

import msgspec
import pytest

from cm2.cli.main import main
from cm2.errors import ConfigError, DataError
from cm2.formats import write_task
from cm2.llm import Endpoint, ProviderError
from cm2.rollout import Limits
from cm2.rollout.collect import RolloutConfig, collect
from cm2.rollout.trace import read_rollouts
from rollout.coffee_task import task
from servers.openai_server import OpenAIServer, Reply, calls, refuses, says


def file_of(folder, count: int, **changes) -> str:
    path = folder / "tasks.jsonl"
    rows = []
    for index in range(count):
        one = task()
        one.dialogue.id = f"coffee-{index}"
        rows.append(write_task(msgspec.structs.replace(one, **changes), "openai"))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def plays_the_reference(body, number=0) -> Reply:
    """What the reference did after the messages of this request."""
    roles = [message["role"] for message in body["messages"]]
    turn = roles.count("user") - 1
    step = roles[len(roles) - roles[::-1].index("user") :].count("assistant")
    taken = task().dialogue.turns[turn].steps[step]
    if taken.calls:
        return calls(*((call.name, call.arguments) for call in taken.calls))
    return says(taken.reply, reasoning_content=taken.thinking)


def config(source: str, output, url: str, **settings) -> RolloutConfig:
    names = {"max_tokens", "temperature", "retries"}
    endpoint = {name: settings.pop(name) for name in names & settings.keys()}
    return RolloutConfig(source, str(output), Endpoint(url, "m", backoff=0.001, **endpoint), **settings)


def go(source, output, script=plays_the_reference, **settings):
    with OpenAIServer(script) as server:
        return asyncio.run(collect(config(source, output, server.url, **settings))), server


def test_a_model_that_plays_the_reference_earns_the_full_reward(tmp_path):
    summary, server = go(file_of(tmp_path, 3), tmp_path / "out.jsonl", group=2)
    assert (summary.tasks, summary.rollouts, summary.written, summary.valid, summary.judged) == (3, 6, 6, 6, 6)
    assert (summary.reward, summary.strict_pass, summary.turns_reached) == (1.0, 1.0, 1.0)
    assert summary.reasons == {"completed": 6} and summary.failures == {} and summary.problems == []
    assert summary.generated_tokens == 6 * 7 * 5 and len(server.requests) == 6 * 7


def test_the_store_holds_what_was_said_and_where_it_came_from(tmp_path):
    go(file_of(tmp_path, 1), tmp_path / "out.jsonl", group=2)
    rollouts = list(read_rollouts(str(tmp_path / "out.jsonl")))
    assert sorted(one.key for one in rollouts) == ["coffee-0##0", "coffee-0##1"]
    assert all(one.agent.startswith("m@127.0.0.1:") for one in rollouts)
    (responses,) = {
        tuple(r.origin for t in one.dialogue.turns for s in t.steps for r in s.responses) for one in rollouts
    }
    assert set(responses) == {"replayed"} and rollouts[0].dialogue.turns[0].steps[-1].thinking == "done"


def test_an_agent_that_does_nothing_earns_nothing_and_goes_no_further(tmp_path):
    summary, _ = go(file_of(tmp_path, 2), tmp_path / "out.jsonl", [says("Sorry, no.")])
    assert summary.reasons == {"strict": 2} and summary.turns_reached == 0.5
    assert summary.reward == 0.0 and summary.strict_pass == 0.0


def test_a_malformed_call_is_shown_to_the_model_which_mends_it(tmp_path):
    def script(body, number):
        if len(body["messages"]) == 2:
            return calls(("find_items", '{"query": "coffee"'))
        if len(body["messages"]) == 4:
            assert "malformed call" in body["messages"][-1]["content"]
            assert body["messages"][-2]["tool_calls"][0]["function"]["arguments"] == '{"query": "coffee"'
            return calls(("find_items", {"query": "coffee"}))
        if len(body["messages"]) == 6:
            return calls(("add_item", {"item_id": "mocha-7835", "quantity": 1}))
        return says("Added to 51313. We open at 8.")

    summary, _ = go(file_of(tmp_path, 1), tmp_path / "out.jsonl", script)
    assert (summary.reward, summary.reasons, summary.failures) == (1.0, {"completed": 1}, {})


def test_a_finished_run_asks_nothing_and_has_the_same_summary(tmp_path):
    source, output = file_of(tmp_path, 3), tmp_path / "out.jsonl"
    with OpenAIServer(plays_the_reference) as server:
        first = asyncio.run(collect(config(source, output, server.url)))
        before, asked = output.read_bytes(), len(server.requests)
        again = asyncio.run(collect(config(source, output, server.url)))
        assert len(server.requests) == asked and output.read_bytes() == before
    assert again.written == 0 and msgspec.structs.replace(again, written=3) == first


def test_a_larger_group_adds_only_what_is_missing(tmp_path):
    source, output = file_of(tmp_path, 2), tmp_path / "out.jsonl"
    with OpenAIServer(plays_the_reference) as server:
        asyncio.run(collect(config(source, output, server.url, group=1)))
        more = asyncio.run(collect(config(source, output, server.url, group=3)))
    assert (more.written, more.rollouts) == (4, 6)


def test_a_provider_that_fails_is_in_no_mean_and_is_tried_again_by_the_next_run(tmp_path):
    source, output = file_of(tmp_path, 4), tmp_path / "out.jsonl"
    down = True

    def script(body, number):
        if down and number % 2:
            return refuses(503, "overloaded")
        return plays_the_reference(body)

    with OpenAIServer(script) as server:
        first = asyncio.run(collect(config(source, output, server.url, retries=0, concurrency=1)))
        down = False
        second = asyncio.run(collect(config(source, output, server.url, retries=0, concurrency=1)))
    assert first.failures == {"provider": 4} and first.valid == 0 and first.reward is None
    assert "503: overloaded" in first.problems[0]
    assert (second.written, second.valid, second.rollouts, second.failures) == (4, 4, 4, {}) and second.reward == 1.0
    assert len(output.read_text().splitlines()) == 8


def test_busy_servers_are_waited_for(tmp_path):
    def script(body, number):
        return refuses(429, "slow down", Retry_After="0.01") if number % 3 == 0 else plays_the_reference(body)

    summary, server = go(file_of(tmp_path, 4), tmp_path / "out.jsonl", script)
    assert summary.reward == 1.0 and len(server.requests) > 4 * 7


def test_a_refused_key_stops_the_run_with_the_servers_message(tmp_path):
    with pytest.raises(ProviderError, match="bad key"):
        go(file_of(tmp_path, 30), tmp_path / "out.jsonl", [refuses(401, "bad key")], concurrency=2)
    assert 8 <= len((tmp_path / "out.jsonl").read_text().splitlines()) < 30


def test_an_action_cut_by_the_token_limit_is_judged_and_not_executed(tmp_path):
    script = [calls(("add_item", {"item_id": "mocha-7835", "quantity": 1}), finish="length")]
    summary, server = go(file_of(tmp_path, 1), tmp_path / "out.jsonl", script)
    assert summary.reasons == {"limit_tokens": 1} and len(server.requests) == 1 and summary.judged == 1


def test_a_store_is_never_continued_with_other_settings_or_another_input(tmp_path):
    source, output = file_of(tmp_path, 2), tmp_path / "out.jsonl"
    with OpenAIServer(plays_the_reference) as server:
        asyncio.run(collect(config(source, output, server.url)))
        for changed in ({"seed": 1}, {"temperature": 0.5}, {"limits": Limits(steps=3)}):
            with pytest.raises(ConfigError, match="settings changed"):
                asyncio.run(collect(config(source, output, server.url, **changed)))
        file_of(tmp_path, 3)
        with pytest.raises(ConfigError, match="input changed"):
            asyncio.run(collect(config(source, output, server.url)))


def test_the_input_is_never_the_output(tmp_path):
    source = file_of(tmp_path, 1)
    with pytest.raises(ConfigError, match="same file"):
        go(source, source)


@pytest.mark.parametrize("name", ["group", "concurrency"])
def test_a_group_of_nobody_is_refused(name):
    with pytest.raises(ConfigError, match=name):
        RolloutConfig("in", "out", Endpoint("http://h/v1", "m"), **{name: 0})


def test_a_missing_input_says_so(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        go(str(tmp_path / "absent.jsonl"), tmp_path / "out.jsonl")


def test_unreadable_rows_are_counted_and_cost_nothing_else(tmp_path):
    source = file_of(tmp_path, 2)
    with open(source, "a") as file:
        file.write('{"messages": 3}\n')
    summary, _ = go(source, tmp_path / "out.jsonl")
    assert (summary.tasks, summary.valid, summary.unreadable) == (2, 2, 1) and "line 3" in summary.problems[0]


def test_only_the_first_tasks_are_run_when_limited(tmp_path):
    summary, _ = go(file_of(tmp_path, 5), tmp_path / "out.jsonl", limit=2)
    assert (summary.tasks, summary.written) == (2, 2)


def test_tasks_without_checklists_are_run_and_not_judged(tmp_path):
    summary, _ = go(file_of(tmp_path, 2, checklists=[]), tmp_path / "out.jsonl")
    assert (summary.valid, summary.judged, summary.reward) == (2, 0, None)


def cli(capsys, *args) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["rollout", *map(str, args)])
    printed = capsys.readouterr()
    return caught.value.code, printed.out, printed.err


def test_the_verb_prints_one_json_object(tmp_path, capsys):
    with OpenAIServer(plays_the_reference) as server:
        common = (file_of(tmp_path, 2), "-o", tmp_path / "o.jsonl", "--base-url", server.url, "--model", "m")
        code, out, _ = cli(capsys, *common, "--group", 2, "--max-turns", 1, "--json")
    summary = json.loads(out)
    assert code == 0 and summary["written"] == 4 and summary["reasons"] == {"limit_turns": 4}
    assert summary["reward"] == 0.5  # one of the reference's two turns


def test_the_verb_shows_a_table(tmp_path, capsys):
    with OpenAIServer(plays_the_reference) as server:
        args = (file_of(tmp_path, 2), "-o", tmp_path / "o.jsonl", "--base-url", server.url, "--model", "m")
        code, out, _ = cli(capsys, *args)
    assert code == 0 and "2 rollouts of 2 tasks by m@127.0.0.1" in " ".join(out.split()) and "1.000" in out


def test_the_verb_explains_wrong_use(tmp_path, capsys):
    code, _, err = cli(capsys, file_of(tmp_path, 1), "-o", tmp_path / "o", "--base-url", "localhost", "--model", "m")
    assert code == 2 and "is no address of an endpoint" in err
    code, _, err = cli(capsys, tmp_path / "absent", "-o", tmp_path / "o", "--base-url", "http://h/v1", "--model", "m")
    assert code == 2 and "no such file" in err


def test_a_killed_run_goes_on_where_it_stopped_and_repeats_nothing(tmp_path):
    source, output = file_of(tmp_path, 24), tmp_path / "out.jsonl"

    def script(body, number):
        reply = plays_the_reference(body)
        reply.delay = 0.01
        return reply

    with OpenAIServer(script) as server:
        command = [sys.executable, "-m", "cm2", "rollout", source, "-o", str(output)]
        command += ["--base-url", server.url, "--model", "m", "--concurrency", "2", "--json"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not (output.exists() and output.read_bytes().count(b"\n") >= 3):
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kept = output.read_bytes().count(b"\n")
        assert 3 <= kept < 24
        before = len(server.requests)
        done = subprocess.run(command, capture_output=True, check=True)
    summary = json.loads(done.stdout)
    assert summary["written"] == 24 - kept and (summary["valid"], summary["reward"]) == (24, 1.0)
    assert len(server.requests) - before == (24 - kept) * 7
    assert len({one.key for one in read_rollouts(str(output))}) == 24
