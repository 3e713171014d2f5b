"""A run made of stages: each is one `cm2 VERB …` command, done once, resumed by repeating the run.

A finished stage leaves `stages/NAME.json` with its command line and its `--json` summary. Repeating the run skips every
stage whose command line has not changed and whose inputs' stages were skipped too, so a killed run goes on where it
stopped; the verbs themselves resume inside a stage.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from cm2.errors import CM2Error


class StageFailed(CM2Error):
    """A stage's command exited with an error; its own message stands above."""


class Stages:
    """Runs stages in order inside `folder` and says what happens and how long it will take.

    Args:
        folder: where the run lives.
        total: how many stages there will be, for the progress line.
        budget: seconds that the whole run may take, or None.
    """

    def __init__(self, folder: Path, total: int, budget: float | None = None, console: Console | None = None):
        self.folder, self.total, self.budget = folder, total, budget
        self.console = console or Console(stderr=True, highlight=False)
        self.count = 0
        self.fresh = False
        (folder / "stages").mkdir(parents=True, exist_ok=True)
        self.spent_before = sum(float(orjson.loads(p.read_bytes())["seconds"]) for p in self._records())
        self.started = time.monotonic()

    def _records(self) -> list[Path]:
        return sorted((self.folder / "stages").glob("*.json"))

    @property
    def elapsed(self) -> float:
        """Seconds that this run has taken, the stages of earlier interrupted attempts included."""
        return time.monotonic() - self.started + self.spent_before

    def took(self, prefix: str) -> float:
        """Seconds that the finished stages whose names begin so took, in whichever attempt they ran."""
        return sum(seconds for name, seconds in self.times().items() if name.startswith(prefix))

    def times(self) -> dict[str, float]:
        """Seconds of every finished stage, by name."""
        return {path.stem: round(float(orjson.loads(path.read_bytes())["seconds"]), 1) for path in self._records()}

    def decide(self, name: str, value: float) -> float:
        """A number that was chosen once and stays what it was when the run is repeated."""
        file = self.folder / f"{name}.decided"
        if file.exists() and not self.fresh:
            return float(file.read_text())
        self.write(file.name, value)
        return value

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file of the run, whole or not at all."""
        temporary = self.folder / f".{name}.tmp"
        temporary.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2))
        temporary.replace(self.folder / name)

    @property
    def left(self) -> float:
        """Seconds left of the budget (infinite without one)."""
        return float("inf") if self.budget is None else self.budget - self.elapsed

    def run(
        self, name: str, says: str, *args: object, about: float | None = None, allow: tuple[int, ...] = (0,)
    ) -> Any:
        """Run `cm2 ARGS… --json` unless it is done already; returns its summary.

        Args:
            name: the stage's name, unique in the run.
            says: what happens, for the person who watches.
            about: expected seconds.
            allow: exit codes that count as done.

        Raises:
            StageFailed: the command exited otherwise.
        """
        self.count += 1
        record = self.folder / "stages" / f"{name}.json"
        argv = [str(arg) for arg in args]
        head = f"[bold cyan]\\[{self.count}/{self.total}][/] {says}"
        if not self.fresh and record.exists():
            done = orjson.loads(record.read_bytes())
            if done["argv"] == argv:
                self.console.print(f"{head} [dim]· done before[/]")
                return done["summary"]
        self.fresh = True
        timing = [f"about {duration(about)}"] if about else []
        if self.budget is not None:
            timing.append(f"{duration(max(0, self.left))} left in all")
        self.console.print(f"{head} [dim]· {' · '.join(timing)}[/]" if timing else head)
        start = time.monotonic()
        done_run = subprocess.run([sys.executable, "-m", "cm2", *argv, "--json"], stdout=subprocess.PIPE)
        if done_run.returncode not in allow:
            command = "cm2 " + " ".join(argv)
            raise StageFailed(
                f"stage '{name}' failed: {command}", fix="its message stands above; mend it and repeat the run"
            )
        summary = orjson.loads(done_run.stdout)
        seconds = time.monotonic() - start
        temporary = record.with_suffix(".tmp")
        temporary.write_bytes(orjson.dumps({"argv": argv, "seconds": seconds, "summary": summary}))
        temporary.replace(record)
        return summary


def duration(seconds: float | None) -> str:
    """Seconds for a person: "40 s", "3 min", "2 h 05 min"."""
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds // 3600:.0f} h {seconds % 3600 / 60:02.0f} min"
