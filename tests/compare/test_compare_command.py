"""`cm2 compare A B`: what it reads, what it writes, what it refuses, exit codes."""

from __future__ import annotations

import json
import re

import orjson
import pytest

from cm2.assure.compare import CompareConfig, compare
from cm2.assure.gate_case import Case, GateResult, write_result
from cm2.checklist import Task
from cm2.cli import main as command_line
from cm2.formats import write_task
from cm2.rollout.trace import Failure, Rollout, encode
from cm2.verdict import Verdict
from compare.compare_command import go, summary
from rollout.coffee_task import task

POLICY = """
name: coffee
duties:
- id: look-first
  question: Is the menu searched before anything is added?
  severity: critical
  check: {type: called, tool: find_items}
- id: tell-hours
  question: Does it look the hours up?
  severity: minor
  check: {type: called, tool: get_opening_hours}
"""


def coffee(number: int, *, adds: bool = True, reward: float | None = None) -> Task:
    made = task()
    made.dialogue.id = f"coffee-{number:02}"
    if not adds:
        made.dialogue.turns[0].steps.pop(2)
    if reward is not None:
        made.dialogue.meta = {"reward": reward}
    return made


def rows(path, tasks: list[Task]) -> str:
    path.write_text("".join(json.dumps(write_task(one, "openai")) + "\n" for one in tasks))
    return str(path)


@pytest.fixture
def logs(tmp_path) -> tuple[str, str]:
    """Twenty dialogues; B does not add the item in eight of them."""
    old = rows(tmp_path / "old.jsonl", [coffee(i, reward=1.0) for i in range(20)])
    return old, rows(tmp_path / "new.jsonl", [coffee(i, adds=i >= 8, reward=float(i >= 8)) for i in range(20)])


def duty(found, name: str):
    return next(one for one in found["duties"] if one["duty"] == name)


def test_two_files_of_dialogues_are_judged_by_their_checklists_and_compared(logs, capsys):
    found = summary(capsys, *logs)
    call = duty(found, "assistant.tool_calls add_item")
    assert (call["change"], call["contrast"]["worse"], call["contrast"]["n"]) == ("worse", 8, 20)
    assert call["contrast"]["p"] == pytest.approx(2 / 2**8) and call["correction"] == "benjamini-hochberg"
    assert [flip["task"] for flip in call["got_worse"]] == ["coffee-00", "coffee-01", "coffee-02"]
    assert call["got_worse"][0]["reason"] == "turn 0: 0 of 1 matching calls of add_item"
    metrics = {one["name"]: one for one in found["metrics"]}
    assert metrics["outcome"]["contrast"]["worse"] == 8 and metrics["score"]["change"] == "worse"


def test_stores_of_verdicts_say_the_same_as_judging_now(logs, tmp_path, capsys):
    stores = []
    for name, log in zip("ab", logs, strict=True):
        stores.append(str(tmp_path / f"{name}.verdicts"))
        with pytest.raises(SystemExit):
            command_line.main(["judge", log, "-o", stores[-1]])
    stored = summary(capsys, *logs, "--verdicts-a", stores[0], "--verdicts-b", stores[1])
    assert stored["duties"] == summary(capsys, *logs)["duties"]


def test_a_policy_judges_both(logs, tmp_path, capsys):
    (tmp_path / "policy.yaml").write_text(POLICY)
    found = summary(capsys, *logs, "--policy", str(tmp_path / "policy.yaml"))
    assert [(one["duty"], one["severity"]) for one in found["duties"]] == [
        ("look-first", "critical"),
        ("tell-hours", "minor"),
    ]
    assert all(one["contrast"]["n"] == 20 and one["contrast"]["a"] == 1.0 for one in found["duties"])


