"""Each fault by itself, over real sockets: the judge ends with the verdicts of the server that answered well."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from cm2.judge.judging import Judging
from cm2.judge.llm import LLMJudge
from cm2.llm import Models, ModelsConfig, RoleModel
from cm2.verdict import Verdict
from injection.twins import bases, checklist
from servers.processes import scripted
from servers.scripted import HARMLESS, MODEL, PROVIDER, Behaviour, Script, Scripted, digest_of, faulty, good, is_anew

FAULTS = PROVIDER | MODEL | HARMLESS


def judged(script: Script, **settings: Any) -> tuple[list[Verdict], list[dict[str, Any]]]:
    """The verdicts on the first base dialogue, and the calls that the server saw."""
    settings = {"timeout": 30.0, "backoff": 0.0, "longest_wait": 0.1, "model": "scripted"} | settings
    with Scripted(script) as server:
        config = ModelsConfig(default=RoleModel(base_url=server.url, **settings))
        with Models(config) as models:
            return LLMJudge(models, Judging(kind="llm")).judge(bases()[0], 0, checklist()), server.calls


def decided(verdicts: list[Verdict]) -> list[tuple[int, str, bool | None]]:
    return [(verdict.step, verdict.item, verdict.met) for verdict in verdicts]


def once(kind: str) -> Script:
    """This fault at the first try of every question that is not put anew."""

    def script(body: dict[str, Any], tries: int) -> Behaviour:
        true = good(body)
        return true if tries or is_anew(body) else FAULTS[kind](true)

    return script


def patience(kind: str) -> float:
    """Seconds until a call counts as failed: few only where it is meant to fail so."""
    return 1.0 if kind == "time_out" else 30.0


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_costs_one_call_and_no_verdict(kind: str) -> None:
    true, asked = judged(good)
    assert {call["kind"] for call in asked} == {"good"} and None not in [verdict.met for verdict in true]
    found, calls = judged(once(kind), timeout=patience(kind))
    assert decided(found) == decided(true)
    # The items about thinking are a question of their own.
    more = 0 if kind in HARMLESS else len(asked)
    assert len(asked) == 2 and len(calls) == len(asked) + more
    assert sum(call["paid"] for call in calls) == len(asked) + (more if kind in MODEL else 0)
    assert sum(call["anew"] for call in calls) == (more if kind in MODEL else 0)


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_that_stays_leaves_items_unscored_and_is_bounded(kind: str) -> None:
    found, calls = judged(lambda body, tries: FAULTS[kind](good(body)), retries=1, timeout=patience(kind))
    questions = {call["question"] for call in calls}
    if kind in HARMLESS:
        assert decided(found) == decided(judged(good)[0])
        return
    lost = [verdict for verdict in found if verdict.met is None]
    assert lost and all(verdict.reason.startswith("unscored") for verdict in lost)
    owner = "provider" if kind in PROVIDER else "judge"
    assert {verdict.owner for verdict in lost} == {owner}
    most = 4 if kind in ("rate_limit", "overloaded") else 2 if kind in PROVIDER else 1
    assert all(call["tries"] < most for call in calls)
    assert len(questions) <= 8 and not any(verdict.met for verdict in lost)


def test_the_plan_is_the_same_every_time_and_spares_what_is_put_anew() -> None:
    plan = faulty(0.3, seed=1)
    bodies = [{"messages": [{"role": "user", "content": f"question {n} of the filter"}]} for n in range(1000)]
    kinds = [plan(body, 0).kind for body in bodies]
    assert kinds == [faulty(0.3, seed=1)(body, 0).kind for body in bodies]
    assert kinds != [faulty(0.3, seed=2)(body, 0).kind for body in bodies]
    assert 0.25 < sum(kind != "good" for kind in kinds) / 1000 < 0.35
    again = [plan(body, 1).kind for body in bodies]
    assert {*again} <= {"good", *PROVIDER} and 0.02 < sum(kind != "good" for kind in again) / 1000 < 0.12
    assert {plan(body, 2).kind for body in bodies} == {"good"}
    anew = [{"messages": [*body["messages"], {"role": "assistant", "content": "?"}]} for body in bodies]
    assert {plan(body, 0).kind for body in anew} <= {"good", *PROVIDER}
    assert len({digest_of(body) for body in bodies}) == 1000


def test_the_server_is_a_process_that_ends_with_its_standard_input(tmp_path: Any) -> None:
    log = tmp_path / "calls.jsonl"
    with scripted("--script", "truth", "--log", str(log)) as url:
        body = {"messages": [{"role": "user", "content": "Is it good enough to learn from?"}]}
        answer = httpx.post(f"{url}/chat/completions", json=body).json()
        assert answer["choices"][0]["message"]["content"].startswith('{"reason"')
    with pytest.raises(httpx.ConnectError):
        httpx.post(f"{url}/chat/completions", json=body)
    assert len(log.read_text().splitlines()) == 1
