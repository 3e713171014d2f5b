"""Doings: items about calls, and about the answers that later things depend on."""

from __future__ import annotations

from cm2.check import Anything, Called, Check, Response
from cm2.checklist import Evidence, call_text
from cm2.label.arguments import Wanted
from cm2.label.candidate import ANSWER, CALLS, Candidate
from cm2.label.phrases import article, label, label_of, quote, the_argument, tolerance, with_arguments
from cm2.label.reading import Deed, Reading
from cm2.writes import mode

WRITE, LOOKUP, RETURNED = 3.0, 1.0, 0.5


def doings(reading: Reading, turn: int) -> list[Candidate]:
    """An item for every needed call of a turn, and one for every answer that something later depends on."""
    deeds = reading.of(turn)
    found: list[Candidate] = []
    answers = {deed.key: returned(reading, deed) for deed in deeds}
    for deed in deeds:
        found.append(call_item(reading, deed, [key for key in depends(deed, deeds) if answers.get(key) is not None]))
        answer = answers[deed.key]
        if answer is not None:
            found.append(answer)
    return merged(found)


def answer_key(deed: Deed) -> str:
    """What names the item about a call's answer among the candidates of its turn."""
    return f"answer to {deed.key}"


def depends(deed: Deed, deeds: list[Deed]) -> list[str]:
    """The calls of the same turn whose answers a call needs, by key."""
    origins = [id(wanted.origin.source) for wanted in deed.wanted if wanted.origin is not None and not wanted.named]
    return [each.key for each in deeds if id(each.source) in origins]


def called(deed: Deed) -> Called:
    """The check that the call was made; a write must also have been answered."""
    matchers = {wanted.key: wanted.matcher for wanted in deed.wanted}
    return Called(deed.source.tool, matchers, answered=deed.write and deed.source.answered)


def call_item(reading: Reading, deed: Deed, needs: list[str]) -> Candidate:
    """The item that a call was made with the arguments that matter."""
    source, tool = deed.source, deed.source.tool
    kind = "write" if deed.write else "call"
    outcome = " and is answered without an error" if deed.write and source.answered else ""
    failures = [f"`{tool}` is not called, or only talked about"]
    handed = next((wanted for wanted in deed.wanted if wanted.origin is not None and not wanted.named), None)
    if handed is not None and handed.origin is not None:
        failures.append(f"the {label(handed.key)} is made up instead of taken from `{handed.origin.source.tool}`")
    elif deed.wanted:
        failures.append(f"`{tool}` is called with another {label(deed.wanted[0].key)}")
    return Candidate(
        kind=kind,
        key=deed.key,
        focus=CALLS,
        checks=[called(deed)],
        question=f"Did the assistant call `{tool}`{with_arguments(deed.wanted)}?",
        passes=f"`{tool}` is called{with_arguments(deed.wanted)}{outcome}. {tolerance(deed.wanted)}",
        weight=WRITE if deed.write else LOOKUP,
        evidence=[Evidence(source.turn, source.step, CALLS, call_text(tool, source.call.raw or source.call.arguments))],
        failures=failures,
        strict=deed.write and not deed.rejected,
        depends=[f"answer to {key}" for key in needs],
    )


def returned(reading: Reading, deed: Deed) -> Candidate | None:
    """The item that a tool returned what a later call or reply needs, where one does."""
    if not deed.used or not deed.source.answered:
        return None
    source, tool = deed.source, deed.source.tool
    assert source.response is not None
    needed = sorted(deed.used, key=lambda use: (use[2] is None, use[0] == source.turn))
    _, leaf, path = needed[0]
    # An empty list is a value: the first of what the path finds is null where it finds nothing.
    place = None if path is None else path if "[" not in path and "*" not in path else f"{path} | [0]"
    if path is not None and path.startswith(("min_by(", "max_by(")) and "|" not in path:
        place = path
    several = sum(each.source.tool == tool for each in reading.of(source.turn)) > 1
    full = {wanted.key: wanted.matcher for wanted in deed.wanted}
    choice = mode(reading.dialogue.tool(tool))
    brief = {key: matcher for key, matcher in full.items() if choice is not None and key == choice.argument}
    checks: list[Check] = [Response(tool, place, Anything(), each) for each in ((full,) if several else (brief, full))]
    what = label_of(leaf)
    later = sorted({use[0] for use in deed.used if use[0] > source.turn})
    text = source.response.content
    holds = f"{article(what)}{place_in_words(path)}"
    aim = "to go on with" if any(_by_call(reading, deed, use[0]) for use in deed.used) else "for the reply to pass on"
    whose = f" for {the_first(deed.wanted)}" if several and deed.wanted else ""
    return Candidate(
        kind="response",
        key=answer_key(deed),
        focus=ANSWER,
        checks=checks if len(checks) < 2 or checks[0] != checks[1] else checks[:1],
        question=f"Did `{tool}` return {article(what)}{whose} {aim}?",
        passes=f"A response of `{tool}`{whose} is no error and holds {holds}, whatever its value.",
        weight=RETURNED,
        evidence=[Evidence(source.turn, source.step, ANSWER, quote(text, str(leaf.value)))] if text.strip() else [],
        failures=[f"`{tool}` answers with an error or finds nothing"],
        strict=bool(later) and any(_by_call(reading, deed, at) for at in later),
    )


def place_in_words(path: str | None) -> str:
    """Where a value is looked for in a response, in words."""
    return f" (at `{path}`)" if path else ""


def the_first(wanted: list[Wanted]) -> str:
    """The argument that tells one call from another, in words."""
    return the_argument(next((each for each in wanted if each.named), wanted[0]))


def _by_call(reading: Reading, deed: Deed, turn: int) -> bool:
    """Whether a call of a later turn cannot be made without the answer."""
    return any(
        wanted.origin is not None and not wanted.named and wanted.origin.source is deed.source
        for each in reading.deeds
        if each.source.turn == turn
        for wanted in each.wanted
    )


def merged(candidates: list[Candidate]) -> list[Candidate]:
    """Candidates with the same check made one: of writes as many calls are asked for, of the rest one will do."""
    found: list[Candidate] = []
    for candidate in candidates:
        same = next((each for each in found if _alike(each, candidate)), None)
        if same is None:
            found.append(candidate)
        elif candidate.kind == "write":
            check = same.check
            assert isinstance(check, Called)
            times = check.at_least + 1
            same.checks = [Called(check.tool, check.arguments, times, answered=check.answered)]
            every = f"{times} calls of `{check.tool}`, one for each thing that was asked for"
            same.question = f"Did the assistant make {every}?"
            same.passes = f"There are at least {every}. {same.passes}"
            same.evidence += candidate.evidence
    renamed = {each.key: next(one.key for one in found if _alike(one, each)) for each in candidates}
    for candidate in found:
        candidate.depends = list(dict.fromkeys(renamed.get(key, key) for key in candidate.depends))
    return found


def _alike(left: Candidate, right: Candidate) -> bool:
    a, b = left.check, right.check
    if isinstance(a, Called) and isinstance(b, Called):
        return (a.tool, a.arguments, a.answered) == (b.tool, b.arguments, b.answered)
    return a == b
