"""Alert: a rule that holds of a duty: raised once, cleared once, and what a person or machine is to be told of it.

`Alerts.evaluate` is called after every dialogue for the duties that it decided, and changes the `Watch` of each rule
and duty; like everything that is folded from the log it does the same whenever it is asked again. Ids are made of
rule, duty and the number of the dialogue, so that a second evaluation after a kill is recognised and told to nobody
twice.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from cm2.assure.drift import Adwin, Change, Cusum
from cm2.assure.monitor_state import FIRST, DutyState, Example, State, Watch, Window
from cm2.assure.rules import Rule
from cm2.checklist import Severity

CONFIDENCE = 0.9
"""Of the interval of a measured baseline whose lower end a CUSUM takes for the rate that is fine."""


class Baseline(msgspec.Struct, frozen=True):
    """The rate that is fine, and on how many dialogues it was measured (None: somebody says so)."""

    rate: float
    scored: int | None = None

    @property
    def low(self) -> float:
        """The lowest rate that the measurement allows (Wilson)."""
        if self.scored is None:
            return self.rate
        from scipy.stats import binomtest

        found = binomtest(round(self.rate * self.scored), self.scored).proportion_ci(CONFIDENCE, method="wilson")
        return float(found.low)


class Alert(msgspec.Struct, omit_defaults=True):
    """An alert that was raised or cleared."""

    id: str
    rule: str
    when: str
    duty: str
    state: Literal["raised", "cleared"]
    at: float
    said: str
    """In one sentence."""
    severity: Severity | None = None
    rate: float | None = None
    scored: int = 0
    unscored: int = 0
    baseline: float | None = None
    dialogue: str = ""
    """The dialogue after which it was."""
    examples: list[Example] = []


class Escalation(msgspec.Struct, omit_defaults=True):
    """A dialogue that a person should look at."""

    alert: str
    rule: str
    duty: str
    queue: str
    example: Example
    severity: Severity | None = None


class Alerts:
    """The rules at work on a state.

    Args:
        state: whose watches are changed.
        baselines: rates that are fine, by duty, where they were measured elsewhere.
    """

    def __init__(self, state: State, baselines: dict[str, Baseline] | None = None):
        self.state, self._baselines = state, baselines or {}
        self._detectors: dict[tuple[str, str], Adwin | Cusum] = {}

    def evaluate(self, duty: str, dialogue: str) -> list[Alert | Escalation]:
        """What the rules say of a duty after a dialogue that decided it, or could not."""
        known = self.state.known.duties[duty]
        found: list[Alert | Escalation] = []
        for rule in self.state.rules.rules:
            if rule.watches(duty, known.severity):
                watch = known.watches.setdefault(rule.name, Watch(rule.digest))
                found += self._evaluate(rule, duty, known, watch, dialogue)
        return found

    def _evaluate(
        self, rule: Rule, name: str, duty: DutyState, watch: Watch, dialogue: str
    ) -> list[Alert | Escalation]:
        window = self.state.window(name, rule.dialogues, rule.seconds)
        latest = duty.recent[-1]
        if rule.when == "drift":
            speaks = self._drift(rule, name, duty, watch, window, latest)
        else:
            speaks = self._speaks(rule, name, duty, window, standing=watch.alert is not None)
        if speaks is None:
            return self._further(rule, name, duty, watch, latest)
        watch.streak = watch.streak + 1 if speaks else 0
        at_once = rule.when == "drift" and watch.alert is None
        if watch.streak < rule.hold and not (speaks and at_once):
            return self._further(rule, name, duty, watch, latest)
        watch.streak = 0
        if watch.alert is None:
            return self._raise(rule, name, duty, watch, window, dialogue)
        alert = self._alert(rule, name, duty, watch, window, dialogue, "cleared")
        watch.alert, watch.reference = None, None
        return [alert]

    def _speaks(self, rule: Rule, name: str, duty: DutyState, window: Window, standing: bool) -> bool | None:
        """Whether the window speaks for a change: for raising, or where the alert stands for clearing. None: it says
        nothing, there are too few dialogues in it."""
        counts, rate = window.counts, window.rate
        if rule.when == "failure":
            return counts["f"] <= rule.clears if standing else counts["f"] >= rule.raises
        if rule.when == "unscored":
            if len(window) < rule.least:
                return None
            share = counts["u"] / len(window)
            return share <= rule.clears if standing else share > rule.raises
        if window.scored < rule.least or rate is None:
            return None
        if rule.when == "below":
            if standing:
                return rate >= rule.clears
            return rate < rule.raises and self._sure(rule, window, Baseline(rule.raises))
        fine = self.baseline(rule, name, duty)
        if fine is None:
            return None
        if standing:
            return fine.rate - rate <= rule.clears
        return fine.rate - rate > rule.raises and self._sure(rule, window, fine)

    def _drift(self, rule: Rule, name: str, duty: DutyState, watch: Watch, window: Window, latest: str) -> bool | None:
        change = self._fed(rule, name, duty, watch, latest)
        if watch.alert is None:
            if change is None or not change.fell or window.scored < rule.least:
                return None if change is None else False
            watch.reference = change.before
            return True
        if change is not None and change.fell:
            watch.reference = max(watch.reference or 0.0, change.before)
            return False
        rose = change is not None and not change.fell
        rate, reference = window.rate, watch.reference
        enough = window.scored >= rule.least and rate is not None and reference is not None
        return True if rose else enough and rate is not None and reference is not None and rate >= reference

    def _fed(self, rule: Rule, name: str, duty: DutyState, watch: Watch, latest: str) -> Change | None:
        """Feed the detector the latest result; a dialogue that was not decided is none."""
        if latest == "u":
            return None
        detector = self._detectors.get((rule.name, name))
        if detector is None or watch.detector is None:
            detector = self._detector(rule, name, duty, watch)
            if detector is None:
                return None
            self._detectors[rule.name, name] = detector
        change = detector.add(latest == "p")
        watch.detector = detector.state
        return change

    def _detector(self, rule: Rule, name: str, duty: DutyState, watch: Watch) -> Adwin | Cusum | None:
        if rule.method == "adwin":
            return Adwin(rule.delta, watch.detector if isinstance(watch.detector, str) else "")
        fine = self.baseline(rule, name, duty)
        if fine is None:
            return None
        return Cusum(fine.low, rule.drop, rule.every, watch.detector if isinstance(watch.detector, float) else 0.0)

    def baseline(self, rule: Rule, name: str, duty: DutyState) -> Baseline | None:
        """The rate that is fine for that rule and duty; None while it is still being measured."""
        if isinstance(rule.baseline, float):
            return Baseline(rule.baseline)
        if rule.baseline is None and name in self._baselines:
            return self._baselines[name]
        wanted = rule.baseline if rule.baseline is not None else FIRST
        if len(duty.first) < wanted:
            return None
        return Baseline(duty.first[:wanted].count("p") / wanted, wanted)

    def _sure(self, rule: Rule, window: Window, fine: Baseline) -> bool:
        """Whether chance explains the difference too badly to be believed."""
        if rule.sure is None:
            return True
        from scipy.stats import binomtest, fisher_exact

        passed, failed = window.counts["p"], window.counts["f"]
        if fine.scored is None:
            p = binomtest(passed, passed + failed, fine.rate, alternative="less").pvalue
        else:
            held = round(fine.rate * fine.scored)
            p = fisher_exact([[passed, failed], [held, fine.scored - held]], alternative="less").pvalue
        return bool(p <= rule.sure)

    def _raise(
        self, rule: Rule, name: str, duty: DutyState, watch: Watch, window: Window, dialogue: str
    ) -> list[Alert | Escalation]:
        watch.alert, watch.since = f"{rule.name}/{name}/{self.state.known.dialogues}", self.state.known.last
        alert = self._alert(rule, name, duty, watch, window, dialogue, "raised")
        self.state.known.alerts[rule.name] = self.state.known.alerts.get(rule.name, 0) + 1
        queued = self._queued(rule, name, duty, watch, alert.examples)
        return [alert, *queued]

    def _further(self, rule: Rule, name: str, duty: DutyState, watch: Watch, latest: str) -> list[Alert | Escalation]:
        """The dialogue itself, for a person, while the alert stands."""
        if watch.alert is None or latest != ("u" if rule.when == "unscored" else "f"):
            return []
        return list(self._queued(rule, name, duty, watch, self._examples(rule, duty)[-1:]))

    def _queued(
        self, rule: Rule, name: str, duty: DutyState, watch: Watch, examples: list[Example]
    ) -> list[Escalation]:
        if rule.escalate is None or watch.alert is None:
            return []
        head = (watch.alert, rule.name, name, rule.escalate)
        return [Escalation(*head, example, duty.severity) for example in examples]

    def _examples(self, rule: Rule, duty: DutyState) -> list[Example]:
        return duty.lost if rule.when == "unscored" else duty.failed

    def _alert(
        self,
        rule: Rule,
        name: str,
        duty: DutyState,
        watch: Watch,
        window: Window,
        dialogue: str,
        state: Literal["raised", "cleared"],
    ) -> Alert:
        fine = watch.reference
        if rule.when == "drop":
            found = self.baseline(rule, name, duty)
            fine = None if found is None else found.rate
        since = window.since
        return Alert(
            id=f"{watch.alert}/{state}",
            rule=rule.name,
            when=rule.when,
            duty=name,
            state=state,
            at=self.state.known.last,
            said=_said(rule, name, window, fine, state),
            severity=duty.severity,
            rate=window.rate,
            scored=window.scored,
            unscored=window.counts["u"],
            baseline=fine,
            dialogue=dialogue,
            examples=[one for one in self._examples(rule, duty) if one.at >= since] if state == "raised" else [],
        )


def _said(rule: Rule, name: str, window: Window, fine: float | None, state: str) -> str:
    counts = window.counts
    rate = "nothing decided" if window.rate is None else f"{counts['p']} of {window.scored} pass ({window.rate:.1%})"
    if rule.when == "failure":
        what = f"{counts['f']} of the last {len(window)} dialogues fail it"
    elif rule.when == "unscored":
        what = f"{counts['u']} of the last {len(window)} dialogues could not be judged"
    elif rule.when == "drift":
        what = f"{rate}; before it changed: {fine or 0:.1%}"
    elif rule.when == "drop":
        what = f"{rate}; the baseline is {fine or 0:.1%}"
    else:
        what = f"{rate}; the level is {rule.clears if state == 'cleared' else rule.raises:.1%}"
    return f"{rule.name}: {name} {'recovered' if state == 'cleared' else rule.when}: {what}"
