"""`cm2 compare A B`: which duties got better or worse from one agent to another, and whether it could be chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cm2.cli.common import Json, emit, track
from cm2.cli.compare_plan import least_seen, plan_pairs

if TYPE_CHECKING:
    from cm2.assure.compare import CompareConfig
    from cm2.assure.compare_result import Comparison
    from cm2.assure.drive import DriveConfig, Spent

SUFFIXES = (".md", ".html", ".json")
EXAMPLES = 3
_DUTIES, _DRIVE, _PLAN = "By which duties", "Two endpoints on the same tasks", "How many dialogues it takes (--plan)"


def register(app: typer.Typer) -> None:
    """Add the verb `compare`."""
    app.command()(compare)


def compare(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="A B",
            help="Dialogues, rollouts, an evaluation's folder or a gate's result; TASKS alone with --model-a.",
        ),
    ] = None,
    output: Annotated[
        list[str] | None,
        typer.Option("-o", "--output", help="A file to write: .md (pull request), .html or .json. Repeat it for more."),
    ] = None,
    names: Annotated[str, typer.Option(help="What tables call the two, with a comma: old,new.")] = "A,B",
    fail_on: Annotated[str, typer.Option(help="worse: exit with 1 where a duty is worse. never.")] = "never",
    alpha: Annotated[float, typer.Option(help="How often a family of duties may give a false alarm.")] = 0.05,
    power: Annotated[float, typer.Option(help="How surely a difference is to be seen.")] = 0.8,
    examples: Annotated[int, typer.Option(min=0, help="Dialogues named for each duty and direction.")] = EXAMPLES,
    policy: Annotated[str | None, typer.Option(help="Judge by this policy (YAML).", rich_help_panel=_DUTIES)] = None,
    checklists: Annotated[
        str | None, typer.Option(help="Judge by a labelled file of the same dialogue ids.", rich_help_panel=_DUTIES)
    ] = None,
    verdicts_a: Annotated[
        str | None,
        typer.Option(help="What cm2 judge wrote about A. Default: judge now, by checks.", rich_help_panel=_DUTIES),
    ] = None,
    verdicts_b: Annotated[str | None, typer.Option(help="The same of B.", rich_help_panel=_DUTIES)] = None,
    pair_by: Annotated[
        str | None,
        typer.Option(help="The field of meta that names a dialogue's task. Default: its id.", rich_help_panel=_DUTIES),
    ] = None,
    format: Annotated[str, typer.Option(help="auto, openai or nemotron.", rich_help_panel=_DUTIES)] = "auto",
    model_a: Annotated[
        str | None, typer.Option(help="A's model, as its endpoint knows it.", rich_help_panel=_DRIVE)
    ] = None,
    model_b: Annotated[str | None, typer.Option(help="B's. Default: as A.", rich_help_panel=_DRIVE)] = None,
    endpoint_a: Annotated[
        str | None, typer.Option(help="Where A's API starts: http://127.0.0.1:8000/v1.", rich_help_panel=_DRIVE)
    ] = None,
    endpoint_b: Annotated[str | None, typer.Option(help="B's. Default: as A.", rich_help_panel=_DRIVE)] = None,
    system_a: Annotated[
        str | None, typer.Option(help="A file: A's system prompt, not the tasks'.", rich_help_panel=_DRIVE)
    ] = None,
    system_b: Annotated[str | None, typer.Option(help="The same of B.", rich_help_panel=_DRIVE)] = None,
    key_a: Annotated[
        str, typer.Option(help="Environment variable with A's key.", rich_help_panel=_DRIVE)
    ] = "OPENAI_API_KEY",
    key_b: Annotated[str | None, typer.Option(help="B's. Default: as A.", rich_help_panel=_DRIVE)] = None,
    runs: Annotated[
        str | None, typer.Option(help="Folder of the rollouts (resumable).", rich_help_panel=_DRIVE)
    ] = None,
    group: Annotated[int, typer.Option(min=1, help="Runs of each task.", rich_help_panel=_DRIVE)] = 1,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many tasks.", rich_help_panel=_DRIVE)
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Of both. Default: the server's.", rich_help_panel=_DRIVE)
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Tokens of one action, of both.", rich_help_panel=_DRIVE)
    ] = None,
    max_steps: Annotated[int, typer.Option(help="Steps in one turn.", rich_help_panel=_DRIVE)] = 20,
    retries: Annotated[
        int, typer.Option(help="Further tries of a request that the provider failed.", rich_help_panel=_DRIVE)
    ] = 6,
    concurrency: Annotated[int, typer.Option(min=1, help="Rollouts at once.", rich_help_panel=_DRIVE)] = 16,
    seed: Annotated[int, typer.Option(help="Of worlds and sampling, the same for both.", rich_help_panel=_DRIVE)] = 0,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say what would be asked, and what it shows.", rich_help_panel=_DRIVE),
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print how many dialogues it takes; nothing is read.", rich_help_panel=_PLAN)
    ] = False,
    rate: Annotated[float | None, typer.Option(help="Pass rate of A.", rich_help_panel=_PLAN)] = None,
    lift: Annotated[
        float | None, typer.Option(help="The smallest change of the rate that matters.", rich_help_panel=_PLAN)
    ] = None,
    pairs: Annotated[
        int | None, typer.Option(min=1, help="What so many dialogues can show.", rich_help_panel=_PLAN)
    ] = None,
    correlation: Annotated[
        float | None, typer.Option(help="Of passing under A and under B (phi).", rich_help_panel=_PLAN)
    ] = None,
    discordance: Annotated[
        float | None, typer.Option(help="Share of dialogues that come out differently.", rich_help_panel=_PLAN)
    ] = None,
    as_json: Json = False,
) -> int:
    """Compare two agents on the same dialogues, duty by duty: better, worse, or could be chance. B is the new one."""
    from cm2.assure.compare import CompareConfig
    from cm2.errors import ConfigError

    given = sources or []
    if fail_on not in ("never", "worse"):
        raise ConfigError(f"--fail-on knows no {fail_on!r}", fix="use worse or never")
    for name, value in (("alpha", alpha), ("power", power)):
        if not 0 < value < 1:
            raise ConfigError(f"--{name} is {value:g}", fix="use a number between 0 and 1")
    if plan:
        plan_pairs(given, rate, lift, pairs, correlation, discordance, alpha, power, as_json)
        return 0
    if any(value is not None for value in (rate, lift, pairs, correlation, discordance)):
        raise ConfigError("--rate, --lift, --pairs, --correlation and --discordance plan", fix="add --plan")
    _writable(output or [])
    name_a, name_b = _names(names)
    config: dict[str, Any] = {"policy": policy, "checklists": checklists, "format": format}
    config |= {"name_a": name_a, "name_b": name_b, "alpha": alpha, "power": power, "examples": examples}
    spent: dict[str, Spent] = {}
    driving = [model_a, model_b, endpoint_a, endpoint_b, system_a, system_b, runs]
    if any(value is not None for value in driving) or dry_run:
        if len(given) != 1 or model_a is None or endpoint_a is None or (runs is None and not dry_run):
            what = "two endpoints play one file of tasks"
            raise ConfigError(
                what, fix="cm2 compare TASKS --endpoint-a URL --model-a NAME --model-b NAME --runs FOLDER"
            )
        if verdicts_a is not None or verdicts_b is not None or pair_by is not None:
            raise ConfigError("stores of verdicts and --pair-by are about dialogues that exist", fix="leave them out")
        who: dict[str, Any] = {"temperature": temperature, "max_tokens": max_tokens, "retries": retries}
        drive = _drive_config(
            given[0],
            runs or ".",
            (endpoint_a, model_a, system_a, key_a),
            (endpoint_b or endpoint_a, model_b or model_a, system_b, key_b or key_a),
            who,
            {"group": group, "limit": limit, "concurrency": concurrency, "seed": seed, "format": format},
            max_steps,
        )
        if dry_run:
            _dry(drive, alpha, power, as_json)
            return 0
        a, b, spent, whole = _driven(drive)
        if policy is None and checklists is None and whole:
            config["checklists"] = given[0]
        chosen = CompareConfig(a=a, b=b, **config)
    else:
        if len(given) != 2:
            fix = "cm2 compare A B, or TASKS with --endpoint-a and --model-a, or --plan"
            raise ConfigError(f"a comparison is of two; {len(given)} given", fix=fix)
        from cm2.harness.results import is_results

        if all(is_results(one) for one in given):
            from cm2.cli.compare_benchmark import compare_folders

            return compare_folders(given, (name_a, name_b), alpha, fail_on, output or [], as_json)
        chosen = CompareConfig(
            a=given[0], b=given[1], verdicts_a=verdicts_a, verdicts_b=verdicts_b, pair_by=pair_by, **config
        )
    found = _compare(chosen, as_json, output or [], spent)
    return 1 if fail_on == "worse" and found.changed("worse") else 0


def _compare(config: CompareConfig, as_json: bool, outputs: list[str], spent: dict[str, Spent]) -> Comparison:
    import msgspec

    from cm2.assure.compare import compare as run

    found = run(config, lambda rows: track(rows, "comparing"))
    summary = msgspec.to_builtins(found) | ({"spent": msgspec.to_builtins(spent)} if spent else {})
    for path in outputs:
        _write(path, found, summary)
    if as_json:
        emit(summary, as_json)
    else:
        from cm2.report.compare_terminal import money, shown

        emit(summary, as_json, [*shown(found), *money(spent)])
    return found


def _names(names: str) -> tuple[str, str]:
    from cm2.errors import ConfigError

    parts = [part.strip() for part in names.split(",")]
    if len(parts) != 2 or not all(parts) or parts[0] == parts[1]:
        raise ConfigError(f"--names {names!r} are not two names", fix="write them with a comma: old,new")
    return parts[0], parts[1]


def _writable(outputs: list[str]) -> None:
    from cm2.errors import ConfigError

    for path in outputs:
        if not path.endswith(SUFFIXES):
            raise ConfigError(f"{path} has no ending that says what to write", fix=f"end it in {', '.join(SUFFIXES)}")


def _write(path: str, found: Comparison, summary: dict[str, Any]) -> None:
    import msgspec

    from cm2.assure.gate_case import write_whole
    from cm2.formats.jsonlines import encode

    if path.endswith(".json"):
        content = msgspec.json.format(encode(summary), indent=2) + b"\n"
    elif path.endswith(".html"):
        from cm2.report.compare_page import page

        content = page(found).encode("utf-8", "replace")
    else:
        from cm2.report.compare_markdown import markdown

        content = markdown(found).encode("utf-8", "replace")
    write_whole(path, content)


def _drive_config(
    tasks: str,
    runs: str,
    a: tuple[str, str, str | None, str],
    b: tuple[str, str, str | None, str],
    who: dict[str, Any],
    settings: dict[str, Any],
    max_steps: int,
) -> DriveConfig:
    from cm2.assure.drive import Actor, DriveConfig, apart, read_prompt
    from cm2.llm import Endpoint
    from cm2.rollout.limits import Limits

    actors = [
        Actor(
            endpoint=Endpoint(base_url=url, model=model, key_variable=key, **who),
            system=None if system is None else read_prompt(system),
        )
        for url, model, system, key in (a, b)
    ]
    limits = Limits(steps=max_steps)
    found = DriveConfig(tasks=tasks, folder=runs, a=actors[0], b=actors[1], limits=limits, **settings)
    apart(found)
    return found


def _driven(config: DriveConfig) -> tuple[str, str, dict[str, Spent], bool]:
    from cm2.assure.drive import drive

    found = drive(config, lambda tasks, what: track(tasks, what))
    return found.a, found.b, found.spent, found.whole


def _dry(config: DriveConfig, alpha: float, power: float, as_json: bool) -> None:
    import msgspec

    from cm2.assure.drive import expected
    from cm2.report import compare_terminal as terminal

    asked = expected(config)
    least = least_seen(asked.tasks, None, alpha, power)
    shown = [terminal.asked(asked), terminal.least(asked.tasks, least, alpha, power)]
    emit(msgspec.to_builtins(asked) | {"detectable": least}, as_json, shown)
