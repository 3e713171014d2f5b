"""The light model: what it sees, how it is split, calibrated and kept, and what its thresholds promise."""

from __future__ import annotations

import itertools
import json
import random
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import typer
from scipy import special, stats
from trust_builders import item, world_tasks, write_rows
from typer.testing import CliRunner

import cm2.judge
from cm2.cli.classifier import register
from cm2.dialogue import Dialogue, Step, ToolCall, ToolResponse, Turn
from cm2.errors import ConfigError, DataError, MissingExtra
from cm2.judge.classifier import SIZE, Classifier, Header, settle
from cm2.judge.examples import Example, read_examples
from cm2.judge.features import WORD_BITS, describe, idf_of, matrix, weighted
from cm2.judge.fitting import TrainConfig, part_of, threshold, train, train_file

CODES = ["alpha", "bravo", "carbon", "delta", "echo", "fox", "golf", "hotel", "igloo", "juliet"]


@pytest.fixture
def sklearn():
    """For tests that train."""
    return pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra 'classifier')")


def code_dialogue(n: int, rng: random.Random) -> tuple[Dialogue, list[str]]:
    """An agent that says some codes in its reply, after one step that says nothing."""
    said = rng.sample(CODES, 4)
    words = rng.sample(["well", "now", "then", "here", "fine"], 3)
    return Dialogue(f"d{n}", [Turn("hi", [Step(thinking="hm"), Step(reply=" ".join(words + said))])]), said


def code_examples(count: int, seed: int = 0, noise: float = 0.0) -> list[Example]:
    """Three duties a dialogue: does the reply tell a code? The judge is wrong with probability `noise`."""
    rng = random.Random(seed)
    found = []
    for n in range(count):
        dialogue, said = code_dialogue(seed * 100_000 + n, rng)
        for code in rng.sample(CODES, 3):
            duty = item("C0", f"Does the reply tell {code}?", pass_condition=f"It says {code}.", kind="reply")
            met = (code in said) != (rng.random() < noise)
            described = [describe(duty, dialogue, 0, step) for step in (0, 1)]
            found.append(Example(dialogue.id, duty, described, [False, met]))
    return found


# what it sees


def test_private_thinking_is_seen_only_by_items_about_thinking():
    duty = item("C0", "Does the reply tell alpha?")
    thought = item("C0", "Does the thinking tell alpha?", focus_on="assistant.content.thinking")
    one, two = (Dialogue("d", [Turn("hi", [Step(thinking=t, reply="alpha")])]) for t in ("alpha it is", "say bravo"))
    assert describe(duty, one, 0, 0) == describe(duty, two, 0, 0)
    assert describe(thought, one, 0, 0) != describe(thought, two, 0, 0)


def test_later_steps_are_not_seen():
    duty = item("C0", "Does the reply tell alpha?")
    steps = [Step(calls=[ToolCall("look", {}, id="1")], responses=[ToolResponse("{}", "1")])]
    one, two = (Dialogue("d", [Turn("hi", [*steps, Step(reply=reply)])]) for reply in ("alpha", "bravo"))
    assert describe(duty, one, 0, 0) == describe(duty, two, 0, 0)
    assert describe(duty, one, 0, 1) != describe(duty, two, 0, 1)


def test_a_check_is_no_feature():
    task = world_tasks()[0]
    for checklist in task.checklists:
        for one in checklist.items:
            bare = msgspec.structs.replace(one, check=None)
            assert describe(one, task.dialogue, checklist.turn, 0) == describe(bare, task.dialogue, checklist.turn, 0)


def test_hostile_text_is_described_without_failing():
    nasty = Dialogue("d\ud800", [Turn("hi", [Step(reply="\ud800\u200b" * 9 + "x" * 50_000), Step()])])
    words, signs = describe(item("C0", "?\udfff", pass_condition=""), nasty, 0, 1)
    assert matrix([words, signs, {}], 8).shape == (3, 256)


