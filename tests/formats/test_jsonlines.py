"""Bytes to JSON values and back: what is broken is told and stops nothing."""

from __future__ import annotations

import gzip
import io
import json
import math

import pytest
import zstandard

from cm2.errors import DataError
from cm2.formats import jsonlines
from cm2.formats.jsonlines import encode, open_rows, parse, read_lines


@pytest.mark.parametrize(
    "value", [{"a": [1, -2.5, 1e300, "é\u2028", None, True]}, {"big": 10**30}, {"half": "\ud800"}, {}, [], "x", 0]
)
def test_what_is_encoded_parses_to_the_same_value_on_one_line(value):
    line = encode(value)
    assert b"\n" not in line and parse(line) == (value, None)


def test_nan_is_read_and_written_as_null():
    value, error = parse(b'{"a": NaN}')
    assert error is None and math.isnan(value["a"]) and encode(value) == b'{"a":null}'


def test_a_byte_order_mark_is_passed_over():
    assert parse(b'\xef\xbb\xbf{"a": 1}') == ({"a": 1}, None)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"a": 1', "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 1} {"b": 2}', "not JSON"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 5_000, "not JSON"),
        (b"", "not JSON"),
    ],
)
def test_a_broken_line_is_a_reason_and_never_an_exception(line, says):
    value, error = parse(line)
    assert value is None and says in error


def lines(data: bytes) -> list:
    return list(read_lines(io.BytesIO(data)))


def test_lines_are_numbered_from_1_with_or_without_a_last_line_end():
    assert lines(b"a\n\nb") == [(1, b"a\n", None), (2, b"\n", None), (3, b"b", None)]


def test_a_line_that_is_too_long_is_told_and_the_next_one_read(monkeypatch):
    monkeypatch.setattr(jsonlines, "MAX_LINE", 10)
    (one, start, error), two = lines(b"x" * 35 + b"\nshort\n")
    assert one == 1 and start == b"x" * 10 and "36 bytes" in error
    assert two == (2, b"short\n", None)


def test_a_line_of_exactly_the_limit_is_read(monkeypatch):
    monkeypatch.setattr(jsonlines, "MAX_LINE", 10)
    assert lines(b"123456789\nab\n") == [(1, b"123456789\n", None), (2, b"ab\n", None)]


def test_a_file_is_known_by_its_first_bytes_and_not_by_its_name(tmp_path):
    content = b'{"a": 1}\n'
    for name, data in (("gzip", gzip.compress(content)), ("zstd", zstandard.compress(content)), ("plain", content)):
        path = tmp_path / f"{name}.txt"
        path.write_bytes(data)
        with open_rows(str(path)) as (kind, file):
            assert kind == "lines" and file.read() == content


def test_an_empty_file_is_an_error_with_its_name(tmp_path):
    (tmp_path / "e.jsonl").touch()
    with pytest.raises(DataError, match=r"e\.jsonl: the file is empty"), open_rows(str(tmp_path / "e.jsonl")):
        pass


@pytest.mark.parametrize("harm", ["cut", "flipped"])
@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_what_stands_before_the_damage_is_read_and_the_damage_told(compress, harm, tmp_path):
    content = b"".join(
        json.dumps({"n": i, "text": f"{i * 7919 % 10007:x}" * 50}).encode() + b"\n" for i in range(20_000)
    )
    data = bytearray(compress(content))
    middle = len(data) // 2
    if harm == "cut":
        del data[middle:]
    else:
        data[middle : middle + 64] = bytes(64)
    path = tmp_path / "d.gz"
    path.write_bytes(bytes(data))
    with open_rows(str(path)) as (_, file):
        found = list(read_lines(file))
    errors = [(number, error) for number, _, error in found if error]
    whole = content.splitlines(keepends=True)
    if not errors:  # zstd's cut stream ends without a word; its last line is torn and will not parse
        assert compress is zstandard.compress and harm == "cut" and parse(found[-1][1])[1]
    else:
        assert len(errors) == 1 and errors[0][0] == len(found) and "damaged" in errors[0][1]
    good = [line for _, line, error in found[:-1]]
    assert len(good) < len(whole) and (harm == "flipped" or good == whole[: len(good)])


def test_gzip_members_and_zstd_frames_in_a_row_are_one_file(tmp_path):
    for compress in (gzip.compress, zstandard.compress):
        (tmp_path / "m").write_bytes(compress(b"1\n") + compress(b"2\n"))
        with open_rows(str(tmp_path / "m")) as (_, file):
            assert file.read() == b"1\n2\n"
