"""Benchmarks in the loop: a small fixed part of a benchmark, run again and again while a model trains.

    before the first update, after every `every`-th and after the last:
        save the weights aside → serve them by a process of their own → the benchmark's own harness → one point

    RUN/benchmarks.jsonl            one line an evaluation and benchmark: step, score, interval, n, or why there is none
    RUN/benchmarks/step-N/NAME/     what `cm2 eval` writes

Such a number is for this run's curve and nothing else: it is of a few tasks, always the same ones (`tasks`, else the
first `limit` of each category), and says so wherever it is shown. Where their hash or the harness's version is another
than at the first evaluation, there is no number.

Training does not notice: the model is only read, no draw of this process is used up, and an evaluation that fails (a
harness that broke down, an endpoint that was not there, a conversation lost to somebody else than the agent) costs its
point and a warning, never the run, and never counts as a zero. What would fail every time (a harness that is not set
up, no simulated user) is refused before the first update.

A killed run comes to the same points: those of steps that are forgotten are taken out; when a step is repeated, what
its folder holds is gone on with where it is of the very same weights, else thrown away.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from cm2.errors import CM2Error
from cm2.formats.jsonlines import encode
from cm2.formats.origin import fingerprint
from cm2.harness.settings import Benchmark
from cm2.train import space
from cm2.train.benchmarking import AGENT, Benchmarking

FILE, FOLDER = "benchmarks.jsonl", "benchmarks"
SCRATCH = ".saving-benchmark"
"""Where the weights stand meanwhile; what a killed run leaves of such a name goes when the run is opened again."""
SUBSET = "a small fixed part of the benchmark: for the curve of one run only, not comparable with published numbers"


class Point(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One evaluation of one benchmark."""

    step: int
    benchmark: str
    score: float | None = None
    """The mean of its headlines; None: unscored, which is no zero."""
    low: float | None = None
    high: float | None = None
    """The 95 % interval, over tasks."""
    n: int = 0
    """Tasks that were run."""
    lost: int = 0
    """Conversations without a score, through no fault of the agent."""
    unscored: str = ""
    """Why there is no score."""
    harness: str = ""
    tasks: str = ""
    """Hash of the tasks."""
    note: str = SUBSET


