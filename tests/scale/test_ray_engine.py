"""The same on a local Ray: separate processes, and what they leave is what one run leaves."""

from __future__ import annotations

import json
import os
import sys

import pytest
from scale_cases import BAD, LlmServer, good, read_all, shards, summary_of

from cm2.curate.filter import FilterConfig, filter_file
from cm2.errors import CM2Error, MissingExtra
from cm2.formats import read_rows, write_row
from cm2.judge.run import JudgeConfig, judge_file
from cm2.label.label_run import LabelConfig, label_file
from cm2.scale import run_shards
from cm2.scale.ray_engine import RayEngine
from cm2.worlds.make import MakeConfig, make
from curate.curate_askers import run_verb


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(MissingExtra, match=r"pip install 'cm2\[ray\]'"):
        RayEngine()


@pytest.fixture(scope="module")
def engine():
    """Ray on two processors, once for all tests: to start it takes longer than they do."""
    ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed (pip install 'cm2[ray]')")
    os.environ.setdefault("RAY_worker_niceness", "0")  # as nice as the tests, not nicer: a busy machine starves them
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield RayEngine(2)
    ray.shutdown()


def test_the_rules_on_ray_are_the_rules_here(tmp_path, engine):
    rows = [BAD if n % 4 == 1 else good(n, odd=n % 3 == 0) for n in range(40)]
    shards(tmp_path / "in", rows, [f"s{n}.parquet" for n in range(4)])
    at = tmp_path / "over"
    config = FilterConfig(str(tmp_path / "in"), str(at / "kept"), str(at / "rejected"), str(at / "flagged"))
    over = run_shards("filter", config, engine)
    names = ("kept", "rejected", "flagged")
    here = FilterConfig(str(tmp_path / "in"), *(str(tmp_path / f"{name}.jsonl") for name in names))
    assert summary_of(over) == summary_of(filter_file(here)) and over.rejected == 10
    for name in names:
        assert read_all(at / name) == [row.value for row in read_rows(str(tmp_path / f"{name}.jsonl"))]
    seen = []
    again = run_shards(
        "filter", config, lambda work, missing, cpus: seen.append(missing) or engine(work, missing, cpus)
    )
    assert again == over and seen == [[]]


def test_labels_and_verdicts_on_ray_are_those_here(tmp_path, engine):
    rows = [write_row(dialogue, "openai") for dialogue in make(MakeConfig(count=12, seed=3, two_turns=1.0))]
    shards(tmp_path / "in", rows, ["s0.parquet", "s1.parquet"])
    over = run_shards("label", LabelConfig(str(tmp_path / "in"), str(tmp_path / "labelled")), engine)
    summary = label_file(LabelConfig(str(tmp_path / "in"), str(tmp_path / "labelled.jsonl")))
    assert summary_of(over) == summary_of(summary) and over.items > 20
    assert read_all(tmp_path / "labelled") == [row.value for row in read_rows(str(tmp_path / "labelled.jsonl"))]
    over = run_shards("judge", JudgeConfig(str(tmp_path / "labelled"), str(tmp_path / "verdicts")), engine)
    summary = judge_file(JudgeConfig(str(tmp_path / "labelled"), str(tmp_path / "verdicts.jsonl")))
    assert summary_of(over) == summary_of(summary) and over.verdicts > 50
    assert read_all(tmp_path / "verdicts", "*.jsonl") == [
        json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_bytes().splitlines()
    ]


def test_the_llm_filter_on_ray_pays_for_each_answer_once(tmp_path, engine):
    shards(tmp_path / "in", [BAD if n == 2 else good(n) for n in range(9)], ["s0.parquet", "s1.parquet", "s2.parquet"])
    at = tmp_path / "over"
    config = FilterConfig(str(tmp_path / "in"), str(at / "kept"), str(at / "rejected"), llm=True, passes="low:2,high:1")
    with LlmServer(no={1, 5}, lost={7}) as server:
        over = run_shards("filter", config, engine, server.models())
        assert (over.kept, over.rejected, over.unscored) == (5, 3, 1)
        assert len(server.calls) == over.llm.calls == 5 * 3 + 2 * 1 + 1
        assert [row["row"]["id"] for row in read_all(at / "kept.unscored")] == ["row-7"]
        server.calls.clear()
        server.lost = set()
        again = run_shards("filter", config, engine, server.models())
    assert (again.kept, again.rejected, again.unscored) == (6, 3, 0)
    assert server.calls == [(7, "low"), (7, "low"), (7, "high")]


def test_a_shard_that_fails_on_ray_is_told_and_stops_none_of_the_others(tmp_path, engine):
    shards(tmp_path / "in", [good(n) for n in range(6)], ["s0.jsonl", "s1.jsonl", "s2.jsonl"])
    (tmp_path / "in" / "s1.jsonl").write_bytes(b"[\n{},\n{}\n]\n")
    config = FilterConfig(str(tmp_path / "in"), str(tmp_path / "kept"), str(tmp_path / "rejected"))
    with pytest.raises(CM2Error, match=r"1 of 3 shards failed; the first, s1.jsonl"):
        run_shards("filter", config, engine)
    assert sorted(path.name for path in (tmp_path / "kept").glob("*.jsonl")) == ["s0.jsonl", "s2.jsonl"]


def test_the_command_runs_on_ray(tmp_path, engine, capsys):
    shards(tmp_path / "in", [BAD, good(1), good(2)], ["s0.parquet", "s1.parquet"])
    argv = ["filter", tmp_path / "in", "-o", tmp_path / "kept", "--rejected", tmp_path / "no", "--engine", "ray"]
    run_verb(*argv, "--json")
    summary = json.loads(capsys.readouterr().out)
    assert (summary["read"], summary["kept"], summary["rejected"]) == (3, 2, 1)
    run_verb(*argv)
    assert "3 rows read, 2 kept, 1 rejected" in " ".join(capsys.readouterr().out.split())
