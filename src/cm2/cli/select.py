"""`cm2 select IN -o DIR`: which rows to train on, and which to hold out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from cm2.cli.common import Json, emit, track

if TYPE_CHECKING:
    from cm2.curate.select import SelectSummary
    from cm2.curate.selection import SelectConfig


def register(app: typer.Typer) -> None:
    """Add the verb `select`."""

    @app.command()
    def select(
        source: Annotated[
            str, typer.Argument(metavar="IN", help="Dialogues: .jsonl (.gz, .zst), Parquet or a folder.")
        ],
        output: Annotated[
            str, typer.Option("-o", "--output", help="A folder: one file a split, summary.json, splits.png.")
        ],
        config: Annotated[
            str | None, typer.Option(help="Recipe: a YAML file with splits and settings. Default: 8k, 8k, 500.")
        ] = None,
        sizes: Annotated[
            str | None, typer.Option(help="Other sizes of the recipe's splits: sft=800,rl=800,heldout=50.")
        ] = None,
        shrink: Annotated[
            bool | None, typer.Option(help="With too few rows make all splits smaller in proportion.")
        ] = None,
        seed: Annotated[int | None, typer.Option(help="Of every draw; default 0.")] = None,
        near: Annotated[
            float | None, typer.Option(help="Resemblance from which rows are duplicates; 0: exact ones only.")
        ] = None,
        unseen_tools: Annotated[
            bool, typer.Option("--unseen-tools", help="Held-out rows call tools that training rows never see.")
        ] = False,
        form: Annotated[str | None, typer.Option(help="jsonl, jsonl.gz, jsonl.zst or parquet.")] = None,
        tokenizer: Annotated[
            str | None, typer.Option(help="Count tokens with this tokenizer (a folder, a name, or 'embedded').")
        ] = None,
        format: Annotated[str | None, typer.Option(help="auto, openai or nemotron.")] = None,
        plot: Annotated[bool | None, typer.Option(help="Draw splits.png.")] = None,
        as_json: Json = False,
    ) -> None:
        """Split by complexity, without duplicates: nothing in one split nearly repeats anything in another."""
        from cm2.curate.select import select_file
        from cm2.curate.selection import SelectConfig, with_sizes, with_unseen_tools
        from cm2.train.settings import load

        count = None
        if tokenizer is not None:
            from cm2.train.counting import token_counter

            count = token_counter(tokenizer)
        flags: dict[str, Any] = {"input": source, "output": output, "shrink": shrink, "seed": seed, "form": form}
        made = load(SelectConfig, config, flags | {"format": format, "plot": plot, "near": near or None})
        if near == 0:
            made.near = None
        if sizes is not None:
            made.splits = with_sizes(made.splits, sizes)
        if unseen_tools:
            made.splits = with_unseen_tools(made.splits)
        selected = select_file(made, track, count)
        notes: list[Any] = [f"written to {output}"]
        if made.plot:
            from cm2.curate.select_figure import draw_selection

            notes.append(f"figure: {draw_selection(selected, made)}")
        emit(selected.summary.as_json(), as_json, [_table(selected.summary), *_told(selected.summary, made), *notes])


def _table(summary: SelectSummary) -> Table:
    from cm2.curate.features import NUMBERS

    table = Table(title=f"{summary.rows:,} rows, means and 95th percentiles")
    names = list(summary.splits)
    table.add_column("")
    for name in ("all", *names):
        table.add_column(name, justify="right")
    every = [summary.all, *summary.splits.values()]
    table.add_row("rows", *(f"{split.rows:,}" for split in every))
    table.add_row("wanted", "", *("all" if s.wanted is None else f"{s.wanted:,}" for s in summary.splits.values()))
    table.add_row("rows that qualify", "", *(f"{split.passed:,}" for split in summary.splits.values()))
    table.add_row("complexity", *("–" if s.complexity is None else f"{s.complexity:.2f}" for s in every))
    table.add_row("distinct tools called", *(f"{split.tools:,}" for split in every))
    for name, told in NUMBERS.items():
        cells = [split.numbers[name] for split in every]
        table.add_row(told, *("–" if c["mean"] is None else f"{c['mean']:,.1f} ({c['p95']:,})" for c in cells))
    return table


def _told(summary: SelectSummary, config: SelectConfig) -> list[str]:
    told = [f"left out: {count:,} × {reason}" for reason, count in summary.left_out.items()]
    told.append(f"{summary.not_chosen:,} rows that could be used are in no split")
    if summary.groups:
        told.append(f"{summary.groups:,} groups of near-duplicates, the largest of {summary.largest_group:,} rows")
    fix = "" if config.shrink else " (--shrink keeps the proportions)"
    for name, split in summary.splits.items():
        if split.wanted is not None and split.rows < split.wanted:
            told.append(f"{name} is short: {split.rows:,} of {split.wanted:,} rows{fix}")
    if any(split.unseen_tools for split in config.splits):
        common = f"none: more than {config.unseen_share:.0%} of the rows see each (unseen_share)"
        tools = ", ".join(summary.unseen_tools[:10]) or common
        told.append(escape(f"tools that training never sees: {tools}{', …' if len(summary.unseen_tools) > 10 else ''}"))
    told += [escape(problem) for problem in summary.problems]
    return told
