"""`cm2 filter IN -o KEPT --rejected FILE`: which rows are dialogues worth having, and what is wrong with the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from cm2.cli.common import Json, emit, track
from cm2.cli.models import BaseUrl, Budget, CacheFile, DryRun, ModelName, ModelsFile, Settings
from cm2.cli.scale import AT_ONCE, AtOnce, Engine
from cm2.errors import ConfigError

if TYPE_CHECKING:
    from cm2.curate.filter import FilterConfig, Summary


def register(app: typer.Typer) -> None:
    """Add the verb `filter`."""

    @app.command()
    def filter(
        source: Annotated[str, typer.Argument(metavar="IN", help="Rows: .jsonl (.gz, .zst), Parquet or a folder.")],
        output: Annotated[str, typer.Option("-o", "--output", help="Rows that pass, as they stood.")],
        rejected: Annotated[str, typer.Option(help="Rows that do not, with line and violations.")],
        flagged: Annotated[str | None, typer.Option(help="What is odd about rows that pass.")] = None,
        profile: Annotated[
            str | None, typer.Option(help="default (real logs) or published (training data); default: default.")
        ] = None,
        rules: Annotated[str | None, typer.Option(help="Only these rules, by commas: schema,role_order,…")] = None,
        without: Annotated[str | None, typer.Option(help="Leave these rules out, by commas.")] = None,
        repair: Annotated[
            str | None, typer.Option(help="Repair first, by commas: wrap_plain_text,move_reasoning,…")
        ] = None,
        llm: Annotated[
            bool, typer.Option("--llm", help="Ask a model about what the rules keep: strict yes or no.")
        ] = False,
        passes: Annotated[
            str | None, typer.Option(help="Passes of the model by effort, until the first no: low:2,medium:2,high:2.")
        ] = None,
        set_aside: Annotated[
            str | None,
            typer.Option(help="Rows whose answer was lost, with the reason. Default: KEPT.unscored.jsonl."),
        ] = None,
        config: Annotated[str | None, typer.Option(help="Recipe: a YAML file with these settings.")] = None,
        models: ModelsFile = None,
        base_url: BaseUrl = None,
        model: ModelName = None,
        settings: Settings = None,
        cache: CacheFile = None,
        budget: Budget = None,
        dry_run: DryRun = False,
        concurrency: AtOnce = None,
        engine: Engine = "local",
        as_json: Json = False,
    ) -> None:
        """Apply the rules; kept, rejected and unscored rows make up what was read. Exit 0 also when rows are rejected.

        With --llm a model judges what the rules keep, pass by pass until its first no; see docs/curate.md.
        """
        import msgspec

        from cm2.cli.models import open_models, spending_table
        from cm2.cli.progress import count_rows, spending_track
        from cm2.cli.scale import over_shards, shard_models
        from cm2.curate.filter import FilterConfig, filter_file
        from cm2.train.settings import load

        flags: dict[str, Any] = {
            "input": source,
            "output": output,
            "rejected": rejected,
            "flagged": flagged,
            "profile": profile,
            "rules": _names(rules),
            "without": _names(without),
            "repair": _names(repair),
            "llm": llm or None,
            "passes": passes,
            "set_aside": set_aside,
            "dry": dry_run or None,
        }
        made = load(FilterConfig, config, flags)
        if not made.llm:
            if dry_run:
                raise ConfigError("--dry-run plans what models cost, and rules cost nothing", fix="add --llm")
            ignored = {"--passes": passes, "--set-aside": set_aside, "--model": model, "--budget": budget}
            if given := [name for name, value in ignored.items() if value is not None]:
                raise ConfigError(f"{given[0]} is about asking a model, and none is asked", fix="add --llm")
            if engine != "local":
                over_shards("filter", made, engine, as_json, lambda summary: _shown(summary, made))
                return
            summary = filter_file(made, progress=lambda rows: track(rows, "filtering"))
            emit(summary.as_json(), as_json, _shown(summary, made))
            return
        made.width = 4 * (concurrency or AT_ONCE)
        if engine != "local":
            config_of = shard_models(
                "filter", models, base_url, model, cache, budget, dry_run, concurrency, None, settings
            )
            over_shards("filter", made, engine, as_json, lambda summary: _shown(summary, made), config_of)
            return
        with open_models(
            "filter", models, base_url, model, cache, budget, dry_run, concurrency, output, settings
        ) as door:
            spending = door.planned if dry_run else door.spent
            total = count_rows(source)
            summary = filter_file(
                made, lambda rows: spending_track(rows, "filtering", total, lambda: spending.cost), door
            )
            emit(
                summary.as_json() | {"spending": msgspec.to_builtins(spending)},
                as_json,
                [*_shown(summary, made), spending_table(door)],
            )


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _shown(summary: Summary, config: FilterConfig) -> list[Any]:
    """The summary for a person."""
    counts = f"{summary.kept} kept, {summary.rejected} rejected"
    if summary.llm is not None:
        counts += f", {summary.unscored} unscored"
    table = Table(title=f"{summary.read} rows read, {counts}")
    for name in ("", "rule", "rows", "first"):
        table.add_column(name, justify="right" if name == "rows" else "left", overflow="fold")
    for kind, found in (("rejected", summary.rules), ("flagged", summary.flags)):
        for name, count in sorted(found.items(), key=lambda pair: -pair[1]):
            table.add_row(kind, name, str(count), escape(summary.examples[name]))
    for name, count in summary.repairs.items():
        table.add_row("repaired", name, str(count), "")
    parts: list[Any] = [table if table.row_count else table.title]
    if summary.llm is not None:
        parts.append(_passes(summary))
    if config.dry:
        return [*parts, "a dry run: nothing was asked or written"]
    parts.append(f"kept rows: {config.output}; rejected rows with their violations: {config.rejected}")
    if summary.flagged:
        told = "" if config.flagged else " (--flagged FILE tells each)"
        parts.append(f"{summary.flagged} kept rows are flagged{told}")
    if summary.unscored:
        parts.append(
            f"{summary.unscored} rows without a verdict were set aside in {config.unscored}; the same command asks "
            "only what is missing"
        )
    return parts


def _passes(summary: Summary) -> Table:
    judged = summary.llm
    assert judged is not None
    title = (
        f"{judged.rows} rows asked about, {judged.calls} calls ({judged.cached} from the cache), "
        f"{judged.early_exits} early exits"
    )
    table = Table(title=title)
    for name in ("pass", "effort", "asked", "yes", "no", "lost"):
        table.add_column(name, justify="left" if name == "effort" else "right")
    for number, one in enumerate(judged.passes, 1):
        table.add_row(str(number), one.effort, *map(str, (one.asked, one.yes, one.no, one.lost)))
    if judged.lost:
        owners = ", ".join(f"{count} of the {owner}" for owner, count in sorted(judged.owners.items()))
        table.caption = escape(f"lost: {owners}; the first: {judged.lost}")
    return table