def test_tf_idf_is_scikit_learns(sklearn):
    from sklearn.feature_extraction.text import TfidfTransformer

    examples = code_examples(30)
    words = matrix([bag for one in examples for bag, _ in one.described], WORD_BITS)
    ours = weighted(words, idf_of(words))
    theirs = TfidfTransformer().fit_transform(words)
    assert abs(ours - theirs).max() < 1e-12


# what follows from probabilities


def test_a_yes_latches_and_the_least_sure_step_counts():
    met, confidence = settle(np.array([[0.1, 0.8, 0.3], [0.2, 0.4, 0.05], [0.9, 0.5, 0.5]]))
    assert met.tolist() == [[False, True, True], [False, False, False], [True, True, True]]
    assert confidence == pytest.approx([0.8, 0.6, 0.9])


# thresholds


def test_thresholds_keep_their_promise_on_models_that_are_wrong_as_often_as_they_say():
    """Of 200 samples of 1,500 items, the true error above the chosen threshold exceeds the target in at most 5 %."""
    rng = np.random.default_rng(0)
    broken = chosen = 0
    for _ in range(200):
        confidence = rng.uniform(0.5, 1, 1500)
        wrong = rng.random(1500) < (1 - confidence) / 2
        limit = threshold(confidence, wrong, np.arange(1500), 0.05, 0.95)
        if limit is not None:
            chosen += 1
            broken += (1 - limit) / 4 > 0.05  # the mean of (1 − c)/2 over c in [limit, 1]
    assert chosen > 100
    assert broken <= stats.binom.ppf(0.999, 200, 0.05)


def test_thresholds_know_that_the_items_of_a_dialogue_are_alike():
    """Whole dialogues of ten items are wrong or right together: counted as independent they break the promise."""
    rng = np.random.default_rng(1)
    broken = {True: 0, False: 0}
    for _ in range(150):
        confidence = np.repeat(rng.uniform(0.5, 1, 150), 10)
        wrong = np.repeat(rng.random(150) < (1 - confidence[::10]) / 2, 10)
        for known in (True, False):
            dialogues = np.repeat(np.arange(150), 10) if known else np.arange(1500)
            limit = threshold(confidence, wrong, dialogues, 0.05, 0.95)
            broken[known] += limit is not None and (1 - limit) / 4 > 0.05
    assert broken[True] <= stats.binom.ppf(0.999, 150, 0.05)
    assert broken[False] > broken[True]


def test_no_threshold_where_too_little_is_known_or_too_much_is_wrong():
    sure = np.full(100, 0.99)
    assert threshold(sure, np.zeros(100, dtype=bool), np.arange(100), 0.02, 0.95) is None, "100 items cannot prove 2 %"
    many = np.linspace(0.9, 1, 2000)
    assert threshold(many, np.zeros(2000, dtype=bool), np.arange(2000), 0.02, 0.95) == pytest.approx(0.9)
    assert threshold(many, np.arange(2000) % 5 == 0, np.arange(2000), 0.02, 0.95) is None
    assert threshold(np.array([]), np.array([], dtype=bool), np.array([]), 0.02, 0.95) is None


def test_the_bound_behind_a_threshold_is_scipys():
    for wrong, n in itertools.product((0, 1, 7), (50, 400)):
        expected = stats.binomtest(wrong, n).proportion_ci(0.9, method="exact").high
        assert special.betaincinv(wrong + 1, n - wrong, 0.95) == pytest.approx(expected)


# training


def test_dialogues_never_straddle_the_parts():
    parts = {name: part_of(name) for name in (f"d{n}" for n in range(3000))}
    share = {part: sum(one == part for one in parts.values()) / 3000 for part in ("fit", "tune", "check")}
    assert share == pytest.approx({"fit": 0.6, "tune": 0.2, "check": 0.2}, abs=0.03)
    assert all(part_of(name) == part for name, part in parts.items())
    assert any(part_of(name, seed=1) != part for name, part in parts.items())


