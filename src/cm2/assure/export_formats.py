"""Formats: a row of training data as each trainer reads it.

    trl             JSONL: messages (prompt, chosen, rejected) with `tools` as JSON text, which its trainers decode
    llama-factory   JSONL in the sharegpt form: alternating values; calls are JSON text; beside it dataset_info.json
    verl            Parquet: messages and tools (SFT), prompt, reward_model and extra_info (RL)
    openai          JSONL of the fine-tuning API: weights on assistant messages, preference input and outputs; the only
                    one that can be told to skip a turn
    cm2             JSONL of this library: tasks, for `cm2 rl`

What a format cannot say makes the row `Unsayable`, which is counted; nothing is bent to fit.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from cm2.assure.export_talk import Message, Talk, Unsayable
from cm2.checklist import Task
from cm2.errors import ConfigError, DataError, Where
from cm2.formats import write_task
from cm2.formats.target import replacing

Kind = Literal["sft", "preferences", "rl"]
Format = Literal["trl", "llama-factory", "verl", "openai", "cm2"]
KINDS: tuple[Kind, ...] = ("sft", "preferences", "rl")
FORMATS: tuple[Format, ...] = ("trl", "llama-factory", "verl", "openai", "cm2")
SUFFIX: dict[Format, str] = {"verl": ".parquet"}
"""What the name of an output ends in; .jsonl where nothing is said."""
PARALLEL = "\n</tool_response>\n<tool_response>\n"
"""What LLaMA-Factory itself puts between several responses to one message."""
Row = dict[str, Any]


class Sft(msgspec.Struct):
    """A dialogue to imitate."""

    id: str
    talk: Talk


class Pair(msgspec.Struct):
    """Two answers to the same prefix."""

    id: str
    prompt: Talk
    chosen: Message
    rejected: Message


class Rl(msgspec.Struct):
    """A task, and the messages with which it begins."""

    id: str
    task: Task
    prompt: Talk


Sample = Sft | Pair | Rl


def writer_of(kind: Kind, format: Format) -> Callable[[Any], Row]:
    """What makes a row of a sample.

    Raises:
        ConfigError: the trainer has no such training.
    """
    made = _WRITERS.get((format, kind))
    if made is None:
        have = ", ".join(name for name in FORMATS if (name, kind) in _WRITERS)
        raise ConfigError(f"{format} has no form for {kind}", fix=f"use {have}")
    return made


def _trl_sft(sample: Sft) -> Row:
    _all_of_it(sample.talk, "TRL")
    row = {"id": sample.id, "messages": sample.talk.messages, "tools": _text(sample.talk.tools)}
    return row | {"learn": [int(one) for one in sample.talk.learn]}


def _trl_pair(sample: Pair) -> Row:
    row = {"id": sample.id, "prompt": sample.prompt.messages, "chosen": [sample.chosen], "rejected": [sample.rejected]}
    return row | {"tools": _text(sample.prompt.tools)}


def _trl_rl(sample: Rl) -> Row:
    row = {"id": sample.id, "prompt": sample.prompt.messages, "tools": _text(sample.prompt.tools)}
    return row | {"task": _text(write_task(sample.task, "openai"))}


def _openai_sft(sample: Sft) -> Row:
    messages = []
    for message, learn in zip(sample.talk.messages, sample.talk.learn, strict=True):
        message = _openai(message)
        if message["role"] == "assistant" and not learn:
            message["weight"] = 0
        messages.append(message)
    return {"messages": messages} | _openai_tools(sample.talk)


def _openai_pair(sample: Pair) -> Row:
    messages = [_openai(message) for message in sample.prompt.messages]
    input = {"messages": messages} | _openai_tools(sample.prompt)
    row: Row = {"input": input, "preferred_output": [_openai(sample.chosen)]}
    return row | {"non_preferred_output": [_openai(sample.rejected)]}


def _openai_rl(sample: Rl) -> Row:
    messages = [_openai(message) for message in sample.prompt.messages]
    items = [{"turn": one.turn, "items": msgspec.to_builtins(one.items)} for one in sample.task.checklists]
    return {"messages": messages} | _openai_tools(sample.prompt) | {"id": sample.id, "checklists": items}


def _openai(message: Message) -> Message:
    """A message of the API: arguments are text, thinking has no place."""
    made = {name: value for name, value in message.items() if name != "reasoning_content"}
    if "tool_calls" in made:
        made["tool_calls"] = [
            call | {"function": call["function"] | {"arguments": _text(call["function"]["arguments"])}}
            for call in made["tool_calls"]
        ]
        if made["content"] is None:
            del made["content"]
    return made


def _openai_tools(talk: Talk) -> Row:
    if not talk.tools:
        return {}
    parallel = any(len(message.get("tool_calls", ())) > 1 for message in talk.messages)
    return {"tools": talk.tools, "parallel_tool_calls": parallel}


def _all_of_it(talk: Talk, trainer: str) -> None:
    """Make sure that all of the agent's messages are to be learnt, but a greeting.

    Raises:
        Unsayable: some are not, and the trainer learns all of them.
    """
    begun = False
    for message, learn in zip(talk.messages, talk.learn, strict=True):
        begun = begun or message["role"] == "user"
        if begun and message["role"] == "assistant" and not learn:
            raise Unsayable(f"a lesser duty fails in a turn, which {trainer} cannot be told to skip")


def _factory_sft(sample: Sft) -> Row:
    _all_of_it(sample.talk, "LLaMA-Factory")
    values = _factory(sample.talk)
    if len(values) % 2:
        raise Unsayable("it does not end with the agent")
    return {"conversations": values} | _factory_head(sample.talk)


def _factory_pair(sample: Pair) -> Row:
    row: Row = {"conversations": _factory(sample.prompt), "chosen": _factory_value(sample.chosen)}
    return row | {"rejected": _factory_value(sample.rejected)} | _factory_head(sample.prompt)


def _factory(talk: Talk) -> list[Message]:
    """Values in turn: what comes to the agent, what it does."""
    values: list[Message] = []
    messages = [message for message in talk.messages if message["role"] != "system"]
    for message in messages:
        if message["role"] == "tool":
            if values and values[-1]["from"] == "observation":
                values[-1]["value"] += PARALLEL + message["content"]
            else:
                values.append({"from": "observation", "value": message["content"]})
        elif message["role"] == "user":
            values.append({"from": "human", "value": message["content"]})
        else:
            values.append(_factory_value(message))
    for number, value in enumerate(values):
        if (value["from"] in ("gpt", "function_call")) != bool(number % 2):
            raise Unsayable("it begins with a greeting, or two of the agent's messages follow each other")
    return values


def _factory_value(message: Message) -> Message:
    thinking = message.get("reasoning_content")
    head = f"<think>\n{thinking}\n</think>\n\n" if thinking else ""
    if "tool_calls" not in message:
        return {"from": "gpt", "value": head + message["content"]}
    if (message["content"] or "").strip():
        raise Unsayable("a step speaks and calls at once, which LLaMA-Factory cannot be told")
    calls = [call["function"] for call in message["tool_calls"]]
    return {"from": "function_call", "value": head + _text(calls if len(calls) > 1 else calls[0])}


def _factory_head(talk: Talk) -> Row:
    system = next((message["content"] for message in talk.messages if message["role"] == "system"), "")
    return {"system": system, "tools": _text([tool["function"] for tool in talk.tools]) if talk.tools else ""}


def write_factory_info(output: str, kind: Kind) -> str:
    """Write LLaMA-Factory's entry for a file into the dataset_info.json beside it, with those that stand there already.

    Raises:
        DataError: there is such a file, and it is no JSON.
    """
    folder, file = os.path.split(output)
    path = os.path.join(folder, "dataset_info.json")
    known: dict[str, Any] = {}
    if os.path.exists(path):
        try:
            with open(path, "rb") as handle:
                found = msgspec.json.decode(handle.read())
        except msgspec.DecodeError as error:
            raise DataError("is no JSON", where=Where(file=path), fix="mend it, or export elsewhere") from error
        known = found if isinstance(found, dict) else {}
    known |= _factory_info(file.split(".")[0], file, kind)
    with replacing(path) as draft:
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(known), indent=2) + b"\n")
    return path


def _factory_info(name: str, file: str, kind: Kind) -> dict[str, Any]:
    """The entry of LLaMA-Factory's dataset_info.json."""
    columns = {"messages": "conversations", "system": "system", "tools": "tools"}
    entry: dict[str, Any] = {"file_name": file, "formatting": "sharegpt", "columns": columns}
    if kind == "preferences":
        entry |= {"ranking": True, "columns": columns | {"chosen": "chosen", "rejected": "rejected"}}
    return {name: entry}