def test_checklists_of_another_file_judge_both(logs, tmp_path, capsys):
    bare = [
        rows(tmp_path / f"bare-{i}.jsonl", [Task(coffee(n, adds=i == 0 or n >= 8).dialogue) for n in range(20)])
        for i in (0, 1)
    ]
    found = summary(capsys, *bare, "--checklists", logs[0])
    assert duty(found, "assistant.tool_calls add_item")["contrast"]["worse"] == 8
    assert go(*bare) == 2 and "no dialogue has a checklist" in capsys.readouterr().err


def test_runs_with_ids_of_their_own_are_paired_by_a_field(tmp_path, capsys):
    files = []
    for name, adds in (("a", True), ("b", False)):
        made = []
        for number in range(12):
            one = coffee(number, adds=adds or number % 3 > 0)
            one.dialogue.id, one.dialogue.meta = f"{name}-{number}", {"task": number // 2}
            made.append(one)
        files.append(rows(tmp_path / f"{name}.jsonl", made))
    found = summary(capsys, *files, "--pair-by", "task")
    call = duty(found, "assistant.tool_calls add_item")["contrast"]
    assert (found["tasks"], call["n"], call["worse"], call["b"], call["test"]) == (
        6,
        6,
        4,
        pytest.approx(2 / 3),
        "sign flips",
    )
    assert go(*files) == 2 and "share no dialogue id" in capsys.readouterr().err
    assert go(*files, "--pair-by", "nothing") == 2 and "its meta has no 'nothing'" in capsys.readouterr().err


def rollout(number: int, met: bool | None, member: int = 0, failure: str = "") -> bytes:
    made = coffee(number)
    verdicts = [Verdict(made.dialogue.id, 0, 0, "C1", met), Verdict(made.dialogue.id, 1, 0, "C1", True)]
    one = Rollout(made.dialogue.id, made.dialogue, member=member, checklists=made.checklists, verdicts=verdicts)
    one.reference_turns, one.reason, one.outcome = 2, "completed", {"success": bool(met)}
    one.score = {"reward": 0.5 + 0.5 * bool(met), "strict_pass": bool(met)}
    if failure:
        one.failure, one.outcome, one.score = Failure(failure, "503"), {}, {}
    return encode(one)


def test_rollouts_are_compared_by_the_verdicts_on_their_record(tmp_path, capsys):
    old, new = tmp_path / "old", tmp_path / "new.jsonl"
    old.mkdir()
    (old / "rollouts.jsonl").write_bytes(b"".join(rollout(i, True) + b"\n" for i in range(12)))
    lines = [rollout(i, i >= 7) for i in range(10)] + [rollout(10, False, failure="provider"), rollout(11, None)]
    new.write_bytes(b"".join(line + b"\n" for line in lines))
    found = summary(capsys, str(old), str(new))
    assert (found["a"]["kind"], found["b"]["lost"], found["lost_tasks"]) == ("rollouts", {"provider": 1}, 1)
    call = duty(found, "assistant.tool_calls add_item")
    assert (call["contrast"]["n"], call["contrast"]["worse"], call["unscored"]) == (10, 7, 2)
    metrics = {one["name"]: one["contrast"] for one in found["metrics"]}
    assert {"reward", "strict_pass", "outcome"} <= metrics.keys()
    assert (metrics["reward"]["n"], metrics["strict_pass"]["worse"]) == (11, 8)


def test_the_last_record_of_a_run_that_was_tried_again_counts(tmp_path, capsys):
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    old.write_bytes(rollout(0, True) + b"\n")
    new.write_bytes(rollout(0, False, failure="provider") + b"\n" + rollout(0, True) + b"\n" + rollout(1, True)[:50])
    found = summary(capsys, str(old), str(new))
    assert found["b"]["lost"] == {} and found["tasks"] == 1 and found["b"]["runs"] == 1


def gate(path, failing: int) -> str:
    cases = []
    for number in range(20):
        bad = number < failing
        cases.append(Case(f"d{number}", "confirm", "critical", passed=int(not bad), failed=int(bad), reason="no yes"))
        cases.append(
            Case(f"d{number}", "polite", "minor", unscored=1)
            if number < 4
            else Case(f"d{number}", "polite", "minor", passed=1)
        )
    write_result(GateResult("suite", "passed", cases=cases), str(path))
    return str(path)


def test_two_results_of_gates_are_compared(tmp_path, capsys):
    found = summary(capsys, gate(tmp_path / "old.json", 0), gate(tmp_path / "new.json", 7))
    confirm, polite = found["duties"]
    assert (confirm["duty"], confirm["change"], confirm["p"], confirm["correction"]) == (
        "confirm",
        "worse",
        2 / 2**7,
        "holm",
    )
    assert confirm["got_worse"][0] == {"task": "d0", "a": 1.0, "b": 0.0, "reason": "no yes"}
    assert (polite["unscored"], polite["contrast"]["n"]) == (4, 16)


def test_exit_code_one_only_where_it_is_asked_for_and_a_duty_is_worse(logs, capsys):
    assert go(*logs) == 0 and go(*logs, "--fail-on", "worse") == 1
    assert go(logs[0], logs[0], "--fail-on", "worse") == 0
    assert go(logs[1], logs[0], "--fail-on", "worse") == 0  # better is no failure


def test_an_agent_is_not_different_from_itself(logs, capsys):
    found = summary(capsys, logs[0], logs[0])
    assert all(one["change"] in ("could be chance", "not compared") for one in found["duties"])
    assert all(one["contrast"]["difference"] == 0 for one in found["duties"] if one["contrast"])


def test_compressed_and_parquet_files_are_read(logs, tmp_path, capsys):
    import gzip

    packed = tmp_path / "new.jsonl.gz"
    packed.write_bytes(gzip.compress((tmp_path / "new.jsonl").read_bytes()))
    assert summary(capsys, logs[0], str(packed))["duties"] == summary(capsys, *logs)["duties"]


def test_rows_that_do_not_read_are_told_and_skipped(logs, tmp_path, capsys):
    with open(logs[1], "a") as file:
        file.write("{broken\n")
    found = summary(capsys, *logs)
    assert found["b"]["unreadable"] == 1 and found["tasks"] == 20
    assert any(note.startswith("1 rows of B do not read: line 21") for note in found["notes"])


EVIL = "](javascript:alert(1)) <img src=x onerror=alert(1)> | `` ` @everyone #1 \u202e\n# heading"


def evil(logs):
    """A comparison in which every text of the data is hostile."""
    found = compare(CompareConfig(a=logs[0], b=logs[1], name_a=EVIL, name_b=EVIL))
    for one in found.duties:
        one.duty, one.owner, one.question = f"{one.duty} {EVIL}", EVIL, EVIL
        for flip in one.got_worse:
            flip.task, flip.reason = f"{flip.task} {EVIL}", EVIL
    found.a.source = found.b.source = EVIL
    found.notes = [EVIL]
    return found


def test_markdown_keeps_hostile_text_in_code(logs):
    from cm2.report.compare_markdown import markdown

    text = markdown(evil(logs))
    without_code = re.sub(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", "", text)
    for bad in ("javascript", "<img", "@everyone", "# heading", "#1", "\u202e"):
        assert bad not in without_code, bad
    assert "\u202e" not in text and "javascript" in text
    tables = [line for line in without_code.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} == {8, 11, 6}  # no cell more than there are columns


def test_the_page_has_no_live_html_of_the_data(logs):
    from html.parser import HTMLParser

    from cm2.report.compare_page import page

    class Tags(HTMLParser):
        seen: list[tuple[str, list]] = []

        def handle_starttag(self, tag, attrs):
            self.seen.append((tag, attrs))

    text = page(evil(logs))
    parser = Tags()
    parser.feed(text)
    assert "img" not in {tag for tag, _ in parser.seen}
    assert not [
        attrs
        for _, attrs in parser.seen
        if any(name.startswith("on") or "javascript" in (v or "") for name, v in attrs)
    ]
    assert "default-src 'none'" in text.replace("&#39;", "'") and "<svg" in text


def test_files_are_written_by_their_ending_and_say_the_same(logs, tmp_path, capsys):
    names = [str(tmp_path / f"out.{end}") for end in ("md", "html", "json")]
    found = summary(capsys, *logs, *(word for name in names for word in ("-o", name)))
    assert orjson.loads((tmp_path / "out.json").read_bytes()) == found
    told = (tmp_path / "out.md").read_text()
    assert "**▼ worse**" in told and "`coffee-00`" in told and "8 / " not in told and "0 / 8" in told
    assert "coffee-00" in (tmp_path / "out.html").read_text()


def test_the_terminal_shows_what_changed(logs, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    assert go(*logs) == 0
    shown = capsys.readouterr().out
    assert "100.0 → 60.0" in shown and "worse in coffee-00, coffee-01, coffee-02" in shown


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["{a}"], "a comparison is of two; 1 given"),
        ([], "a comparison is of two; 0 given"),
        (["{a}", "absent.jsonl"], "absent.jsonl"),
        (["{a}", "{b}", "-o", "out.txt"], "no ending that says what to write"),
        (["{a}", "{b}", "--fail-on", "better"], "--fail-on knows no 'better'"),
        (["{a}", "{b}", "--alpha", "0"], "--alpha is 0"),
        (["{a}", "{b}", "--names", "one"], "are not two names"),
        (["{a}", "{b}", "--verdicts-a", "{a}"], "give --verdicts-b too"),
        (["{a}", "{b}", "--policy", "absent.yaml"], "there is no such file"),
        (["{a}", "{b}", "--rate", "0.8"], "add --plan"),
        (["{a}", "{b}", "--model-a", "m"], "two endpoints play one file of tasks"),
        (["{a}", "--plan", "--rate", "0.8", "--lift", "0.1"], "a plan reads nothing"),
        (["--plan"], "there is nothing to plan"),
        (["--plan", "--lift", "0.1"], "give --rate"),
        (["--plan", "--rate", "0.95", "--lift", "0.1"], "must be from 0 to 1"),
    ],
)
def test_wrong_use_is_one_sentence(logs, argv, message, capsys):
    assert go(*(word.format(a=logs[0], b=logs[1]) for word in argv)) == 2
    told = capsys.readouterr().err
    assert message in " ".join(told.split()) and "Traceback" not in told


