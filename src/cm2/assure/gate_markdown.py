"""Markdown: a gate's result for a pull request or a job's summary.

What stands in a dialogue is shown as code, so that it makes no headings, links, images or mentions; only an owner of a
duty is mentioned, and only where the suite or the policy writes `@name` or `@org/team`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cm2.assure.gate_case import Case, GateResult, Rate, Rule
from cm2.assure.gate_tally import telling

SHOWN = 25
CUT = 240
MARKS = {"passed": "✅", "failed": "❌", "undecided": "❔"}
_MENTION = re.compile(r"@[A-Za-z0-9][A-Za-z0-9-]*(?:/[A-Za-z0-9][\w.-]*)?")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_MARKUP = re.compile(r"[\\`*_\[\]<>#!|~&@]|:(?=//)|\.(?<=www\.)", re.IGNORECASE)


def markdown(result: GateResult) -> str:
    """The result as Markdown; its length is bounded, whatever the suite holds."""
    return "\n".join(_lines(result)) + "\n"


def _lines(result: GateResult) -> Iterator[str]:
    yield f"## {MARKS[result.state]} {plain(result.suite)}: {result.state}"
    yield ""
    lost = f", {result.lost} lost" if result.lost else ""
    version = f", version {code(result.version)}" if result.version else ""
    yield f"{result.dialogues} dialogues, {result.runs} runs{lost} of {code(result.source)}{version}."
    broken = result.ruled("failed") + result.ruled("undecided")
    if broken:
        yield from ["", "| | asked | found | owner |", "|---|---|---|---|"]
        yield from (_rule(rule) for rule in broken[:SHOWN])
        yield from _rest(len(broken))
    yield from _table("severity", result.severities)
    yield from _table("duty", result.duties)
    yield from _cases("Failing", result.with_status("failed"))
    yield from _cases("Unscored", result.with_status("unscored"))
    yield from _cases("Flaky, tolerated", result.with_status("flaky"))
    flaky = result.flakiness
    if flaky.repeated:
        interval = "" if flaky.low is None else f" (95 % interval {flaky.low:.1%} to {flaky.high:.1%})"
        yield from ["", f"{flaky.flaky} of {flaky.repeated} repeated cases passed and failed{interval}."]
    if result.notes:
        yield ""
        yield from (f"- {plain(note)}" for note in result.notes)


def _rule(rule: Rule) -> str:
    return f"| {MARKS[rule.state]} | {code(rule.name)} | {plain(rule.message)} | {owners(rule.owner)} |"


def _table(what: str, rates: list[Rate]) -> Iterator[str]:
    if not rates:
        return
    before = any(rate.before is not None for rate in rates)
    heads = [what, *(["severity"] if what == "duty" else []), "cases", "fail", "flaky", "unscored", "pass rate"]
    heads += ["95 % interval", *(["before", "p"] if before else [])]
    yield from ["", "| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    shown, rest = telling(rates, SHOWN)
    for rate in shown:
        row = [code(rate.name), *([rate.severity] if what == "duty" else []), str(rate.cases), str(rate.failed)]
        row += [str(rate.flaky), str(rate.unscored), percent(rate.rate)]
        row.append("–" if rate.low is None else f"{percent(rate.low)} to {percent(rate.high)}")
        if before:
            row += [percent(rate.before), "–" if rate.p is None else f"{rate.p:.3g}"]
        yield "| " + " | ".join(row) + " |"
    yield from _rest(rest + SHOWN)


def _cases(title: str, cases: list[Case]) -> Iterator[str]:
    if not cases:
        return
    yield from [
        "",
        f"### {title}: {len(cases)}",
        "",
        "| duty | dialogue | runs | why | owner |",
        "|---|---|---|---|---|",
    ]
    for case in cases[:SHOWN]:
        runs = f"{case.passed} of {case.runs}" + (", new" if case.new else "")
        why = f"{case.reason} ({case.where})" if case.where else case.reason
        yield f"| {code(case.duty)} | {code(case.dialogue)} | {runs} | {code(why)} | {owners(case.owner)} |"
    yield from _rest(len(cases))


def _rest(count: int) -> Iterator[str]:
    if count > SHOWN:
        yield f"\n… and {count - SHOWN} more"


def percent(share: float | None) -> str:
    """A share in per cent."""
    return "–" if share is None else f"{share:.1%}"


def code(text: str) -> str:
    """Text as inline code of a table's cell, whatever it holds."""
    text = _CONTROL.sub(" ", text).strip()[:CUT].replace("|", "\\|")
    if not text:
        return "–"
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}".encode("utf-8", "replace").decode()


def plain(text: str) -> str:
    """Text in which nothing is markup."""
    cut = _CONTROL.sub(" ", text)[: 2 * CUT].encode("utf-8", "replace").decode()
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", cut)


def owners(text: str) -> str:
    """Who is mentioned."""
    return " ".join(one if _MENTION.fullmatch(one) else plain(one) for one in text.split()) or ""