def test_what_only_the_dialogue_tells_cannot_be_learnt(sklearn):
    """Every dialogue has a word of its own and verdicts that are all alike and random: a split that let siblings into
    two parts would learn them by heart, and say that it agrees."""
    rng = random.Random(3)
    examples = []
    for n in range(250):
        dialogue = Dialogue(f"d{n}", [Turn("hi", [Step(reply=f"word{n} said")])])
        met = rng.random() < 0.5
        for k in range(6):
            duty = item(f"C{k}", f"Is it said {CODES[k]}?")
            examples.append(Example(dialogue.id, duty, [describe(duty, dialogue, 0, 0)], [met]))
    found = train(examples)
    assert found.header.report["check"]["agreement"] == pytest.approx(0.5, abs=0.2)
    assert found.header.report["check"]["decided"] == 0


def test_an_easy_judge_is_learnt_and_the_promise_holds_on_fresh_dialogues(sklearn):
    found = train(code_examples(700), target=0.05)
    check = found.header.report["check"]
    assert check["agreement"] > 0.97
    assert check["decided"] > 0.5 * check["items"]
    fresh = code_examples(400, seed=9)
    chances = found.probabilities([one for example in fresh for one in example.described]).reshape(-1, 2)
    met, confidence = settle(chances)
    limits = np.where(met.any(axis=1), found.header.yes_from, found.header.no_from)
    decided = confidence >= limits
    wrong = np.array([says.tolist() != example.met for says, example in zip(met, fresh, strict=True)])
    assert decided.mean() > 0.5
    assert wrong[decided].mean() <= 0.05


def test_probabilities_are_calibrated(sklearn):
    """Of a judge that is wrong in a tenth of its verdicts, no verdict is nine parts sure in one and ten in the next."""
    found = train(code_examples(500, noise=0.1), target=0.2)
    fresh = code_examples(300, seed=5, noise=0.1)
    chance = found.probabilities([example.described[1] for example in fresh])
    met = np.array([example.met[1] for example in fresh])
    for low, high in ((0.0, 0.5), (0.5, 1.0)):
        mine = (chance >= low) & (chance < high)
        assert chance[mine].mean() == pytest.approx(met[mine].mean(), abs=0.08)


def test_a_noisy_judge_leaves_nothing_to_be_sure_of(sklearn):
    found = train(code_examples(400, noise=0.25), target=0.02)
    assert found.header.yes_from is None
    assert found.header.no_from is None
    assert found.header.report["check"]["decided"] == 0
    duty = item("C0", "Does the reply tell alpha?")
    dialogue = Dialogue("d", [Turn("hi", [Step(reply="alpha")])])
    assert not found.guess([duty], dialogue, 0)[0].decided


def test_too_few_verdicts_are_told(sklearn):
    with pytest.raises(DataError, match="too few verdicts"):
        train(code_examples(5))
    always = [msgspec.structs.replace(example, met=[False, False]) for example in code_examples(60)]
    with pytest.raises(DataError, match="0 yes"):
        train(always)


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(MissingExtra, match=r"cm2\[classifier\]"):
        train(code_examples(3))


# the file


def small_model(**header) -> Classifier:
    rng = np.random.default_rng(0)
    return Classifier(
        rng.normal(size=SIZE).astype(np.float32).astype(float), 0.25, np.ones(1 << WORD_BITS), Header(**header)
    )


def test_a_saved_model_says_the_same(tmp_path):
    model = small_model(slope=2.0, yes_from=0.9, judges=["m"], report={"check": {"items": 3}})
    model.save(tmp_path / "sub" / "model")
    loaded = Classifier.load(tmp_path / "sub" / "model")
    described = [one for example in code_examples(3) for one in example.described]
    assert np.array_equal(model.probabilities(described), loaded.probabilities(described))
    assert loaded.header == model.header
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["model"]


def test_nothing_in_a_model_file_can_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path(tmp_path / "ran").touch, ())

    path = tmp_path / "model"
    with path.open("wb") as file:
        np.savez(file, header=np.array([Trap()], dtype=object), weights=np.ones(3), idf=np.ones(3), intercept=0.0)
    with pytest.raises(DataError, match="no classifier"):
        Classifier.load(path)
    assert not (tmp_path / "ran").exists()
    for room in Path(cm2.judge.__file__).parent.glob("*.py"):
        text = room.read_text()
        assert "import pickle" not in text and "joblib" not in text and "allow_pickle=True" not in text, room.name


