"""`cm2 inspect`: a file's statistics, one dialogue to read, and nothing of a stranger's reaches the terminal raw."""

from __future__ import annotations

import json

import pytest

from cm2.check import Called
from cm2.checklist import Checklist, Item, Task
from cm2.cli.main import main
from cm2.dialogue import Dialogue, Step, Tool, ToolCall, ToolResponse, Turn
from cm2.formats import write_task
from cm2.rollout.trace import Rollout, encode
from cm2.verdict import Verdict

FIND = Tool("find", "Find a thing.")


def made(id: str = "d0", user: str = "Where is it?", **step) -> Dialogue:
    call = Step("Look it up.", calls=[ToolCall("find", {"q": "x"}, "c")], responses=[ToolResponse('{"at": 7}', "c")])
    return Dialogue(
        id, [Turn(user, [call, Step(reply="At 7.", **step)]), Turn("Thanks.", [Step(reply="Bye.")])], [FIND]
    )


def labelled(dialogue: Dialogue) -> Task:
    items = [
        Item("C0", "assistant.tool_calls", "Was it looked up?", "It was.", 0.75, check=Called("find"), kind="call"),
        Item("C1", "tool.content", "Was it found?", "It was.", 0.25, depends_on=["C0"], required_for_next_turn=True),
    ]
    return Task(dialogue, [Checklist(0, items)])


