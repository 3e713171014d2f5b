"""General: whether a checkpoint still can what it could before it was trained for something else.

    checkpoint ─▶ lm-eval, in an environment of its own ─▶ one number an example ─▶ results.json (the shape of all)

The harness is lm-eval itself, its tasks are files of ours about data that packages ship (see `general_data`), zero-shot
and without a chat template. Two kinds of examples:

- choice: 1 where lm-eval's `acc` is 1: of all choices c the right one has the largest log p(c | question);
- text: 2^(-bits per byte), the probability of a byte of the text (geometric mean), from lm-eval's `bits_per_byte`.

The number of one checkpoint means little (a prompt of another form moves it by points); the difference of two on the
same examples is what this is for (`cm2.assure.regression`). No endpoint is asked and nothing is sampled: the same
checkpoint gives the same numbers, and nothing can be lost. It goes on where it was killed, by category.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from cm2.errors import ConfigError
from cm2.harness import environments, general_data, results, scores
from cm2.harness.environments import Environment
from cm2.harness.general_data import BY_NAME, PARTS, PREFIX, Part
from cm2.harness.process import HarnessFailed, run
from cm2.harness.results import RAW, Outcome, Results
from cm2.harness.run import claimed
from cm2.harness.settings import digest

NAME = "general"
WHOLE = {part.name: part.count for part in PARTS}
NOT_COMPARABLE = (
    "first examples of some BIG-bench tasks, and texts, in one zero-shot form: not comparable with published numbers"
)


class GeneralConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One checkpoint on the general evaluation."""

    checkpoint: str
    """"embedded", a Hugging Face folder (a checkpoint of ours is one), or a Hugging Face name."""
    output: str
    """Folder of the results; the same command goes on in it."""
    categories: list[str] = msgspec.field(default_factory=list)
    """Parts of it. Empty: all."""
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Only the first so many examples of each category."""
    batch: Annotated[int, msgspec.Meta(ge=1)] = 4
    """Sequences at once. Memory; and by rounding the last digits of a number."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the weights. A rounded model is another model: take the same for all that you compare."""
    device: str | None = None
    """As torch calls it. Unset: a GPU where there is one."""
    threads: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Of the matrix products on a CPU. Unset: one a core."""

    def __post_init__(self) -> None:
        if unknown := [name for name in self.categories if name not in BY_NAME]:
            raise ConfigError(f"there is no category {unknown[0]!r}", fix=f"there are {', '.join(BY_NAME)}")

    @property
    def parts(self) -> list[Part]:
        """The chosen categories, in their own order."""
        return [part for part in PARTS if not self.categories or part.name in self.categories]

    def identity(self) -> dict[str, Any]:
        """What decides a number."""
        from cm2.train.embedded import model_digest

        named = {"categories": [part.name for part in self.parts], "limit": self.limit, "dtype": self.dtype}
        return {"checkpoint": model_digest(self.checkpoint), **named, "batch": self.batch}


def evaluate(config: GeneralConfig, progress: Callable[[int, int], None] = lambda done, whole: None) -> Results:
    """Run what is missing, and write the results.

    Raises:
        ConfigError: lm-eval is not set up, or the folder is of other settings.
        HarnessFailed: lm-eval ended without results.
    """
    environment = need()
    with claimed(config, environment.version) as folder:
        raw = folder / RAW / "run-0"
        chosen = general_data.write(config.parts, Path(environment.folder), raw / "tasks", config.limit)
        whole = sum(map(len, chosen.values()))
        for done in run_once(config, environment, raw):
            progress(done, whole)
        outcomes = parse(raw, chosen)
        made = gather(config, environment.version, outcomes, digest(chosen))
        results.write(made, outcomes, folder)
        return made


def need() -> Environment:
    """The environment of lm-eval.

    Raises:
        ConfigError: it was not set up, or with another Python than the one whose torch it shares.
    """
    found = environments.need(NAME)
    mine = "Python " + ".".join(platform.python_version_tuple()[:2])
    if not f"{found.python}.".startswith(f"{mine}."):
        raise ConfigError(
            f"lm-eval was set up with {found.python}, this is {mine}, whose torch it would share",
            fix=f"remove {found.folder} and run: cm2 eval setup {NAME}",
        )
    return found


def run_once(config: GeneralConfig, environment: Environment, raw: Path) -> Iterator[int]:
    """Run lm-eval on what is missing; yields how many examples are done."""
    import os

    samples = raw / "samples"
    settings = {
        "model": folder_of(config.checkpoint),
        "tasks": str((raw / "tasks").resolve()),
        "samples": str(samples.resolve()),
        "categories": [part.name for part in config.parts],
        "prefix": PREFIX,
        "batch": config.batch,
        "dtype": config.dtype,
        "device": config.device,
        "threads": config.threads or os.cpu_count() or 1,
        "packages": general_data.packages(),
    }
    # A name is looked up in the caches of this process's user; nothing is asked of a hub but the model itself.
    passed = {name: os.environ[name] for name in ("HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES") if name in os.environ}
    variables = passed | {"HF_HOME": os.environ.get("HF_HOME") or str(Path.home() / ".cache" / "huggingface")}
    variables["HF_DATASETS_CACHE"] = str((raw / "home" / "datasets").resolve())

    def count() -> int:
        return sum(len(msgspec.json.decode(file.read_bytes())) for file in samples.glob("*.json"))

    return run(environment, "run_general.py", settings, variables, raw, count)


def folder_of(checkpoint: str) -> str:
    """A checkpoint as transformers finds it."""
    from cm2.train.embedded import NAME as EMBEDDED
    from cm2.train.embedded import embedded_folder

    if checkpoint == EMBEDDED:
        return str(embedded_folder())
    return str(Path(checkpoint).resolve()) if Path(checkpoint).is_dir() else checkpoint


def parse(raw: Path, chosen: dict[str, list[dict[str, Any]]]) -> list[Outcome]:
    """The outcomes of every example.

    Raises:
        HarnessFailed: one is missing.
    """
    found = []
    for name, rows in chosen.items():
        file = raw / "samples" / f"{name}.json"
        try:
            numbers = {row["id"]: row for row in msgspec.json.decode(file.read_bytes())}
        except (OSError, msgspec.DecodeError) as error:
            raise HarnessFailed(f"{file} does not read: {error}", fix="remove it and run again") from error
        if missing := [row["id"] for row in rows if row["id"] not in numbers]:
            raise HarnessFailed(f"{name}: {len(missing)} examples are missing", fix=f"remove {file} and run again")
        shown = f"{RAW}/run-0/samples/{name}.json"
        for row in rows:
            score = score_of(BY_NAME[name], numbers[row["id"]])
            passed = None if BY_NAME[name].kind == "text" else score == 1
            found.append(Outcome(task=row["id"], category=name, score=score, passed=passed, raw=shown))
    return found


def score_of(part: Part, numbers: dict[str, Any]) -> float:
    """0 to 1, by lm-eval's own numbers of an example; 2^(-bits per byte) = p(text)^(1 / bytes)."""
    if part.kind == "choice":
        return float(numbers["acc"])
    bits = bits_per_byte(numbers)
    return float(2.0**-bits)


def bits_per_byte(numbers: dict[str, Any]) -> float:
    """How many bits a byte of the text costs: -log2 p(text) / bytes."""
    from math import log

    return float(-numbers["loglikelihood"] / (numbers["bytes"] * log(2)))


def gather(config: GeneralConfig, version: str, outcomes: list[Outcome], tasks: str) -> Results:
    """Outcomes as results."""
    from cm2.serve.config import model_name

    parts = scores.categories(outcomes, 1, WHOLE)
    for part in parts:
        if part.score is not None:
            part.official = [part.score.mean]
    headline = scores.headline(NAME, parts)
    headline.comparable = False
    differs = [NOT_COMPARABLE]
    if any(part.n != part.whole for part in parts) or len(parts) < len(WHOLE):
        differs.insert(0, f"{sum(part.n for part in parts)} of {sum(WHOLE.values())} examples: a subset")
    return Results(
        benchmark=NAME,
        harness=version,
        tasks=tasks,
        model=model_name(config.checkpoint),
        endpoint=config.checkpoint,
        n=len(outcomes),
        headlines=[headline],
        categories=parts,
        differs=differs,
        settings=config.identity(),
    )
