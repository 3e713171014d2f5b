"""Files: lines, documents, archives, Parquet, folders; broken parts are told and stop nothing."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cm2.errors import DataError
from cm2.formats import RowWriter
from cm2.imports import documents
from cm2.imports.documents import expand, read_values
from cm2.imports.stream import read_file, read_records

VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
ROW = st.dictionaries(st.sampled_from(["a", "b", "ü", '"', "\\"]), VALUE, min_size=1, max_size=3)


def values_of(text: str | bytes) -> list[Any]:
    data = text.encode() if isinstance(text, str) else text
    return [found.value if found.error is None else ValueError(found.error) for found in read_values(io.BytesIO(data))]


@given(st.lists(ROW, min_size=1, max_size=6), st.sampled_from([None, 1, "\t"]), st.integers(1, 40))
def test_arrays_objects_and_sequences_give_their_values_whatever_the_block(
    rows: list[Any], indent: Any, block: int
) -> None:
    before = documents.BLOCK
    documents.BLOCK = block
    try:
        assert values_of(json.dumps(rows, indent=indent)) == rows
        assert values_of("\n".join(json.dumps(row, indent=indent, ensure_ascii=False) for row in rows)) == rows
        whole = {"info": 1, "samples": rows, "after": 2}
        found = list(read_values(io.BytesIO(json.dumps(whole, indent=indent).encode())))
        assert [one.value for one in found] == rows
        assert {one.path for one in found} == {f"samples[{i}]" for i in range(len(rows))}
        assert all(one.header == {"info": 1, "after": 2} or one.header == {"info": 1} for one in found)
    finally:
        documents.BLOCK = before


@given(st.lists(ROW, min_size=2, max_size=5), st.data())
def test_a_torn_array_gives_what_is_whole_and_tells(rows: list[Any], data: st.DataObject) -> None:
    text = json.dumps(rows)
    cut = data.draw(st.integers(2, len(text) - 1))
    found = values_of(text[:cut])
    whole = [one for one in found if not isinstance(one, ValueError)]
    assert whole == rows[: len(whole)] and isinstance(found[-1], ValueError)
    assert len(found) == len(whole) + 1


def test_messages_in_an_array_are_one_value() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert values_of(json.dumps(messages)) == [messages]
    assert values_of(f"{json.dumps(messages)}\n{json.dumps(messages)}") == [messages, messages]
    assert values_of(json.dumps([messages, messages])) == [messages, messages]


def test_behind_a_broken_line_reading_goes_on() -> None:
    found = values_of('{"a": 1, x}\n{"b": 1}\nnot json\n{"c": 2}\n')
    assert isinstance(found[0], ValueError) and found[1] == {"b": 1}
    assert isinstance(found[2], ValueError) and found[3] == {"c": 2}


def test_a_torn_first_line_does_not_swallow_the_next(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"a": \n{"b": 1}\n{"c": 2}\n')
    found = records(tmp_path / "log.jsonl")
    assert [value for value, _ in found] == [None, {"b": 1}, {"c": 2}] and found[0][1] is not None


def test_a_broken_document_is_told_once() -> None:
    text = json.dumps([{"a": [1, 2, {"b": "x"}]}] * 20, indent=2).replace('"b": "x"', '"b": x', 1)
    found = values_of(text)
    assert len(found) == 1 and "element 0" in str(found[0])


def test_a_value_that_is_too_long_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MOST", 1000)
    monkeypatch.setattr(documents, "BLOCK", 100)
    found = values_of(json.dumps([{"a": "x" * 5000}]))
    assert len(found) == 1 and isinstance(found[0], ValueError)


def test_frames_in_frames_are_opened() -> None:
    spans = [{"spanId": "1"}, {"spanId": "2"}]
    frame = {"resourceSpans": [{"resource": {"r": 1}, "scopeSpans": [{"scope": {"s": 1}, "spans": spans}]}]}
    found = list(expand(frame))
    assert [one.value for one in found] == spans
    assert found[1].path == "resourceSpans[0].scopeSpans[0].spans[1]" and found[1].header["resource"] == {"r": 1}
    assert values_of(json.dumps(frame, indent=1)) == spans


def test_deep_nesting_is_told() -> None:
    found = values_of("[" + '{"a":' * 100_000)
    assert isinstance(found[0], ValueError)


def records(path: Path) -> list[tuple[Any, str | None]]:
    return [(record.value, record.error) for record in read_file(str(path))]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_lines_and_documents_in_every_packing(tmp_path: Path, pack: Any) -> None:
    rows = [{"a": 1}, {"a": "ü\ud800".encode("utf-16", "surrogatepass").decode("utf-16", "replace")}]
    (tmp_path / "log.jsonl").write_bytes(pack("".join(json.dumps(row) + "\n\n" for row in rows).encode()))
    (tmp_path / "log.json").write_bytes(pack(b"\xef\xbb\xbf" + json.dumps(rows, indent=2).encode()))
    for name in ("log.jsonl", "log.json"):
        assert records(tmp_path / name) == [(row, None) for row in rows]


def test_lines_have_numbers_and_broken_ones_are_told(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"a": 1}\n\n{"a": \n[1, 2]\n"x"\n')
    found = list(read_file(str(tmp_path / "log.jsonl")))
    assert [(record.line, record.value) for record in found] == [(1, {"a": 1}), (3, None), (4, [1, 2]), (5, "x")]
    assert found[1].error is not None and found[1].raw == '{"a": '


def test_a_long_document_on_one_line_is_a_document(tmp_path: Path) -> None:
    rows = [{"text": "x" * 1000, "n": n} for n in range(3000)]
    (tmp_path / "log.json").write_text(json.dumps({"info": 1, "simulations": rows}))
    assert [record.value["n"] for record in read_file(str(tmp_path / "log.json"))] == list(range(3000))


def test_a_damaged_gzip_file_is_told(tmp_path: Path) -> None:
    text = "".join(json.dumps({"n": n, "x": str(n) * 50}) + "\n" for n in range(5000)).encode()
    (tmp_path / "log.jsonl.gz").write_bytes(gzip.compress(text)[:-2000])
    found = records(tmp_path / "log.jsonl.gz")
    assert len(found) > 10 and found[-1][1] is not None and all(error is None for _, error in found[:-1])


@pytest.mark.parametrize(
    "content", [b"", b"\n \n", b"\x89PNG\r\n\x1a\n\x00\x00", b"PAR1 no", b"PK\x03\x04 no", b"\x1f\x8b no"]
)
def test_files_that_are_no_logs_are_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "log.jsonl").write_bytes(content)
    found = records(tmp_path / "log.jsonl")
    assert all(error is not None for _, error in found) and (found or not content.strip())


def test_folders_have_archives_too_and_hidden_files_are_none(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text('{"n": 2}\n')
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.json").write_text('{"n": 3}')
    (tmp_path / ".hidden.jsonl").write_text('{"n": 9}\n')
    (tmp_path / ".kept").mkdir()
    (tmp_path / ".kept" / "c.jsonl").write_text('{"n": 9}\n')
    (tmp_path / "notes.txt").write_text("no log")
    assert sorted(record.value["n"] for record in read_records([str(tmp_path)])) == [2, 3]


def test_no_such_file_and_a_folder_without_logs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        list(read_records([str(tmp_path / "nothing.jsonl")]))
    with pytest.raises(DataError, match="folder without logs"):
        list(read_records([str(tmp_path)]))


def test_parquet_values_are_json(tmp_path: Path) -> None:
    table = pa.table(
        {
            "at": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns")),
            "days": pa.array([10], pa.duration("s")),
            "blob": pa.array([b"x\xff"]),
            "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
            "nan": pa.array([float("nan")]),
            "inner": pa.array([{"a": None, "b": [1.5]}]),
            "none": pa.array([None], pa.string()),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    value = records(tmp_path / "x.parquet")[0][0]
    assert value == {
        "at": 1_700_000_000_123_456_789,
        "days": 10**10,
        "blob": "x�",
        "map": {"k": 1},
        "nan": None,
        "inner": {"b": [1.5]},
    }
    json.dumps(value)


def test_a_row_that_parquet_keeps_as_its_text_is_told_with_it(tmp_path: Path) -> None:
    line = b'{"n": ' + b"7" * 5000 + b"}"
    with RowWriter(tmp_path / "log.parquet") as writer:
        writer.write({"n": 1})
        writer.write_text(line)
    good, bad = read_records([str(tmp_path / "log.parquet")])
    assert good.value == {"n": 1} and good.error is None
    assert bad.line == 2 and bad.value is None and bad.raw == line.decode() and "not JSON" in (bad.error or "")
