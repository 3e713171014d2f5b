"""`cm2 worlds make`: dialogues of executable sample worlds, for machines without data."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from cm2.cli.common import Json, emit, track


def register(app: typer.Typer) -> None:
    """Add the verb `worlds`."""
    worlds = typer.Typer(no_args_is_help=True, help="Sample worlds: executable domains that make dialogues.")
    app.add_typer(worlds, name="worlds")

    @worlds.callback()
    def root() -> None:
        """Sample worlds: executable domains that make dialogues, reference answers and true outcomes."""

    @worlds.command()
    def make(
        output: Annotated[str, typer.Option("-o", "--output", help="Rows in the OpenAI format (JSONL, .gz, Parquet).")],
        count: Annotated[int, typer.Option("-n", "--count", help="How many dialogues.")] = 1000,
        seed: Annotated[int, typer.Option(help="Other seeds give other dialogues.")] = 0,
        split: Annotated[str, typer.Option(help="train, heldout (other worlds) or unseen (other domains).")] = "train",
        profile: Annotated[str, typer.Option(help="full, or short: one turn, two calls, for small models.")] = "full",
        domains: Annotated[str, typer.Option(help="Only these domains (comma-separated).")] = "",
        thinking: Annotated[
            bool | None, typer.Option(help="Private thinking in every step. Default: in the full profile only.")
        ] = None,
        two_turns: Annotated[float, typer.Option(help="Share of short dialogues with a second turn.")] = 0.0,
        as_json: Json = False,
    ) -> None:
        """Write reference dialogues that were played in executable worlds; each row can rebuild its world."""
        from cm2.errors import ConfigError
        from cm2.worlds import MakeConfig
        from cm2.worlds.file import make_file

        names = tuple(name.strip() for name in domains.split(",") if name.strip())
        if domains and not names:
            raise ConfigError(
                f"--domains {domains!r} names no domain", fix="name some by commas, or leave it out for all"
            )
        config = MakeConfig(
            count=count,
            seed=seed,
            split=split,
            profile=profile,
            domains=names,
            thinking=thinking,
            two_turns=two_turns,
        )
        summary = make_file(config, output, lambda rows: track(rows, "making dialogues", count))
        table = Table(title=f"{summary['dialogues']} dialogues, {profile} profile, split {split}")
        for name in ("domain", "dialogues", "turns", "steps", "calls", "refusals"):
            table.add_column(name, justify="left" if name == "domain" else "right")
        for name, counts in summary["domains"].items():
            table.add_row(name, *(str(counts[key]) for key in ("dialogues", "turns", "steps", "calls", "refusals")))
        table.add_row("all", *(str(summary[key]) for key in ("dialogues", "turns", "steps", "calls", "refusals")))
        emit(summary, as_json, table)
