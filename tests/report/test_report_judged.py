"""`cm2 report LOGS --verdicts V`: every form of it, by the command line; what it refuses, and what it replaces."""

from __future__ import annotations

import json
import random
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from judged_logs import Files, payloads, row, sample, verdicts, write
from markdown_it import MarkdownIt
from page_reader import Page

from cm2.assure.outcomes import read_judged
from cm2.assure.tables import Diagnosing
from cm2.cli.main import main
from cm2.errors import ConfigError
from cm2.policy import load_policy
from cm2.report import DiagnosisConfig, write_diagnosis
from cm2.report import judged as module
from cm2.report.markdown import code, markdown
from cm2.report.page import digest


@pytest.fixture
def files(tmp_path) -> Files:
    return sample(tmp_path / "data", 6, 2)


def run(capsys, *argv: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main(["report", *argv])
    said = capsys.readouterr()
    return int(stopped.value.code or 0), said.out, said.err


def args(files: Files) -> list[str]:
    return [files.logs, "--verdicts", files.verdicts, "--policy", files.policy]


def test_the_terminal_shows_duties_modes_and_examples(files, capsys):
    code, out, _ = run(capsys, *args(files))
    assert code == 0
    words = " ".join(out.translate(str.maketrans(dict.fromkeys("│┃", " "))).split())
    assert "6 dialogues, 18 scored outcomes" in words
    assert "Nothing failed in 4 of 6 dialogues" in words
    assert "confirm critical 66.7 %" in words
    assert "4 failures in 2 modes" in words
    assert "2 │ 50.0 % │ confirm failed 2 times" in " ".join(out.split())
    assert {"before", "yes", "d0"} <= set(words.split())


def test_json_is_one_object_with_everything(files, capsys, tmp_path):
    target = tmp_path / "r.json"
    status, out, _ = run(capsys, *args(files), "--json", "-o", str(target))
    told = json.loads(out)
    assert status == 0
    assert {key: told[key] for key in ("dialogues", "passed", "failed", "not_applicable", "unscored")} == {
        "dialogues": 6, "passed": 14, "failed": 4, "not_applicable": 6, "unscored": 0,
    }  # fmt: skip
    confirm = next(one for one in told["duties"] if one["duty"] == "confirm")
    assert (confirm["rate"]["passed"], confirm["rate"]["n"], confirm["applicable"]) == (4, 6, 6)
    assert told["modes"]["modes"][0]["examples"][0]["dialogue"] == "d0"
    assert told["outputs"] == [str(target)]
    stored = json.loads(target.read_text())
    assert stored == {key: value for key, value in told.items() if key not in ("outputs", "shown")}


def test_parquet_has_a_typed_row_for_every_outcome(files, tmp_path):
    target = tmp_path / "r.parquet"
    write_diagnosis(
        DiagnosisConfig(logs=files.logs, verdicts=files.verdicts, policy=files.policy, outputs=[str(target)])
    )
    table = pq.read_table(target)
    assert {name: str(table.schema.field(name).type) for name in ("turn", "cost", "line", "reason")} == {
        "turn": "int32", "cost": "double", "line": "int64", "reason": "string",
    }  # fmt: skip
    rows = table.to_pylist()
    expected = [
        (one.dialogue, one.duty, one.result)
        for judged in read_judged(files.logs, files.verdicts, policy=load_policy(files.policy))
        for one in judged.outcomes
    ]
    assert [(one["dialogue"], one["duty"], one["result"]) for one in rows] == expected
    failed = next(one for one in rows if one["result"] == "fail")
    assert (failed["tool"], failed["step_class"], failed["cause"]) == (
        "book", "tool call", "book was called with … before a yes",
    )  # fmt: skip
    assert (failed["turn"], failed["severity"], failed["owner"], failed["weight"]) == (None, "critical", "Ann", 4.0)
    assert {one["turn"] for one in rows if one["duty"] == "polite"} == {0, 1}
    assert all(one["cause"] is None for one in rows if one["result"] != "fail")


def test_several_forms_come_from_one_command(files, tmp_path, capsys):
    names = [str(tmp_path / f"out/r.{suffix}") for suffix in ("html", "md", "json", "parquet")]
    status, _, _ = run(capsys, *args(files), *[word for name in names for word in ("-o", name)])
    assert status == 0
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == ["r.html", "r.json", "r.md", "r.parquet"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["-o", "r.pdf"], "r.pdf is of no form that is known (end it with .html, .md, .json, .parquet)"),
        (["--dialogues", "-1"], "dialogues is -1"),
        (["--checklists", "x.jsonl"], "there is a policy and there are checklists"),
        (["--verdicts", "none.jsonl"], "judge first: cm2 judge"),
        (["--policy", "none.yaml"], "none.yaml: there is no such file"),
    ],
)
def test_wrong_use_is_told_in_a_sentence(files, capsys, change, says):
    status, out, err = run(capsys, *args(files), *change)
    assert status == 2
    assert says in " ".join(err.split())
    assert "Traceback" not in err and out == ""


