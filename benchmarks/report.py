"""Memory and time of `cm2 report LOGS --verdicts V`, and how long its page takes to open.

    python benchmarks/report.py                         # 10,000 and 100,000 dialogues; a page with 10,000
    python benchmarks/report.py --sizes 1000 --page 1000

The dialogues are those of the sample worlds, a few hundred of them repeated under names of their own, every third with
a reply that says nothing; the verdicts are those of the checks of a small policy. Each size is reported on by a process
of its own, and printed are its CPU seconds and its highest resident memory, beside those of a process that only
imports. The page is opened from the disk by a headless Chromium, where there is one: from the start of the navigation
until the first entries of the list are drawn, until all are there, and the time of the frames while the list is
scrolled from its top to its end.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import yaml
from rich.console import Console
from rich.table import Table

from cm2.judge.run import JudgeConfig, judge_file
from cm2.verdict import Verdict
from cm2.worlds import MakeConfig
from cm2.worlds.file import make_file

MADE = 300
POLICY = {
    "name": "benchmark",
    "duties": [
        {
            "id": "state-what-was-found", "scope": "turn", "severity": "critical", "owner": "dialogue",
            "question": "Does the reply state something that a tool returned?",
            "applies_when": {"type": "expression", "cel": "calls.exists(c, c.turn == turn && c.ok)"},
            "check": {"type": "expression", "cel": (
                "figures(reply).exists(f, calls.exists(c, c.turn == turn && mentions(c.text, f)))")},
        },
        {
            "id": "reply", "scope": "turn", "severity": "major", "question": "Does every turn end with a reply?",
            "check": {"type": "reply", "pattern": "."},
        },
        {
            "id": "no-errors", "severity": "minor", "question": "Did every call get an answer that is no error?",
            "check": {"type": "expression", "cel": "calls.all(c, c.ok)"},
        },
        {
            "id": "grounded", "severity": "critical", "question": "Does it state only what tools or the user said?",
            "check": {"type": "expression", "cel": (
                "replies.all(r, unsupported(r.text, users.map(u, u.text) + calls.map(c, c.text)) == [])")},
        },
        {"id": "polite", "severity": "minor", "question": "Is every reply polite?"},
    ],
}  # fmt: skip

CHILD = """
import resource, sys, time
import cm2.report.judged, cm2.report.diagnosis_terminal, pyarrow.parquet, scipy.stats
try:
    import sklearn.cluster, sklearn.feature_extraction.text
except ImportError:
    pass
if len(sys.argv) > 1:
    logs, verdicts, policy, shown, *outputs = sys.argv[1:]
    config = cm2.report.DiagnosisConfig(
        logs=logs, verdicts=verdicts, policy=policy, dialogues=int(shown), outputs=outputs)
    cm2.report.write_diagnosis(config)
print(time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""

SCROLL = """(async () => {
  const list = document.getElementById("list");
  const frames = [];
  const step = list.scrollHeight / 300;
  await new Promise((done) => {
    let before = performance.now(), n = 0;
    const next = (now) => {
      frames.push(now - before);
      before = now;
      list.scrollTop += step;
      if (++n < 300) requestAnimationFrame(next); else done();
    };
    requestAnimationFrame(next);
  });
  frames.sort((a, b) => a - b);
  const rows = document.querySelectorAll(".item").length;
  return [frames[150], frames[284], frames[299], rows, list.scrollTop / (list.scrollHeight - list.clientHeight)];
})()"""


def prepare(folder: Path) -> tuple[list[dict[str, Any]], dict[str, list[Verdict]]]:
    """A few hundred rows and the verdicts on them, by id."""
    made, judged, policy = (folder / name for name in ("made.jsonl", "judged.jsonl", "policy.yaml"))
    policy.write_text(yaml.safe_dump(POLICY))
    make_file(MakeConfig(count=MADE), str(made))
    rows = [json.loads(line) for line in made.read_text().splitlines()]
    for row in rows[::3]:
        row["messages"][-1]["content"] = "All done!"
    made.write_text("".join(json.dumps(row) + "\n" for row in rows))
    judge_file(JudgeConfig(str(made), str(judged), policy=str(policy)))
    verdicts: dict[str, list[Verdict]] = {}
    for line in judged.read_bytes().splitlines():
        verdict = msgspec.json.decode(line, type=Verdict)
        verdicts.setdefault(verdict.dialogue, []).append(verdict)
    return rows, verdicts


def repeat(folder: Path, rows: list[dict[str, Any]], verdicts: dict[str, list[Verdict]], n: int) -> tuple[Path, Path]:
    """Logs of `n` dialogues and the store of verdicts on them."""
    logs, store = folder / f"logs-{n}.jsonl", folder / f"verdicts-{n}.jsonl"
    with logs.open("wb") as log, store.open("wb") as said:
        for number in range(n):
            row = rows[number % len(rows)]
            id = f"{row['id']}-{number}"
            log.write(msgspec.json.encode(row | {"id": id}) + b"\n")
            for verdict in verdicts[row["id"]]:
                said.write(msgspec.json.encode(msgspec.structs.replace(verdict, dialogue=id)) + b"\n")
    return logs, store


def measured(*arguments: str) -> tuple[float, float, float]:
    """Wall and CPU seconds and the highest resident memory (MB) of a process of its own."""
    start = time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, check=True, env=environment
    )
    cpu, memory = map(float, done.stdout.split())
    return time.perf_counter() - start, cpu, memory / 1024