def _verl_sft(sample: Sft) -> Row:
    _all_of_it(sample.talk, "verl")
    row = {"messages": _verl(sample.talk.messages), "tools": _text(sample.talk.tools)}
    return row | {"learn": [int(one) for one in sample.talk.learn], "id": sample.id}


def _verl_rl(sample: Rl) -> Row:
    if any(message["role"] not in ("system", "user") for message in sample.prompt.messages):
        raise Unsayable("it begins with the agent's own messages")
    checklists = _text(msgspec.to_builtins(sample.task.checklists))
    task = _text(write_task(sample.task, "openai"))
    return {
        "data_source": "cm2",
        "prompt": sample.prompt.messages,
        "ability": "tool_use",
        "reward_model": {"style": "rule", "ground_truth": checklists},
        "extra_info": {"split": "train", "id": sample.id, "task": task, "need_tools_kwargs": False},
    }


def _verl(messages: list[Message]) -> list[Message]:
    """Messages of one shape, since the columns of Parquet have one: what a message has not is null or empty."""
    made = []
    for message in messages:
        calls = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["function"]["name"], "arguments": _text(call["function"]["arguments"])},
            }
            for call in message.get("tool_calls", ())
        ]
        made.append(
            {
                "role": message["role"],
                "content": message["content"] or "",
                "reasoning_content": message.get("reasoning_content"),
                "tool_calls": calls or None,
                "tool_call_id": message.get("tool_call_id"),
            }
        )
    return made


def _cm2_rl(sample: Rl) -> Row:
    return write_task(sample.task, "openai")


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


_WRITERS: dict[tuple[Format, Kind], Callable[[Any], Row]] = {
    ("trl", "sft"): _trl_sft,
    ("trl", "preferences"): _trl_pair,
    ("trl", "rl"): _trl_rl,
    ("openai", "sft"): _openai_sft,
    ("openai", "preferences"): _openai_pair,
    ("openai", "rl"): _openai_rl,
    ("llama-factory", "sft"): _factory_sft,
    ("llama-factory", "preferences"): _factory_pair,
    ("verl", "sft"): _verl_sft,
    ("verl", "rl"): _verl_rl,
    ("cm2", "rl"): _cm2_rl,
}
