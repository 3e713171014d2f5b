"""`cm2 label --labeler llm|hybrid`: a file through a model, what is set aside, and going on after anything."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
import time

import pytest
from askers import AGAIN, FIRST, Cached, Scripted, oracle, turn_of
from label_builders import call, say, talk, tool

from cm2.cli.main import main
from cm2.dialogue import Dialogue
from cm2.errors import ConfigError, DataError
from cm2.formats import read_row, read_tasks, write_row
from cm2.label.config import Drafting
from cm2.label.label_run import LabelConfig, LabelSummary, label_file
from cm2.label.lint_run import LintConfig, lint_file
from cm2.label.llm import LlmLabeler
from cm2.llm import BudgetReached, ModelError, ProviderError
from servers.openai_server import OpenAIServer, refuses, says

TOOLS = [tool("find", ("q",), q="string"), tool("book", ("id",), id="string")]


def dialogue(i: int) -> Dialogue:
    """One turn that does something, and i % 3 turns of thanks."""
    steps = [
        call("find", {"id": f"A{i}X"}, q="sea view"),
        call("book", {"code": f"C{i}Z"}, id=f"A{i}X"),
        say(f"Code C{i}Z."),
    ]
    turns = [("Book a sea view, tell me the code.", steps)] + [("Thanks!", [say("You are welcome.")])] * (i % 3)
    return talk(*turns, tools=TOOLS, id=f"d{i}")


def write(path, count: int, *more: str) -> str:
    lines = [json.dumps(write_row(dialogue(i), "openai")) for i in range(count)]
    path.write_text("".join(f"{line}\n" for line in [*lines, *more]))
    return str(path)


def truth(count: int = 20):
    return oracle(*(dialogue(i) for i in range(count)))


def run(tmp_path, asker, labeler="llm", count=6, **more) -> LabelSummary:
    source = write(tmp_path / "in.jsonl", count)
    config = LabelConfig(source, str(tmp_path / "out.jsonl"), labeler=labeler, **more)
    return label_file(config, asker=asker)


@pytest.mark.parametrize("labeler", ["llm", "hybrid"])
def test_a_file_is_labelled_counted_and_accepted_by_lint(tmp_path, labeler):
    model = Scripted(truth())
    summary = run(tmp_path, model, labeler)
    assert summary.dialogues == 6 and summary.turns == 12 and summary.labelled_turns == 6 == summary.checklists
    assert len(model.requests) == 12 and summary.cost == 3.0 and summary.proposed == 30 and summary.set_aside == 0
    assert summary.items == summary.with_check == 30 and summary.unlabelled == {"no item": 6}
    assert summary.merged == (30 if labeler == "hybrid" else 0)
    report, failed = lint_file(LintConfig(str(tmp_path / "out.jsonl")))
    assert report.ok and not failed and report.items == 30
    tasks = [task for _, task in read_tasks(tmp_path / "out.jsonl")]
    assert [task.dialogue.id for task in tasks] == [f"d{i}" for i in range(6)]
    assert all(
        each.labeler.startswith(f"{labeler}:scripted label/rules@") for task in tasks for each in task.checklists
    )
    assert not (tmp_path / "out.jsonl.unscored.jsonl").exists()


def test_several_checklists_are_written_beside_each_other(tmp_path):
    summary = run(tmp_path, Scripted(truth()), count=2, drafting=Drafting(checklists=3))
    tasks = [task for _, task in read_tasks(tmp_path / "out.jsonl")]
    assert [[(each.turn, each.variant) for each in task.checklists] for task in tasks] == [[(0, 0), (0, 1), (0, 2)]] * 2
    assert summary.labelled_turns == 2 and summary.checklists == 6 and summary.as_json()["items_per_turn"] == 5.0


def failing(error, dialogues=("d1", "d4"), stage=FIRST):
    """The truth, and an error for one turn of these dialogues."""
    known = truth()

    def script(request):
        if request.stage == AGAIN:
            return error if stage == AGAIN and request.where.dialogue in dialogues else {"items": []}
        if request.where.dialogue in dialogues and turn_of(request) == 0:
            if stage == FIRST:
                return error
            value = known(request)
            return {"items": [*value["items"], {**value["items"][0], "weight": 0}]}
        return known(request)

    return script


@pytest.mark.parametrize("stage", [FIRST, AGAIN])
@pytest.mark.parametrize(
    ("error", "owner"), [(ProviderError("it is busy", status=503), "provider"), (ModelError("only prose"), "model")]
)
def test_rows_without_an_answer_are_set_aside_and_labelled_by_the_next_run(tmp_path, error, owner, stage):
    aside = tmp_path / "out.jsonl.unscored.jsonl"
    summary = run(tmp_path, Scripted(failing(error, stage=stage)))
    assert summary.set_aside == 2 and summary.unlabelled == {owner: 2, "no item": 4} and summary.dialogues == 4
    assert [task.dialogue.id for _, task in read_tasks(tmp_path / "out.jsonl")] == ["d0", "d2", "d3", "d5"]
    rows = [json.loads(line) for line in aside.read_text().splitlines()]
    assert [(row["line"], row["row"]["id"]) for row in rows] == [(2, "d1"), (5, "d4")]
    assert rows[0]["lost"] == [{"turns": [0], "variant": 0, "owner": owner, "message": str(error)}]
    assert read_row(rows[0]["row"]) == read_row(write_row(dialogue(1), "openai"))
    again = run(tmp_path, Scripted(truth()))
    assert again.set_aside == 0 and again.dialogues == 6 and not aside.exists()


def test_rows_are_set_aside_where_one_says(tmp_path):
    aside = tmp_path / "folder" / "later.jsonl.gz"
    run(tmp_path, Scripted(failing(ModelError("prose"))), set_aside=str(aside))
    assert aside.exists() and not (tmp_path / "out.jsonl.unscored.jsonl").exists()


def test_a_run_that_was_stopped_goes_on_and_pays_nothing_twice(tmp_path):
    source, out = write(tmp_path / "in.jsonl", 20), tmp_path / "out.jsonl"
    clean = Cached(truth())
    label_file(LabelConfig(source, str(tmp_path / "clean.jsonl"), "llm", drafting=Drafting(width=4)), asker=clean)
    known, left = truth(), [9]

    def script(request):
        left[0] -= 1
        return BudgetReached("the limit is reached") if left[0] < 0 else known(request)

    model, runs = Cached(script), 0
    config = LabelConfig(source, str(out), "llm", drafting=Drafting(width=4))
    out.write_text("old\n")
    while True:
        runs += 1
        try:
            label_file(config, asker=model)
            break
        except BudgetReached:
            assert out.read_text() == "old\n", "the output appears whole or not at all"
            left[0] = 9
    assert runs == 5 and clean.paid == model.paid == 39 and out.read_bytes() == (tmp_path / "clean.jsonl").read_bytes()
    label_file(config, asker=model)
    assert model.paid == 39


def test_what_is_under_way_when_the_run_ends_is_waited_for(tmp_path):
    known = truth()

    def script(request):
        if request.where.dialogue == "d0":
            return ProviderError("no such model", status=404)
        time.sleep(0.01)
        return known(request)

    model = Cached(script)
    source = write(tmp_path / "in.jsonl", 20)
    with pytest.raises(ProviderError, match="no such model"):
        label_file(LabelConfig(source, str(tmp_path / "out.jsonl"), "llm", drafting=Drafting(width=5)), asker=model)
    started = {request.where.dialogue for request in model.requests}
    assert len(started) <= 6 and model.paid >= len(started) - 1
    assert not (tmp_path / "out.jsonl").exists()


def test_the_order_is_the_files_whatever_answers_first_and_the_width_is_kept(tmp_path):
    known, busy, most, lock = truth(), [0], [0], threading.Lock()

    class Slow(Scripted):
        async def ask(self, request, check=None):
            import asyncio

            with lock:
                busy[0] += 1
                most[0] = max(most[0], busy[0])
            await asyncio.sleep(0.002 * (7 - int(request.where.dialogue[1:]) % 8))
            with lock:
                busy[0] -= 1
            return await super().ask(request, check)

    run(tmp_path, Slow(known), count=16, drafting=Drafting(width=3))
    assert [task.dialogue.id for _, task in read_tasks(tmp_path / "out.jsonl")] == [f"d{i}" for i in range(16)]
    assert 1 < most[0] <= 3 * 2, "three dialogues, two questions at once in each"


def test_rows_are_read_only_as_fast_as_they_are_answered(tmp_path):
    source = write(tmp_path / "in.jsonl", 20)
    read: list[int] = []
    seen: list[int] = []

    def progress(rows):
        for row in rows:
            read.append(row.line)
            yield row

    known = truth()

    def script(request):
        seen.append(len(read))
        return known(request)

    label_file(
        LabelConfig(source, str(tmp_path / "o.jsonl"), "llm", drafting=Drafting(width=2)), progress, Scripted(script)
    )
    assert seen[0] <= 2 and len(read) == 20


def test_an_item_that_the_row_before_satisfies_loses_its_check_and_stays(tmp_path):
    one = talk(("What is A?", [call("find", {"is": "whale"}, q="A"), say("It is a blue whale.")]), tools=TOOLS, id="a")
    two = talk(("And B?", [call("find", {"is": "blue"}, q="B"), say("A blue whale too.")]), tools=TOOLS, id="b")
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(write_row(each, "openai")) + "\n" for each in (one, two)))
    reply = "assistant.content.user_visible_reply"

    def script(request):
        text = {"a": "It is", "b": "too"}[request.where.dialogue]
        item = {
            "id": "C0",
            "evidence": [{"turn": 0, "step": 1, "from": reply, "snippet": text}],
            "focus_on": reply,
            "question": "Does the reply name the animal?",
            "pass_condition": "A blue whale is named.",
            "weight": 1,
            "check": {"type": "reply", "pattern": "(?i)blue whale"},
        }
        asked = {**item, "question": "Does the reply name the animal and say its colour?"}
        return {"items": [item, asked] if request.where.dialogue == "b" else [{**item, "check": None}]}

    summary = label_file(LabelConfig(str(path), str(tmp_path / "out.jsonl"), "llm"), asker=Scripted(script))
    tasks = [task for _, task in read_tasks(tmp_path / "out.jsonl")]
    assert [[item.check for item in each.items] for task in tasks for each in task.checklists] == [[None], [None]]
    assert summary.checks_out == {"another_turn": 1}
    assert lint_file(LintConfig(str(tmp_path / "out.jsonl")))[0].ok


def test_broken_rows_are_counted_and_a_row_that_labelling_cannot_take_ends_nothing(tmp_path, monkeypatch):
    source = write(tmp_path / "in.jsonl", 3, "{", '{"messages": 3}')

    def cannot(self, dialogue):
        if dialogue.id == "d1":
            raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(LlmLabeler, "code", cannot)
    summary = label_file(LabelConfig(source, str(tmp_path / "out.jsonl"), "llm"), asker=Scripted(truth()))
    assert summary.unreadable_lines == [4, 5] and summary.dialogues == 2
    assert summary.set_aside == 1 and summary.unlabelled == {"data": 2, "no item": 2}
    assert "ZeroDivisionError: a fault of ours" in (tmp_path / "out.jsonl.unscored.jsonl").read_text()


@pytest.mark.parametrize("labeler", ["llm", "hybrid"])
def test_half_a_surrogate_pair_in_an_argument_or_an_answer_is_no_crash(tmp_path, labeler):
    odd = talk(("u", [call("find", {"a": "\ud800"}, q="\ud800"), say("half \udc00")]), tools=TOOLS, id="odd")
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(write_row(odd, "openai")) + "\n")
    item = {
        "evidence": [{"turn": 0, "step": 1, "from": "assistant.content.user_visible_reply", "snippet": "half"}],
        "focus_on": "assistant.content.user_visible_reply",
        "question": "Does the reply mention the half \ud800?",
        "pass_condition": "\udc00 is mentioned.",
        "weight": 1,
        "check": {"type": "reply", "states": [{"any_of": ["\ud800"]}]},
    }
    summary = label_file(
        LabelConfig(str(path), str(tmp_path / "o.jsonl"), labeler), asker=Scripted(lambda request: {"items": [item]})
    )
    assert summary.dialogues + summary.set_aside == 1
    if labeler == "llm":
        (task,) = [task for _, task in read_tasks(tmp_path / "o.jsonl")]
        assert [each.question for each in task.checklists[0].items] == ["Does the reply mention the half \ufffd?"]


def test_a_dry_run_counts_and_writes_nothing(tmp_path):
    source, model = write(tmp_path / "in.jsonl", 3), Scripted(lambda request: request.planned)
    config = LabelConfig(source, str(tmp_path / "out.jsonl"), "llm")
    label_file(config, asker=model, dry=True)
    assert model.stages().count(FIRST) == model.stages().count(AGAIN) == 6
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_wrong_use_is_one_clear_sentence(tmp_path):
    source, out = write(tmp_path / "in.jsonl", 1), str(tmp_path / "out.jsonl")
    with pytest.raises(ConfigError, match="needs a model"):
        label_file(LabelConfig(source, out, "llm"))
    with pytest.raises(ConfigError, match="set aside"):
        label_file(LabelConfig(source, out, "llm", set_aside=source), asker=Scripted(truth()))
    (tmp_path / "bad.jsonl").write_text('{"messages": 3}\n')
    with pytest.raises(DataError, match="none of its rows"):
        label_file(LabelConfig(str(tmp_path / "bad.jsonl"), out, "llm"), asker=Scripted(truth()))
    assert not (tmp_path / "out.jsonl").exists()


def endpoint(count: int = 6):
    """An endpoint that proposes the reference labeller's items; the dialogue is told by its codes."""
    known = truth(count)

    class Asked:
        def __init__(self, dialogue, turn):
            self.where = type("Where", (), {"dialogue": dialogue, "turn": turn})

    def script(body, number):
        text = body["messages"][-1]["content"]
        i = next(i for i in range(count) if f"Code C{i}Z." in text)
        turn = int(text.rpartition("checklist of turn ")[2].partition(":")[0])
        return says(json.dumps(known(Asked(f"d{i}", turn))), tokens=50)

    return script


