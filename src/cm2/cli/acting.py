"""A model behind an endpoint that acts on tasks: the flags that `rollout` and `generate` share, and what they describe.

Their values are read by name from the verb's parameters (`typer.Context.params`): a verb that declares a flag has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cm2.rollout.collect import RolloutConfig

AgentUrl = Annotated[str, typer.Option("--base-url", help="Where the agent's API starts: http://127.0.0.1:8000/v1.")]
AgentModel = Annotated[str, typer.Option("--model", help="The agent's model, as the endpoint knows it.")]
KeyVariable = Annotated[str, typer.Option(help="Environment variable that holds the key (no key is sent when unset).")]
Temperature = Annotated[float | None, typer.Option(help="Default: the server's.")]
TopP = Annotated[float | None, typer.Option(help="Default: the server's.")]
MaxTokens = Annotated[int | None, typer.Option(help="Tokens of one action. Default: the server's.")]
MaxSteps = Annotated[int, typer.Option(help="Steps in one turn.")]
Retries = Annotated[int, typer.Option(help="Further tries of a request that the provider failed.")]
RolloutsAtOnce = Annotated[int, typer.Option("--concurrency", help="Rollouts at once.")]
Limit = Annotated[int | None, typer.Option(help="Only the first so many tasks.")]
Seed = Annotated[int, typer.Option(help="Varies the simulated world and the endpoint's sampling.")]
SimulatorKind = Annotated[
    str, typer.Option(help="auto (a task's own world, else fallback), replay, fallback, schema or llm.")
]
JudgeKind = Annotated[str, typer.Option(help="checks, hybrid, llm or vote; a model is the role judge of --models.")]
TaskFormat = Annotated[str, typer.Option(help="auto, openai or nemotron.")]

_ENDPOINT = ("base_url", "model", "key_variable", "temperature", "top_p", "max_tokens", "retries", "send_thinking")
_ROLLOUTS = ("seed", "concurrency", "limit", "format")
_SIMULATOR = {"simulator": "kind", "replay": "replay", "on_simulator_failure": "on_failure"}


def rollouts(flags: dict[str, Any], output: str, group: int) -> RolloutConfig:
    """The rollouts that a verb's flags describe.

    Args:
        flags: the verb's parameters by name.
        output: the store.
        group: rollouts of each task.

    Raises:
        ConfigError: a value is none of those that are possible.
    """
    from cm2.judge.judging import Judging
    from cm2.llm import Endpoint
    from cm2.rollout.collect import RolloutConfig
    from cm2.rollout.limits import Limits
    from cm2.simulate import SimulatorConfig

    return RolloutConfig(
        input=flags["source"],
        output=output,
        endpoint=Endpoint(**{name: flags[name] for name in _ENDPOINT if name in flags}),
        group=group,
        limits=Limits(turns=flags.get("max_turns"), steps=flags["max_steps"]),
        simulator=SimulatorConfig(**{field: flags[name] for name, field in _SIMULATOR.items() if name in flags}),
        judging=Judging(kind=flags["judge"]),
        **{name: flags[name] for name in _ROLLOUTS},
    )
