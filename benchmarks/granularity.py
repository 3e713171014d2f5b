"""The granularity lab: which level of credit learns how fast, and what noise does to it.

    python benchmarks/granularity.py -o runs/lab                     # the grid; goes on where it was stopped
    python benchmarks/granularity.py -o runs/lab --report docs/images # tables and figures of what is there
    python benchmarks/granularity.py -o runs/lab --only 'blend|0.15'  # cells whose name holds this
    python benchmarks/granularity.py -o runs/lab --variance          # bias and noise of every level's gradient

A cell is 500 updates of a small softmax policy on three tasks of the sample worlds (`granularity_lab/graph.py`), one
group of each task an update: level × judge flips {0, 5, 15, 30 %} × simulator errors {off, on: 15 % of calls} × group
{8, 24, 48}, over five seeds; and, at 24 with a noisy simulator, the side questions (std, back-filling, survivors, to
go, the flip rate alone). Cells of a seed are done before the next seed begins, so an interrupted grid is balanced. At
last come cells that begin from a cold start (`COLD` updates without noise): what noise destroys.
Everything but the policy is the package's own: environment, worlds, checks, latching, advantages.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from granularity_lab.estimators import LEVELS
from granularity_lab.graph import Graph, tasks
from granularity_lab.loop import Cell, run

FLIPS, GROUPS, SEEDS = (0.0, 0.05, 0.15, 0.3), (8, 24, 48), (0, 1, 2, 3, 4)
MAIN = ("trajectory", "turn", "step", "blend")
COLD = 60
"""Updates of a cold start: about two thirds of what can be earned."""
SIDE = tuple(name for name in LEVELS if name not in MAIN)


def cells(updates: int, rate: float) -> list[Cell]:
    """The grid, seed by seed."""
    found = []
    for seed in SEEDS:
        for group in GROUPS:
            for flip in FLIPS:
                for simulator in (False, True):
                    found += [Cell(level, flip, simulator, group, seed, updates, rate) for level in MAIN]
        found += [Cell(level, flip, True, 24, seed, updates, rate) for flip in (0.0, 0.15) for level in SIDE]
    for seed in SEEDS:
        for flip in FLIPS[1:]:
            found += [
                Cell(level, flip, True, 24, seed, updates, rate, COLD) for level in (*MAIN, "blend, no flip rate")
            ]
    return found


def finished(file: Path) -> dict[str, dict[str, Any]]:
    """Results by cell; a line that a kill cut short is no result."""
    found = {}
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[row["cell"]] = row
    return found


def main() -> None:
    """Run what is missing, or report what is there."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("-o", "--output", type=Path, default=Path("runs/lab"), help="folder of the results")
    options.add_argument("--updates", type=int, default=500)
    options.add_argument("--rate", type=float, default=0.01, help="Adam's")
    options.add_argument("--only", default="", help="cells whose name holds this")
    options.add_argument("--variance", action="store_true", help="measure gradients at two fixed policies instead")
    options.add_argument("--report", type=Path, help="write figures into this folder and print the tables")
    given = options.parse_args()
    file = given.output / "cells.jsonl"
    done = finished(file)
    if given.report is not None:
        from granularity_lab.figures import report

        print(report(list(done.values()), given.report))
        return
    if given.variance:
        from granularity_lab.variance import table

        print(table(Graph(tasks()), given.rate))
        return
    given.output.mkdir(parents=True, exist_ok=True)
    if file.exists() and not file.read_bytes().endswith(b"\n"):
        with file.open("a") as out:
            out.write("\n")
    todo = [cell for cell in cells(given.updates, given.rate) if given.only in cell.name and cell.name not in done]
    graph = Graph(tasks())
    with file.open("a") as out:
        for number, cell in enumerate(todo):
            began, used = time.perf_counter(), time.process_time()
            row = run(graph, cell)
            row["seconds"], row["cpu"] = round(time.perf_counter() - began, 2), round(time.process_time() - used, 2)
            out.write(json.dumps(row) + "\n")
            out.flush()
            print(
                f"{number + 1}/{len(todo)} {cell.name} {row['curve']['true'][-1]:.3f} {row['cpu']} s", file=sys.stderr
            )


if __name__ == "__main__":
    main()
