"""`cm2 audit …`: people review a sample of verdicts; error rates and true pass rates come out."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from cm2.cli.common import Json, emit, err, track

Audit = Annotated[
    str | None, typer.Argument(metavar="[AUDIT]", help="The file that cm2 audit sample wrote, or a database URL.")
]
Database = Annotated[
    str | None,
    typer.Option(
        "--db", envvar="CM2_AUDIT_DB", help="A team's database (postgresql+psycopg://…) that holds, or gets, the audit."
    ),
]
MISSING = "name the audit, or its database with --db"


def register(app: typer.Typer) -> None:
    """Add the verb `audit`."""
    audit = typer.Typer(no_args_is_help=True, help="People review a sample of verdicts: how often is the judge wrong?")
    app.add_typer(audit, name="audit")
    audit.command()(sample)
    audit.command()(serve)
    audit.command()(report)
    audit.command()(labels)
    audit.command("export-policy")(export_policy)
    audit.command("export-checklists")(export_checklists)


def sample(
    logs: Annotated[str, typer.Argument(metavar="LOGS", help="The dialogues that were judged.")],
    verdicts: Annotated[str, typer.Option(help="The store that cm2 judge wrote on them.")],
    output: Annotated[str, typer.Option("-o", "--output", help="The audit: a new SQLite file, or a database URL.")],
    policy: Annotated[str | None, typer.Option(help="The policy that they were judged by.")] = None,
    checklists: Annotated[str | None, typer.Option(help="The labelled file that they were judged by.")] = None,
    count: Annotated[int, typer.Option("-n", "--count", help="Cases to review.")] = 200,
    unscored: Annotated[
        int | None, typer.Option(min=0, help="Of these, unscored outcomes. Default: one in 20, 10 at most.")
    ] = None,
    not_applicable: Annotated[int, typer.Option(min=0, help="Of these, outcomes that do not apply.")] = 0,
    double: Annotated[float, typer.Option(help="The share of cases that two people should review.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Other seeds draw other cases.")] = 0,
    format: Annotated[str, typer.Option(help="auto, openai or nemotron.")] = "auto",
    as_json: Json = False,
) -> None:
    """Draw cases by duty, verdict, the judge's doubt and risk, each with its known probability."""
    from cm2.assure.audit import SampleConfig, draw
    from cm2.assure.audit.binding import check_free, write_sample
    from cm2.assure.audit.tables import shown

    config = SampleConfig(
        logs=logs,
        verdicts=verdicts,
        policy=policy,
        checklists=checklists,
        count=count,
        unscored=min(10, count // 20) if unscored is None else unscored,
        not_applicable=not_applicable,
        double=double,
        seed=seed,
        format=format,
    )
    check_free(output)
    found = draw(config, lambda read: track(read, "sampling"))
    id = write_sample(found, output)
    table = Table(title=f"{len(found.cases)} cases in {shown(output)}")
    for name in ("duty", "verdict", "judge", "outcomes", "cases", "probability"):
        table.add_column(name, justify="right" if name in ("outcomes", "cases", "probability") else "left")
    for one in found.strata:
        names = (one.duty or "(several)", one.verdict.replace("_", " "), one.level or "–")
        table.add_row(*names, str(one.size), str(one.drawn), f"{one.drawn / one.size:.3g}")
    strata = [
        {"duty": s.duty, "verdict": s.verdict, "level": s.level, "size": s.size, "drawn": s.drawn} for s in found.strata
    ]
    summary = {"audit": id, "output": shown(output), "cases": len(found.cases), "dialogues": len(found.dialogues)}
    notes = [f"{found.unreadable} rows do not read"] if found.unreadable else []
    notes.append(f"next: cm2 audit serve {shown(output)}")
    emit({**summary, "unreadable": found.unreadable, "strata": strata}, as_json, [table, *notes])


def serve(
    audit: Audit = None,
    db: Database = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8477,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    allow_remote: Annotated[bool, typer.Option(help="Let --host be more than this machine (plain HTTP!).")] = False,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name that browsers call this server by, behind a proxy. Repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Open the review page: prints its address, which carries the key to it."""
    from cm2.assure.audit.server import ServeConfig, serve_audit

    config = ServeConfig(
        host=host, port=port, allow_remote=allow_remote, allow_host=tuple(allow_host or ()), place=_place(audit, db)
    )

    def ready(address: str, notes: list[str]) -> None:
        for note in notes:
            err.print(note, markup=False, soft_wrap=True)
        emit({"url": address}, as_json, None)
        if not as_json:
            typer.echo(address)
            err.print("stop with Ctrl+C; what was answered is kept", markup=False)

    serve_audit(config, ready)


def report(
    audit: Audit = None,
    db: Database = None,
    logs: Annotated[str | None, typer.Option(help="Other logs, to correct their pass rates by this audit.")] = None,
    verdicts: Annotated[str | None, typer.Option(help="The same judge's verdicts on --logs.")] = None,
    as_json: Json = False,
) -> None:
    """False-positive and false-negative rates, kappa, corrected pass rates, agreement between people."""
    import msgspec

    from cm2.assure.audit.book import Book
    from cm2.assure.audit.report import apply
    from cm2.assure.audit.report import report as made
    from cm2.assure.audit.words import applied_table, shown
    from cm2.errors import ConfigError

    if (logs is None) != (verdicts is None):
        raise ConfigError("--logs and --verdicts belong together", fix="give both")
    with Book(_place(audit, db)) as book:
        found = made(book)
        summary: dict[str, Any] = msgspec.to_builtins(found)
        parts: list[Any] = shown(found)
        if logs is not None and verdicts is not None:
            others = apply(book, logs, verdicts, lambda read: track(read, "counting"))
            summary["applied"] = msgspec.to_builtins(others)
            parts.append(applied_table(others, logs))
    emit(summary, as_json, parts)


def labels(
    output: Annotated[str, typer.Option("-o", "--output", help="The labels (JSONL, .gz).")],
    audit: Audit = None,
    db: Database = None,
    even: Annotated[bool, typer.Option(help="Thin them out so that every outcome had the same chance.")] = False,
    as_json: Json = False,
) -> None:
    """Write the reviews as labels that `cm2 judge calibrate --against` reads."""
    from cm2.assure.audit.book import Book
    from cm2.assure.audit.labels import write_labels

    with Book(_place(audit, db)) as book:
        count = write_labels(book, output, even)
    emit({"output": output, "labels": count}, as_json, f"{count} labels written to {output}")


def export_policy(
    output: Annotated[str, typer.Option("-o", "--output", help="The new policy file.")],
    audit: Audit = None,
    db: Database = None,
    version: Annotated[str | None, typer.Option(help="Of the new policy. Default: the next one.")] = None,
    as_json: Json = False,
) -> None:
    """Write the policy as people left it, as a new version in a new file."""
    import msgspec

    from cm2.assure.audit.book import Book
    from cm2.assure.audit.export import export_policy as export

    with Book(_place(audit, db)) as book:
        found = export(book, output, version)
    emit(msgspec.to_builtins(found), as_json, f"version {found.version}: {_changed(found)}, written to {output}")


def export_checklists(
    tasks: Annotated[str, typer.Argument(metavar="TASKS", help="The labelled file that the logs were judged by.")],
    output: Annotated[str, typer.Option("-o", "--output", help="The new labelled file.")],
    audit: Annotated[str | None, typer.Option(help="The audit.")] = None,
    db: Database = None,
    as_json: Json = False,
) -> None:
    """Write a labelled file anew, with the items as people left them."""
    import msgspec

    from cm2.assure.audit.book import Book
    from cm2.assure.audit.export import export_checklists as export

    bad: list[str] = []
    with Book(_place(audit, db)) as book:
        found = export(book, tasks, output, lambda line, error: bad.append(f"line {line}: {error}"))
    notes = [f"{found.duties} rows, {_changed(found)}, written to {output}", *bad[:20]]
    emit({**msgspec.to_builtins(found), "unreadable": len(bad)}, as_json, notes)


def _changed(found: Any) -> str:
    return f"{len(found.edited)} edited, {len(found.approved)} approved, {len(found.retired)} retired"


def _place(audit: str | None, db: str | None) -> str:
    from cm2.assure.audit.binding import put
    from cm2.errors import ConfigError

    if db is not None and audit is not None:
        note = put(audit, db)
        if note:
            err.print(note, markup=False)
        return db
    if db is None and audit is None:
        raise ConfigError("there is no audit to open", fix=MISSING)
    return str(db or audit)
