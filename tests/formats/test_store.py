"""The append-only store: killed at any byte it goes on without loss or repeats."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from cm2.errors import CM2Error, ConfigError, DataError
from cm2.formats import Store


def key(row: dict) -> str:
    return row["id"]


def ids(path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def test_rows_are_appended_and_known_by_key(tmp_path):
    path = tmp_path / "deep" / "s.jsonl"
    with Store(path, key) as store:
        assert store.done == set()
        store.append({"id": "a"})
        store.append({"id": "b"})
    with Store(path, key) as store:
        assert store.done == {"a", "b"}
        store.append({"id": "c"})
    assert ids(path) == ["a", "b", "c"]


def test_a_row_is_in_the_file_as_soon_as_append_returns(tmp_path):
    with Store(tmp_path / "s.jsonl", key) as store:
        store.append({"id": "a"})
        assert ids(tmp_path / "s.jsonl") == ["a"]


def test_cut_at_any_byte_only_the_torn_line_is_lost(tmp_path):
    path = tmp_path / "s.jsonl"
    with Store(path, key) as store:
        for id in "abc":
            store.append({"id": id, "text": "é"})
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        with Store(path, key) as store:
            assert store.done == set("abc"[: whole[:cut].count(b"\n")])
            for id in "abc":
                if id not in store.done:
                    store.append({"id": id, "text": "é"})
        assert path.read_bytes() == whole


def test_a_torn_line_longer_than_a_block_is_cut(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_bytes(b'{"id":"a"}\n{"id":"' + b"x" * 3_000_000)
    with Store(path, key) as store:
        assert store.done == {"a"}
    assert path.read_bytes() == b'{"id":"a"}\n'


def test_a_block_that_a_crash_filled_with_zeros_is_cut(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_bytes(b'{"id":"a"}\n' + bytes(100))
    with Store(path, key) as store:
        assert store.done == {"a"}


def test_killed_while_it_writes_every_whole_row_is_kept_once(tmp_path):
    path = tmp_path / "s.jsonl"
    code = (
        "import sys; from cm2.formats import Store\n"
        "with Store(sys.argv[1], lambda row: row['id']) as store:\n"
        "    for i in range(4000):\n"
        "        if str(i) not in store.done: store.append({'id': str(i), 'text': 'x' * 300})\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    for part in (0.2, 0.6):
        process = subprocess.Popen(command)
        while process.poll() is None and (not path.exists() or path.stat().st_size < part * 4000 * 320):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True)
    assert ids(path) == [str(i) for i in range(4000)]


@pytest.mark.parametrize(
    "content", [b"some notes", b'{"id":"a"}\nnotes', b"notes\n", b'{"name":"a"}\n', b"[1]\n", b"\n"]
)
def test_a_file_that_is_no_store_is_refused_and_left_alone(content, tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"s\.jsonl"):
        Store(path, key)
    assert path.read_bytes() == content
    path.unlink()
    Store(path, key).close()


def test_a_folder_is_no_store(tmp_path):
    with pytest.raises(DataError, match="folder"):
        Store(tmp_path, key)


@pytest.mark.parametrize("name", ["s.parquet", "s.jsonl.gz", "new/s.jsonl.zst"])
def test_a_name_that_promises_another_form_is_refused(name, tmp_path):
    with pytest.raises(ConfigError, match=r"appended to.*\.jsonl"):
        Store(tmp_path / name, key)
    assert os.listdir(tmp_path) == []


def test_a_pipe_is_no_store(tmp_path):
    os.mkfifo(tmp_path / "s.jsonl")
    with pytest.raises(ConfigError, match="is no file"):
        Store(tmp_path / "s.jsonl", key)


def test_one_process_holds_a_store_at_a_time(tmp_path):
    with Store(tmp_path / "s.jsonl", key):
        with pytest.raises(CM2Error, match="another run"):
            Store(tmp_path / "s.jsonl", key)
        os.symlink(tmp_path / "s.jsonl", tmp_path / "other.jsonl")
        with pytest.raises(CM2Error, match="another run"):
            Store(tmp_path / "other.jsonl", key)
    Store(tmp_path / "s.jsonl", key).close()


@pytest.mark.parametrize("taken", [0, 5])
def test_a_full_disk_takes_back_the_half_line_and_the_store_goes_on(taken, tmp_path, monkeypatch):
    path = tmp_path / "s.jsonl"
    write = os.write

    def full(fd, data):
        if full.calls or not taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        full.calls += 1
        return write(fd, data[:taken])

    full.calls = 0
    with Store(path, key) as store:
        store.append({"id": "a"})
        monkeypatch.setattr("cm2.formats.store.os.write", full)
        with pytest.raises(OSError) as caught:
            store.append({"id": "b"})
        monkeypatch.undo()
        assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(path)
        assert store.done == {"a"} and ids(path) == ["a"]
        store.append({"id": "c"})
    assert ids(path) == ["a", "c"]


def test_a_write_that_takes_less_is_continued(tmp_path, monkeypatch):
    write = os.write
    with Store(tmp_path / "s.jsonl", key) as store:
        monkeypatch.setattr("cm2.formats.store.os.write", lambda fd, data: write(fd, data[:3]))
        store.append({"id": "abcdef"})
        monkeypatch.undo()
    assert ids(tmp_path / "s.jsonl") == ["abcdef"]


def test_half_a_surrogate_pair_is_stored_and_found_again(tmp_path):
    with Store(tmp_path / "s.jsonl", key) as store:
        store.append({"id": "\ud83d"})
    with Store(tmp_path / "s.jsonl", key) as store:
        assert store.done == {"\ud83d"}
