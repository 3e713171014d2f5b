"""`cm2 lint IN`: whether checklists pay for the duty and only for it, or a policy's duties do as their tests say."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from cm2.cli.common import Json, add_column, emit, track

SHOWN = 10


def register(app: typer.Typer) -> None:
    """Add the verb `lint`."""

    @app.command()
    def lint(
        source: Annotated[
            str,
            typer.Argument(metavar="IN", help="Labelled dialogues (.jsonl, .jsonl.gz, Parquet), or a policy (YAML)."),
        ],
        output: Annotated[str | None, typer.Option("-o", "--output", help="Write a report per item (JSONL).")] = None,
        jobs: Annotated[int, typer.Option("--jobs", "-j", help="Worker processes.")] = 1,
        format: Annotated[str, typer.Option(help="auto, openai or nemotron.")] = "auto",
        strict: Annotated[bool, typer.Option("--strict", help="A policy's warnings count as failures.")] = False,
        as_json: Json = False,
    ) -> None:
        """Test every item of every checklist on its own reference, or every duty of a policy on its tests; exit 1 where
        one fails."""
        from cm2.policy.load import is_policy

        if is_policy(source):
            _lint_policy(source, output, strict, as_json)
            return
        from cm2.label.lint_run import LintConfig, lint_file

        config = LintConfig(input=source, output=output, jobs=jobs, format=format)
        summary, failed = lint_file(config, lambda tasks: track(tasks, "linting"), keep=SHOWN)
        kinds = Table(
            title=f"{summary.items} items of {summary.checklists} checklists in {summary.dialogues} dialogues"
        )
        for name in ("kind", "items", "failed", "unscored"):
            kinds.add_column(name, justify="left" if name == "kind" else "right")
        for kind, counts in sorted(summary.kinds.items()):
            kinds.add_row(kind, *(str(counts[name]) for name in ("items", "failed", "unscored")))
        kinds.add_row("all", str(summary.items), str(summary.failed), str(summary.unscored))
        tests = Table(title="tests")
        for name in ("test", "items tested", "items failed"):
            tests.add_column(name, justify="left" if name == "test" else "right")
        for test, count in summary.tested.items():
            tests.add_row(test, str(count), str(summary.reasons.get(test, 0)))
        notes = [
            f"line {report.line}, dialogue {report.dialogue}, turn {report.turn}, item {report.item or '(checklist)'}: "
            + "; ".join(f"{failure.test}: {failure.message}" for failure in report.failures)
            for report in failed
        ]
        if summary.failed > len(failed):
            notes.append(
                f"… and {summary.failed - len(failed)} more" + ("" if output else " (-o FILE writes them all)")
            )
        if summary.without_checklists:
            notes.append(f"{summary.without_checklists} dialogues have no checklist")
        if summary.unreadable:
            notes.append(f"{summary.unreadable} lines do not read: " + "; ".join(summary.problems))
        emit(summary.as_json(), as_json, [kinds, tests, *notes])
        if not summary.ok:
            raise typer.Exit(1)


def _lint_policy(source: str, output: str | None, strict: bool, as_json: bool) -> None:
    from cm2.formats.rows import RowWriter
    from cm2.policy import load_policy
    from cm2.policy.lint import lint_policy

    report = lint_policy(load_policy(source))
    if output is not None:
        with RowWriter(output) as writer:
            for one in report.as_json(strict)["duties"]:
                writer.write(one)
    table = Table(title=f"{report.policy}: {len(report.duties)} duties")
    for name in ("duty", "severity", "scope", "by", "tests", "failures", "warnings"):
        if name in ("severity", "scope", "by"):
            table.add_column(name, no_wrap=True)
        else:
            add_column(table, name, right=name != "duty")
    for duty in report.duties:
        tests = f"{duty.run} of {duty.tests}" if duty.run < duty.tests else duty.tests
        counts = (tests, len(duty.failures), len(duty.warnings))
        name = duty.duty if duty.status == "active" else f"{duty.duty} (retired)"
        table.add_row(name, duty.severity, duty.scope, duty.by, *map(str, counts))
    notes = [Text(f"{duty.duty}: {message}", "red") for duty in report.duties for message in duty.failures]
    notes += [Text(f"{duty.duty}: warning: {message}") for duty in report.duties for message in duty.warnings]
    emit(report.as_json(strict), as_json, [table, *notes])
    if not report.ok(strict):
        raise typer.Exit(1)
