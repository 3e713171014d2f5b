"""The models file: one place for every role, and wrong settings that name their remedy."""

from __future__ import annotations

import pytest

from cm2.cli.models import open_models, spending_table
from cm2.errors import ConfigError
from cm2.llm import ROLES, ModelsConfig, RoleModel, load_models

FILE = """
default:
  base_url: [http://10.0.0.1:8000/v1, http://10.0.0.2:8000/v1/]
  model: small
  temperature: 0.2
  extra: {top_k: 20}
judge: {effort: low, temperature: 0}
labeler:
  base_url: https://api.example.com/v1
  model: big
  key-variable: BIG_KEY
  price: {input: 1e-1, output: 2}
budget: 5
"""


def written(tmp_path, text=FILE):
    path = tmp_path / "models.yaml"
    path.write_text(text)
    return str(path)


def test_a_role_says_only_what_differs(tmp_path):
    config = load_models(written(tmp_path))
    judge, labeler = config.of("judge"), config.of("labeler")
    assert judge.base_urls == ["http://10.0.0.1:8000/v1", "http://10.0.0.2:8000/v1"]
    assert (judge.model, judge.effort, judge.temperature, judge.extra) == ("small", "low", 0.0, {"top_k": 20})
    assert (labeler.model, labeler.key_variable, labeler.temperature) == ("big", "BIG_KEY", 0.2)
    assert labeler.price is not None and labeler.price.input == 0.1
    assert config.of("filter") == config.of("compressor") and config.budget == 5


def test_the_same_from_python():
    config = ModelsConfig(
        default=RoleModel(base_url="http://h/v1", model="m", temperature=0.3),
        judge={"effort": "low"},
        simulator=RoleModel(base_url="http://s/v1", model="s"),
    )
    assert config.of("judge") == RoleModel(base_url="http://h/v1", model="m", temperature=0.3, effort="low")
    assert config.of("simulator").temperature is None  # a RoleModel stands alone
    assert {config.of(role).model for role in ROLES} == {"m", "s"}


def test_flags_lie_above_the_file(tmp_path):
    config = load_models(written(tmp_path), ["judge.temperature=0.9", "max_tokens=7", "budget=1"], judge={"model": "x"})
    judge = config.of("judge")
    assert (judge.model, judge.temperature, judge.effort, judge.max_tokens) == ("x", 0.9, "low", 7)
    assert config.of("filter").model == "small" and config.of("filter").max_tokens == 7 and config.budget == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("judge: {temprature: 1}", r"unknown setting 'temprature' of judge \(did you mean temperature\?"),
        ("jugde: {model: x}", r"unknown setting 'jugde' \(did you mean judge\?"),
        ("judge: {temperature: 3}", r"judge.temperature: Expected `float` <= 2.0 \(it is 3\)"),
        ("judge: {concurrency: 0}", "judge.concurrency"),
        ("default: {base_url: localhost:8000}", r"'localhost:8000' is no address of an endpoint \(give http"),
        ("default: {base_url: [http://a/v1, http://a/v1/]}", "stands twice"),
        ("default: {price: {input: 1}}", "default.price: .*missing required field `output`"),
        ("default: {price: {input: 1, output: 2, ouput: 3}}", "unknown field `ouput`"),
        ("default: {structured: never}", "default.structured"),
        ("judge: x", r"judge is no mapping of settings \(write judge:"),
        ("- a", "is not a mapping of settings"),
        ("a: [", "is no YAML"),
        ("budget: -1", "budget"),
    ],
)
def test_a_wrong_setting_is_one_sentence_with_file_and_remedy(tmp_path, text, told):
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=told) as caught:
        load_models(path)
    assert path in str(caught.value)


def test_a_file_that_is_not_there_and_a_flag_that_is_none(tmp_path):
    with pytest.raises(ConfigError, match="there is no such file"):
        load_models(str(tmp_path / "no.yaml"))
    for setting in ("temperature", "judge.x.y=1", "nobody.model=1", "=3"):
        with pytest.raises(ConfigError):
            load_models(None, [setting])


def test_a_password_in_a_wrong_address_is_not_told():
    with pytest.raises(ConfigError) as caught:
        RoleModel(base_url="ftp://me:hunter2@host/v1?token=abcdefgh")
    assert "hunter2" not in str(caught.value) and "abcdefgh" not in str(caught.value)


def test_the_flags_of_a_verb_make_the_door(tmp_path):
    output = tmp_path / "out.jsonl"
    urls = ["http://a.test/v1", "http://b.test/v1"]
    with open_models("judge", base_url=urls, model="m", concurrency=7, output=str(output)) as door:
        assert door.config.of("judge").base_urls == urls and door.config.of("simulator").model == "m"
        assert door.config.cache == f"{output}.llm.sqlite" and door.config.concurrency == 7
    flags = {
        "model": "other",
        "cache": str(tmp_path / "c.db"),
        "budget": 2,
        "settings": ["price={input: 1, output: 1}"],
    }
    with open_models("judge", written(tmp_path), **flags) as door:
        assert door.config.of("judge").model == "other" and door.config.of("filter").model == "small"
        assert door.config.cache == str(tmp_path / "c.db") and door.config.budget == 2
        assert door.config.of("judge").price.input == 1


def test_a_verb_without_an_endpoint_says_what_to_give(tmp_path):
    with pytest.raises(ConfigError, match="--base-url URL and --model NAME, or a file with --models"):
        open_models("judge", output=str(tmp_path / "o"))


def test_a_budget_needs_a_price(tmp_path):
    with pytest.raises(ConfigError, match=r"no price of m is known.*price:"):
        open_models("judge", base_url=["http://a.test/v1"], model="m", budget=1.0, output=str(tmp_path / "o"))


def test_a_dry_run_makes_no_file(tmp_path):
    with open_models(
        "judge", base_url=["http://a.test/v1"], model="m", output=str(tmp_path / "o"), dry_run=True
    ) as door:
        assert spending_table(door).title == "planned, nothing was asked"
    assert list(tmp_path.iterdir()) == []
