"""`cm2 judge` with a model, over a real socket."""

from __future__ import annotations

import json

import pytest
from judge_askers import asked, entry
from test_judge_run import verdicts, write
from test_judge_store import tasks

from cm2.cli.main import main
from cm2.formats import write_task
from cm2.judge.stored import read_verdicts
from judge.judge_askers import stripped
from servers.openai_server import OpenAIServer, refuses, says

PRICE = ("--set", "price={input: 1, output: 1}", "--set", "retries=0", "--set", "backoff=0")


class Request:
    """A request as `asked` reads it."""

    def __init__(self, body):
        self.messages = body["messages"]


def truth(body, number):
    """Every item holds from its first possible step on."""
    firsts = {"C0": (0, "search"), "C1": (1, "It is A1")}
    if "holds" in body["messages"][0]["content"].split("JSON only")[1][:80]:
        last = "after step 1" in body["messages"][1]["content"]
        found = [entry(one["id"], one["id"] == "C0" or last, firsts[one["id"]][1]) for one in asked(Request(body))]
    else:
        found = [entry(one["id"], *firsts[one["id"]]) for one in asked(Request(body))]
    return says(json.dumps({"verdicts": found}))


def run(capsys, *argv):
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in argv])
    shown = capsys.readouterr()
    return stop.value.code, shown.out, shown.err


@pytest.fixture
def source(tmp_path):
    rows = [write_task(stripped(task), "openai") for task in tasks(4, 2)]
    return write(tmp_path / "in.jsonl", rows)


def test_a_model_judges_a_file_and_the_summary_says_what_it_took(capsys, tmp_path, source):
    out = tmp_path / "out.jsonl"
    with OpenAIServer(truth) as server:
        model = ("--base-url", server.url, "--model", "m", *PRICE)
        code, text, _ = run(capsys, "judge", source, "-o", out, "--judge", "llm", *model, "--json")
        told = json.loads(text)
        assert code == 0 and len(server.requests) == 8
        assert (told["calls"], told["cached"], told["total"]["passed"], told["failed"]) == (8, 0, 16, 0)
        assert told["cost"] == pytest.approx(8 * 12 / 1e6) and sum(v.cost for v in verdicts(out)) == pytest.approx(
            told["cost"]
        )
        out.unlink()
        (tmp_path / "out.jsonl.input.json").unlink()
        code, text, _ = run(capsys, "judge", source, "-o", out, "--judge", "llm", *model)
        assert code == 0 and len(server.requests) == 8 and "8 answers from the cache" in " ".join(text.split())


@pytest.mark.parametrize(("schedule", "calls"), [("turn", 8), ("step", 16), ("item", 16), ("published", 24)])
def test_the_schedules_can_be_chosen(capsys, tmp_path, source, schedule, calls):
    with OpenAIServer(truth) as server:
        argv = ("--judge", "llm", "--schedule", schedule, "--base-url", server.url, "--model", "m", *PRICE)
        code, text, err = run(capsys, "judge", source, "-o", tmp_path / "out.jsonl", *argv, "--json")
        assert code == 0, err
        assert len(server.requests) == calls and json.loads(text)["total"]["passed"] == 16
        sampling = {(body.get("temperature"), body.get("top_p")) for body in server.requests}
        assert sampling == {(0.6, 0.8) if schedule == "published" else (None, None)}


def test_a_dry_run_asks_nothing_writes_nothing_and_tells_the_plan(capsys, tmp_path, source):
    with OpenAIServer(truth) as server:
        argv = ("--judge", "llm", "--base-url", server.url, "--model", "m", *PRICE, "--dry-run")
        code, text, _ = run(capsys, "judge", source, "-o", tmp_path / "out.jsonl", *argv, "--json")
        planned = json.loads(text)["spending"]["stages"]["judge: turn"]
        assert code == 0 and server.requests == [] and planned["calls"] == 8 and planned["prompt_tokens"] > 1000
        code, text, _ = run(capsys, "judge", source, "-o", tmp_path / "out.jsonl", *argv)
        assert code == 0 and "planned" in text and not (tmp_path / "out.jsonl").exists()


