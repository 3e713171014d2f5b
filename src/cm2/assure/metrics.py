"""Metrics: what a monitor knows, as families of numbers that Prometheus and OpenTelemetry read.

They are taken from the state when somebody asks, not counted beside it: the state survives a restart, so counters do
too, and no number can disagree with the log. Labels are names from files (duties, rules, webhooks) and fixed words,
never text of a dialogue, and no more than `MANY` duties are told apart (`monitor_judge`), so their number is bounded. A
judge that failed is counted apart: it is no fail of the agent.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import msgspec

from cm2.assure.monitor_state import State
from cm2.errors import MissingExtra

RESULTS = ("pass", "fail", "unscored", "not_applicable")
OWNERS = ("judge", "provider", "data")


class Family(msgspec.Struct):
    """Numbers of one meaning. `unit` is in the name; a counter's name has no `_total`, which Prometheus adds."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...] = ()
    samples: list[tuple[tuple[str, ...], float]] = []


class Source(Protocol):
    """What metrics are read from."""

    polled: float
    """When the input was last looked at."""

    @property
    def state(self) -> State:
        """What is known."""

    @property
    def unread(self) -> int:
        """Bytes that wait."""

    @property
    def unreadable(self) -> int:
        """Files that cannot be read."""

    @property
    def deliveries(self) -> dict[tuple[str, str], int]:
        """Calls of webhooks by webhook and result."""


def families(source: Source) -> list[Family]:
    """All numbers as they are now; asked from any thread."""
    for _ in range(5):
        try:
            return _families(source)
        except (RuntimeError, KeyError):  # a duty came in between
            continue
    return _families(source)


def _families(source: Source) -> list[Family]:
    state, known = source.state, source.state.known
    duties = sorted(known.duties.items())
    found = [
        _counter("cm2_dialogues", "Dialogues that were judged.", (), [((), known.dialogues)]),
        _counter("cm2_rows_repeated", "Rows whose content came before.", (), [((), known.repeated)]),
        _counter("cm2_rows_rejected", "Rows that are no dialogue.", (), [((), known.rejected)]),
        _counter(
            "cm2_duty_dialogues",
            "Dialogues by duty and how the duty came out over the dialogue.",
            ("duty", "severity", "result"),
            [
                ((name, duty.severity or "", result), duty.counts.get(result, 0))
                for name, duty in duties
                for result in RESULTS
            ],
        ),
        _counter(
            "cm2_judge_failures",
            "Verdicts that could not be given, by whose failure it is; no fails of the agent.",
            ("owner",),
            [((owner,), known.lost.get(owner, 0)) for owner in OWNERS],
        ),
        _counter("cm2_judge_cost_dollars", "What judging cost.", (), [((), known.cost)]),
        _gauge(
            "cm2_duty_pass_rate",
            f"Passed / (passed + failed) over the latest {state.rules.window} dialogues of the duty.",
            ("duty", "severity"),
            [
                ((name, duty.severity or ""), rate)
                for name, duty in duties
                if (rate := state.window(name).rate) is not None
            ],
        ),
        _gauge(
            "cm2_duty_window_dialogues",
            "Dialogues behind the pass rate, by result.",
            ("duty", "result"),
            [
                ((name, result), state.window(name).counts[code])
                for name, _ in duties
                for code, result in (("p", "pass"), ("f", "fail"), ("u", "unscored"))
            ],
        ),
        _gauge(
            "cm2_alert_active",
            "1 while a rule's alert about a duty stands.",
            ("rule", "duty"),
            [
                ((rule.name, name), float(rule.name in duty.watches and duty.watches[rule.name].alert is not None))
                for rule in state.rules.rules
                for name, duty in duties
                if rule.watches(name, duty.severity)
            ],
        ),
        _counter(
            "cm2_alerts",
            "Alerts that were raised.",
            ("rule",),
            [((rule.name,), known.alerts.get(rule.name, 0)) for rule in state.rules.rules],
        ),
        _counter(
            "cm2_webhook_tries",
            "Calls of webhooks by result.",
            ("webhook", "result"),
            [
                ((hook, result), source.deliveries.get((hook, result), 0))
                for hook in sorted(state.rules.webhooks)
                for result in ("ok", "failed", "gave_up")
            ],
        ),
        _gauge("cm2_unread_bytes", "Bytes of the input that wait.", (), [((), source.unread)]),
        _gauge("cm2_unreadable_files", "Files that cannot be read.", (), [((), source.unreadable)]),
        _gauge("cm2_last_poll_timestamp_seconds", "When the input was last looked at.", (), [((), source.polled)]),
    ]
    if known.last:
        help = "When the last dialogue was judged."
        found.append(_gauge("cm2_last_dialogue_timestamp_seconds", help, (), [((), known.last)]))
    return found