def opened(page: Path, times: int) -> list[list[float]]:
    """Milliseconds until the list is drawn and complete, then what scrolling took; each time in a new browser."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "report"))
    from browser import BINARY, Browser

    found: list[list[float]] = []
    for _ in range(times if BINARY else 0):
        with Browser() as browser:
            browser.open(page)
            browser.until("performance.getEntriesByName('cm2-all').length", 120)
            marks = "['cm2-list', 'cm2-all'].map((name) => performance.getEntriesByName(name)[0].startTime)"
            first, complete = browser.run(marks)
            painted = browser.run("performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0")
            found.append([max(first, painted), complete, *browser.run(SCROLL)])
            assert browser.complaints == [], browser.complaints
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--page", type=int, default=10_000, help="dialogues of the page that is opened")
    parser.add_argument("--times", type=int, default=5, help="how often it is opened")
    options = parser.parse_args()
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows, verdicts = prepare(folder)
        policy = str(folder / "policy.yaml")
        table = Table(title="cm2 report: Markdown, JSON, Parquet, and the page with up to 10,000 dialogues")
        for column in ("dialogues", "outputs", "seconds", "CPU seconds", "dialogues / CPU s", "highest memory"):
            table.add_column(column, justify="left" if column == "outputs" else "right")
        _, base, memory = measured()
        table.add_row("–", "imports only", "–", f"{base:.1f}", "–", f"{memory:.0f} MB")
        for n in options.sizes:
            logs, store = repeat(folder, rows, verdicts, n)
            tables = [str(folder / f"r.{suffix}") for suffix in ("md", "json", "parquet")]
            for outputs in (tables, [str(folder / "r.html")]):
                wall, cpu, memory = measured(str(logs), str(store), policy, "10000", *outputs)
                told = ", ".join(Path(one).suffix[1:] for one in outputs)
                row = [f"{n:,}", told, f"{wall:.0f}", f"{cpu:.0f}", f"{n / (cpu - base):,.0f}", f"{memory:.0f} MB"]
                table.add_row(*row)
        console.print(table)
        logs, store = repeat(folder, rows, verdicts, options.page)
        page = folder / "page.html"
        measured(str(logs), str(store), policy, str(options.page), str(page))
        size = sum(one.stat().st_size for one in (folder / "page.data").glob("*")) / 1e6
        found = opened(page, options.times)
        if not found:
            console.print("there is no Chromium on this machine: the page was not opened")
            return
        table = Table(title=f"the page with {options.page:,} dialogues ({size:.0f} MB beside it), opened from the disk")
        for column in ("run", "list drawn", "list complete", "frame: median", "95 %", "longest", "rows drawn"):
            table.add_column(column, justify="right")
        for number, (first, complete, median, most, longest, drawn, reached) in enumerate(found, 1):
            assert reached > 0.99, reached
            times = [f"{value:.0f} ms" for value in (first, complete, median, most, longest)]
            table.add_row(str(number), *times, f"{drawn:.0f}")
        console.print(table)


if __name__ == "__main__":
    main()
