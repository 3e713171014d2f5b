"""Pipes as inputs: kept where the command can, else refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cm2.errors import ConfigError
from cm2.formats import RowWriter, read_rows
from cm2.formats.origin import fingerprint
from cm2.formats.pipe import keep_pipes

LINUX = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
USER = {"role": "user", "content": "Hi"}
ROW = {"id": "a", "tools": [], "messages": [USER, {"role": "assistant", "content": "Hello. " * 40_000}]}


def piped(text: bytes, *argv: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "cm2", *argv], input=text, capture_output=True, timeout=120)


@LINUX
@pytest.mark.parametrize("verb", ["inspect", "import", "label"])
def test_a_verb_reads_what_a_pipe_says_as_often_as_it_needs(verb, tmp_path):
    rows = [{**ROW, "id": f"r{i}"} for i in range(6)]  # more than a pipe holds and than is looked at first
    out = [] if verb == "inspect" else ["-o", str(tmp_path / "out.jsonl")]
    done = piped(b"".join(json.dumps(row).encode() + b"\n" for row in rows), verb, "/dev/stdin", *out, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["dialogues"] == 6


@LINUX
def test_a_verb_that_looks_at_its_input_first_misses_nothing_of_a_pipe(tmp_path):
    made, labelled = str(tmp_path / "made.jsonl"), tmp_path / "labelled.jsonl"
    for argv in (("worlds", "make", "-o", made, "-n", "4"), ("label", made, "-o", str(labelled))):
        assert piped(b"", *argv).returncode == 0
    done = piped(labelled.read_bytes(), "lint", "/dev/stdin", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["dialogues"] == 4, done.stderr


@LINUX
def test_a_pipe_that_is_an_output_is_left_alone():
    reading, writing = os.pipe()
    try:
        keep_pipes([f"/dev/fd/{writing}"])
        os.write(writing, b"x")
        assert os.read(reading, 1) == b"x"
    finally:
        os.close(reading)
        os.close(writing)


@LINUX
def test_a_pipe_is_kept_once_and_read_twice():
    reading, writing = os.pipe()
    os.write(writing, b'{"a": 1}\n')
    os.close(writing)
    name = f"/dev/fd/{reading}"
    try:
        keep_pipes([name, name, "-o", "elsewhere", "/dev/fd/99999"])
        assert [row.value for row in read_rows(name)] == [row.value for row in read_rows(name)] == [{"a": 1}]
        assert fingerprint(name) == fingerprint(name)
    finally:
        os.close(reading)


def test_a_named_pipe_is_refused_before_it_is_read(tmp_path: Path):
    pipe = tmp_path / "in.jsonl"
    os.mkfifo(pipe)
    for read in (lambda: list(read_rows(pipe)), lambda: fingerprint(str(pipe))):
        with pytest.raises(ConfigError, match=r"in\.jsonl: is a pipe.*file first"):
            read()


def test_nothing_is_read_from_a_device_that_has_nothing(tmp_path: Path):
    done = piped(b"", "label", "/dev/stdin", "-o", str(tmp_path / "out.jsonl"))
    assert done.returncode == 2 and b"the file is empty" in done.stderr


def test_rows_of_a_url_are_no_pipe():
    with RowWriter("memory://pipes/in.jsonl") as writer:
        writer.write({"a": 1})
    assert [row.value for row in read_rows("memory://pipes/in.jsonl")] == [{"a": 1}]
