"""`cm2 simulate fidelity`: made or given worlds, a table or one JSON object, any endpoint, a dry run."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from cm2.cli import simulate
from cm2.errors import CM2Error
from cm2.worlds import MakeConfig
from cm2.worlds.file import make_file
from servers.openai_server import OpenAIServer, says


def run(*args):
    app = typer.Typer()
    simulate.register(app)

    @app.callback()
    def root() -> None:
        """One verb only."""

    result = CliRunner().invoke(app, ["simulate", "fidelity", *map(str, args)])
    if isinstance(result.exception, CM2Error):
        raise result.exception
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def test_the_summary_is_one_json_object():
    found = json.loads(run("-n", 6, "--replay", "always,same_state", "--json").stdout)["simulators"]
    assert [one["simulator"] for one in found] == [
        *("replay", "replay, same_state", "fallback", "fallback, same_state", "schema", "schema, same_state")
    ]
    assert all(one["dialogues"] == 6 and one["rates"]["all"]["form"]["rate"] == 1.0 for one in found)


def test_a_table_shows_all_and_what_was_not_replayed():
    out = run("-n", 6, "--profile", "short", "--simulators", "fallback").stdout
    assert "fallback" in out and "simulated" in out and "6 dialogues" in out


def test_rows_of_sample_worlds_can_be_given(tmp_path):
    file = tmp_path / "rows.jsonl"
    make_file(MakeConfig(count=5, seed=3, profile="short"), str(file))
    found = json.loads(run(file, "--simulators", "replay", "-n", 4, "--json").stdout)["simulators"]
    assert found[0]["dialogues"] == 4


def test_any_endpoint_is_measured_and_a_dry_run_asks_nothing(tmp_path):
    with OpenAIServer([says(json.dumps({"answer": {"error": "no such thing"}}))]) as server:
        args = ("--simulators", "llm", "-n", 4, "--base-url", server.url, "--model", "m", "--json")
        planned = json.loads(run(*args, "--dry-run").stdout)["planned"]
        assert planned["stages"]["simulate"]["calls"] > 0 and server.requests == []
        found = json.loads(run(*args, "--cache", tmp_path / "cache.sqlite").stdout)
        (one,) = found["simulators"]
        assert one["failed"] == 0 and found["spent"]["stages"]["simulate"]["calls"] == len(server.requests)
        asked = len(server.requests)
        again = json.loads(run(*args, "--cache", tmp_path / "cache.sqlite").stdout)
        assert again["simulators"] == found["simulators"] and len(server.requests) == asked


def test_junk_is_a_failure_of_the_simulator_and_counted():
    with OpenAIServer([says("I would rather not.")]) as server:
        result = run("--simulators", "llm", "-n", 4, "--base-url", server.url, "--model", "m")
    assert "trials ended early" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    "args, told",
    [
        (["--simulators", "magic"], "use one of"),
        (["--simulators", "auto"], "is the true world here"),
        (["--simulators", "llm"], "base_url"),
        (["--budget", "1"], "add llm"),
        (["-n", "0"], "at least 1"),
    ],
)
def test_wrong_use_is_a_sentence(args, told):
    with pytest.raises(CM2Error, match=told):
        run(*args)
