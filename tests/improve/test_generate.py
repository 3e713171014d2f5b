"""Rejection sampling from an endpoint: what is kept, what is not, and that a killed run goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cm2.assure.generate import GenerateConfig, Summary, generate
from cm2.assure.generate_plan import plan
from cm2.assure.leakage import Exclusion
from cm2.checklist import Task
from cm2.dialogue import Dialogue
from cm2.errors import DataError
from cm2.formats import read_tasks, write_task
from cm2.judge.stored import read_verdicts
from cm2.label.label_run import LabelConfig, label_file
from cm2.llm import Endpoint, ProviderError
from cm2.rollout.collect import RolloutConfig
from cm2.rollout.trace import read_rollouts
from cm2.worlds import MakeConfig, make, outcome_for, world_for
from servers.openai_server import OpenAIServer, Reply, calls, refuses, says

Play = Callable[[Dialogue, int, int], Reply | None]
"""What an agent does at a step of a task, by the seed's parity; None: what the reference did."""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four labelled dialogues of the sample worlds, of one turn each."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [json.dumps(write_task(Task(one), "openai")) for one in make(MakeConfig(count=4, profile="short"))]
    (folder / "dialogues.jsonl").write_text("".join(row + "\n" for row in rows))
    label_file(LabelConfig(str(folder / "dialogues.jsonl"), str(folder / "tasks.jsonl")))
    return folder / "tasks.jsonl"


def agent(tasks: Path, play: Play) -> Callable[[dict[str, Any], int], Reply]:
    """A server's script: the reference's steps, unless `play` says otherwise."""
    known = {task.dialogue.turns[0].user: task.dialogue for _, task in read_tasks(str(tasks))}

    def answer(body: dict[str, Any], number: int) -> Reply:
        user = next(message["content"] for message in body["messages"] if message["role"] == "user")
        step = sum(message["role"] == "assistant" for message in body["messages"])
        other = play(known[user], step, body["seed"] % 2)
        if other is not None:
            return other
        made = known[user].turns[0].steps[step]
        if made.calls:
            return calls(*((call.name, call.arguments) for call in made.calls))
        return says(made.reply)

    return answer


def run(
    tasks: Path, folder: Path, play: Play, exclusion: Exclusion | None = None, port: int = 0, **settings: Any
) -> tuple[Summary, Any]:
    """Sample; a store tells endpoints apart, so going on needs the same port."""
    with OpenAIServer(agent(tasks, play), port) as server:
        config = config_of(tasks, folder, server.url, **settings)
        found = asyncio.run(generate(config, exclusion, world=world_for, outcome=outcome_for))
        return found, server


def port_of(server: OpenAIServer) -> int:
    return int(server.url.split(":")[2].split("/")[0])


def config_of(tasks: Path, folder: Path, url: str, group: int = 4, **settings: Any) -> GenerateConfig:
    endpoint = Endpoint(url, "m", retries=0, backoff=0.001)
    rollouts = RolloutConfig(str(tasks), str(folder / "rollouts.jsonl"), endpoint, group=group)
    return GenerateConfig(rollouts=rollouts, output=str(folder), **settings)


def lies_at_odd_seeds(dialogue: Dialogue, step: int, odd: int) -> Reply | None:
    last = step == len(dialogue.turns[0].steps) - 1
    return says("Good day to you.") if odd and last else None


def never(dialogue: Dialogue, step: int, odd: int) -> Reply | None:
    return says("No.")


def reference(dialogue: Dialogue, step: int, odd: int) -> Reply | None:
    return None


def test_runs_that_keep_every_duty_are_kept_one_a_task(tasks: Path, tmp_path: Path) -> None:
    found, _ = run(tasks, tmp_path, lies_at_odd_seeds)
    rollouts = list(read_rollouts(str(tmp_path / "rollouts.jsonl")))
    strict = {rollout.task for rollout in rollouts if rollout.score["strict_pass"]}
    assert len(rollouts) == found.rollouts == 16
    assert found.kept == found.kept_tasks == len(strict) >= 2
    kept = [task for _, task in read_tasks(str(tmp_path / "kept.jsonl"))]
    assert {task.dialogue.meta["task"] for task in kept} == strict
    assert all(task.checklists and task.dialogue.turns[0].reply for task in kept)
    assert all(task.dialogue.turns[0].reply != "Good day to you." for task in kept)
    named = {task.dialogue.id for task in kept}
    assert {verdict.dialogue for verdict in read_verdicts(str(tmp_path / "verdicts.jsonl"))} == named
    assert found.kept_reward == 1.0 and found.reward is not None and found.reward < 1.0
    assert found.kept_successes == 1.0
    assert found.left_out["an item does not hold"] + found.passed == 16


