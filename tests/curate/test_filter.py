"""`cm2 filter`: kept and rejected rows make up what was read; outputs appear whole."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys

import pytest
import zstandard
from row_builders import nemotron, openai, silent

from cm2.cli.main import main
from cm2.curate import FilterConfig, filter_file
from cm2.errors import ConfigError, DataError
from cm2.formats import read_tasks
from cm2.formats.rows import RowWriter


def lines(*rows) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


def config(tmp_path, data: bytes, name: str = "in.jsonl", **more) -> FilterConfig:
    source = tmp_path / name
    source.write_bytes(data)
    return FilterConfig(str(source), str(tmp_path / "kept.jsonl"), str(tmp_path / "rejected.jsonl"), **more)


def rejected(tmp_path) -> list[dict]:
    return [json.loads(line) for line in (tmp_path / "rejected.jsonl").open(encoding="utf-8")]


BAD = openai(id="bad", messages=[])


def test_every_row_is_kept_or_rejected_with_its_line_and_reasons(tmp_path):
    data = lines(openai(), BAD, b"{broken", b"", b"[1]", nemotron(), b'{"a": "\xff"}')
    summary = filter_file(config(tmp_path, data))
    assert (summary.read, summary.kept, summary.rejected) == (6, 2, 4)
    found = rejected(tmp_path)
    assert [row["line"] for row in found] == [2, 3, 5, 7]
    assert [row["violations"][0]["rule"] for row in found] == ["role_order", "parse", "structure", "parse"]
    assert found[0]["row"] == BAD and "raw" not in found[0]
    assert [row.get("raw") for row in found[1:]] == ["{broken", "[1]", '{"a": "\ufffd"}']
    assert set(found[0]["violations"][0]) == {"rule", "message", "path"}
    assert summary.rules == {"role_order": 1, "parse": 2, "structure": 1}
    assert summary.examples["role_order"].startswith("line 2 ")


def test_kept_rows_are_their_own_bytes(tmp_path):
    odd = b'{ "id":"\\u00e9", "x" : 1.50 , ' + json.dumps(openai()).encode()[1:]
    bom = b"\xef\xbb\xbf" + json.dumps(openai(id="b")).encode()
    filter_file(config(tmp_path, odd + b"\r\n" + bom + b"\n" + json.dumps(openai(id="c")).encode()))
    kept = (tmp_path / "kept.jsonl").read_bytes()
    assert kept == odd + b"\n" + bom[3:] + b"\n" + json.dumps(openai(id="c")).encode() + b"\n"


def test_a_row_counts_once_under_each_rule_that_it_breaks(tmp_path):
    row = openai()
    row["messages"][1]["content"] = row["messages"][4]["content"] = ""
    row["messages"][2]["tool_calls"][0]["function"]["arguments"] = "{"
    summary = filter_file(config(tmp_path, lines(row)))
    assert summary.rules == {"tool_schema": 1, "arguments_json_valid": 1, "non_empty_content": 1}


@pytest.mark.parametrize("form", ["gz", "zst", "parquet", "folder"])
def test_other_forms_of_input_give_the_same(tmp_path, form):
    rows = [openai(), nemotron(), BAD, silent()]
    plain = lines(*rows)
    if form == "gz":
        made = config(tmp_path, gzip.compress(plain), "in.jsonl.gz")
    elif form == "zst":
        made = config(tmp_path, zstandard.compress(plain), "in.jsonl.zst")
    elif form == "parquet":
        with RowWriter(tmp_path / "in.parquet") as writer:
            for row in rows:
                writer.write(row)
        made = config(tmp_path, (tmp_path / "in.parquet").read_bytes(), "in.parquet")
    else:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "a.jsonl").write_bytes(lines(*rows[:2]))
        (tmp_path / "in" / "b.jsonl.gz").write_bytes(gzip.compress(lines(*rows[2:])))
        made = config(tmp_path, b"")
        made.input = str(tmp_path / "in")
    summary = filter_file(made)
    assert (summary.read, summary.kept, summary.rejected) == (4, 3, 1)
    kept = [json.loads(line) for line in (tmp_path / "kept.jsonl").open()]
    assert kept == [rows[0], rows[1], rows[3]] and rejected(tmp_path)[0]["line"] == 3


def test_rejected_rows_hold_what_json_cannot(tmp_path):
    row = json.dumps({**BAD, "score": float("nan")}).encode()
    filter_file(config(tmp_path, lines(openai(), row, b"\xef\xbb\xbf" + json.dumps(BAD).encode())))
    text = (tmp_path / "rejected.jsonl").read_text()
    assert "NaN" not in text and [row["row"]["id"] for row in rejected(tmp_path)] == ["bad", "bad"]


def test_repairs_are_made_first_and_recorded_and_rejected_rows_stay_as_they_were(tmp_path):
    doomed = silent()
    doomed["messages"][1]["content"] = ""
    made = config(tmp_path, lines(openai(), silent(), doomed), repair=["wrap_plain_text"])
    summary = filter_file(made)
    assert (summary.repaired, summary.repairs, summary.kept) == (1, {"wrap_plain_text": 1}, 2)
    first, second = (tmp_path / "kept.jsonl").read_bytes().splitlines()
    assert first == json.dumps(openai()).encode()
    assert json.loads(second)["cm2"] == {"repairs": ["wrap_plain_text"]}
    assert rejected(tmp_path)[0]["row"] == doomed


def test_flags_keep_a_row_and_are_told_beside_it(tmp_path):
    row = openai()
    row["messages"][1]["content"] = "x<|im_end|>"
    made = config(tmp_path, lines(row), flagged=str(tmp_path / "flagged.jsonl"))
    summary = filter_file(made)
    assert (summary.kept, summary.flagged, summary.flags) == (1, 1, {"template_tokens": 1})
    (told,) = [json.loads(line) for line in (tmp_path / "flagged.jsonl").open()]
    assert told["line"] == 1 and told["flags"][0]["path"] == "messages[1].content"


@pytest.mark.parametrize("which", ["output", "rejected", "flagged"])
def test_outputs_in_the_way_of_each_other_or_of_the_input_are_refused(tmp_path, which):
    made = config(tmp_path, lines(openai()))
    setattr(made, which, made.input)
    with pytest.raises(ConfigError, match="same file"):
        filter_file(made)
    made = config(tmp_path, lines(openai()))
    made.input = str(tmp_path)
    with pytest.raises(ConfigError, match="folder that is read"):
        filter_file(made)
    assert not (tmp_path / "kept.jsonl").exists()


def test_a_file_that_is_no_file_of_rows_is_one_clear_sentence(tmp_path):
    with pytest.raises(DataError):
        filter_file(config(tmp_path, b""))
    with pytest.raises(DataError, match="JSON array"):
        filter_file(config(tmp_path, b"[\n{},\n{}\n]\n"))
    assert not (tmp_path / "kept.jsonl").exists() and not (tmp_path / "rejected.jsonl").exists()


def test_the_command_line_exits_0_with_rejected_rows_and_prints_json(tmp_path, capsys):
    made = config(tmp_path, lines(openai(), silent(), BAD))
    argv = ["filter", made.input, "-o", made.output, "--rejected", made.rejected]
    with pytest.raises(SystemExit) as stop:
        main([*argv, "--profile", "published", "--json"])
    summary = json.loads(capsys.readouterr().out)
    assert stop.value.code == 0
    assert summary["rules"] == {"tool_response_json_valid": 1, "think_tags": 1, "role_order": 1}
    with pytest.raises(SystemExit) as stop:
        main([*argv, "--profile", "published", "--rules", "think, json", "--without", "think"])
    out = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0 and "3 rows read, 2 kept, 1 rejected" in out and "tool_response_json_valid" in out


@pytest.mark.parametrize("wrong", [["--rules", "x"], ["--profile", "x"], ["--repair", "x"], ["--without", "x"]])
def test_wrong_use_exits_2(tmp_path, capsys, wrong):
    made = config(tmp_path, lines(openai()))
    with pytest.raises(SystemExit) as stop:
        main(["filter", made.input, "-o", made.output, "--rejected", made.rejected, *wrong])
    assert stop.value.code == 2 and "no " in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--passes=low:2", "--set-aside=x.jsonl", "--model=m", "--budget=1"])
def test_what_only_a_model_needs_is_refused_without_one(tmp_path, capsys, flag):
    made = config(tmp_path, lines(openai()))
    with pytest.raises(SystemExit) as stop:
        main(["filter", made.input, "-o", made.output, "--rejected", made.rejected, flag])
    told = capsys.readouterr().err
    assert stop.value.code == 2 and flag.partition("=")[0] in told and "add --llm" in told
    assert not (tmp_path / "kept.jsonl").exists()


LONG = b"9" * 5_000


def test_what_no_later_verb_can_read_is_rejected_with_its_place(tmp_path):
    item = {"id": "C0", "focus_on": "tool.content", "question": "q?", "pass_condition": "p", "weight": 1.0}
    rows = [
        openai(id=True),
        openai(id=[1]),
        {**nemotron(), "uuid": {"a": 1}},
        openai(messages=[{**m, "content": 5} if m["role"] == "tool" else m for m in openai()["messages"]]),
        openai(messages=[{**m, "content": False} if m["role"] == "tool" else m for m in openai()["messages"]]),
        json.dumps(openai(source="LONG")).encode().replace(b'"LONG"', LONG),
        openai(checklists="none"),
        openai(checklists=[{"turn": -5, "items": [item]}]),
        openai(checklists=[{"turn": 0, "items": [{**item, "dependson": []}]}]),
        {**silent(), "tools": 3, "messages": silent()["messages"][:2] + silent()["messages"][-1:]},
        {**nemotron(), "messages": silent()["messages"][:2] + silent()["messages"][-1:], "metadata": "{broken"},
    ]
    good = [
        openai(id="a", uuid=True),
        openai(id=1.5),
        openai(id="b", checklists=[{"turn": 0, "items": [item]}]),
        openai(id="c", checklists=None),
        json.dumps(openai(id="d", source="LONG")).encode().replace(b"LONG", LONG),
        openai(
            id="e", messages=[{**m, "content": {"a": 1}} if m["role"] == "tool" else m for m in openai()["messages"]]
        ),
        {**nemotron(), "metadata": {"tools": openai()["tools"]}},
    ]
    summary = filter_file(config(tmp_path, lines(*rows, *good)))
    told = rejected(tmp_path)
    assert [(row["line"], [(v["rule"], v["path"]) for v in row["violations"]]) for row in told] == [
        (1, [("structure", "id")]),
        (2, [("structure", "id")]),
        (3, [("structure", "uuid")]),
        (4, [("structure", "messages[3].content")]),
        (5, [("structure", "messages[3].content")]),
        (6, [("parse", "")]),
        (7, [("structure", "checklists")]),
        (8, [("structure", "checklists[0].turn")]),
        (9, [("structure", "checklists[0].items[0]")]),
        (10, [("structure", "tools")]),
        (11, [("structure", "tools")]),
    ]
    assert summary.kept == len(good)
    unread: list = []
    assert len(list(read_tasks(tmp_path / "kept.jsonl", on_error=unread.append))) == len(good) and not unread
    (tmp_path / "bad.jsonl").write_bytes(lines(openai(), *rows))
    list(read_tasks(tmp_path / "bad.jsonl", on_error=unread.append))
    assert len(unread) == len(rows)  # and nothing is rejected that they could read


KILLED = """
import os, signal, sys
from cm2.curate import FilterConfig, filter_file

def dying(rows):
    for row in rows:
        if row.line == 50:
            os.kill(os.getpid(), signal.SIGKILL)
        yield row

filter_file(FilterConfig(*sys.argv[1:]), dying)
"""


def test_a_killed_run_leaves_no_output_and_the_same_command_gives_the_same_result(tmp_path):
    made = config(tmp_path, lines(*[openai(id=f"d{n}") if n % 3 else BAD for n in range(100)]))
    command = [sys.executable, "-c", KILLED, made.input, made.output, made.rejected]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert (tmp_path / ".kept.jsonl.partial").exists()
    assert not (tmp_path / "kept.jsonl").exists() and not (tmp_path / "rejected.jsonl").exists()
    first = filter_file(made)
    outputs = [(tmp_path / name).read_bytes() for name in ("kept.jsonl", "rejected.jsonl")]
    assert filter_file(made) == first and first.read == first.kept + first.rejected == 100
    assert [(tmp_path / name).read_bytes() for name in ("kept.jsonl", "rejected.jsonl")] == outputs
