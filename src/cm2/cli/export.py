"""`cm2 export LOGS --verdicts V -o OUT --to sft`: data that makes the agent better, from its judged logs."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from cm2.cli.common import Json, emit, track


def register(app: typer.Typer) -> None:
    """Add the verb `export`."""

    @app.command()
    def export(
        source: Annotated[str, typer.Argument(metavar="LOGS", help="Dialogues that were judged.")],
        verdicts: Annotated[str, typer.Option(help="The store that cm2 judge wrote about them.")],
        output: Annotated[str, typer.Option("-o", "--output", help="The rows; .parquet for verl.")],
        to: Annotated[str, typer.Option(help="sft, preferences or rl.")] = "sft",
        form: Annotated[str, typer.Option("--format", help="trl, llama-factory, verl, openai or cm2.")] = "trl",
        policy: Annotated[str | None, typer.Option(help="The policy that they were judged by.")] = None,
        checklists: Annotated[str | None, typer.Option(help="The labelled file that they were judged by.")] = None,
        severity: Annotated[str, typer.Option(help="Fails from here on block: critical, major or minor.")] = "major",
        until_failure: Annotated[
            bool, typer.Option("--until-failure", help="sft: also the turns before the first that fails.")
        ] = False,
        exclude: Annotated[
            list[str] | None,
            typer.Option(help="Dialogues, tasks, rollouts or a gate's suite that may not be trained on. Repeat it."),
        ] = None,
        near: Annotated[
            float, typer.Option(help="The resemblance from which a dialogue counts as one of these; 0: ids only.")
        ] = 0.7,
        per_prefix: Annotated[int, typer.Option(min=1, help="preferences: pairs of one prefix at most.")] = 1,
        thinking: Annotated[bool, typer.Option(help="Keep private thinking, where the format has a place.")] = True,
        base_url: Annotated[
            str | None, typer.Option(help="preferences: ask this endpoint for better replies where one failed.")
        ] = None,
        model: Annotated[str | None, typer.Option(help="Its model.")] = None,
        key_variable: Annotated[str, typer.Option(help="The variable that holds its key.")] = "OPENAI_API_KEY",
        samples: Annotated[int, typer.Option("-n", "--samples", min=1, help="Replies to ask for.")] = 4,
        temperature: Annotated[float, typer.Option(help="Of these.")] = 1.0,
        most: Annotated[int | None, typer.Option("--limit", min=1, help="Ask about so many dialogues at most.")] = None,
        source_format: Annotated[
            str, typer.Option("--source-format", help="Of LOGS: auto, openai or nemotron.")
        ] = "auto",
        as_json: Json = False,
    ) -> None:
        """Export training data from judged logs; what is unscored never counts as a pass."""
        import msgspec

        from cm2.assure.export import ExportConfig, export_file
        from cm2.assure.leakage import read_exclusion
        from cm2.errors import ConfigError
        from cm2.policy import load_policy

        if policy is not None and checklists is not None:
            raise ConfigError("a policy and checklists were given", fix="name the one that they were judged by")
        config = ExportConfig(
            input=source,
            verdicts=verdicts,
            output=output,
            kind=to,  # type: ignore[arg-type]
            form=form,  # type: ignore[arg-type]
            policy=None if policy is None else load_policy(policy),
            checklists=checklists,
            blocking=severity,  # type: ignore[arg-type]
            until_failure=until_failure,
            per_prefix=per_prefix,
            thinking=thinking,
            format=source_format,
        )
        exclusion = read_exclusion(exclude or [], near or None, source_format)
        sampler: Any = None
        if (base_url is None) != (model is None):
            raise ConfigError("an endpoint is an address and a model", fix="give --base-url and --model")
        if base_url is not None and model is not None:
            from cm2.assure.pairs_endpoint import Sampler
            from cm2.llm import Endpoint

            if to != "preferences":
                raise ConfigError("an endpoint is asked for preferences only", fix="use --to preferences")
            endpoint = Endpoint(base_url=base_url, model=model, key_variable=key_variable, temperature=temperature)
            sampler = Sampler(endpoint, samples, config.blocking, most)
        summary = export_file(config, exclusion, track, sampler)
        if sampler is not None:
            summary.sampled = sampler.counts
        emit(msgspec.to_builtins(summary), as_json, _shown(summary, to, form))


def _shown(summary: Any, to: str, form: str) -> list[Any]:
    """The summary for a person."""
    title = f"{summary.rows} rows for {to} ({form}) of {summary.dialogues} dialogues"
    table = Table(show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    counts = {"messages": summary.messages, "of these learnt": summary.learnt, "cut before a failure": summary.cut}
    counts |= {f"left out: {reason}": count for reason, count in sorted(summary.left_out.items())}
    counts |= {f"tasks about {duty}": count for duty, count in sorted(summary.duties.items())}
    counts |= {f"asked: {what}": count for what, count in sorted(summary.sampled.items())}
    if summary.mixed:
        counts["actions with both outcomes, no evidence"] = summary.mixed
    if summary.unreadable:
        counts["rows that do not read"] = summary.unreadable
    for name, count in counts.items():
        if count:
            table.add_row(name, f"{count:,}")
    notes = [f"written: {', '.join(summary.files)}"]
    notes += [
        f"{count} dialogues fail {duty}, a duty of the whole dialogue: no reward is made of it"
        for duty, count in sorted(summary.whole.items())
    ]
    return [Text(title), table, *map(Text, [*notes, *summary.problems])]
