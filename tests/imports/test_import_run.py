"""The run: what is counted, written, rejected, told; whatever comes in."""

from __future__ import annotations

import contextlib
import copy
import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shop_logs import CHAT_TOOLS, Value, chat, expect, lines, read, run, save
from test_import_chat_rows import RESPONSES_TOOLS, claude, items
from test_import_runs import rpc, sample, sharegpt, tau_run
from test_import_spans import console, genai, message_events, openinference, otlp, phoenix, tool_span
from test_import_stream import VALUE
from test_import_tracers import SCORES, observations, runs, trace

from cm2.cli.import_ import register
from cm2.cli.main import explain
from cm2.errors import CM2Error, ConfigError, DataError
from cm2.formats import read_tasks
from cm2.imports import FORMATS, ImportConfig, detect, import_logs
from cm2.imports.spill import Spill

EXAMPLES: dict[str, list[Any]] = {
    "openai": [
        {"id": "1", "messages": chat(), "tools": CHAT_TOOLS},
        {"request": {"messages": chat()[:2]}, "response": {"choices": [{"message": chat()[2]}]}},
    ],
    "responses": [
        {"id": "2", "input": items(), "tools": RESPONSES_TOOLS},
        {"object": "response", "id": "r", "input": "Go.", "output": items()[2:4]},
    ],
    "anthropic": [{"id": "3", "system": "s", "messages": claude(), "max_tokens": 4}],
    "otel": [*(otlp(i, values) for i, values in enumerate(genai())), console(9, genai()[0]), tool_span(8, 2, "x")],
    "openinference": [
        otlp(i, values | {"session.id": "o"}, trace="c" * 32) for i, values in enumerate(openinference(raw=True))
    ],
    "langfuse": [*observations(), *SCORES, trace(observations=observations()[:1])],
    "langsmith": [*runs("lc"), {"id": "f", "run_id": "r0", "key": "k", "score": 1}],
    "phoenix": [
        phoenix(i, values) | {"context.trace_id": "d" * 32}
        for i, values in enumerate(openinference(raw=False, listed=True))
    ],
    "inspect": [sample()],
    "tau": [tau_run()],
    "huggingface": [{"id": "4", "conversations": sharegpt()}, {"prompt": "a", "chosen": "b", "rejected": "c"}],
    "mcp": [rpc(1, 1), rpc(1, result={"content": [{"type": "text", "text": "x"}]})],
}


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_recognised(format: str) -> None:
    inner = [span for value in EXAMPLES[format] for span in _spans(value)]
    assert {detect(value) for value in inner} == {format}


def _spans(value: Any) -> list[Any]:
    frames = value.get("resourceSpans") if isinstance(value, dict) else None
    return [value] if frames is None else frames[0]["scopeSpans"][0]["spans"]


def test_a_file_that_mixes_all_formats(tmp_path: Path) -> None:
    values = [value for format in FORMATS for value in EXAMPLES[format]]
    found = run(tmp_path, save(tmp_path, *values))
    assert set(found.summary.formats) == set(FORMATS) and not found.rejected
    assert [task.dialogue.id for _, task in read_tasks(tmp_path / "out.jsonl")] == [row["id"] for row in found.rows]
    assert len({row["id"] for row in found.rows}) == len(found.rows)


def unharmed(folder: Path, text: str, format: str = "auto") -> None:
    """An import of any text ends well or with an error of ours, loses no record, and writes what reads back."""
    (folder / "log.jsonl").write_text(text)
    for name in ("out.jsonl", "out.jsonl.rejected.jsonl", "report.jsonl"):
        (folder / name).unlink(missing_ok=True)
    try:
        found = run(folder, str(folder / "log.jsonl"), format=format)
    except DataError:
        assert not (folder / "out.jsonl").exists()
        rejected = lines(folder / "out.jsonl.rejected.jsonl")
    else:
        rejected = found.rejected
        assert len(list(read_tasks(folder / "out.jsonl"))) == found.summary.dialogues
    assert not [row for row in rejected if "please report" in row["reason"]], rejected


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(VALUE, min_size=1, max_size=4))
def test_any_json_is_read_or_rejected(tmp_path: Path, values: list[Any]) -> None:
    unharmed(tmp_path, "".join(json.dumps(value) + "\n" for value in values))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text())
