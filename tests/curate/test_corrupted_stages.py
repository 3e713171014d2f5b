"""307 lines with 116 kinds of faults go through every stage that reads dialogues: nothing crashes, nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from curate_askers import Scripted, verdict

from cm2.curate import FilterConfig, filter_file
from cm2.curate.compress import CompressConfig, compress_file, restored
from cm2.curate.select import select_file
from cm2.curate.selection import SelectConfig, Split
from cm2.formats import read_rows
from cm2.formats.jsonlines import encode
from cm2.llm.config import ModelsConfig
from cm2.llm.models import Models

NOWHERE = {"default": {"base_url": "http://127.0.0.1:9/v1", "model": "m"}}


@pytest.fixture
def corrupted(shared_data) -> str:
    return str(shared_data / "corrupted.jsonl.gz")


def lines(path) -> list[bytes]:
    return Path(path).read_bytes().splitlines()


def test_the_model_is_asked_about_whatever_the_rules_let_through(corrupted, tmp_path):
    asker = Scripted(lambda request: verdict("yes"))
    config = FilterConfig(corrupted, str(tmp_path / "k"), str(tmp_path / "r"), llm=True, passes="low:1")
    summary = filter_file(config, asker=asker)
    plain = filter_file(FilterConfig(corrupted, str(tmp_path / "k2"), str(tmp_path / "r2")))
    assert (summary.kept, summary.rejected, summary.unscored) == (plain.kept, plain.rejected, 0)
    assert lines(tmp_path / "k") == lines(tmp_path / "k2")
    assert [json.loads(line) for line in lines(tmp_path / "r")] == [json.loads(line) for line in lines(tmp_path / "r2")]
    assert len(asker.asked) == plain.kept > 80


def test_with_all_rules_off_what_is_no_dialogue_is_set_aside_as_the_datas_fault(corrupted, tmp_path):
    with Models(ModelsConfig(default=NOWHERE["default"]), dry=True) as door:
        config = FilterConfig(
            corrupted, str(tmp_path / "k"), str(tmp_path / "r"), llm=True, passes="low:1", rules=["empty"]
        )
        summary = filter_file(config, asker=door)
        assert door.planned.total.answers == summary.kept
    assert summary.read == summary.kept + summary.rejected + summary.unscored
    assert summary.read == sum(map(len, (lines(tmp_path / "k"), lines(tmp_path / "r"), lines(config.unscored))))
    assert set(summary.llm.owners) <= {"data"}
    for line in lines(config.unscored):
        assert json.loads(line)["unscored"]["owner"] == "data"


def test_thinking_is_compressed_where_there_is_some_and_can_be_put_back(corrupted, tmp_path):
    def say(request):
        return {"sections": [{"index": each["index"], "text": each["text"]} for each in request.planned["sections"]]}

    summary = compress_file(CompressConfig(corrupted, str(tmp_path / "out.jsonl")), Scripted(say))
    before = [row.value for row in read_rows(corrupted) if row.value is not None]
    after = [row.value for row in read_rows(str(tmp_path / "out.jsonl"))]
    assert len(after) == len(before) == summary.rows - len(summary.left_out)
    for old, new in zip(before, after, strict=True):
        assert encode(restored(new)) == encode(old)  # NaN, which JSON cannot hold, is null in all that is written
    assert summary.sections == summary.rewritten + sum(summary.kept.values()) + summary.unscored


def test_selection_counts_every_line(corrupted, tmp_path):
    config = SelectConfig(corrupted, str(tmp_path / "out"), [Split(name="half", count=40), Split(name="rest")])
    summary = select_file(config).summary
    chosen = sum(split.rows for split in summary.splits.values())
    assert (
        summary.rows == len(list(read_rows(corrupted))) == chosen + summary.not_chosen + sum(summary.left_out.values())
    )
    assert summary.left_out["exact duplicate"] >= 1 and summary.left_out["no dialogue"] > 10
