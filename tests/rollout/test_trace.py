"""Rollouts as lines of JSON: nothing is lost, a retried failure counts once, a torn line is left out."""

from __future__ import annotations

import msgspec
import pytest

from cm2.checklist import Task
from cm2.dialogue import Step, ToolCall
from cm2.errors import DataError
from cm2.judge import ChecksJudge
from cm2.rollout import Environment, Failure, Rollout, Segment
from cm2.rollout.trace import decode, encode, read_rollouts
from cm2.simulate import World
from rollout.coffee_task import dialogue, task


def rollout(member: int = 0, failure: Failure | None = None) -> Rollout:
    of: Task = task()
    env = Environment(of, World(dialogue()).session(), ChecksJudge())
    env.feed(Step(thinking="a\nb", calls=[ToolCall("find_items", None, None, '{"q": é', "not JSON")]), tokens=3)
    env.feed(Step(reply="51313"), tokens=2)
    segments = [Segment(0, 0, [5, 6, 7], [-0.5, -1.25, -0.0625], [1, 2]), Segment(0, 1, [8], [-2.0])]
    made = env.record(group="g", member=member, seed=7, segments=segments)
    made.failure, made.outcome = failure, {"success": True}
    return made


def write(path, *rollouts: Rollout, end: bytes = b"\n") -> str:
    path.write_bytes(b"\n".join(encode(one) for one in rollouts) + end)
    return str(path)


def test_a_rollout_comes_back_as_it_was():
    made = rollout(failure=Failure("judge", "slow", True))
    line = encode(made)
    assert b"\n" not in line and decode(line) == made and encode(decode(line)) == line


def test_a_failed_rollout_is_not_valid():
    assert rollout().valid and not rollout(failure=Failure("provider", "503")).valid


def test_the_key_tells_task_group_and_member():
    assert rollout(3).key == "coffee#g#3"


def test_of_several_records_with_one_key_the_last_counts(tmp_path):
    failed, again, other = rollout(failure=Failure("provider", "503")), rollout(), rollout(1)
    path = write(tmp_path / "r.jsonl", failed, other, again)
    assert list(read_rollouts(path)) == [other, again]


def test_a_torn_last_line_is_left_out_and_does_not_hide_what_it_would_replace(tmp_path):
    path = write(tmp_path / "r.jsonl", rollout(), rollout(1), rollout(1), end=b"")
    assert [one.member for one in read_rollouts(path)] == [0, 1]
    path = write(tmp_path / "t.jsonl", rollout(), end=b'\n{"task": "coff')
    assert [one.member for one in read_rollouts(path)] == [0]


@pytest.mark.parametrize("line", [b"{not json}", b"[]", b'{"task": 3}', b'{"dialogue": {"id": "x"}}', b'{"task": "x"}'])
def test_a_line_that_is_no_rollout_is_told_with_its_place(tmp_path, line):
    path = tmp_path / "r.jsonl"
    path.write_bytes(encode(rollout()) + b"\n\n" + line + b"\n")
    with pytest.raises(DataError, match=r"r\.jsonl:3: this is no rollout"):
        list(read_rollouts(str(path)))


def test_an_empty_record_takes_little_room():
    assert len(encode(Rollout("t", msgspec.structs.replace(dialogue(), turns=[], tools=[], system=None)))) < 60
