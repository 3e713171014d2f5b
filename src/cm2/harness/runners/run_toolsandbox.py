"""Runs ToolSandbox in its own environment: our agent and user in its registries, its own play and evaluation.

What is done on purpose, and why:
- its agent and user classes have OpenAI's address in them: ours are subclasses at module level, since its processes are
  spawned and import this file again, and take the places of two entries of its registries;
- a tool call's id becomes a Python identifier there: ids of other servers than OpenAI's are rewritten;
- its history has no place for thinking: the agent remembers it beside;
- calls made at once are played there in every order, ten of them in 3,628,800: so many are the agent's own error;
- an exception becomes a similarity of 0 there: ours carry in their type whose they are;
- every scenario is a file of its own; the package writes its only file at the very end;
- its output names the commit of whatever folder it is run in: the checkout's own commit is written instead.
"""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
import os
import random
import re
import sys
import traceback
from pathlib import Path
from typing import Any

from cm2_shared import broken, check_tasks, owner, settings, thinking, told, visible
from openai import OpenAI
from tool_sandbox.cli import utils
from tool_sandbox.common.execution_context import ScenarioCategories
from tool_sandbox.roles.openai_api_agent import OpenAIAPIAgent
from tool_sandbox.roles.openai_api_user import OpenAIAPIUser
from tool_sandbox.tools import rapid_api_search_tools

OURS = utils.RoleImplType.GPT_4_o_2024_05_13
KEY = "RAPID_API_KEY"
MOST_AT_ONCE = 7
"""Calls in one answer; their 5,040 orders take four minutes, those of one more half an hour."""
SCRAMBLED = {
    ScenarioCategories.TOOL_NAME_SCRAMBLED,
    ScenarioCategories.TOOL_DESCRIPTION_SCRAMBLED,
    ScenarioCategories.ARG_DESCRIPTION_SCRAMBLED,
    ScenarioCategories.ARG_TYPE_SCRAMBLED,
    ScenarioCategories.ARG_NAME_SCRAMBLED,
}


class AgentFailed(Exception):
    """The agent's own doing."""


class UserFailed(Exception):
    """The user simulator's."""


class Unreached(Exception):
    """What lies between the harness and the agent."""


OWNERS = {"AgentFailed": "agent", "UserFailed": "user"}


@functools.cache
def given() -> dict[str, Any]:
    """The settings, in any of the processes."""
    return json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))


class Agent(OpenAIAPIAgent):
    """The package's agent, at the address that was given."""

    def __init__(self) -> None:
        self.model_name = given()["model"]
        self.openai_client = OpenAI(
            base_url=given()["base_url"],
            api_key=os.environ["CM2_AGENT_KEY"],
            timeout=given()["timeout"],
            max_retries=given()["retries"],
        )
        self.kept: dict[str, dict] = {}
        self.calls = 0

    def model_inference(self, openai_messages, openai_tools):
        """Ask, and hand back an answer that the package can use."""
        request = [one | self._memory(one) for one in openai_messages]
        more = {name: given()[name] for name in ("temperature", "max_tokens") if given()[name] is not None}
        try:
            answer = self.openai_client.chat.completions.create(
                model=self.model_name, messages=request, tools=openai_tools, **more
            )
            message = answer.choices[0].message
        except Exception as error:
            kind = AgentFailed if owner(error) == "agent" else Unreached
            raise kind(told(error)) from error
        kept = thinking(message) if given()["thinking"] == "keep" else {}
        if given()["thinking"] == "keep" and message.content:
            kept["content"] = message.content
        self.calls = usable(message, self.get_available_tools(), self.calls, AgentFailed)
        key = message.tool_calls[0].id if message.tool_calls else message.content
        self.kept[key] = kept
        return answer

    def _memory(self, message: dict[str, Any]) -> dict[str, Any]:
        if message["role"] != "assistant":
            return {}
        calls = message.get("tool_calls")
        return self.kept.get(calls[0]["id"] if calls else message["content"], {})


class User(OpenAIAPIUser):
    """The package's user, at the address that was given."""

    def __init__(self) -> None:
        self.model_name = given()["user_model"]
        self.openai_client = OpenAI(
            base_url=given()["user_base_url"],
            api_key=os.environ["CM2_USER_KEY"],
            timeout=given()["timeout"],
            max_retries=given()["retries"],
        )
        self.calls = 0

    def model_inference(self, openai_messages, openai_tools):
        """Ask, without the package's own three tries with up to 40 seconds between them."""
        try:
            answer = self.openai_client.chat.completions.create(
                model=self.model_name,
                messages=openai_messages,
                tools=openai_tools,
                temperature=given()["user_temperature"],
            )
            message = answer.choices[0].message
        except Exception as error:
            raise UserFailed(told(error)) from error
        self.calls = usable(message, self.get_available_tools(), self.calls, UserFailed)
        return answer


