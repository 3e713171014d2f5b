"""Runs tau2-bench in its own environment: our agent in its registry, its own orchestrator and graders.

What is done on purpose, and why:
- every simulation is a file of its own, written whole: the package's own `run` rewrites one growing file, stops all
  others when one fails, asks on the terminal whether to resume, and writes a failed one down as a zero;
- our agent speaks to the endpoint itself, since the package drops thinking when it turns messages back into a request;
- an error carries its owner: the agent's endpoint, the user's, or the agent's own doing;
- a .env anywhere above the environment would be read: it is not.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dotenv
from cm2_shared import check_tasks, owner, settings, thinking, told, visible

dotenv.load_dotenv = lambda *_, **__: False
AGENT, USER = "cm2_agent", "cm2_user"
EMPTY_TRIES = 3
"""Further tries of an answer without text and calls, as the package has them."""


class Lost(Exception):
    """A simulation that ends here, and whose doing that is."""

    def __init__(self, owner: str, error: str):
        super().__init__(error)
        self.owner, self.error = owner, error


def main() -> None:
    """Run the tasks of each domain, one file a simulation, then the package's metrics."""
    given = settings()
    register(given)
    from loguru import logger
    from tau2.run import get_info, get_tasks

    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    root = Path.cwd()
    chosen, whole, every, seen = {}, {}, {}, hashlib.sha256()
    for domain in given["categories"]:
        tasks = get_tasks(domain, "base")
        whole[domain] = len(tasks)
        kept = [task for task in tasks if not given["tasks"] or task.id in given["tasks"]][: given["limit"]]
        every[domain], chosen[domain] = kept, [task.id for task in kept]
        seen.update(json.dumps([task.model_dump(mode="json") for task in kept], sort_keys=True).encode())
    check_tasks(given["tasks"], {id for ids in chosen.values() for id in ids})
    told_tasks = {"tasks": chosen, "whole": whole, "hash": seen.hexdigest()[:16]}
    (root / "tasks.json").write_text(json.dumps(told_tasks))
    work = [(domain, task) for domain, tasks in every.items() for task in tasks]
    with ThreadPoolExecutor(given["concurrency"]) as pool:
        list(pool.map(lambda one: simulate(given, root, *one), work))
    for domain, tasks in every.items():
        if tasks:
            info = get_info(domain, AGENT, USER, given["model"], {}, given["user_model"], {}, 1, seed=given["seed"])
            summarise(root, domain, tasks, info)


def register(given: dict[str, Any]) -> None:
    """Put our agent and our user into the registry."""
    import litellm
    from tau2.agent.llm_agent import LLMAgent
    from tau2.data_model.message import AssistantMessage, MultiToolMessage, ToolCall
    from tau2.registry import registry
    from tau2.user.user_simulator import UserSimulator
    from tau2.utils import llm_utils
    from tau2.utils.llm_utils import get_response_usage, to_litellm_messages

    llm_utils.get_response_cost = lambda _: 0.0  # it ends a conversation with a server that does not name its model

    class Agent(LLMAgent):
        """The package's agent, whose thinking stays in its history or is left out, as asked."""

        def generate_next_message(self, message, state):
            state.messages.extend(message.tool_messages if isinstance(message, MultiToolMessage) else [message])
            messages = state.system_messages + state.messages
            request = to_litellm_messages(messages)
            for one, sent in zip(messages, request, strict=True):
                if isinstance(one, AssistantMessage):
                    if not sent["tool_calls"]:
                        del sent["tool_calls"]
                    if given["thinking"] == "keep" and one.raw_data:
                        sent.update(one.raw_data["kept"])
            for _ in range(EMPTY_TRIES + 1):
                try:
                    answer = litellm.completion(
                        messages=request, tools=[tool.openai_schema for tool in self.tools] or None, **self.llm_args
                    )
                    choice, usage = answer.choices[0].message, get_response_usage(answer)
                except Exception as error:
                    raise Lost(owner(error), told(error)) from error
                text = visible(choice.content)
                if text.strip() or choice.tool_calls:
                    break
            else:
                raise Lost("agent", f"{EMPTY_TRIES + 1} answers without text and without calls")
            kept = thinking(choice) | ({"content": choice.content} if choice.content else {})
            try:
                calls = [
                    ToolCall(id=call.id, name=call.function.name, arguments=json.loads(call.function.arguments or "{}"))
                    for call in choice.tool_calls or []
                ]
            except ValueError as error:
                said = [call.function.arguments for call in choice.tool_calls]
                raise Lost("agent", f"arguments that are no JSON object: {said}"[:300]) from error
            made = AssistantMessage(
                role="assistant",
                content=text or None,
                tool_calls=calls or None,
                cost=0.0,
                usage=usage,
                raw_data={"kept": kept},
            )
            state.messages.append(made)
            return made, state

    class User(UserSimulator):
        """The package's user, whose failures are its own and whose thinking the agent does not see."""

        def generate_next_message(self, message, state):
            try:
                made, state = super().generate_next_message(message, state)
                made.content = visible(made.content) if made.content else made.content
                made.validate()
            except Exception as error:
                raise Lost("user", told(error)) from error
            return made, state

    registry.register_agent(Agent, AGENT)
    registry.register_user(User, USER)


