"""Rows of files: told apart from wrong files, written whole or not at all."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from cm2.cli.main import explain
from cm2.errors import CM2Error, DataError
from cm2.formats import Row, RowWriter, read_rows

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
SUFFIXES = [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"]


def values(path) -> list:
    return [row.value for row in read_rows(path)]


def test_rows_carry_line_value_text_and_file(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"a": 1}\r\n\n  \n{"b": 2}')
    assert list(read_rows(path)) == [
        Row(1, {"a": 1}, file=str(path), text=b'{"a": 1}'),
        Row(4, {"b": 2}, file=str(path), text=b'{"b": 2}'),
    ]


def test_a_broken_line_is_a_row_with_an_error_and_stops_nothing(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": \n[1]\n"x"\n\xff\n{"a": 2}\n')
    rows = list(read_rows(path))
    assert [row.value for row in rows] == [{"a": 1}, None, None, None, None, {"a": 2}]
    assert [row.error is None for row in rows] == [True, False, False, False, False, True]
    assert rows[2].error == "the row is a list, not a JSON object" and rows[4].raw == "\ufffd"


def test_the_files_of_a_folder_are_read_in_order_and_lines_run_on(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.jsonl").write_text('{"n": 3}\n')
    (tmp_path / "deep" / "c.jsonl.gz").write_bytes(gzip.compress(b'{"n": 4}\n'))
    (tmp_path / "a.jsonl").write_text('{"n": 1}\n\n{"n": 2}\n')
    (tmp_path / "notes.txt").write_text("no rows")
    assert [(row.line, row.value["n"], os.path.basename(row.file)) for row in read_rows(tmp_path)] == [
        (1, 1, "a.jsonl"),
        (3, 2, "a.jsonl"),
        (4, 3, "b.jsonl"),
        (5, 4, "c.jsonl.gz"),
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (PNG, "JSON lines"),
        (b'[\n  {"a": 1},\n  {"a": 2}\n]\n', "jq -c"),
        (b'[{"a": 1}, {"a": 2}]', "jq -c"),
        (b'{\n  "a": 1\n}\n', "jq -c"),
        (b"", "empty"),
        (b"\n \n", "blank"),
        (b"id,text\n1,x\n", "JSON lines"),
        (gzip.compress(b"id,text\n" * 1000)[:40], "JSON lines"),
        (b"PAR1 but not really", "Parquet"),
    ],
)
def test_a_wrong_file_is_one_error_that_names_it(content, says, tmp_path):
    path = tmp_path / "wrong.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=says) as caught:
        list(read_rows(path))
    assert str(caught.value).startswith(str(path))


def test_a_parquet_file_without_rows_has_none(tmp_path):
    with RowWriter(tmp_path / "out.parquet"):
        pass
    with pytest.raises(DataError, match=r"the file has no rows$"):
        list(read_rows(tmp_path / "out.parquet"))


def test_what_is_hidden_in_a_folder_is_passed_over(tmp_path):
    data = tmp_path / ".data"
    for name in ("a.jsonl", ".b.jsonl", ".old/c.jsonl"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(f'{{"n": "{name}"}}\n')
    assert values(data) == [{"n": "a.jsonl"}]
    (data / "a.jsonl").unlink()
    with pytest.raises(DataError, match="folder without row files"):
        list(read_rows(data))


def test_a_large_wrong_file_is_refused_without_reading_it_all(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("some log line\n" * 100_000)
    with pytest.raises(DataError, match="none of the first 100 lines"):
        next(read_rows(path))


@pytest.mark.parametrize("name", ["none.jsonl", "empty", "nowhere://x"])
def test_what_is_not_there_is_an_error(name, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        list(read_rows(name if "://" in name else tmp_path / name))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_is_read(suffix, tmp_path):
    rows = [{"id": f"r{i}", "text": "é\n\ud800" if i % 2 else "x", "n": [i, None, {"k": 1.5}]} for i in range(1100)]
    path = tmp_path / "new" / f"out{suffix}"
    with RowWriter(path) as writer:
        for row in rows:
            writer.write(row)
        writer.write_text(b'{"id": "last"}')
    assert writer.count == 1101 and values(path) == [*rows, {"id": "last"}]
    assert os.listdir(path.parent) == [path.name]


def test_a_row_that_is_not_read_is_the_same_error_from_every_form(tmp_path):
    text = b'{"id": "x", "n": ' + b"7" * 5000 + b"}"
    read = []
    for suffix in SUFFIXES:
        with RowWriter(tmp_path / f"out{suffix}") as writer:
            writer.write({"id": "a"})
            writer.write_text(text)
        assert writer.count == 2
        read.append([(row.value, row.raw, row.error) for row in read_rows(tmp_path / f"out{suffix}")])
        assert read[-1] == read[0] and read[0][1][:2] == (None, text.decode()) and "digits" in read[0][1][2]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_the_same_rows_make_the_same_bytes(suffix, tmp_path):
    for name in ("a", "b"):
        with RowWriter(tmp_path / f"{name}{suffix}") as writer:
            writer.write({"a": 1})
        time.sleep(0.01)
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_exception_leaves_the_old_output_as_it_was(suffix, tmp_path):
    path = tmp_path / f"out{suffix}"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), RowWriter(path) as writer:
        writer.write({"a": 1})
        raise RuntimeError
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == [path.name]
    with RowWriter(path) as writer:
        writer.write({"a": 2})
    assert values(path) == [{"a": 2}]


def test_a_killed_run_leaves_the_old_output_as_it_was(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("old\n")
    code = (
        "import sys; from cm2.formats import RowWriter\n"
        "with RowWriter(sys.argv[1]) as writer:\n"
        "    while True: writer.write({'text': 'x' * 1000})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)])
    partial = tmp_path / ".out.jsonl.partial"
    while process.poll() is None and not (partial.exists() and partial.stat().st_size):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert path.read_text() == "old\n"
    with RowWriter(path) as writer:
        writer.write({"a": 1})
    assert values(path) == [{"a": 1}] and os.listdir(tmp_path) == ["out.jsonl"]


class FullDisk:
    """A file on a disk that takes so many bytes more."""

    def __init__(self, file, room: int):
        self._file, self._room = file, room

    def write(self, data) -> int:
        self._room -= len(data)
        if self._room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._file.write(data)

    def __getattr__(self, name):
        return getattr(self._file, name)


@pytest.mark.parametrize("room", [0, 3_000])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_names_the_output_and_keeps_the_old_one(suffix, room, tmp_path, monkeypatch):
    path = tmp_path / f"out{suffix}"
    path.write_bytes(b"old")
    monkeypatch.setattr(
        "cm2.formats.rows.open", lambda name, mode, **_: FullDisk(io.FileIO(name, mode), room), raising=False
    )
    with pytest.raises(OSError) as caught, RowWriter(path) as writer:
        for i in range(1_000):
            writer.write({"text": os.urandom(200).hex(), "i": i})
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(path)
    assert "disk is full" in explain(caught.value)[0] and str(path) in explain(caught.value)[0]
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == [path.name]


def test_two_runs_on_one_output_the_second_is_told(tmp_path):
    path = tmp_path / "out.jsonl"
    with RowWriter(path) as first:
        first.write({"a": 1})
        with pytest.raises(CM2Error, match="another run is writing"):
            RowWriter(path)
    assert values(path) == [{"a": 1}]


def test_a_folder_is_no_output(tmp_path):
    with pytest.raises(DataError, match="folder"):
        RowWriter(tmp_path)


def test_other_file_systems_are_read_and_written():
    with RowWriter("memory://rows/out.jsonl.gz") as writer:
        writer.write({"a": 1})
    assert values("memory://rows/out.jsonl.gz") == [{"a": 1}]
    with pytest.raises(RuntimeError), RowWriter("memory://rows/out.jsonl.gz"):
        raise RuntimeError
    assert values("memory://rows") == [{"a": 1}]


def test_structs_are_written_as_their_json(tmp_path):
    with RowWriter(tmp_path / "out.parquet") as writer:
        writer.write(Row(1, {"a": 1}))
    (value,) = values(tmp_path / "out.parquet")
    assert json.loads(json.dumps(value)) == {
        "line": 1,
        "value": {"a": 1},
        "raw": None,
        "error": None,
        "file": "",
        "text": None,
    }
