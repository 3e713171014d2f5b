"""Agents: what acts in an Environment.

An agent sees the environment and returns its next action. It keeps no state of its own between actions, so that one
agent serves any number of rollouts at once; a provider's failure is a `ProviderError`, never an empty action.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from cm2.dialogue import Step, ToolCall
from cm2.llm import ChatClient, Endpoint
from cm2.rollout.environment import Environment
from cm2.rollout.template import split_thinking, tool_schema


class Action(msgspec.Struct):
    """An agent's step, and what it took to make it."""

    step: Step
    tokens: int = 0
    """Tokens generated."""
    prompt_tokens: int = 0
    truncated: bool = False
    """Cut off by a token limit."""


class Agent(Protocol):
    """What acts. `name` is what records call it."""

    name: str

    async def act(self, environment: Environment, seed: int) -> Action:
        """The next action in this environment; `seed` differs between rollouts and steps.

        Raises:
            ProviderError: whoever serves the model failed.
        """


class ReplayAgent:
    """Does what the reference did. On a task whose checklists are right it earns the full reward: an oracle."""

    name = "replay"

    async def act(self, environment: Environment, seed: int) -> Action:
        """See `Agent.act`."""
        return Action(reference_step(environment))


class ScriptedAgent:
    """Does what a function of the environment says: for tests, baselines and agents of one's own.

    Args:
        script: the next step in an environment.
        name: what records call it.
    """

    def __init__(self, script: Callable[[Environment], Step], name: str = "scripted"):
        self.script, self.name = script, name

    async def act(self, environment: Environment, seed: int) -> Action:
        """See `Agent.act`."""
        return Action(self.script(environment))


class EndpointAgent:
    """A model behind any OpenAI-compatible endpoint.

    Args:
        client: of the endpoint; the caller opens and closes it.
        seeded: send a seed with each request, for endpoints that honour it.
    """

    def __init__(self, client: ChatClient, *, seeded: bool = True):
        self.client, self.seeded = client, seeded
        self.name = client.endpoint.name

    @property
    def endpoint(self) -> Endpoint:
        """Whom it asks."""
        return self.client.endpoint

    async def act(self, environment: Environment, seed: int) -> Action:
        """See `Agent.act`."""
        tools = [tool_schema(tool) for tool in environment.dialogue.tools]
        fields = {"seed": seed} if self.seeded else {}
        done = await self.client.complete(environment.messages, tools, **fields)
        return Action(
            step=step_of(done.message),
            tokens=done.completion_tokens,
            prompt_tokens=done.prompt_tokens,
            truncated=done.finish_reason == "length",
        )


def reference_step(environment: Environment) -> Step:
    """What the reference did next; an empty reply where its turn simply stopped."""
    steps = environment.task.dialogue.turns[environment.turn].steps
    taken = len(environment.dialogue.turns[environment.turn].steps)
    return steps[taken] if taken < len(steps) else Step(reply="")


def step_of(message: dict[str, Any]) -> Step:
    """The step that an endpoint's assistant message says. Malformed calls stay calls, with their text in `raw`."""
    reply = _text(message.get("content"))
    thinking = message.get("reasoning_content") or message.get("reasoning")
    thinking = thinking if isinstance(thinking, str) else None
    if reply is not None and thinking is None:
        thinking, rest = split_thinking(reply)
        reply = reply if thinking is None else rest.lstrip()
    if reply is None and isinstance(message.get("refusal"), str):
        reply = message["refusal"]
    made = message.get("tool_calls")
    calls = [_call(call) for call in made] if isinstance(made, list) else []
    if not calls and isinstance(message.get("function_call"), dict):
        calls = [_call({"function": message["function_call"]})]
    return Step(thinking=thinking, reply=reply if reply or not calls else None, calls=calls)


def _text(content: Any) -> str | None:
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "\n".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else None


def _call(value: Any) -> ToolCall:
    function = value.get("function") if isinstance(value, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return ToolCall("", None, raw=msgspec.json.encode(value).decode(), error="the call names no function")
    id = value.get("id") if isinstance(value.get("id"), str) else None
    arguments = function.get("arguments")
    if arguments is None or arguments == "":
        return ToolCall(function["name"], {}, id)
    if isinstance(arguments, str):
        raw = arguments
        try:
            arguments = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            return ToolCall(function["name"], None, id, raw, f"the arguments are not JSON: {error}")
    else:
        raw = msgspec.json.encode(arguments).decode()
    if not isinstance(arguments, dict):
        return ToolCall(function["name"], None, id, raw, "the arguments are not a JSON object")
    return ToolCall(function["name"], arguments, id)
