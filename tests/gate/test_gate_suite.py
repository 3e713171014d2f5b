"""Suites: what is wrong with one is told with its place and how to mend it."""

import pytest

from cm2.assure.suite import load_suite, read_suite
from cm2.errors import ConfigError


def load(folder, text, **flags):
    path = folder / "suite.yaml"
    path.write_text(text)
    return load_suite(str(path), flags)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "is no suite"),
        ("a: [\n", r"suite.yaml:2: is no YAML"),
        ("dialogue: r\n", "unknown field dialogue.*the fields are name, dialogues"),
        ("policy: p\n", "nobody is looked at.*--dialogues"),
        ("dialogues: d\ndefault_severity: bad\n", "default_severity.*Invalid enum value 'bad'"),
        ("dialogues: d\nthresholds: {criticl: {}}\n", "there is no severity 'criticl'"),
        (
            "dialogues: d\nthresholds: {major: {pass_rate: 1}}\n",
            "thresholds.major: unknown field 'pass_rate'.*min_pass",
        ),
        ("dialogues: d\nthresholds: {major: {min_pass_rate: 90}}\n", "min_pass_rate"),
        ("dialogues: d\nduties: {x: {min_pass_rate: high}}\n", "duties"),
        ("dialogues: d\nconfidence: 1\n", "confidence"),
        ("dialogues: d\nendpoint: {base_url: 'http://h/v1', model: m}\n", "both dialogues and an endpoint"),
        ("endpoint: {base_url: 'http://h/v1', model: m}\n", "nothing to run"),
        ("endpoint: {base_url: 'ftp://h', model: m}\ntasks: t\n", "no address of an endpoint"),
        ("endpoint: {base_url: 'http://h/v1', model: m, key: k}\ntasks: t\n", "key"),
        ("dialogues: d\nrepeats: 3\n", "about an endpoint"),
        ("dialogues: d\njudging: {kind: guess}\n", "guess"),
        ("endpoint: {base_url: 'http://h/v1', model: m}\ntasks: t\nsystem: absent.md\n", "absent.md.*check `system`"),
        ("dialogues: d\nverdicts: v\npolicy: p\ntasks: t\n", "verdicts"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as told:
        load(tmp_path, text)
    assert "suite.yaml" in str(told.value) or "absent.md" in str(told.value)


def test_a_missing_suite_is_told(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_suite(str(tmp_path / "absent.yaml"))
    (tmp_path / "picture").write_bytes(b"\x89PNG\xff")
    with pytest.raises(ConfigError, match="no text file"):
        load_suite(str(tmp_path / "picture"))


def test_paths_start_at_the_suite_and_flags_at_the_working_folder(tmp_path):
    found = load(
        tmp_path, "dialogues: runs/r.jsonl\npolicy: ../p.yaml\ntasks: s3://bucket/t.jsonl\n", baseline="b.json"
    )
    assert found.dialogues == str(tmp_path / "runs" / "r.jsonl") and found.policy == str(tmp_path.parent / "p.yaml")
    assert found.tasks == "s3://bucket/t.jsonl" and found.baseline == "b.json"


def test_runs_on_the_command_line_take_the_place_of_an_endpoint_and_the_other_way_round(tmp_path):
    text = "endpoint: {base_url: 'http://h/v1', model: m, temperature: 0.5}\n"
    text += "tasks: t.jsonl\nrepeats: 3\nsystem: Be kind.\n"
    found = load(tmp_path, text, dialogues="r.jsonl")
    assert (found.dialogues, found.endpoint, found.repeats, found.system) == ("r.jsonl", None, 1, None)
    found = load(tmp_path, text, model="other")
    assert (found.endpoint.model, found.endpoint.temperature, found.endpoint.base_url) == ("other", 0.5, "http://h/v1")
    found = load(tmp_path, "dialogues: d\ntasks: t\n", base_url="http://x/v1", model="m", repeats=2)
    assert found.dialogues is None and found.endpoint.model == "m" and found.repeats == 2


def test_a_system_prompt_may_stand_in_a_file(tmp_path):
    (tmp_path / "prompt.md").write_text("Be very kind.")
    text = "endpoint: {base_url: 'http://h/v1', model: m}\ntasks: t.jsonl\nsystem: prompt.md\n"
    assert load(tmp_path, text).system == "Be very kind."


def test_a_threshold_that_says_one_thing_leaves_the_others_as_they_are():
    suite = read_suite(
        {"dialogues": "d", "thresholds": {"critical": {"max_fails": 2}}, "duties": {"x": {"flaky": "none"}}}
    )
    critical = suite.threshold("critical")
    assert (critical.max_fails, critical.max_unscored, critical.flaky) == (2, 0.0, "known")
    assert suite.threshold("major").max_fails is None
    assert suite.tolerates("critical", "x") == "none" and suite.tolerates("critical", "y") == "known"