def test_what_the_provider_failed_at_is_unscored_and_judged_by_the_same_command_later(capsys, tmp_path, source):
    out = tmp_path / "out.jsonl"

    def ill(body, number):
        return refuses(500, "ill") if "d2" in json.dumps(body) or "q2 " in json.dumps(body) else truth(body, number)

    with OpenAIServer(ill) as server:
        model = ("--judge", "llm", "--base-url", server.url, "--model", "m", *PRICE)
        code, text, _ = run(capsys, "judge", source, "-o", out, *model)
        shown = " ".join(text.split())
        assert code == 0 and "unscored, the provider gave no answer: 4 items" in shown
        assert "the same command tries again" in shown
        server.script = truth
        before = len(server.requests)
        code, text, _ = run(capsys, "judge", source, "-o", out, *model, "--json")
        assert code == 0 and json.loads(text)["total"]["passed"] == 16 and len(server.requests) - before == 2
    assert None not in {v.met for v in read_verdicts(str(out))}


def test_a_refused_key_stops_the_run_with_one_sentence(capsys, tmp_path, source):
    with OpenAIServer([refuses(401, "bad key")]) as server:
        argv = ("--judge", "hybrid", "--base-url", server.url, "--model", "m", *PRICE)
        code, text, err = run(capsys, "judge", source, "-o", tmp_path / "out.jsonl", *argv, "--json")
    assert code == 2 and text == "" and "401" in err and "Traceback" not in err


def test_a_vote_of_one_model_and_of_a_panel(capsys, tmp_path, source):
    with OpenAIServer(truth) as server:
        argv = ("--judge", "vote", "--votes", "3", "--base-url", server.url, "--model", "m", *PRICE)
        code, _, err = run(capsys, "judge", source, "-o", tmp_path / "votes.jsonl", *argv, "--json")
        assert code == 0, err
        assert len(server.requests) == 24 and {body["seed"] for body in server.requests} == {0, 1, 2}
        assert {tuple(v.votes) for v in verdicts(tmp_path / "votes.jsonl")} == {(True,) * 3, (False,) * 3}
        other = tmp_path / "other.yaml"
        other.write_text(f"judge: {{base_url: {server.url}, model: second, retries: 0}}\n")
        server.requests.clear()
        argv = ("--judge", "vote", "--panel", other, "--base-url", server.url, "--model", "m", *PRICE)
        code, _, err = run(capsys, "judge", source, "-o", tmp_path / "panel.jsonl", *argv, "--json")
        assert code == 0, err
        assert {len(v.votes) for v in verdicts(tmp_path / "panel.jsonl")} == {2}
        assert {body["model"] for body in server.requests} == {"m", "second"} and len(server.requests) == 16


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--judge", "llm"), "no base_url"),
        (("--judge", "nobody"), "nobody"),
        (("--judge", "classifier", "--base-url", "http://127.0.0.1:9/v1", "--model", "m"), "no model"),
        (("--judge", "llm", "--schedule", "daily"), "daily"),
        (("--judge", "vote", "--votes", "2", "--quorum", "3"), "quorum of 3"),
        (("--judge", "llm", "--panel", "other.yaml"), "a panel votes"),
        (("--dry-run",), "checks cost nothing"),
        (("--engine", "cloud"), "cloud"),
    ],
)
def test_wrong_use_is_one_sentence(capsys, tmp_path, source, argv, words):
    code, text, err = run(capsys, "judge", source, "-o", tmp_path / "out.jsonl", *argv)
    assert code == 2 and words in " ".join(err.split()) and "Traceback" not in err and text == ""


def test_settings_of_a_judge_can_stand_in_a_file(capsys, tmp_path, source):
    file = tmp_path / "judging.yaml"
    file.write_text("kind: llm\nschedule: step\n")
    with OpenAIServer(truth) as server:
        argv = ("--judging", file, "--base-url", server.url, "--model", "m", *PRICE)
        code, _, err = run(capsys, "judge", source, "-o", tmp_path / "out.jsonl", *argv)
        assert code == 0, err
        assert len(server.requests) == 16
