"""A monitor that is killed anywhere goes on: nothing is lost, nothing is counted, raised or queued twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cm2.assure.monitor_state import Known
from cm2.assure.rules import Rule
from cm2.errors import CM2Error, DataError
from cm2.llm import ProviderError
from monitor.monitor_cases import POLICY, add, counted, look, monitor, row, rows_of

RULES = [
    Rule(name="low", when="below", level=0.5, clear=0.7, window=4, least=2, escalate="queue.jsonl"),
    Rule(name="drift", when="drift", method="cusum", baseline=0.95, drop=0.4, every=5, window=4, least=1),
]
ROWS = [row(str(number), fine=number not in (3, 4, 5, 6)) for number in range(12)]


class Killed(BaseException):
    """The process is gone: whatever it would have tidied up, it has not."""


def facts(state: Path) -> dict[str, Any]:
    """What a monitor's folder says, without times."""
    alerts = [noted["alert"] for noted in rows_of(state / "alerts.jsonl")]
    return {
        "dialogues": counted(state),
        "verdicts": [(one["dialogue"], one["met"]) for one in rows_of(state / "verdicts.jsonl")],
        "kept": [one["id"] for one in rows_of(state / "dialogues.jsonl")],
        "alerts": [(one["id"], one["said"]) for one in alerts],
        "queue": [(one["alert"], one["example"]["dialogue"]) for one in rows_of(state / "queue.jsonl")],
    }


def test_a_kill_at_any_write_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(tmp_path / "logs" / "a.jsonl", *ROWS)
    look(tmp_path / "logs", tmp_path / "whole", RULES, keep="failed")
    expected = facts(tmp_path / "whole")
    assert [id.split("/")[0] for id, _ in expected["alerts"]] == ["drift", "low", "low", "drift"]
    assert len(expected["dialogues"]) == 12 and expected["kept"] == ["3", "4", "5", "6"]
    assert len(expected["queue"]) == len(set(expected["queue"])) > 2

    write, cut, replace = os.write, os.ftruncate, os.replace
    number = 0
    while True:
        state, left, dead = tmp_path / f"killed-{number}", [number], [False]

        def torn(file: int, block: Any, left: list[int] = left, dead: list[bool] = dead) -> int:
            if left[0] == 0 or dead[0]:
                if not dead[0]:
                    write(file, bytes(block)[: len(block) // 2])
                dead[0] = True
                raise Killed
            left[0] -= 1
            return write(file, block)

        def unless_dead(do: Any, dead: list[bool] = dead) -> Any:
            return lambda *args: None if dead[0] else do(*args)

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", torn)
            patch.setattr(os, "ftruncate", unless_dead(cut))
            patch.setattr(os, "replace", unless_dead(replace))
            try:
                look(tmp_path / "logs", state, RULES, keep="failed")
                killed = False
            except Killed:
                killed = True
        if not killed:
            break
        look(tmp_path / "logs", state, RULES, keep="failed")
        assert facts(state) == expected, f"killed at write {number}"
        number += 1
    assert number > 30


def test_sigkill_of_the_process_loses_nothing(tmp_path: Path) -> None:
    logs, state = tmp_path / "logs", tmp_path / "state"
    add(logs / "a.jsonl", *(row(str(number), fine=bool(number % 7)) for number in range(300)))
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[3]); from pathlib import Path; import monitor_cases as c\n"
        "from cm2.judge.judge import ChecksJudge\n"
        "class Slow(ChecksJudge):\n"
        "    def judge(self, *a, **k): time.sleep(0.002); return super().judge(*a, **k)\n"
        "c.look(Path(sys.argv[1]), Path(sys.argv[2]), judge=Slow())"
    )
    for _ in range(3):
        started = [sys.executable, "-c", code, str(logs), str(state), str(Path(__file__).parent)]
        process = subprocess.Popen(started)
        seen = len(counted(state)) if state.exists() else 0
        while process.poll() is None and (not state.exists() or len(counted(state)) < seen + 20):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    partial = len(counted(state))
    assert partial >= 20
    look(logs, state)
    assert [id for id, _, _ in counted(state)] == [str(number) for number in range(300)]
    assert [one["dialogue"] for one in rows_of(state / "verdicts.jsonl")] == [str(number) for number in range(300)]