class Benchmarks:
    """See the module; without `benchmarks.run` in the settings it does nothing.

    Args:
        run: the run, after `Run.resume_to`.
        config: the run's settings (`RlConfig`).
        model: gives the model that trains.
        tokenizer: saved with it.
        resumed: the step that the run goes on from.
        first: whether this process is the one that writes; the others do nothing here.

    Raises:
        ConfigError: an evaluation could not even begin.
    """

    def __init__(
        self, run: Any, config: Any, model: Callable[[], Any], tokenizer: Any, resumed: int, first: bool = True
    ):
        self.run, self.config, self.model, self.tokenizer = run, config, model, tokenizer
        self.settings: Benchmarking = config.benchmarks
        self.names = self.settings.run if first else []
        self.points: list[Point] = []
        self._resumed = resumed
        if self.names:
            self.settings.check()
            self.file = run.folder / FILE
            self.points = [point for point in read_points(self.file) if point.step <= resumed]
            self._write()

    def start(self) -> None:
        """Evaluate the start of a run that has just begun."""
        if self.names and all(point.step == self._resumed for point in self.points):
            self._look(self._resumed)

    def after(self, step: int) -> dict[str, Any]:
        """What the metrics tell of the evaluation after this step, where one is due."""
        last = step >= self.config.updates
        if not self.names or (step % self.settings.every and not last):
            return {}
        began = time.perf_counter()
        found: dict[str, Any] = {}
        for point in self._look(step):
            told: dict[str, Any] = {"score": point.score, "low": point.low, "high": point.high}
            told |= {"n": point.n, "lost": point.lost, "note": point.note}
            if point.unscored:
                told["unscored"] = point.unscored
            found |= {f"benchmark/{point.benchmark}/{name}": value for name, value in told.items()}
        return found | {"seconds_benchmarks": round(time.perf_counter() - began, 3)}

    def end(self, step: int) -> dict[str, Any]:
        """Evaluate the end, where it was not; what the summary tells."""
        if not self.names:
            return {}
        self._look(step)
        curves: dict[str, list[dict[str, Any]]] = {}
        for point in self.points:
            told = {"step": point.step, "score": point.score, "n": point.n}
            curves.setdefault(point.benchmark, []).append(told)
        return {"benchmarks": curves}

    def _look(self, step: int) -> list[Point]:
        """The points of a step; those that are not on record are made."""
        missing = [name for name in self.names if not self._of(step, name)]
        if missing:
            try:
                made = self._evaluated(step, missing)
            except Exception as error:  # the disk is full, the server did not start
                made = [Point(step=step, benchmark=name, unscored=_line(error)) for name in missing]
            self.points += made
            self._write()
            for point in made:
                if point.unscored:
                    told = f"cm2: {point.benchmark} after step {step} has no score: {point.unscored}; training goes on"
                    Console(stderr=True, highlight=False).print(told, markup=False)
        return [point for name in self.names for point in self._of(step, name)]

    def _evaluated(self, step: int, names: list[Benchmark]) -> list[Point]:
        from cm2.harness.serving import served

        place = self.run.folder / FOLDER / f"step-{step:05d}"
        scratch = self.run.folder / SCRATCH
        try:
            weights = self._save(scratch)
            self._claim(place, fingerprint(str(weights)))
            found = {name: point for name in names if (point := self._known(step, name, place)) is not None}
            left = [name for name in names if name not in found]
            if left:
                with served(str(weights), self.settings.thinking, backend=self.settings.backend) as endpoint:
                    found |= {name: self._one(step, name, place, endpoint) for name in left}
            return [found[name] for name in names]
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _save(self, scratch: Path) -> Path:
        """The weights of the moment, in a folder that is named as the agent is called."""
        from cm2.train.best import merged

        model = self.model()
        shutil.rmtree(scratch, ignore_errors=True)
        space.need(self.run.folder, sum(one.numel() * one.element_size() for one in model.parameters()), "a benchmark")
        folder = scratch / AGENT
        folder.mkdir(parents=True)
        merged(model).save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        return folder

    def _claim(self, place: Path, weights: str) -> None:
        """Let a step's folder be of these weights: a resumed run that came to others begins it anew."""
        note = place / "weights"
        if place.exists() and not (note.exists() and note.read_text() == weights):
            shutil.rmtree(place)
        place.mkdir(parents=True, exist_ok=True)
        self.run.write(note, weights.encode())

    def _known(self, step: int, name: Benchmark, place: Path) -> Point | None:
        """The point of results that are complete already, of a run that was killed right after."""
        from cm2.harness.results import is_results, read

        if not is_results(place / name):
            return None
        results = read(place / name)[0]
        return None if results.failed else self._point(step, results)

    def _one(self, step: int, name: Benchmark, place: Path, endpoint: Any) -> Point:
        from cm2.harness.run import evaluate
        from cm2.harness.serving import KEY_ENV

        output = str(place / name)
        try:
            made = self.settings.config(name, output, endpoint.base_url, KEY_ENV, self.config.max_step_tokens)
            return self._point(step, evaluate(made))
        except Exception as error:  # a harness broke down, or wrote something that does not read
            return Point(step=step, benchmark=name, unscored=_line(error))

    def _point(self, step: int, results: Any) -> Point:
        """Results as a point, without a score where too much was lost or other tasks were run than before."""
        from cm2.harness.scores import mean_of_means

        name = results.benchmark
        point = Point(
            step=step, benchmark=name, n=results.n, lost=results.lost, harness=results.harness, tasks=results.tasks
        )
        first = next((one for one in self.points if one.benchmark == name and one.score is not None), None)
        if results.failed:
            told = ", ".join(f"{owner} {count}" for owner, count in results.errors.items() if owner != "agent")
            point.unscored = f"conversations lost to others than the agent: {told}" if told else "nothing has a score"
        elif first is not None and (first.tasks, first.harness) != (point.tasks, point.harness):
            point.unscored = f"the tasks or the harness are others than after step {first.step} ({first.harness})"
        else:
            found = mean_of_means([one.score for one in results.headlines])
            assert found is not None  # else it had failed
            point.score, point.low, point.high = found.mean, found.low, found.high
        return point

    def _of(self, step: int, name: str) -> list[Point]:
        return [point for point in self.points if (point.step, point.benchmark) == (step, name)]

    def _write(self) -> None:
        self.run.write(self.file, b"".join(encode(point) + b"\n" for point in self.points))


def read_points(file: Path) -> list[Point]:
    """The points of a benchmarks.jsonl; a torn last line is left out."""
    if not file.exists():
        return []
    lines = file.read_bytes().splitlines(keepends=True)
    return [msgspec.json.decode(line, type=Point) for line in lines if line.endswith(b"\n")]


def _line(error: Exception) -> str:
    """What is told of a failure. Of whatever kind it is, days of training are worth more than one point of a curve."""
    told = str(error) if isinstance(error, CM2Error) else f"{type(error).__name__}: {error}"
    return " ".join(told.split())[:500]
