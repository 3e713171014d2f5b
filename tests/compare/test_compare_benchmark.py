"""Two folders of a benchmark's results, paired by task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cm2.assure.compare_benchmark import WHOLE, compare_benchmarks, markdown, table
from cm2.assure.paired import mcnemar
from cm2.cli.main import main
from cm2.errors import ConfigError, DataError
from cm2.evals.intervals import Interval
from cm2.harness import results
from cm2.harness.results import Headline, Outcome, Results
from cm2.harness.scores import categories

SIZES = {"retail": 30, "airline": 20}


def folder(place: Path, signs: dict[str, str], **changes: Any) -> Path:
    """Results of tau2-bench from texts like "110?": one sign a task of a domain, "?" lost to the user."""
    rows = [
        Outcome(task=str(n), category=domain, owner="user")
        if sign == "?"
        else Outcome(task=str(n), category=domain, score=float(sign), passed=sign == "1")
        for domain, text in signs.items()
        for n, sign in enumerate(text)
    ]
    given = {"benchmark": "tau2", "harness": "h==1", "tasks": "0", "model": "m", "endpoint": "e", "user_model": "u"}
    given |= {"categories": categories(rows, 1, SIZES), "errors": results.owners(rows)}
    given |= {"headlines": [Headline(name="tau2", score=Interval(0.5, 0.4, 0.6, 9))]}
    results.write(Results(**(given | changes)), rows, place)
    return place


def test_tasks_are_paired_and_categories_corrected_together(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", {"retail": "0" * 12 + "1" * 18, "airline": "01" * 10})
    b = folder(tmp_path / "b", {"retail": "1" * 30, "airline": "01" * 10})
    found = compare_benchmarks(a, b, "SFT", "RL")
    whole, retail, airline = found.parts
    assert [part.name for part in found.parts] == [WHOLE, "retail", "airline"]
    assert whole.contrast is not None and retail.contrast is not None
    assert (whole.contrast.n, whole.contrast.better, whole.contrast.worse) == (50, 12, 0)
    assert whole.contrast.difference == pytest.approx(12 / 50)
    assert whole.p == mcnemar(0, 12) and retail.p == pytest.approx(2 * mcnemar(0, 12))  # Holm: the smaller of two
    assert (whole.change, retail.change, airline.change) == ("better", "better", "could be chance")
    assert found.changed("worse") == [] and compare_benchmarks(b, a).changed("worse") == [WHOLE, "retail"]


def test_what_either_side_lost_is_left_out_and_told(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", {"retail": "1?11"})
    b = folder(tmp_path / "b", {"retail": "110?"})
    found = compare_benchmarks(a, b, "old", "new")
    assert found.parts[0].contrast is not None and found.parts[0].contrast.n == 2
    assert found.parts[0].left_out == 2
    assert sum("lost to others" in note for note in found.notes) == 2


@pytest.mark.parametrize("field", ["harness", "user_model", "thinking", "benchmark"])
def test_results_that_were_not_made_alike_are_not_compared(tmp_path: Path, field: str) -> None:
    a, b = folder(tmp_path / "a", {"retail": "11"}), folder(tmp_path / "b", {"retail": "10"}, **{field: "other"})
    with pytest.raises(ConfigError, match=field.replace("_", " ")):
        compare_benchmarks(a, b)


def test_other_tasks_and_other_numbers_of_runs_are_told(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", {"retail": "11"}), folder(tmp_path / "b", {"retail": "101"}, tasks="1", runs=4)
    assert len(compare_benchmarks(a, b).notes) == 2


def test_nothing_shared_and_nothing_there_are_errors(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", {"retail": "11"}), folder(tmp_path / "b", {"airline": "10"})
    with pytest.raises(ConfigError, match="share no task"):
        compare_benchmarks(a, b)
    with pytest.raises(DataError):
        compare_benchmarks(a, tmp_path)


def test_tables_show_percent_and_the_direction(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", {"retail": "1" * 10}), folder(tmp_path / "b", {"retail": "0" * 10})
    found = compare_benchmarks(a, b, "old", "new")
    assert table(found)[1][2] == "100.0 → 0.0" and table(found)[1][4] == "0/10" and table(found)[1][-1] == "worse"
    assert "old → new" in markdown(found) and "| retail | 10 |" in markdown(found)


def command(*argv: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["compare", *argv])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_command_compares_two_folders_and_fails_where_the_second_is_worse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = folder(tmp_path / "good", {"retail": "1" * 30})
    bad = folder(tmp_path / "bad", {"retail": "0" * 12 + "1" * 18})
    page = tmp_path / "pr.md"
    assert command(str(good), str(bad), "--fail-on", "worse", "--json", "-o", str(page)) == 1
    assert json.loads(capsys.readouterr().out)["parts"][0]["change"] == "worse"
    assert "worse" in page.read_text()
    assert command(str(bad), str(good), "--fail-on", "worse") == 0
    assert command(str(bad), str(good), "-o", str(tmp_path / "page.html")) == 2
    assert ".md" in capsys.readouterr().err
