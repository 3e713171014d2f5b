"""What the verbs that ask models share: their options, the door they open, and the table of what it cost."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cm2.cli.common import err

if TYPE_CHECKING:
    from cm2.llm import Models, Role

ModelsFile = Annotated[
    str | None, typer.Option("--models", envvar="CM2_MODELS", help="YAML file: endpoint and model of every role.")
]
BaseUrl = Annotated[
    list[str] | None,
    typer.Option("--base-url", help="Where the API starts: http://127.0.0.1:8000/v1. Repeat it for replicas."),
]
ModelName = Annotated[str | None, typer.Option("--model", help="The model's name at the endpoint.")]
CacheFile = Annotated[
    str | None, typer.Option("--cache", help="SQLite file of answers, may be shared. Default: OUTPUT.llm.sqlite.")
]
Budget = Annotated[
    float | None, typer.Option("--budget", min=0, help="US dollars; stops before more is spent, run again to go on.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only count calls, tokens and money; nothing is asked or written.")
]
Concurrency = Annotated[int, typer.Option("--concurrency", min=1, help="Requests under way at once.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="FIELD=VALUE or ROLE.FIELD=VALUE of the models file (temperature=0, judge.effort=low)."),
]


def open_models(
    role: Role,
    models: str | None = None,
    base_url: list[str] | None = None,
    model: str | None = None,
    cache: str | None = None,
    budget: float | None = None,
    dry_run: bool = False,
    concurrency: int | None = None,
    output: str | None = None,
    settings: list[str] | None = None,
) -> Models:
    """The door as the flags say. Flags hold for `role`, and for every role where there is no file.

    Raises:
        ConfigError: the role has no endpoint or model; a setting is wrong; there is a budget and no price.
    """
    from cm2.llm import Models, load_models

    flags: dict[str, Any] = {"base_url": base_url or None, "model": model}
    flags = {name: value for name, value in flags.items() if value is not None}
    config = load_models(
        models, settings or (), concurrency=concurrency, **{"default" if models is None else role: flags}
    )
    if cache is not None or config.cache is None:
        local = output is not None and "://" not in output
        config.cache = cache or (f"{os.path.normpath(output)}.llm.sqlite" if output and local else None)
    if budget is not None:
        config.budget = budget
    opened = Models(config, dry=dry_run, say=lambda text: err.print(f"cm2: {text}", markup=False, soft_wrap=True))
    opened.ready(role)
    return opened


def spending_table(models: Models) -> Table:
    """Calls, tokens and money by stage: what was spent, or what a dry run plans."""
    spending = models.planned if models.dry else models.spent
    title = "planned, nothing was asked" if models.dry else "spent"
    table = Table(title=title)
    heads = ("stage", "calls", "from cache", "failed", "prompt tokens", "cached", "answer tokens", "US$")
    for head in heads:
        table.add_column(head, justify="left" if head == "stage" else "right")
    for name, stage in [*sorted(spending.stages.items()), ("all", spending.total)]:
        counts = (stage.calls, stage.reused, stage.failed, stage.prompt_tokens, stage.cached_tokens)
        table.add_row(name, *(f"{count:,}" for count in counts), f"{stage.completion_tokens:,}", stage.money)
    table.caption = " ".join(spending.notes) or None
    return table
