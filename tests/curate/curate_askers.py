"""Askers that answer as they are told: by the row's id, the pass, or whatever a test likes."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import msgspec
import typer

from cm2.llm import Answer, ModelError, Request

PRICE = 0.25


class Scripted:
    """Answers with `say(request)`; what that raises is raised. Every request is kept. A value that the check refuses is
    no valid answer, as with a real door."""

    secret = "s3cret"

    def __init__(self, say: Callable[[Request], Any]):
        self.say = say
        self.asked: list[Request] = []

    async def ask(self, request: Request, check: Callable[[Any], str] | None = None) -> Answer:
        self.asked.append(request)
        value = self.say(request)
        if check is not None and (wrong := check(value)):
            raise ModelError(f"no valid answer: {wrong}", cost=PRICE)
        return Answer(value, model="scripted", prompt=request.prompt, cost=PRICE)


class Remembering(Scripted):
    """The same with a cache, as a door has one: valid answers come again for nothing and are not asked for."""

    def __init__(self, say: Callable[[Request], Any]):
        super().__init__(say)
        self.kept: dict[bytes, Answer] = {}

    async def ask(self, request: Request, check: Callable[[Any], str] | None = None) -> Answer:
        key = msgspec.json.encode([request.role, request.messages, request.schema, request.sample, request.effort])
        if key not in self.kept:
            self.kept[key] = await super().ask(request, check)
            return self.kept[key]
        return msgspec.structs.replace(self.kept[key], cost=0.0, cached=True)


def verdict(answer: str, reason: str = "because", turn: int | None = None, step: int | None = None) -> dict[str, Any]:
    return {"reason": reason, "turn": turn, "step": step, "verdict": answer}


def run_verb(verb: str, *argv: object) -> None:
    """Run one verb of the command line alone; what it raises is raised."""
    app = typer.Typer()
    importlib.import_module(f"cm2.cli.{verb}").register(app)
    app(args=[str(arg) for arg in argv], standalone_mode=False)
