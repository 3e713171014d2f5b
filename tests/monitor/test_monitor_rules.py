"""When rules raise and clear: against hand-computed streams and a second, literal reading of the same rules."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm2.assure.alerts import Alert, Alerts, Baseline, Escalation
from cm2.assure.alerts_baseline import load_baselines
from cm2.assure.monitor_log import Came, File, Why
from cm2.assure.monitor_state import State
from cm2.assure.rules import Rule, Rules, load_rules
from cm2.errors import ConfigError

NAMES = {"p": "pass", "f": "fail", "u": "unscored", "n": "not_applicable"}


def events(codes: str, step: float = 1.0) -> Iterable[Came]:
    """Dialogues of one duty, `step` seconds apart."""
    for number, code in enumerate(codes):
        why = {"duty": Why(0, "so it is")} if code in "fu" else {}
        results: Any = {"duty": NAMES[code]}
        yield Came(1, number + 1, number + 1, 1000.0 + step * number, str(number), str(number), results, why=why)


def run(
    rule: Rule, codes: str, step: float = 1.0, baselines: dict[str, Baseline] | None = None
) -> list[tuple[int, str]]:
    """What the rule did: (number of the dialogue from 1, raised or cleared)."""
    return [(int(one.dialogue) + 1, one.state) for one in alerts_of(rule, codes, step, baselines)]


def alerts_of(rule: Rule, codes: str, step: float = 1.0, baselines: dict[str, Baseline] | None = None) -> list[Alert]:
    return [one for one in everything(rule, codes, step, baselines) if isinstance(one, Alert)]


def everything(
    rule: Rule, codes: str, step: float = 1.0, baselines: dict[str, Baseline] | None = None
) -> list[Alert | Escalation]:
    state = State(Rules(rules=[rule]))
    state.declare("duty", "critical")
    state.take(File(1, "a.jsonl"), 0)
    alerts, found = Alerts(state, baselines), []
    for event in events(codes, step):
        for duty in state.take(event, 0):
            found += alerts.evaluate(duty, event.dialogue)
    return found


def below(**fields: Any) -> Rule:
    return Rule(**({"name": "r", "when": "below", "level": 0.5, "window": 4, "least": 2} | fields))


def test_below_raises_under_its_level_and_clears_at_another() -> None:
    # windows of 4:      p1  1    f.67 f.5  f.25! f0  p.25 p.5  p.75! p1
    assert run(below(clear=0.7), "ppfffpppp"[:4] + "ffpppp") == [(5, "raised"), (9, "cleared")]


def test_between_the_levels_nothing_changes() -> None:
    wavering = "pf" * 20  # 0.5 throughout
    assert run(below(level=0.6, clear=0.8), "ffff" + wavering) == [(2, "raised")]
    assert run(below(level=0.4, clear=0.6), "pppp" + wavering) == []


def test_nothing_is_said_of_too_few_dialogues() -> None:
    assert run(below(least=4), "fff") == []
    assert run(below(least=4), "ffff") == [(4, "raised")]
    assert run(below(least=3), "ffuuuuuu") == []  # what was not decided is no part of a pass rate


def test_it_must_hold_as_often_as_asked_to_raise_and_to_clear() -> None:
    rule = below(hold=3, window=1, least=1, level=0.5, clear=1.0)
    assert run(rule, "ffpff") == []
    assert run(rule, "fffppfppp") == [(3, "raised"), (9, "cleared")]


def test_unscored_and_not_applicable_are_no_fails() -> None:
    assert run(below(), "unun" * 20) == []
    assert run(Rule(name="r", when="failure"), "unp" * 20) == []


def test_a_window_may_be_a_time() -> None:
    rule = below(window="10s", least=1)
    assert run(rule, "fppp", step=11) == [(1, "raised"), (2, "cleared")]
    assert run(rule, "fppp", step=1) == [(1, "raised"), (2, "cleared")]
    assert run(below(window="10s", least=1, clear=0.8), "fppppp", step=1) == [(1, "raised"), (5, "cleared")]
    assert run(below(window="2s", least=1, clear=0.8), "fppppp", step=1) == [(1, "raised"), (4, "cleared")]


def test_drop_is_measured_from_a_baseline() -> None:
    rule = Rule(name="r", when="drop", level=0.3, clear=0.1, window=4, least=4, baseline=0.75)
    #                              .75  .5   .25!       .25  .5   .75!
    assert run(rule, "pppfffppp") == [(6, "raised"), (9, "cleared")]
    assert run(msgspec.structs.replace(rule, baseline=None), "pppfffppp", baselines={"duty": Baseline(0.5)}) == []
    first = msgspec.structs.replace(rule, baseline=4)  # the first four: pppf, 0.75
    assert run(first, "pppfffppp") == [(6, "raised"), (9, "cleared")]


def test_sure_asks_whether_chance_explains_it() -> None:
    rule = below(window=100, least=5, level=0.9)
    assert run(rule, "ppppf")[0] == (5, "raised")
    # 1 of 5 fail where 10 % may: 1 - 0.9^5 = 0.41; 2 of 6: 0.114; 3 of 7: 0.0257
    careful = msgspec.structs.replace(rule, sure=0.05)
    assert run(careful, "ppppfff")[0] == (7, "raised")
    # against a measured baseline of 5 of 5 Fisher finds 3 of 6 no surprise (p = 0.12), against 195 of 200 it does
    drop = Rule(name="r", when="drop", level=0.1, window=6, least=6, sure=0.05)
    assert run(drop, "pppfff", baselines={"duty": Baseline(1.0, 5)}) == []
    assert run(drop, "pppfff", baselines={"duty": Baseline(0.975, 200)}) == [(6, "raised")]


def test_unscored_share_raises_and_clears() -> None:
    rule = Rule(name="r", when="unscored", level=0.25, clear=0.0, window=4, least=4)
    assert run(rule, "pppuppuupppp") == [(7, "raised"), (12, "cleared")]


def test_every_failure_of_a_critical_duty_goes_to_a_person() -> None:
    rule = Rule(name="r", when="failure", severity="critical", window=3, escalate="q.jsonl")
    found = everything(rule, "ppfpfpppfp")
    assert [(one.dialogue, one.state) for one in found if isinstance(one, Alert)] == [
        ("2", "raised"),
        ("7", "cleared"),
        ("8", "raised"),
    ]
    assert [one.example.dialogue for one in found if isinstance(one, Escalation)] == ["2", "4", "8"]
    assert run(msgspec.structs.replace(rule, severity="minor"), "fff") == []


def test_an_alert_says_the_numbers_and_shows_the_dialogues() -> None:
    alert = alerts_of(below(), "pff")[0]
    assert alert.id == "r/duty/3/raised"
    assert alert.said == "r: duty below: 1 of 3 pass (33.3%); the level is 50.0%"
    assert (alert.rate, alert.scored, alert.severity) == (1 / 3, 3, "critical")
    assert [(one.dialogue, one.file, one.line, one.reason) for one in alert.examples] == [
        ("1", "a.jsonl", 2, "so it is"),
        ("2", "a.jsonl", 3, "so it is"),
    ]


def test_examples_are_of_the_window_and_bounded() -> None:
    alert = alerts_of(below(least=4), "f" * 4)[0]
    assert len(alert.examples) == 4
    late = alerts_of(below(window=3, least=3, level=0.1), "fpppppfff")[0]
    assert [one.dialogue for one in late.examples] == ["6", "7", "8"]


def literal(rule: Rule, codes: str) -> list[tuple[int, str]]:
    """The rule as its description reads, with nothing remembered but the results, the streak and the alert."""
    found, standing, streak, results = [], False, 0, ""
    for number, code in enumerate(codes, 1):
        if code == "n":
            continue
        results += code
        window = results[-int(rule.window) :]
        passed, failed, lost = window.count("p"), window.count("f"), window.count("u")
        if rule.when == "failure":
            bad, good = failed >= rule.raises, failed <= rule.clears
        elif rule.when == "unscored":
            if len(window) < rule.least:
                continue
            bad, good = lost / len(window) > rule.raises, lost / len(window) <= rule.clears
        else:
            if passed + failed < rule.least or passed + failed == 0:
                continue
            bad, good = passed / (passed + failed) < rule.raises, passed / (passed + failed) >= rule.clears
        streak = streak + 1 if (good if standing else bad) else 0
        if streak == rule.hold:
            standing, streak = not standing, 0
            found.append((number, "raised" if standing else "cleared"))
    return found


@given(
    codes=st.text("ppffun", max_size=60),
    when=st.sampled_from(["below", "unscored", "failure"]),
    levels=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    window=st.integers(1, 6),
    least=st.integers(1, 5),
    hold=st.integers(1, 3),
)
def test_rules_do_what_a_literal_reading_does(
    codes: str, when: Any, levels: tuple[int, int], window: int, least: int, hold: int
) -> None:
    low, high = sorted(levels)
    unit = 1 if when == "failure" else 0.25
    level, clear = (low * unit, high * unit) if when == "below" else (high * unit, low * unit)
    rule = Rule(name="r", when=when, level=level, clear=clear, window=window, least=least, hold=hold)
    found = run(rule, codes)
    assert found == literal(rule, codes)
    assert [state for _, state in found] == ["raised", "cleared"] * (len(found) // 2) + ["raised"] * (len(found) % 2)


@given(codes=st.text("ppfun", min_size=1, max_size=80), cut=st.integers(0, 80))
def test_a_state_from_a_snapshot_goes_on_as_if_nothing_had_happened(codes: str, cut: int) -> None:
    rules = [below(clear=0.7), Rule(name="d", when="drift", method="cusum", baseline=5, drop=0.4, every=5, least=1)]
    rules.append(Rule(name="a", when="drift", delta=0.2, least=1, window="20s"))
    whole, found = State(Rules(rules=rules)), [list[Any](), list[Any]()]
    parts = State(Rules(rules=rules))
    for at, state in enumerate((whole, parts)):
        state.take(File(1, "a"), 0)
        alerts = Alerts(state)
        for number, event in enumerate(events(codes)):
            if at == 1 and number == cut:
                state = State(Rules(rules=rules), msgspec.json.decode(state.snapshot(), type=type(state.known)))
                alerts = Alerts(state)
            for duty in state.take(event, 0):
                found[at] += alerts.evaluate(duty, event.dialogue)
        if at == 1:
            parts = state
    assert found[0] == found[1]
    assert whole.snapshot() == parts.snapshot()


def test_a_rule_that_changes_begins_anew() -> None:
    state = State(Rules(rules=[below()]))
    state.take(File(1, "a"), 0)
    alerts = Alerts(state)
    for event in events("ffff"):
        for duty in state.take(event, 0):
            alerts.evaluate(duty, event.dialogue)
    assert state.known.duties["duty"].watches["r"].alert
    told = State(Rules(rules=[below(escalate="q.jsonl")]), state.known)
    assert told.known.duties["duty"].watches["r"].alert  # whom it tells is no other rule
    assert not State(Rules(rules=[below(level=0.4)]), state.known).known.duties["duty"].watches


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rules: 3", "Expected `array`"),
        ("- a", "is no rules file"),
        ("rules: [}", "is no YAML"),
        ("rules: [{name: a, when: sometimes}]", "sometimes"),
        ("rules: [{name: a, when: below}]", "needs a level"),
        ("rules: [{name: a, when: below, level: 0.9, clear: 0.8}]", "would clear"),
        ("rules: [{name: a, when: unscored, level: 0.1, clear: 0.2}]", "would clear"),
        ("rules: [{name: a, when: drift, windw: 3}]", "windw"),
        ("rules: [{name: a, when: drift, window: 3 weeks}]", "no window"),
        ("rules: [{name: a, when: drift, webhooks: [x]}]", "there is no webhook 'x'"),
        ("rules: [{name: a, when: drift}, {name: a, when: drift}]", "2 rules are called a"),
        ("webhooks: {a: {url: 'file:///etc/passwd'}}", "is no address"),
        ("webhooks: {a: {url: 'ftp://host/x'}}", "is no address"),
        ("webhooks: {a: {url: 'https://me:secret@host/x'}}", "holds a password"),
        ("webhooks: {a: {url: 'https://host', secret: abc}}", "secret"),
    ],
)
def test_a_rules_file_that_is_wrong_says_where_and_how(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_rules(str(path))
    assert told in str(error.value) and "rules.yaml" in str(error.value)


def test_baselines_are_read_from_rates_counts_and_monitors(tmp_path: Path) -> None:
    path = tmp_path / "base.yaml"
    path.write_text("a: 0.97\nb: {passed: 3, scored: 4}\n")
    assert load_baselines(str(path)) == {"a": Baseline(0.97), "b": Baseline(0.75, 4)}
    state = State(Rules())
    state.take(File(1, "a"), 0)
    for event in events("pppfun"):
        state.take(event, 0)
    (tmp_path / "state.json").write_bytes(state.snapshot())
    assert load_baselines(str(tmp_path)) == {"duty": Baseline(0.75, 4)}
    path.write_text("a: lots\n")
    with pytest.raises(ConfigError, match="item a: is no rate"):
        load_baselines(str(path))
    with pytest.raises(ConfigError, match="no such file"):
        load_baselines(str(tmp_path / "absent.yaml"))
