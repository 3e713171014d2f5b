"""Parquet: rows of any shape come back as they were; foreign files are read."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chat_builders import ask, nemotron, row, say, user
from hypothesis import given, settings
from hypothesis import strategies as st
from test_nemotron import MESSAGES

from cm2.errors import DataError
from cm2.formats.parquet import BATCH, REST, ParquetSink, read_parquet


def written(rows: list[dict]) -> io.BytesIO:
    file = io.BytesIO()
    sink = ParquetSink(file)
    for one in rows:
        sink.write(one)
    sink.close()
    return io.BytesIO(file.getvalue())


def back(rows: list[dict]) -> list[dict]:
    return [value for _, value in read_parquet(written(rows), "x.parquet")]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["id", "messages", "tools", "meta", REST, "", "a"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(KEYS, JSON, max_size=5), min_size=1, max_size=5))
def test_any_rows_come_back_exactly(rows):
    found = back(rows)
    assert found == rows and [str(row) for row in map(_sorted, found)] == [str(row) for row in map(_sorted, rows)]


def _sorted(value):
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def test_messages_of_the_data_sets_shape_are_real_columns():
    schema = pq.ParquetFile(written([nemotron(*MESSAGES)])).schema_arrow
    assert pa.types.is_list(schema.field("messages").type) and schema.field("uuid").type == pa.string()


def test_what_does_not_fit_the_columns_of_the_first_batch_is_kept():
    first = [nemotron(*MESSAGES, uuid=f"d{i}") for i in range(BATCH)]
    later = [
        nemotron(*MESSAGES, uuid=7),
        nemotron(*MESSAGES, new=[1], license=None),
        {"messages": [user(), say(None)]},
        {"messages": [{**say(), "content": "\ud800", "tool_calls": []}]},
        {
            "messages": [
                {**ask({"id": "\ud800", "type": "x", "function": {"name": "", "arguments": ""}}), "content": ""}
            ]
        },
        {},
    ]
    assert back([*first, *later]) == [*first, *later]


def test_an_absent_key_and_a_null_are_told_apart():
    rows = [{"a": None}, {}, {"a": 1}]
    assert back(rows) == rows


def test_a_file_that_another_program_wrote_is_read(tmp_path):
    table = pa.table({"id": ["a", "b"], "n": [1, None], "tags": [["x"], []]})
    pq.write_table(table, tmp_path / "f.parquet")
    with open(tmp_path / "f.parquet", "rb") as file:
        assert list(read_parquet(file, "f")) == [
            (1, {"id": "a", "n": 1, "tags": ["x"]}),
            (2, {"id": "b", "n": None, "tags": []}),
        ]


def test_fields_that_a_struct_was_filled_with_are_not_there():
    """One row's schema does not give its fields to another's; nulls of lists and whole columns stay."""
    get = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}
    ping = {"type": "object", "properties": {"loud": {"type": "boolean", "enum": [True, None]}}}
    call = {"id": "c1", "type": "function", "function": {"name": "get", "arguments": {"id": "A1"}}}
    tools = [{"name": name, "parameters": parameters} for name, parameters in (("get", get), ("ping", ping))]
    rows = [
        {
            "id": "a",
            "tools": tools,
            "messages": [user(), {"role": "assistant", "tool_calls": [call]}, None],
            "note": None,
        },
        {"id": "b", "tools": [tools[1]], "messages": [user()], "note": {"x": None, "y": {"z": 1}}},
        {"id": "c", "tools": [], "messages": [user(), {"role": "assistant", "content": None}], "note": {"x": 1}},
    ]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    rows[1]["note"] = {"y": {"z": 1}}
    rows[2]["messages"][1] = {"role": "assistant"}
    assert [value for _, value in read_parquet(io.BytesIO(file.getvalue()), "f")] == rows


def test_a_null_in_json_text_is_kept():
    rows = [{"tools": [{"name": "f", "default": None}]}, {"tools": [{"name": "g"}], "messages": [say(None)]}]
    assert back(rows) == rows


@pytest.mark.parametrize("first", [True, False])
def test_a_row_that_is_json_but_not_read_comes_back_as_its_text(first):
    text = b'{"id": "x", "n": ' + b"7" * 5000 + b"}"
    rows = [text, {"id": "a"}] if first else [{"id": "a"}, text]
    assert back(rows) == rows


@pytest.mark.parametrize("harm", [slice(8, 200), slice(-40, None), slice(100, None)])
def test_a_damaged_file_is_an_error_that_names_it(harm):
    data = bytearray(written([row(user(), say("x" * i), id=str(i)) for i in range(300)]).getvalue())
    data[harm] = b"" if harm.stop is None else bytes(harm.stop - harm.start)
    with pytest.raises(DataError, match=r"x\.parquet.*damaged"):
        list(read_parquet(io.BytesIO(bytes(data)), "x.parquet"))
