"""One writer an output."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from cm2.errors import CM2Error
from cm2.formats.lock import lock_output


def test_the_second_is_told_whom_to_wait_for_and_may_come_afterwards(tmp_path):
    path = str(tmp_path / "out")
    lock = lock_output(path)
    with pytest.raises(CM2Error, match=r"out .*-o another name"):
        lock_output(path)
    lock.release()
    lock_output(path).release()
    assert os.listdir(tmp_path) == []


def test_two_names_of_one_file_are_one_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lock = lock_output("out")
    with pytest.raises(CM2Error):
        lock_output(f"{tmp_path}/./out")
    lock_output("other").release()
    lock.release()


def test_a_killed_holder_holds_nothing(tmp_path):
    path = str(tmp_path / "out")
    code = (
        "import sys; from cm2.formats.lock import lock_output\n"
        "lock = lock_output(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(CM2Error):
        lock_output(path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    lock_output(path).release()


def test_names_that_are_no_utf_8_and_urls_can_be_locked(tmp_path):
    lock_output(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).release()
    lock_output("memory://x/y").release()


def test_a_user_without_a_name_can_lock(tmp_path, monkeypatch):
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: (_ for _ in ()).throw(KeyError(uid)))
    lock_output(str(tmp_path / "out")).release()
