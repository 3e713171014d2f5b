"""Where outputs go: behind links, and straight into what is no file."""

from __future__ import annotations

import gzip
import os
import stat
import threading

import pytest

from cm2.errors import DataError
from cm2.formats import RowWriter, read_rows
from cm2.formats.target import replacing, target_of


def heard(pipe) -> tuple[threading.Thread, list[bytes]]:
    """A thread that reads a named pipe to its end, and what it read."""
    said: list[bytes] = []
    thread = threading.Thread(target=lambda: said.append(pipe.read_bytes()), daemon=True)
    thread.start()
    return thread, said


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"])
def test_a_named_pipe_is_written_into_and_stays_one(suffix, tmp_path):
    pipe = tmp_path / f"out{suffix}"
    os.mkfifo(pipe)
    thread, said = heard(pipe)
    with RowWriter(pipe) as writer:
        writer.write({"a": 1})
    thread.join(20)
    assert stat.S_ISFIFO(os.stat(pipe).st_mode) and os.listdir(tmp_path) == [pipe.name]
    copy = tmp_path / f"copy{suffix}"
    copy.write_bytes(said[0])
    assert [row.value for row in read_rows(copy)] == [{"a": 1}]


def test_a_run_that_fails_leaves_the_pipe(tmp_path):
    pipe = tmp_path / "out.jsonl"
    os.mkfifo(pipe)
    thread, _ = heard(pipe)
    with pytest.raises(RuntimeError), RowWriter(pipe) as writer:
        writer.write({"a": 1})
        raise RuntimeError
    thread.join(20)
    assert stat.S_ISFIFO(os.stat(pipe).st_mode)


def test_behind_a_link_the_file_is_replaced_and_the_link_stays(tmp_path):
    (tmp_path / "far").mkdir()
    real, link = tmp_path / "far" / "real.jsonl", tmp_path / "link.jsonl.gz"
    real.write_text("old\n")
    link.symlink_to(real)
    with pytest.raises(RuntimeError), RowWriter(link):
        raise RuntimeError
    assert real.read_text() == "old\n"
    with RowWriter(link) as writer:
        writer.write({"a": 1})
    assert link.is_symlink() and gzip.decompress(real.read_bytes()) == b'{"a":1}\n'
    assert os.listdir(real.parent) == [real.name]


def test_a_link_to_nothing_makes_what_it_names(tmp_path):
    link = tmp_path / "link.jsonl"
    link.symlink_to("new/real.jsonl")
    with RowWriter(link) as writer:
        writer.write({"a": 1})
    assert link.is_symlink() and (tmp_path / "new" / "real.jsonl").read_bytes() == b'{"a":1}\n'


def test_a_link_to_a_folder_is_no_output(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(DataError, match="folder"):
        RowWriter(tmp_path / "link")


def test_a_device_is_never_replaced():
    assert target_of("/dev/null") == ("/dev/null", True)


def test_a_draft_takes_the_name_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "page.html"
    with replacing(path) as draft:
        draft.write_text("a")
    with pytest.raises(RuntimeError), replacing(path) as draft:
        draft.write_text("b")
        raise RuntimeError
    assert path.read_text() == "a" and os.listdir(path.parent) == [path.name]
