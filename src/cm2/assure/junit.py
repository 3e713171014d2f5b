"""JUnit: a gate's result as the XML that CI systems show beside a team's tests.

A duty is a test suite, a dialogue a test case: `failure` where it fails, `error` where it is unscored (nobody knows),
`skipped` where it does not apply or is not judged. A tolerated flaky case passes, with its counts in `system-out`. The
suite `gate` holds what the gate asks: a rule that is undecided is an error. It is the gate's exit code that says
whether a change may go on; single cases may fail in a gate that passes.

The schema is the one of Jenkins and Surefire. Nothing that stands in a dialogue is markup here, and what XML cannot
hold (control characters, lone surrogates) is written out as `\\x07`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from xml.etree import ElementTree as ET

from cm2.assure.gate_case import Case, GateResult, Rule, write_whole

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(result: GateResult, path: str) -> None:
    """Write the result as JUnit XML."""
    write_whole(path, junit(result))


def junit(result: GateResult) -> bytes:
    """The result as JUnit XML."""
    root = ET.Element("testsuites", name=legal(result.suite), time=f"{result.seconds:.3f}")
    _add(root, "gate", result, [_rule(rule) for rule in result.rules])
    by_duty: dict[str, list[Case]] = {}
    for case in result.cases:
        by_duty.setdefault(case.duty, []).append(case)
    for duty in sorted(by_duty):
        cases = by_duty[duty]
        facts = {"severity": cases[0].severity, "owner": cases[0].owner, "question": cases[0].question}
        _add(root, duty, result, [_case(case) for case in cases], facts)
    for name in ("tests", "failures", "errors"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _add(
    root: ET.Element, name: str, result: GateResult, tests: list[ET.Element], facts: dict[str, str] | None = None
) -> None:
    suite = ET.SubElement(root, "testsuite", name=legal(name), timestamp=result.at[:19])
    counted = {"failures": "failure", "errors": "error", "skipped": "skipped"}
    suite.set("tests", str(len(tests)))
    for attribute, tag in counted.items():
        suite.set(attribute, str(sum(test.find(tag) is not None for test in tests)))
    suite.set("time", "0")
    if given := {key: value for key, value in (facts or {}).items() if value}:
        properties = ET.SubElement(suite, "properties")
        for key, value in given.items():
            ET.SubElement(properties, "property", name=key, value=legal(value))
    suite.extend(tests)


def _rule(rule: Rule) -> ET.Element:
    test = ET.Element("testcase", classname="gate", name=legal(rule.name), time="0")
    tag = {"failed": "failure", "undecided": "error"}.get(rule.state)
    if tag is not None:
        _message(test, tag, rule.message, rule.state, [rule.message, f"owner: {rule.owner}" if rule.owner else ""])
    return test


def _case(case: Case) -> ET.Element:
    test = ET.Element("testcase", classname=legal(case.duty), name=legal(case.dialogue), time="0")
    counts = f"{case.passed} of {case.runs} runs passed" if case.runs else "no run was scored"
    if case.record_passed + case.record_failed:
        counts += f"; on record {case.record_passed} of {case.record_passed + case.record_failed}"
    if case.status == "failed":
        _message(test, "failure", case.reason or "failed", case.severity, [*_told(case), counts])
    elif case.status == "unscored":
        _message(test, "error", case.reason or "unscored", case.unscored_by or "unscored", [*_told(case), counts])
    elif case.status in ("not_applicable", "not_judged"):
        ET.SubElement(test, "skipped", message=case.status.replace("_", " "))
    elif case.status == "flaky":
        ET.SubElement(test, "system-out").text = legal("\n".join(["flaky, tolerated", *_told(case), counts]))
    return test


def _told(case: Case) -> Iterable[str]:
    yield case.question
    yield f"{case.reason} ({case.where})" if case.where else case.reason
    yield from (f"turn {one.turn}, step {one.step}: {one.snippet}" for one in case.evidence if one.snippet)
    if case.owner:
        yield f"owner: {case.owner}"


def _message(test: ET.Element, tag: str, message: str, kind: str, lines: Iterable[str]) -> None:
    found = ET.SubElement(test, tag, message=legal(message), type=legal(kind))
    found.text = legal("\n".join(line for line in lines if line))


def legal(text: str) -> str:
    """The text as XML can hold it."""
    return _ILLEGAL.sub(lambda found: found[0].encode("unicode_escape", "replace").decode(), text)
