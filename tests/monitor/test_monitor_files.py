"""What a monitor reads of logs that grow, are rotated, copied, compressed or torn: every dialogue, each once."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm2.errors import DataError
from cm2.formats import RowWriter
from monitor.monitor_cases import add, counted, lines, look, monitor, row, rows_of


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    folder.mkdir()
    return folder


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def ids(state: Path) -> list[str]:
    return [id for id, _, _ in counted(state)]


def old(path: Path, seconds: float = 1000) -> None:
    at = time.time() - seconds
    os.utime(path, (at, at))


def test_new_lines_and_new_files_are_judged_once(logs: Path, state: Path) -> None:
    add(logs / "a.jsonl", row("1"), row("2", fine=False))
    assert look(logs, state) == 2
    assert look(logs, state) == 0
    add(logs / "a.jsonl", row("3"))
    add(logs / "sub" / "b.jsonl", row("4"))
    assert look(logs, state) == 2
    assert counted(state) == [
        ("1", "", {"says-fine": "pass"}),
        ("2", "", {"says-fine": "fail"}),
        ("3", "", {"says-fine": "pass"}),
        ("4", "", {"says-fine": "pass"}),
    ]
    assert [verdict["dialogue"] for verdict in rows_of(state / "verdicts.jsonl")] == ["1", "2", "3", "4"]


def test_an_empty_folder_is_watched_and_an_absent_one_is_told(logs: Path, state: Path) -> None:
    assert look(logs, state) == 0
    with pytest.raises(DataError, match="no such file or folder"):
        look(logs / "absent", state)


def test_a_partial_last_line_waits_until_it_is_whole(logs: Path, state: Path) -> None:
    text = lines(row("1"), row("2"))
    cut = len(lines(row("1"))) + 20
    (logs / "a.jsonl").write_bytes(text[:cut])
    with monitor(logs, state) as running:
        assert running.look() == 1
        assert running.unread == 20
        assert running.look() == 0
        with (logs / "a.jsonl").open("ab") as file:
            file.write(text[cut:])
        assert running.look() == 1
        assert running.unread == 0
    assert ids(state) == ["1", "2"]


def test_a_whole_last_line_without_its_end_is_taken_when_the_file_is_still(logs: Path, state: Path) -> None:
    path = logs / "a.jsonl"
    path.write_bytes(lines(row("1"), row("2"))[:-1])
    assert look(logs, state) == 1
    old(path)
    assert look(logs, state) == 1
    with path.open("ab") as file:
        file.write(b"\n" + lines(row("3")))
    assert look(logs, state) == 1
    assert ids(state) == ["1", "2", "3"]


def test_a_broken_last_line_of_a_still_file_is_not_taken(logs: Path, state: Path) -> None:
    path = logs / "a.jsonl"
    path.write_bytes(lines(row("1")) + b'{"id": "2", "mess')
    old(path)
    assert look(logs, state) == 1


def test_a_rotated_file_goes_on_under_its_new_name(logs: Path, state: Path) -> None:
    add(logs / "a.jsonl", row("1"))
    look(logs, state)
    add(logs / "a.jsonl", row("2"))
    (logs / "a.jsonl").rename(logs / "a.jsonl.1")
    add(logs / "a.jsonl", row("3"))
    assert look(logs, state) == 2
    assert sorted(ids(state)) == ["1", "2", "3"]
    names = [event["path"] for event in rows_of(state / "log.jsonl") if event["row"] == "file"]
    assert sorted(os.path.basename(name) for name in names) == ["a.jsonl", "a.jsonl", "a.jsonl.1"]


def test_copied_and_emptied_logs_are_counted_once(logs: Path, state: Path) -> None:
    add(logs / "a.jsonl", row("1"), row("2"))
    look(logs, state)
    shutil.copy(logs / "a.jsonl", logs / "a.jsonl.1")
    (logs / "a.jsonl").write_bytes(b"")
    add(logs / "a.jsonl", row("3"))
    with monitor(logs, state) as running:
        assert running.look() == 1
        assert running.repeated == 2
    assert ids(state) == ["1", "2", "3"]


def test_a_file_that_was_emptied_and_grew_beyond_where_it_was_is_read_from_its_beginning(
    logs: Path, state: Path
) -> None:
    add(logs / "a.jsonl", row("1"))
    look(logs, state)
    (logs / "a.jsonl").write_bytes(
        lines(row("2", text="Everything there is, as far as anybody can tell, is"), row("3"))
    )
    assert look(logs, state) == 2
    assert ids(state) == ["1", "2", "3"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_rotated_log_that_is_compressed_is_counted_once(logs: Path, state: Path, suffix: str) -> None:
    add(logs / "a.jsonl", row("1"), row("2"))
    look(logs, state)
    path = logs / f"a.jsonl{suffix}"
    with RowWriter(str(path)) as writer:
        for one in (row("1"), row("2"), row("3")):
            writer.write(one)
    (logs / "a.jsonl").unlink()
    old(path)
    with monitor(logs, state) as running:
        assert running.look() == 1
        assert running.look() == 0
        assert running.repeated == 2
    assert ids(state) == ["1", "2", "3"]


def test_a_file_that_is_still_being_compressed_waits(logs: Path, state: Path) -> None:
    path = logs / "a.jsonl.gz"
    path.write_bytes(gzip.compress(lines(row("1")))[:30])
    with monitor(logs, state) as running:
        assert running.look() == 0
        assert (running.rejected, running.unreadable) == (0, 0)
        path.write_bytes(gzip.compress(lines(row("1"))))
        old(path)
        assert running.look() == 1


def test_parquet_and_json_documents_are_read_whole(logs: Path, state: Path) -> None:
    with RowWriter(str(logs / "a.parquet")) as writer:
        writer.write(row("1"))
    (logs / "b.json").write_text(json.dumps([row("2"), row("3", fine=False)]))
    for path in logs.iterdir():
        old(path)
    assert look(logs, state) == 3
    assert look(logs, state) == 0


def test_rows_that_are_no_dialogue_are_told_and_passed_over_once(logs: Path, state: Path) -> None:
    bad = b'{"id": "x"}\nnot json\n{"id": "y", "messages": [{"role": "user", "content": 3}]}\n'
    (logs / "a.jsonl").write_bytes(bad + lines(row("1")))
    with monitor(logs, state) as running:
        assert running.look() == 1
        assert running.rejected == 3
        assert "a.jsonl:2: not JSON" in " ".join(running.state.known.problems)
    shutil.copy(logs / "a.jsonl", logs / "b.jsonl")
    with monitor(logs, state) as running:
        assert running.look() == 0
        assert (running.rejected, running.repeated) == (0, 4)
        assert running.state.known.rejected == 3


def test_logs_of_other_tools_are_read_as_import_does(logs: Path, state: Path) -> None:
    told = {"role": "assistant", "content": [{"type": "text", "text": "All is fine."}]}
    anthropic = {
        "id": "a",
        "model": "claude",
        "messages": [{"role": "user", "content": "Well?"}, told],
        "max_tokens": 9,
    }
    sharegpt = {"id": "s", "conversations": [{"from": "human", "value": "Well?"}, {"from": "gpt", "value": "fine"}]}
    model = {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}}
    span = {"traceId": "1" * 32, "spanId": "2" * 16, "name": "chat", "startTimeUnixNano": "1", "attributes": [model]}
    (logs / "a.jsonl").write_bytes(lines(anthropic, sharegpt, span))
    with monitor(logs, state) as running:
        assert running.look() == 2
        assert "cm2 import" in " ".join(running.state.known.problems)
    assert [results for _, _, results in counted(state)] == [{"says-fine": "pass"}] * 2


def test_another_content_under_the_same_id_is_another_rollout(logs: Path, state: Path) -> None:
    add(logs / "a.jsonl", row("1"), row("1", text="Now all is"), row("1"))
    look(logs, state)
    add(logs / "a.jsonl", row("1", fine=False))
    look(logs, state)
    assert [(id, rollout) for id, rollout, _ in counted(state)] == [("1", ""), ("1", "2"), ("1", "3")]
    assert [verdict.get("rollout", "") for verdict in rows_of(state / "verdicts.jsonl")] == ["", "2", "3"]


def test_a_stream_is_judged_as_it_comes_and_what_is_sent_again_is_known(state: Path) -> None:
    text = lines(row("1"), row("2"))
    with monitor("-", state, stdin=io.BytesIO(text + b"junk\n")) as running:
        while not running.source.ended:  # type: ignore[union-attr]
            running.look(wait=5)
        assert (running.judged, running.rejected) == (2, 1)
    with monitor("-", state, stdin=io.BytesIO(text + lines(row("3")))) as running:
        while not running.source.ended:  # type: ignore[union-attr]
            running.look(wait=5)
        assert (running.judged, running.repeated) == (1, 2)
    assert ids(state) == ["1", "2", "3"]


@settings(max_examples=25)
@given(data=st.data())
def test_however_a_log_grows_each_dialogue_is_counted_once(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Bytes arrive in any pieces, monitors come and go, files are renamed: each dialogue comes once, in order."""
    folder = tmp_path_factory.mktemp("grow")
    logs, state = folder / "logs", folder / "state"
    logs.mkdir()
    text = lines(*(row(str(number), data.draw(st.booleans())) for number in range(data.draw(st.integers(1, 5)))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    name = 0
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        with (logs / f"a.jsonl.{name}").open("ab") as file:
            file.write(text[start:end])
        look(logs, state)
        if data.draw(st.booleans()):
            (logs / f"a.jsonl.{name}").rename(logs / f"a.jsonl.{name + 1}")
            name += 1
    assert ids(state) == [json.loads(line)["id"] for line in text.splitlines()]
