"""`cm2 gate SUITE`: whether a suite lets an agent pass, as an exit code and in the forms that CI systems read."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from cm2.cli.common import Json, emit, track
from cm2.cli.models import Budget, CacheFile, ModelsFile, Settings, open_models

if TYPE_CHECKING:
    from cm2.assure.gate_case import Case, GateResult, Rate
    from cm2.assure.suite import Suite
    from cm2.rollout.trace import Rollout

SHOWN = 10
DUTIES = 20
STYLES = {"passed": "bold green", "failed": "bold red", "undecided": "bold yellow"}


def register(app: typer.Typer) -> None:
    """Add the verb `gate`."""
    app.command()(gate)


def gate(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="The suite (YAML).")],
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="The result (JSON): the baseline of a later gate.")
    ] = None,
    dialogues: Annotated[
        str | None, typer.Option(help="Runs of the agent (dialogues, or rollouts), in place of the suite's.")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Where the agent's API starts, in place of the suite's: http://HOST/v1.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The agent's model, in place of the suite's.")] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="Runs of each task by the endpoint.")] = None,
    baseline: Annotated[str | None, typer.Option(help="A stored result, in place of the suite's baseline.")] = None,
    history: Annotated[str | None, typer.Option(help="What is known of flaky cases (JSONL); is appended to.")] = None,
    version: Annotated[
        str, typer.Option(envvar=["CM2_VERSION", "GITHUB_SHA", "CI_COMMIT_SHA"], help="Of the agent: a commit, a tag.")
    ] = "",
    rollouts: Annotated[str | None, typer.Option(help="Where the runs go that an endpoint makes (JSONL).")] = None,
    junit: Annotated[str | None, typer.Option(help="The result as JUnit XML.")] = None,
    markdown: Annotated[str | None, typer.Option(help="The result as Markdown, for a pull request.")] = None,
    github: Annotated[
        bool, typer.Option("--github", help="Annotations of a GitHub workflow, and its job summary.")
    ] = False,
    models: ModelsFile = None,
    settings: Settings = None,
    cache: CacheFile = None,
    budget: Budget = None,
    as_json: Json = False,
) -> int:
    """Look at runs of an agent, or make them, and exit with 0 (passed) or 1 (failed, or undecided: unscored)."""
    from cm2.assure.github import no_commands
    from cm2.assure.suite import load_suite

    flags = {"dialogues": dialogues, "base_url": base_url, "model": model, "repeats": repeats, "models": models}
    asked = load_suite(suite, flags | {"baseline": baseline, "history": history})
    _apart(asked, suite, {"-o": output, "--junit": junit, "--markdown": markdown, "--rollouts": rollouts})
    result = _run(asked, version, rollouts, settings, cache, budget)
    _write(result, output, junit, markdown)
    guard = no_commands(typer.echo) if github and not as_json else contextlib.nullcontext()
    with guard:
        emit(_summary(result), as_json, None if as_json else _shown(result))
    if github:
        _annotate(result, to_stderr=as_json)
    return result.exit_code


def _run(
    suite: Suite,
    version: str,
    rollouts: str | None,
    settings: list[str] | None,
    cache: str | None,
    budget: float | None,
) -> GateResult:
    from cm2.assure.gate import run_gate
    from cm2.errors import ConfigError
    from cm2.worlds import world_for

    simulated = suite.endpoint is not None and suite.simulator.kind == "llm"
    asks = suite.verdicts is None and suite.judging.asks
    if rollouts is not None and suite.endpoint is None:
        raise ConfigError("--rollouts is about runs of an endpoint", fix="leave it out")
    with contextlib.ExitStack() as stack:
        asker = None
        if asks or simulated:
            if suite.models is None:
                fix = "name `models` in the suite (a models file), or give --models"
                raise ConfigError("the judge or the simulator asks a model, and none is named", fix=fix)
            role = "judge" if asks else "simulator"
            opened = open_models(role, suite.models, cache=cache, budget=budget, settings=settings)  # type: ignore[arg-type]
            asker = stack.enter_context(opened)
        keep = stack.enter_context(_kept(rollouts))
        return run_gate(
            suite,
            world=world_for,
            asker=asker,
            version=version,
            progress=lambda runs: track(runs, "gate"),
            keep=keep,
        )


@contextlib.contextmanager
def _kept(path: str | None) -> Any:
    """What takes rollouts; the file has its name only when all of them are there."""
    if path is None:
        yield lambda rollout: None
        return
    from cm2.formats.target import replacing
    from cm2.rollout.trace import encode

    with replacing(path) as draft, draft.open("wb") as file:

        def keep(rollout: Rollout) -> None:
            file.write(encode(rollout) + b"\n")

        yield keep


def _apart(suite: Suite, path: str, outputs: dict[str, str | None]) -> None:
    """No output may be what is read, or another output. A result may take the baseline's place only by a copy."""
    from cm2.assure.suite import PATHS
    from cm2.errors import ConfigError

    taken = {os.path.realpath(path): "the suite"}
    for name in PATHS:
        value = getattr(suite, name)
        if value is not None:
            taken[os.path.realpath(value)] = f"the suite's {name}"
    for flag, value in outputs.items():
        if value is None:
            continue
        if (real := os.path.realpath(value)) in taken:
            raise ConfigError(f"{flag} {value} is {taken[real]}", fix="give it another name")
        taken[real] = flag