@pytest.mark.parametrize("content", [b"", b"{}", b"PK\x03\x04broken"])
def test_another_file_is_no_model(tmp_path, content):
    path = tmp_path / "model"
    path.write_bytes(content)
    with pytest.raises(DataError, match="no classifier"):
        Classifier.load(path)
    with pytest.raises(DataError, match="no such model"):
        Classifier.load(tmp_path / "absent")


def test_a_model_of_another_version_is_refused(tmp_path):
    small_model(version=7).save(tmp_path / "model")
    with pytest.raises(DataError, match="another version"):
        Classifier.load(tmp_path / "model")


# from stores


def written(tmp_path, count: int, **changes):
    """A file of dialogues with checklists, and the store of a judge that reads codes."""
    rng = random.Random(1)
    rows, store = [], []
    for n in range(count):
        dialogue, said = code_dialogue(n, rng)
        codes = rng.sample(CODES, 3)
        items = [
            {
                "id": f"C{i}",
                "focus_on": "assistant.content.user_visible_reply",
                "question": f"Does the reply tell {code}?",
                "pass_condition": f"It says {code}.",
                "weight": 1 / 3,
                "kind": "reply",
            }
            for i, code in enumerate(codes)
        ]
        messages = [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": dialogue.turns[0].steps[1].reply},
        ]
        rows.append({"id": dialogue.id, "tools": [], "messages": messages, "checklists": [{"turn": 0, "items": items}]})
        for i, code in enumerate(codes):
            place = {"dialogue": dialogue.id, "turn": 0, "step": 0, "item": f"C{i}"}
            store.append(place | {"met": code in said, "judge": "m"} | changes)
    return write_rows(tmp_path / "store.jsonl", store), write_rows(tmp_path / "in.jsonl", rows)


@pytest.mark.parametrize(
    ("change", "name"),
    [({"met": None}, "unscored"), ({"judge": "skip"}, "needed_no_model"), ({"step": 3}, "other_steps")],
)
def test_unscored_and_unasked_verdicts_are_no_training_data(tmp_path, change, name):
    store, source = written(tmp_path, 4)
    lines = [json.loads(line) for line in Path(store).read_text().splitlines()]
    lines[0] |= change
    lines[1] |= {"judge": "checks"}
    write_rows(Path(store), lines)
    examples, counts, judges = read_examples(TrainConfig(store, source, "out"))
    assert len(examples) == 10
    assert counts == ({name: 1, "needed_no_model": 1} if name != "needed_no_model" else {name: 2})
    assert judges == ["m"]


def test_a_store_of_checks_alone_is_learnt_from(tmp_path):
    store, source = written(tmp_path, 4, judge="checks")
    examples, counts, judges = read_examples(TrainConfig(store, source, "out"))
    assert (len(examples), judges, counts["needed_no_model"]) == (12, ["checks"], 0)


def test_a_store_about_other_dialogues_is_told(tmp_path):
    store, source = written(tmp_path, 3, dialogue="elsewhere")
    with pytest.raises(DataError, match="no scored verdict"):
        read_examples(TrainConfig(store, source, "out"))
    with pytest.raises(ConfigError):
        TrainConfig(store, source, "out", target=0.7)


def test_command_trains_and_tells(tmp_path, sklearn):
    app = typer.Typer()
    register(app)
    app.callback()(lambda: None)
    store, source = written(tmp_path, 500)
    out = str(tmp_path / "judge.model")
    told = CliRunner().invoke(app, ["train", store, source, "-o", out, "--target", "0.1", "--json"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert found["judges"] == ["m"]
    assert found["report"]["check"]["agreement"] > 0.9
    assert Classifier.load(out).header.target == 0.1
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["train", store, source, "-o", out, "--target", "0.1"])
    assert "wrong of decided" in shown.stdout
    assert "imitates m" in shown.stdout


def test_training_is_the_same_every_time(tmp_path, sklearn):
    store, source = written(tmp_path, 200)
    one, two = (train_file(TrainConfig(store, source, str(tmp_path / name), target=0.2)) for name in "ab")
    assert np.array_equal(one.weights, two.weights)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
