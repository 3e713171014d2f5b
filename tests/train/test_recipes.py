"""Every recipe loads, and says what it claims to say."""

from pathlib import Path

import msgspec
import pytest

from cm2.study.demo import Plan
from cm2.train import settings
from cm2.train.rl import RlConfig
from cm2.train.sft import SftConfig

FOLDER = Path(__file__).resolve().parents[2] / "recipes"
RECIPES = sorted(file for file in FOLDER.glob("*.yaml") if not file.stem.startswith(("filter-", "select-")))


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_loads(file):
    kind = SftConfig if "sft" in file.stem else RlConfig
    loaded = settings.load(kind, str(file), {"input": "in.jsonl", "output": "run"})
    assert loaded != kind(input="in.jsonl", output="run")


def test_the_demo_trains_with_its_recipe():
    (file,) = (file for file in RECIPES if file.stem == "demo-rl")
    loaded, plan = settings.load(RlConfig, str(file), {"input": "in.jsonl", "output": "run"}), Plan()
    for name in ("prompts", "group", "lr", "beta", "layers", "temperature", "max_step_tokens"):
        assert getattr(loaded, name) == msgspec.to_builtins(plan)[name], name


def test_the_published_mini_batches_are_of_128_rollouts():
    (file,) = (file for file in RECIPES if file.stem == "paper-8b-rl")
    loaded = settings.load(RlConfig, str(file), {"input": "in.jsonl", "output": "run"})
    assert loaded.prompts * loaded.group // loaded.mini_batches == 128
