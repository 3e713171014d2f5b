"""Askers for the model labellers' tests: scripted ones, and one that knows the reference labeller's items."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from cm2.checklist import Item
from cm2.dialogue import Dialogue
from cm2.label.config import Drafting
from cm2.label.hybrid import HybridLabeler
from cm2.label.labelling import ModelLabelled
from cm2.label.llm import LlmLabeler
from cm2.label.reference import ReferenceLabeler
from cm2.llm import Answer, Check, ModelError, Request

FIRST, AGAIN = "label", "label again"


class Scripted:
    """Answers with what `script` makes of a request (an exception is raised), and keeps every request.

    Like the door, it asks once more where the caller's own check refuses a value, and then gives up.
    """

    secret = "a secret of the tests"

    def __init__(self, script: Callable[[Request], Any], model: str = "scripted"):
        self.script, self.model = script, model
        self.requests: list[Request] = []

    async def ask(self, request: Request, check: Check | None = None) -> Answer:
        self.requests.append(request)
        await asyncio.sleep(0)
        value = self.script(request)
        if isinstance(value, Exception):
            raise value
        if check is not None and (wrong := check(value)):
            raise ModelError(wrong)
        return Answer(value, model=self.model, prompt=request.prompt, cost=0.25)

    def stages(self) -> list[str]:
        """The stage of every request, in order."""
        return [request.stage for request in self.requests]

    def prompt(self, number: int = -1) -> str:
        """The user's part of a request."""
        return self.requests[number].messages[1]["content"]


class Cached(Scripted):
    """One that remembers valid answers by what the door's cache goes by, and counts those that were paid for."""

    def __init__(self, script: Callable[[Request], Any]):
        super().__init__(script)
        self._known: dict[bytes, Any] = {}
        self.paid = 0

    async def ask(self, request: Request, check: Check | None = None) -> Answer:
        key = msgspec.json.encode([request.role, request.messages, request.schema, request.sample])
        if key in self._known:
            return Answer(self._known[key], model=self.model, cached=True)
        answer = await super().ask(request, check)
        self.paid += 1
        self._known[key] = answer.value
        return answer


def turn_of(request: Request) -> int:
    """The turn that a request about one turn asks for."""
    assert request.where is not None and request.where.turn is not None
    return request.where.turn


def given(item: Item, **changes: Any) -> dict[str, Any]:
    """An item as a model would give it."""
    value = {
        "failure_examples": [],
        "required_for_next_turn": False,
        "depends_on": [],
        "check": None,
        **msgspec.to_builtins(item),
        **changes,
    }
    del value["kind"]
    return value


def oracle(*dialogues: Dialogue) -> Callable[[Request], Any]:
    """A script that proposes the reference labeller's own items."""
    known = {dialogue.id: ReferenceLabeler().label(dialogue).task for dialogue in dialogues}

    def script(request: Request) -> Any:
        assert request.where is not None and request.where.dialogue is not None
        task = known[request.where.dialogue]

        def items(turn: int) -> list[dict[str, Any]]:
            found = task.checklist(turn)
            return [given(item) for item in found.items] if found is not None else []

        if request.where.turn is not None:
            return {"items": items(request.where.turn)}
        turns = [t for t, turn in enumerate(task.dialogue.turns) if turn.steps]
        return {"turns": [{"turn": turn, "items": items(turn)} for turn in turns]}

    return script


def label(dialogue: Dialogue, asker: Any, hybrid: bool = False, **config: Any) -> ModelLabelled:
    """The dialogue, labelled with the asker."""
    labeler = (HybridLabeler if hybrid else LlmLabeler)(asker, Drafting(**config))
    return asyncio.run(labeler.label(dialogue))
