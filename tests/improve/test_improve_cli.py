"""`cm2 export` and `cm2 generate`: one JSON object, exit codes, sentences for what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from improve.judged_logs import dialogue, good, says, turn, write

CODE = (
    "from cm2.cli import main\n"
    "main.VERBS += tuple(verb for verb in ('export', 'generate') if verb not in main.VERBS)\n"
    "main.main()"
)
POLICY = """
name: shop
duties:
  - {id: looks-up, question: 'Is it looked up?', scope: turn, severity: critical, check: {type: called, tool: find}}
"""


def cm2(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CODE, *args], capture_output=True, text=True, cwd=cwd, timeout=300, check=False
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write(tmp_path, [dialogue("a", good()), dialogue("b", turn(says()), system="Else.")])
    (tmp_path / "policy.yaml").write_text(POLICY)
    return tmp_path


BASE = ("export", "logs.jsonl", "--verdicts", "verdicts.jsonl", "--policy", "policy.yaml", "-o", "out.jsonl")


def test_export_prints_one_object_and_writes_the_rows(place: Path) -> None:
    done = cm2(*BASE, "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["rows"], told["left_out"]) == (1, {"a duty fails": 1})
    assert json.loads((place / "out.jsonl").read_text())["id"] == "a"
    shown = cm2(*BASE, cwd=place)
    assert "1 rows for sft (trl) of 2 dialogues" in " ".join(shown.stdout.split())


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--to", "dpo"), "there is no kind 'dpo'"),
        (("--format", "verl"), "verl reads .parquet"),
        (("--exclude", "absent.jsonl"), "absent.jsonl: there is no such file"),
        (("--checklists", "tasks.jsonl"), "a policy and checklists were given"),
        (("--base-url", "http://127.0.0.1:9/v1"), "give --base-url and --model"),
        (("--base-url", "http://127.0.0.1:9/v1", "--model", "m"), "use --to preferences"),
        (("--verdicts", "absent.jsonl"), "absent.jsonl: there is no such file"),
        (("-o", "logs.jsonl"), "the output is one of the inputs"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(place: Path, args: tuple[str, ...], told: str) -> None:
    before = (place / "logs.jsonl").read_bytes()
    done = cm2(*BASE, *args, cwd=place)
    assert done.returncode == 2
    assert told in " ".join(done.stderr.split()) and "Traceback" not in done.stderr
    assert (place / "logs.jsonl").read_bytes() == before


def test_generate_plans_without_asking(place: Path) -> None:
    base = ("generate", "logs.jsonl", "-o", "made", "--base-url", "http://127.0.0.1:9/v1", "--model", "m")
    done = cm2(*base, "--dry-run", cwd=place)
    assert done.returncode == 2 and "label them first: cm2 label" in done.stderr
    row = json.loads((place / "logs.jsonl").read_text().splitlines()[0])
    item = {"id": "C0", "focus_on": "tool.content", "question": "q", "pass_condition": "p", "weight": 1.0}
    (place / "tasks.jsonl").write_text(json.dumps(row | {"checklists": [{"turn": 0, "items": [item]}]}) + "\n")
    base = ("generate", "tasks.jsonl", *base[2:])
    done = cm2(*base, "--dry-run", "--json", "-n", "3", cwd=place)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["calls"] == 6
    assert not (place / "made").exists()
    done = cm2(*base, "--keep", "some", cwd=place)
    assert done.returncode == 2 and "there is no way to keep 'some'" in done.stderr
