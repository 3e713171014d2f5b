"""The dashboard of a training run: what stands on it, while it goes on and after it, whatever its names are."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from browser import BINARY, Browser
from page_reader import Page
from training_run import write_training_run

from cm2.cli.main import main
from cm2.errors import DataError
from cm2.report.dashboard import build, is_training, write_dashboard


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_training_run(tmp_path_factory.mktemp("board") / "rl")


@pytest.fixture(scope="module")
def page(folder):
    return build(folder)[0]


def test_every_duty_domain_and_kind_of_number_has_its_chart(page):
    charts = {section.name: [panel.title for panel in section.panels] for section in page.sections}
    assert charts["Reward"] == ["training reward", "held-out reward"]
    assert charts["Reward by duty"] == ["call", "argument", "reply", "order"]
    assert charts["Reward by domain"] == ["bank", "hotel", "clinic"]
    assert {"entropy", "KL to the start", "clipped share"} <= set(charts["Policy"])
    assert {"tokens a rollout", "calls that do not parse"} <= set(charts["Length and format"])
    assert {"items unscored", "agreement with the gold judge", "training and gold judge"} <= set(charts["Judging"])
    assert "dead groups" in charts["Signal"] and "Other numbers" not in charts


def test_the_collapse_is_an_alarm_marked_in_the_charts_and_told_first(page):
    assert {one.sign for one in page.warnings} >= {"reward", "collapse"} and all(o.step > 105 for o in page.warnings)
    assert page.warnings == sorted(page.warnings, key=lambda one: -one.step)
    assert "alarm" in page.headline and "best on held-out tasks" in page.headline
    assert "stroke-run4" in page.sections[0].panels[0].chart


def test_a_run_that_is_well_has_none(tmp_path):
    page, _ = build(write_training_run(tmp_path / "rl", steps=100))
    assert page.warnings == [] and page.headline.endswith("no alarm")
    assert "stroke-run4" not in page.sections[0].panels[1].chart


def test_alarms_on_record_are_told_apart_from_those_that_are_seen_now(tmp_path):
    folder = write_training_run(tmp_path / "rl", steps=60)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    row = json.loads(lines[29]) | {"alarm": "kl: the KL leapt; the gold judge fell"}
    lines[29] = json.dumps(row)
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert [(one.sign, one.reason, one.recorded) for one in build(folder)[0].warnings] == [
        ("kl", "the KL leapt", True),
        ("judge", "the gold judge fell", True),
    ]


def test_it_can_be_asked_for_while_a_line_is_being_written(tmp_path):
    folder = write_training_run(tmp_path / "rl", steps=30)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 31, "rew')
    page, summary = write_dashboard(folder)
    assert summary.steps == 30 and page.state.startswith("running: step 30 of 160") and page.problems == []
    assert (folder / "dashboard.html").exists()
    (folder / "done.json").write_text("{}")
    assert build(folder)[0].state == "finished"


def test_a_folder_without_steps_or_of_something_else_is_told_so(tmp_path):
    folder = write_training_run(tmp_path / "rl", steps=1)
    (folder / "metrics.jsonl").write_text("")
    with pytest.raises(DataError, match="no step is on record yet"):
        build(folder)
    assert not is_training(tmp_path)
    with pytest.raises(DataError, match="no training run"):
        build(tmp_path)


def test_the_page_says_what_it_rests_on(folder, tmp_path):
    write_dashboard(folder, tmp_path / "page.html")
    found = Page((tmp_path / "page.html").read_text())
    text = " ".join(found.content.split())
    assert f"cm2 rl pool.tasks.jsonl -o {folder}-again --config {folder}/recipe.yaml" in text
    assert "torch 2.13.0 and goes on with 2.14.0" in text and "from step 80" in text
    assert len(found.find("svg")) == len(found.find("figure")) > 20


ATTACK = '</script><script>alert(1)</script>"><img src=x onerror=alert(1)>'


def test_names_are_text_whatever_they_are(tmp_path):
    folder = write_training_run(tmp_path / "rl", steps=20, model=ATTACK)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = [line | {f"duty/{ATTACK}": 0.5, ATTACK: 1.0, "alarm": f"kl: {ATTACK}"} for line in lines]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    html = write_dashboard(folder)[0] and (folder / "dashboard.html").read_text()
    assert html.count("<script>") == 1 and "<img" not in html and "onerror=alert(1)>" not in html


def test_the_command_writes_it_and_prints_one_object(folder, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["report", str(folder), "--json"])
    assert stop.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert told["steps"] == 140 and told["output"].endswith("dashboard.html") and told["alarms"]
    with pytest.raises(SystemExit) as stop:
        main(["report", str(folder)])
    assert stop.value.code == 0 and "training reward" in capsys.readouterr().out


def test_a_folder_of_several_runs_still_wants_a_name(folder, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["report", str(folder.parent)])
    assert stop.value.code == 2 and "one training run's folder" in " ".join(capsys.readouterr().err.split())


def test_it_needs_no_torch(folder):
    code = "import sys; from pathlib import Path; from cm2.report.dashboard import write_dashboard as write; "
    code += f"write(Path({str(folder)!r})); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.skipif(BINARY is None, reason="there is no chromium on this machine")
def test_in_a_browser_it_loads_nothing_complains_of_nothing_and_follows_the_scheme(folder, tmp_path):
    file = tmp_path / "page.html"
    write_dashboard(folder, file)
    with Browser() as browser:
        seen = []
        for scheme in ("light", "dark"):
            browser.scheme(scheme)
            browser.open(file)
            seen.append(browser.run("getComputedStyle(document.body).backgroundColor"))
        assert browser.complaints == [] and set(browser.requests) <= {"about:blank", file.resolve().as_uri()}
        assert seen[0] != seen[1]
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        assert browser.run("document.querySelectorAll('#alarms tr.alarm').length") >= 2
