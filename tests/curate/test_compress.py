"""`cm2 compress`: thinking shorter where that is safe, everything else as it was, and the way back."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from curate_askers import PRICE, Remembering, Scripted, run_verb
from hypothesis import given, settings
from hypothesis import strategies as st
from row_builders import TOOL, call, nemotron, openai, think

from cm2.curate.compress import CompressConfig, compress_file, restored
from cm2.curate.compressor import SCHEMA
from cm2.curate.section import sections, with_thinking
from cm2.dialogue import Step
from cm2.errors import ConfigError, DataError
from cm2.formats import read_row, read_rows
from cm2.llm import BudgetReached, ModelError, ProviderError

LONG = (
    "Hm, let me think about this. The user wants a table, that is clear enough, and it should be at Roma. I could ask "
    "for how many people, but it is not required. So I will go ahead and call book with the place Roma now."
)
AFTER = "The tool says that it worked. The booking is B1. I should tell the user that it is booked, and nothing more."
SHORT = {LONG: "A table at Roma: book it, people are not required.", AFTER: "Booked as B1; say so."}


def thinking_row(id: str = "d1", style: str = "tags") -> dict:
    """A row whose two assistant messages think LONG and AFTER."""
    row = {**openai(), "id": id}
    for index, thought, text in ((2, LONG, None), (4, AFTER, "It is booked.")):
        message = row["messages"][index]
        if style == "tags":
            message["content"] = think(text or "").replace("hm", thought)
        else:
            message["content"], message[style] = text, thought
    return row


def shorten(request):
    """Aligned answers: what SHORT says of each section, or the section again."""
    return {"sections": [{"index": n, "text": text} for n, text in enumerate(texts_of(request))]}


def texts_of(request) -> list[str]:
    shown = request.messages[1]["content"]
    asked = shown.split("Shorten these sections")[1]
    found = []
    for line in asked.splitlines()[1:]:
        label = line.partition(": ")[2]
        if label:
            body = shown.split(f"\n{label}\n", 1)[1].split("\n[", 1)[0].split("\n<<<", 1)[0]
            found.append(SHORT.get(body.replace("| ", ""), body.replace("| ", "")))
    return found


def write(tmp_path, *rows, name="in.jsonl") -> str:
    source = tmp_path / name
    source.write_bytes(b"".join((r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in rows))
    return str(source)


def run(tmp_path, *rows, say=shorten, asker=None, **more):
    made = CompressConfig(write(tmp_path, *rows), str(tmp_path / "out.jsonl"), **more)
    asker = asker or Scripted(say)
    return compress_file(made, asker), asker


def read(tmp_path, name="out.jsonl") -> list[dict]:
    return [json.loads(line) for line in (tmp_path / name).read_text(encoding="utf-8").splitlines()]


def thoughts(row: dict) -> list[str]:
    return [section.thinking for section in sections(read_row(row))]


@pytest.mark.parametrize("style", ["tags", "reasoning_content", "reasoning"])
def test_thinking_becomes_shorter_and_nothing_else_changes(tmp_path, style):
    row = thinking_row(style=style)
    row["extra"], row["messages"][1]["name"] = {"x": 1}, "Ann"
    summary, asker = run(tmp_path, row)
    (out,) = read(tmp_path)
    assert thoughts(out) == [SHORT[LONG], SHORT[AFTER]]
    assert len(asker.asked) == 1 and (summary.sections, summary.rewritten, summary.changed) == (2, 2, 1)
    record = out.pop("cm2")["compression"]
    assert record["prompt"].startswith("curate/compress@") and record["model"] == "scripted"
    assert (record["rewritten"], record["kept"]) == (2, {})
    assert record["characters"] == [len(LONG) + len(AFTER), len(SHORT[LONG]) + len(SHORT[AFTER])]
    same = json.loads(json.dumps(row).replace(json.dumps(LONG)[1:-1], SHORT[LONG]).replace(AFTER, SHORT[AFTER]))
    assert out == same
    assert restored(read(tmp_path)[0]) == row


def test_the_question_shows_the_dialogue_once_and_asks_for_every_section_in_order(tmp_path):
    _, asker = run(tmp_path, thinking_row())
    (request,) = asker.asked
    system, user = (message["content"] for message in request.messages)
    assert user.count(LONG) == 1 and "2 in all" in user
    assert [line[:2] for line in user.splitlines()[-2:]] == ["0:", "1:"]
    assert "turn 0 step 0 thinking" in user.splitlines()[-2] and "turn 0 step 1 thinking" in user.splitlines()[-1]
    assert (request.role, request.schema, request.affinity) == ("compressor", SCHEMA, "d1")
    assert "never an instruction" in " ".join(system.split())


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [{"index": 0, "text": "x"}],
        [{"index": 1, "text": "x"}, {"index": 0, "text": "x"}],
        [{"index": 0, "text": "x"}, {"index": 0, "text": "x"}],
        [{"index": 0, "text": "x"}, {"index": 1, "text": "x"}, {"index": 2, "text": "x"}],
    ],
)
def test_an_answer_that_is_not_aligned_is_no_answer(tmp_path, entries):
    row = thinking_row()
    summary, _ = run(tmp_path, row, say=lambda request: {"sections": entries})
    assert (summary.unscored, summary.rewritten, summary.owners) == (2, 0, {"compressor": 2})
    assert (tmp_path / "out.jsonl").read_bytes() == json.dumps(row).encode() + b"\n"


def test_a_section_that_loses_or_invents_something_stays_and_the_others_do_not_suffer(tmp_path):
    def say(request):
        return {"sections": [{"index": 0, "text": "Do it."}, {"index": 1, "text": "Booked as B1; say so."}]}

    summary, _ = run(tmp_path, thinking_row(), say=say)
    (out,) = read(tmp_path)
    assert thoughts(out) == [LONG, SHORT[AFTER]]
    assert summary.kept == {"lost_tool": 1} == out["cm2"]["compression"]["kept"]
    assert restored(out) == thinking_row()


@pytest.mark.parametrize(
    ("error", "owner"),
    [(ProviderError("down", status=503), "provider"), (ModelError("junk", cost=PRICE), "compressor")],
)
def test_a_lost_answer_leaves_the_row_as_it_was_and_is_counted(tmp_path, error, owner):
    rows = [thinking_row("a"), thinking_row("b")]

    def say(request):
        if request.affinity == "a":
            raise error
        return shorten(request)

    asker = Remembering(say)
    summary, _ = run(tmp_path, *rows, asker=asker)
    first, second = (tmp_path / "out.jsonl").read_bytes().splitlines()
    assert first == json.dumps(rows[0]).encode() and thoughts(json.loads(second)) == [SHORT[LONG], SHORT[AFTER]]
    assert (summary.unscored, summary.owners) == (2, {owner: 2}) and "line 1" in summary.lost
    asker.say, before = shorten, len(asker.asked)
    again, _ = run(tmp_path, *rows, asker=asker)
    assert again.unscored == 0 and [request.affinity for request in asker.asked[before:]] == ["a"]


@pytest.mark.parametrize("error", [ProviderError("refused", status=401), BudgetReached("enough")])
def test_what_would_fail_again_stops_the_run_and_leaves_no_output(tmp_path, error):
    def say(request):
        raise error

    with pytest.raises(type(error)):
        run(tmp_path, thinking_row(), say=say)
    assert not (tmp_path / "out.jsonl").exists()


def two_turns() -> dict:
    row = thinking_row()
    row["messages"] += [
        {"role": "user", "content": "And one at Lido."},
        {"role": "assistant", "content": think("").replace("hm", LONG.replace("Roma", "Lido")), "tool_calls": [call(
            arguments='{"place": "Lido"}', id="c2")]},
        {"role": "tool", "tool_call_id": "c2", "content": '{"booking": "B2"}'},
        {"role": "assistant", "content": think("Done.")},
    ]  # fmt: skip
    return row


def test_a_long_dialogue_is_asked_about_turn_by_turn_each_without_its_future(tmp_path):
    summary, asker = run(tmp_path, two_turns(), whole=100)
    assert summary.calls == len(asker.asked) == 2 and summary.sections == 4
    first, second = (request.messages[1]["content"] for request in asker.asked)
    assert "Lido" not in first.split("turn 0 user")[1] and "B2" not in first and "B2" in second
    start = first.split("\n<<<end")[0]
    assert second.startswith(start)  # a prefix cache knows the first turn
    whole, one = run(tmp_path, two_turns(), whole=10_000)
    assert whole.calls == len(one.asked) == 1 and whole.rewritten == summary.rewritten


def test_rows_without_thinking_cost_nothing_and_are_their_own_bytes(tmp_path):
    plain = openai()
    for message in plain["messages"]:
        message["content"] = (message["content"] or "").replace("<think>\nhm\n</think>", "").strip()
    odd = b'{ "id": "\\u00e9", ' + json.dumps(plain).encode()[1:]
    summary, asker = run(tmp_path, odd, thinking_row())
    assert (tmp_path / "out.jsonl").read_bytes().splitlines()[0] == odd
    assert len(asker.asked) == 1 and (summary.rows, summary.changed) == (2, 1)


def test_what_is_no_dialogue_is_counted_and_not_in_the_way(tmp_path):
    summary, _ = run(tmp_path, {"messages": []}, b"{broken", thinking_row(), b"[1]")
    assert (summary.rows, summary.unreadable, summary.left_out) == (4, 3, [2, 4])
    assert read(tmp_path)[0] == {"messages": []} and len(read(tmp_path)) == 2
    with pytest.raises(DataError, match="none of its rows"):
        run(tmp_path, {"messages": []})
    with pytest.raises(ConfigError, match="same file"):
        compress_file(CompressConfig(str(tmp_path / "in.jsonl"), str(tmp_path / "in.jsonl")), Scripted(shorten))


def test_a_section_that_a_checklist_quotes_keeps_the_quotation(tmp_path):
    item = {
        "id": "C0", "focus_on": "assistant.content.thinking", "question": "Does it see that people are optional?",
        "pass_condition": "It says so.", "weight": 1.0,
        "evidence": [{"turn": 0, "step": 0, "from": "assistant.content.thinking", "snippet": "it is not required"}],
    }  # fmt: skip
    row = {**thinking_row(), "checklists": [{"turn": 0, "items": [item]}]}
    summary, _ = run(tmp_path, row)
    (out,) = read(tmp_path)
    assert thoughts(out) == [LONG, SHORT[AFTER]] and summary.kept == {"evidence": 1}
    assert out["checklists"] == row["checklists"] and restored(out) == row


def test_originals_can_be_left_out_and_what_stood_under_our_key_stays(tmp_path):
    row = {**thinking_row(), "cm2": {"repairs": ["move_reasoning"]}}
    run(tmp_path, row)
    (out,) = read(tmp_path)
    assert set(out["cm2"]) == {"repairs", "compression"} and restored(out) == row
    strange = {**thinking_row(), "cm2": "mine"}
    run(tmp_path, strange)
    assert restored(read(tmp_path)[0]) == strange
    run(tmp_path, row, originals=False)
    (bare,) = read(tmp_path)
    assert "originals" not in bare["cm2"]["compression"] and restored(bare) == bare
    assert restored(row) == row


def test_nemotron_rows_and_parquet_go_through(tmp_path):
    row = nemotron()
    row["messages"][2]["content"] = row["messages"][2]["content"].replace("hm", LONG)
    made = CompressConfig(write(tmp_path, row), str(tmp_path / "out.parquet"))
    summary = compress_file(made, Scripted(shorten))
    (out,) = [each.value for each in read_rows(made.output)]
    assert summary.rewritten == 1 and SHORT[LONG] in out["messages"][2]["content"]
    assert restored(out) == row and list(out["messages"][2]) == list(row["messages"][2])
    back = CompressConfig(made.output, str(tmp_path / "again.jsonl"))
    compress_file(back, Scripted(shorten))
    assert restored(restored(read(tmp_path, "again.jsonl")[0])) == row


@pytest.mark.parametrize(
    "wire",
    [
        [{"role": "assistant", "content": "<think>old</think>Hi", "x": 1}],
        [{"role": "assistant", "content": "  <think> old\n</think>\n\n\nHi "}],
        [{"role": "assistant", "content": "<think>old", "name": "n"}],
        [{"role": "assistant", "content": "Hi", "reasoning": "old"}],
        [{"role": "assistant", "content": "Hi", "reasoning_content": "old", "reasoning": "other"}],
        [{"role": "assistant", "content": "<think>old</think>Hi<think>more</think>"}],
        [{"role": "assistant", "content": "<think></think>Hi<think>old</think>"}],
        [
            {"role": "assistant", "content": "<think>a</think>H"},
            {"role": "assistant", "reasoning": "b", "content": "i"},
        ],
        [
            {"role": "assistant", "content": "Hi", "reasoning": "old", "tool_calls": [call()]},
            {"role": "tool", "content": "x"},
        ],
    ],
)
def test_thinking_is_replaced_where_it_stood(wire):
    row = {"id": "a", "tools": [TOOL], "messages": [{"role": "user", "content": "u"}, *wire]}
    step = read_row(row).turns[0].steps[0]
    step.wire = copy.deepcopy(wire)
    made = with_thinking(step, "new")
    assert made is not None and made.thinking == "new"
    assert (made.reply, made.calls, made.responses) == (step.reply, step.calls, step.responses)
    changed = {**row, "messages": [row["messages"][0], *made.wire]}
    again = read_row(changed).turns[0].steps[0]
    assert (again.thinking, again.reply) == ("new", step.reply)
    for old, new in zip(wire, made.wire, strict=True):
        assert {key for key in old if old[key] != new[key]} <= {"content", "reasoning", "reasoning_content"}


@pytest.mark.parametrize("content", ["old</think>Hi", [{"type": "text", "text": "<think>old</think>Hi"}]])
def test_thinking_that_cannot_be_replaced_in_its_place_stays(content):
    row = {
        "id": "a",
        "tools": [],
        "messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": content}],
    }
    step = read_row(row).turns[0].steps[0]
    assert step.thinking == "old" and with_thinking(step, "new") is None
    assert with_thinking(Step(thinking="old", reply="Hi"), "new") == Step(thinking="new", reply="Hi")


THOUGHT = st.sampled_from(["", "  ", LONG, AFTER, LONG + " " + AFTER, "I book."])
ACTION = st.tuples(THOUGHT, st.sampled_from(["tags", "reasoning", "reasoning_content", "none", "two"]), st.booleans())


@settings(max_examples=60)
@given(st.lists(st.lists(ACTION, min_size=1, max_size=3), min_size=1, max_size=3), st.integers(0, 3))
def test_any_dialogue_can_be_put_back_and_keeps_all_but_its_thinking(tmp_path_factory, turns, keep):
    tmp_path = tmp_path_factory.mktemp("any")
    messages: list[dict] = [{"role": "system", "content": "s"}]
    for actions in turns:
        messages.append({"role": "user", "content": "A table at Roma"})
        for number, (thought, style, odd) in enumerate(actions):
            last = number == len(actions) - 1
            message: dict = {"role": "assistant", "content": "B1 it is." if last else None}
            if style == "tags":
                message["content"] = f"<think>{thought}</think>{message['content'] or ''}"
            elif style == "two":
                message["content"] = f"<think>{thought}</think>x<think>{thought}</think>"
            elif style != "none":
                message[style] = thought
            if odd:
                message["extra"] = [1]
            if not last:
                message["tool_calls"] = [call(id=f"c{len(messages)}")]
            messages.append(message)
            if not last:
                messages.append(
                    {"role": "tool", "content": '{"booking": "B1"}', "tool_call_id": f"c{len(messages) - 1}"}
                )
    row = {"id": "d", "tools": [TOOL], "messages": messages, "meta": {"k": [None, 1.5]}}

    def say(request):
        answer = shorten(request)
        for entry in answer["sections"]:
            if entry["index"] == keep:
                entry["text"] = "Call Zorro 99."
        return answer

    summary, _ = run(tmp_path, row, say=say)
    (out,) = read(tmp_path)
    assert restored(out) == row
    before, after = read_row(row), read_row({k: v for k, v in out.items() if k != "cm2"})
    assert (
        summary.sections == summary.rewritten + sum(summary.kept.values()) + summary.unscored == len(sections(before))
    )
    for old, new in zip(before.turns, after.turns, strict=True):
        assert old.user == new.user
        for one, other in zip(old.steps, new.steps, strict=True):
            assert (one.reply, one.calls, one.responses) == (other.reply, other.calls, other.responses)
            assert len(other.thinking or "") <= len(one.thinking or "") and "Zorro" not in (other.thinking or "")
            assert (one.thinking is None) == (other.thinking is None)


def test_a_dry_run_counts_the_questions_and_writes_nothing(tmp_path, capsys):
    source = write(tmp_path, thinking_row("a"), two_turns())
    argv = ["compress", source, "-o", tmp_path / "out.jsonl", "--base-url", "http://127.0.0.1:9/v1", "--model", "m"]
    for more, calls in (([], 2), (["--whole", "100"], 3)):
        run_verb(*argv, "--dry-run", "--json", *more)
        summary = json.loads(capsys.readouterr().out)
        assert (summary["calls"], summary["sections"], summary["rewritten"]) == (calls, 6, 0)
        assert summary["spending"]["stages"]["compress"]["calls"] == calls
    run_verb(*argv, "--dry-run")
    assert "6 sections of thinking in 2 rows" in capsys.readouterr().out
    for more in (["--tokenizer", "embedded"], []):
        with pytest.raises(ConfigError):  # a dry run, or a tokenizer, over shards
            run_verb(*argv, "--dry-run", "--engine", "ray", *more)
    assert not (tmp_path / "out.jsonl").exists()


def test_on_real_thinking_every_row_can_be_put_back(tmp_path, shared_data):
    """The model is one that leaves sentences out; what it leaves in is never taken for something new."""

    def say(request):
        texts = [". ".join(text.split(". ")[::2]) for text in raw_texts(request)]
        return {"sections": [{"index": n, "text": text} for n, text in enumerate(texts)]}

    def raw_texts(request):
        shown = request.messages[1]["content"]
        labels = [line.partition(": ")[2] for line in shown.rpartition("Shorten these sections")[2].splitlines()[1:]]
        for label in filter(None, labels):
            lines = shown.split(f"\n{label}\n", 1)[1].split("\n")
            body = [line[2:] for line in lines[: next(n for n, line in enumerate(lines) if not line.startswith("|"))]]
            yield "\n".join(body)

    source = str(shared_data / "reason_tool_use.jsonl.gz")
    summary = compress_file(CompressConfig(source, str(tmp_path / "out.jsonl")), Scripted(say))
    before = [row.value for row in read_rows(source)]
    after = [json.loads(line) for line in Path(tmp_path / "out.jsonl").read_bytes().splitlines()]
    assert [restored(row) for row in after] == before
    assert summary.rewritten > 40 and summary.characters_after < summary.characters
    assert summary.sections == summary.rewritten + sum(summary.kept.values())
    assert not {"new_number", "new_id", "new_tool", "new_name"} & set(summary.kept)
