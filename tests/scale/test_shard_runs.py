"""A stage over shards gives what one run over the folder gives, does again only what is missing, and stops cleanly."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scale_cases import BAD, LlmServer, good, read_all, shards, summary_of

from cm2.curate.compress import CompressConfig, compress_file
from cm2.curate.filter import FilterConfig, filter_file
from cm2.curate.opinion import JudgedSummary, PassCount
from cm2.errors import CM2Error, ConfigError
from cm2.formats import RowWriter, read_rows, write_row
from cm2.judge.judging import Judging
from cm2.judge.run import JudgeConfig, judge_file
from cm2.label.label_run import LabelConfig, label_file
from cm2.llm.models import Models
from cm2.scale import STAGES, run_shards, shards_of
from cm2.scale.merge import merged
from cm2.scale.run import serial
from cm2.worlds.make import MakeConfig, make


def folders(tmp_path: Path, name: str, **more) -> FilterConfig:
    at = tmp_path / name
    return FilterConfig(str(tmp_path / "in"), str(at / "kept"), str(at / "rejected"), str(at / "flagged"), **more)


def local(tmp_path: Path, **more):
    config = FilterConfig(
        str(tmp_path / "in"),
        *(str(tmp_path / f"{name}.jsonl") for name in ("kept", "rejected", "flagged")),
        **more,
    )
    return config, filter_file(config)


def test_shards_know_how_many_lines_stand_before_them(tmp_path):
    shards(tmp_path / "in", [good(n) for n in range(7)], ["b.parquet", "a/x.parquet", "c.jsonl.gz"])
    (tmp_path / "in" / "d.jsonl").write_bytes(b"\n\n" + json.dumps(good(99)).encode() + b"\n\n\n")
    (tmp_path / "in" / "e.jsonl").write_bytes(json.dumps(good(100)).encode())
    found = shards_of(str(tmp_path / "in"))
    assert [shard.name for shard in found] == ["a/x.parquet", "b.parquet", "c.jsonl.gz", "d.jsonl", "e.jsonl"]
    assert [shard.lines_before for shard in found] == [0, 3, 6, 7, 10]
    lines = [row.line for row in read_rows(str(tmp_path / "in"))]
    assert lines == [1, 2, 3, 4, 5, 6, 7, 10, 11]
    with pytest.raises(ConfigError, match="one file"):
        shards_of(str(tmp_path / "in" / "d.jsonl"))


def test_the_rules_over_shards_are_the_rules_over_the_folder(tmp_path):
    rows = [BAD if n % 4 == 1 else good(n, odd=n % 3 == 0) for n in range(23)]
    shards(tmp_path / "in", rows, ["s0.parquet", "s1.parquet", "s2.parquet"])
    over = run_shards("filter", folders(tmp_path, "over"))
    config, summary = local(tmp_path)
    assert summary_of(over) == summary_of(summary) and over.rejected > 3 and over.flagged > 3
    for name, path in (("kept", config.output), ("rejected", config.rejected), ("flagged", config.flagged)):
        assert read_all(tmp_path / "over" / name) == [row.value for row in read_rows(path)]
    assert sorted(path.name for path in (tmp_path / "over" / "kept").glob("*.parquet")) == [
        "s0.parquet",
        "s1.parquet",
        "s2.parquet",
    ]


def test_outputs_of_shards_can_be_read_by_the_next_stage(tmp_path):
    shards(tmp_path / "in", [good(n) for n in range(6)], ["s0.parquet", "s1.jsonl"])
    run_shards("filter", folders(tmp_path, "over"))
    config = FilterConfig(str(tmp_path / "over" / "kept"), str(tmp_path / "again"), str(tmp_path / "again-no"))
    assert run_shards("filter", config).kept == 6


def test_labels_and_verdicts_over_shards_are_those_over_the_folder(tmp_path):
    rows = [write_row(dialogue, "openai") for dialogue in make(MakeConfig(count=12, seed=3, two_turns=1.0))]
    shards(tmp_path / "in", rows, ["s0.parquet", "s1.parquet", "s2.jsonl"])
    over = run_shards("label", LabelConfig(str(tmp_path / "in"), str(tmp_path / "labelled")))
    summary = label_file(LabelConfig(str(tmp_path / "in"), str(tmp_path / "labelled.jsonl")))
    assert summary_of(over) == summary_of(summary) and over.items > 20
    assert read_all(tmp_path / "labelled") == [row.value for row in read_rows(str(tmp_path / "labelled.jsonl"))]
    over = run_shards("judge", JudgeConfig(str(tmp_path / "labelled"), str(tmp_path / "verdicts")))
    summary = judge_file(JudgeConfig(str(tmp_path / "labelled"), str(tmp_path / "verdicts.jsonl")))
    assert summary_of(over) == summary_of(summary) and over.verdicts > 50
    assert read_all(tmp_path / "verdicts", "*.jsonl") == [
        json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_bytes().splitlines()
    ]


def test_the_llm_filter_over_shards_is_that_over_the_folder_and_resumes(tmp_path):
    rows = [BAD if n == 2 else good(n) for n in range(9)]
    shards(tmp_path / "in", rows, ["s0.parquet", "s1.parquet", "s2.parquet"])
    with LlmServer(no={1, 5}, lost={7}) as server:
        over = run_shards("filter", folders(tmp_path, "over", llm=True, passes="low:2,high:1"), models=server.models())
        asked = len(server.calls)
        config = FilterConfig(
            str(tmp_path / "in"), str(tmp_path / "k.jsonl"), str(tmp_path / "r.jsonl"), llm=True, passes="low:2,high:1"
        )
        with Models(server.models()) as door:
            summary = filter_file(config, asker=door)
        assert len(server.calls) == 2 * asked
        assert (over.kept, over.rejected, over.unscored) == (5, 3, 1) == (
            summary.kept, summary.rejected, summary.unscored,
        )  # fmt: skip
        assert [msgspec.to_builtins(one) for one in over.llm.passes] == msgspec.to_builtins(summary.llm.passes)
        assert over.llm.calls == summary.llm.calls == 5 * 3 + 2 * 1 + 1
        aside = read_all(tmp_path / "over" / "kept.unscored")
        assert [(row["line"], row["unscored"]["owner"]) for row in aside] == [(8, "provider")]
        assert read_all(tmp_path / "over" / "rejected") == [row.value for row in read_rows(config.rejected)]
        server.calls.clear()
        server.lost = set()
        again = run_shards("filter", folders(tmp_path, "over", llm=True, passes="low:2,high:1"), models=server.models())
        assert again.unscored == 0 and again.kept == 6
        assert server.calls == [(7, "low"), (7, "low"), (7, "high")]  # its shard only, and of it only what was lost


def test_compression_over_shards_is_that_over_the_folder(tmp_path):
    shards(tmp_path / "in", [good(n) for n in range(6)], ["s0.parquet", "s1.parquet"])
    with LlmServer() as server:
        over = run_shards(
            "compress", CompressConfig(str(tmp_path / "in"), str(tmp_path / "out")), models=server.models()
        )
        with Models(server.models()) as door:
            summary = compress_file(CompressConfig(str(tmp_path / "in"), str(tmp_path / "out.jsonl")), door)
    assert summary_of(over) == summary_of(summary) and over.sections == 12
    assert read_all(tmp_path / "out") == [row.value for row in read_rows(str(tmp_path / "out.jsonl"))]


@pytest.mark.parametrize("stage", ["label", "judge"])
def test_what_a_model_failed_to_say_leaves_its_shard_to_be_done_again(tmp_path, stage):
    rows = [write_row(dialogue, "openai") for dialogue in make(MakeConfig(count=2, seed=3))]
    shards(tmp_path / "in", rows, ["s0.jsonl"])
    run_shards("label", LabelConfig(str(tmp_path / "in"), str(tmp_path / "tasks")))
    configs = {
        "label": LabelConfig(str(tmp_path / "in"), str(tmp_path / "out"), labeler="llm"),
        "judge": JudgeConfig(str(tmp_path / "tasks"), str(tmp_path / "out"), judging=Judging(kind="llm")),
    }
    done = list[str]()
    with LlmServer() as server:
        for _ in range(2):
            summary = run_shards(stage, configs[stage], counting(done), server.models())
            assert STAGES[stage].unfinished(summary) > 0
    assert done == ["s0.jsonl"] * 2


@pytest.mark.parametrize("store", ["file://{}", "memory://{}"])
def test_an_object_store_is_read_and_written_by_its_address(tmp_path, store):
    root = store.format(tmp_path)
    for number in range(3):
        with RowWriter(f"{root}/in/s{number}.parquet") as writer:
            writer.write(BAD if number == 1 else good(number))
    config, done = FilterConfig(f"{root}/in", f"{root}/kept/", f"{root}/rejected"), list[str]()
    first = run_shards("filter", config, counting(done))
    assert (first.kept, first.rejected) == (2, 1) and len(done) == 3
    assert [row.value["id"] for row in read_rows(f"{root}/kept/s2.parquet")] == ["row-2"]
    assert [row.value["line"] for row in read_rows(f"{root}/rejected/s1.parquet")] == [2]
    assert run_shards("filter", config, counting(done)) == first and len(done) == 3


def counting(done: list[str]):
    def engine(work, missing, processors):
        done.extend(shard.name for shard in missing)
        return serial(work, missing, processors)

    return engine


def test_a_second_run_does_only_what_is_missing_or_has_changed(tmp_path):
    shards(tmp_path / "in", [good(n) for n in range(6)], ["s0.parquet", "s1.parquet", "s2.parquet"])
    config, done = folders(tmp_path, "over"), list[str]()
    first = run_shards("filter", config, counting(done))
    assert run_shards("filter", config, counting(done)) == first
    assert done == ["s0.parquet", "s1.parquet", "s2.parquet"]
    done.clear()
    (tmp_path / "over" / "kept" / "s1.parquet").unlink()
    with RowWriter(tmp_path / "in" / "s2.parquet") as writer:
        writer.write(BAD)
    second = run_shards("filter", config, counting(done))
    assert done == ["s1.parquet", "s2.parquet"] and (second.kept, second.rejected) == (4, 1)
    done.clear()
    run_shards("filter", folders(tmp_path, "over", profile="published"), counting(done))
    assert len(done) == 3  # other settings, other results


def test_a_shard_that_fails_is_told_and_stops_none_of_the_others(tmp_path):
    shards(tmp_path / "in", [good(n) for n in range(6)], ["s0.jsonl", "s1.jsonl", "s2.jsonl"])
    whole = (tmp_path / "in" / "s1.jsonl").read_bytes()
    (tmp_path / "in" / "s1.jsonl").write_bytes(b"[\n{},\n{}\n]\n")
    config, done = folders(tmp_path, "over"), list[str]()
    with pytest.raises(CM2Error, match=r"1 of 3 shards failed; the first, s1.jsonl: .*JSON array") as failed:
        run_shards("filter", config)
    assert "does the rest" in str(failed.value)
    assert sorted(path.name for path in (tmp_path / "over" / "kept").glob("*.jsonl")) == ["s0.jsonl", "s2.jsonl"]
    (tmp_path / "in" / "s1.jsonl").write_bytes(whole)
    assert run_shards("filter", config, counting(done)).kept == 6 and done == ["s1.jsonl"]


def test_a_budget_is_shared_out_and_reaching_it_stops_the_shard_cleanly(tmp_path):
    shards(tmp_path / "in", [good(n) for n in range(8)], ["s0.parquet", "s1.parquet"])
    with LlmServer() as server:
        models = server.models(price=1000.0)
        models.budget = 0.0001
        with pytest.raises(CM2Error, match="2 of 2 shards failed"):
            run_shards("filter", folders(tmp_path, "over", llm=True, passes="low:1"), models=models)
        assert server.calls == [] and not list((tmp_path / "over").rglob("*.parquet"))


@pytest.mark.parametrize(
    ("output", "rejected"), [("in/kept", "r"), ("k", "in"), ("k", "k"), ("k/kept", "k"), ("in", "r")]
)
def test_folders_that_lie_in_each_other_are_refused(tmp_path, output, rejected):
    shards(tmp_path / "in", [good(1)], ["s0.parquet"])
    config = FilterConfig(str(tmp_path / "in"), str(tmp_path / output), str(tmp_path / rejected))
    with pytest.raises(ConfigError, match="lie in each other"):
        run_shards("filter", config)


COUNT = st.integers(0, 5)
SUMMARIES = st.builds(
    JudgedSummary,
    prompt=st.just("p"),
    rows=COUNT,
    cost=COUNT.map(float),
    passes=st.lists(st.builds(PassCount, effort=st.just("low"), asked=COUNT, no=COUNT), min_size=2, max_size=2),
    owners=st.dictionaries(st.sampled_from("abc"), COUNT),
    lost=st.sampled_from(["", "x", "y"]),
)


@given(SUMMARIES, SUMMARIES, SUMMARIES)
def test_merging_summaries_adds_up_in_any_grouping(one, two, three):
    left, right = merged(merged(one, two), three), merged(one, merged(two, three))
    assert left == right
    assert left.rows == one.rows + two.rows + three.rows and left.cost == one.cost + two.cost + three.cost
    assert left.owners.get("a", 0) == sum(each.owners.get("a", 0) for each in (one, two, three))
    assert left.passes[1].no == sum(each.passes[1].no for each in (one, two, three))
    assert left.lost == (one.lost or two.lost or three.lost) and left.prompt == "p"


def test_every_stage_tells_what_it_is():
    assert set(STAGES) == {"filter", "compress", "label", "judge"}
    assert all(stage.summary().__struct_fields__ for stage in STAGES.values())
