"""The report of a whole run: what stands on the page is what stands in the files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fabricated import checklists, failed, good, middling, poor, write_json, write_lines, write_run
from page_reader import Page

from cm2.checklist import Task
from cm2.cli.main import main
from cm2.dialogue import Step
from cm2.errors import ConfigError, DataError
from cm2.formats import write_task
from cm2.report import ReportConfig, build, write_report


def report(run: Path, **settings) -> Page:
    output = run.parent / "report.html"
    write_report(ReportConfig(run=str(run), output=str(output), **settings))
    return Page(output.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("demo") / "run")


@pytest.fixture(scope="module")
def light(tmp_path_factory) -> Path:
    """The same without the trainings, whose charts take their time."""
    return write_run(tmp_path_factory.mktemp("light") / "run", trainings=False)


@pytest.fixture(scope="module")
def page(run) -> Page:
    return report(run)


def test_the_headline_is_the_verdict_of_the_run(page, run):
    assert page.text("h1") == [json.loads((run / "summary.json").read_text())["verdict"]]


def test_without_a_verdict_the_headline_states_the_numbers(tmp_path):
    write_run(tmp_path / "run", trainings=False)
    (tmp_path / "run" / "summary.json").unlink()
    found = report(tmp_path / "run")
    assert found.text("h1") == ["Checklist reward, held-out · greedy: start 0.072, sft 0.541, rl 0.687."]
    assert any("No summary.json with a verdict" in text for text in found.text("li", "absent"))


def test_every_number_of_the_evaluations_is_on_the_page_exactly(page, run):
    numbers = page.numbers()
    for path in run.glob("eval/*/summary.json"):
        summary = json.loads(path.read_text())
        for metric in ("reward", "strict_pass", "outcome"):
            assert summary[metric]["mean"] in numbers
        for tally in summary["kinds"].values():
            assert tally["passed"] in numbers
            assert tally["passed"] / (tally["passed"] + tally["failed"]) in numbers


def test_every_row_of_the_comparison_is_on_the_page_exactly(page, run):
    for row in json.loads((run / "summary.json").read_text())["comparison"]:
        assert {row["before"], row["after"], row["difference"]} <= page.numbers()


def test_a_difference_is_coloured_only_where_its_interval_excludes_zero(page):
    cells = [classes for classes in page.classes("td") if {"up", "down"} & set(classes)]
    assert cells == [["n", "up"], ["n", "up"]]  # three rows, the third one's interval holds zero


def test_first_and_last_values_of_every_metric_are_on_the_page(page, run):
    for name in ("sft", "rl"):
        rows = [json.loads(line) for line in (run / name / "metrics.jsonl").read_text().splitlines()]
        for metric in ("loss", "reward", "kl", "grad_norm", "lr", "failures"):
            if metric in rows[0]:
                assert {rows[0][metric], rows[-1][metric]} <= page.numbers()


def test_the_time_split_sums_the_seconds_of_the_steps(page):
    assert {40 * 14.2, 40 * 3.9} <= {round(number, 6) for number in page.numbers()}
    assert {21.3, 982.0} <= page.numbers()  # stages


def test_the_same_task_stands_under_every_agent_in_order(page):
    heads = page.cases[0].find("div", "head")
    assert [head.text("b")[0] for head in heads] == ["start", "sft", "rl", "Checklist"]


def test_each_item_says_how_it_came_out_for_each_agent_and_at_which_step(page):
    signs = page.cases[0].text("span", "sign")
    assert signs[:9] == [
        *("✗ not satisfied", "✓ step 0", "✓ step 0"),
        *("✗ not satisfied", "✗ not satisfied", "✓ step 1"),
        *("✗ not satisfied", "? unscored", "✓ step 2"),
    ]
    assert signs[9:] == ["– turn not reached", "– turn not reached", "✓ step 0"]


def test_the_evidence_of_an_item_is_marked_in_the_step_where_it_stands(page):
    case = page.cases[0]
    shown = {outcome["data-show"]: outcome.get("data-step") for outcome in case.attributes("button", "outcome")}
    marked = {mark: text for text, marks in case.marks() for mark in marks}
    assert marked["d0-2-0-0-2"] == "bk-90213"
    assert marked["d0-2-0-0-1"] == 'book_table({"table_id":"tbl-4471","party_size":4})'
    assert shown["d0-2-0-0-1"] == "d0-2-0-1"
    ids = {found["id"] for found in case.attributes("div", "step")}
    assert {step for step in shown.values() if step} <= ids


def test_responses_tell_where_they_came_from(page):
    origins = [" ".join(text.split()) for text in page.cases[0].text("span", "who") if "response" in text]
    assert origins == ["response error", "response replayed", "response replayed", "response simulated"]


def test_a_failed_rollout_is_shown_as_dropped_and_never_as_zero(page):
    case = next(case for case in page.cases if "heldout-5" in case.text("code", "task"))
    assert any("Dropped, not scored 0: simulator: no answer after 6 tries" in text for text in case.text("div", "head"))
    assert "sft failed" in case.text("span", "pill")
    assert "! run failed" in case.text("span", "sign")


def test_training_groups_are_shown_from_the_largest_variance_of_reward(page):
    whys = [why for case in page.cases for why in case.text("span", "small") if "rollouts, reward" in why]
    assert whys[0] == "step 1, 3 rollouts, reward 0.00 to 1.00"
    assert whys[-1].endswith("2 rollouts, reward 1.00 to 1.00")


def test_the_same_run_gives_the_same_bytes(run, tmp_path):
    made = []
    for name in ("a.html", "b.html"):
        write_report(ReportConfig(run=str(run), output=str(tmp_path / name)))
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1]


def test_fewer_dialogues_are_shown_when_asked_and_the_page_says_of_how_many(light):
    found = report(light, dialogues=3)
    assert len(found.cases) == 3
    assert any("1 of 6 tasks" in text for text in found.text("h3"))


def test_the_file_stays_below_its_limit_and_says_what_that_cost(light, monkeypatch, tmp_path):
    monkeypatch.setattr("cm2.report.build.LARGEST", 150_000)
    summary = write_report(ReportConfig(run=str(light), output=str(tmp_path / "small.html")))
    assert summary.bytes == (tmp_path / "small.html").stat().st_size <= 150_000
    assert 0 < summary.dialogues < summary.dialogues_available == 18
    notes = Page((tmp_path / "small.html").read_text()).text("p", "note")
    assert notes == [
        f"Only {summary.dialogues} dialogues are shown, because the file would be larger than 150,000 bytes."
    ]


def test_long_texts_are_cut_and_the_page_counts_what_is_left_out(tmp_path):
    rollout = good("long")
    rollout.dialogue.turns[0].steps[2] = Step(reply="x" * 5000)
    write_lines(tmp_path / "rollouts.jsonl", [rollout])
    assert any("… 3500 more characters" in text for text in report(tmp_path / "rollouts.jsonl").text("div", "text"))


def test_a_training_folder_alone_is_a_run(tmp_path):
    write_run(tmp_path / "run")
    found = report(tmp_path / "run" / "rl")
    assert found.text("h1") == ["Training of rl (40 steps); nothing was evaluated yet."]
    assert found.cases
    assert any("No evaluation" in text for text in found.text("li", "absent"))


def test_an_evaluation_folder_alone_is_a_run(tmp_path):
    write_run(tmp_path / "run", trainings=False)
    found = report(tmp_path / "run" / "eval" / "rl")
    assert found.text("h1")[0].startswith("Checklist reward, held-out · greedy: rl 0.687")
    assert len(found.cases) == 6


def test_one_file_of_rollouts_is_tallied(tmp_path):
    write_lines(tmp_path / "mine.jsonl", [good("a"), middling("b"), poor("c"), failed("d")])
    found = report(tmp_path / "mine.jsonl")
    earned = 0.3 / 0.7 / 2  # C2 is unscored: its weight leaves the turn; the turn not reached counts 0
    assert any(abs(number - (1 + earned + 0) / 3) < 1e-12 for number in found.numbers())
    facts = {row.split()[0]: row for row in found.text("tr")}
    assert "3" in facts["valid"] and "simulator 1" in facts["dropped,"]


def test_labelled_dialogues_are_judged_by_their_checks(tmp_path):
    row = write_task(Task(good("log").dialogue, checklists()), "openai")
    write_lines(tmp_path / "labelled.jsonl", [row])
    signs = report(tmp_path / "labelled.jsonl").cases[0].text("span", "sign")
    assert signs == ["? unscored"] * 4  # these items carry no check


def test_what_does_not_read_is_told_and_the_rest_is_shown(tmp_path):
    folder = write_run(tmp_path / "run")
    with open(folder / "rl" / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 41, "rew')
    with open(folder / "eval" / "rl" / "rollouts.jsonl", "ab") as file:
        file.write(b"[1]\n")
    found = report(folder)
    problems = found.text("li", "problem")
    assert any(text.startswith("rl/metrics.jsonl, line 41: not JSON") for text in problems)
    assert any(text.startswith("eval/rl/rollouts.jsonl, line 7: this is no rollout") for text in problems)
    assert len(found.cases) == 18


def test_values_that_are_no_numbers_leave_gaps(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    path.parent.mkdir()
    path.write_text(
        '{"step": 1, "loss": 2.5}\n{"step": 2, "loss": NaN}\n{"step": 3, "loss": "x"}\n{"step": 4, "loss": 1.5}\n'
    )
    assert {2.5, 1.5} <= report(tmp_path / "run").numbers()


def test_odd_summaries_do_not_stop_the_report(tmp_path):
    folder = write_run(tmp_path / "run", trainings=False)
    write_json(
        folder / "summary.json", {"verdict": 5, "comparison": [None, {"metric": 3, "before": "x"}], "stages": "?"}
    )
    write_json(
        folder / "eval" / "rl" / "summary.json", {"name": None, "reward": {"mean": 0.5}, "kinds": [], "failures": 3}
    )
    assert 0.5 in report(folder).numbers()


def test_every_dialogue_counts_once_though_it_was_tried_twice(tmp_path):
    write_lines(tmp_path / "again.jsonl", [failed("a"), good("a")])
    found = report(tmp_path / "again.jsonl")
    assert len(found.cases) == 1
    assert "again 1.00" in found.cases[0].text("span", "pill")


@pytest.mark.parametrize("name", ["nothing", "empty", "empty.jsonl", "noise.jsonl"])
def test_a_run_without_anything_is_a_clear_error_and_leaves_no_file(tmp_path, name, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "noise.jsonl").write_text("hello\n")
    with pytest.raises(DataError):
        write_report(ReportConfig(run=str(tmp_path / name), output=str(tmp_path / "r.html")))
    with pytest.raises(SystemExit) as ended:
        main(["report", str(tmp_path / name), "-o", str(tmp_path / "r.html")])
    assert ended.value.code == 2
    assert name in capsys.readouterr().err
    assert not list(tmp_path.glob("*.html*")) and not list(tmp_path.glob(".*"))


def test_an_existing_report_survives_a_failure_while_writing(light, tmp_path, monkeypatch):
    output = tmp_path / "r.html"
    output.write_text("the old one")

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError):
        write_report(ReportConfig(run=str(light), output=str(output)))
    assert output.read_text() == "the old one"
    assert list(tmp_path.iterdir()) == [output]


def test_the_report_is_never_written_over_its_input(tmp_path):
    write_lines(tmp_path / "a.jsonl", [good("a")])
    with pytest.raises(ConfigError):
        write_report(ReportConfig(run=str(tmp_path / "a.jsonl"), output=str(tmp_path / "a.jsonl")))
    with pytest.raises(ConfigError):
        write_report(ReportConfig(run=str(tmp_path / "a.jsonl"), output=str(tmp_path)))


def test_the_command_prints_its_summary_as_json(light, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["report", str(light), "-o", str(tmp_path / "r.html"), "--dialogues", "2", "--json"])
    assert ended.value.code == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["dialogues"] == 2 and summary["dialogues_available"] == 18
    assert summary["bytes"] == (tmp_path / "r.html").stat().st_size
    assert build.LARGEST == 5_000_000
