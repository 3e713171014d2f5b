"""`cm2 compress IN -o OUT`: the assistant's thinking, shorter where that is safe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from cm2.cli.common import Json, emit
from cm2.cli.models import BaseUrl, Budget, CacheFile, DryRun, ModelName, ModelsFile, Settings
from cm2.cli.scale import AT_ONCE, AtOnce, Engine
from cm2.errors import ConfigError

if TYPE_CHECKING:
    from cm2.curate.compress import CompressConfig, CompressSummary


def register(app: typer.Typer) -> None:
    """Add the verb `compress`."""

    @app.command()
    def compress(
        source: Annotated[
            str, typer.Argument(metavar="IN", help="Dialogues: .jsonl (.gz, .zst), Parquet or a folder.")
        ],
        output: Annotated[str, typer.Option("-o", "--output", help="The same rows with shorter thinking.")],
        whole: Annotated[
            int, typer.Option(min=1, help="Characters of thinking in one question; of more, one question a turn.")
        ] = 24_000,
        originals: Annotated[bool, typer.Option(help="Keep in each changed row what its messages held before.")] = True,
        tokenizer: Annotated[
            str | None, typer.Option(help="'Shorter' also in tokens of this tokenizer (a folder, name or 'embedded').")
        ] = None,
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
        """Rewrite thinking shorter; a section whose short form loses or invents something stays as it was."""
        import msgspec

        from cm2.cli.models import open_models, spending_table
        from cm2.cli.progress import count_rows, spending_track
        from cm2.cli.scale import over_shards, shard_models
        from cm2.curate.compress import CompressConfig, compress_file

        config = CompressConfig(source, output, whole, originals, 4 * (concurrency or AT_ONCE), dry_run)
        flags = (models, base_url, model, cache, budget, dry_run, concurrency)
        if engine != "local":
            if tokenizer is not None:
                raise ConfigError("--tokenizer does not go with --engine", fix="leave one of them out")
            role = shard_models("compressor", *flags, None, settings)
            over_shards("compress", config, engine, as_json, lambda summary: _shown(summary, config), role)
            return
        count: Any = len
        if tokenizer is not None:
            from cm2.train.counting import token_counter

            count = token_counter(tokenizer)
        with open_models("compressor", *flags, output, settings) as door:
            spending = door.planned if dry_run else door.spent
            total = count_rows(source)
            summary = compress_file(
                config, door, lambda rows: spending_track(rows, "compressing", total, lambda: spending.cost), count
            )
            value = summary.as_json() | {"spending": msgspec.to_builtins(spending)}
            emit(value, as_json, [*_shown(summary, config), spending_table(door)])


def _shown(summary: CompressSummary, config: CompressConfig) -> list[Any]:
    """The summary for a person."""
    from cm2.curate.faithful import FAULTS

    notes: list[Any] = [f"{summary.sections} sections of thinking in {summary.rows} rows"]
    if config.dry:
        notes.append("a dry run: nothing was asked or written")
    else:
        table = Table(title=notes.pop())
        for name in ("sections", "what became of them"):
            table.add_column(name, justify="right" if name == "sections" else "left")
        table.add_row(str(summary.rewritten), "rewritten")
        for reason, kept in sorted(summary.kept.items(), key=lambda pair: -pair[1]):
            table.add_row(str(kept), f"kept: {FAULTS[reason]} ({reason})")
        for owner, lost in sorted(summary.owners.items()):
            table.add_row(str(lost), escape(f"kept: no answer ({owner}), the first: {summary.lost}"))
        notes.append(table)
        share = summary.as_json()["characters_share"]
        if share is not None:
            notes.append(f"{share:.0%} of {summary.characters:,} characters of thinking are left")
        notes.append(f"written to {config.output}")
    if summary.unreadable:
        notes.append(escape(f"{summary.unreadable} rows are no dialogues: " + "; ".join(summary.problems)))
    return notes
