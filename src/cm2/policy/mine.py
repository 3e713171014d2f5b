"""Mine: duties that an agent's logs suggest, because it nearly always does so.

Four patterns, each counted over all dialogues: a tool that always precedes a change; a yes of the user before it; an
argument whose value always stood in an earlier answer of one tool; a value of a tool's answer that the reply always
states. What is counted here only proposes: how often a drafted duty applies and passes is then measured by judging the
logs with it (`cm2.policy.prove`). Logs show what an agent does and not what it ought to do: a person decides.

Counters are bounded, so that memory does not grow with the logs.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import msgspec

from cm2.check import Before, Called, Expression, Fact, Reply
from cm2.dialogue import Dialogue
from cm2.judge.assent import confirms
from cm2.judge.functions import mentions
from cm2.judge.record import record
from cm2.judge.scope import state_of
from cm2.policy.policy import Duty
from cm2.verdict import WHOLE

MOST = 50_000
"""Patterns of one sort that are counted; beyond it only those that were seen before are."""
PATHS = 24
"""Fields of an answer that are looked at."""
LIKELY = 0.85
"""Share of occasions from which on a pattern is worth proposing."""
_KEY = re.compile(r"[A-Za-z_]\w*")
_ID = re.compile(r"(?=.*\d).{3,}")

Pair = tuple[str, ...]


class Patterns(msgspec.Struct):
    """What was counted. `seen[key]` occasions, `held[key]` of them with the pattern."""

    dialogues: int = 0
    writes: Counter[str] = msgspec.field(default_factory=Counter)
    """Dialogues in which a tool changed something."""
    before: Counter[Pair] = msgspec.field(default_factory=Counter)
    """(change, tool that was answered at an earlier step than the first call of it)."""
    asked: Counter[str] = msgspec.field(default_factory=Counter)
    confirmed: Counter[str] = msgspec.field(default_factory=Counter)
    given: Counter[Pair] = msgspec.field(default_factory=Counter)
    """(tool, argument): calls with a value that looks like an identifier."""
    came: Counter[Pair] = msgspec.field(default_factory=Counter)
    """(tool, argument, tool in whose earlier answer the value stood)."""
    returned: Counter[Pair] = msgspec.field(default_factory=Counter)
    """(tool, field): turns that ended with a reply and in which the tool answered with such a field."""
    stated: Counter[Pair] = msgspec.field(default_factory=Counter)

    def add(self, dialogue: Dialogue) -> None:
        """Count one dialogue."""
        self.dialogues += 1
        found = record(state_of(dialogue, WHOLE, WHOLE))
        calls = found["calls"]
        self._order(calls)
        self._sources(calls)
        self._replies(calls, found["replies"])

    def _order(self, calls: list[dict[str, Any]]) -> None:
        first: dict[str, tuple[int, int]] = {}
        for call in calls:
            if call["writes"] and call["ok"]:
                _count(self.asked, call["tool"])
                if confirms(call["user"]):
                    _count(self.confirmed, call["tool"])
            if call["writes"]:
                first.setdefault(call["tool"], (call["turn"], call["step"]))
        for tool, place in first.items():
            _count(self.writes, tool)
            earlier = {c["tool"] for c in calls if c["ok"] and (c["turn"], c["step"]) < place}
            for other in earlier - {tool}:
                _count(self.before, (tool, other))

    def _sources(self, calls: list[dict[str, Any]]) -> None:
        answered: dict[str, str] = {}
        for call in calls:
            for key, value in call["args"].items():
                if isinstance(value, str) and _ID.fullmatch(value) and _KEY.fullmatch(key) and " " not in value:
                    _count(self.given, (call["tool"], key))
                    for tool in [tool for tool, text in answered.items() if mentions(text, value)]:
                        _count(self.came, (call["tool"], key, tool))
            if call["ok"]:
                answered[call["tool"]] = f"{answered.get(call['tool'], '')}\n{call['text']}"

    def _replies(self, calls: list[dict[str, Any]], replies: list[dict[str, Any]]) -> None:
        final = {reply["turn"]: reply["text"] for reply in replies if reply["final"]}
        last = {(call["turn"], call["tool"]): call["result"] for call in calls if call["ok"]}
        for (turn, tool), result in last.items():
            if turn not in final or not isinstance(result, dict):
                continue
            for key, value in list(result.items())[:PATHS]:
                if isinstance(value, bool) or not isinstance(value, (str, int, float)) or value == "":
                    continue
                if _KEY.fullmatch(key) and len(str(value)) <= 60:
                    _count(self.returned, (tool, key))
                    if mentions(final[turn], value):
                        _count(self.stated, (tool, key))


def _count(counter: Counter[Any], key: Any) -> None:
    if key in counter or len(counter) < MOST:
        counter[key] += 1


def propose(found: Patterns, support: int) -> list[Duty]:
    """The duties that the patterns suggest: those with at least `support` occasions, the strongest first."""
    return [*_before(found, support), *_confirmed(found, support), *_came(found, support), *_stated(found, support)]


def _likely(held: Counter[Any], seen: Counter[Any], support: int, about: Any) -> list[tuple[Any, int, int]]:
    rows = [(key, count, seen[about(key)]) for key, count in held.items() if seen[about(key)] >= support]
    rows = [row for row in rows if row[1] / row[2] >= LIKELY]
    return sorted(rows, key=lambda row: (-row[1] / row[2], -row[2], row[0]))


def _before(found: Patterns, support: int) -> list[Duty]:
    made: dict[str, Duty] = {}
    for (tool, other), count, seen in _likely(found.before, found.writes, support, lambda key: key[0]):
        if tool in made:
            continue  # one forerunner a tool: the strongest
        made[tool] = Duty(
            id=name("first", other, "then", tool),
            question=f"Was {other} answered before {tool} was called for the first time?",
            pass_condition=f"An answer of {other}, no error, stands at an earlier step than the first call of {tool}.",
            applies_when=Called(tool),
            check=Before(Called(other, answered=True), Called(tool)),
            note=f"Pattern: in {count} of {seen} dialogues that call {tool}.",
        )
    return list(made.values())


def _confirmed(found: Patterns, support: int) -> list[Duty]:
    return [
        Duty(
            id=name("confirm", tool),
            question=f"Did the customer say yes, explicitly and last, before each successful {tool}?",
            pass_condition="The latest message of the customer before the call is an explicit yes.",
            applies_when=Called(tool, answered=True),
            check=Expression(f"writes.filter(w, w.tool == {quoted(tool)}).all(w, confirms(w.user))"),
            severity="critical",
            note=f"Pattern: before {count} of {seen} such calls.",
        )
        for tool, count, seen in _likely(found.confirmed, found.asked, support, lambda key: key)
    ]


def _came(found: Patterns, support: int) -> list[Duty]:
    made: dict[Pair, Duty] = {}
    for (tool, key, source), count, seen in _likely(found.came, found.given, support, lambda key: key[:2]):
        if (tool, key) in made or source == tool:
            continue
        calls = f"calls.filter(c, c.tool == {quoted(tool)} && has(c.args.{key}))"
        origin = f"c.index > p.index && p.ok && p.tool == {quoted(source)} && mentions(p.text, c.args.{key})"
        made[tool, key] = Duty(
            id=name(tool, key, "from", source),
            question=f"Does the {key} of every call of {tool} stand in an earlier answer of {source}?",
            pass_condition=f"The value stood in an answer of {source} that came before the call.",
            applies_when=Expression(f"{calls}.size() > 0"),
            check=Expression(f"{calls}.all(c, calls.exists(p, {origin}))"),
            note=f"Pattern: in {count} of {seen} calls with an identifier there.",
        )
    return list(made.values())


def _stated(found: Patterns, support: int) -> list[Duty]:
    return [
        Duty(
            id=name("say", key, "of", tool),
            question=f"Does the reply state the {key} that {tool} returned?",
            pass_condition=f"The turn's final reply states the {key} of the latest answer of {tool}, in any spelling.",
            scope="turn",
            focus_on="assistant.content.user_visible_reply",
            applies_when=Expression(
                f"calls.exists(c, c.turn == turn && c.ok && c.tool == {quoted(tool)} && has(c.result.{key}))"
                f' && reply != ""'
            ),
            check=Reply(states=[Fact(tool=tool, path=key)]),
            note=f"Pattern: in {count} of {seen} turns in which {tool} returned one.",
        )
        for (tool, key), count, seen in _likely(found.stated, found.returned, support, lambda key: key)
    ]


def name(*parts: str) -> str:
    """An id made of words: lower case, with hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")[:80]


def quoted(text: str) -> str:
    """A text as an expression writes it."""
    return msgspec.json.encode(text.encode("utf-8", "replace").decode()).decode()