def test_pairs_are_where_the_good_and_the_bad_run_part(tasks: Path, tmp_path: Path) -> None:
    found, _ = run(tasks, tmp_path, lies_at_odd_seeds)
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert len(rows) == found.pairs >= 1
    for row in rows:
        assert row["rejected"][0]["content"] == "Good day to you."
        assert row["chosen"][0]["content"] != row["rejected"][0]["content"]


def test_what_was_kept_can_be_exported(tasks: Path, tmp_path: Path) -> None:
    from cm2.assure.export import ExportConfig, export_file

    found, _ = run(tasks, tmp_path, reference, group=1)
    where = {"input": str(tmp_path / "kept.jsonl"), "verdicts": str(tmp_path / "verdicts.jsonl")}
    summary = export_file(ExportConfig(**where, output=str(tmp_path / "sft.jsonl")))
    assert summary.rows == found.kept == 4


def test_equal_runs_of_a_task_are_kept_once(tasks: Path, tmp_path: Path) -> None:
    found, _ = run(tasks, tmp_path, reference, group=3, best=3)
    assert (found.passed, found.kept) == (12, 4)
    assert found.left_out == {"much like a better one": 8}


def test_by_reward_a_part_may_do(tasks: Path, tmp_path: Path) -> None:
    all_of_them, _ = run(tasks, tmp_path / "all", lies_at_odd_seeds, keep="reward", threshold=0.0)
    assert all_of_them.passed == 16
    half, _ = run(tasks, tmp_path / "half", lies_at_odd_seeds, keep="reward", threshold=1.0)
    assert 0 < half.passed < 16 and half.left_out["the reward is below the threshold"] == 16 - half.passed


def test_nothing_good_is_nothing_kept(tasks: Path, tmp_path: Path) -> None:
    found, _ = run(tasks, tmp_path, never, group=2)
    assert (found.kept, found.pairs) == (0, 0) and found.left_out == {"an item does not hold": 8}


def test_a_provider_that_fails_is_neither_kept_nor_rejected(tasks: Path, tmp_path: Path) -> None:
    found, server = run(tasks, tmp_path, lambda dialogue, step, odd: refuses(500) if step == 1 else None, group=1)
    assert found.failed == {"provider": 4} and found.kept == 0 and found.left_out == {}
    found, _ = run(tasks, tmp_path, reference, port=port_of(server), group=1)  # the same command again
    assert found.failed == {} and found.kept == 4


def test_an_endpoint_that_refuses_everything_ends_it(tasks: Path, tmp_path: Path) -> None:
    with pytest.raises(ProviderError):
        run(tasks, tmp_path, lambda dialogue, step, odd: refuses(401))


def test_the_same_command_goes_on_and_asks_nothing_twice(tasks: Path, tmp_path: Path) -> None:
    _, first = run(tasks, tmp_path, reference, group=2)
    assert len(first.requests) > 0
    found, second = run(tasks, tmp_path, reference, port=port_of(first), group=2)
    assert len(second.requests) == 0 and found.rollouts == 8
    found, third = run(tasks, tmp_path, reference, port=port_of(first), group=3)  # more of them
    assert len(third.requests) == len(first.requests) / 2 and found.rollouts == 12


def test_a_budget_of_tokens_ends_it_between_rounds(tasks: Path, tmp_path: Path) -> None:
    found, _ = run(tasks, tmp_path, reference, group=4, tokens=1)
    assert found.budget_reached and found.rounds == 1 and found.rollouts == 4


def test_tasks_that_are_excluded_are_not_played(tasks: Path, tmp_path: Path) -> None:
    first = next(task.dialogue for _, task in read_tasks(str(tasks)))
    found, server = run(tasks, tmp_path, reference, Exclusion([first], near=None), group=1)
    assert found.left_out == {"tasks: excluded: the same id": 1} and found.kept == 3
    assert all(first.turns[0].user not in json.dumps(body["messages"]) for body in server.requests)


def test_tasks_without_a_checklist_are_told(tasks: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of its tasks .* \(label them first: cm2 label\)"):
        run(tasks.parent / "dialogues.jsonl", tmp_path, reference)


def test_a_plan_counts_the_calls_and_asks_nobody(tasks: Path, tmp_path: Path) -> None:
    steps = sum(len(turn.steps) for _, task in read_tasks(str(tasks)) for turn in task.dialogue.turns)
    found = plan(config_of(tasks, tmp_path / "none", "http://127.0.0.1:9/v1", group=3))
    assert (found.tasks, found.rollouts, found.calls) == (4, 12, 3 * steps)
    assert found.prompt_tokens > found.answer_tokens > 0
    assert not (tmp_path / "none").exists()