def write(path, *rows) -> str:
    lines = (row if isinstance(row, str) else json.dumps(write_task(row, "openai")) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


@pytest.fixture
def run(capsys, monkeypatch):
    """Run the verb; gives exit code, standard output and standard error."""
    monkeypatch.setattr("cm2.cli.common.out._width", 150)

    def run(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(["inspect", *args])
        shown = capsys.readouterr()
        return stop.value.code, shown.out, shown.err

    return run


def test_the_statistics_count_what_is_there(run, tmp_path):
    bad = made("d2", calls=[ToolCall("lost", None, "e", "{", "not JSON")])
    source = write(tmp_path / "in.jsonl", labelled(made()), Task(made("d1")), "{", Task(bad))
    code, shown, _ = run(source, "--json")
    found = json.loads(shown)
    assert code == 0
    expected = {
        "dialogues": 3,
        "turns": 6,
        "steps": 9,
        "calls": 4,
        "malformed_calls": 1,
        "unknown_calls": 1,
        "unanswered_calls": 1,
        "thinking_steps": 3,
        "thinking_share": 1 / 3,
        "distinct_tools": 1,
        "labelled": 1,
        "items": 2,
        "unreadable": 1,
        "tools": {"find": {"dialogues": 3, "calls": 3}, "lost": {"dialogues": 0, "calls": 1}},
        "steps_per_turn": {"mean": 1.5, "min": 1, "median": 1, "p95": 2, "max": 2},
        "turns_per_dialogue": {"mean": 2.0, "min": 2, "median": 2, "p95": 2, "max": 2},
    }
    assert {key: found[key] for key in expected} == expected
    assert found["problems"][0].startswith("line 3: not JSON")


def test_tokens_without_a_tokenizer_are_named_an_estimate(run, tmp_path):
    source = write(tmp_path / "in.jsonl", Task(Dialogue("d", [Turn("x" * 400, [Step(reply="y" * 800)])])))
    found = json.loads(run(source, "--json")[1])
    assert found["tokens"] == 300 and "estimate" in found["tokens_by"]
    assert "estimate" in run(source)[1]


@pytest.mark.train
def test_tokens_with_a_model_are_those_of_its_tokenizer(run, tmp_path):
    pytest.importorskip("transformers")
    from cm2.train.counting import token_counter

    source = write(tmp_path / "in.jsonl", Task(Dialogue("d", [Turn("Where is it?", [Step(reply="There it is.")])])))
    found = json.loads(run(source, "--model", "embedded", "--json")[1])
    count = token_counter("embedded")
    assert found["tokens"] == count("Where is it?") + count("There it is.") and "embedded" in found["tokens_by"]
    code, _, error = run(source, "--model", str(tmp_path / "none"), "--json")
    assert code == 2 and "tokenizer" in error


def test_the_tables_name_tools_and_draw_bars(run, tmp_path):
    code, shown, _ = run(write(tmp_path / "in.jsonl", Task(made()), "{"))
    assert code == 0 and "find" in shown and "steps per turn" in shown and "█" in shown
    assert "1 rows do not read: line 2" in shown


def test_a_dialogue_is_shown_with_its_checklist_beside_it(run, tmp_path):
    source = write(tmp_path / "in.jsonl", Task(made("other")), labelled(made()))
    code, shown, _ = run(source, "--dialogue", "d0")
    assert code == 0
    for text in ("Where is it?", "Look it up.", 'find({"q":"x"})', 'recorded {"at": 7}', "replies At 7.", "turn 1"):
        assert text in shown
    beside = next(line for line in shown.splitlines() if "Was it found?" in line)
    assert "strict; after C0" in beside and "recorded" in beside
    assert run(source, "-d", "2")[1] == shown and "Was it found?" not in run(source, "-d", "1")[1]


def test_a_narrow_terminal_shows_the_checklist_below(run, tmp_path, monkeypatch):
    monkeypatch.setattr("cm2.cli.common.out._width", 60)
    shown = run(write(tmp_path / "in.jsonl", labelled(made())), "-d", "1")[1].splitlines()
    reply = next(i for i, line in enumerate(shown) if "At 7." in line)
    assert next(i for i, line in enumerate(shown) if "checklist of turn 0" in line) > reply


def test_a_dialogue_as_json_is_the_task_with_its_line(run, tmp_path):
    shown = json.loads(run(write(tmp_path / "in.jsonl", labelled(made())), "-d", "d0", "--json")[1])
    assert shown["line"] == 1 and shown["dialogue"]["id"] == "d0" and shown["checklists"][0]["items"][1]["id"] == "C1"


def test_what_json_writers_refuse_is_shown_all_the_same(run, tmp_path):
    dialogue = Dialogue("\ud800", [Turn("\ud83d", [Step(calls=[ToolCall("f\udc00", {"n": 10**30, "h": "\ud800"})])])])
    source = write(tmp_path / "in.jsonl", Task(dialogue))
    assert run(source, "-d", "1")[0] == 0 and run(source)[0] == 0
    assert json.loads(run(source, "-d", "1", "--json")[1])["dialogue"]["turns"][0]["user"] == "\ud83d"


def test_text_of_strangers_is_neither_markup_nor_a_terminal_escape(run, tmp_path):
    evil = "[red]a[/red] [/] [link=file:///x]b \x1b]0;title\x07\x1b[2J\x9b31m \u202egnp.exe \x00"
    step = Step(evil, evil, [ToolCall(evil, {evil: evil}, "c"), ToolCall("f", None, raw=evil, error=evil)])
    step.responses = [ToolResponse(evil, "c"), ToolResponse(evil, "z")]
    dialogue = Dialogue(evil, [Turn(evil, [step])], [Tool(evil, evil)], evil, [Step(reply=evil)], evil, {evil: evil})
    item = Item(evil, "tool.content", evil, evil, 1.0, depends_on=[evil], kind=evil)
    source = write(
        tmp_path / "in.jsonl", Task(dialogue, [Checklist(0, [item], labeler=evil), Checklist(5, [item])]), evil
    )
    for shown in (run(source, "-d", "1")[1], run(source)[1]):
        assert not set(shown) & set("\x1b\x07\x9b\u202e\x00") and "[red]" in shown
    assert run(source, "-d", "1")[1].count("[red]a[/red]") >= 10


def test_a_file_of_rollouts_shows_the_verdicts_too(run, tmp_path):
    task = labelled(made())
    verdicts = [
        Verdict("d0", 0, 0, "C0", False),
        Verdict("d0", 0, 1, "C0", True),
        Verdict("d0", 0, 1, "C1", False),
    ]
    lines = [Rollout("d0", made(), "g", m, checklists=task.checklists, verdicts=verdicts) for m in (0, 1)]
    source = write(tmp_path / "r.jsonl", *(encode(line).decode() for line in lines), '{"task": 1}')
    found = json.loads(run(source, "--json")[1])
    assert found["dialogues"] == 2 and found["unreadable"] == 1 and "no rollout" in found["problems"][0]
    shown = run(source, "-d", "d0#g#1")[1].splitlines()
    assert "✓" in next(line for line in shown if "Was it looked up?" in line)
    assert "✗" in next(line for line in shown if "Was it found?" in line)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_figure_is_a_picture(run, tmp_path, suffix):
    path = tmp_path / "new" / f"figure{suffix}"
    odd = tmp_path / "a$x_{$b.jsonl"  # no mathematics in the title
    code, shown, _ = run(write(odd, Task(made())), "--plot", str(path), "--json")
    assert code == 0 and json.loads(shown)["dialogues"] == 1
    assert path.read_bytes().startswith(b"\x89PNG" if suffix == ".png" else b"<?xml") and path.stat().st_size > 5_000


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["-d", "nobody"], "no dialogue 'nobody'"),
        (["-d", "9"], "a number from 1 to 1"),
        (["--plot", "figure.txt"], ".png"),
        (["--format", "chatml"], "openai, nemotron"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_2(run, tmp_path, args, says):
    code, shown, error = run(write(tmp_path / "in.jsonl", Task(made())), *args, "--json")
    assert code == 2 and shown == "" and says in " ".join(error.split()) and "Traceback" not in error


@pytest.mark.parametrize("content", [None, "", "[\n1\n]\n", '{"prompt": 1}\n'])
def test_a_wrong_file_is_one_sentence_and_exit_2(run, tmp_path, content):
    path = tmp_path / "in.jsonl"
    if content is not None:
        path.write_text(content)
    code, shown, error = run(str(path), "--json")
    assert code == 2 and shown == "" and "in.jsonl" in " ".join(error.split())
