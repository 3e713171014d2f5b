"""The granularity grid: complete, balanced where it is interrupted, resumed after a kill; its tables compare pairs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")


@pytest.fixture(scope="module")
def grid():
    sys.path.insert(0, BENCHMARKS)
    import granularity
    from granularity_lab import figures

    yield granularity, figures
    sys.path.remove(BENCHMARKS)


def test_every_cell_stands_once_and_a_seed_is_finished_before_the_next(grid):
    granularity, _ = grid
    cells = granularity.cells(500, 0.01)
    assert len({cell.name for cell in cells}) == len(cells)
    main = [cell for cell in cells if cell.level in granularity.MAIN and not cell.start]
    assert len(main) == 4 * 4 * 2 * 3 * 5
    seeds = [cell.seed for cell in cells if not cell.start]
    assert seeds == sorted(seeds)


def test_a_line_that_a_kill_cut_short_is_run_again(grid, tmp_path):
    granularity, _ = grid
    file = tmp_path / "cells.jsonl"
    file.write_text(json.dumps({"cell": "a"}) + "\n" + '{"cell": "b", "cur')
    assert list(granularity.finished(file)) == ["a"]
    assert granularity.finished(tmp_path / "none.jsonl") == {}


def row(level, seed, end, group=8, start=0):
    curve = {"true": [0.1, end, end, end], "paid": [None, end, end, end + 0.2], "steps": [2.0] * 4}
    place = {"level": level, "flip": 0.0, "simulator": False, "group": group, "seed": seed, "start": start}
    return {**place, "curve": curve}


def test_differences_are_paired_and_a_run_without_its_pair_is_left_out(grid):
    _, figures = grid
    rows = [row("step", seed, 0.5 + seed / 10) for seed in range(3)] + [row("turn", 0, 0.4), row("turn", 1, 0.5)]
    rows += [row("step", 0, 0.9, group=24), row("step", 0, 0.0, start=60)]
    found = figures.Cells(rows)
    ends = found.by_place(figures.final, level="step", group=8)
    assert list(ends.values()) == [pytest.approx(0.5), pytest.approx(0.6), pytest.approx(0.7)]
    assert found.difference(figures.final, {"level": "step"}, {"level": "turn"}) == "+0.100 ± 0.000"
    assert list(found.by_place(figures.inflated, level="turn").values()) == [pytest.approx(0.2)] * 2


def test_collapse_is_the_way_down_from_the_best(grid):
    _, figures = grid
    falls = {"curve": {"true": [0.0, 0.9, 0.9, 0.9, 0.3, 0.3, 0.3]}}
    assert figures.lost(falls) == pytest.approx(0.6)
    assert figures.final(falls) == pytest.approx(0.3)
