"""Stages: done once, resumed by repeating, stopped by a failure that is told."""

import sys

import orjson
import pytest
from rich.console import Console

from cm2.study.stages import StageFailed, Stages, duration


@pytest.fixture
def made(tmp_path):
    return tmp_path / "d.jsonl"


def stages(tmp_path, **more):
    return Stages(tmp_path / "run", total=2, console=Console(file=sys.stderr, width=200), **more)


def make(one, made, seed=0, name="worlds"):
    return one.run(name, "making", "worlds", "make", "-o", made, "-n", 3, "--seed", seed)


def test_a_stage_runs_once_and_its_summary_is_kept(tmp_path, made, capfd):
    first = make(stages(tmp_path), made)
    assert first["dialogues"] == 3
    made.unlink()
    again = stages(tmp_path)
    assert make(again, made) == first and not made.exists() and not again.fresh
    assert "done before" in capfd.readouterr().err


def test_another_command_line_runs_anew_and_so_does_everything_after_it(tmp_path, made):
    one = stages(tmp_path)
    make(one, made)
    make(one, made, name="second")
    other = stages(tmp_path)
    make(other, made, seed=1)
    assert other.fresh
    made.unlink()
    make(other, made, name="second")
    assert made.exists()


def test_a_failed_stage_says_which_command_and_leaves_no_record(tmp_path):
    one = stages(tmp_path)
    with pytest.raises(StageFailed, match="cm2 lint nowhere"):
        one.run("lint", "lint", "lint", "nowhere")
    assert not (tmp_path / "run" / "stages" / "lint.json").exists()


def test_time_is_counted_over_attempts(tmp_path, made):
    make(stages(tmp_path, budget=100), made)
    file = tmp_path / "run" / "stages" / "worlds.json"
    record = orjson.loads(file.read_bytes())
    record["seconds"] = 60.0
    file.write_bytes(orjson.dumps(record))
    again = stages(tmp_path, budget=100)
    assert 35 < again.left <= 40 and again.took("world") == 60 and stages(tmp_path).left == float("inf")


def test_a_decision_stays_what_it_was_when_the_run_is_repeated(tmp_path):
    one = stages(tmp_path)
    assert one.decide("minutes", 3.5) == 3.5
    assert stages(tmp_path).decide("minutes", 9.0) == 3.5
    changed = stages(tmp_path)
    changed.fresh = True  # an earlier stage was run anew
    assert changed.decide("minutes", 9.0) == 9.0


@pytest.mark.parametrize(("seconds", "told"), [(40, "40 s"), (200, "3 min"), (7500, "2 h 05 min"), (None, "?")])
def test_durations_are_for_people(seconds, told):
    assert duration(seconds) == told
