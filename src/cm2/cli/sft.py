"""`cm2 sft IN -o RUN`: a cold start, fine-tuning on the agent's part of dialogues."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from cm2.cli.common import Json, emit, track


def register(app: typer.Typer) -> None:
    """Add the verb `sft`."""

    @app.command()
    def sft(
        source: Annotated[str, typer.Argument(metavar="IN", help="Dialogues: .jsonl, .jsonl.gz, Parquet or a folder.")],
        output: Annotated[str, typer.Option("-o", "--output", metavar="RUN", help="The run folder (resumable).")],
        config: Annotated[str | None, typer.Option(metavar="YAML", help="Settings from a file; flags win.")] = None,
        model: Annotated[str | None, typer.Option(help='"embedded" (default), a Hugging Face folder or name.')] = None,
        epochs: Annotated[float | None, typer.Option(help="Passes over the data. Default 2.")] = None,
        lr: Annotated[float | None, typer.Option(help="Peak learning rate. Default 1e-5.")] = None,
        schedule: Annotated[str | None, typer.Option(help="cosine (default), linear or constant.")] = None,
        warmup: Annotated[float | None, typer.Option(help="Share of the steps that warm up. Default 0.1.")] = None,
        batch: Annotated[int | None, typer.Option(help="Dialogues a step. Default 16.")] = None,
        micro_batch: Annotated[int | None, typer.Option(help="Dialogues at once in memory. Default 4.")] = None,
        max_tokens: Annotated[
            int | None, typer.Option(help="Longer dialogues are cut after a step. Default 4096.")
        ] = None,
        lora: Annotated[int | None, typer.Option(help="Rank of LoRA adapters; 0 (default) trains all weights.")] = None,
        limit: Annotated[int | None, typer.Option(help="Only the first so many dialogues.")] = None,
        seed: Annotated[int | None, typer.Option(help="Order of the data, start of the adapters. Default 0.")] = None,
        save_every: Annotated[float | None, typer.Option(help="Seconds between checkpoints. Default 300.")] = None,
        format: Annotated[str | None, typer.Option(help="auto (default), openai or nemotron.")] = None,
        as_json: Json = False,
    ) -> None:
        """Fine-tune a model on the assistant's tokens of dialogues: thinking, calls and replies."""
        from cm2.train import settings
        from cm2.train.sft import SftConfig, train_sft

        flags = {
            "input": source,
            "output": output,
            "model": model,
            "epochs": epochs,
            "lr": lr,
            "schedule": schedule,
            "warmup": warmup,
            "batch": batch,
            "micro_batch": micro_batch,
            "max_tokens": max_tokens,
            "lora": lora,
            "limit": limit,
            "seed": seed,
            "save_every": save_every,
            "format": format,
        }
        summary = train_sft(settings.load(SftConfig, config, flags), progress=lambda tasks: track(tasks, "reading"))
        done = "finished before; nothing to do" if summary["finished_before"] else f"{summary['steps']} steps"
        table = Table(title=f"{summary['run']}: {done}")
        table.add_column("")
        table.add_column("", justify="right")
        table.add_row("dialogues trained", f"{summary['examples']} of {summary['dialogues']}")
        for name, count in (
            ("cut at a step to fit", summary["cut"]),
            ("left out: no step fits", summary["too_long"]),
            ("left out: no assistant message", summary["without_actions"]),
            ("unreadable lines", summary["unreadable"]),
        ):
            if count:
                table.add_row(name, str(count))
        table.add_row("loss, first step → last tenth", f"{summary['first_loss']:.3f} → {summary['last_loss']:.3f}")
        table.add_row("tokens (with loss)", f"{summary['tokens']:,} ({summary['loss_tokens']:,})")
        table.add_row(
            "time", f"{summary['seconds']:.0f} s, {summary['tokens_per_second']:.0f} tokens/s, {summary['dtype']}"
        )
        table.add_row("model", summary["model"])
        emit(summary, as_json, [table, *summary["problems"]])