def test_flags_of_a_diagnosis_without_verdicts_are_refused(files, capsys):
    status, _, err = run(capsys, files.logs, "--policy", files.policy, "-o", "r.html")
    assert status == 2 and "--verdicts" in err
    status, _, err = run(capsys, files.logs, "-o", "r.md")
    assert status == 2 and "one HTML file" in err


def test_input_that_is_none_is_told(files, tmp_path, capsys):
    empty, wrong = tmp_path / "empty.jsonl", tmp_path / "wrong.jsonl"
    empty.write_text("")
    wrong.write_text('{"a": 1}\n')
    for logs in (str(empty), str(wrong), str(tmp_path / "none.jsonl")):
        status, _, err = run(capsys, logs, "--verdicts", files.verdicts, "--policy", files.policy)
        assert (
            status == 2 and "Traceback" not in err and logs.rsplit("/", 1)[1] in " ".join(err.split()).replace(" ", "")
        )
    status, _, err = run(capsys, files.logs, "--verdicts", files.logs, "--policy", files.policy)
    assert status == 2 and "no verdict" in err


def test_an_input_is_never_overwritten(files, tmp_path, capsys):
    before = Path(files.verdicts).read_bytes()
    linked = tmp_path / "v.json"
    linked.symlink_to(files.verdicts)
    status, _, err = run(capsys, *args(files), "-o", str(linked))
    assert status == 2 and "is an input" in err
    assert Path(files.verdicts).read_bytes() == before


def test_rows_that_do_not_read_are_told_and_left_out(files, capsys):
    with open(files.logs, "a") as logs:
        logs.write("{broken\n")
    status, out, _ = run(capsys, *args(files), "--json")
    told = json.loads(out)
    assert (status, told["dialogues"], told["unreadable"]) == (0, 6, 1)
    assert "line 7" in told["problems"][0]
    assert "1 row does not read" in told["notes"][0]


def test_the_same_command_gives_the_same_bytes(files, tmp_path):
    outputs = []
    for name in ("a", "b"):
        target = tmp_path / name / "r.html"
        target.parent.mkdir()
        config = DiagnosisConfig(logs=files.logs, verdicts=files.verdicts, policy=files.policy, outputs=[str(target)])
        write_diagnosis(config)
        outputs.append(target.read_bytes())
    assert outputs[0] == outputs[1]


def page(files: Files, target: Path, **settings) -> Page:
    config = DiagnosisConfig(
        logs=files.logs, verdicts=files.verdicts, policy=files.policy, outputs=[str(target)], **settings
    )
    write_diagnosis(config)
    return Page(target.read_text(encoding="utf-8"))


def data(found: Page, name: str):
    return json.loads(next(node.content for node in found.find("script") if node.own.get("id") == name))


