"""ToolSandbox's summary becomes outcomes: an exception is a zero there, and here somebody's error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cm2.harness import toolsandbox
from cm2.harness.process import HarnessFailed


def row(name: str, similarity: float, exception: str | None = None, owner: str | None = None, **more: Any) -> dict:
    """A scenario's file as the runner writes it."""
    said = f"Traceback\n  File …\n__main__.{exception}: what happened\n" if exception else None
    made = {"name": name, "similarity": similarity, "minefield_similarity": 0, "exception_type": exception}
    return made | {"traceback": said, "owner": owner, "turn_count": 4} | more


@pytest.mark.parametrize(
    ("given", "score", "owner"),
    [
        (row("a", 0.75), 0.75, None),
        (row("a", 0, "Unreached", "infrastructure"), None, "infrastructure"),
        (row("a", 0, "UserFailed", "user"), None, "user"),
        (row("a", 0, "AgentFailed", "agent"), 0.0, "agent"),
        (row("a", 0, "SchemaError", "infrastructure"), None, "infrastructure"),
    ],
)
def test_an_exception_is_its_owners_error_and_not_a_zero(given: dict, score: float | None, owner: str | None) -> None:
    found = toolsandbox.outcome(given, ["SINGLE_TOOL_CALL"], 1, "raw/run-1")
    assert (found.score, found.owner, found.passed) == (score, owner, None)
    assert (found.category, found.groups) == (toolsandbox.ALL, ["SINGLE_TOOL_CALL"])
    assert found.raw == "raw/run-1/trajectories/a"
    if owner:
        assert found.error.endswith("what happened")


def test_a_minefield_is_told() -> None:
    assert "minefield" in toolsandbox.outcome(row("a", 0, minefield_similarity=1.0), [], 0, "").error


def write(folder: Path, rows: list[dict], planned: list[str], means: dict[str, float]) -> None:
    """A repetition's files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tasks.json").write_text(json.dumps({"tasks": {name: ["CANONICALIZATION"] for name in planned}}))
    aggregated = {name: {"similarity": value, "turn_count": 3.0} for name, value in means.items()}
    summary = {"per_scenario_results": rows, "category_aggregated_results": aggregated, "git_sha": "x"}
    (folder / "result_summary.json").write_text(json.dumps(summary))


def test_a_repetition_and_the_refusing_agent_beside_it(tmp_path: Path) -> None:
    rows = [row("a", 1.0), row("b", 0, "Unreached", "infrastructure")]
    write(tmp_path, rows, ["a", "b"], {"ALL_CATEGORIES": 0.5, "CANONICALIZATION": 0.5})
    write(tmp_path / "baseline", [], [], {"ALL_CATEGORIES": 0.2, "INSUFFICIENT_INFORMATION": 0.948})
    outcomes, official = toolsandbox.parse(tmp_path, 0, "raw/run-0")
    assert [one.score for one in outcomes] == [1.0, None]
    assert official == {toolsandbox.ALL: [0.5], "CANONICALIZATION": [0.5]}  # the harness counts the lost one as 0
    assert toolsandbox.baseline(tmp_path) == {toolsandbox.ALL: 0.2, "INSUFFICIENT_INFORMATION": 0.948}
    assert toolsandbox.baseline(tmp_path / "elsewhere") == {}


def test_a_scenario_that_is_not_in_the_summary_is_no_result(tmp_path: Path) -> None:
    write(tmp_path, [row("a", 1.0)], ["a", "b"], {"ALL_CATEGORIES": 1.0})
    with pytest.raises(HarnessFailed, match="1 scenarios are missing"):
        toolsandbox.parse(tmp_path, 0, "raw")
    with pytest.raises(HarnessFailed, match="no summary"):
        toolsandbox.parse(tmp_path / "nothing", 0, "raw")


def test_the_sizes_are_those_of_the_published_set() -> None:
    assert sum(toolsandbox.WHOLE[name] for name in toolsandbox.VARIANTS) == toolsandbox.WHOLE[toolsandbox.ALL] == 1032