class LeavingUser(User):
    """A user for the baseline: ends the conversation at the first answer, and asks no model."""

    def model_inference(self, openai_messages, openai_tools):
        from openai.types.chat import ChatCompletion

        call = {"id": "leaving", "type": "function", "function": {"name": "end_conversation", "arguments": "{}"}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        choice = {"index": 0, "finish_reason": "tool_calls", "message": message}
        return ChatCompletion.model_validate(
            {"id": "0", "object": "chat.completion", "created": 0, "model": "none", "choices": [choice]}
        )


def usable(message: Any, tools: dict[str, Any], calls: int, error: type[Exception]) -> int:
    """Make an answer one that the package can use, in place; how many calls there have been."""
    message.content = visible(message.content) if message.content is not None else None
    if not message.tool_calls:
        message.tool_calls = None
        if not (message.content or "").strip():
            raise error("an answer without text and without calls")
        return calls
    if broken(message.tool_calls):
        said = [call.function.arguments for call in message.tool_calls]
        raise error(f"arguments that are no JSON object: {said}"[:300])
    if len(message.tool_calls) > MOST_AT_ONCE:
        raise error(f"{len(message.tool_calls)} calls at once; their orders cannot all be played")
    for call in message.tool_calls:
        if call.function.name not in tools:
            raise error(f"there is no tool {call.function.name!r}")
        call.function.arguments = call.function.arguments or "{}"
        calls += 1
        call.id = f"call_{calls}_{re.sub(r'[^A-Za-z0-9_]', '_', call.id or '')}"[:60]
    return calls


utils.AGENT_TYPE_TO_FACTORY[OURS] = Agent
utils.USER_TYPE_TO_FACTORY[OURS] = User
utils.USER_TYPE_TO_FACTORY[utils.RoleImplType.Cli] = LeavingUser


def main() -> None:
    """Play the scenarios that the settings name, one file each, then the package's summary of all of them."""
    told_settings = settings()
    root = Path.cwd()
    random.seed(42)  # as its command line does: the order of tools is drawn while scenarios are made
    every = utils.resolve_scenarios(None, "DEFAULT")
    offline = sorted(every if os.environ.get(KEY) else without_web(every))
    names = [name for name in offline if not told_settings["tasks"] or name in told_settings["tasks"]]
    wanted = set(told_settings["categories"])
    names = [name for name in names if not wanted or wanted & set(counted(every[name].categories))]
    names = names[: told_settings["limit"]]
    check_tasks(told_settings["tasks"], set(names))
    whole: dict[str, int] = {}
    for scenario in every.values():
        for category in counted(scenario.categories):
            whole[category] = whole.get(category, 0) + 1
    seen = hashlib.sha256("\n".join([told_settings["version"], *names]).encode()).hexdigest()[:16]
    categories = {name: counted(every[name].categories) for name in names}
    found = {"tasks": categories, "whole": whole, "all": len(every), "hash": seen}
    (root / "tasks.json").write_text(json.dumps(found))
    play(every, names, root, told_settings["concurrency"], OURS, OURS)
    summarise(root, names, told_settings["version"])
    if told_settings["baseline"]:
        place = root / "baseline"
        place.mkdir(exist_ok=True)
        types = utils.RoleImplType.Unhelpful, utils.RoleImplType.Cli
        play(every, names, place, told_settings["concurrency"], *types)
        summarise(place, names, told_settings["version"])


def counted(categories: list) -> list[str]:
    """The categories that a scenario counts in: scrambled ones are not among those with three distractions."""
    return [
        str(one)
        for one in categories
        if not (one == ScenarioCategories.THREE_DISTRACTION_TOOLS and SCRAMBLED & set(categories))
    ]


def without_web(every: dict[str, Any]) -> set[str]:
    """The scenarios that can be solved without RapidAPI: none of the tools that they need is a search on the web."""
    # its own functions: the module also imports tools of others
    web = {name for name, tool in vars(rapid_api_search_tools).items() if _defined_there(tool)}
    base = {
        name: set(scenario.starting_context.tool_allow_list)
        for name, scenario in every.items()
        if ScenarioCategories.NO_DISTRACTION_TOOLS in scenario.categories
    }
    offline = {name for name, tools in base.items() if not tools & web}
    return {name for name in every if longest(name, base) in offline}


def _defined_there(tool: Any) -> bool:
    return getattr(tool, "__module__", None) == rapid_api_search_tools.__name__ and callable(tool)


def longest(name: str, base: dict[str, Any]) -> str:
    """The scenario that a variant is made of: variants add to its name."""
    return max((one for one in base if name == one or name.startswith(f"{one}_")), key=len)


def play(every: dict[str, Any], names: list[str], root: Path, processes: int, agent: Any, user: Any) -> None:
    """Play what was not played before without an error of somebody else's."""
    left = [(name, every[name]) for name in names if not done(root / "scenarios" / f"{name}.json")]
    (root / "scenarios").mkdir(exist_ok=True)
    work = functools.partial(one, root=root, agent=agent, user=user)
    if processes == 1 or len(left) < 2:
        list(map(work, left))
        return
    with multiprocessing.get_context("spawn").Pool(min(processes, len(left))) as pool:
        for _ in pool.imap_unordered(work, left):
            pass


def one(named: tuple, root: Path, agent: Any, user: Any) -> None:
    """Play one scenario and write what came of it, whole."""
    made = utils.run_scenario(named, agent_type=agent, user_type=user, output_directory=root)
    made["owner"] = None if made["exception_type"] is None else OWNERS.get(made["exception_type"], "infrastructure")
    path = root / "scenarios" / f"{named[0]}.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps(made, ensure_ascii=False))
    os.replace(part, path)


def done(path: Path) -> bool:
    """Whether a scenario need not be played again."""
    return path.exists() and json.loads(path.read_text())["owner"] in (None, "agent")


def summarise(root: Path, names: list[str], version: str) -> None:
    """What the package's command line writes, with the commit of the checkout."""
    results = [json.loads((root / "scenarios" / f"{name}.json").read_text()) for name in names]
    means = {
        str(category): {kind: sum(values) / len(values) for kind, values in aggregated.items()}
        for category, aggregated in utils.get_category_summary(results).items()
    }
    summary = {"per_scenario_results": results, "category_aggregated_results": means, "git_sha": version}
    (root / "result_summary.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    try:
        main()
    except Exception:
        traceback.print_exc()
        sys.exit(1)
