"""cm2 evaluate: resumable, three-valued, one load for several files and temperatures."""

import json

import msgspec
import pytest

pytest.importorskip("transformers")
pytestmark = pytest.mark.train

from cm2.cli.main import main  # noqa: E402
from cm2.errors import ConfigError, DataError  # noqa: E402
from cm2.evals import evaluate as module  # noqa: E402
from cm2.evals.evaluate import EvaluateConfig, by_task, evaluate, several  # noqa: E402
from cm2.formats import write_task  # noqa: E402
from cm2.rollout.trace import Failure, encode, read_rollouts  # noqa: E402
from cm2.train.embedded import load_model  # noqa: E402
from rollout.coffee_task import task  # noqa: E402
from rollout.tiny_models import tiny_chat  # noqa: E402

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 16}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    model, tokenizer = tiny_chat(**SHAPE)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def written(path, count):
    rows = []
    for i in range(count):
        one = task()
        one.dialogue.id = f"coffee-{i}"
        rows.append(json.dumps(write_task(one, "openai")) + "\n")
    path.write_text("".join(rows))
    return str(path)


@pytest.fixture
def config(tmp_path, model_folder):
    data = written(tmp_path / "held.tasks.jsonl", 5)
    return EvaluateConfig(
        input=data, output=str(tmp_path / "eval"), model=model_folder, max_step_tokens=5, max_tokens=1500, batch=2
    )


def test_an_evaluation_is_a_store_and_a_summary(config, tmp_path):
    found = evaluate(config)
    assert (found.name, found.split, found.mode) == ("tiny", "held", "greedy")
    assert found.tasks == found.rollouts == found.valid == 5 and found.reward.n == 5
    assert found.outcome is None  # nobody can tell
    assert sum(kind.items for kind in found.kinds.values()) == 5 * 5
    assert json.loads((tmp_path / "eval" / "summary.json").read_text()) == msgspec.to_builtins(found)
    assert all(
        not segment.logprobs
        for one in read_rollouts(str(tmp_path / "eval" / "rollouts.jsonl"))
        for segment in one.segments
    )


def test_a_killed_evaluation_goes_on_and_loads_nothing_when_all_is_there(config, tmp_path):
    whole = evaluate(config)
    store = tmp_path / "eval" / "rollouts.jsonl"
    lines = store.read_bytes().splitlines(keepends=True)
    store.write_bytes(b"".join(lines[:2]) + lines[2][:50])  # torn in the middle of the third
    again = evaluate(config)
    assert msgspec.structs.replace(again, seconds=0) == msgspec.structs.replace(whole, seconds=0)
    assert sorted(store.read_bytes().splitlines()[:2]) == sorted(line.strip() for line in lines[:2])

    def never(name):
        raise AssertionError(f"{name} was loaded for nothing")

    assert evaluate(config, load=never).rollouts == 5


def test_a_failed_rollout_is_in_no_mean_and_is_tried_again(config, tmp_path):
    evaluate(config)
    store = tmp_path / "eval" / "rollouts.jsonl"
    rollouts = list(read_rollouts(str(store)))
    rollouts[0].failure = Failure("simulator", "broken")
    store.write_bytes(b"".join(encode(one) + b"\n" for one in rollouts))
    assert len(by_task(iter(rollouts), "reward")) == 4
    found = evaluate(config)
    assert found.valid == 5 and not found.failures


def test_another_model_or_file_is_refused(config, tmp_path):
    evaluate(config)
    with pytest.raises(ConfigError, match="input changed"):
        evaluate(msgspec.structs.replace(config, input=written(tmp_path / "other.jsonl", 2)))


def test_two_tasks_of_one_id_are_refused(config, tmp_path):
    file = tmp_path / "twice.jsonl"
    file.write_text(json.dumps(write_task(task(), "openai")) + "\n")
    file.write_text(file.read_text() * 2)
    with pytest.raises(DataError, match="same id"):
        evaluate(msgspec.structs.replace(config, input=str(file), output=str(tmp_path / "e2")))


def test_several_files_and_temperatures_load_the_model_once(config, tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(module, "load_model", lambda name: (loaded.append(name), load_model(name))[1])
    other = written(tmp_path / "unseen.tasks.jsonl", 3)
    found = several(config, [config.input, other], [0.0, 1.0], lambda chunks, total: chunks)
    assert len(loaded) == 1
    assert [(one.split, one.mode, one.tasks) for one in found] == [
        ("held", "greedy", 5),
        ("held", "sampled", 5),
        ("unseen", "greedy", 3),
        ("unseen", "sampled", 3),
    ]
    assert sorted(path.name for path in (tmp_path / "eval").iterdir()) == [
        "tiny-held-greedy",
        "tiny-held-sampled",
        "tiny-unseen-greedy",
        "tiny-unseen-sampled",
    ]


def test_the_command_prints_one_json_object(config, capsys):
    flags = ["--model", config.model, "--max-step-tokens", "4", "--max-tokens", "1500", "--json"]
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", config.input, "-o", config.output, *flags])
    assert stop.value.code == 0 and json.loads(capsys.readouterr().out)["tasks"] == 5
