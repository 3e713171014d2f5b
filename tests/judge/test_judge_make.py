"""Settings of a judge, and the judge that they describe."""

from __future__ import annotations

import json

import pytest
from judge_askers import Scripted

from cm2.errors import ConfigError
from cm2.judge import ChecksJudge
from cm2.judge.hybrid import HybridJudge
from cm2.judge.judging import Judging, load_judging
from cm2.judge.llm import LLMJudge
from cm2.judge.make import make_judge
from cm2.judge.vote import VoteJudge
from cm2.llm import ModelsConfig, RoleModel


class Asker(Scripted):
    def __init__(self, model: str = "m", **more):
        super().__init__([])
        self.config = ModelsConfig(judge=RoleModel(base_url="http://127.0.0.1:9/v1", model=model, **more))


def test_each_kind_makes_its_judge():
    assert isinstance(make_judge(), ChecksJudge)
    assert isinstance(make_judge(Judging(kind="llm"), Asker()), LLMJudge)
    hybrid = make_judge(Judging(kind="hybrid"), Asker())
    assert isinstance(hybrid, HybridJudge) and isinstance(hybrid.inner, LLMJudge)
    vote = make_judge(Judging(kind="vote", votes=5, quorum=4), Asker())
    assert isinstance(vote, HybridJudge) and isinstance(vote.inner, VoteJudge)
    assert [judge.sample for judge in vote.inner.judges] == [0, 1, 2, 3, 4] and vote.inner.quorum == 4
    assert isinstance(make_judge(Judging(kind="vote", checks=False), Asker()), VoteJudge)


def test_several_models_give_one_vote_each():
    panel = [Asker("a"), Asker("b")]
    vote = make_judge(Judging(kind="vote", checks=False), panel)
    assert [judge.asker for judge in vote.judges] == panel and vote.quorum == 2
    with pytest.raises(ConfigError, match="2 models were given to one judge"):
        make_judge(Judging(kind="llm"), panel)


def test_a_judge_that_asks_needs_somebody_to_ask():
    for kind in ("llm", "hybrid", "vote"):
        with pytest.raises(ConfigError, match="none is given"):
            make_judge(Judging(kind=kind))


def test_the_identity_is_what_decides_verdicts_and_nothing_else():
    def of(config=None, *askers):
        return make_judge(config or Judging(kind="llm"), list(askers) or [Asker()]).identity

    same = of()
    assert of(None, Asker(retries=9, timeout=5)) == same and of(Judging(kind="llm", votes=7)) == same
    others = [
        of(None, Asker("other")),
        of(None, Asker(temperature=0)),
        of(None, Asker(temperature=0.6)),
        of(None, Asker(effort="low")),
        of(Judging(kind="llm", schedule="step")),
        of(Judging(kind="llm", schedule="item")),
        of(Judging(kind="llm", isolate="subjective")),
        of(Judging(kind="hybrid")),
        of(Judging(kind="vote")),
        of(Judging(kind="vote", votes=5)),
        of(Judging(kind="vote"), Asker("a"), Asker("b")),
    ]
    assert len({same, *others}) == len(others) + 1
    assert json.loads(same)["prompt"].startswith("judge/turn@") and make_judge().identity == ""


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "oracle"}, "oracle"),
        ({"schedule": "never"}, "never"),
        ({"isolate": "everything"}, "everything"),
        ({"votes": 0}, "votes"),
        ({"votes": 3, "quorum": 4}, "quorum of 4"),
        ({"kind": "classifier"}, "no model"),
        ({"subjective_words": "("}, "regular expression"),
        ({"cut": 3}, "cut"),
        ({"audit": 2}, "audit"),
        ({"shedule": "turn"}, "known ones"),
    ],
)
def test_a_wrong_setting_is_told_when_it_is_loaded(settings, words):
    with pytest.raises(ConfigError) as caught:
        load_judging(**settings)
    assert words in str(caught.value)


def test_settings_come_from_a_file_and_flags_win(tmp_path):
    file = tmp_path / "judging.yaml"
    file.write_text("kind: vote\nvotes: 5\nskip-absent: false\nsubjective_kinds: [mood]\n")
    found = load_judging(str(file), votes=7, schedule=None)
    assert (found.kind, found.votes, found.skip_absent, found.schedule) == ("vote", 7, False, "turn")
    assert found.subjective_kinds == ("mood",)
    for text, words in (("- a", "mapping"), ("kind: [", "YAML"), ("vots: 3", "unknown setting vots")):
        file.write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_judging(str(file))
        assert words in str(caught.value) and "judging.yaml" in str(caught.value)
    with pytest.raises(ConfigError, match="no such file"):
        load_judging(str(tmp_path / "none.yaml"))