def cli(capsys, *argv: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main([*argv])
    out, err = capsys.readouterr()
    return stop.value.code, out, err


def test_killed_it_ends_with_the_clean_output_and_pays_at_most_what_was_under_way(tmp_path, capsys):
    known, count = endpoint(20), 20
    source = write(tmp_path / "in.jsonl", count)

    def script(body, number):
        reply = known(body, number)
        reply.delay = 0.03
        return reply

    def command(out: str, url: str) -> list[str]:
        model = ["--labeler", "llm", "--base-url", url, "--model", "m", "--concurrency", "2"]
        return ["label", source, "-o", str(tmp_path / out), *model]

    with OpenAIServer(script) as server:
        assert cli(capsys, *command("clean.jsonl", server.url))[0] == 0
        clean = len(server.requests)
        assert clean == 39
        enough = len(server.requests) + 8
        process = subprocess.Popen(
            [sys.executable, "-m", "cm2", *command("out.jsonl", server.url)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while len(server.requests) < enough and process.poll() is None:
            time.sleep(0.005)
        process.kill()
        process.wait()
        assert not (tmp_path / "out.jsonl").exists()
        assert cli(capsys, *command("out.jsonl", server.url))[0] == 0
        assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "clean.jsonl").read_bytes()
        again = len(server.requests) - clean
        assert clean <= again <= clean + 2, "two were under way"


@pytest.mark.parametrize("labeler", ["llm", "hybrid"])
def test_from_the_command_line_through_a_server_and_again_from_the_cache(tmp_path, capsys, labeler):
    source, out = write(tmp_path / "in.jsonl", 6), str(tmp_path / "out.jsonl")
    with OpenAIServer(endpoint()) as server:
        argv = ["label", source, "-o", out, "--labeler", labeler, "--base-url", server.url, "--model", "m", "--json"]
        code, printed, _ = cli(capsys, *argv)
        summary = json.loads(printed)
        assert code == 0 and summary["items"] == 30 and len(server.requests) == 12
        assert summary["spending"]["stages"]["label"]["calls"] == 12
        first = (tmp_path / "out.jsonl").read_bytes()
        code, printed, _ = cli(capsys, *argv)
        assert code == 0 and len(server.requests) == 12 and (tmp_path / "out.jsonl").read_bytes() == first
        assert json.loads(printed)["spending"]["stages"]["label"]["reused"] == 12
        code, shown, _ = cli(capsys, *argv[:-1])
        assert code == 0 and "30 of 30 items are judged by code" in " ".join(shown.split()) and "label" in shown
    assert cli(capsys, "lint", out)[0] == 0


def test_from_the_command_line_a_dry_run_asks_nothing(tmp_path, capsys):
    source, out = write(tmp_path / "in.jsonl", 6), str(tmp_path / "out.jsonl")
    with OpenAIServer([refuses(500)]) as server:
        argv = ["label", source, "-o", out, "--labeler", "llm", "--base-url", server.url, "--model", "m", "--dry-run"]
        code, printed, _ = cli(capsys, *argv, "--json")
        stages = json.loads(printed)["spending"]["stages"]
        assert code == 0 and stages["label"]["calls"] == stages["label again"]["calls"] == 12
        assert stages["label"]["prompt_tokens"] > 12_000 and not server.requests
        code, shown, _ = cli(capsys, *argv)
        assert code == 0 and "planned" in shown and not (tmp_path / "out.jsonl").exists()


def test_from_the_command_line_a_model_must_be_named(tmp_path, capsys):
    source = write(tmp_path / "in.jsonl", 1)
    code, out, err = cli(capsys, "label", source, "-o", str(tmp_path / "o.jsonl"), "--labeler", "llm")
    assert code == 2 and not out and "--base-url" in err
    code, out, err = cli(capsys, "label", source, "-o", str(tmp_path / "o.jsonl"), "--dry-run")
    assert code == 2 and not out and "--labeler llm or hybrid" in err and not (tmp_path / "o.jsonl").exists()


def test_from_the_command_line_what_is_set_aside_is_said(tmp_path, capsys):
    source, out = write(tmp_path / "in.jsonl", 6), str(tmp_path / "out.jsonl")
    known = endpoint()

    def script(body, number):
        return says("I would rather talk.") if "Code C3Z." in body["messages"][1]["content"] else known(body, number)

    with OpenAIServer(script) as server:
        argv = ["label", source, "-o", out, "--labeler", "llm", "--base-url", server.url, "--model", "m"]
        code, shown, _ = cli(capsys, *argv)
    assert code == 0 and "rows set aside without an answer: 1" in shown and "unlabelled turn" in shown
    assert "gave no valid answer" in (tmp_path / "out.jsonl.unscored.jsonl").read_text()


@pytest.mark.parametrize("name", ["glaive_demo", "apibank", "taskmaster4"])
def test_on_real_files_a_junk_model_leaves_the_references_file(shared_data, tmp_path, name):
    """Whole files, so that items that the row before satisfies are dropped in both."""
    lines = gzip.decompress((shared_data / f"{name}.jsonl.gz").read_bytes()).decode().splitlines()[:16]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(f"{line}\n" for line in lines))
    code = label_file(LabelConfig(str(source), str(tmp_path / "code.jsonl")))
    junk = Scripted(lambda request: {"items": [{"question": "Did the assistant reply?"}, 7]})
    both = label_file(LabelConfig(str(source), str(tmp_path / "both.jsonl"), "hybrid"), asker=junk)
    items = [
        [[(each.turn, each.items) for each in task.checklists] for _, task in read_tasks(tmp_path / f"{who}.jsonl")]
        for who in ("code", "both")
    ]
    assert items[0] == items[1] and both.items == code.items > 16 and both.kinds == code.kinds
    assert {why: n for why, n in both.items_out.items() if not why.startswith("model")} == code.items_out