def test_files_of_another_kind_are_refused(logs, tmp_path, capsys):
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "other.json").write_text('{"some": "thing"}')
    (tmp_path / "verdicts.jsonl").write_text('{"dialogue":"else","turn":0,"step":0,"item":"C0","met":true}\n')
    for name in ("empty.jsonl", "other.json"):
        assert go(logs[0], str(tmp_path / name)) == 2
        assert name in capsys.readouterr().err
    store = str(tmp_path / "verdicts.jsonl")
    assert go(*logs, "--verdicts-a", store, "--verdicts-b", store) == 2
    assert "no verdict in it is about" in " ".join(capsys.readouterr().err.split())


def test_a_plan_is_printed_before_anything_is_run(capsys):
    found = summary(capsys, "--plan", "--rate", "0.8", "--lift", "0.05", "--correlation", "0.5")
    assert found["plans"][0]["pairs"] == 488 and found["plans"][0]["discordance"] == pytest.approx(0.14717, abs=1e-5)
    found = summary(capsys, "--plan", "--pairs", "200", "--discordance", "0.15")
    assert found["detectable"] == {"0.15": pytest.approx(0.0794, abs=0.001)}


def test_the_result_does_not_depend_on_the_order_of_rows(logs, tmp_path, capsys):
    lines = (tmp_path / "new.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "turned.jsonl").write_text("".join(lines[::-1]))
    one = compare(CompareConfig(a=logs[0], b=logs[1]))
    other = compare(CompareConfig(a=logs[0], b=str(tmp_path / "turned.jsonl")))
    assert one.duties == other.duties and one.metrics == other.metrics