def test_the_page_has_the_numbers_and_the_data_of_the_viewer(files, tmp_path):
    found = page(files, tmp_path / "r.html")
    assert not (tmp_path / "r.data").exists()
    cells = [" ".join(node.content.split()) for node in found.find("tr")]
    assert any(cell.startswith("confirm critical 66.7 % 30.0 – 90.3 2 4 0 0 2 of 6 Ann") for cell in cells)
    entries, dialogues = data(found, "index-0"), data(found, "part-0")
    assert [entry[0] for entry in entries] == [one["id"] for one in dialogues] == [f"d{n}" for n in range(6)]
    [call] = [part for part in dialogues[0]["turns"][0]["steps"][0] if part[0] == "call"]
    assert call[1] == [['book({"seats":4})', [0]]]  # verdict 0 rests on it
    assert dialogues[0]["verdicts"][0]["r"] == "f"
    [reply] = dialogues[0]["turns"][0]["steps"][1]
    polite = next(n for n, one in enumerate(dialogues[0]["verdicts"]) if one["t"] == 0)
    assert reply[1] == [["Booked for you", [polite]], ", table T4."]


def test_the_policy_of_a_single_page_allows_its_own_script_and_no_markup_from_strings(files, tmp_path):
    found = page(files, tmp_path / "r.html")
    [style] = found.find("style")
    code = [node for node in found.find("script") if "type" not in node.own]
    assert found.find("meta")[1].own["content"] == (
        f"default-src 'none'; style-src '{digest(style.content)}'; script-src '{digest(code[0].content)}'; "
        "require-trusted-types-for 'script'; trusted-types 'none'; base-uri 'none'; form-action 'none'"
    )
    assert len(code) == 1


def test_many_dialogues_lie_beside_the_page(files, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SINGLE", 5)
    found = page(files, tmp_path / "r.html")
    rules = [one.split() for one in (found.find("meta")[1].own["content"] or "").split("; ")]
    assert [one[0] for one in rules].count("script-src") == 1
    assert next(one for one in rules if one[0] == "script-src")[2:] == ["'strict-dynamic'"]
    assert ["require-trusted-types-for", "'script'"] in rules and ["trusted-types", "cm2"] in rules
    assert sorted(one.name for one in (tmp_path / "r.data").iterdir()) == ["index-0.js", "part-0.js"]
    text = (tmp_path / "r.data/part-0.js").read_text()
    build, name, body = json.loads("[" + text.removeprefix("cm2data(").removesuffix(");\n") + "]")
    assert (build, name) == (data(found, "meta")["build"], "part-0")
    assert [one["id"] for one in json.loads(body)] == [f"d{n}" for n in range(6)]
    assert text.isascii() and text.count("\n") == 1


def test_few_but_very_long_dialogues_lie_beside_the_page_too(files, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 1000)
    page(files, tmp_path / "r.html")
    assert (tmp_path / "r.data/part-0.js").exists()


def test_a_report_replaces_its_own_folder_and_nothing_else(files, tmp_path):
    target, folder = tmp_path / "r.html", tmp_path / "r.data"
    page(files, target, folder=True)
    (folder / "part-7.js").write_text("an earlier report had more")
    page(files, target, folder=True)
    assert sorted(one.name for one in folder.iterdir()) == ["index-0.js", "part-0.js"]
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds something else"):
        page(files, target, folder=True)
    assert (folder / "thesis.txt").read_text() == "mine"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["data", "r.data", "r.html"]


def test_of_more_dialogues_a_sample_with_the_examples_of_the_modes_is_shown(tmp_path):
    files = sample(tmp_path / "data", 60, 2)
    found = page(files, tmp_path / "r.html", dialogues=10)
    ids = [entry[0] for entry in data(found, "index-0")]
    assert len(ids) == 10 and {"d0", "d1"} <= set(ids)
    assert ids != [f"d{n}" for n in range(10)]
    again = page(files, tmp_path / "again.html", dialogues=10)
    assert [entry[0] for entry in data(again, "index-0")] == ids
    other = page(files, tmp_path / "other.html", dialogues=10, seed=1)
    assert [entry[0] for entry in data(other, "index-0")] != ids


def test_without_dialogues_the_page_has_tables_only(files, tmp_path):
    found = page(files, tmp_path / "r.html", dialogues=0)
    assert not [node for node in found.walk() if node.own.get("id") == "list"]
    assert found.find("table", "duties-table")


def test_a_very_long_dialogue_is_cut_and_says_so(tmp_path):
    long = row("d0", "word " * 100_000, "x" * 50_000)
    files = write(tmp_path / "data", [long], verdicts("d0"))
    found = page(files, tmp_path / "r.html")
    [dialogue] = data(found, "part-0")
    text, left = dialogue["turns"][0]["user"]
    assert len(text) == 4000 and left == 500_000 - 4000
    assert len(found.html) < 100_000


def test_credentials_and_invisible_characters_reach_no_output(tmp_path):
    secret = "sk-proj-ABCDEFGHIJ0123456789 \x1b[31m"
    [first, *others] = verdicts("d0", confirm=False)
    store = [msgspec.structs.replace(first, reason=f"said {secret}"), *others]
    files = write(tmp_path / "data", [row("d0", secret, secret)], store)
    outputs = [str(tmp_path / f"r.{suffix}") for suffix in ("html", "md", "json", "parquet")]
    write_diagnosis(DiagnosisConfig(logs=files.logs, verdicts=files.verdicts, policy=files.policy, outputs=outputs))
    for output in outputs:
        body = Path(output).read_bytes()
        assert b"ABCDEFGHIJ0123456789" not in body and b"\x1b[31m" not in body, output
    assert "[hidden]" in Path(outputs[0]).read_text() and "[hidden]" in Path(outputs[2]).read_text()


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.outside: list[str] = []
        self._code = 0

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self._code += tag == "code"

    def handle_endtag(self, tag):
        self._code -= tag == "code"

    def handle_data(self, text):
        if not self._code:
            self.outside.append(text)


def rendered(text: str) -> _Tags:
    found = _Tags()
    found.feed(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text))
    return found


