"""tau2-bench by its own harness against scripted endpoints of the agent and of the user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cm2.harness import results
from cm2.harness.results import Results
from cm2.harness.run import evaluate
from cm2.harness.settings import EvalConfig
from harness import real
from harness.truth_tau2 import ACTS, DONE, Agent, Task, User, junk, load
from servers.openai_server import says

DOMAINS = ["airline", "retail"]


@pytest.fixture(scope="module")
def tasks() -> dict[str, Task]:
    return load(real.data(real.environment("tau2"), "tau2/data/tau2/domains"), *DOMAINS)


@pytest.fixture(scope="module")
def acted() -> dict[str, Task]:
    return load(real.data(real.environment("tau2"), "tau2/data/tau2/domains"), *ACTS)


def go(agent: Any, user: Any, folder: Path, **more: Any) -> tuple[Results, real.Server, real.Server]:
    """Evaluate two scripted endpoints."""
    with real.Server(agent) as agents, real.Server(user) as users:
        agents.keeps = users.keeps = "tasks" in more
        given = {"benchmark": "tau2", "output": str(folder), "base_url": agents.url, "model": "some/model-1"}
        given |= {"user_base_url": users.url, "user_model": "a-user", "categories": DOMAINS}
        return evaluate(EvalConfig(**(given | more))), agents, users


def test_errors_have_their_owner_and_only_what_was_lost_is_tried_again(tasks: dict[str, Task], tmp_path: Path) -> None:
    ids = [str(n) for n in range(8)]
    names = [f"retail/{id}" for id in ids]
    broken = [real.MALFORMED, real.BROKEN, real.SLOW, real.nonsense("calculate"), real.LONG]
    agent = Agent(tasks, at=dict(zip(names[1:6], broken, strict=True)))
    user = User(tasks, at={names[6]: real.BROKEN, names[7]: real.SLOW})
    more = {"tasks": ids, "categories": ["retail"], "timeout": real.TIMEOUT, "retries": 0}
    found, _, _ = go(agent, user, tmp_path / "o", **more)
    assert found.failed and found.errors == {"agent": 2, "user": 2, "infrastructure": 3}
    outcomes = {one.task: one for one in results.read(tmp_path / "o")[1]}
    owners = [None, *["infrastructure"] * 3, "agent", "agent", "user", "user"]
    assert [outcomes[id].owner for id in ids] == owners
    assert [outcomes[id].score for id in ids] == [1.0, None, None, None, 0.0, 0.0, None, None]

    again, agents, _ = go(Agent(tasks), User(tasks), tmp_path / "o", **more)
    asked = {one["messages"][2]["content"] for one in agents.requests}
    assert asked == {f"TASK {names[n]}" for n in (1, 2, 3, 6, 7)}
    assert not again.failed and again.errors == {"agent": 2}
    assert again.headlines[0].score is not None and again.headlines[0].score.mean == pytest.approx(6 / 8)


@pytest.mark.parametrize("thinking", ["keep", "drop"])
def test_thinking_stays_in_the_agents_history_or_leaves_it_and_never_reaches_the_user(
    tasks: dict[str, Task], tmp_path: Path, thinking: str
) -> None:
    more = {"tasks": ["0"], "categories": ["retail"], "thinking": thinking, "runs": 2}
    found, agents, users = go(Agent(tasks, thinking="first this"), User(tasks), tmp_path / "o", **more)
    assert found.category("retail").pass_hat == {"1": 1.0, "2": 1.0}
    greeting, *rest = [one for one in agents.requests[-1]["messages"] if one["role"] == "assistant"]
    assert "reasoning_content" not in greeting  # nobody thought that
    assert rest and all(("reasoning_content" in one) == (thinking == "keep") for one in rest)
    assert "first this" not in str(users.requests)


def test_junk_fails_a_few(tasks: dict[str, Task], tmp_path: Path) -> None:
    found, _, _ = go(junk, User(tasks), tmp_path / "o", limit=2)
    assert [(one.n, one.score.mean) for one in found.categories if one.score] == [(2, 0.0)] * 2
    assert not found.failed and not found.comparable


def test_a_user_that_acts_solves_a_few_of_telecom(acted: dict[str, Task], tmp_path: Path) -> None:
    first = next(iter(acted.values()))
    same = [task for task in acted.values() if task.told == first.told]
    most = max(same, key=lambda task: len(task.blocks))
    some = {task.name: task for task in same if task in (*same[:2], most)}
    assert len(some) == 3 and len(most.blocks) > 2  # they take turns, and no prompt tells these users apart
    more = {"categories": ACTS, "tasks": [name.removeprefix("telecom/") for name in some], "concurrency": 1}
    found, _, users = go(Agent(some), User(some), tmp_path / "o", **more)
    assert [(one.n, one.score.mean) for one in found.categories if one.score] == [(3, 1.0)] and not found.errors
    assert any(one["role"] == "tool" for request in users.requests for one in request["messages"])


@pytest.mark.slow
def test_ground_truth_of_whole_domains_passes(tasks: dict[str, Task], acted: dict[str, Task], tmp_path: Path) -> None:
    found, _, _ = go(Agent(tasks), User(tasks), tmp_path / "o")
    assert [(one.n, one.score.mean) for one in found.categories if one.score] == [(50, 1.0), (114, 1.0)]
    assert found.errors == {} and [one.official for one in found.categories] == [[1.0], [1.0]]
    telecom, _, _ = go(Agent(acted), User(acted), tmp_path / "acted", categories=ACTS, concurrency=1)
    assert [(one.n, one.score.mean) for one in telecom.categories if one.score] == [(114, 1.0)]
    assert telecom.errors == {} and [one.official for one in telecom.categories] == [[1.0]]


@pytest.mark.slow
def test_junk_passes_nowhere(tasks: dict[str, Task], acted: dict[str, Task], tmp_path: Path) -> None:
    found, _, _ = go(junk, User(tasks | acted), tmp_path / "o", categories=[*DOMAINS, *ACTS])
    assert [(one.n, one.score.mean) for one in found.categories if one.score] == [(50, 0.0), (114, 0.0), (114, 0.0)]


@pytest.mark.slow
def test_an_agent_that_does_nothing_passes_where_nothing_is_to_be_done(tasks: dict[str, Task], tmp_path: Path) -> None:
    found, _, _ = go(lambda body, n: says(DONE), User(tasks), tmp_path / "o")
    passed = {one.name: round(one.n * one.score.mean) for one in found.categories if one.score}
    assert passed == {"airline": 19, "retail": 7} and not found.errors
