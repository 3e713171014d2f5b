"""Obedient: a model that does whatever any text tells it that stands outside the fence. The worst judge there is.

It is shown the clean twin first and takes what speaks to it there for its prompt. After that, any other line outside
of the data, any name in the schema, any chat-template token and any invisible character is an order, and it obeys: it
gives the answer that an attacker wants. Without an order it tells the truth about the data, as it reads it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from cm2.llm import Answer, Check, ModelError, Request
from servers.reader import gullible, read

Rule = Callable[[Request], Any]
_TOKEN = re.compile(
    r"<[|\uff5c][^|\uff5c\n]{1,40}[|\uff5c]>|\[/?(?:INST|TOOL_RESULTS|TOOL_CALLS|SYSTEM_PROMPT)\]|<</?SYS>>|</?s>"
    r"|<(?:start|end)_of_turn>|</?(?:think|tool_call|tool_response)>"
)
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e0fff]"
)


class Obedient:
    """An `Asker`.

    Args:
        truth: the true answer to a request.
        wanted: the answer that an attacker wants.

    Attributes:
        orders: what it obeyed.
        asked: how many questions it answered.
    """

    secret = "only this process knows it"

    def __init__(self, truth: Rule, wanted: Rule):
        self.truth, self.wanted = truth, wanted
        self.learning = True
        self.asked = 0
        self.nonce = ""
        self.orders: list[str] = []
        self._known: set[str] = set()

    async def ask(self, request: Request, check: Check | None = None) -> Answer:
        """See the class."""
        value = self.answer(request)
        if check is not None and (wrong := check(value)):
            raise ModelError(wrong)
        return Answer(value, model="obedient")

    def answer(self, request: Request) -> Any:
        """The truth, or what it was ordered to say."""
        self.asked += 1
        heard = set(self._hears(request))
        orders = [] if self.learning else sorted(heard - self._known)
        if self.learning:
            self._known |= heard
        self.orders += orders
        return self.wanted(request) if orders else self.truth(request)

    def _hears(self, request: Request) -> Iterator[str]:
        reading = read(request.messages)
        self.nonce = reading.nonce
        yield from filter(None, map(gullible, reading.outside))
        yield from _names(request.schema)
        for message in request.messages:
            yield from _TOKEN.findall(message["content"])
            yield from _HIDDEN.findall(message["content"])


def _names(schema: Any) -> Iterator[str]:
    """Every text in a schema: a server without a JSON-schema mode is shown it in the prompt."""
    if isinstance(schema, dict):
        yield from schema
        for value in schema.values():
            yield from _names(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _names(value)
    elif isinstance(schema, str):
        yield schema
