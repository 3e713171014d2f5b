"""`cm2 plan`: one object under --json, tables else, sentences for mistakes; and the recipes."""

import json
from pathlib import Path

import pytest
import typer

from cm2.cli import plan as verb
from cm2.cli.main import explain
from cm2.plan.plan import make_plan

FOLDER = Path(__file__).resolve().parents[2] / "recipes"
RECIPE = str(FOLDER / "one-node-lora-8b-rl.yaml")


def run(capsys, *argv):
    app = typer.Typer()
    app.callback()(lambda: None)
    verb.register(app)
    try:
        code = app(args=["plan", *argv], standalone_mode=False) or 0
        message = ""
    except Exception as error:
        message, code = explain(error)
    return code, capsys.readouterr().out, message


def test_json_is_one_object_with_every_part(capsys):
    code, out, _ = run(capsys, RECIPE, "--gpus", "6", "--judge-gpus", "2", "--json")
    summary = json.loads(out)
    assert code == 0
    assert {"memory", "load", "schedules", "seconds", "hours", "gpu_hours", "notes"} <= summary.keys()
    assert summary["gpu_hours"] == pytest.approx(summary["hours"] * 8)
    assert summary["batches"] == 500 and summary["memory"]["fits"] is True


def test_the_tables_name_the_parts(capsys):
    code, out, _ = run(capsys, RECIPE, "--gpus", "6", "--judge-gpus", "2")
    assert code == 0
    for word in ("optimizer", "activations", "cache of", "this recipe", "as in the paper", "overlapped", "GPU hours"):
        assert word in out


def test_flags_win_over_the_recipe(capsys):
    _, out, _ = run(capsys, RECIPE, "--gpus", "6", "--group", "48", "--schedule", "step", "--json")
    assert json.loads(out)["load"]["rollouts"] == 24 * 48
    _, more, _ = run(capsys, RECIPE, "--gpus", "6", "--dialogue", "turns=6", "--set", "mfu_train=0.2", "--json")
    summary = json.loads(more)
    assert summary["dialogue"]["turns"] == 6 and summary["constants_changed"] == {"mfu_train": 0.2}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "no recipe"),
        (["absent.yaml"], "no such file"),
        ([RECIPE, "--gpu", "h1000"], "did you mean h100"),
        ([RECIPE, "--model", "Qwen3-9B"], "did you mean Qwen3-"),
        ([RECIPE, "--set", "mfu=1"], "no constant"),
        ([RECIPE, "--dialogue", "turn=3"], "known ones: turns"),
        ([RECIPE, "--dialogue", "turns=many"], "no number"),
        ([RECIPE, "--dialogue", "turns=0"], "turns"),
        ([RECIPE, "--engine", "megatron"], "local or sharded"),
        ([RECIPE, "--gpu", "cpu", "--engine", "sharded"], "does not shard"),
        ([RECIPE, "--judge-gpus", "1", "--gpu", "rtx4090"], "does not fit"),
        ([RECIPE, "--like", "absent"], "no run of cm2 rl"),
    ],
)
def test_mistakes_are_a_sentence_and_exit_2(capsys, argv, words):
    code, out, message = run(capsys, *argv)
    assert code == 2 and words in message and not out


def test_constants_and_checks_need_no_recipe(capsys):
    _, out, _ = run(capsys, "--constants", "--json")
    assert {"cited", "measured", "derived", "assumed"} == {row["kind"] for row in json.loads(out)["constants"]}
    code, out, _ = run(capsys, "--check", "--json")
    assert code == 0 and any("paper" in row["what"] for row in json.loads(out)["checks"])


def test_a_simulation_without_simpy_names_the_extra(capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "simpy", None)
    code, _, message = run(capsys, RECIPE, "--gpus", "6", "--judge-gpus", "2", "--simulate")
    assert code == 2 and "cm2[plan]" in message


@pytest.mark.parametrize(
    ("name", "machine"),
    [
        ("laptop-rl", {"gpu": "cpu"}),
        ("one-gpu-24gb-1.7b-rl", {"gpu": "rtx4090"}),
        ("one-node-lora-8b-rl", {"gpus": 6, "judge_gpus": 2}),
        ("paper-8b-rl", {"gpus": 56, "judge_gpus": 8, "model": "Qwen3-8B"}),
        ("demo-rl", {"gpu": "cpu"}),
    ],
)
def test_a_recipe_fits_the_machine_that_it_is_for(name, machine):
    assert make_plan(str(FOLDER / f"{name}.yaml"), **machine).memory.fits


def test_one_gpu_of_24_gb_has_no_room_for_full_training():
    plan = make_plan(str(FOLDER / "one-gpu-24gb-1.7b-rl.yaml"), gpu="rtx4090", overrides={"lora": 0})
    assert not plan.memory.fits


def test_minutes_of_a_recipe_end_its_plan():
    assert make_plan(str(FOLDER / "laptop-rl.yaml"), gpu="cpu").hours == 8