Samples = list[tuple[tuple[str, ...], float]]


def _counter(name: str, help: str, labels: tuple[str, ...], samples: Samples) -> Family:
    return Family(name, "counter", help, labels, samples)


def _gauge(name: str, help: str, labels: tuple[str, ...], samples: Samples) -> Family:
    return Family(name, "gauge", help, labels, samples)


class _Collector:
    """A collector of `prometheus_client`."""

    def __init__(self, source: Source):
        self._source = source

    def collect(self) -> Any:
        """The families, as the library has them."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for family in families(self._source):
            kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            made = kind(family.name, family.help, labels=family.labels)
            for labels, value in family.samples:
                made.add_metric(labels, value)
            yield made


def prometheus(source: Source) -> Any:
    """A registry of `prometheus_client`.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        from prometheus_client import CollectorRegistry
    except ImportError as error:
        raise MissingExtra("metrics for Prometheus", "monitor") from error
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(source))
    return registry


def serve(source: Source, port: int, host: str = "127.0.0.1") -> tuple[int, Any]:
    """Serve /metrics; the port that was taken (0 asks for any) and what to close.

    Raises:
        MissingExtra: `prometheus_client` is not installed.
        OSError: the port is taken.
    """
    registry = prometheus(source)
    from prometheus_client import start_http_server

    server, _ = start_http_server(port, addr=host, registry=registry)
    return server.server_port, server


def write_textfile(source: Source, path: str) -> None:
    """Write the numbers for the textfile collector of Prometheus' node exporter, at once or not at all."""
    registry = prometheus(source)
    from prometheus_client import write_to_textfile

    write_to_textfile(path, registry)


def opentelemetry(source: Source, readers: list[Any] | None = None) -> Any:
    """A meter provider of OpenTelemetry that exports by OTLP to where OTEL_EXPORTER_OTLP_ENDPOINT says; `shutdown` it.

    Args:
        source: the numbers.
        readers: metric readers in place of the exporting one.

    Raises:
        MissingExtra: the SDK is not installed.
    """
    try:
        from opentelemetry.metrics import CallbackOptions, Observation
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource

        if readers is None:
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

            readers = [PeriodicExportingMetricReader(OTLPMetricExporter())]
    except ImportError as error:
        raise MissingExtra("metrics for OpenTelemetry", "monitor") from error
    provider = MeterProvider(readers, Resource.create({"service.name": "cm2-monitor"}))
    meter = provider.get_meter("cm2")

    def callback(name: str) -> Any:
        def observe(_: CallbackOptions) -> Any:
            found = next((family for family in families(source) if family.name == name), None)
            for labels, value in found.samples if found else []:
                yield Observation(value, dict(zip(found.labels if found else (), labels, strict=True)))

        return observe

    # A family that has no samples yet is announced all the same: instruments are made once.
    announced = [*families(source), Family("cm2_last_dialogue_timestamp_seconds", "gauge", "When the last was judged.")]
    for family in {family.name: family for family in announced}.values():
        name = family.name.replace("_", ".", 1)
        make = meter.create_observable_counter if family.kind == "counter" else meter.create_observable_gauge
        make(name, [callback(family.name)], description=family.help)
    return provider
