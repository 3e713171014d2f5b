"""Progress of paid work: rate, cost so far, time left; and how many rows there are to go through."""

from __future__ import annotations

import gzip
import json

import pytest
import zstandard

from cm2.cli import progress
from cm2.cli.progress import Pace, count_rows, spending_track
from cm2.formats import RowWriter, read_rows


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_the_rate_is_that_of_late_and_tells_what_is_left():
    clock = Clock()
    pace = Pace(1000, clock)
    assert (pace.rate, pace.left, pace.told()) == (None, None, "")
    for _ in range(400):  # from a cache: 100 a second
        clock.now += 0.01
        pace.step()
    assert pace.rate == pytest.approx(100, rel=0.02) and pace.left == pytest.approx(6, rel=0.02)
    for _ in range(100):  # then two seconds each
        clock.now += 2
        pace.step()
    assert pace.rate == pytest.approx(0.5, rel=0.05)
    assert pace.left == pytest.approx(500 / 0.5, rel=0.05)
    assert pace.told(0.125) == "0.50/s, US$ 0.1250, 0:16:40 left"
    assert Pace(None, clock).left is None
    pace.total = 100
    assert pace.left == 0


@pytest.mark.parametrize(("spent", "told"), [(0.0, "US$ 0.00"), (12.3456, "US$ 12.35"), (1234.5, "US$ 1,234.50")])
def test_money_is_told_as_it_is_read(spent, told):
    assert Pace().told(spent) == told


def test_without_a_terminal_a_line_comes_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    cost = iter(range(100))
    items = list(spending_track(iter("abc"), "filtering", 3, lambda: float(next(cost))))
    lines = capsys.readouterr().err.splitlines()
    assert items == ["a", "b", "c"] and len(lines) == 3
    assert lines[0].startswith("filtering: 1 of 3, ") and "US$ 0.00" in lines[0] and lines[2].endswith("0:00:00 left")
    monkeypatch.setattr(progress, "EVERY", 60.0)
    assert list(spending_track(range(3), "x")) == [0, 1, 2] and capsys.readouterr().err == ""


def test_on_a_terminal_it_is_a_bar_that_leaves_nothing_behind(monkeypatch, capsys):
    from rich.console import Console

    monkeypatch.setattr(progress, "err", Console(stderr=True, force_terminal=True))
    assert list(spending_track(range(5), "filtering", 5, lambda: 1.0)) == [0, 1, 2, 3, 4]
    assert "filtering" in capsys.readouterr().err


def test_what_the_work_raises_comes_through():
    def items():
        yield 1
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(spending_track(items(), "x"))


def test_rows_are_counted_in_every_form(tmp_path):
    lines = b"".join(json.dumps({"n": n}).encode() + b"\n" for n in range(7))
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "b.jsonl").write_bytes(lines.rstrip())
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "d.jsonl.zst").write_bytes(zstandard.compress(lines))
    with RowWriter(tmp_path / "e.parquet") as writer:
        for n in range(7):
            writer.write({"n": n})
    for path in tmp_path.iterdir():
        assert count_rows(str(path)) == 7 == len(list(read_rows(path)))
    assert count_rows(str(tmp_path)) == 35
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(lines)[:-9])
    assert 0 <= count_rows(str(tmp_path / "c.jsonl.gz")) <= 7
