"""BFCL's own files become outcomes: failures only in the score file, and errors that pose as answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cm2.errors import ConfigError
from cm2.harness import bfcl
from cm2.harness.process import HarnessFailed
from servers.openai_server import OpenAIServer, Reply

BASE = "multi_turn_base"


def answer(id: str, result: Any, **more: Any) -> dict[str, Any]:
    """A line of the harness's answers."""
    return {"id": id, "result": result, **more}


def write(
    folder: Path, category: str, answers: list[dict], failures: list[dict], planned: list[str] | None = None
) -> None:
    """The files of one category, as the harness leaves them."""
    ids = [row["id"] for row in answers]
    (folder / "tasks.json").write_text(json.dumps({"tasks": {category: planned or ids}, "whole": {}, "hash": "0"}))
    correct = len(answers) - len(failures)
    header = {"accuracy": correct / len(answers), "correct_count": correct, "total_count": len(answers)}
    for kind, rows in (("result", answers), ("score", [header, *failures])):
        place = folder / kind / bfcl.AGENT / "multi_turn"
        place.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (place / f"BFCL_v4_{category}_{kind}.json").write_text(text)


def failure(id: str, kind: str = "multi_turn:instance_state_mismatch") -> dict[str, Any]:
    """A line of the grader's failures."""
    return {"id": id, "valid": False, "error": {"error_type": kind, "error_message": ["Model instance differs"]}}


def test_what_is_not_among_the_failures_passed(tmp_path: Path) -> None:
    said = [[[{"cd": '{"folder": "a"}'}], "done"]]
    write(tmp_path, BASE, [answer(f"{BASE}_0", said), answer(f"{BASE}_1", said)], [failure(f"{BASE}_1")])
    outcomes, official = bfcl.parse(tmp_path, 2, "raw/run-2")
    assert [(one.task, one.score, one.passed, one.owner) for one in outcomes] == [
        (f"{BASE}_0", 1.0, True, None),
        (f"{BASE}_1", 0.0, False, None),
    ]
    assert official == {BASE: [0.5]}
    assert outcomes[1].error == "multi_turn:instance_state_mismatch: Model instance differs"
    assert outcomes[0].run == 2 and (tmp_path / outcomes[0].raw.removeprefix("raw/run-2/")).exists()


@pytest.mark.parametrize(
    ("result", "owner", "score"),
    [
        ("Error during inference: [infrastructure] InternalServerError: 500", "infrastructure", None),
        ("Error during inference: [infrastructure] APITimeoutError: Request timed out.", "infrastructure", None),
        ("Error during inference: [agent] BadRequestError: context_length_exceeded", "agent", 0.0),
        ("Error during inference: 'NoneType' object is not iterable", "infrastructure", None),
    ],
)
def test_an_error_that_poses_as_an_answer_gets_its_owner(
    tmp_path: Path, result: str, owner: str, score: float | None
) -> None:
    row = answer(f"{BASE}_0", result, traceback="Traceback …")
    write(tmp_path, BASE, [row], [failure(f"{BASE}_0", "multi_turn:inference_error")])
    (one,), official = bfcl.parse(tmp_path, 0, "raw")
    assert (one.owner, one.score) == (owner, score)
    assert official == {BASE: [0.0]}  # what the harness itself makes of it


def test_arguments_that_are_no_json_are_the_agents_own(tmp_path: Path) -> None:
    write(tmp_path, BASE, [answer(f"{BASE}_0", [[[{"cd": '{"folder": '}]]])], [failure(f"{BASE}_0")])
    (one,), _ = bfcl.parse(tmp_path, 0, "raw")
    assert (one.owner, one.score) == ("agent", 0.0) and "cd" in one.error


def test_an_agent_that_says_the_words_of_an_error_made_none(tmp_path: Path) -> None:
    write(tmp_path, BASE, [answer(f"{BASE}_0", [["Error during inference: I made this up"]])], [failure(f"{BASE}_0")])
    (one,), _ = bfcl.parse(tmp_path, 0, "raw")
    assert (one.owner, one.score) == (None, 0.0)


def searched(content: str) -> dict[str, Any]:
    """An answer in which the agent searched once."""
    step = [
        {"role": "assistant", "content": []},
        {"role": "handler_log", "content": "ok", "model_response_decoded": ["search_engine_query(keywords='x')"]},
        {"role": "tool", "content": content},
    ]
    return answer("web_search_base_0", [["42"]], inference_log=[{"begin_of_turn_query": [], "step_0": step}])


