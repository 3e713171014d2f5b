"""Judged: from logs and the verdicts on them to a diagnosis, in every form that is asked for.

    read_judged -> Diagnosing -> terminal, JSON, Markdown, Parquet (one reading)
                -> Shelf -> HTML (a second reading, of the dialogues that the page shows)

Nothing of the dialogues is kept between the two, so memory does not grow with their number. Up to `SINGLE` dialogues
make one self-contained file; more lie in a folder beside the page, in parts that are loaded on demand.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import random
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from cm2.assure.failures import Failures
from cm2.assure.outcomes import Judged, read_judged
from cm2.assure.tables import Diagnosing
from cm2.assure.tables_shape import Diagnosis
from cm2.errors import ConfigError
from cm2.formats.rows import Row
from cm2.formats.target import replacing
from cm2.policy import Policy, load_policy
from cm2.report.columns import Columns
from cm2.report.judged_page import judged_page
from cm2.report.markdown import markdown
from cm2.report.shelf import Shelf
from cm2.report.text import visible
from cm2.report.viewer import Names, entry, whole

SINGLE = 500
"""Dialogues in a single file."""
LARGEST = 25_000_000
"""Bytes of dialogues from which on they lie beside the page all the same."""
PROBLEMS = 5
SUFFIXES = (".html", ".md", ".json", ".parquet")
Progress = Callable[[Iterable[Judged]], Iterable[Judged]]


class DiagnosisConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What to report on, and into which files."""

    logs: str
    """The dialogues that were judged."""
    verdicts: str
    """The store that `cm2 judge` wrote."""
    policy: str | None = None
    """The policy, where it was judged by one."""
    checklists: str | None = None
    """The labelled file, where it was judged by the checklists of another file."""
    outputs: list[str] = []
    """Files to write; .html, .md, .json and .parquet say of which form."""
    format: str = "auto"
    """Of both files of dialogues."""
    dialogues: int = 10_000
    """Dialogues in the page's viewer. Of more a seeded sample is taken, the examples of all modes first."""
    folder: bool = False
    """Whether the dialogues lie beside the page even where they are few."""
    seed: int = 0
    """Of samples and examples."""

    def __post_init__(self) -> None:
        if self.dialogues < 0:
            raise ConfigError(f"dialogues is {self.dialogues}", fix="use a number from 0 up")
        if self.policy is not None and self.checklists is not None:
            raise ConfigError("there is a policy and there are checklists", fix="name what it was judged by")
        inputs = {os.path.realpath(path) for path in (self.logs, self.verdicts, self.policy, self.checklists) if path}
        for output in self.outputs:
            if Path(output).suffix not in SUFFIXES:
                raise ConfigError(f"{output} is of no form that is known", fix=f"end it with {', '.join(SUFFIXES)}")
            if os.path.realpath(output) in inputs:
                raise ConfigError(f"{output} is an input", fix="give -o another name")
            if Path(output).is_dir():
                raise ConfigError(f"{output} is a folder", fix="give -o the name of a file")


class Report(msgspec.Struct):
    """What was found and written."""

    diagnosis: Diagnosis
    outputs: list[str]
    """Files and folders."""
    shown: int = 0
    """Dialogues in the viewer."""

    def as_json(self) -> dict[str, Any]:
        """Everything as JSON values; texts are made visible."""
        return as_json(self.diagnosis) | {"outputs": self.outputs, "shown": self.shown}


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """A diagnosis as JSON values, with what is computed; texts are made visible."""
    value: dict[str, Any] = msgspec.to_builtins(diagnosis)
    for row, duty in zip(value["duties"], diagnosis.duties, strict=True):
        row |= {"applicable": duty.applicable, "applies": duty.applies}
    for row, mode in zip(value["modes"]["modes"], diagnosis.modes.modes, strict=True):
        row["sentence"] = mode.sentence
    shown: dict[str, Any] = _visible(value)
    return shown


def _visible(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(key): _visible(each) for key, each in value.items()}
    return [_visible(each) for each in value] if isinstance(value, list) else value


