"""Askers for the judge's tests: one tells the truth, one says what it is told to; and how to read a request."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from cm2.checklist import Checklist, Item, Task, part_of
from cm2.dialogue import Dialogue
from cm2.judge import decide
from cm2.llm import Answer, Request
from cm2.llm.fence import Fence
from cm2.verdict import WHOLE

SECRET = "a secret for tests"
_BLOCK = re.compile(r"^<<<data (\w+) ([^>]*)>>>\n(.*?)^<<<end \1>>>", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> dict[str, str]:
    """The fenced blocks of a prompt by title, without the prefix of their lines."""
    return {title: re.sub(r"^\| ", "", body, flags=re.MULTILINE) for _, title, body in _BLOCK.findall(text)}


def user(request: Request) -> str:
    """The text of the question."""
    return request.messages[-1]["content"]


def asked(request: Request) -> list[dict[str, Any]]:
    """The items that a request is about: those of its list, or of that list those that it names."""
    found = blocks(user(request))
    items = [json.loads(line) for line in found["items"].splitlines()]
    named = set(names(found.get("asked", "")))
    return [item for item in items if not named or item["id"] in named]


def names(text: str) -> list[str]:
    """The ids that a block names: a list of them, or objects that say what was wrong with the last answer."""
    told = [json.loads(line) for line in text.splitlines()]
    return told[0] if told and isinstance(told[0], list) else [one["id"] for one in told]


def ids(request: Request) -> list[str]:
    """Their ids."""
    return [item["id"] for item in asked(request)]


def entry(id: str, decision: int | bool | None, quote: str = "", reason: str = "because") -> dict[str, Any]:
    """One verdict of an answer, in the form of a turn (a step or None) or of a step (a bool)."""
    name = "holds" if isinstance(decision, bool) else "first_step"
    return {"id": id, "reason": reason, name: decision, "quote": quote}


def placed(id: str, place: tuple[int, int] | None, quote: str = "", reason: str = "because") -> dict[str, Any]:
    """One verdict of an answer about all turns: turn and step, or None."""
    turn, step = place or (None, None)
    return {"id": id, "reason": reason, "turn": turn, "step": step, "quote": quote}


class Scripted:
    """Answers the n-th request with the n-th answer: entries, an exception, or a function of the request."""

    secret = SECRET

    def __init__(self, *answers: Any, model: str = "script", cost: float = 0.0):
        self.answers, self.model, self.cost = list(answers), model, cost
        self.requests: list[Request] = []

    async def ask(self, request: Request, check: Callable[[Any], str] | None = None) -> Answer:
        self.requests.append(request)
        await asyncio.sleep(0)
        answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
        if callable(answer) and not isinstance(answer, type):
            answer = answer(request)
        if isinstance(answer, BaseException):
            raise answer
        return Answer({"verdicts": answer}, model=self.model, prompt=request.prompt, cost=self.cost)


class Oracle:
    """Decides every item by its check, in the state that the request shows. It knows the runs by how they look."""

    secret = SECRET

    def __init__(self, runs: Iterable[Dialogue], checklists: Iterable[Checklist], system: bool = True):
        self.requests: list[Request] = []
        self._items = {(c.turn, _text(item)): item for c in checklists for item in c.items}
        self._states: dict[str, tuple[Dialogue, int, int]] = {}
        for run in runs:
            fence = Fence.make(SECRET, run.id)
            for t, turn in enumerate(run.turns):
                for s in range(len(turn.steps)):
                    shown = fence.transcript(run, upto=(t, s + 1), thinking=False, system=system)
                    self._states[shown] = (run, t, s)
            self._states.setdefault(fence.transcript(run, thinking=False, system=system), (run, len(run.turns) - 1, -1))

    async def ask(self, request: Request, check: Callable[[Any], str] | None = None) -> Answer:
        self.requests.append(request)
        await asyncio.sleep(0)
        text = user(request)
        shown = next(match[0] for match in _BLOCK.finditer(text) if match[2] == "dialogue")
        run, turn, upto = self._states[shown]
        entries = []
        for told in asked(request):
            if "turn" in told:
                entries.append(self._placed(told, run))
                continue
            item = self._items[turn, (told["question"], told["holds_when"])]
            if request.where is not None and request.where.step is not None:
                met = decide(item.check, run, turn, upto).met
                entries.append(entry(told["id"], met, self.quote(item, run, turn, upto) if met else ""))
            else:
                first = next((s for s in range(upto + 1) if decide(item.check, run, turn, s).met), None)
                entries.append(entry(told["id"], first, "" if first is None else self.quote(item, run, turn, first)))
        return Answer({"verdicts": entries}, model="oracle", prompt=request.prompt)

    def _placed(self, told: dict[str, Any], run: Dialogue) -> dict[str, Any]:
        """The verdict on an item among those of all turns."""
        turn = WHOLE if told["turn"] == "all" else told["turn"]
        item = self._items[turn, (told["question"], told["holds_when"])]
        if turn == WHOLE:
            every = [((t, s), step) for t, one in enumerate(run.turns) for s, step in enumerate(one.steps)]
            texts = [(place, part_of(step, item.focus_on)) for place, step in every]
            texts += [(place, step.reply or "") for place, step in every]
            holds = decide(item.check, run, WHOLE, WHOLE).met
            place, quote = next(((p, text) for p, text in texts if holds and any(map(str.isalnum, text))), (None, ""))
            return placed(told["id"], place, quote)
        steps = range(len(run.turns[turn].steps))
        first = next((s for s in steps if decide(item.check, run, turn, s).met), None)
        if first is None:
            return placed(told["id"], None)
        return placed(told["id"], (turn, first), self.quote(item, run, turn, first))

    def quote(self, item: Item, run: Dialogue, turn: int, upto: int) -> str:
        """Something that stands where it must."""
        steps = run.turns[turn].steps[: upto + 1]
        texts = [part_of(step, item.focus_on) for step in steps] + [step.reply or "" for step in steps]
        return next((text for text in texts if any(map(str.isalnum, text))), "")


def _text(item: Item) -> tuple[str, str]:
    return item.question, item.pass_condition


def stripped(task: Task) -> Task:
    """The task without its checks: every item is open to a model."""
    import msgspec

    return Task(
        task.dialogue,
        [
            msgspec.structs.replace(c, items=[msgspec.structs.replace(item, check=None) for item in c.items])
            for c in task.checklists
        ],
    )
