"""`cm2 report`: what a run did, or what verdicts say about an agent's logs, in numbers and in dialogues."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cm2.cli.common import Json, emit, track

SHOWN = 5


def register(app: typer.Typer) -> None:
    """Add the verb `report`."""

    @app.command()
    def report(
        source: Annotated[
            str,
            typer.Argument(
                metavar="IN", help="With --verdicts the dialogues that were judged; else a run folder or its rollouts."
            ),
        ],
        outputs: Annotated[
            list[str] | None,
            typer.Option("-o", "--output", help="FILE.html; with --verdicts also .md, .json, .parquet, and several."),
        ] = None,
        verdicts: Annotated[str | None, typer.Option(help="The store that `cm2 judge` wrote: diagnose logs.")] = None,
        policy: Annotated[str | None, typer.Option(help="The policy that it was judged by.")] = None,
        checklists: Annotated[
            str | None, typer.Option(help="The labelled file that it was judged by, when IN has no checklists.")
        ] = None,
        dialogues: Annotated[
            int | None, typer.Option(help="Dialogues on the page. Default 10000, of a run 24 tasks.")
        ] = None,
        folder: Annotated[
            bool, typer.Option("--folder", help="Put the dialogues beside the page even where one file would do.")
        ] = False,
        reproduce: Annotated[
            bool,
            typer.Option("--reproduce", help="Print the command that makes a training run anew, and what changed."),
        ] = False,
        seed: Annotated[int, typer.Option(help="Of samples and examples.")] = 0,
        format: Annotated[str, typer.Option(help="Of the dialogues: auto, openai or nemotron.")] = "auto",
        as_json: Json = False,
    ) -> None:
        """Report on a run (a training run without -o: its dashboard); with --verdicts, which duties logs miss."""
        from cm2.errors import ConfigError

        if verdicts is not None:
            settings = {"policy": policy, "checklists": checklists, "format": format, "folder": folder, "seed": seed}
            settings |= {} if dialogues is None else {"dialogues": dialogues}
            _diagnose({"logs": source, "verdicts": verdicts, "outputs": outputs or [], **settings}, as_json)
            return
        if policy is not None or checklists is not None or folder:
            raise ConfigError("there are no verdicts to report on", fix="judge first, and name the store: --verdicts")
        if reproduce:
            _reproduce(source, as_json)
            return
        if outputs is None and _dashboard(source, as_json):
            return
        if outputs is None or len(outputs) != 1 or outputs[0].endswith((".md", ".json", ".parquet")):
            raise ConfigError(
                "the report of a run is one HTML file",
                fix="add -o FILE.html, or name one training run's folder; for logs add --verdicts",
            )
        _run(source, outputs[0], 24 if dialogues is None else dialogues, as_json)


def _diagnose(settings: dict[str, Any], as_json: bool) -> None:
    from rich.text import Text

    from cm2.report import DiagnosisConfig, write_diagnosis
    from cm2.report.diagnosis_terminal import terminal

    found = write_diagnosis(DiagnosisConfig(**settings), progress=lambda judged: track(judged, "reading"))
    notes = [Text(f"written: {name}") for name in found.outputs]
    emit(found.as_json(), as_json, None if as_json else [*terminal(found.diagnosis), *notes])


def _dashboard(source: str, as_json: bool) -> bool:
    """Write the dashboard of a training run's folder; False where it is none."""
    from pathlib import Path

    import msgspec
    from rich.table import Table
    from rich.text import Text

    from cm2.report.dashboard import is_training, write_dashboard

    if not is_training(Path(source)):
        return False
    page, summary = write_dashboard(Path(source))
    table = Table(title=page.state)
    for column in ("", "now", ""):
        table.add_column(column, justify="right" if column else "left")
    for tile in page.tiles:
        table.add_row(tile.label, tile.value, tile.note)
    notes = [f"alarm: {alarm}" for alarm in reversed(summary.alarms[:SHOWN])]
    if len(summary.alarms) > SHOWN:
        notes.append(f"… and {len(summary.alarms) - SHOWN} earlier alarms")
    shown = [Text(page.headline), table, *map(Text, [*notes, *summary.problems[:SHOWN], f"written: {summary.output}"])]
    emit(msgspec.to_builtins(summary), as_json, shown)
    return True


def _reproduce(source: str, as_json: bool) -> None:
    from pathlib import Path

    from cm2.cli.common import err
    from cm2.train import settings
    from cm2.train.inputs import digests_of
    from cm2.train.reproduce import changed, command_of, shown
    from cm2.train.rl_config import RlConfig

    folder = Path(source)
    command = command_of(folder)
    differs = changed(folder, lambda config: digests_of(settings.check(RlConfig, config)))
    if as_json:
        emit({"run": source, "command": command, "changed": differs}, True)
        return
    typer.echo(shown(command))
    for sentence in differs:
        err.print(f"changed since: {sentence}", markup=False)


def _run(source: str, output: str, dialogues: int, as_json: bool) -> None:
    import msgspec
    from rich.text import Text

    from cm2.report import ReportConfig, write_report

    summary = write_report(ReportConfig(run=source, output=output, dialogues=dialogues))
    shown = f"{summary.dialogues} of {summary.dialogues_available} tasks side by side"
    notes = [
        summary.headline,
        f"{summary.output}: {summary.bytes / 1e6:.2f} MB, {summary.evaluations} evaluations, "
        f"{summary.trainings} trainings, {shown}",
        *summary.absent,
        *summary.problems[:SHOWN],
    ]
    if len(summary.problems) > SHOWN:
        notes.append(f"… and {len(summary.problems) - SHOWN} more lines that do not read")
    emit(msgspec.to_builtins(summary), as_json, [Text(note) for note in notes])
