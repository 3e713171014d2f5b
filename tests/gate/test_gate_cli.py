"""`cm2 gate` and `cm2 gate freeze`: exit codes, one JSON object, outputs that stand on nobody's feet."""

import json
from xml.etree import ElementTree as ET

import pytest
import yaml

from cm2.cli import main as command_line
from cm2.cli.main import main
from gate.gate_builders import policy, run, write


@pytest.fixture(scope="module", autouse=True)
def registered():
    """The verb, also where the list of verbs does not have it yet."""
    if "gate" not in command_line.VERBS:
        command_line.VERBS += ("gate",)
        command_line.MODULES["gate"] = ("gate", "gate_freeze")


def go(capsys, *argv):
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in argv])
    said = capsys.readouterr()
    return stop.value.code, said.out, said.err


@pytest.fixture
def folder(tmp_path):
    policy(tmp_path)
    write(tmp_path / "good.jsonl", [run("a"), run("b")])
    write(tmp_path / "bad.jsonl", [run("a"), run("b", verified=False)])
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump({"dialogues": "good.jsonl", "policy": "policy.yaml"}))
    return tmp_path


def test_exit_codes(capsys, folder):
    assert go(capsys, "gate", folder / "suite.yaml")[0] == 0
    assert go(capsys, "gate", folder / "suite.yaml", "--dialogues", folder / "bad.jsonl")[0] == 1
    code, _, err = go(capsys, "gate", folder / "absent.yaml")
    assert code == 2 and err.count("\n") == 1 and "no such file" in err
    assert go(capsys, "gate", folder / "suite.yaml", "--dialogues", folder / "absent.jsonl")[0] == 2
    (folder / "empty.jsonl").write_text("")
    assert go(capsys, "gate", folder / "suite.yaml", "--dialogues", folder / "empty.jsonl")[0] == 2


def test_undecided_is_no_success(capsys, folder):
    (folder / "suite.yaml").write_text(yaml.safe_dump({"dialogues": "good.jsonl", "tasks": "t.jsonl"}))
    write(folder / "t.jsonl", [run("a"), run("z")])
    code, out, _ = go(capsys, "gate", folder / "suite.yaml")
    assert code == 1 and "undecided" in out


def test_json_is_one_object(capsys, folder):
    code, out, err = go(
        capsys, "gate", folder / "suite.yaml", "--dialogues", folder / "bad.jsonl", "--json", "--github"
    )
    found = json.loads(out)
    assert code == found["exit"] == 1 and found["state"] == "failed"
    assert [case["dialogue"] for case in found["cases"]] == ["b"]
    assert [line[:8] for line in err.splitlines()] == ["::error "] * 2


def test_every_form_is_written_and_a_result_is_a_baseline(capsys, folder, monkeypatch):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder / "summary.md"))
    outputs = ("-o", folder / "r.json", "--junit", folder / "j.xml", "--markdown", folder / "m.md", "--github")
    assert go(capsys, "gate", folder / "suite.yaml", *outputs)[0] == 0
    assert ET.parse(folder / "j.xml").getroot().get("failures") == "0"
    assert "passed" in (folder / "m.md").read_text() and "passed" in (folder / "summary.md").read_text()
    code, out, _ = go(
        capsys, *("gate", folder / "suite.yaml", "--baseline", folder / "r.json"), "--dialogues", folder / "bad.jsonl"
    )
    assert code == 1 and "newly failing" in out


def test_what_a_dialogue_says_is_no_command_of_the_workflow(capsys, folder):
    write(folder / "bad.jsonl", [run("::error::\n::add-mask::x [red]", verified=False)])
    _, out, _ = go(capsys, "gate", folder / "suite.yaml", "--dialogues", folder / "bad.jsonl", "--github")
    lines = out.splitlines()
    assert lines[0].startswith("::stop-commands::")
    end = lines.index(f"::{lines[0].removeprefix('::stop-commands::')}::")
    assert all(line.startswith("::error ") for line in lines[end + 1 :]) and len(lines) - end == 3
    assert "[red]" in out


@pytest.mark.parametrize("flag", ["-o", "--junit", "--markdown"])
@pytest.mark.parametrize("name", ["suite.yaml", "good.jsonl", "policy.yaml"])
def test_no_output_takes_the_place_of_what_is_read(capsys, folder, flag, name):
    before = (folder / name).read_bytes()
    code, _, err = go(capsys, "gate", folder / "suite.yaml", flag, folder / name)
    assert code == 2 and "is the suite" in err and (folder / name).read_bytes() == before


def test_two_outputs_of_one_name_are_told(capsys, folder):
    code, _, err = go(capsys, "gate", folder / "suite.yaml", "-o", folder / "x", "--junit", folder / "x")
    assert code == 2 and "--junit" in err and "-o" in err


def test_a_judge_that_asks_needs_a_model(capsys, folder, monkeypatch):
    monkeypatch.delenv("CM2_MODELS", raising=False)
    (folder / "suite.yaml").write_text("dialogues: good.jsonl\npolicy: policy.yaml\njudging: {kind: hybrid}\n")
    code, _, err = go(capsys, "gate", folder / "suite.yaml")
    assert code == 2 and "--models" in err


def test_freeze_from_the_command_line(capsys, folder):
    from cm2.formats.jsonlines import encode
    from cm2.judge import ChecksJudge
    from cm2.policy import load_policy

    with open(folder / "v.jsonl", "wb") as file:
        for dialogue in (run("a"), run("b", verified=False)):
            for checklist in load_policy(folder / "policy.yaml").checklists(dialogue):
                for verdict in ChecksJudge().judge(dialogue, checklist.turn, checklist):
                    file.write(encode(verdict) + b"\n")
    common = ("gate", "freeze", folder / "bad.jsonl", "-o", folder / "s", "--policy", folder / "policy.yaml")
    failing = ("--verdicts", folder / "v.jsonl", "--dialogue", "b", "--duty", "identity-first", "--reason", "INC-7")
    code, out, _ = go(capsys, *common, *failing, "--json")
    assert code == 0 and json.loads(out)["items"] == ["identity-first"]
    code, out, _ = go(capsys, *common, *failing)
    assert code == 0 and "there already" in out
    code, out, err = go(capsys, *common, "--dialogue", "b", "--passing", "a")
    assert code == 2 and "one run is frozen at a time" in err
    code, _, err = go(capsys, "gate", folder / "s" / "suite.yaml")
    assert code == 2 and "nobody is looked at" in err


def test_a_model_that_does_not_answer_leaves_the_gate_undecided(capsys, folder):
    from servers.openai_server import OpenAIServer, refuses

    policy(folder, "critical")
    with OpenAIServer([refuses(503, "overloaded")]) as server:
        models = {"default": {"base_url": server.url, "model": "m", "retries": 0, "backoff": 0.001}}
        (folder / "models.yaml").write_text(yaml.safe_dump(models))
        suite = {"dialogues": "good.jsonl", "policy": "policy.yaml", "models": "models.yaml"}
        (folder / "suite.yaml").write_text(yaml.safe_dump(suite | {"judging": {"kind": "hybrid"}}))
        code, out, err = go(capsys, "gate", folder / "suite.yaml", "--json")
    found = json.loads(out)
    assert code == 1 and found["state"] == "undecided" and len(server.requests) >= 2, err
    assert {(case["duty"], case["status"], case["unscored_by"]) for case in found["cases"]} == {
        ("polite", "unscored", "provider")
    }
    assert {rate["name"]: rate.get("passed", 0) for rate in found["duties"]}["identity-first"] == 2
