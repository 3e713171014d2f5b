"""`cm2 draft [POLICY.md] LOGS -o POLICY.yaml`: a policy to start from."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated, Any

import typer
from rich.table import Table

from cm2.cli.common import Json, add_column, emit, err, track
from cm2.cli.models import BaseUrl, Budget, CacheFile, Concurrency, ModelName, ModelsFile, Settings

SHOWN = 40


def register(app: typer.Typer) -> None:
    """Add the verb `draft`."""

    @app.command()
    def draft(
        sources: Annotated[
            list[str], typer.Argument(metavar="[POLICY.md] LOGS", help="A policy's text, and dialogues of the agent.")
        ],
        output: Annotated[str, typer.Option("-o", "--output", help="The policy (YAML) to write.")],
        support: Annotated[int, typer.Option(min=1, help="Occasions from which on a drafted duty is active.")] = 20,
        least: Annotated[
            float, typer.Option(min=0, max=1, help="Pass rate (lower end of 95 %) from which on a pattern is active.")
        ] = 0.8,
        name: Annotated[str, typer.Option(help="The policy's name; default: the output's.")] = "",
        models: ModelsFile = None,
        base_url: BaseUrl = None,
        model: ModelName = None,
        settings: Settings = None,
        cache: CacheFile = None,
        budget: Budget = None,
        concurrency: Concurrency = 4,
        format: Annotated[str, typer.Option(help="auto, openai or nemotron.")] = "auto",
        as_json: Json = False,
    ) -> None:
        """Draft a policy: from recurring patterns in logs, and by a language model from a policy's text."""
        from cm2.cli.models import open_models, spending_table
        from cm2.errors import ConfigError
        from cm2.policy.draft import DraftConfig, draft_policy

        if len(sources) > 2:
            raise ConfigError(f"{len(sources)} files were given", fix="give LOGS, or POLICY.md and LOGS")
        text = sources[0] if len(sources) == 2 else None
        config = DraftConfig(sources[-1], output, text, format, support, least, name)
        asks = models is not None or model is not None
        if asks and text is None:
            raise ConfigError("a model reads a policy's text, and none is given", fix="put POLICY.md before LOGS")
        if text is not None and not asks:
            err.print("cm2: no model was named, so the policy's text is not read; only patterns are looked for")
        flags: dict[str, Any] = {"models": models, "base_url": base_url, "model": model, "settings": settings}
        flags |= {"cache": cache, "budget": budget, "concurrency": concurrency, "output": output}
        with open_models("labeler", **flags) if asks else nullcontext() as door:
            policy, summary = draft_policy(config, door, lambda tasks: track(tasks, "reading"))
            table = Table(title=f"{summary.duties} duties from {summary.dialogues} dialogues, {summary.active} active")
            for head in ("duty", "severity", "scope", "status", "applies", "of", "pass rate"):
                if head in ("severity", "scope", "status"):
                    table.add_column(head, no_wrap=True)
                else:
                    add_column(table, head, right=head != "duty")
            for duty in policy.duties[:SHOWN]:
                proof = summary.proofs[duty.id]
                rate = "–" if proof.rate is None else f"{proof.rate:.1%}"
                table.add_row(
                    duty.id, duty.severity, duty.scope, duty.status, str(proof.applies), str(proof.places), rate
                )
            notes = [f"written to {output}; run cm2 lint {output}, read it, and add tests"]
            notes += [f"not taken: {one}" for one in summary.refused[:SHOWN]]
            notes += [f"no answer: {one}" for one in summary.failed]
            if summary.unreadable:
                notes.append(f"{summary.unreadable} lines do not read: " + "; ".join(summary.problems))
            emit(summary.as_json(), as_json, [table, *notes, spending_table(door) if door is not None else None])
