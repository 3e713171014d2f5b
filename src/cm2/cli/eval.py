"""`cm2 eval bfcl|tau2|toolsandbox -o DIR`: a model on a benchmark, by the benchmark's own harness.

`cm2 eval CHECKPOINT -o DIR` serves a checkpoint and evaluates it, with a folder below DIR for each benchmark.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cm2.cli.common import Json, emit, err

Output = Annotated[
    str, typer.Option("-o", "--output", metavar="DIR", help="A folder (the same command goes on in it).")
]
BaseUrl = Annotated[str, typer.Option(help="Where the agent's API starts: http://127.0.0.1:8000/v1.")]
Model = Annotated[str, typer.Option(help="The agent, as its endpoint knows it.")]
Key = Annotated[str, typer.Option(help="Environment variable with the agent's key.")]
Thinking = Annotated[str, typer.Option(help="keep or drop: whether earlier thinking stays in what the agent sees.")]
Categories = Annotated[str | None, typer.Option(help="Parts of the benchmark, with commas.")]
Runs = Annotated[int, typer.Option(help="Repetitions of every task; more may be asked for later.")]
Limit = Annotated[int | None, typer.Option(help="Only the first so many tasks of each category; not comparable.")]
Task = Annotated[list[str] | None, typer.Option("--task", help="Only this task; repeat it. Not comparable.")]
Temperature = Annotated[float | None, typer.Option(help="The agent's. Default: the harness's own.")]
MaxTokens = Annotated[int | None, typer.Option(help="Tokens of one answer of the agent. Default: the server's.")]
Concurrency = Annotated[int, typer.Option(help="Conversations at once.")]
Timeout = Annotated[float, typer.Option(help="Seconds for one request.")]
Retries = Annotated[int, typer.Option(help="Further tries of a request that failed.")]
AllowErrors = Annotated[int, typer.Option(help="Conversations that may be lost before the run fails.")]
Seed = Annotated[int, typer.Option(help="Of what the harness draws.")]
UserUrl = Annotated[str | None, typer.Option(help="Where the API of the simulated user starts.")]
UserModel = Annotated[str | None, typer.Option(help="The simulated user: the same for all that you compare.")]
UserKey = Annotated[str | None, typer.Option(help="Environment variable with its key. Default: none, or the agent's.")]
UserTemperature = Annotated[float, typer.Option(help="The simulated user's.")]


def register(app: typer.Typer) -> None:
    """Add the verb, and its benchmarks."""
    app.command(name="eval")(checkpoint)
    app.command()(bfcl)
    app.command()(tau2)
    app.command()(toolsandbox)


def checkpoint(
    source: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help='Serve it and evaluate: a folder, a name, or "embedded".')
    ],
    output: Output,
    benchmarks: Annotated[str, typer.Option(help="Which, with commas; each gets a folder below DIR.")] = "bfcl",
    user_base_url: UserUrl = None,
    user_model: UserModel = None,
    user_key: UserKey = None,
    user_temperature: UserTemperature = 0.0,
    thinking: Thinking = "keep",
    categories: Categories = None,
    runs: Runs = 1,
    limit: Limit = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    concurrency: Concurrency = 4,
    timeout: Timeout = 600.0,
    retries: Retries = 2,
    allow_errors: AllowErrors = 0,
    seed: Seed = 0,
    as_json: Json = False,
) -> int:
    """A model on BFCL-V4, tau2-bench or ToolSandbox by their own harnesses; here a checkpoint, served for that long."""
    given = _given(locals() | {"task": None})
    import os

    from cm2.errors import ConfigError
    from cm2.harness.environments import need
    from cm2.harness.serving import KEY_ENV, served

    chosen = [one.strip() for one in benchmarks.split(",") if one.strip()]
    if given["categories"] and len(chosen) > 1:
        raise ConfigError("--categories are of one benchmark", fix="name one with --benchmarks")
    # Before a model is loaded for nothing.
    checked = [_config(name, given | {"base_url": "http://127.0.0.1/v1", "model": source}) for name in chosen]
    for name in chosen:
        need(name)
    found = []
    if not checked:
        raise ConfigError("--benchmarks names none", fix="name bfcl, tau2 or toolsandbox")
    with served(source, checked[0].thinking) as endpoint:
        for name in chosen:
            own = {"output": os.path.join(output, name), "base_url": endpoint.base_url, "model": endpoint.model}
            found.append(_evaluated(_config(name, given | own | {"key": KEY_ENV})))
    _told(found, as_json)
    return int(any(one.failed for one in found))


def bfcl(
    output: Output,
    base_url: BaseUrl,
    model: Model,
    key: Key = "OPENAI_API_KEY",
    thinking: Thinking = "keep",
    categories: Categories = None,
    runs: Runs = 1,
    limit: Limit = None,
    task: Task = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    concurrency: Concurrency = 4,
    timeout: Timeout = 600.0,
    retries: Retries = 2,
    allow_errors: AllowErrors = 0,
    seed: Seed = 0,
    as_json: Json = False,
) -> int:
    """BFCL-V4: multi-turn (default), web search (needs SERPAPI_API_KEY and the web)."""
    return _run("bfcl", _given(locals()), as_json)


def tau2(
    output: Output,
    base_url: BaseUrl,
    model: Model,
    user_base_url: UserUrl = None,
    user_model: UserModel = None,
    user_key: UserKey = None,
    user_temperature: UserTemperature = 0.0,
    key: Key = "OPENAI_API_KEY",
    thinking: Thinking = "keep",
    categories: Categories = None,
    runs: Runs = 1,
    limit: Limit = None,
    task: Task = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    concurrency: Concurrency = 4,
    timeout: Timeout = 600.0,
    retries: Retries = 2,
    allow_errors: AllowErrors = 0,
    seed: Seed = 0,
    as_json: Json = False,
) -> int:
    """tau2-bench: airline, retail, telecom. Needs a model that plays the user. The paper: --runs 4."""
    return _run("tau2", _given(locals()), as_json)


def toolsandbox(
    output: Output,
    base_url: BaseUrl,
    model: Model,
    user_base_url: UserUrl = None,
    user_model: UserModel = None,
    user_key: UserKey = None,
    user_temperature: UserTemperature = 0.0,
    key: Key = "OPENAI_API_KEY",
    thinking: Thinking = "keep",
    categories: Categories = None,
    runs: Runs = 1,
    limit: Limit = None,
    task: Task = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = None,
    concurrency: Concurrency = 4,
    timeout: Timeout = 600.0,
    retries: Retries = 2,
    allow_errors: AllowErrors = 0,
    seed: Seed = 0,
    baseline: Annotated[bool, typer.Option(help="Also play an agent that refuses everything (asks no model).")] = True,
    as_json: Json = False,
) -> int:
    """ToolSandbox: all scenarios with RAPID_API_KEY, else those that need no web. Needs a model that plays the user."""
    return _run("toolsandbox", _given(locals()), as_json)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """The flags as settings."""
    left_out = ("as_json", "task", "categories", "source", "benchmarks")
    given = {name: value for name, value in values.items() if name not in left_out}
    given["tasks"] = values["task"] or []
    given["categories"] = [one.strip() for one in (values["categories"] or "").split(",") if one.strip()]
    return given


def _run(benchmark: str, values: dict[str, Any], as_json: bool) -> int:
    results = _evaluated(_config(benchmark, values))
    _told([results], as_json)
    return int(results.failed)


def _config(benchmark: str, values: dict[str, Any]) -> Any:
    from cm2.harness.settings import NEEDS_USER, EvalConfig
    from cm2.train import settings

    if benchmark not in NEEDS_USER:  # of several benchmarks some have a user
        values = {name: value for name, value in values.items() if not name.startswith("user_")}
    return settings.check(EvalConfig, values | {"benchmark": benchmark})


def _evaluated(config: Any) -> Any:
    from cm2.harness.run import evaluate

    with err.status(config.benchmark) as status:

        def progress(run: int, done: int) -> None:
            status.update(f"{config.benchmark}: run {run + 1} of {config.runs}, {done} conversations")

        return evaluate(config, progress)


def _told(several: list[Any], as_json: bool) -> None:
    from cm2.harness.show import tables

    found = [summary(one) for one in several]
    shown = found[0] if len(found) == 1 else {"results": found, "failed": any(one.failed for one in several)}
    emit(shown, as_json, [part for one in several for part in tables(one)])
    for one in several:
        if one.failed:
            err.print(f"cm2: {one.benchmark} failed: {one.lost} lost to others than the agent, {one.allowed} allowed")
            err.print("  run the same command again (only those are tried again), or add --allow-errors N")


def summary(results: Any) -> dict[str, Any]:
    """Results as one JSON object, with what they say of themselves."""
    import msgspec

    found: dict[str, Any] = msgspec.to_builtins(results)
    return found | {"lost": results.lost, "failed": results.failed, "comparable": results.comparable}
