"""Run folders: claimed once, resumed to a step, never half-written."""

import json

import msgspec
import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.train

from cm2.errors import CM2Error, ConfigError  # noqa: E402
from cm2.train.runs import Run  # noqa: E402


class Settings(msgspec.Struct):
    lr: float = 0.1
    output: str = "run"


def open_run(folder, verb="sft", inputs=None, **settings):
    return Run(folder, verb, Settings(**settings), inputs or {"input": "abc"}, free=("output",))


def test_the_same_run_is_claimed_again_also_under_another_free_setting(tmp_path):
    open_run(tmp_path / "run").close()
    open_run(tmp_path / "run", output="elsewhere").close()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"lr": 0.2}, "lr was 0.1, now 0.2"),
        ({"inputs": {"input": "x"}}, "input's content"),
        ({"verb": "rl"}, "cm2 sft"),
    ],
)
def test_another_run_is_refused_and_told_what_differs(tmp_path, change, told):
    open_run(tmp_path / "run").close()
    before = (tmp_path / "run/config.json").read_bytes()
    with pytest.raises(ConfigError, match=told):
        open_run(tmp_path / "run", **change)
    assert (tmp_path / "run/config.json").read_bytes() == before
    open_run(tmp_path / "run").close()


def test_a_run_of_an_earlier_version_goes_on_where_a_new_setting_is_at_its_default(tmp_path):
    class Newer(Settings):
        level: str = "trajectory"
        probing: Settings = msgspec.field(default_factory=Settings)

    open_run(tmp_path / "run").close()
    Run(tmp_path / "run", "sft", Newer(), {"input": "abc"}).close()
    with pytest.raises(ConfigError, match="level was 'trajectory', now 'step'"):
        Run(tmp_path / "run", "sft", Newer(level="step"), {"input": "abc"})


def test_a_second_process_at_the_same_folder_is_told_to_wait(tmp_path):
    with open_run(tmp_path / "run"), pytest.raises(CM2Error, match="another run is writing"):
        open_run(tmp_path / "run")


def test_a_folder_with_results_of_unknown_origin_is_not_touched(tmp_path):
    (tmp_path / "run/model").mkdir(parents=True)
    with pytest.raises(ConfigError, match="holds model but no config"):
        open_run(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["model"]


def test_resuming_takes_out_the_steps_that_come_again_and_a_torn_line(tmp_path):
    with open_run(tmp_path / "run") as run:
        for step in (1, 2, 3):
            run.log(step, loss=1.0 / step)
    with (tmp_path / "run/metrics.jsonl").open("ab") as file:
        file.write(b'{"step":4,"lo')
    with open_run(tmp_path / "run") as run:
        run.resume_to(2)
        run.log(3, loss=9.0)
        assert [(one["step"], one["loss"]) for one in run.metrics()] == [(1, 1.0), (2, 0.5), (3, 9.0)]


def test_the_newest_two_complete_checkpoints_are_kept_and_a_failed_one_leaves_no_trace(tmp_path):
    with open_run(tmp_path / "run") as run:
        for step in (1, 2, 10):
            with run.saving_checkpoint(step) as folder:
                (folder / "weights").write_text(str(step))
        with pytest.raises(OSError, match="full"), run.saving_checkpoint(11) as folder:
            (folder / "weights").write_text("half")
            raise OSError("the disk is full")
        step, path = run.last_checkpoint()
        assert (step, (path / "weights").read_text()) == (10, "10")
        assert sorted(each.name for each in run.checkpoints_folder.iterdir()) == ["step-00000002", "step-00000010"]


def test_what_a_killed_process_left_unfinished_is_swept_away(tmp_path):
    open_run(tmp_path / "run").close()
    (tmp_path / "run/checkpoints/.saving-step-00000003").mkdir()
    (tmp_path / "run/.saving-model").mkdir()
    with open_run(tmp_path / "run") as run:
        assert run.last_checkpoint() is None
        assert not list(run.folder.rglob(".saving-*"))


def test_a_saved_folder_takes_the_place_of_an_old_one_whole(tmp_path):
    with open_run(tmp_path / "run") as run:
        for name in ("old", "new"):
            with run.saving(run.model_folder) as folder:
                (folder / name).write_text(name)
        assert [path.name for path in run.model_folder.iterdir()] == ["new"]


def test_a_finished_run_has_its_summary_and_no_checkpoints(tmp_path):
    with open_run(tmp_path / "run") as run:
        with run.saving_checkpoint(1) as folder:
            (folder / "x").touch()
        run.finish({"steps": 1})
    with open_run(tmp_path / "run") as run:
        assert run.summary == {"steps": 1} and run.last_checkpoint() is None


def test_numbers_reach_tensorboard_under_their_names(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with open_run(tmp_path / "run") as run:
        run.log(1, loss=0.5, reason="x")
        run.log(2, loss=0.25, reason="y")
    events = EventAccumulator(str(tmp_path / "run/tb"))
    events.Reload()
    assert events.Tags()["scalars"] == ["loss"]
    assert [(one.step, one.value) for one in events.Scalars("loss")] == [(1, 0.5), (2, 0.25)]


def test_config_json_says_what_the_run_is(tmp_path):
    open_run(tmp_path / "run").close()
    assert json.loads((tmp_path / "run/config.json").read_text()) == {
        "verb": "sft",
        "config": {"lr": 0.1, "output": "run"},
        "inputs": {"input": "abc"},
    }
