"""tau-bench and tau2-bench: runs of an agent against a simulated user, with the reward that each earned.

tau-bench writes a list of `{"task_id", "trial", "reward", "info", "traj"}`; tau2 a document whose `simulations` share
its `info` (the policy, the tools) and its `tasks`. The ids are made of domain, task and trial, so that two agents'
runs of one task have the same id and can be compared.

The simulated user ends a run with a mark in its last message (`###STOP###`). Nothing answers that message; it is left
out of the dialogue and said in the notes. tau2's user has tools of its own; what it did with them is no part of what
the agent saw, and is said in the notes too.
"""

from __future__ import annotations

from typing import Any

from cm2.errors import DataError
from cm2.imports.dialects import read_messages
from cm2.imports.draft import Draft
from cm2.imports.fields import names
from cm2.imports.notes import Notes, Place
from cm2.imports.outcomes import take_scores
from cm2.imports.schemas import read_tools
from cm2.imports.talk import Talk
from cm2.imports.text import as_dict, as_id, as_list, as_text

FORMAT = "tau"
_ENDS = ("###STOP###", "###TRANSFER###", "###OUT-OF-SCOPE###")
_TAKEN = names("tau", "taken")


def is_run(value: dict[str, Any]) -> bool:
    """Whether an object is a run of tau-bench or of tau2."""
    if isinstance(value.get("traj"), list):
        return "reward" in value or "task_id" in value
    told = "termination_reason" in value or "reward_info" in value
    return "task_id" in value and told and ("messages" in value or "ticks" in value)


def read_run(value: dict[str, Any], header: dict[str, Any]) -> list[Draft]:
    """A run to its dialogue. `header` is what the document said about all its runs.

    Raises:
        DataError: it cannot be read.
    """
    talk, notes = Talk(), Notes()
    place = Place(notes)
    about = as_dict(as_dict(header.get("info")).get("environment_info"))
    key = "traj" if "traj" in value else "messages"
    messages = value.get(key)
    if not isinstance(messages, list) or not messages:
        spoken = " (a full-duplex run keeps ticks, which are not read)" if value.get("ticks") else ""
        raise DataError(f"the run has no messages{spoken}")
    policy = value.get("policy") or about.get("policy")
    if isinstance(policy, str) and as_dict(messages[0]).get("role") != "system":
        talk.say("system", policy)
        place.made("the system message is the policy of the environment", "info.environment_info.policy")
    if about.get("tool_defs"):
        talk.offer(read_tools(_signatures(about["tool_defs"]), place.at("info.environment_info.tool_defs")))
    read_messages(messages, talk, place.at(key))
    _without_end(talk, place.at(key))
    draft = Draft.of(FORMAT, talk, notes)
    _describe(value, header, about, draft, place)
    return [draft]


def _signatures(value: Any) -> Any:
    """tau2's signatures (`name`, `doc`, `params`) as tools."""
    if not isinstance(value, dict):
        return value
    return [
        {"name": name, "description": one.get("doc"), "parameters": one.get("params")} if "params" in one else one
        for name, one in value.items()
        if isinstance(one, dict)
    ]


def _without_end(talk: Talk, place: Place) -> None:
    last = talk.messages[-1] if talk.messages else {}
    text = as_text(last.get("content"))
    if last.get("role") == "user" and any(end in text for end in _ENDS):
        talk.messages.pop()
        place.made(f"the user's last message ends the simulation and is left out: {text[:300]}")


def _describe(value: dict[str, Any], header: dict[str, Any], about: dict[str, Any], draft: Draft, place: Place) -> None:
    meta = draft.meta
    info, judged = as_dict(value.get("info")), as_dict(value.get("reward_info"))
    reward = value.get("reward", judged.get("reward"))
    if isinstance(reward, (int, float)):
        meta["reward"] = float(reward)
    for name in ("task_id", "trial"):
        if value.get(name) is not None:
            meta[name] = value[name]
    task = as_dict(info.get("task"))
    wanted = as_id(value.get("task_id"))
    task = task or next(
        (one for one in map(as_dict, as_list(header.get("tasks"))) if as_id(one.get("id")) == wanted), {}
    )
    instruction = task.get("instruction")
    if isinstance(instruction, str):
        meta["instruction"] = instruction
    breakdown = as_dict(judged.get("reward_breakdown"))
    if breakdown:
        take_scores(breakdown, draft)
    reason = value.get("termination_reason")
    if isinstance(reason, str):
        meta["ended"] = reason
    domain = about.get("domain_name")
    agent = as_dict(as_dict(header.get("info")).get("agent_info")).get("llm")
    if isinstance(agent, str):
        meta["model"] = agent
    place.keep("task", {key: one for key, one in task.items() if key != "instruction"})
    place.keep("info", {key: one for key, one in info.items() if key != "task"})
    place.keep("reward_info", {key: one for key, one in judged.items() if key not in ("reward", "reward_breakdown")})
    for key, one in value.items():
        if key not in _TAKEN:
            place.keep(key, one)
    parts = (domain, value.get("task_id"), value.get("trial"))
    draft.id = "-".join(["tau", *(as_text(part) for part in parts if part is not None)])
    draft.source = "tau2-bench" if "reward_info" in value or "simulations" in value else "tau-bench"
