"""Rollouts in simulated worlds: who owns a failure, what is kept, what is paid once, and the verb's options."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from cm2.cli.main import main
from cm2.dialogue import Step, ToolCall
from cm2.errors import ConfigError
from cm2.llm import BudgetReached, Endpoint, ProviderError
from cm2.llm.config import load_models
from cm2.llm.models import Models
from cm2.rollout.agents import ScriptedAgent
from cm2.rollout.collect import RolloutConfig, collect
from cm2.rollout.plan import plan
from cm2.rollout.run import STOP_AFTER, run_rollouts
from cm2.rollout.trace import read_rollouts
from cm2.simulate import SimulatorConfig, simulated
from rollout.coffee_task import task
from rollout.test_collect import file_of, plays_the_reference
from servers.openai_server import OpenAIServer, Reply, calls, refuses, says
from simulate.askers import Door, asked, hashed

LLM = SimulatorConfig(kind="llm")


def strays(environment) -> Step:
    """Looks for tea, then says so, turn after turn."""
    if not environment.dialogue.turns[environment.turn].steps:
        return Step(calls=[ToolCall("find_items", {"query": "tea", "limit": environment.turn + 1})])
    return Step(reply="There is tea.")


def unjudged(count: int):
    for index in range(count):
        one = task()
        one.dialogue.id, one.checklists = f"coffee-{index}", []
        yield one


def run(count: int, door: Door, config: SimulatorConfig = LLM, **settings) -> list:
    async def go():
        agent, worlds = ScriptedAgent(strays), simulated(config, door)
        return [one async for one in run_rollouts(unjudged(count), agent, world=worlds, **settings)]

    return asyncio.run(go())


def test_the_session_is_told_which_turn_is_played():
    door = Door(hashed)
    (rollout,) = run(1, door)
    assert rollout.reason == "completed" and len(door.requests) == 2
    first, second = map(asked, door.requests)
    assert "When do you open" not in first and "When do you open" in second


def test_a_group_pays_for_a_question_once():
    door = Door(hashed, delay=0.005)
    found = run(2, door, group=6)
    assert len(found) == 12 and len(door.requests) == 2 * 2  # tasks × turns, whatever the group
    answers = {one.dialogue.turns[0].steps[0].responses[0].content for one in found if one.task == "coffee-0"}
    assert len(answers) == 1


@pytest.mark.parametrize(
    "reply", [ProviderError("HTTP 503", status=503), {"answer": "no items, try coffee"}, {"answer": 7}]
)
def test_the_simulators_failure_is_never_the_agents(reply):
    found = run(3, Door(lambda request, attempt: reply))
    for one in found:
        assert not one.valid and one.failure.owner == one.owner == one.reason == "simulator"
        assert "find_items" in one.failure.message and not one.failure.fatal
        assert len(one.dialogue.turns[0].steps) == 1  # what happened is on record


def test_where_the_agent_is_told_of_the_failure_the_transcript_is_whole_and_still_not_scored():
    config = SimulatorConfig(kind="llm", on_failure="error")
    (one,) = run(1, Door(lambda request, attempt: {"answer": 7}), config)
    assert not one.valid and one.failure.owner == one.owner == "simulator" and len(one.dialogue.turns) == 2
    assert one.failure.message.startswith("2 of the agent's calls had no answer")
    responses = [turn.steps[0].responses[0] for turn in one.dialogue.turns]
    assert all(response.origin == "error" and "temporarily unavailable" in response.content for response in responses)


def test_one_flaky_answer_costs_one_rollout():
    replies = iter([{"answer": 7}, {"answer": 7}])
    door = Door(lambda request, attempt: next(replies, None) or hashed(request))
    found = run(8, door, concurrency=1)
    assert [one.valid for one in found] == [False] + [True] * 7


def test_a_refused_key_stops_the_run():
    door = Door(lambda request, attempt: ProviderError("no key", status=401))
    with pytest.raises(ProviderError, match="were refused"):
        run(50, door, concurrency=1)
    assert len(door.requests) == STOP_AFTER


def test_a_budget_stops_the_run_and_what_was_under_way_is_kept():
    spent = 0

    def reply(request, attempt):
        nonlocal spent
        spent += 1
        return BudgetReached("US$ 1 is reached") if spent > 10 else hashed(request)

    door, seen = Door(reply, delay=0.001), []

    async def go():
        async for one in run_rollouts(unjudged(50), ScriptedAgent(strays), world=simulated(LLM, door), concurrency=4):
            seen.append(one)

    with pytest.raises(BudgetReached):
        asyncio.run(go())
    valid = [one for one in seen if one.valid]
    assert 2 <= len(valid) <= 5 and len(seen) <= len(valid) + 4
    assert all(one.failure.owner == "simulator" and one.failure.fatal for one in seen if not one.valid)


# --- a file, a store and the real door


def simulates(body, number=0) -> Reply:
    """A model that finds one item, whatever is looked for; the agent asks for tea first."""
    if "response_format" in body or "JSON object" in json.dumps(body["messages"][0]):
        return says(json.dumps({"answer": {"items": [{"item_id": "tea-1", "name": "Tea"}]}}))
    if len(body["messages"]) == 2:
        return calls(("find_items", {"query": "tea"}))
    return plays_the_reference({**body, "messages": [*body["messages"][:2], *body["messages"][4:]]})


def door_to(url: str, cache) -> Models:
    default = {"base_url": url, "model": "m", "backoff": 0.001, "price": {"input": 0, "output": 0}}
    return Models(load_models(default=default, cache=str(cache)))


def collected(tmp_path, server, name: str, models: Models, **settings):
    config = RolloutConfig(
        file_of(tmp_path, 3), str(tmp_path / name), Endpoint(server.url, "m", backoff=0.001), simulator=LLM, **settings
    )
    return asyncio.run(collect(config, asker=models))


def test_the_next_run_finds_every_simulated_answer_in_the_cache(tmp_path):
    with OpenAIServer(simulates) as server:
        with door_to(server.url, tmp_path / "cache.sqlite") as models:
            first = collected(tmp_path, server, "a.jsonl", models, group=2)
            assert models.spent.calls == 3
        with door_to(server.url, tmp_path / "cache.sqlite") as models:
            second = collected(tmp_path, server, "b.jsonl", models, group=2, seed=5)
            assert models.spent.calls == 0
    assert first.valid == second.valid == 6 and first.answers == second.answers
    assert first.answers["simulated"] == 6 and first.reward == second.reward
    told = {
        one.dialogue.turns[0].steps[0].responses[0].content
        for name in ("a.jsonl", "b.jsonl")
        for one in read_rollouts(str(tmp_path / name))
    }
    assert told == {'{"items":[{"item_id":"tea-1","name":"Tea"}]}'}


def test_a_store_is_not_continued_with_another_simulator(tmp_path):
    with OpenAIServer(simulates) as server:
        with door_to(server.url, tmp_path / "cache.sqlite") as models:
            collected(tmp_path, server, "a.jsonl", models)
            collected(tmp_path, server, "a.jsonl", models)
        other = RolloutConfig(file_of(tmp_path, 3), str(tmp_path / "a.jsonl"), Endpoint(server.url, "m"))
        with pytest.raises(ConfigError):
            asyncio.run(collect(other))


def test_the_true_outcome_is_not_told_in_a_simulated_world(tmp_path):
    config = RolloutConfig(
        file_of(tmp_path, 1), str(tmp_path / "o.jsonl"), Endpoint("http://127.0.0.1:9/v1", "m"),
        simulator=SimulatorConfig(kind="fallback"),
    )  # fmt: skip
    with OpenAIServer(plays_the_reference) as server:
        config.endpoint = Endpoint(server.url, "m")
        summary = asyncio.run(collect(config, outcome=lambda rollout: {"success": True}))
        config.output, config.simulator = str(tmp_path / "p.jsonl"), SimulatorConfig()
        told = asyncio.run(collect(config, outcome=lambda rollout: {"success": True}))
    assert summary.successes is None and told.successes == 1.0


def test_a_plan_is_an_upper_bound_of_what_is_asked(tmp_path):
    with Models(load_models(default={"base_url": "http://127.0.0.1:9/v1", "model": "m"}), dry=True) as models:
        found = asyncio.run(plan(unjudged(2), LLM, models, group=3))
        assert found.tasks == 2 and found.rollouts == 6 and found.agent_calls == 6 * 7
        assert found.simulated_calls == 6 * 5 and 0 < models.planned.calls <= found.simulated_calls
        assert models.planned.total.prompt_tokens > 1000 * models.planned.calls / 4


def cli(capsys, *args) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["rollout", *map(str, args)])
    printed = capsys.readouterr()
    return caught.value.code, printed.out, printed.err


def test_the_verb_simulates_with_a_model(tmp_path, capsys):
    with OpenAIServer(simulates) as server:
        common = (file_of(tmp_path, 2), "-o", tmp_path / "o.jsonl", "--base-url", server.url, "--model", "m")
        model = ("--simulator", "llm", "--simulator-url", server.url, "--simulator-model", "s")
        code, out, err = cli(capsys, *common, *model, "--dry-run", "--json")
        assert code == 0, err
        assert json.loads(out)["simulated_calls"] == 10 and server.requests == []
        assert not (tmp_path / "o.jsonl").exists()
        code, out, err = cli(capsys, *common, *model, "--json")
    assert code == 0, err
    summary = json.loads(out)
    assert summary["answers"]["simulated"] == 2 and summary["spent"]["stages"]["simulate"]["calls"] == 2
    assert (tmp_path / "o.jsonl.llm.sqlite").exists()


@pytest.mark.parametrize(
    "flags, told",
    [
        (["--simulator", "llm"], "simulator has no base_url"),
        (["--simulator", "magic"], "use one of: auto, replay"),
        (["--replay", "never"], "use one of: always"),
        (["--budget", "1"], "costs nothing"),
    ],
)
def test_the_verb_explains_wrong_use(tmp_path, capsys, flags, told):
    args = (file_of(tmp_path, 1), "-o", tmp_path / "o.jsonl", "--base-url", "http://127.0.0.1:9/v1", "--model", "m")
    code, _, err = cli(capsys, *args, *flags)
    assert code == 2 and told in " ".join(err.split())


def test_a_provider_that_is_down_fails_rollouts_and_not_the_run(tmp_path):
    def down(body, number=0):
        reply = simulates(body)
        return refuses(503) if "answer" in json.dumps(reply.body) and "tea-1" in json.dumps(reply.body) else reply

    with OpenAIServer(down) as server:
        models = Models(load_models(default={"base_url": server.url, "model": "m", "retries": 1, "backoff": 0.001}))
        with models:
            summary = collected(tmp_path, server, "a.jsonl", models)
    assert summary.failures == {"simulator": 3} and summary.valid == 0 and summary.reward is None
    assert msgspec.to_builtins(summary)["answers"] == {}
