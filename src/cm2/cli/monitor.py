"""`cm2 monitor IN -o FOLDER`: judge what logs gain, and say when a duty is missed more than it may be."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cm2.cli.common import Json, emit, err
from cm2.cli.models import BaseUrl, Budget, CacheFile, Concurrency, ModelName, ModelsFile, Settings

if TYPE_CHECKING:
    from cm2.assure.monitor import Monitor
    from cm2.assure.monitor_watch import Summary


def register(app: typer.Typer) -> None:
    """Add the verb `monitor`."""

    @app.command()
    def monitor(
        source: Annotated[
            str, typer.Argument(metavar="IN", help="A folder that grows, a file, or - for standard input.")
        ],
        output: Annotated[str, typer.Option("-o", "--output", help="The monitor's folder; it goes on where it was.")],
        policy: Annotated[str | None, typer.Option(help="The duties: a policy file.")] = None,
        checklists: Annotated[
            str | None,
            typer.Option(help="Without a policy: a labelled file, when rows have no checklists."),
        ] = None,
        rules: Annotated[str | None, typer.Option(help="YAML file: when to raise an alert, and whom to tell.")] = None,
        baseline: Annotated[
            str | None, typer.Option(help="YAML or JSON file of the rates that are fine, or another monitor's folder.")
        ] = None,
        once: Annotated[
            bool,
            typer.Option("--once", help="Judge what is there and end; exit 1 where an alert stands."),
        ] = False,
        every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 10.0,
        keep: Annotated[str, typer.Option(help="Copy dialogues: none, failed or all.")] = "none",
        settle: Annotated[
            float, typer.Option(min=0, help="Seconds after which a file that did not change is finished.")
        ] = 60.0,
        port: Annotated[int | None, typer.Option(min=0, help="Serve metrics for Prometheus at this port.")] = None,
        host: Annotated[str, typer.Option(help="Where to serve them; only this machine unless told otherwise.")] = (
            "127.0.0.1"
        ),
        textfile: Annotated[
            str | None, typer.Option(help="Write the metrics to this .prom file (Prometheus' node exporter).")
        ] = None,
        otlp: Annotated[
            bool, typer.Option("--otlp", help="Export metrics by OTLP; OTEL_EXPORTER_OTLP_ENDPOINT says where to.")
        ] = False,
        kind: Annotated[str | None, typer.Option("--judge", help="checks (default), llm, hybrid, vote …")] = None,
        judging: Annotated[str | None, typer.Option(help="YAML file of the judge's settings.")] = None,
        models: ModelsFile = None,
        base_url: BaseUrl = None,
        model: ModelName = None,
        settings: Settings = None,
        cache: CacheFile = None,
        budget: Budget = None,
        concurrency: Concurrency = 16,
        format: Annotated[str, typer.Option(help="auto, openai or nemotron.")] = "auto",
        as_json: Json = False,
    ) -> None:
        """Judge a folder or stream as it grows: metrics, alerts, drift. A failed judge is never a failed duty."""
        from cm2.assure.alerts_baseline import load_baselines
        from cm2.assure.monitor import Monitor, MonitorConfig
        from cm2.assure.monitor_judge import Judges
        from cm2.assure.monitor_watch import watch
        from cm2.assure.rules import Rules, load_rules
        from cm2.errors import ConfigError
        from cm2.formats import read_tasks
        from cm2.judge.judging import load_judging
        from cm2.judge.make import make_judge
        from cm2.policy import load_policy

        if keep not in ("none", "failed", "all"):
            raise ConfigError(f"there is nothing {keep!r} to keep", fix="use none, failed or all")
        if policy is not None and checklists is not None:
            raise ConfigError("a policy and checklists were given", fix="judge by one of them")
        config = MonitorConfig(
            input=source,
            output=output,
            rules=Rules() if rules is None else load_rules(rules),
            baselines={} if baseline is None else load_baselines(baseline),
            format=format,
            keep=keep,  # type: ignore[arg-type]
            settle=settle,
            concurrency=concurrency,
        )
        duties = None if policy is None else load_policy(policy)
        lent = None
        if checklists is not None:
            lent = {task.dialogue.id: task.checklists for _, task in read_tasks(checklists, format)}
        who = load_judging(judging, kind=kind)
        with ExitStack() as stack:
            door = None
            if who.asks:
                from cm2.cli.models import open_models

                door = stack.enter_context(
                    open_models("judge", models, base_url, model, cache, budget, False, concurrency, output, settings)
                )
            judges = Judges(make_judge(who, door), duties, lent)
            stop = _stopping(stack)
            running = stack.enter_context(Monitor(config, judges, _say, _stdin()))
            running.pulse = _exporting(stack, running, port, host, textfile, otlp)
            summary = watch(running, every, once, stop)
        told: dict[str, Any] = _plain(summary)
        if door is not None:
            told["spending"] = _plain(door.spent)
        emit(told, as_json, _shown(summary))
        if once and summary.alarmed:
            raise typer.Exit(1)


def _say(text: str) -> None:
    err.print(f"cm2: {text}", markup=False, soft_wrap=True)


def _plain(value: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(value)


def _stdin() -> Any:
    import sys

    return sys.stdin.buffer


def _stopping(stack: ExitStack) -> Any:
    """A function that says whether somebody asked the process to end (SIGTERM); the dialogue in hand is finished."""
    import signal
    import threading

    asked = threading.Event()
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
        stack.callback(signal.signal, signal.SIGTERM, before)
    return asked.is_set


def _exporting(
    stack: ExitStack, monitor: Monitor, port: int | None, host: str, textfile: str | None, otlp: bool
) -> Any:
    """Start what exports metrics; what is to be called now and then."""
    from cm2.assure import metrics

    if port is not None:
        taken, server = metrics.serve(monitor, port, host)
        stack.callback(server.shutdown)
        _say(f"metrics at http://{host}:{taken}/metrics")
    if otlp:
        stack.callback(metrics.opentelemetry(monitor).shutdown)
    if textfile is None:
        return lambda monitor: None
    metrics.prometheus(monitor)  # what is missing is said before anything is judged

    def write(monitor: Monitor) -> None:
        try:
            metrics.write_textfile(monitor, textfile)
        except OSError as error:
            _say(f"{textfile} cannot be written: {error.strerror or error}")

    return write


def _shown(summary: Summary) -> list[Any]:
    """The summary for a person."""
    table = Table(title=f"{summary.dialogues} new dialogues, {summary.all_dialogues} since the monitor began")
    for name in ("duty", "severity", "passed", "failed", "unscored", "not applicable", "lately"):
        table.add_column(name, justify="left" if name in ("duty", "severity") else "right")
    for name, duty in summary.duties.items():
        counts = [str(duty.get(result, 0)) for result in ("pass", "fail", "unscored", "not_applicable")]
        rate = duty["window_pass_rate"]
        table.add_row(name, duty["severity"] or "", *counts, "–" if rate is None else f"{rate:.1%}")
    notes: list[Any] = [table]
    if summary.repeated:
        notes.append(f"{summary.repeated} rows came before and are not counted again")
    if summary.rejected:
        notes.append(f"{summary.rejected} rows are no dialogue: " + "; ".join(summary.problems))
    for path, reason in summary.unreadable.items():
        notes.append(f"{path} cannot be read: {reason}")
    if summary.lost:
        lost = ", ".join(f"{owner} {count}" for owner, count in sorted(summary.lost.items()))
        notes.append(f"verdicts that could not be given (no fails): {lost}")
    if summary.active:
        notes.append("alerts that stand: " + ", ".join(summary.active))
    if summary.undelivered:
        notes.append("a webhook was not reached yet; the next run tries again")
    return [one if isinstance(one, Table) else _text(one) for one in notes]


def _text(note: str) -> Any:
    from rich.text import Text

    return Text(note)
