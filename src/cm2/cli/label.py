"""`cm2 label IN -o OUT`: checklists for reference dialogues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer
from rich.markup import escape
from rich.table import Table

from cm2.cli.common import Json, emit, track
from cm2.cli.models import (
    BaseUrl,
    Budget,
    CacheFile,
    Concurrency,
    DryRun,
    ModelName,
    ModelsFile,
    Settings,
    open_models,
    spending_table,
)
from cm2.cli.scale import Engine
from cm2.errors import ConfigError

if TYPE_CHECKING:
    from cm2.label.label_run import LabelSummary


def register(app: typer.Typer) -> None:
    """Add the verb `label`."""

    @app.command()
    def label(
        source: Annotated[
            str, typer.Argument(metavar="IN", help="Dialogues: .jsonl (.gz, .zst), Parquet or a folder.")
        ],
        output: Annotated[str, typer.Option("-o", "--output", help="The same rows with checklists.")],
        labeler: Annotated[
            str,
            typer.Option(
                help="reference: from the data flow, no LLM; effects: what the whole dialogue changed, for other "
                "runs of the task, no LLM; llm: by a model; hybrid: reference, then a model."
            ),
        ] = "reference",
        ids: Annotated[
            Literal["same", "origin"],
            typer.Option(help="Of effects: other runs start from the same data (same), or get other ids (origin)."),
        ] = "same",
        jobs: Annotated[int, typer.Option("--jobs", "-j", help="Worker processes of reference and effects.")] = 1,
        format: Annotated[str, typer.Option(help="auto, openai or nemotron.")] = "auto",
        checklists: Annotated[int, typer.Option(min=1, help="Independent checklists of every turn.")] = 1,
        per: Annotated[
            Literal["turn", "dialogue"], typer.Option(help="One question a turn, or one for all turns of a dialogue.")
        ] = "turn",
        most_items: Annotated[int, typer.Option(min=1, help="Items that a model may give a turn.")] = 12,
        thinking: Annotated[bool, typer.Option(help="Show a model the reference's private thinking.")] = True,
        tools: Annotated[int, typer.Option(min=0, help="Tools of a dialogue that a model is shown.")] = 64,
        cut: Annotated[
            int | None, typer.Option(min=100, help="Characters of a tool response that a model is shown.")
        ] = None,
        repair_checks: Annotated[bool, typer.Option(help="Also ask again for checks that lint refuses.")] = False,
        set_aside: Annotated[
            str | None, typer.Option("--set-aside", help="Rows without an answer. Default: OUTPUT.unscored.jsonl.")
        ] = None,
        models: ModelsFile = None,
        base_url: BaseUrl = None,
        model: ModelName = None,
        settings: Settings = None,
        cache: CacheFile = None,
        budget: Budget = None,
        dry_run: DryRun = False,
        concurrency: Concurrency = 32,
        engine: Engine = "local",
        as_json: Json = False,
    ) -> None:
        """Write checklists with compiled checks that hold on their own reference; `cm2 lint OUT` confirms it."""
        from cm2.label.config import Drafting
        from cm2.label.label_run import MODEL_LABELERS, LabelConfig, label_file

        config = LabelConfig(
            input=source,
            output=output,
            labeler=labeler,
            ids=ids,
            jobs=jobs,
            format=format,
            set_aside=set_aside,
            drafting=Drafting(
                checklists=checklists,
                per=per,
                most_items=most_items,
                thinking=thinking,
                tools=tools,
                cut=cut,
                repair_checks=repair_checks,
                width=concurrency,
            ),
        )
        if dry_run and labeler not in MODEL_LABELERS:
            fix = f"add --labeler {' or '.join(MODEL_LABELERS)}"
            raise ConfigError(f"--dry-run plans what a model costs, and {labeler} asks none", fix=fix)
        models_flags = (models, base_url, model, cache, budget, dry_run, concurrency)
        if engine != "local":
            from cm2.cli.scale import over_shards, shard_models

            asked = shard_models("labeler", *models_flags, None, settings) if labeler in MODEL_LABELERS else None
            over_shards("label", config, engine, as_json, lambda summary: _shown(summary, output), asked)
            return
        if labeler not in MODEL_LABELERS:
            summary = label_file(config, lambda rows: track(rows, "labelling"))
            emit(summary.as_json(), as_json, _shown(summary, output))
            return
        from cm2.cli.progress import count_rows, spending_track

        with open_models("labeler", *models_flags, output, settings) as door:
            spending, total = door.planned if dry_run else door.spent, count_rows(source)

            def progress(rows: Any) -> Any:
                return spending_track(rows, "labelling", total, lambda: spending.cost)

            summary = label_file(config, progress, door, dry_run)
            told = {**summary.as_json(), "spending": msgspec.to_builtins(spending)}
            shown = [spending_table(door)] if dry_run else [*_shown(summary, output), spending_table(door)]
        emit(told, as_json, shown)


def _shown(summary: LabelSummary, output: str) -> list[Any]:
    """What the summary looks like on a terminal."""
    mean = summary.as_json()["items_per_turn"]
    where = f"{summary.labelled_turns} turns of {summary.dialogues} dialogues"
    if summary.whole:
        where = f"{summary.whole} of {summary.dialogues} dialogues, each about the whole"
    kinds = Table(title=f"{summary.items} items in {where}")
    for name in ("kind", "items", "share"):
        kinds.add_column(name, justify="left" if name == "kind" else "right")
    for kind, count in sorted(summary.kinds.items(), key=lambda pair: -pair[1]):
        kinds.add_row(kind, str(count), f"{count / summary.items:.1%}")
    left_out = Table(title="left out")
    for name in ("what", "reason", "count"):
        left_out.add_column(name, justify="right" if name == "count" else "left", overflow="fold")
    for what, counts in (
        ("turn", summary.turns_out),
        ("item", summary.items_out),
        ("check", summary.checks_out),
        ("unlabelled turn", summary.unlabelled),
    ):
        for reason, count in sorted(counts.items(), key=lambda pair: -pair[1]):
            left_out.add_row(what, reason, str(count))
    notes = (
        []
        if summary.whole
        else [
            f"{summary.labelled_turns} turns with a checklist ({mean:.1f} items each), "
            f"{summary.turns - summary.labelled_turns} without; {summary.strict} strict items, "
            f"{summary.dependent} that depend on others"
        ]
    )
    if summary.proposed:
        notes.append(
            f"{summary.proposed} items proposed, {summary.repaired} kept after a second question, "
            f"{summary.merged} merged; {summary.with_check} of {summary.items} items are judged by code"
        )
    if summary.set_aside:
        notes.append(f"rows set aside without an answer: {summary.set_aside} (the same command asks for them again)")
    if summary.without_checklist:
        notes.append(f"{summary.without_checklist} dialogues have no checklist")
    if summary.unreadable:
        notes.append(escape(f"{summary.unreadable} rows do not read: " + "; ".join(summary.problems)))
    notes.append(f"written to {escape(output)}")
    return [kinds, left_out, *notes]
