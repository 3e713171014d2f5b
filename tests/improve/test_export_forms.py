"""The forms of trainers: what their own libraries read of them, and the rules of the others."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from cm2.dialogue import Dialogue, Step, ToolCall, ToolResponse
from cm2.formats import read_task
from cm2.policy import Policy
from improve.judged_logs import FOUND, call, dialogue, export, good, says, turn, write

PARALLEL = Step(
    calls=[ToolCall("find", {"order": 7}), ToolCall("find", {"order": 8, "note": {"deep": [1, None]}})],
    responses=[ToolResponse('{"a": 1}'), ToolResponse("plain text")],
)
LOGS = [
    dialogue("one", good(), turn(PARALLEL, says("Both. Thank you.", thinking="Two of them."), user="And 8?")),
    dialogue("greeted", turn(call("find"), says("Thank you."), user="Hi 7?"), opening=[Step(reply="Welcome!")]),
    dialogue("no system", good("Order 7, please?"), system=None),
]
FAILS = [dialogue("bad", good(), turn(says("No idea."), user="And 8?"))]


def sent(message: dict[str, Any]) -> dict[str, Any]:
    """A message with parsed arguments."""
    made = json.loads(json.dumps(message))
    for one in made.get("tool_calls") or ():
        if isinstance(one["function"]["arguments"], str):
            one["function"]["arguments"] = json.loads(one["function"]["arguments"])
    return made


@pytest.mark.train
def test_datasets_gives_back_what_was_written_for_trl(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    data_utils = pytest.importorskip("trl.data_utils")
    write(tmp_path, LOGS)
    _, rows = export(tmp_path)
    file = str(tmp_path / "rows.jsonl")
    loaded = datasets.load_dataset("json", data_files=file, split="train", cache_dir=str(tmp_path / "cache"))
    assert [row["messages"] for row in loaded] == [row["messages"] for row in rows]
    assert all(data_utils.is_conversational(row) for row in loaded)
    assert json.loads(loaded[0]["tools"])[0]["function"]["name"] == "find"


@pytest.mark.train
def test_trl_trains_on_what_the_agent_did_and_on_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    from datasets import load_dataset
    from trl import SFTConfig, SFTTrainer

    from rollout.tiny_models import tiny_chat

    write(tmp_path, LOGS[:1])
    export(tmp_path, thinking=False)
    model, tokenizer = tiny_chat(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    tokenizer.chat_template = TEMPLATE
    loaded = load_dataset(
        "json", data_files=str(tmp_path / "rows.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
    )
    config = SFTConfig(
        str(tmp_path / "run"), assistant_only_loss=True, max_length=None, report_to="none", use_cpu=True, bf16=False
    )
    trainer = SFTTrainer(model, config, train_dataset=loaded, processing_class=tokenizer)
    [row] = list(trainer.train_dataset)
    kept = [id for id, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]
    text = tokenizer.decode(kept)
    assert "Both. Thank you." in text and '"order": 7' in text
    assert "Where is order" not in text and '"state"' not in text and "Be kind" not in text


@pytest.mark.train
def test_trl_reads_preference_pairs(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    from datasets import load_dataset
    from trl import DPOConfig, DPOTrainer

    from rollout.tiny_models import tiny_chat

    write(tmp_path, [dialogue("a", good()), dialogue("b", turn(says("No idea. Thank you.")))])
    export(tmp_path, kind="preferences")
    model, tokenizer = tiny_chat(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    tokenizer.chat_template = TEMPLATE
    file, cache = str(tmp_path / "rows.jsonl"), str(tmp_path / "cache")
    loaded = load_dataset("json", data_files=file, split="train", cache_dir=cache)
    config = DPOConfig(str(tmp_path / "run"), max_length=None, report_to="none", use_cpu=True, bf16=False)
    trainer = DPOTrainer(model, deepcopy(model), config, train_dataset=loaded, processing_class=tokenizer)
    [row] = list(trainer.train_dataset)
    assert '"order": 7' in tokenizer.decode(row["chosen_ids"])
    assert "No idea" in tokenizer.decode(row["rejected_ids"])
    assert "Where is order 7?" in tokenizer.decode(row["prompt_ids"])


TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}{% generation %}{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.arguments | tojson }}{% endfor %}\n{% endgeneration %}"
    "{% else %}{{ m.content }}\n{% endif %}{% endfor %}"
)


def test_openai_rows_keep_the_rules_of_the_api(tmp_path: Path) -> None:
    write(tmp_path, LOGS)
    _, rows = export(tmp_path, form="openai")
    assert len(rows) == 3
    for row in rows:
        assert set(row) == {"messages", "tools", "parallel_tool_calls"}
        assert row["messages"][-1]["role"] == "assistant"
        open_calls: set[str] = set()
        for message in row["messages"]:
            assert set(message) <= {"role", "content", "tool_calls", "tool_call_id", "weight"}
            if message["role"] == "tool":
                open_calls.remove(message["tool_call_id"])
                continue
            assert not open_calls, "a call without its answer"
            assert message.get("content") or message.get("tool_calls")
            assert "weight" not in message or (message["role"] == "assistant" and message["weight"] in (0, 1))
            for one in message.get("tool_calls", ()):
                assert isinstance(json.loads(one["function"]["arguments"]), dict)
                open_calls.add(one["id"])
    assert [row["parallel_tool_calls"] for row in rows] == [True, False, False]
    greeting = rows[1]["messages"][1]
    assert greeting == {"role": "assistant", "content": "Welcome!", "weight": 0}


def test_llama_factory_rows_alternate_and_its_parsers_read_them(tmp_path: Path) -> None:
    write(tmp_path, LOGS)
    summary, rows = export(tmp_path, form="llama-factory")
    told = "it begins with a greeting, or two of the agent's messages follow each other"
    assert summary.left_out == {told: 1}
    assert len(rows) == 2
    for row in rows:
        values = row["conversations"]
        assert len(values) % 2 == 0
        for number, value in enumerate(values):
            assert value["from"] in (("human", "observation") if number % 2 == 0 else ("gpt", "function_call"))
        assert {tool["name"] for tool in json.loads(row["tools"])} == {"find", "refund"}
    calls = [json.loads(value["value"]) for value in rows[0]["conversations"] if value["from"] == "function_call"]
    assert calls[0] == {"name": "find", "arguments": {"order": 7}}
    assert [one["arguments"]["order"] for one in calls[1]] == [7, 8]
    assert rows[0]["conversations"][6]["value"] == '{"a": 1}\n</tool_response>\n<tool_response>\nplain text'
    assert rows[0]["conversations"][7]["value"] == "<think>\nTwo of them.\n</think>\n\nBoth. Thank you."
    assert (rows[0]["system"], rows[1]["system"]) == ("Be kind.", "")
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert info["rows"]["file_name"] == "rows.jsonl" and info["rows"]["formatting"] == "sharegpt"


def test_llama_factory_is_not_told_half_of_what_happened(tmp_path: Path) -> None:
    both = dialogue("both", turn(call("find", reply="One moment."), says()))
    write(tmp_path, [both, dialogue("a", good())])
    summary, _ = export(tmp_path, form="llama-factory")
    assert summary.left_out == {"a step speaks and calls at once, which LLaMA-Factory cannot be told": 1}


def test_another_entry_of_dataset_info_stays(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text('{"mine": {"file_name": "x.json"}}')
    write(tmp_path, LOGS)
    export(tmp_path, form="llama-factory")
    assert set(json.loads((tmp_path / "dataset_info.json").read_text())) == {"mine", "rows"}


def test_verl_parquet_has_one_shape_and_loses_nothing(tmp_path: Path) -> None:
    write(tmp_path, LOGS)
    _, plain = export(tmp_path)
    _, rows = export(tmp_path, form="verl")
    assert len(rows) == 3
    for row, expected in zip(rows, plain, strict=True):
        back = []
        for message in row["messages"]:
            made = {name: value for name, value in message.items() if value is not None}
            if made["content"] == "":
                made["content"] = None
            back.append(sent(made))
        assert back == expected["messages"]
        assert json.loads(row["tools"]) == json.loads(expected["tools"])
        assert row["learn"] == expected["learn"]


def test_verl_tasks_have_the_columns_that_it_reads(tmp_path: Path) -> None:
    write(tmp_path, FAILS)
    _, [row] = export(tmp_path, kind="rl", form="verl")
    assert set(row) == {"data_source", "prompt", "ability", "reward_model", "extra_info"}
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    assert row["reward_model"]["style"] == "rule"
    [first, second] = json.loads(row["reward_model"]["ground_truth"])
    assert (first["turn"], second["turn"]) == (0, 1)
    assert read_task(json.loads(row["extra_info"]["task"])).dialogue.id == "bad"


@pytest.mark.parametrize("form", ["trl", "openai", "verl", "llama-factory"])
def test_calls_have_ids_of_their_own_and_responses_name_them(tmp_path: Path, form: str) -> None:
    same = Step(
        calls=[ToolCall("find", {"order": 7}, "c"), ToolCall("find", {"order": 8}, "c")],
        responses=[ToolResponse("7", "c"), ToolResponse("8", "c")],
    )
    write(tmp_path, [dialogue("a", turn(same, says()))], Policy("p", [FOUND]))
    _, [row] = export(tmp_path, form=form, policy=Policy("p", [FOUND]))
    if form == "llama-factory":
        return
    made = [one["id"] for message in row["messages"] for one in message.get("tool_calls") or ()]
    answered = [message["tool_call_id"] for message in row["messages"] if message["role"] == "tool"]
    assert made == answered and len(set(made)) == 2


def test_a_dialogue_without_tools_has_none(tmp_path: Path) -> None:
    policy = Policy("p", [FOUND])
    bare = Dialogue("a", [turn(call("find"), says())])
    write(tmp_path, [bare], policy)
    assert "tools" not in export(tmp_path, form="openai", policy=policy)[1][0]
    assert export(tmp_path, form="llama-factory", policy=policy)[1][0]["tools"] == ""