@pytest.mark.parametrize("attack", payloads())
def test_markdown_shows_hostile_text_as_code_in_its_cell_and_as_nothing_else(attack):
    table = f"| a | b |\n|---|---|\n| {code(attack)} | end |\n\n- {code(attack)} — {code(attack)}\n"
    found = rendered(table)
    assert {tag for tag, _ in found.found} <= {"table", "thead", "tbody", "tr", "th", "td", "ul", "li", "code"}
    assert [tag for tag, _ in found.found].count("td") == 2
    assert [tag for tag, _ in found.found].count("code") == 3
    assert " ".join("".join(found.outside).split()) == "a b end —"


def test_a_whole_markdown_report_of_hostile_data_has_no_link_image_html_or_mention(tmp_path):
    found = Diagnosing()
    texts = payloads()
    random.Random(0).shuffle(texts)
    for number, text in enumerate(texts[:40]):
        duties = [{"id": text, "question": text, "owner": text, "severity": "critical"}]
        store = [msgspec.structs.replace(verdicts(text, confirm=False)[0], item=text, reason=text, judge=text)]
        files = write(tmp_path / str(number), [row(text)], store, duties)
        for judged in read_judged(files.logs, files.verdicts, policy=load_policy(files.policy)):
            found.add(judged)
    tags = rendered(markdown(found.finish(problems=texts), "<b>logs</b>.jsonl"))
    allowed = {"h2", "h3", "p", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "code", "strong", "blockquote"}
    assert {tag for tag, _ in tags.found} <= allowed
    assert not {name for _, attributes in tags.found for name in attributes} - {"style"}  # text-align of columns
    assert "@" not in "".join(tags.outside) and "http" not in "".join(tags.outside)


def test_markdown_is_short_whatever_the_number_of_duties(tmp_path):
    duties = [{"id": f"duty-{n}", "question": "x?"} for n in range(300)]
    store = [
        msgspec.structs.replace(verdicts("d0", False)[0], item=f"duty-{n}", reason=f"r{'abc'[n % 3]}")
        for n in range(300)
    ]
    files = write(tmp_path / "data", [row("d0")], store, duties)
    write_diagnosis(
        DiagnosisConfig(logs=files.logs, verdicts=files.verdicts, policy=files.policy, outputs=[str(tmp_path / "r.md")])
    )
    text = (tmp_path / "r.md").read_text()
    assert len(text) < 8000 and "275 more duties" in text and "292 more modes" in text
