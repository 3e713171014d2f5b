"""Items of a right answer: each with its question, its check and the place in the reference that shows it."""

from __future__ import annotations

from typing import Any as Json

from cm2.check import Called, Check, Equals, Expression, Fact, Matcher, OneOf, Reply, Response
from cm2.checklist import Evidence, Item, call_text
from cm2.dialogue import Dialogue
from cm2.harness.dialogues.bfcl import as_error
from cm2.harness.dialogues.told import ToldCall
from cm2.judge.values import parsed
from cm2.label.candidate import ANSWER, CALLS, REPLY
from cm2.label.effects_items import last_words
from cm2.label.named import Named


class Collected:
    """Collects the items of one checklist under names of their own."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self._named = Named()

    def did(self, call: ToldCall, check: Called, evidence: Evidence, times: int) -> None:
        """That a change was made."""
        often = f" {times} times" if times > 1 else ""
        self.items.append(
            self._named.item(
                f"did-{call.name}",
                "critical",
                "did",
                check,
                f"Was the change of `{call.name}` made{often}, with the right arguments?",
                f"`{call.name}` is called without an error with {_shown(call.arguments)}; further calls are free.",
                [evidence],
                ["it is not called, or fails", "an argument is another one", "it is called in another turn"],
            )
        )

    def saw(self, call: ToldCall, evidence: Evidence | None) -> None:
        """That what had to be looked up was seen."""
        self.items.append(
            self._named.item(
                f"saw-{call.name}",
                "major",
                "saw",
                Response(call.name, match=Equals(parsed(as_error(call.answer))), allow_error=True),
                f"Was the right answer got from `{call.name}`?",
                f"`{call.name}` gave the answer that it gives for {_shown(call.arguments)}, whenever it was called.",
                [evidence] if evidence is not None else [],
                ["nothing was looked up", "something else was looked up, or in another state"],
                ANSWER,
            )
        )

    def nothing_else(self, check: Check, evidence: list[Evidence]) -> None:
        """That nothing was changed beyond what is right."""
        self.items.append(
            self._named.item(
                "nothing-else-changed",
                "critical",
                "no_other",
                check,
                "Did the run leave everything else as it was?",
                "No tool that changes something is used with success more often than in the right answer; once more is "
                "fine where making the same call again changes nothing.",
                evidence,
                ["something else is changed", "a change is made twice"],
            )
        )

    def acted(self, turns: list[int], evidence: Evidence) -> None:
        """That nothing was answered from memory alone where the right answer calls something."""
        self.items.append(
            self._named.item(
                "acted",
                "critical",
                "acted",
                Expression(f"{turns}.all(t, calls.exists(c, c.turn == t))"),
                "Was something called each time that the right answer calls something?",
                "The grader fails a conversation in which nothing is called where its answer has a call, also where "
                "all was done or seen before.",
                [evidence],
                ["an answer is given without any call where the right answer has one"],
            )
        )

    def told(self, text: str, dialogue: Dialogue) -> None:
        """That the user was told something."""
        self.items.append(
            self._named.item(
                "told",
                "critical",
                "must_tell",
                Reply(states=[_fact(text)]),
                f"Was the user told {text!r}?",
                "A reply, wherever in the dialogue, states it.",
                last_words(dialogue),
                ["it is left out", "another value is stated"],
                REPLY,
            )
        )


def counted(calls: list[ToldCall]) -> list[tuple[ToldCall, int]]:
    """Equal calls as one."""
    found: dict[str, tuple[ToldCall, int]] = {}
    for call in calls:
        key = call_text(call.name, call.arguments)
        found[key] = (found.get(key, (call, 0))[0], found.get(key, (call, 0))[1] + 1)
    return list(found.values())


def exactly(call: ToldCall) -> dict[str, Matcher]:
    """Matchers of the arguments as they are; what is empty may be left out."""
    return {
        key: OneOf([None, value]) if value in (None, "", [], {}, False) else Equals(value)
        for key, value in call.arguments.items()
    }


def _fact(text: str) -> Fact:
    try:
        return Fact([float(text.replace(",", "").lstrip("$"))], "number")
    except ValueError:
        return Fact([text])


def _shown(arguments: dict[str, Json]) -> str:
    return call_text("", arguments)[1:-1][:300]


def call_at(turn: int, step: int, call: ToldCall) -> Evidence:
    """A call of the reference as evidence."""
    return Evidence(turn, step, CALLS, call_text(call.name, call.arguments))


def answer_at(turn: int, step: int, call: ToldCall) -> Evidence | None:
    """What a call of the reference was answered, its longest line; None where it was nothing."""
    line = max(as_error(call.answer).splitlines(), key=len, default="").strip()
    return Evidence(turn, step, ANSWER, line[:200].strip()) if line else None
