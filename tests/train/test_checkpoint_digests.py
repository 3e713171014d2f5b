"""Checkpoints are what was written, or not used; and what does not fit is not begun."""

from __future__ import annotations

import errno
import os
import subprocess

import msgspec
import pytest

from cm2.errors import CM2Error
from cm2.train import space
from cm2.train.digests import FILE, fault_of, write_digests
from cm2.train.runs import Run
from cm2.train.space import DiskFull


class Settings(msgspec.Struct):
    seed: int = 0


@pytest.fixture
def run(tmp_path):
    with Run(tmp_path / "run", "rl", Settings(), {"input": "x"}) as run:
        yield run


def save(run, step, text="weights"):
    with run.saving_checkpoint(step) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "weights").write_text(f"{text} {step}")


def names(run):
    return sorted(path.name for path in run.checkpoints_folder.iterdir())


def test_a_folder_with_digests_is_sound_until_a_bit_of_it_changes(tmp_path):
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "weights"
    file.write_bytes(bytes(1000))
    assert fault_of(tmp_path) is None  # of an earlier version: nothing to hold it against
    write_digests(tmp_path)
    assert fault_of(tmp_path) is None
    file.write_bytes(bytes(999) + b"\1")
    assert fault_of(tmp_path) == "in/weights is not what was written"
    file.unlink()
    assert fault_of(tmp_path) == "in/weights is missing"
    (tmp_path / FILE).write_text("{")
    assert "does not read" in fault_of(tmp_path)


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_that_is_said(run, damage):
    save(run, 1), save(run, 2)
    file = run.checkpoints_folder / "step-00000002" / "inner" / "weights"
    if damage == "remove":
        file.unlink()
    else:
        file.write_text("weighty 2" if damage == "flip" else "wei")
    last, said = run.sound_checkpoint()
    assert last == (1, run.checkpoints_folder / "step-00000001")
    assert len(said) == 1 and "checkpoint of step 2 is damaged" in said[0] and ".broken-step-00000002" in said[0]
    assert names(run) == [".broken-step-00000002", "step-00000001"] and run.last_checkpoint()[0] == 1
    save(run, 2)
    assert run.sound_checkpoint() == ((2, run.checkpoints_folder / "step-00000002"), [])


def test_where_all_are_damaged_there_is_none(run):
    for step in (1, 2):
        save(run, step)
        (run.checkpoints_folder / f"step-{step:08d}" / "inner" / "weights").write_text("x")
    last, said = run.sound_checkpoint()
    assert last is None and len(said) == 2


def test_a_checkpoint_that_does_not_fit_is_not_begun(run, monkeypatch):
    save(run, 1)
    monkeypatch.setattr(space, "room", lambda folder: space.RESERVE + 999)
    run.expected_bytes = 1000
    with pytest.raises(
        DiskFull, match=r"no room for a checkpoint .* nothing of it was written .* goes on from the last"
    ):
        save(run, 2)
    assert names(run) == ["step-00000001"] and run.sound_checkpoint()[0][0] == 1
    run.expected_bytes = 999
    save(run, 2)


def test_an_older_checkpoint_goes_where_that_makes_room_and_never_for_a_damaged_newer_one(run, monkeypatch):
    save(run, 1), save(run, 2)
    free = lambda: sum(one.name.startswith("step-") for one in run.checkpoints_folder.iterdir()) < 2  # noqa: E731
    monkeypatch.setattr(space, "room", lambda folder: space.RESERVE + (1000 if free() else 10))
    run.expected_bytes = 1000
    save(run, 3)
    assert names(run) == ["step-00000002", "step-00000003"]
    (run.checkpoints_folder / "step-00000003" / "inner" / "weights").write_text("x")
    with pytest.raises(DiskFull):
        save(run, 4)
    assert names(run) == ["step-00000002", "step-00000003"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_the_systems_refusal_becomes_one_sentence(tmp_path, number):
    with pytest.raises(DiskFull, match="no room for it") as told, space.telling(tmp_path, "it"):
        raise OSError(number, os.strerror(number))
    assert isinstance(told.value, CM2Error)
    with pytest.raises(PermissionError), space.telling(tmp_path, "it"):
        raise PermissionError(errno.EACCES, "no")


def test_room_is_that_of_the_file_system_even_before_the_folder_is_there(tmp_path):
    assert space.room(tmp_path / "not" / "yet") == pytest.approx(space.room(tmp_path), rel=0.1)
    (tmp_path / "a").write_bytes(bytes(123))
    assert space.size_of(tmp_path) == 123


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder]).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_really_full_harms_nothing_that_was_saved(small_disk, monkeypatch):
    monkeypatch.setattr(space, "RESERVE", 100_000)
    with Run(small_disk / "run", "rl", Settings(), {"input": "x"}) as run:
        save(run, 1)
        run.log(1, reward=0.5)
        (small_disk / "other").write_bytes(bytes(3_000_000))
        run.expected_bytes = 2_000_000
        with pytest.raises(DiskFull):
            save(run, 2)
        monkeypatch.setattr(space, "need", lambda *_: None)  # another program takes the room after the look
        with pytest.raises(OSError, match="No space left"), run.saving_checkpoint(2) as folder:
            (folder / "weights").write_bytes(bytes(2_000_000))
        with pytest.raises(DiskFull), space.telling(run.folder, "the rollouts of an update"):
            (run.folder / "rollouts.tmp").write_bytes(bytes(2_000_000))
        assert names(run) == ["step-00000001"] and run.sound_checkpoint()[0][0] == 1
        assert [row["step"] for row in run.metrics()] == [1]
        (small_disk / "other").unlink(), (run.folder / "rollouts.tmp").unlink()
        save(run, 2)
        assert run.sound_checkpoint() == ((2, run.checkpoints_folder / "step-00000002"), [])


def test_a_metrics_line_that_does_not_fit_leaves_no_half_of_it(small_disk):
    with Run(small_disk / "run", "rl", Settings(), {"input": "x"}) as run:
        run.log(1, reward=0.5)
        room = space.room(small_disk)
        (small_disk / "other").write_bytes(bytes(room))
        with pytest.raises(OSError, match="No space left"):
            run.log(2, reason="x" * 100_000)
        assert [row["step"] for row in run.metrics()] == [1]
        assert run.metrics_file.read_bytes().endswith(b"\n")
