"""The verb: one JSON object each, clear sentences, and its files where other commands read them."""

import importlib
import json
import sys

import pytest
import typer
import yaml
from audits import agree, audit, logs
from typer.testing import CliRunner

from cm2.assure.audit.book import Book
from cm2.cli import audit as verb
from cm2.errors import CM2Error, ConfigError, DataError, MissingExtra
from cm2.judge.calibrate import CalibrateConfig, calibrate_file
from cm2.policy import load_policy


@pytest.fixture
def run():
    app = typer.Typer()
    verb.register(app)

    def call(*argv):
        found = CliRunner().invoke(app, ["audit", *map(str, argv)])
        if found.exception is not None and not isinstance(found.exception, SystemExit):
            raise found.exception
        assert found.exit_code == 0, found.output
        return found.stdout

    return call


def test_sample_review_report_labels_and_export_as_json(run, tmp_path):
    files = logs(tmp_path)
    place = tmp_path / "audit.sqlite"
    flags = ("--verdicts", files["verdicts"], "--policy", files["policy"], "-n", 40, "-o", place, "--json")
    made = json.loads(run("sample", files["logs"], *flags))
    assert made["cases"] == 40 and sum(one["drawn"] for one in made["strata"]) == 40
    before = json.loads(run("report", place, "--json"))
    assert before["reviewed"] == 0 and before["covered"] == 0 and before["total"]["pass_rate"] is None
    agree(str(place), wrong=(0, 1, 2))
    after = json.loads(run("report", place, "--json"))
    assert after["covered"] == 1 and {one["name"] for one in after["duties"]} >= {"polite", "identity-first"}
    assert after["total"]["pass_rate"]["low"] <= after["total"]["pass_rate"]["value"]
    labels = tmp_path / "labels.jsonl"
    assert json.loads(run("labels", place, "-o", labels, "--json"))["labels"] == after["reviewed"]
    exported = json.loads(run("export-policy", place, "-o", tmp_path / "new.yaml", "--json"))
    assert exported["version"] == "1.5" and exported["edited"] == []


