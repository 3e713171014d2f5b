"""BFCL by its own harness against scripted endpoints: ground truth passes, junk does not, errors have their owner."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from cm2.harness import results
from cm2.harness.bfcl import MULTI_TURN, overall
from cm2.harness.results import Results
from cm2.harness.run import evaluate
from cm2.harness.settings import EvalConfig
from harness import real
from harness.truth_bfcl import Truth, junk
from servers.openai_server import Reply, calls, says


@pytest.fixture(scope="module")
def data() -> Path:
    return real.data(real.environment("bfcl"), "bfcl_eval/data")


def go(script: Any, folder: Path, **more: Any) -> tuple[Results, real.Server]:
    """Evaluate a scripted endpoint under a name that no Python identifier may have."""
    with real.Server(script) as server:
        server.keeps = "tasks" in more
        given = {"benchmark": "bfcl", "output": str(folder), "base_url": server.url, "model": "some/model-1:x"}
        return evaluate(EvalConfig(**(given | more))), server


def test_errors_have_their_owner_and_only_what_was_lost_is_tried_again(data: Path, tmp_path: Path) -> None:
    ids = [f"multi_turn_base_{n}" for n in range(6)]
    at = dict(zip(ids[1:], [real.MALFORMED, real.BROKEN, real.SLOW, real.nonsense("ls"), real.LONG], strict=True))
    more = {"tasks": ids, "categories": ["multi_turn_base"], "timeout": real.TIMEOUT, "retries": 0}
    found, _ = go(Truth(data, at=at), tmp_path / "o", **more)
    assert found.failed and found.errors == {"agent": 2, "infrastructure": 3}
    outcomes = {one.task: one for one in results.read(tmp_path / "o")[1]}
    assert [outcomes[id].owner for id in ids] == [None, *["infrastructure"] * 3, "agent", "agent"]
    assert [outcomes[id].score for id in ids] == [1.0, None, None, None, 0.0, 0.0]
    assert "500" in outcomes[ids[2]].error and "Timeout" in outcomes[ids[3]].error

    again, server = go(Truth(data), tmp_path / "o", **more)
    asked = {one["messages"][0]["content"] for one in server.requests}
    assert len(asked) == 3  # the three that were lost
    assert not again.failed and again.errors == {"agent": 2}
    assert again.headlines[0].score is not None and again.headlines[0].score.mean == pytest.approx(4 / 6)
    assert not again.comparable


def test_a_run_that_was_killed_goes_on_where_it_was(data: Path, tmp_path: Path) -> None:
    ids = [f"multi_turn_base_{n}" for n in range(4)]
    folder, truth = tmp_path / "o", Truth(data)
    held = threading.Event()

    def slow(body: dict[str, Any], number: int) -> Reply:
        reply = truth(body, number)
        if "multi_turn_base_2" in {one.id for one in truth.entries if one.users[0] == body["messages"][0]["content"]}:
            held.set()
            reply.delay = 60
        return reply

    words = ["--categories", "multi_turn_base", "--concurrency", "1", "-o", str(folder)]
    words += [word for id in ids for word in ("--task", id)]
    with real.Server(slow) as server:
        command = [sys.executable, "-m", "cm2", "eval", "bfcl", "--base-url", server.url, "--model", "some/model-1:x"]
        started = subprocess.Popen([*command, *words], stdout=subprocess.DEVNULL)
        assert held.wait(300)
        started.kill()
        started.wait()
    (result,) = (folder / "raw" / "run-0" / "result").rglob("*_result.json")
    assert len(result.read_text().splitlines()) == 2
    with open(result, "a") as file:
        file.write('{"id": "multi_turn_base_3", "resu')  # a line that was torn
    found, server = go(Truth(data), folder, tasks=ids, categories=["multi_turn_base"])
    asked = {one["messages"][0]["content"] for one in server.requests}
    assert asked == {one.users[0] for one in truth.entries if one.id in ids[2:]}
    assert not found.failed and found.headlines[0].score is not None and found.headlines[0].score.mean == 1.0


def test_calls_of_what_is_no_tool_run_nothing(data: Path, tmp_path: Path) -> None:
    seen: list[str] = []

    def agent(body: dict[str, Any], number: int) -> Reply:
        seen.extend(one["content"] for one in body["messages"] if one["role"] == "tool")
        made = [("open", {"file": str(tmp_path / "written"), "mode": "w"}), ("input", {}), ("ls", {"a=open": 1})]
        return says("Done.") if number else calls(*made)

    found, _ = go(agent, tmp_path / "o", tasks=["multi_turn_base_0"], categories=["multi_turn_base"])
    assert not (tmp_path / "written").exists()
    assert "name 'open_is_no_tool' is not defined" in seen[0] and "'input_is_no_tool'" in seen[1]
    assert "invalid syntax" in seen[2] and not found.failed


@pytest.mark.parametrize("thinking", ["keep", "drop"])
def test_thinking_stays_in_the_history_or_leaves_it(data: Path, tmp_path: Path, thinking: str) -> None:
    more = {"tasks": ["multi_turn_base_0"], "categories": ["multi_turn_base"], "thinking": thinking}
    found, server = go(Truth(data, thinking="first this"), tmp_path / "o", **more)
    assert found.headlines[0].score is not None and found.headlines[0].score.mean == 1.0
    told = [one for request in server.requests for one in request["messages"] if one["role"] == "assistant"]
    assert told and all(("reasoning_content" in one) == (thinking == "keep") for one in told)


@pytest.mark.slow
@pytest.mark.parametrize("category", MULTI_TURN)
def test_ground_truth_of_a_whole_category_passes(data: Path, tmp_path: Path, category: str) -> None:
    found, _ = go(Truth(data, category), tmp_path / "o", categories=[category])
    part = found.category(category)
    assert (part.n, part.scored, found.errors) == (200, 200, {})
    assert part.score is not None and part.score.mean >= 0.99
    assert part.official == [part.score.mean]


@pytest.mark.slow
def test_junk_passes_nowhere(data: Path, tmp_path: Path) -> None:
    found, _ = go(junk, tmp_path / "o")
    assert [(one.n, one.score.mean) for one in found.categories if one.score] == [(200, 0.0)] * 4
    assert found.comparable and not found.failed
    assert overall(tmp_path / "o" / "raw" / "run-0")["Multi Turn Overall Acc"] == 0.0
