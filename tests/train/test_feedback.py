"""Feedback: settings become judge, worlds and probes; what cannot be answered is never a reward."""

from __future__ import annotations

import pytest

from cm2.dialogue import Dialogue
from cm2.errors import CheckFailed, CM2Error, ConfigError
from cm2.judge import ChecksJudge
from cm2.judge.judging import Judging
from cm2.judge.probes import Probing
from cm2.rollout.trace import Failure, Rollout
from cm2.simulate.config import SimulatorConfig
from cm2.train.feedback import Feedback
from cm2.worlds import world_for
from rollout.coffee_task import task

MODELS = """
default: {base_url: "http://127.0.0.1:9/v1", model: small, price: {input: 0, output: 0}}
judge: {temperature: 0}
"""


def made(tmp_path, judging=None, simulator=None, probing=None, **given):
    given = {"models": None, "gold": None, "gold_models": None, "calibration": None} | given
    return Feedback(
        judging or Judging(),
        simulator or SimulatorConfig(),
        probing or Probing(),
        cache=str(tmp_path / "llm.sqlite"),
        tasks=[task()],
        reading="gated",
        seed=0,
        **given,
    )


def models_file(tmp_path, text=MODELS, name="models.yaml"):
    file = tmp_path / name
    file.write_text(text)
    return str(file)


def rollout(failure=None, met=True):
    return Rollout("t", Dialogue("t"), failure=failure)


def test_the_defaults_ask_nobody(tmp_path):
    with made(tmp_path) as feedback:
        assert isinstance(feedback.judge, ChecksJudge) and feedback.world is world_for and feedback.probes is None
        assert feedback.numbers([[rollout()]], 0) == {} and feedback.alarms([{}]) == {} and not feedback.stop
        feedback.check()
    assert not (tmp_path / "llm.sqlite").exists()


@pytest.mark.parametrize("settings", [{"judging": Judging(kind="llm")}, {"simulator": SimulatorConfig(kind="llm")}])
def test_who_asks_a_model_must_name_one(tmp_path, settings):
    with pytest.raises(ConfigError, match=r"none is named.*models"):
        made(tmp_path, **settings)


def test_a_judge_that_asks_is_awaited_and_its_calls_are_counted(tmp_path):
    with made(tmp_path, Judging(kind="hybrid"), models=models_file(tmp_path)) as feedback:
        assert hasattr(feedback.judge, "judge_async")
        numbers = feedback.numbers([[rollout()]], 0)
        assert numbers == {"llm_calls": 0, "llm_reused": 0, "llm_failed": 0, "llm_cost": 0.0}
    assert (tmp_path / "llm.sqlite").exists()


def test_an_update_in_which_nobody_answered_stops_the_run(tmp_path):
    ill = rollout(Failure("judge", "the server is down"))
    with made(tmp_path) as feedback:
        assert feedback.numbers([[ill, rollout()]], 0) == {}
        with pytest.raises(CM2Error, match=r"none of the 2 rollouts.*the server is down"):
            feedback.numbers([[ill], [ill]], 1)
        refused = rollout(Failure("judge", "the key is refused", True))
        with pytest.raises(CM2Error, match="nobody answers any more: the key is refused"):
            feedback.numbers([[refused, rollout()]], 1)


def test_an_alarm_is_recorded_and_ends_the_run_where_that_is_asked(tmp_path):
    quiet = [{"probe": n, "canary_groups": 8, "canary_rate": 0.0} for n in range(20)]
    loud = [{"probe": n, "canary_groups": 8, "canary_rate": 1.0} for n in range(20)]
    for on_alarm in ("note", "stop"):
        with made(tmp_path, probing=Probing(canaries=1, on_alarm=on_alarm)) as feedback:
            assert feedback.alarms(quiet) == {} and not feedback.stop
            assert "must stay no were passed in 100.0%" in feedback.alarms(loud)["alarm"]
            assert feedback.stop == (on_alarm == "stop")
            if feedback.stop:
                with pytest.raises(CheckFailed, match="note goes on"):
                    feedback.check()


def test_another_model_is_another_run_and_another_address_is_not(tmp_path):
    def asked(text):
        return Feedback.asked(Judging(kind="llm"), SimulatorConfig(kind="llm"), models_file(tmp_path, text))

    first = asked(MODELS)
    assert first.keys() == {"judge", "simulator"}
    assert asked(MODELS.replace("127.0.0.1:9", "127.0.0.1:10")) == first
    assert asked(MODELS.replace("small", "large")) != first
    assert asked(MODELS.replace("temperature: 0", "temperature: 1"))["judge"] != first["judge"]
    assert Feedback.asked(Judging(), SimulatorConfig(), None) == {}