def simulate(given: dict[str, Any], root: Path, domain: str, task: Any) -> None:
    """One simulation, unless it was made before without an error of somebody else's."""
    from tau2.evaluator.evaluator import EvaluationType
    from tau2.run import run_task

    path = root / "simulations" / domain / f"{hashlib.sha256(task.id.encode()).hexdigest()[:16]}.json"
    if path.exists() and json.loads(path.read_text())["owner"] in (None, "agent"):
        return
    row: dict[str, Any] = {"task": task.id, "domain": domain, "owner": None, "error": "", "simulation": None}
    shared = {"timeout": given["timeout"], "max_retries": given["retries"]}
    agent = {
        "model": f"openai/{given['model']}",
        "base_url": given["base_url"],
        "api_key": os.environ["CM2_AGENT_KEY"],
        "temperature": 0.0 if given["temperature"] is None else given["temperature"],
        **({} if given["max_tokens"] is None else {"max_tokens": given["max_tokens"]}),
    }
    user = {
        "base_url": given["user_base_url"],
        "api_key": os.environ["CM2_USER_KEY"],
        "temperature": given["user_temperature"],
    }
    try:
        made = run_task(
            domain=domain,
            task=task,
            agent=AGENT,
            user=USER,
            llm_agent=given["model"],
            llm_args_agent=agent | shared,
            llm_user=f"openai/{given['user_model']}",
            llm_args_user=user | shared,
            max_steps=200,
            max_errors=10,
            evaluation_type=EvaluationType.ALL,
            seed=given["seed"],
        )
        made.trial = 0
        row["simulation"] = made.model_dump(mode="json")
    except Lost as lost:
        row |= {"owner": lost.owner, "error": lost.error}
    except Exception as error:  # the harness itself
        row |= {"owner": "infrastructure", "error": told(error)}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{threading.get_ident()}.part")
    part.write_text(json.dumps(row))
    os.replace(part, path)


def summarise(root: Path, domain: str, tasks: list, info: Any) -> None:
    """The package's own metrics on what has a simulation."""
    from tau2.data_model.simulation import Results, SimulationRun
    from tau2.metrics.agent_metrics import compute_metrics

    rows = [json.loads(path.read_text()) for path in sorted((root / "simulations" / domain).glob("*.json"))]
    runs = [SimulationRun.model_validate(row["simulation"]) for row in rows if row["simulation"]]
    found: dict[str, Any] = {"simulations": len(runs), "of": len(tasks)}
    if runs:
        metrics = compute_metrics(Results(info=info, tasks=tasks, simulations=runs))
        found |= {"avg_reward": float(metrics.avg_reward), "pass_hat_1": float(metrics.pass_hat_ks[1])}
    (root / f"metrics-{domain}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
