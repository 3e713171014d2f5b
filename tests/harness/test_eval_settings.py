"""Settings of a benchmark's run: what is refused before anything starts, and whose key goes where."""

from __future__ import annotations

from typing import Any

import pytest

from cm2.errors import ConfigError
from cm2.harness.settings import NO_KEY, EvalConfig
from cm2.train import settings


def config(benchmark: str = "bfcl", **more: Any) -> EvalConfig:
    """Settings as the command line makes them."""
    given = {"benchmark": benchmark, "output": "out", "base_url": "http://127.0.0.1:1/v1", "model": "m"}
    return settings.check(EvalConfig, given | more)


USER = {"user_base_url": "http://127.0.0.1:2/v1", "user_model": "u"}


@pytest.mark.parametrize("benchmark", ["tau2", "toolsandbox"])
@pytest.mark.parametrize("given", [{}, {"user_model": "u"}, {"user_base_url": "http://127.0.0.1:2/v1"}])
def test_a_benchmark_with_a_user_wants_to_know_who_plays_it(benchmark: str, given: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="--user-base-url and --user-model"):
        config(benchmark, **given)
    assert config(benchmark, **USER).user_model == "u"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"thinking": "maybe"}, "thinking"),
        ({"runs": 0}, "runs"),
        ({"limit": 0}, "limit"),
        ({"limit": 3, "tasks": ["a"]}, "--limit and --task"),
        ({"base_url": "127.0.0.1:8000"}, "--base-url"),
        ({"allow_errors": -1}, "allow_errors"),
        ({"benchmark": "gaia"}, "benchmark"),
    ],
)
def test_bad_settings_are_refused_by_name(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(**more)


def test_a_server_that_wants_no_key_gets_a_word_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert config().secret("agent") == NO_KEY


def test_the_user_is_sent_the_agents_key_only_at_the_agents_own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "the-agents")
    monkeypatch.setenv("OTHER", "the-users")
    same = {"user_base_url": "http://127.0.0.1:1/v1", "user_model": "u"}
    assert config("tau2", **same).secret("user") == "the-agents"
    assert config("tau2", **USER).secret("user") == NO_KEY
    assert config("tau2", **USER, user_key="OTHER").secret("user") == "the-users"


def test_what_decides_answers_is_the_folders_identity_and_nothing_else() -> None:
    same = config("tau2", **USER)
    for more in (
        {"concurrency": 9},
        {"timeout": 5.0},
        {"retries": 9},
        {"allow_errors": 3},
        {"runs": 4},
        {"base_url": "http://127.0.0.1:77/v1"},
        {"output": "elsewhere"},
    ):
        assert config("tau2", **(USER | more)).identity() == same.identity(), more
    for more in ({"model": "other"}, {"user_model": "v"}, {"thinking": "drop"}, {"temperature": 0.7}, {"limit": 2}):
        assert config("tau2", **(USER | more)).identity() != same.identity(), more


def test_no_key_is_in_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-value")
    assert "secret-value" not in str(config().identity())
