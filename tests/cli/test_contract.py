"""The command contract: --json prints one object and nothing else, exit codes mean something, errors are a sentence."""

import json
import subprocess
import sys

import pytest

from cm2.cli.main import VERBS, main
from cm2.formats.lock import lock_output


def run(capsys, *argv):
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in argv])
    out, err = capsys.readouterr()
    return stop.value.code, out, err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ladder")


@pytest.fixture(scope="module")
def made(folder):
    """Sample dialogues, and the same with checklists."""
    for argv in (["worlds", "make", "-o", "d.jsonl", "-n", "6"], ["label", "d.jsonl", "-o", "t.jsonl"]):
        argv = [str(folder / arg) if arg.endswith(".jsonl") else arg for arg in argv]
        with pytest.raises(SystemExit) as stop:
            main([*argv, "--json"])
        assert stop.value.code == 0
    return folder / "d.jsonl", folder / "t.jsonl"


def test_every_verb_of_the_help_exists(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0 and all(f" {verb} " in out for verb in VERBS)


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        (["inspect", "D"], {"dialogues"}),
        (["filter", "D", "-o", "kept.jsonl", "--rejected", "rejected.jsonl"], {"kept", "rejected"}),
        (["label", "D", "-o", "labelled.jsonl"], {"dialogues", "items"}),
        (["lint", "T"], {"items", "failed", "ok"}),
        (["judge", "T", "-o", "verdicts.jsonl"], {"verdicts", "kinds"}),
        (["worlds", "make", "-o", "worlds.jsonl", "-n", "3"], {"dialogues"}),
        (["report", "T", "-o", "report.html"], set()),
    ],
)
def test_a_summary_is_one_json_object_and_nothing_else(capsys, tmp_path, made, argv, names):
    files = {"D": str(made[0]), "T": str(made[1])}
    argv = [files.get(arg) or (str(tmp_path / arg) if "." in arg else arg) for arg in argv]
    code, out, _ = run(capsys, *argv, "--json")
    assert code == 0 and names <= json.loads(out).keys()
    assert all((tmp_path / name).exists() for name in argv if str(tmp_path) in name)
    code, out, _ = run(capsys, *[arg.replace(str(tmp_path), str(tmp_path / "again")) for arg in argv])
    assert code == 0 and out.strip()
    with pytest.raises(json.JSONDecodeError):
        json.loads(out)


NEEDS_INPUT = {
    "inspect": [],
    "filter": ["-o", "kept.jsonl", "--rejected", "rejected.jsonl"],
    "label": ["-o", "out.jsonl"],
    "lint": [],
    "judge": ["-o", "verdicts.jsonl"],
    "rollout": ["-o", "rollouts.jsonl", "--base-url", "http://127.0.0.1:9/v1", "--model", "m"],
    "report": ["-o", "report.html"],
    "sft": ["-o", "run"],
    "rl": ["-o", "run"],
    "evaluate": ["-o", "eval"],
}


@pytest.mark.parametrize("verb", NEEDS_INPUT)
@pytest.mark.parametrize("what", ["missing", "empty", "picture"])
def test_wrong_input_is_one_sentence_with_the_file_and_exit_2(capsys, tmp_path, monkeypatch, verb, what):
    monkeypatch.chdir(tmp_path)
    if verb in ("sft", "rl", "evaluate"):
        pytest.importorskip("trl")
    file = tmp_path / "input.jsonl"
    if what != "missing":
        file.write_bytes(b"" if what == "empty" else b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" * 9)
    code, out, err = run(capsys, verb, file, *NEEDS_INPUT[verb])
    assert code == 2 and not out
    assert err.startswith("cm2: ") and "input.jsonl" in err.replace("\n", "") and "Traceback" not in err
    assert not (tmp_path / "kept.jsonl").exists() and not (tmp_path / "out.jsonl").exists()


def test_a_failed_check_exits_1(capsys, tmp_path, made):
    row = json.loads(made[1].read_text().splitlines()[0])
    row["checklists"][0]["items"][0]["question"] = "If it is Monday, did the assistant look?"
    file = tmp_path / "bad.jsonl"
    file.write_text(json.dumps(row) + "\n")
    code, out, _ = run(capsys, "lint", file, "--json")
    assert code == 1 and json.loads(out)["ok"] is False


@pytest.mark.parametrize(
    "argv", [["nonsense"], ["lint"], ["label", "--nope", "x"], ["worlds", "make", "-n", "many", "-o", "x"]]
)
def test_wrong_use_exits_2_with_a_sentence(capsys, argv):
    code, _, err = run(capsys, *argv)
    assert code == 2 and err.startswith("cm2: ") and "Traceback" not in err


@pytest.mark.parametrize("argv", [[], ["worlds"], ["audit"]])
def test_a_command_without_a_verb_prints_the_help_and_a_sentence(capsys, argv):
    code, out, err = run(capsys, *argv)
    assert code == 2 and "Usage:" in out + err and "cm2: Name a command." in err


def test_two_runs_on_one_output_are_kept_apart(capsys, tmp_path, made):
    lock = lock_output(str(tmp_path / "kept.jsonl"))
    try:
        code, _, err = run(capsys, "label", made[0], "-o", tmp_path / "kept.jsonl")
    finally:
        lock.release()
    assert code == 2 and "another run" in err


def test_debug_shows_the_trace(tmp_path):
    argv = [sys.executable, "-m", "cm2", "lint", str(tmp_path / "nowhere.jsonl"), "--debug"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode != 0 and "Traceback" in done.stderr


def test_a_judge_of_rollouts_that_asks_a_model_needs_one(tmp_path, capsys):
    """Said before anything is asked or written."""
    out = tmp_path / "rollouts.jsonl"
    argv = ["rollout", "tasks.jsonl", "-o", str(out), "--base-url", "http://127.0.0.1:9/v1", "--model", "m"]
    for more, told in ((["--judge", "llm"], "give --models"), (["--judge", "hybrid", "--dry-run"], "dry run")):
        with pytest.raises(SystemExit) as ended:
            main([*argv, *more])
        assert ended.value.code == 2 and told in capsys.readouterr().err
    assert not out.exists()
