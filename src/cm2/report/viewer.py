"""Viewer: what the page's dialogue viewer needs to know of a dialogue, as plain JSON values.

Two forms: an *entry* of the list (what it is called, how it scored, which duties came out how) and the whole *dialogue*
(what was said and done, cut where evidence lies, beside its verdicts). Every text in them is made visible here, and is
only ever put on the page as text. Names that repeat (duties, judges) are numbers into the tables of `Names`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cm2.assure.failures import Failures
from cm2.assure.outcomes import Judged, Outcome
from cm2.dialogue import Step
from cm2.report.text import Piece, visible
from cm2.report.transcript import parts_of
from cm2.verdict import UNSCORED, Pointer

LONGEST = 4000
"""Characters of one part of a dialogue; what is left out is counted."""
LARGEST = 200_000
"""Characters of one dialogue from which on its parts are cut to `SHORT`."""
SHORT = 200
LONGEST_LINE = 400
"""Characters of a question or a reason."""
OPENING = 90
"""Characters of the first message in the list."""
OUTCOMES = 2000
"""Verdicts of one dialogue that are shown."""
RESULTS = {"pass": "p", "fail": "f", "not_applicable": "n", "unscored": "u"}


class Names(msgspec.Struct):
    """Tables of what repeats: duties and judges by number, and the combinations that the filters look for."""

    duties: list[dict[str, Any]] = []
    judges: list[str] = []
    combinations: list[tuple[int, str, int]] = []
    """(duty, result, judge) of outcomes; the judge is -1 where none decided."""
    numbers: dict[str, int] = {}
    """Duties by name, as it is in the data."""
    _judges: dict[str, int] = {}
    _combinations: dict[tuple[int, str, int], int] = {}

    def duty(self, outcome: Outcome) -> int:
        """The number of an outcome's duty."""
        name, item = outcome.duty, outcome.item
        if name not in self.numbers:
            self.numbers[name] = len(self.duties)
            question, condition = visible(item.question)[:LONGEST_LINE], visible(item.pass_condition)[:LONGEST_LINE]
            facts = {"severity": item.severity or "", "owner": visible(item.owner), "q": question, "c": condition}
            self.duties.append({"name": visible(name)[:LONGEST_LINE], **facts})
        return self.numbers[name]

    def judge(self, outcome: Outcome) -> int:
        """The number of the judge that decided an outcome."""
        if outcome.verdict is None:
            return -1
        name = outcome.verdict.judge
        if name not in self._judges:
            self._judges[name] = len(self.judges)
            self.judges.append(visible(name)[:LONGEST_LINE])
        return self._judges[name]

    def combination(self, outcome: Outcome) -> int:
        """The number of an outcome's duty, result and judge."""
        key = self.duty(outcome), RESULTS[outcome.result], self.judge(outcome)
        if key not in self._combinations:
            self._combinations[key] = len(self.combinations)
            self.combinations.append(key)
        return self._combinations[key]


def entry(judged: Judged, names: Names, failures: Failures, part: int, place: int) -> list[Any]:
    """A dialogue in the list: id, rollout, line, score, turns, part and place, combinations, modes, failed, opening."""
    dialogue = judged.dialogue
    failed = [outcome for outcome in judged.outcomes if outcome.result == "fail"]
    modes = {mode for outcome in failed if (mode := failures.mode_of(judged, outcome)) is not None}
    score = judged.score
    opening = " ".join(dialogue.turns[0].user[: 4 * OPENING].split()) if dialogue.turns else ""
    return [
        visible(dialogue.id)[:LONGEST_LINE],
        visible(judged.rollout),
        judged.line,
        None if score is None else round(score, 4),
        len(dialogue.turns),
        part,
        place,
        sorted({names.combination(outcome) for outcome in judged.outcomes}),
        sorted(modes),
        len(failed),
        visible(opening)[:OPENING],
    ]


def whole(judged: Judged, names: Names, failures: Failures) -> dict[str, Any]:
    """A dialogue with its verdicts, its parts cut short where it is very long."""
    found = _whole(judged, names, failures, LONGEST)
    if len(msgspec.json.encode(found)) > LARGEST:
        found = _whole(judged, names, failures, SHORT)
    return found


def _whole(judged: Judged, names: Names, failures: Failures, longest: int) -> dict[str, Any]:
    dialogue = judged.dialogue
    shown = judged.outcomes[:OUTCOMES]
    evidence: dict[tuple[int, int], list[tuple[str, Pointer]]] = {}
    for number, outcome in enumerate(shown):
        for pointer in outcome.verdict.evidence if outcome.verdict else []:
            evidence.setdefault((pointer.turn, pointer.step), []).append((str(number), pointer))
    turns = [
        {
            "user": _cut(turn.user, longest),
            "steps": [_step(step, evidence.get((t, s), []), longest) for s, step in enumerate(turn.steps)],
        }
        for t, turn in enumerate(dialogue.turns)
    ]
    found: dict[str, Any] = {
        "id": visible(dialogue.id)[:LONGEST_LINE],
        "rollout": visible(judged.rollout),
        "line": judged.line,
        "score": judged.score,
        "source": visible(dialogue.source)[:LONGEST_LINE],
        "turns": turns,
        "verdicts": [_verdict(judged, outcome, names, failures) for outcome in shown],
        "left": len(judged.outcomes) - len(shown),
    }
    if dialogue.system is not None:
        found["system"] = _cut(dialogue.system, longest)
    if dialogue.opening:
        found["opening"] = [_step(step, [], longest) for step in dialogue.opening]
    return found


def _cut(text: str, longest: int) -> list[Any]:
    """[text, characters left out]."""
    whole = visible(text)
    return [whole[:longest], max(0, len(whole) - longest)]


def _step(step: Step, evidence: list[tuple[str, Pointer]], longest: int) -> list[list[Any]]:
    """The parts of a step: [kind, pieces, characters left out, origin]."""
    return [
        [part.kind, [_piece(piece) for piece in part.pieces], part.left_out, part.origin]
        for part in parts_of(step, evidence, longest)
    ]


def _piece(piece: Piece) -> Any:
    return [piece.text, [int(mark) for mark in piece.marks]] if piece.marks else piece.text


def _verdict(judged: Judged, outcome: Outcome, names: Names, failures: Failures) -> dict[str, Any]:
    number, verdict, item = names.duty(outcome), outcome.verdict, outcome.item
    found: dict[str, Any] = {
        "d": number,
        "t": outcome.turn,
        "r": RESULTS[outcome.result],
        "j": names.judge(outcome),
        "w": visible(outcome.reason.removeprefix(UNSCORED))[:LONGEST_LINE],
    }
    if verdict is not None and verdict.step >= 0:
        found["s"] = verdict.step
    for key, text in (("q", item.question), ("c", item.pass_condition)):
        shown = visible(text)[:LONGEST_LINE]
        if shown != names.duties[number][key]:  # an item of a reference asks in its own words
            found[key] = shown
    if visible(item.id) != names.duties[number]["name"]:
        found["i"] = visible(item.id)[:LONGEST_LINE]
    if outcome.variant:
        found["v"] = outcome.variant
    if outcome.cost:
        found["$"] = round(outcome.cost, 6)
    if outcome.result == "fail" and (mode := failures.mode_of(judged, outcome)) is not None:
        found["m"] = mode
    places = {(one.turn, one.step) for one in verdict.evidence} if verdict is not None else set()
    if places:
        found["e"] = sorted(places)
    return found
