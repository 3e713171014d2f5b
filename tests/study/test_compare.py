"""What a study claims: a rise only where the interval says so; and how real data is cut."""

import json

import msgspec
import pytest

from cm2.dialogue import Dialogue
from cm2.errors import DataError
from cm2.rollout.trace import Rollout, encode
from cm2.study.compare import compare, verdict_of
from cm2.study.demo import Plan
from cm2.study.stages import Stages
from cm2.study.study import pooled, real


def stored(folder, name, rewards):
    own = folder / name
    own.mkdir(parents=True)
    rollouts = [
        Rollout(
            f"t{i}",
            Dialogue(f"t{i}"),
            score={"reward": value, "strict_pass": value == 1},
            outcome={"success": value == 1},
        )
        for i, value in enumerate(rewards)
    ]
    (own / "rollouts.jsonl").write_bytes(b"".join(encode(one) + b"\n" for one in rollouts))


def evaluations(folder, before, after):
    for mode in ("greedy", "sampled"):
        stored(folder, f"sft-heldout-{mode}", before)
        stored(folder, f"rl-heldout-{mode}", after)
    return compare([folder], ["heldout"])


def test_a_clear_rise_is_called_one(tmp_path):
    found = evaluations(tmp_path, [0.0] * 30, [1.0] * 25 + [0.0] * 5)
    assert len(found) == 6 and all(one.difference == pytest.approx(25 / 30) for one in found)
    told = verdict_of(found)
    assert told.startswith(
        "RL beats SFT; heldout: 6 of 6 measures rose, 0 of 6 measures fell (greedy reward 0.00 → 0.83"
    )


def test_no_rise_and_a_fall_are_said_as_plainly(tmp_path):
    unclear = verdict_of(evaluations(tmp_path / "a", [0.0, 1.0] * 15, [1.0, 0.0] * 15))
    assert unclear.startswith("No significant difference") and "0 of 6 measures rose" in unclear
    worse = verdict_of(evaluations(tmp_path / "b", [1.0] * 30, [0.0] * 30))
    assert worse.startswith("RL is worse than SFT") and "6 of 6 measures fell" in worse
    assert verdict_of([]) == "There is nothing to compare."


def test_seeds_are_pooled_over_tasks_and_over_seeds(tmp_path):
    folders, runs = [], []
    for seed, after in enumerate(([1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0])):
        folders.append(tmp_path / str(seed))
        one = evaluations(folders[-1], [0.0] * 4, after)
        runs.append({"comparison": [msgspec.to_builtins(row) for row in one]})
    found = pooled(runs, [msgspec.to_builtins(row) for row in compare(folders, ["heldout"])])
    assert len(found) == 6
    for row in found:  # the same ids in three seeds are twelve tasks
        assert (row["n"], row["before"], row["after"], row["difference"]) == (12, 0.0, 0.5, 0.5)
        assert row["by_seed"] == [0.25, 0.5, 0.75] and 0.2 < row["low"] < 0.5 < row["high"] < 0.8
        # s = 0.25, s / √3 = 0.1443376, t(0.975, 2) = 4.302653
        assert (row["seeds_low"], row["seeds_high"]) == pytest.approx((0.5 - 0.621034, 0.5 + 0.621034), abs=1e-5)


def rows(count):
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello."}]
    return "".join(json.dumps({"id": f"d{i}", "tools": [], "messages": talk}) + "\n" for i in range(count))


def test_real_data_is_cut_into_parts_that_share_no_row(tmp_path, monkeypatch):
    file = tmp_path / "real.jsonl"
    file.write_text(rows(50))
    monkeypatch.setattr("cm2.study.study.curated", lambda stages, data, made: made)
    seen = []
    for seed in (0, 1):
        plan = Plan(heldout=10, sft_dialogues=15, rl_dialogues=100, prompts=4, seed=seed)
        made = real(Stages(tmp_path / f"run{seed}", 0), tmp_path / f"run{seed}", plan, str(file))
        ids = {name: [json.loads(line)["id"] for line in path.open()] for name, path in made.items()}
        assert {name: len(own) for name, own in ids.items()} == {"heldout": 10, "sft": 15, "rl": 25}
        assert len({id for own in ids.values() for id in own}) == 50
        seen.append(ids)
    assert seen[0] != seen[1]


def test_too_little_data_is_refused(tmp_path):
    file = tmp_path / "real.jsonl"
    file.write_text(rows(12))
    plan = Plan(heldout=10, sft_dialogues=15, prompts=4)
    with pytest.raises(DataError, match="too few"):
        real(Stages(tmp_path / "run", 0), tmp_path / "run", plan, str(file))
