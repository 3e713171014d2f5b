"""Gates, curriculum, several checklists and votes, through environment and trainer."""

import json
import os
import re
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("trl")
pytestmark = pytest.mark.train

import msgspec  # noqa: E402

from cm2.check import Reply  # noqa: E402
from cm2.checklist import Checklist, Task  # noqa: E402
from cm2.credit import Credit  # noqa: E402
from cm2.dialogue import Dialogue, Step, Turn  # noqa: E402
from cm2.errors import ConfigError  # noqa: E402
from cm2.judge import ChecksJudge  # noqa: E402
from cm2.judge.judging import Judging  # noqa: E402
from cm2.rollout.environment import Environment  # noqa: E402
from cm2.rollout.gate import Gate, environment_of  # noqa: E402
from cm2.rollout.run import default_world  # noqa: E402
from cm2.rollout.trace import read_rollouts  # noqa: E402
from cm2.train.rl import Batch, train_rl  # noqa: E402
from cm2.train.roll import score_of, strict_reward  # noqa: E402
from rollout.coffee_task import item  # noqa: E402
from servers.scripted import Scripted, good, says  # noqa: E402
from train.saying_task import numbers, saying, settings, tiny_folder, weights, write  # noqa: E402

REPLY = "assistant.content.user_visible_reply"


def talk(i=0, turns=3):
    """Turns that ask for a word each; the word is strict, that anything is said is not."""
    said = [Turn(f"Say word {t} of {i}.", [Step(reply=f"word{t}")]) for t in range(turns)]
    lists = [
        Checklist(
            t,
            [
                item("C0", REPLY, 0.5, Reply(pattern=f"word{t}"), strict=True),
                item("C1", REPLY, 0.5, Reply(pattern=".")),
            ],
        )
        for t in range(turns)
    ]
    return Task(Dialogue(id=f"talk-{i}", turns=said), lists)


def played(replies, gate):
    one = talk(turns=len(replies))
    environment = environment_of(one, default_world(one, 0).session(), ChecksJudge(), None, gate)
    for reply in replies:
        if not environment.done:
            environment.feed(Step(reply=reply))
    return environment


def test_a_graded_gate_goes_on_and_its_score_counts_the_rest_less():
    credit = Credit(gate="graded", strictness=0.5)
    environment = played(["what?", "word1", "word2"], Gate(credit))
    assert environment.reason == "completed" and len(environment.dialogue.turns) == 3
    rollout = environment.record()
    assert score_of(rollout, credit).reward == pytest.approx((0.5 + 0.5 + 0.5) / 3)
    assert score_of(rollout, Credit()).reward == pytest.approx(2.5 / 3)
    assert strict_reward([[rollout]], credit) == pytest.approx(0.5 / 3)
    ended = played(["what?", "word1", "word2"], Gate(Credit()))
    assert type(ended) is Environment and ended.reason == "strict" and len(ended.dialogue.turns) == 1
    assert score_of(ended.record(), Credit()).reward == pytest.approx(0.5 / 3)  # what strict_reward said of the other


def test_a_gate_at_full_strictness_ends_as_the_method_does():
    assert played(["what?", "word1"], Gate(Credit(gate="graded", strictness=1.0))).reason == "strict"
    assert played(["word0", "word1"], Gate(Credit(gate="graded", strictness=1.0))).reason == "completed"


def test_a_gate_of_chance_draws_once_for_a_group_and_as_often_as_it_says():
    credit = Credit(gate="chance", strictness=0.3)
    ends = [Gate(credit, seed).ends(0) for seed in range(2000)]
    assert 0.25 < sum(ends) / len(ends) < 0.35
    assert [Gate(credit, 7).ends(t) for t in range(9)] == [Gate(credit, 7).ends(t) for t in range(9)]
    open_, shut = ends.index(False), ends.index(True)
    assert played(["what?", "word1"], Gate(credit, open_)).reason == "completed"
    assert played(["what?", "word1"], Gate(credit, shut)).reason == "strict"
    assert score_of(played(["what?", "word1"], Gate(credit, open_)).record(), credit).reward == pytest.approx(0.75)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def talks(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "talks.jsonl", [talk(i, turns=2) for i in range(4)])


