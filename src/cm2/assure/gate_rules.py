"""Rules: what a gate asks of its cases, each answered with passed, failed or undecided.

A rate fails a threshold if the observed rate is below it; with a suite's `confidence` only if the upper end of the
interval is, so that a few bad cases of a small suite do not stop anybody (and a small suite can stop hardly anything).
A share of unscored runs above what is allowed leaves the gate undecided: nobody can say that the agent is well, and
nobody says that it is not. A rule that failed wins over one that is undecided.
"""

from __future__ import annotations

from collections.abc import Iterable

from cm2.assure.baseline import Paired
from cm2.assure.gate_case import Case, Rate, Rule, State
from cm2.assure.suite import SEVERITIES, Suite, Threshold


def threshold_rules(suite: Suite, cases: list[Case], severities: list[Rate], duties: list[Rate]) -> list[Rule]:
    """What thresholds ask of severities and single duties."""
    found: list[Rule] = []
    by_severity = {rate.name: rate for rate in severities}
    for severity in SEVERITIES:
        if severity in by_severity:
            mine = [case for case in cases if case.severity == severity]
            found += _rules(suite, severity, suite.threshold(severity), by_severity[severity], mine)
    for rate in duties:
        if rate.name in suite.duties:
            mine = [case for case in cases if case.duty == rate.name]
            found += _rules(suite, rate.name, suite.duties[rate.name], rate, mine)
    return found


def _rules(suite: Suite, name: str, asked: Threshold, rate: Rate, cases: list[Case]) -> list[Rule]:
    found: list[Rule] = []
    if asked.min_pass_rate is not None and rate.rate is not None:
        found.append(_pass_rate(suite, name, asked.min_pass_rate, rate))
    if asked.max_fails is not None:
        failing = [case for case in cases if case.status == "failed"]
        many = len(failing) > asked.max_fails
        said = f"{len(failing)} of {_count(rate.cases, 'case')} fail, {asked.max_fails} may"
        if failing and many:
            said += f": {_some(failing)}"
        found.append(Rule(f"{name}: max_fails", "failed" if many else "passed", said, _owners(failing)))
    if asked.max_unscored is not None:
        found += _unscored(f"{name}: max_unscored", asked.max_unscored, cases)
    return found


def _pass_rate(suite: Suite, name: str, least: float, rate: Rate) -> Rule:
    assert rate.rate is not None and rate.low is not None and rate.high is not None
    level = suite.confidence or 0.95
    interval = f"{level:.0%} interval {rate.low:.1%} to {rate.high:.1%}"
    said = f"{rate.rate:.1%} pass, at least {least:.1%} must ({interval}, {_count(rate.cases, 'case')})"
    low = (rate.rate if suite.confidence is None else rate.high) < least - 1e-9
    if suite.confidence is not None and rate.rate < least - 1e-9:
        said += "; all of the interval is below" if low else "; which may be chance"
    return Rule(f"{name}: min_pass_rate", "failed" if low else "passed", said, rate.owner)


def unscored_rules(suite: Suite, cases: list[Case]) -> list[Rule]:
    """What is asked of all cases together: that they were judged, and that there are any."""
    found = _unscored("unscored", suite.max_unscored, cases)
    if not any(case.runs for case in cases):
        found.append(Rule("judged", "undecided", "no duty was judged in any dialogue: there is nothing to go by"))
    missing = [case for case in cases if case.status == "not_judged" and case.severity == "critical"]
    if missing:
        names = ", ".join(sorted({case.duty for case in missing}))
        message = f"critical duties have no check, and no model is asked: {names}; set `judging: {{kind: hybrid}}`"
        found.append(Rule("critical: judged", "undecided", message, _owners(missing)))
    return found


def _unscored(name: str, most: float, cases: list[Case]) -> list[Rule]:
    unscored = sum(case.unscored for case in cases)
    applicable = unscored + sum(case.runs for case in cases)
    if not applicable:
        return []
    share = unscored / applicable
    whose: dict[str, int] = {}
    for case in cases:
        if case.unscored:
            whose[case.unscored_by or "nobody"] = whose.get(case.unscored_by or "nobody", 0) + case.unscored
    said = f"{unscored} of {applicable} judgements are unscored ({share:.1%}), {most:.1%} may be"
    if whose:
        said += "; whose failure: " + ", ".join(f"{owner} {count}" for owner, count in sorted(whose.items()))
    return [Rule(name, "undecided" if share > most + 1e-9 else "passed", said)]


def baseline_rules(suite: Suite, cases: list[Case], duties: list[Rate], paired: Iterable[Paired]) -> list[Rule]:
    """What the baseline asks: no duty fell, and no critical case is new among the failing ones."""
    found = []
    owners = {rate.name: rate.owner for rate in duties}
    for one in paired:
        fell = one.p <= suite.alpha
        said = f"{one.before:.1%} before, {one.now:.1%} now, {_count(one.n, 'case')} paired, p {one.p:.3g} (Holm)"
        found.append(Rule(f"{one.duty}: baseline", "failed" if fell else "passed", said, owners.get(one.duty, "")))
    new = [case for case in cases if case.new and case.severity == "critical"]
    said = f"{_count(len(new), 'critical case')} newly failing" + (f": {_some(new)}" if new else "")
    found.append(Rule("critical: newly failing", "failed" if new else "passed", said, _owners(new)))
    return found


def worse_rules(cases: list[Case]) -> list[Rule]:
    """What is on record of flaky cases: none of them is significantly worse than it was."""
    known = [case for case in cases if case.record_passed + case.record_failed]
    worse = [case for case in known if case.worse]
    if not any(case.failed for case in known):
        return []
    said = f"{_count(len(worse), 'flaky case')} significantly worse than on record" + (
        f": {_some(worse)}" if worse else ""
    )
    return [Rule("flaky: worse", "failed" if worse else "passed", said, _owners(worse))]


def state_of(rules: list[Rule]) -> State:
    """failed before undecided before passed."""
    states = {rule.state for rule in rules}
    return "failed" if "failed" in states else "undecided" if "undecided" in states else "passed"


def _some(cases: list[Case], most: int = 3) -> str:
    named = [f"{case.duty} in {case.dialogue}" for case in cases[:most]]
    return ", ".join(named) + (f" and {len(cases) - most} more" if len(cases) > most else "")


def _owners(cases: list[Case]) -> str:
    return " ".join(sorted({case.owner for case in cases if case.owner}))


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
