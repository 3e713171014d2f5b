"""Metrics: the page that Prometheus reads, the textfile, OpenTelemetry, and what they count."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any

import pytest

from cm2.assure import metrics
from cm2.assure.monitor_judge import MANY, OTHER
from cm2.assure.rules import Rule
from cm2.check import Reply
from cm2.errors import MissingExtra
from cm2.judge.judge import ChecksJudge
from cm2.policy import Duty, Policy
from monitor.monitor_cases import FINE, TASTE, add, monitor, row

pytest.importorskip("prometheus_client")
BROKEN = Duty("broken", "Is it?", scope="turn", severity="minor", check=Reply(pattern="(["))
RULE = Rule(name="low", when="below", level=0.9, least=1)


def page(running: Any) -> dict[str, float]:
    """The numbers of the page, as it is served."""
    port, server = metrics.serve(running, 0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
    finally:
        server.shutdown()
        server.server_close()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def test_the_page_counts_duties_results_and_what_the_judge_failed_at(tmp_path: Path) -> None:
    add(tmp_path / "logs" / "a.jsonl", row("1"), row("2", fine=False), row("3"), {"no": "dialogue"})
    policy = Policy("p", [FINE, TASTE, BROKEN])
    with monitor(tmp_path / "logs", tmp_path / "state", [RULE], policy=policy) as running:
        running.look()
        found = page(running)
    count = 'cm2_duty_dialogues_total{{duty="{}",result="{}",severity="{}"}}'
    assert found["cm2_dialogues_total"] == 3
    assert found["cm2_rows_rejected_total"] == 1
    assert found[count.format("says-fine", "pass", "critical")] == 2
    assert found[count.format("says-fine", "fail", "critical")] == 1
    assert found[count.format("is-kind", "unscored", "minor")] == 3
    assert found[count.format("is-kind", "fail", "minor")] == 0
    assert found['cm2_duty_pass_rate{duty="says-fine",severity="critical"}'] == pytest.approx(2 / 3)
    assert 'cm2_duty_pass_rate{duty="is-kind",severity="minor"}' not in found  # nothing was decided
    assert found['cm2_judge_failures_total{owner="data"}'] == 3  # the broken check; the question failed nobody
    assert found['cm2_judge_failures_total{owner="judge"}'] == 0
    assert found['cm2_alert_active{duty="says-fine",rule="low"}'] == 1
    assert found['cm2_alerts_total{rule="low"}'] == 1
    assert found["cm2_unread_bytes"] == 0


def test_counters_survive_a_restart(tmp_path: Path) -> None:
    for _ in range(2):
        add(tmp_path / "logs" / "a.jsonl", row(str(_)))
        with monitor(tmp_path / "logs", tmp_path / "state") as running:
            running.look()
            found = page(running)
    assert found["cm2_dialogues_total"] == 2


def test_the_textfile_is_whole_or_not_there(tmp_path: Path) -> None:
    add(tmp_path / "logs" / "a.jsonl", row("1"))
    with monitor(tmp_path / "logs", tmp_path / "state") as running:
        running.look()
        metrics.write_textfile(running, str(tmp_path / "cm2.prom"))
    text = (tmp_path / "cm2.prom").read_text()
    assert "# TYPE cm2_dialogues_total counter\ncm2_dialogues_total 1.0\n" in text
    assert [path.name for path in tmp_path.glob("cm2.prom*")] == ["cm2.prom"]


def test_opentelemetry_has_the_same_numbers(tmp_path: Path) -> None:
    export = pytest.importorskip("opentelemetry.sdk.metrics.export")
    reader = export.InMemoryMetricReader()
    add(tmp_path / "logs" / "a.jsonl", row("1"))
    with monitor(tmp_path / "logs", tmp_path / "state", [RULE]) as running:
        provider = metrics.opentelemetry(running, [reader])
        running.look()
        add(tmp_path / "logs" / "a.jsonl", row("2", fine=False))
        running.look()
        data = reader.get_metrics_data()
        provider.shutdown()
        expected = {family.name: family for family in metrics.families(running)}
    found = {one.name: one for one in data.resource_metrics[0].scope_metrics[0].metrics}
    assert set(found) == {name.replace("_", ".", 1) for name, family in expected.items() if family.samples}
    for name, family in expected.items():
        if family.samples:
            points = found[name.replace("_", ".", 1)].data.data_points
            seen = {tuple(point.attributes[label] for label in family.labels): point.value for point in points}
            assert seen == dict(family.samples)
    assert type(found["cm2.duty_dialogues"].data).__name__ == "Sum"


def test_otlp_is_exported_to_the_endpoint_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    from monitor.hook_server import hook

    add(tmp_path / "logs" / "a.jsonl", row("1"))
    with hook() as receiver, monitor(tmp_path / "logs", tmp_path / "state") as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url.rpartition("/")[0])
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        provider = metrics.opentelemetry(running)
        running.look()
        provider.shutdown()
    told = ExportMetricsServiceRequest.FromString(receiver.calls[-1][1])
    names = {one.name for one in told.resource_metrics[0].scope_metrics[0].metrics}
    assert {"cm2.dialogues", "cm2.duty_dialogues"} <= names


def test_what_a_dialogue_says_makes_no_labels_and_duties_are_bounded(tmp_path: Path) -> None:
    from cm2.assure.monitor_judge import Judges
    from cm2.checklist import Checklist, Item, Task
    from cm2.dialogue import Dialogue, Step, Turn

    judges = Judges(ChecksJudge())
    focus: Any = "assistant.content.user_visible_reply"
    seen = set()
    for number in range(MANY + 50):
        item = Item("C0", focus, "q", "p", 1.0, kind=f"kind {number}", check=Reply())
        task = Task(Dialogue(str(number), [Turn("u", [Step(reply="r")])]), [Checklist(0, [item])])
        [(_, found)] = judges.run([task], lambda task: (task, ""), 1)
        assert found is not None
        seen |= set(found.results)
    assert len(seen) == MANY + 1 and OTHER in seen


def test_without_the_extra_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in ("prometheus_client", "opentelemetry.sdk.metrics", "river.drift"):
        monkeypatch.setitem(sys.modules, name, None)
    source: Any = None
    with pytest.raises(MissingExtra, match=r"pip install 'cm2\[monitor\]'"):
        metrics.prometheus(source)
    with pytest.raises(MissingExtra, match=r"pip install 'cm2\[monitor\]'"):
        metrics.opentelemetry(source)
    from cm2.assure.drift import Adwin

    with pytest.raises(MissingExtra, match="cusum"):
        Adwin()