@pytest.fixture
def brief(monkeypatch):
    """Half of the bytes end an action, so that a model of random bytes comes to the end of its turns."""
    from cm2.rollout.template import ChatTemplate

    ends = ChatTemplate.stop_ids.fget
    monkeypatch.setattr(ChatTemplate, "stop_ids", property(lambda self: [*ends(self), *range(0, 256, 2)]))


def stored(folder, step):
    return list(read_rollouts(str(folder / "rollouts" / f"step-{step:05d}.jsonl")))


def test_a_curriculum_lets_late_turns_be_practised_and_ends_at_the_method(tmp_path, model_folder, talks, brief):
    config = settings(talks, tmp_path / "run", model_folder, gate="graded", strictness=0.25, curriculum=2, updates=3)
    train_rl(config)
    told = numbers(tmp_path / "run")
    assert [one["strictness"] for one in told] == [0.25, 0.625, 1.0]
    # No model of random bytes says the word: a lenient gate shows it the second turn all the same, the method's not.
    # (A reply that is cut off, or empty, ends a rollout whatever the gate says.)
    lengths = [{len(one.dialogue.turns) for one in stored(tmp_path / "run", step)} for step in (1, 2, 3)]
    assert 2 in lengths[0] and 2 in lengths[1] and lengths[2] == {1}
    for step, one in enumerate(told, 1):
        rollouts = stored(tmp_path / "run", step)
        credit = Credit(gate="graded", strictness=one["strictness"])
        assert one["reward"] == pytest.approx(sum(score_of(r, credit).reward for r in rollouts) / len(rollouts))
        assert all(r.score["reward"] == score_of(r, credit).reward for r in rollouts)
        assert one["reward_strict"] <= one["reward"]
    assert told[2]["reward_strict"] == told[2]["reward"] and told[0]["reward_strict"] < told[0]["reward"]