def test_a_search_that_the_engine_failed_is_no_failure_of_the_agent(tmp_path: Path) -> None:
    row = searched('{"error": "Failed to retrieve the search results from server. Please try again later."}')
    write(tmp_path, "web_search_base", [row], [failure(row["id"], "agentic:answer_not_found")])
    (one,), _ = bfcl.parse(tmp_path, 0, "raw")
    assert (one.owner, one.score) == ("infrastructure", None)


def test_a_search_that_found_something_is_scored(tmp_path: Path) -> None:
    row = searched("[{'title': 'a page about {\"error\"}', 'href': 'u'}]")
    write(tmp_path, "web_search_base", [row], [failure(row["id"], "agentic:answer_not_found")])
    (one,), _ = bfcl.parse(tmp_path, 0, "raw")
    assert (one.owner, one.score) == (None, 0.0)


def test_answers_are_counted_as_they_come(tmp_path: Path) -> None:
    counted = bfcl.Answers(tmp_path)
    assert counted() == 0
    place = tmp_path / "result" / "m"
    place.mkdir(parents=True)
    (place / "a_result.json").write_text("{}\n{}\n{")
    (place / "b_result.json").write_text("{}\n")
    assert counted() == 3
    with open(place / "a_result.json", "a") as file:
        file.write("}\n")
    assert counted() == 4
    (place / "a_result.json").write_text("{}\n")  # an answer was taken out: the file is shorter now
    assert counted() == 2


def test_missing_answers_are_no_results(tmp_path: Path) -> None:
    write(tmp_path, BASE, [answer(f"{BASE}_0", [[]])], [], planned=[f"{BASE}_0", f"{BASE}_1"])
    with pytest.raises(HarnessFailed, match="1 answers are missing"):
        bfcl.parse(tmp_path, 0, "raw")


def test_the_multi_turn_number_is_read_from_its_own_table(tmp_path: Path) -> None:
    place = tmp_path / "score"
    place.mkdir()
    (place / "data_multi_turn.csv").write_text("Rank,Model,Multi Turn Overall Acc,Base\n1,cm2-agent,12.50%,50.00%\n")
    (place / "data_overall.csv").write_text("Rank,Overall Acc\n1,3.00%\n")
    assert bfcl.overall(tmp_path)["Multi Turn Overall Acc"] == 0.125


def test_web_search_is_refused_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(bfcl.KEY, raising=False)
    with pytest.raises(ConfigError, match=bfcl.KEY):
        bfcl.probe_search("http://127.0.0.1:9/never")


class Search(OpenAIServer):
    """A search engine that answers GET with what it was given."""

    def _handler(server):
        handler = super()._handler()

        class Get(handler):  # type: ignore[valid-type, misc]
            def do_GET(self) -> None:
                reply = server._next({"path": self.path}, {}, self.path)
                data = (reply.body if isinstance(reply.body, str) else json.dumps(reply.body)).encode()
                self.send_response(reply.status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        return Get


@pytest.mark.parametrize(
    "reply",
    [
        Reply({"error": "Invalid API key: a-key-of-mine"}, 401),
        Reply({"search_metadata": {}}),
        Reply({"organic_results": []}),
        Reply("<html>", 502),
    ],
)
def test_web_search_is_refused_where_the_probe_query_finds_nothing(
    reply: Reply, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(bfcl.KEY, "a-key-of-mine")
    with Search([reply]) as server, pytest.raises(ConfigError, match="probe query") as refused:
        bfcl.probe_search(server.url)
    assert "a-key-of-mine" not in str(refused.value)


def test_web_search_is_refused_where_the_web_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(bfcl.KEY, "a-key-of-mine")
    with pytest.raises(ConfigError, match="probe query"):
        bfcl.probe_search("http://127.0.0.1:9/nothing-listens")


def test_web_search_goes_on_where_the_probe_query_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(bfcl.KEY, "a-key-of-mine")
    with Search([Reply({"organic_results": [{"title": "t"}]})]) as server:
        bfcl.probe_search(server.url)
        assert "engine=duckduckgo" in server.paths[0] and "a-key-of-mine" in server.paths[0]