def _write(result: GateResult, output: str | None, junit: str | None, markdown: str | None) -> None:
    from cm2.assure.gate_case import write_result, write_whole
    from cm2.assure.gate_markdown import markdown as told
    from cm2.assure.junit import write_junit

    if output is not None:
        write_result(result, output)
    if junit is not None:
        write_junit(result, junit)
    if markdown is not None:
        write_whole(markdown, told(result).encode("utf-8", "replace"))


def _annotate(result: GateResult, to_stderr: bool) -> None:
    from cm2.assure.gate_markdown import markdown
    from cm2.assure.github import annotated, append_summary

    append_summary(markdown(result))
    for line in annotated(result):
        typer.echo(line, err=to_stderr)


def _summary(result: GateResult) -> dict[str, Any]:
    """The result without the cases that passed, of which there may be very many."""
    import msgspec

    value: dict[str, Any] = msgspec.to_builtins(result)
    told = result.with_status("failed", "flaky", "unscored")
    value["cases"] = [msgspec.to_builtins(case) for case in told]
    return value | {"exit": result.exit_code}


def _shown(result: GateResult) -> list[Any]:
    from cm2.assure.gate_tally import telling

    lost = f", {result.lost} lost" if result.lost else ""
    head = Text(f"{result.suite}: ")
    head.append(result.state, STYLES[result.state])
    head.append(f"  {result.dialogues} dialogues, {result.runs} runs{lost} of {result.source}, {result.seconds:.1f} s")
    shown, rest = telling(result.duties, DUTIES)
    parts: list[Any] = [head, _rates(result.severities + shown)]
    if rest:
        parts.append(Text(f"… and {rest} more duties"))
    for rule in result.rules:
        if rule.state != "passed":
            line = Text(f"{rule.state}: ", STYLES[rule.state]).append(f"{rule.name}: {rule.message}", "default")
            parts.append(line.append(f" ({rule.owner})" if rule.owner else "", "default"))
    parts += _cases("failing", result.with_status("failed")) + _cases("unscored", result.with_status("unscored"))
    parts += _cases("flaky", result.with_status("flaky"))
    flaky = result.flakiness
    if flaky.repeated:
        interval = "" if flaky.low is None else f" (95 % interval {flaky.low:.1%} to {flaky.high:.1%})"
        parts.append(Text(f"{flaky.flaky} of {flaky.repeated} repeated cases passed and failed{interval}"))
    return parts + [Text(f"note: {note}") for note in result.notes]


def _rates(rates: list[Rate]) -> Table:
    before = any(rate.before is not None for rate in rates)
    table = Table(show_edge=False)
    heads = ["duty", "severity", "cases", "fail", "flaky", "unsc.", "n/a", "pass", "interval"]
    for name in [*heads, *(["before", "p"] if before else [])]:
        left = name in ("duty", "severity")
        table.add_column(name, justify="left" if left else "right", no_wrap=name != "duty")
    for rate in rates:
        all_of = rate.name == rate.severity
        row = [Text("all" if all_of else rate.name), Text(rate.severity)]
        counts = (rate.cases, rate.failed, rate.flaky, rate.unscored, rate.not_applicable)
        row += [Text(str(count)) for count in counts]
        row.append(Text("–" if rate.rate is None else f"{rate.rate:.1%}"))
        row.append(Text("–" if rate.low is None or rate.high is None else f"{rate.low:.0%}…{rate.high:.0%}"))
        if before:
            row.append(Text("–" if rate.before is None else f"{rate.before:.1%}"))
            row.append(Text("–" if rate.p is None else f"{rate.p:.3g}"))
        table.add_row(*row, style="bold" if all_of else None)
    return table


def _cases(what: str, cases: list[Case]) -> list[Any]:
    lines = []
    for case in cases[:SHOWN]:
        where = f", {case.where}" if case.where else ""
        runs = f" [{case.passed} of {case.runs} runs pass]" if case.runs > 1 or what == "flaky" else ""
        new = ", new" if case.new else ""
        line = f"{what}{new}: {case.duty} in {case.dialogue}{where}{runs}: {case.reason}"
        lines.append(Text(" ".join(line.split())))
    if len(cases) > SHOWN:
        lines.append(Text(f"… and {len(cases) - SHOWN} more {what} cases"))
    return lines