def test_a_killed_curriculum_goes_on_at_the_strictness_it_had(tmp_path, model_folder, talks, brief, monkeypatch):
    config = settings(talks, tmp_path / "run", model_folder, gate="chance", strictness=0.2, curriculum=3)
    train_rl(msgspec.structs.replace(config, output=str(tmp_path / "straight")))
    rolled = Batch.__call__

    def interrupted(self, indices, generation):
        rows = rolled(self, indices, generation)
        if generation == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return rows

    monkeypatch.setattr(Batch, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_rl(config)
    monkeypatch.setattr(Batch, "__call__", rolled)
    assert train_rl(config)["resumed_from"] == 2
    assert numbers(tmp_path / "run") == numbers(tmp_path / "straight")
    mine, theirs = weights(tmp_path / "run"), weights(tmp_path / "straight")
    assert all((mine[name] == theirs[name]).all() for name in theirs)


def test_a_curriculum_without_a_lenient_gate_is_refused(tmp_path, model_folder, talks):
    with pytest.raises(ConfigError, match="a gate that can be lenient"):
        train_rl(settings(talks, tmp_path / "run", model_folder, curriculum=3))


@pytest.mark.parametrize("level", ["trajectory", "step"])
def test_rewards_and_advantages_of_several_checklists_are_their_means(tmp_path, model_folder, level, monkeypatch):
    """Each turn has two checklists, and every token's advantage in the trainer is the one worked out from text."""
    data = write(tmp_path / "tasks.jsonl", [saying(i, variants=2) for i in range(4)])
    seen, rolled = [], Batch.__call__
    monkeypatch.setattr(Batch, "__call__", lambda self, *a: seen.append(rolled(self, *a)) or seen[-1])
    train_rl(settings(data, tmp_path / "run", model_folder, level=level, updates=2, group=6))
    earned = set()
    for step, rows in enumerate(seen, 1):
        rollouts = stored(tmp_path / "run", step)
        assert len(rollouts) == len(rows) == 12
        for first in (0, 6):
            group = rollouts[first : first + 6]
            said = [one.dialogue.turns[0].steps[-1].reply or "" for one in group]
            met = [[bool(re.search(pattern, text)) for pattern in ("[a-m]", "[A-Z]")] for text in said]
            for place, row in enumerate(rows[first : first + 6]):
                assert row.reward == pytest.approx(sum(met[place]) / 2)
                earned.add(row.reward)
                # One item a checklist and one step a rollout: at both levels the mean of met − mean met.
                wanted = sum(met[place][c] - sum(one[c] for one in met) / 6 for c in (0, 1)) / 2
                if len(group[place].dialogue.turns[0].steps) == 1:
                    found = {round(a, 9) for a, sampled in zip(row.advantages, row.mask, strict=True) if sampled}
                    assert found == {round(wanted, 9)}
                assert sum(row.rewards) == pytest.approx(row.reward)
    assert len(earned) > 1


def lying(times):
    """A server whose first `times` answers to every question deny everything; the others are true."""
    lock, count = threading.Lock(), Counter()

    def script(body, tries):
        key = json.dumps(body["messages"], sort_keys=True)
        with lock:
            count[key] += 1
            number = count[key]
        true = good(body, tries)
        if number > times:
            return true
        answer = json.loads(true.body["choices"][0]["message"]["content"])
        for one in answer["verdicts"]:
            for name, nothing in (("first_step", None), ("holds", False), ("quote", "")):
                if name in one:
                    one[name] = nothing
        return says(json.dumps(answer))

    return script


def test_a_vote_in_training_pays_by_the_majority(tmp_path, model_folder):
    """One of three judgements lies: the run is the one of a true judge. Two lie: nothing is paid."""
    file = Path(write(tmp_path / "tasks.jsonl", [saying(i) for i in range(4)]))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for each in (each for row in rows for checklist in row["checklists"] for each in checklist["items"]):
        del each["check"]  # a model's to judge
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = {}
    for name, judging, script in (
        ("true", Judging(kind="llm"), good),
        ("one", Judging(kind="vote", votes=3), lying(1)),
        ("two", Judging(kind="vote", votes=3), lying(2)),
    ):
        models = tmp_path / f"{name}.yaml"
        with Scripted(script) as server:
            models.write_text(f'default: {{base_url: "{server.url}", model: scripted, backoff: 0}}\n')
            config = settings(str(file), tmp_path / name, model_folder, updates=2, judging=judging, models=str(models))
            train_rl(config)
        found[name] = [[one[part] for part in ("reward", "grad_norm", "failures")] for one in numbers(tmp_path / name)]
    assert found["one"] == found["true"] and found["true"][0][0] > 0
    assert [reward for reward, _, _ in found["two"]] == [0.0, 0.0]
    votes = [verdict.votes for rollout in stored(tmp_path / "one", 1) for verdict in rollout.verdicts if verdict.votes]
    assert any(sum(map(bool, vote)) == 2 and len(vote) == 3 for vote in votes)


def test_the_flags_of_the_command_reach_the_run(tmp_path, model_folder, talks, capsys):
    from cm2.cli.main import main

    flags = (
        "--algorithm ppo --kl-in reward --gate graded --strictness 0.25 --curriculum 9 --importance token --no-backfill"
    )
    sizes = "--updates 1 --prompts 2 --group 2 --max-step-tokens 4 --beta 0.01"
    with pytest.raises(SystemExit) as stop:
        command = ["rl", talks, "-o", str(tmp_path / "run"), "--model", model_folder, *flags.split(), *sizes.split()]
        main([*command, "--json"])
    assert stop.value.code == 0 and json.loads(capsys.readouterr().out)["updates"] == 1
    told = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    wanted = {"algorithm": "ppo", "ppo.kl_in": "reward", "gate": "graded", "strictness": 0.25, "curriculum": 9}
    assert {name: told[name] for name in wanted} == wanted
    assert told["importance"] == "token" and told["backfill"] is False and told["resample"] == 0