def test_without_its_snapshot_a_monitor_knows_the_same_and_tells_nobody_again(tmp_path: Path) -> None:
    add(tmp_path / "logs" / "a.jsonl", *ROWS)
    state = tmp_path / "state"
    look(tmp_path / "logs", state, RULES)
    before = facts(state)
    known = json.loads((state / "state.json").read_bytes())
    (state / "alerts.jsonl").unlink()
    for damage in (None, b"{torn"):
        (state / "state.json").unlink() if damage is None else (state / "state.json").write_bytes(damage)
        said: list[str] = []
        look(tmp_path / "logs", state, RULES, said=said)
        assert facts(state) == before
        assert json.loads((state / "state.json").read_bytes()) == known
        assert any("snapshot" in text or "damaged" in text for text in said)
        assert not any(text.startswith("low:") for text in said)


def test_two_monitors_of_one_folder_do_not_meet(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    with monitor(tmp_path / "logs", tmp_path / "state"), pytest.raises(CM2Error, match="another run"):
        monitor(tmp_path / "logs", tmp_path / "state")


def test_a_folder_whose_stores_were_cut_is_refused(tmp_path: Path) -> None:
    add(tmp_path / "logs" / "a.jsonl", *ROWS)
    look(tmp_path / "logs", tmp_path / "state")
    (tmp_path / "state" / "verdicts.jsonl").write_bytes(b"")
    with pytest.raises(DataError, match="something took them away"):
        look(tmp_path / "logs", tmp_path / "state")


class Refusing:
    """A judge whose provider refuses from the third dialogue on, until it is well again."""

    name = "refusing"

    def __init__(self) -> None:
        self.well, self.asked = False, 0

    async def judge_async(self, dialogue: Any, turn: int, checklist: Any, *args: Any) -> Any:
        from cm2.judge.judge import ChecksJudge

        if dialogue.id >= "3" and not self.well:
            raise ProviderError("no such key", status=401)
        self.asked += 1
        return ChecksJudge().judge(dialogue, turn, checklist)


@pytest.mark.parametrize("stream", [False, True])
def test_a_provider_that_refuses_passes_nothing_over(tmp_path: Path, stream: bool) -> None:
    import io

    from cm2.assure.monitor_watch import watch

    judge, said = Refusing(), list[str]()
    rows = [row(str(number)) for number in range(6)]
    add(tmp_path / "logs" / "a.jsonl", *rows)
    text = (tmp_path / "logs" / "a.jsonl").read_bytes()

    def heal(_: float) -> None:
        judge.well = True

    source = "-" if stream else tmp_path / "logs"
    with monitor(source, tmp_path / "state", judge=judge, said=said, stdin=io.BytesIO(text), concurrency=4) as running:
        watch(running, 1.0, stop=lambda: running.judged == 6, sleep=heal)
    assert [id for id, _, _ in counted(tmp_path / "state")] == [one["id"] for one in rows]
    assert len(rows_of(tmp_path / "state" / "verdicts.jsonl")) == 6
    assert "no such key; trying again in 1 s" in said[0]


def test_a_policy_that_changes_a_duty_begins_it_anew_and_keeps_the_others(tmp_path: Path) -> None:
    import msgspec

    from cm2.check import Reply
    from cm2.policy import Policy
    from monitor.monitor_cases import FINE, TASTE

    add(tmp_path / "logs" / "a.jsonl", *ROWS)
    both = Policy("test", [FINE, msgspec.structs.replace(TASTE, check=Reply(pattern="is"))])
    look(tmp_path / "logs", tmp_path / "state", policy=both)
    changed = Policy("test", [FINE, msgspec.structs.replace(TASTE, check=Reply(pattern="All"))])
    look(tmp_path / "logs", tmp_path / "state", policy=changed)
    known = msgspec.json.decode((tmp_path / "state" / "state.json").read_bytes(), type=Known)
    assert known.duties["says-fine"].recent == "pppffffppppp"
    assert known.duties["is-kind"].recent == ""
    assert known.duties["is-kind"].counts == {"pass": 12}
    assert POLICY.duty("says-fine") == FINE