def write_diagnosis(config: DiagnosisConfig, progress: Progress = lambda judged: judged) -> Report:
    """Read logs and verdicts and write what is asked for.

    Args:
        config: what to do.
        progress: wraps the dialogues as they are read.

    Raises:
        DataError: a file is missing or of another kind; nothing has duties; the verdicts are about other dialogues.
        ConfigError: an output cannot be written there.
    """
    policy = None if config.policy is None else load_policy(config.policy)
    pages = [Path(output) for output in config.outputs if output.endswith(".html")]
    for page in pages:
        _claim(beside(page))
    found = Diagnosing(config.seed)
    sample: list[tuple[float, int]] = []
    draw = random.Random(config.seed)
    problems: list[str] = []
    unreadable = 0

    def problem(row: Row) -> None:
        nonlocal unreadable
        unreadable += 1
        if len(problems) < PROBLEMS:
            problems.append(f"line {row.line}: {row.error}")

    with ExitStack() as stack:
        tables = [stack.enter_context(replacing(one)) for one in config.outputs if one.endswith(".parquet")]
        columns = [stack.enter_context(Columns(table)) for table in tables]
        for number, judged in enumerate(progress(_read(config, policy, problem))):
            found.add(judged)
            for one in columns:
                one.add(judged)
            if len(sample) < config.dialogues:
                heapq.heappush(sample, (-draw.random(), number))
            elif sample:
                heapq.heappushpop(sample, (-draw.random(), number))
        diagnosis = found.finish(unreadable, problems)
    report = Report(diagnosis, list(config.outputs))
    for output in config.outputs:
        target = Path(output)
        if output.endswith(".md"):
            _write(target, markdown(diagnosis, Path(config.logs).name).encode())
        elif output.endswith(".json"):
            _write(target, msgspec.json.format(msgspec.json.encode(as_json(diagnosis)), indent=1) + b"\n")
    for page in pages:
        chosen = _chosen(diagnosis, sample, config.dialogues)
        report.shown = len(chosen)
        folder = config.folder or len(chosen) > SINGLE
        if not folder and not _page(page, config, policy, found.failures, diagnosis, chosen, progress, None):
            folder = True
        if folder:
            report.outputs.append(str(beside(page)))
            _page(page, config, policy, found.failures, diagnosis, chosen, progress, beside(page))
    return report


def _read(config: DiagnosisConfig, policy: Policy | None, problem: Callable[[Row], None]) -> Iterator[Judged]:
    files = {"policy": policy, "checklists": config.checklists, "format": config.format}
    return read_judged(config.logs, config.verdicts, **files, on_error=problem)  # type: ignore[arg-type]


def _chosen(diagnosis: Diagnosis, sample: list[tuple[float, int]], most: int) -> set[int]:
    """Which dialogues the viewer shows: all, or the examples of the modes and a seeded sample of the others."""
    examples = [example.number for mode in diagnosis.modes.modes for example in mode.examples]
    drawn = [number for _, number in sorted(sample, reverse=True)]
    return set(list(dict.fromkeys([*examples, *drawn]))[:most])


def _page(
    page: Path,
    config: DiagnosisConfig,
    policy: Policy | None,
    failures: Failures,
    diagnosis: Diagnosis,
    chosen: set[int],
    progress: Progress,
    folder: Path | None,
) -> bool:
    """Write the page and its dialogues; False where they turn out too large for a single file."""
    build = hashlib.blake2b(msgspec.json.encode(as_json(diagnosis)), digest_size=8).hexdigest()
    draft = None if folder is None else folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    names = Names()
    try:
        if draft is not None:
            draft.mkdir(parents=True)
        shelf = Shelf(build, draft)
        for number, judged in enumerate(progress(_read(config, policy, lambda row: None))) if chosen else ():
            if number not in chosen:
                continue
            dialogue = whole(judged, names, failures)
            shelf.put([*entry(judged, names, failures, *shelf.place), number], dialogue)
            if folder is None and shelf.bytes > LARGEST:
                return False
        shelf.close()
        if folder is None and shelf.bytes > LARGEST:
            return False
        beside = None if folder is None else folder.name
        html = judged_page(Path(config.logs).name, diagnosis, names, shelf, build, beside)
        if folder is None or draft is None:
            _write(page, html.encode())
            return True
        old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
        if folder.exists():
            folder.rename(old)
        draft.rename(folder)
        _write(page, html.encode())
        shutil.rmtree(old, ignore_errors=True)
        return True
    finally:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)


def beside(page: Path) -> Path:
    """The folder of a page's dialogues."""
    return page.with_name(f"{page.stem}.data")


def _claim(folder: Path) -> None:
    """Make sure that nothing but an earlier report's dialogues would be replaced."""
    if not folder.exists():
        return
    if not folder.is_dir() or not all(re.fullmatch(r"(index|part)-\d+\.js", one.name) for one in folder.iterdir()):
        raise ConfigError(f"{folder} holds something else than a report's dialogues", fix="give -o another name")


def _write(target: Path, body: bytes) -> None:
    with replacing(target) as draft:
        draft.write_bytes(body)
