"""`cm2 judge IN -o VERDICTS`: what the agent did, item by item and step by step."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cm2.cli.common import Json, add_column, emit, track
from cm2.cli.models import BaseUrl, Budget, CacheFile, Concurrency, DryRun, ModelName, ModelsFile, Settings
from cm2.cli.scale import Engine

if TYPE_CHECKING:
    from cm2.judge.judging import Judging
    from cm2.judge.run import JudgeConfig, Summary
    from cm2.llm import Models, Spending


def register(app: typer.Typer) -> None:
    """Add the verb `judge`."""

    @app.command()
    def judge(
        source: Annotated[str, typer.Argument(metavar="IN", help="Dialogues: .jsonl, .jsonl.gz, Parquet or a folder.")],
        output: Annotated[str, typer.Option("-o", "--output", help="The store of verdicts (JSONL, resumable).")],
        checklists: Annotated[
            str | None, typer.Option(help="A labelled file to judge by (same dialogue ids), when IN has no checklists.")
        ] = None,
        policy: Annotated[
            str | None, typer.Option(help="A policy (YAML) to judge by, in place of checklists; see cm2 lint.")
        ] = None,
        kind: Annotated[
            str | None, typer.Option("--judge", help="checks (default), llm, hybrid, vote or classifier.")
        ] = None,
        schedule: Annotated[
            str | None,
            typer.Option(help="Calls of a model: one a turn (default), dialogue, step or item, or published."),
        ] = None,
        isolate: Annotated[
            str | None, typer.Option(help="subjective: a call of its own for each item that is a matter of taste.")
        ] = None,
        votes: Annotated[
            int | None, typer.Option(min=1, help="--judge vote: judgements of one model. Default 3.")
        ] = None,
        quorum: Annotated[
            int | None, typer.Option(min=1, help="--judge vote: fewer judgements leave an item unscored.")
        ] = None,
        panel: Annotated[
            list[str] | None, typer.Option(help="--judge vote: models file of a further judge. Repeat it for more.")
        ] = None,
        checks: Annotated[
            bool | None, typer.Option("--checks/--no-checks", help="vote, classifier: let checks decide their items.")
        ] = None,
        classifier: Annotated[
            str | None, typer.Option(help="--judge classifier: the file of the trained model.")
        ] = None,
        judging: Annotated[str | None, typer.Option(help="YAML file of these settings; flags win.")] = None,
        models: ModelsFile = None,
        base_url: BaseUrl = None,
        model: ModelName = None,
        settings: Settings = None,
        cache: CacheFile = None,
        budget: Budget = None,
        concurrency: Concurrency = 16,
        dry_run: DryRun = False,
        engine: Engine = "local",
        format: Annotated[str, typer.Option(help="auto, openai or nemotron.")] = "auto",
        as_json: Json = False,
    ) -> None:
        """Judge dialogues by checks, by a language model, or by both; unscored is never a no."""
        from cm2.cli.scale import over_shards, shard_models
        from cm2.errors import ConfigError
        from cm2.judge.judging import load_judging
        from cm2.judge.run import JudgeConfig, judge_file

        given = {"kind": kind, "schedule": schedule, "isolate": isolate, "votes": votes, "quorum": quorum}
        who = load_judging(judging, **given, checks=checks, classifier=classifier)
        config = JudgeConfig(source, output, checklists, policy, format, concurrency, who)
        settings = _settings(who, settings or [])
        if panel and (who.kind != "vote" or engine != "local"):
            raise ConfigError("a panel votes, and over one file at a time", fix="use --judge vote, without --engine")
        if dry_run and not who.asks:
            raise ConfigError("--dry-run plans what models cost, and checks cost nothing", fix="add --judge llm")
        if engine != "local":
            flags = (models, base_url, model, cache, budget, dry_run, concurrency, None, settings)
            asked = shard_models("judge", *flags) if who.asks else None
            over_shards("judge", config, engine, as_json, lambda summary: _shown(summary, output), asked)
            return
        if not who.asks:
            summary = judge_file(config, progress=lambda tasks: track(tasks, "judging"))
            emit(summary.as_json(), as_json, _shown(summary, output))
            return
        share = None if budget is None else budget / (1 + len(panel or []))  # all judges together
        asking: dict[str, Any] = {"cache": cache, "budget": share, "dry_run": dry_run, "concurrency": concurrency}
        asking |= {"output": output, "settings": settings}
        judges: list[dict[str, Any]] = [
            {"models": models, "base_url": base_url, "model": model},
            *({"models": file} for file in panel or []),
        ]
        _ask(config, [asking | judge for judge in judges], as_json)


def _settings(who: Judging, settings: list[str]) -> list[str]:
    """What is set of the models: the published schedule samples as the paper does, unless somebody says otherwise."""
    from cm2.judge.judging import PUBLISHED_SAMPLING

    if who.schedule != "published":
        return settings
    return [f"judge.{name}={value}" for name, value in PUBLISHED_SAMPLING.items()] + settings


def _ask(config: JudgeConfig, judges: list[dict[str, Any]], as_json: bool) -> None:
    """Judge a file by the models that these flags of `open_models` open."""
    import msgspec

    from cm2.cli.models import open_models, spending_table
    from cm2.cli.progress import count_rows, spending_track
    from cm2.judge.make import make_judge
    from cm2.judge.run import judge_file

    with ExitStack() as stack:
        doors = [stack.enter_context(open_models("judge", **flags)) for flags in judges]
        dry = doors[0].dry
        total = count_rows(config.input)
        judge = make_judge(config.judging, doors)
        summary = judge_file(
            config,
            judge,
            lambda tasks: spending_track(tasks, "judging", total, lambda: sum(_spending(door).cost for door in doors)),
            dry=dry,
        )
        told = {"dialogues": summary.dialogues, "turns": summary.turns} if dry else summary.as_json()
        stages = {name: stage for door in doors for name, stage in _spending(door).stages.items()}
        spent = msgspec.structs.replace(_spending(doors[0]), stages=stages)
        shown = [] if dry else _shown(summary, config.output)
        saved = getattr(getattr(judge, "inner", judge), "saved", None)
        if saved is not None:
            told["classifier"] = msgspec.to_builtins(saved)
            shown.append(
                f"the local model decided {saved.decided} of {saved.items} items; "
                f"{saved.turns_without_call} of {saved.turns} turns needed no call"
            )
            if saved.compared:
                shown.append(f"asked all the same about {saved.compared} of them: {saved.agreement:.1%} agree")
        emit(told | {"spending": msgspec.to_builtins(spent)}, as_json, [*shown, *map(spending_table, doors)])


def _spending(door: Models) -> Spending:
    return door.planned if door.dry else door.spent


def _shown(summary: Summary, output: str) -> list[Any]:
    """The summary for a person."""
    table = Table(title=f"{summary.dialogues} dialogues, {summary.turns} turns, {summary.verdicts} verdicts")
    kind = "duty" if summary.by_policy else "kind"
    reached = () if summary.by_policy else ("not reached",)  # a policy's duties are about what there is
    for name in (kind, "items", "passed", "failed", *reached, "unscored", "n/a", "pass rate"):
        add_column(table, name, right=name != kind)
    for name, tally in [*sorted(summary.kinds.items()), ("all", summary.total)]:
        rate = "–" if tally.pass_rate is None else f"{tally.pass_rate:.1%}"
        columns = (tally.items, tally.passed, tally.failed, *([tally.not_reached] if reached else ()))
        columns += (tally.unscored, tally.not_applicable)
        table.add_row(name, *map(str, columns), rate)
    notes = [f"{summary.written} new verdicts written to {output}"]
    notes += [f"unscored, {kind}: {count} items" for kind, count in sorted(summary.unscored.items())]
    if summary.failed:
        notes.append(f"{summary.failed} of them a model or its provider failed to decide: the same command tries again")
    counts = summary.counts
    if counts.calls or counts.cached or counts.skipped:
        notes.append(
            f"{counts.calls} calls ({counts.again} of them second chances) and {counts.cached} answers from the cache; "
            f"without a call: {counts.remembered} items seen before, {counts.skipped} that cannot hold"
        )
    if summary.without_checklist:
        notes.append(f"{summary.without_checklist} dialogues have no checklist")
    if summary.duplicates:
        notes.append(f"{summary.duplicates} dialogues repeat an id; their verdicts carry rollout 2, 3 …")
    if summary.unreadable:
        notes.append(f"{summary.unreadable} lines do not read: " + "; ".join(summary.problems))
    return [table, *notes]