def test_any_text_is_read_or_rejected(tmp_path: Path, text: str) -> None:
    with contextlib.suppress(UnicodeEncodeError):
        unharmed(tmp_path, text)


JUNK = st.one_of(
    VALUE,
    st.sampled_from([None, "", [], {}, 0, -1, 1e300, "{", "[1]", '{"a": 1}', [[]], [None], True, "\ud800", {"": None}]),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside a value."""
    found = [path]
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        found += places(one, (*path, key))
    return found


def changed(value: Any, path: tuple[Any, ...], junk: Any) -> Any:
    """The value with junk at a path; `...` takes the place away."""
    if not path:
        return None if junk is ... else junk
    value = copy.copy(value)
    if len(path) == 1 and junk is ...:
        del value[path[0]]
    else:
        value[path[0]] = changed(value[path[0]], path[1:], junk)
    return value


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_log_with_anything_anywhere_stops_nothing(tmp_path: Path, data: st.DataObject) -> None:
    format = data.draw(st.sampled_from(FORMATS))
    values = copy.deepcopy(EXAMPLES[format])
    for _ in range(data.draw(st.integers(1, 3))):
        number = data.draw(st.integers(0, len(values) - 1))
        paths = places(values[number])
        path = paths[data.draw(st.integers(0, len(paths) - 1))]
        values[number] = changed(values[number], path, data.draw(st.just(...) | JUNK))
    insisted = data.draw(st.sampled_from(["auto", format]))
    unharmed(tmp_path, "".join(json.dumps(value) + "\n" for value in values), insisted)


def test_what_is_aside_is_reported_and_an_old_rejected_file_goes(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl.rejected.jsonl").write_text('{"of": "an earlier run"}\n')
    spans = [otlp(i, values) for i, values in enumerate(genai())]
    found = read(tmp_path, *spans, otlp(70, {"http.request.method": "GET"}))
    assert [(line["line"], line["what"]) for line in found.report if line["kind"] == "aside"] == [
        (5, "a span that is about no model, tool or agent")
    ]
    assert not (tmp_path / "out.jsonl.rejected.jsonl").exists()


def test_a_full_disk_stops_the_run_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Spill, *_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Spill, "add", full)
    with pytest.raises(CM2Error, match="temporary file beside the output failed: database or disk is full"):
        read(tmp_path, *observations())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log.jsonl"]


def test_ids_are_made_unique(tmp_path: Path) -> None:
    found = read(tmp_path, *({"id": "same", "messages": chat(), "n": n} for n in range(3)))
    assert [row["id"] for row in found.rows] == ["same", "same#2", "same#3"]
    assert any("has the same id" in note["what"] for note in found.rows[1]["meta"]["import"]["made"])


def test_the_report_has_a_line_for_each_remark(tmp_path: Path) -> None:
    messages = chat()
    messages[1]["content"] = [{"type": "input_audio", "input_audio": {"data": "…"}}]
    found = read(tmp_path, {"id": "r", "messages": messages, "custom": 1})
    assert [(line["kind"], line["at"]) for line in found.report] == [
        ("unmapped", "messages[1].content[0]"),
        ("kept", "messages[1].content[0]"),
        ("kept", "custom"),
        ("inferred", "tools"),
        ("inferred", "tools"),
    ]
    assert all(line["id"] == "r" and line["line"] == 1 and line["file"] == "log.jsonl" for line in found.report)
    assert found.summary.unmapped == {"a part of type 'input_audio' is no text; the dialogue says [input_audio]": 1}


def test_rejected_records_keep_their_text_and_reason(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(f'{json.dumps({"id": "a", "messages": chat()})}\n{{broken\n{{"x": 1}}\n')
    found = run(tmp_path, str(tmp_path / "log.jsonl"))
    assert [(row["line"], row["row"]) for row in found.rejected] == [(2, "{broken"), (3, {"x": 1})]
    assert "not JSON" in found.rejected[0]["reason"] and "its fields are x" in found.rejected[1]["reason"]


def test_secrets_are_taken_out_of_what_is_kept_and_of_what_is_rejected(tmp_path: Path) -> None:
    headers = {"Authorization": "Bearer abcdefghijklmnop0123456789", "x": "ok"}
    found = read(tmp_path, {"id": "a", "messages": chat(), "headers": headers}, {"headers": headers})
    assert found.told["kept"] == {"headers": {"Authorization": "Bearer [hidden]", "x": "ok"}}
    assert found.rejected[0]["row"] == {"headers": {"Authorization": "Bearer [hidden]", "x": "ok"}}


def test_nothing_is_written_where_nothing_is_a_dialogue(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("as it was\n")
    save(tmp_path, {"x": 1}, {"y": 2})
    with pytest.raises(DataError, match=r"none of its 2 records is a dialogue; the first: no format is recognised"):
        import_logs(ImportConfig(inputs=[str(tmp_path / "log.jsonl")], output=str(tmp_path / "out.jsonl")))
    assert (tmp_path / "out.jsonl").read_text() == "as it was\n"
    assert len(lines(tmp_path / "out.jsonl.rejected.jsonl")) == 2


def test_an_unknown_format_and_an_output_that_is_an_input(tmp_path: Path) -> None:
    path = save(tmp_path, {"id": "a", "messages": chat()})
    with pytest.raises(ConfigError, match="there is no format 'csv'"):
        import_logs(ImportConfig(inputs=[path], output=str(tmp_path / "o"), format="csv"))
    with pytest.raises(ConfigError, match="one of the inputs"):
        import_logs(ImportConfig(inputs=[path], output=path))
    (tmp_path / "link.jsonl").symlink_to(path)
    for inputs, output in ((path, tmp_path / "link.jsonl"), (str(tmp_path / "link.jsonl"), path)):
        with pytest.raises(ConfigError, match="one of the inputs"):
            import_logs(ImportConfig(inputs=[inputs], output=str(output)))


def test_an_output_that_is_a_folder_is_told_before_anything_is_read(tmp_path: Path) -> None:
    path = save(tmp_path, {"id": "a", "messages": chat()})
    (tmp_path / "folder").mkdir()
    for outputs in ({"output": "folder"}, {"output": "o", "rejected": "folder"}, {"output": "o", "report": "folder"}):
        with pytest.raises(DataError, match="folder: is a folder, not a file"):
            import_logs(ImportConfig(inputs=[path], **{key: str(tmp_path / name) for key, name in outputs.items()}))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "log.jsonl"]


def test_compressed_and_parquet_outputs_read_back(tmp_path: Path) -> None:
    path = save(tmp_path, {"id": "a", "messages": chat(), "tools": CHAT_TOOLS})
    for name in ("o.jsonl.gz", "o.jsonl.zst", "o.parquet"):
        import_logs(ImportConfig(inputs=[path], output=str(tmp_path / name)))
        assert [task.dialogue.id for _, task in read_tasks(tmp_path / name)] == ["a"]


def test_the_temporary_file_is_gone_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Spill) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Spill, "groups", full)
    path = save(tmp_path, *observations())
    with pytest.raises(OSError):
        import_logs(ImportConfig(inputs=[path], output=str(tmp_path / "out.jsonl")))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log.jsonl"]


def test_a_session_that_is_too_large_is_read_trace_by_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cm2.imports.spill.MOST", 3)
    calls = genai()
    spans = [otlp(i, values, trace=trace * 32) for i, (values, trace) in enumerate(zip(calls, "aabb", strict=True))]
    found = read(tmp_path, *spans)
    assert [row["id"] for row in found.rows] == ["a" * 32, "b" * 32]


def invoke(*arguments: str) -> tuple[int, str]:
    """The verb, and its exit code and what it printed."""
    app = typer.Typer()
    register(app)
    app.command("other")(lambda: None)
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, ["import", *arguments])
    if isinstance(result.exception, CM2Error):
        message, code = explain(result.exception)
        return code, message
    return result.exit_code, result.stdout


def test_the_verb_prints_one_json_object(tmp_path: Path) -> None:
    path = save(tmp_path, {"id": "a", "messages": chat(), "reward": 1}, {"broken": True})
    code, out = invoke(path, "-o", str(tmp_path / "o.jsonl"), "--rejected", str(tmp_path / "bad.jsonl"), "--json")
    found = json.loads(out)
    assert code == 0 and (found["read"], found["used"], found["rejected"], found["scored"]) == (2, 1, 1, 1)
    assert found["formats"] == {"openai": 1} and len(lines(tmp_path / "bad.jsonl")) == 1


def test_the_verb_shows_a_table(tmp_path: Path) -> None:
    path = save(tmp_path, {"id": "a", "messages": chat()}, {"broken": True})
    code, out = invoke(path, "-o", str(tmp_path / "o.jsonl"), "--from", "openai")
    assert code == 0 and "2 records read: 1 in 1 dialogues, 0 aside, 1 rejected" in out.replace("\n", " ")


def test_the_verb_exits_with_2_where_nothing_is_a_dialogue(tmp_path: Path) -> None:
    code, message = invoke(save(tmp_path, {"x": 1}), "-o", str(tmp_path / "o.jsonl"))
    assert code == 2 and "its record is no dialogue" in message


def test_importing_needs_no_torch_and_no_tracers() -> None:
    heavy = ("torch", "sklearn", "inspect_ai", "langfuse")
    code = f"import cm2.imports, sys; print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_the_real_runs_of_tau_bench_come_through_whole(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "taubench_airline_gpt4o.jsonl.gz"
    summary = import_logs(ImportConfig(inputs=[str(source)], output=str(tmp_path / "o.jsonl")))
    assert (summary.read, summary.used, summary.scored) == (200, 200, 200)
    for (_, before), (_, after) in zip(read_tasks(source), read_tasks(tmp_path / "o.jsonl"), strict=True):
        said, kept = before.dialogue, after.dialogue
        assert (kept.id, kept.system, kept.turns, kept.meta["reward"]) == (
            said.id,
            said.system,
            said.turns,
            said.meta["reward"],
        )


@pytest.mark.parametrize(
    "name", ["nemotron_like.jsonl.gz", "nemotron_parquet", "reason_tool_use.jsonl.gz", "nemogym_examples.jsonl.gz"]
)
def test_real_data_sets_come_through_whole(tmp_path: Path, shared_data: Path, name: str) -> None:
    summary = import_logs(ImportConfig(inputs=[str(shared_data / name)], output=str(tmp_path / "o.jsonl")))
    assert summary.rejected == 0 and summary.read == summary.dialogues > 30
    for (_, before), (_, after) in zip(read_tasks(shared_data / name), read_tasks(tmp_path / "o.jsonl"), strict=True):
        left, right = before.dialogue, after.dialogue
        assert [turn.user for turn in left.turns] == [turn.user for turn in right.turns]
        assert [call for *_, call, _ in left.calls()] == [call for *_, call, _ in right.calls()]
        assert [turn.reply for turn in left.turns] == [turn.reply for turn in right.turns]


def test_every_line_of_the_corpus_of_faults_is_read_or_rejected(tmp_path: Path, shared_data: Path) -> None:
    summary = import_logs(
        ImportConfig(inputs=[str(shared_data / "corrupted.jsonl.gz")], output=str(tmp_path / "o.jsonl"))
    )
    assert summary.read == summary.used + summary.aside + summary.rejected
    assert not [reason for reason in summary.reasons if "please report" in reason]
    assert len(list(read_tasks(tmp_path / "o.jsonl"))) == summary.dialogues


def test_events_helper_is_what_the_conventions_say() -> None:
    assert [name for name, _ in message_events(chat()[:2], chat()[5])][-1] == "gen_ai.choice"


def test_the_example_of_each_format_is_the_conversation(tmp_path: Path) -> None:
    expect(read(tmp_path, *EXAMPLES["phoenix"]).row)
    values: list[Value] = EXAMPLES["langsmith"][:-1]
    expect(read(tmp_path, *values).row, thinking=False)