def test_what_a_person_reads_has_every_duty_and_says_what_is_missing(run, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    place = audit(tmp_path)
    text = run("report", place)
    for words in ("identity-first", "confirm-before-refund", "polite", "all", "not yet known about 100.0%"):
        assert words in text
    agree(place)
    agree(place, "bo", wrong=(1, 2))
    text = run("report", place)
    assert "2 cases on which people differ" in text and "kappa" in text and "not yet known" not in text


def test_labels_are_what_calibrate_reads(tmp_path, run):
    place = audit(tmp_path, count=60, unscored=0)
    wrong = (3, 4, 5, 6)
    agree(place, wrong=wrong)
    labels, output = tmp_path / "labels.jsonl", tmp_path / "calibration.json"
    run("labels", place, "-o", labels)
    config = CalibrateConfig(verdicts=[str(tmp_path / "verdicts.jsonl")], against=str(labels), output=str(output))
    found = calibrate_file(config)
    with Book(place) as book:
        reviewed = {one.case for one in book.reviews()}
    assert found.total.counts.n == len(reviewed) > 30
    assert found.total.counts.fp + found.total.counts.fn == len(reviewed & set(wrong)) > 0
    assert set(found.kinds) == {"identity-first", "confirm-before-refund", "polite"}


def test_even_labels_are_a_plain_sample(tmp_path, run):
    place = audit(tmp_path, count=60)
    agree(place)
    rows = tmp_path / "even.jsonl"
    run("labels", place, "-o", rows, "--even")
    kept = [json.loads(line) for line in rows.open()]
    with Book(place) as book:
        cases = [case for case in book.cases() if case.kind in ("pass", "fail")]
    least = min(case.probability for case in cases)
    expected = sum(least / case.probability for case in cases)
    assert 0 < len(kept) < len(cases) and abs(len(kept) - expected) < 4 * expected**0.5


def test_a_policy_is_exported_as_a_new_version_and_the_source_stays(run, tmp_path):
    place = audit(tmp_path)
    source = tmp_path / "policy.yaml"
    before = source.read_bytes()
    with Book(place) as book:
        spec = book.subject("polite").spec | {"question": "Is every reply polite?", "severity": "major"}
        book.change("polite", "ana", "edit", reason="all\nof them", version=1, spec=spec)
        book.change("identity-first", "bo", "retire", reason="moved", version=1)
        book.change("confirm-before-refund", "bo", "approve", reason="", version=1)
    new = tmp_path / "new.yaml"
    run("export-policy", place, "-o", new)
    made, old = load_policy(new), load_policy(source)
    assert source.read_bytes() == before
    assert (made.name, made.version) == ("shop", "1.5")
    assert made.duty("polite").question == "Is every reply polite?" and made.duty("polite").severity == "major"
    assert made.duty("identity-first").status == "retired"
    assert made.duty("confirm-before-refund") == old.duty("confirm-before-refund")
    text = new.read_text()
    assert "ana: edit polite: all of them" in text and "bo: retire identity-first: moved" in text
    for taken in (new, source):
        with pytest.raises(ConfigError, match="exists"):
            run("export-policy", place, "-o", taken)
    assert yaml.safe_load(run("export-policy", place, "-o", tmp_path / "x.yaml", "--version", "7b", "--json"))[
        "version"
    ] == "7b"  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after"), [("", "2"), ("1", "2"), ("1.9", "1.10"), ("2024-05", "2024-6"), ("draft", "draft-2")]
)
def test_the_next_version(before, after):
    from cm2.assure.audit.export import _next

    assert _next(before) == after


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Sample dialogues judged by their own checklists."""
    from cm2.cli.main import main

    folder = tmp_path_factory.mktemp("labelled")
    names = {name: str(folder / name) for name in ("d.jsonl", "t.jsonl", "v.jsonl")}
    for argv in (
        ["worlds", "make", "-o", names["d.jsonl"], "-n", "8"],
        ["label", names["d.jsonl"], "-o", names["t.jsonl"]],
        ["judge", names["t.jsonl"], "-o", names["v.jsonl"]],
    ):
        with pytest.raises(SystemExit) as stop:
            main([*argv, "--json"])
        assert stop.value.code == 0
    return folder


def test_items_of_checklists_are_reviewed_edited_and_exported_too(run, labelled, tmp_path):
    from cm2.checklist import validate
    from cm2.formats import read_tasks

    place = tmp_path / "a.sqlite"
    tasks = labelled / "t.jsonl"
    run("sample", tasks, "--verdicts", labelled / "v.jsonl", "-n", 30, "-o", place)
    with Book(str(place)) as book:
        items = book.subjects()
        gone, changed = items[0], items[1]
        book.change(gone.key, "ana", "retire", reason="says nothing", version=1)
        spec = changed.spec | {"question": "Was it done?"}
        book.change(changed.key, "ana", "edit", reason="plainer", version=1, spec=spec)
    made = json.loads(run("export-checklists", tasks, "--audit", place, "-o", tmp_path / "new.jsonl", "--json"))
    assert made["retired"] == [gone.key] and made["edited"] == [changed.key]

    def all_items(path):
        return {
            json.dumps([task.dialogue.id, checklist.turn, checklist.variant, item.id], separators=(",", ":")): item
            for _, task in read_tasks(path)
            for checklist in task.checklists
            for item in checklist.items
        }

    before, after = all_items(tasks), all_items(tmp_path / "new.jsonl")
    assert before.keys() - after.keys() == {gone.key}
    assert after[changed.key].question == "Was it done?"
    for _, task in read_tasks(tmp_path / "new.jsonl"):
        for checklist in task.checklists:
            assert not [one for one in validate(checklist, task.dialogue) if one.rule in ("weight_sum", "depends_on")]
    with pytest.raises(ConfigError, match="export-checklists"):
        run("export-policy", place, "-o", tmp_path / "p.yaml")


def test_other_logs_are_corrected_by_the_measured_error_rates(run, tmp_path):
    place = audit(tmp_path, count=60)
    agree(place, wrong=(0, 1, 2, 3))
    other = tmp_path / "other"
    other.mkdir()
    files = logs(other, 30)
    flags = ("--logs", files["logs"], "--verdicts", files["verdicts"])
    found = json.loads(run("report", place, *flags, "--json"))
    applied = {one["duty"]: one for one in found["applied"]}
    rates = found["total"]["rates"]
    whole = applied[""]
    expected = (whole["judged_rate"]["value"] + rates["specificity"] - 1) / (
        rates["sensitivity"] + rates["specificity"] - 1
    )
    assert whole["rogan_gladen"]["value"] == pytest.approx(min(1, max(0, expected)))
    assert whole["n"] == sum(one["n"] for name, one in applied.items() if name)
    assert "corrected by this audit" in run("report", place, *flags)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("report",), "no audit to open"),
        (("report", "none.sqlite"), "no such audit"),
        (("report", "none.sqlite", "--logs", "x"), "belong together"),
        (("serve", "none.sqlite", "--host", "0.0.0.0"), "allow-remote"),
        (("serve", "none.sqlite"), "no such audit"),
        (("labels", "none.sqlite", "-o", "x.jsonl"), "no such audit"),
        (("sample", "none.jsonl", "--verdicts", "v", "-o", "a.sqlite"), "no such file"),
    ],
)
def test_wrong_use_is_one_sentence(run, tmp_path, monkeypatch, argv, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CM2Error, match=says) as stopped:
        run(*argv)
    assert stopped.value.exit_code == 2


@pytest.mark.parametrize(("library", "module"), [("sqlalchemy", "tables"), ("starlette.applications", "server")])
def test_without_the_extra_it_is_named(monkeypatch, library, module):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"cm2.assure.audit.{module}", raising=False)
    with pytest.raises(MissingExtra, match=r"pip install 'cm2\[review\]'"):
        importlib.import_module(f"cm2.assure.audit.{module}")


def test_an_existing_audit_is_refused_before_anything_is_read(run, tmp_path):
    (tmp_path / "a.sqlite").write_text("reviews")
    with pytest.raises(ConfigError, match="never overwritten"):
        run("sample", "no.jsonl", "--verdicts", "no.jsonl", "-o", tmp_path / "a.sqlite")


def test_labels_of_nothing_are_refused(run, tmp_path):
    with pytest.raises(DataError, match="nothing is reviewed"):
        run("labels", audit(tmp_path), "-o", tmp_path / "l.jsonl")
