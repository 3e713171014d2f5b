"""Compressor: asks a model for shorter thinking, and takes of it what is faithful.

One question holds a whole dialogue: the transcript, and which of its thinking sections to shorten. The answer has one
text a section, aligned by number; an answer that is not aligned is no answer. A dialogue with very much thinking is
asked about turn by turn, each time with the transcript up to that turn.

Each text is then held against its section by code (`cm2.curate.faithful`). One that fails leaves its section as it was,
and so does a lost answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Any

import msgspec

from cm2.checklist import Checklist
from cm2.curate.faithful import Known, fault
from cm2.curate.lost import lost
from cm2.curate.opinion import Lost
from cm2.curate.section import Section, sections, with_thinking
from cm2.dialogue import Dialogue, Step
from cm2.errors import Where
from cm2.llm import Asker, Check, ModelError, ProviderError, Request, load
from cm2.llm.fence import Fence

WHOLE = 24_000
"""Characters of thinking that one question holds; of more, each turn is a question of its own."""
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "sections": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"index": {"type": "integer"}, "text": {"type": "string"}},
                "required": ["index", "text"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["sections"],
    "additionalProperties": False,
}


class Outcome(msgspec.Struct):
    """What became of a section: a `text` in its place, or why it stays (`fault`, or `lost`)."""

    section: Section
    text: str | None = None
    fault: str = ""
    lost: Lost | None = None


class Compressed(msgspec.Struct):
    """What became of a dialogue."""

    outcomes: list[Outcome] = []
    calls: int = 0
    cached: int = 0
    cost: float = 0.0
    model: str = ""

    @property
    def texts(self) -> dict[Section, str]:
        """The sections that get another text."""
        return {each.section: each.text for each in self.outcomes if each.text is not None}


class Compressor:
    """Asks for shorter thinking.

    Args:
        asker: who answers.
        whole: characters of thinking that one question holds.
        count: the length of a text in tokens, where characters do not tell.
    """

    def __init__(self, asker: Asker, whole: int = WHOLE, count: Callable[[str], int] = len):
        self._asker, self._whole, self._count = asker, whole, count
        self._prompt = load("cm2.curate", "compress")

    @property
    def prompt(self) -> str:
        """The prompt's id, for records."""
        return self._prompt.id

    async def compress(self, dialogue: Dialogue, checklists: Iterable[Checklist], where: Where) -> Compressed:
        """What can be made shorter in a dialogue.

        Raises:
            ProviderError: fatal, so that there is no use in asking on. BudgetReached: the limit is reached.
        """
        done, given = Compressed(), dict[Section, str | Lost]()
        for batch in self._batches(sections(dialogue)):
            done.calls += 1
            try:
                answer = await self._asker.ask(self._request(dialogue, batch, where), _aligned(len(batch)))
            except (ProviderError, ModelError) as error:
                done.cost += getattr(error, "cost", 0.0)
                given |= dict.fromkeys(batch, lost(error, "compressor"))
                continue
            done.cost, done.cached, done.model = done.cost + answer.cost, done.cached + answer.cached, answer.model
            texts = {entry["index"]: entry["text"].strip() for entry in answer.value["sections"]}
            given |= {section: texts[index] for index, section in enumerate(batch)}
        done.outcomes = list(self._held(dialogue, given, _quoted(checklists)))
        return done

    def _batches(self, found: list[Section]) -> Iterator[list[Section]]:
        if sum(len(section.thinking) for section in found) <= self._whole:
            yield from [found] if found else []
            return
        for _, batch in groupby(found, lambda section: section.turn):
            yield list(batch)

    def _request(self, dialogue: Dialogue, batch: list[Section], where: Where) -> Request:
        fence = Fence.make(getattr(self._asker, "secret", ""), dialogue.id)
        last = batch[-1].turn
        end = (0, 0) if last is None else (last, len(dialogue.turns[last].steps))
        shown = fence.transcript(dialogue, tools=True, upto=end)
        asked = self._prompt.fill(
            part="user",
            dialogue=shown,
            count=len(batch),
            nonce=fence.nonce,
            sections=[section.place for section in batch],
        )
        planned = [
            {"index": n, "text": section.thinking[: len(section.thinking) // 2 + 1]} for n, section in enumerate(batch)
        ]
        return Request(
            role="compressor",
            messages=[
                {"role": "system", "content": self._prompt.fill(part="system", rule=fence.rule)},
                {"role": "user", "content": asked},
            ],
            schema=SCHEMA,
            prompt=self._prompt.id,
            affinity=dialogue.id,
            stage="compress",
            where=where.but(dialogue=dialogue.id),
            planned={"sections": planned},
        )

    def _held(
        self, dialogue: Dialogue, given: dict[Section, str | Lost], quoted: dict[tuple[int, int], list[str]]
    ) -> Iterator[Outcome]:
        """Each section with its text held against it. The walk goes along the dialogue, and knows at each step what the
        agent knew there."""
        known = Known(dialogue)
        places: list[tuple[int | None, list[Step]]] = [(None, dialogue.opening)]
        places += [(t, turn.steps) for t, turn in enumerate(dialogue.turns)]
        waiting = {(section.turn, section.step): section for section in given}
        for t, steps in places:
            if t is not None:
                known.user(dialogue.turns[t].user)
            for s, step in enumerate(steps):
                known.act(step)
                section = waiting.get((t, s))
                if section is not None:
                    text = given[section]
                    if isinstance(text, Lost):
                        yield Outcome(section, lost=text)
                    else:
                        wrong = fault(section.thinking, text, step, known, self._count)
                        if not wrong and not all(snippet in text for snippet in quoted.get((t or 0, s), ())):
                            wrong = "evidence"
                        if not wrong and with_thinking(step, text) is None:
                            wrong = "place"
                        yield Outcome(section, None if wrong else text, wrong)
                known.think(step.thinking or "")
                known.answer(step)


def _aligned(count: int) -> Check:
    def check(value: Any) -> str:
        found = [entry["index"] for entry in value["sections"]]
        if found == list(range(count)):
            return ""
        return (
            f"there are {count} sections, numbered from 0; the answer has entries {found[:50]}: give each exactly once"
        )

    return check


def _quoted(checklists: Iterable[Checklist]) -> dict[tuple[int, int], list[str]]:
    """What checklists quote from thinking, by turn and step."""
    found: dict[tuple[int, int], list[str]] = {}
    for checklist in checklists:
        for item in checklist.items:
            for evidence in item.evidence:
                if evidence.source == "assistant.content.thinking":
                    found.setdefault((evidence.turn, evidence.step), []).append(evidence.snippet)
    return found
