"""Tables and plot: results beside what was published, and what differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cm2.cli import main
from cm2.evals.intervals import Interval
from cm2.harness import results
from cm2.harness.plot import draw
from cm2.harness.published import IN_DOMAIN, NUMBERS, beside
from cm2.harness.results import Category, Headline, Outcome, Results
from cm2.harness.show import markdown


def made(benchmark: str = "bfcl", name: str = "multi_turn", **changes: Any) -> Results:
    """Results with one headline."""
    headline = Headline(name=name, score=Interval(0.3, 0.25, 0.36, 800), by_run=[0.3], comparable=True)
    part = Category(name="multi_turn_base", n=3, whole=200, score=Interval(0.3, 0.2, 0.4, 3), scored=3)
    given = {"benchmark": benchmark, "harness": "h==1", "tasks": "0", "model": "m", "endpoint": "http://e/v1", "n": 3}
    given |= {"headlines": [headline], "categories": [part]}
    return Results(**(given | changes))


def test_published_numbers_are_those_of_the_paper() -> None:
    found = beside(made())[0].published
    assert list(found.values()) == [19.37, 26.75, 36.50, 37.00]
    assert NUMBERS["web_search"][2] == 27.50 and NUMBERS["toolsandbox"][2] == 68.20
    assert beside(made("tau2", "tau2"))[0].published["CM2, in-domain data"] == IN_DOMAIN == 41.39


def test_what_differs_is_marked() -> None:
    marks = beside(made("tau2", "tau2", thinking="drop", user_model="u", differs=["a subset"]))[0].marks
    told = "; ".join(marks)
    for word in ("a subset", "mean of 1 run, published of 4", "thinking is dropped", "the user is u", "h==1"):
        assert word in told
    assert "published of 4" not in "; ".join(beside(made("tau2", "tau2", runs=4))[0].marks)


def test_a_headline_that_is_not_comparable_says_so_first() -> None:
    hollow = made(headlines=[Headline(name="multi_turn", score=Interval(0.3, 0.2, 0.4, 3), comparable=False)])
    assert beside(hollow)[0].marks[0].startswith("not comparable")


def test_a_markdown_table_numbers_what_differs_once() -> None:
    text = markdown([made(), made(thinking="drop"), made("tau2", "tau2")], ["SFT", "RL", "tau"])
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert "BFCL-V4 multi-turn" in rows[0] and "tau2-bench" in rows[0]
    assert "30.00" in rows[1] and rows[1].startswith("| SFT |")
    assert "| *CM2* | 36.50 | 26.76 |" in text
    assert text.count("harness h==1") == 1
    assert "2. " in text and "thinking is dropped" in text


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_plot_is_drawn(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"plot.{suffix}"
    draw([made(), made("tau2", "tau2")], ["SFT", "R$L$ <b>"], str(path))
    assert path.stat().st_size > 1000


def cli(*words: str) -> Any:
    """The command line."""
    main._register()
    return CliRunner().invoke(main.app, ["eval", *words], standalone_mode=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of results."""
    results.write(made(), [Outcome(task="a", category="multi_turn_base", score=1.0)], tmp_path / "r")
    return tmp_path / "r"


def test_show_prints_one_json_object(folder: Path) -> None:
    found = cli("show", str(folder), "--names", "mine", "--json")
    assert found.exception is None
    value = json.loads(found.stdout)
    assert value["results"][0]["name"] == "mine" and value["results"][0]["comparable"] is True


def test_show_prints_tables_and_writes_files(folder: Path, tmp_path: Path) -> None:
    outs = [str(tmp_path / name) for name in ("t.md", "p.png")]
    found = cli("show", str(folder), "-o", outs[0], "-o", outs[1])
    assert found.exception is None and "3 of 200" in found.stdout and "36.50" in found.stdout
    assert Path(outs[0]).read_text().startswith("| |") and Path(outs[1]).stat().st_size > 1000


def test_show_refuses_what_is_no_picture_before_it_reads(tmp_path: Path) -> None:
    found = cli("show", str(tmp_path), "-o", "x.txt")
    assert "picture" in str(found.exception)


def test_names_must_be_one_a_folder(folder: Path) -> None:
    assert "--names" in str(cli("show", str(folder), "--names", "a,b").exception)


def test_an_evaluation_wants_its_harness_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CM2_CACHE", str(tmp_path))
    found = cli("bfcl", "-o", str(tmp_path / "o"), "--base-url", "http://127.0.0.1:9/v1", "--model", "m")
    assert "cm2 eval setup bfcl" in str(found.exception)
    served = cli("embedded", "-o", str(tmp_path / "o"))
    assert "cm2 eval setup bfcl" in str(served.exception)


def test_a_checkpoint_on_a_benchmark_with_a_user_wants_one_before_it_is_loaded(tmp_path: Path) -> None:
    found = cli("embedded", "-o", str(tmp_path / "o"), "--benchmarks", "bfcl,tau2")
    assert "--user-base-url" in str(found.exception)


def test_a_run_that_lost_conversations_exits_with_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cm2.harness import run

    words = ("bfcl", "-o", str(tmp_path / "o"), "--base-url", "http://127.0.0.1:9/v1", "--model", "m", "--json")
    seen: list[Any] = []

    def ends(errors: dict[str, int]) -> Any:
        def evaluate(config: Any, progress: Any) -> Results:
            seen.append(config)
            return made(errors=errors, allowed=config.allow_errors)

        return evaluate

    monkeypatch.setattr(run, "evaluate", ends({"infrastructure": 2}))
    found = cli(*words)
    assert found.return_value == 1 and json.loads(found.stdout)["failed"] is True
    assert cli(*words, "--allow-errors", "2").return_value == 0
    monkeypatch.setattr(run, "evaluate", ends({"agent": 5}))
    assert cli(*words, "--categories", "multi_turn, web_search", "--task", "a", "--task", "b").return_value == 0
    assert seen[-1].categories == ["multi_turn", "web_search"] and seen[-1].tasks == ["a", "b"]
