"""Voice: a role's model, ready to be asked: where it is, what it understands, what it costs."""

from __future__ import annotations

from typing import Any

from cm2.formats.jsonlines import encode
from cm2.llm.abilities import Abilities
from cm2.llm.client import Completion
from cm2.llm.config import Price, RoleModel
from cm2.llm.replicas import Replicas
from cm2.llm.request import Request
from cm2.llm.tokens import Counter, estimate

UNBOUNDED = 16_384
"""Tokens that an answer is supposed to have at most, for the budget, where the role sets no max_tokens."""
LEARNT_FROM = 20
"""Answers after which what was seen, with a margin, bounds the tokens of a prompt, and no longer its bytes."""
MARGIN = 1.3


class Voice:
    """The model of a role.

    Args:
        model: as it is configured.
        replicas: whom to ask.
        price: None where it is not known.
        counter: of tokens, for dry runs.
    """

    def __init__(self, model: RoleModel, replicas: Replicas, price: Price | None, counter: Counter):
        self.model, self.replicas, self.price, self.counter = model, replicas, price, counter
        self.abilities = Abilities(model)
        self._tokens_per_byte, self._highest, self._seen = 1.0, 0.0, 0

    def most(self, size: int, request: Request) -> float:
        """US dollars that a call with a prompt of so many bytes may cost at most."""
        if self.price is None:
            return 0.0
        return self.price.cost(size * self._tokens_per_byte, 0, self._longest(request) or UNBOUNDED)

    def guess(self, size: int, request: Request) -> float:
        """About how many tokens a call takes, for rate limits; answers are mostly shorter than they may be."""
        return estimate(size) + (self._longest(request) or 0) / 4

    def measure(self, done: Completion, size: int) -> None:
        """Learn from a call, or supply the tokens that the server does not report."""
        if done.counted:
            self._seen += 1
            self._highest = max(self._highest, done.prompt_tokens / size)
            if self._seen >= LEARNT_FROM:
                self._tokens_per_byte = min(1.0, MARGIN * self._highest)
        else:
            done.prompt_tokens = estimate(size)
            done.completion_tokens = estimate(len(encode(done.message)))

    def cost(self, done: Completion) -> float | None:
        """What a call cost; None where the price is not known."""
        if self.price is None:
            return None
        return self.price.cost(done.prompt_tokens, done.cached_tokens, done.completion_tokens)

    def plan(self, request: Request) -> tuple[int, int, float | None, float | None]:
        """What a dry run supposes of a call: tokens of prompt and answer, its cost, and its cost at most."""
        planned: Any = request.planned
        text = planned if isinstance(planned, str) else encode(planned).decode()
        prompt, completion = self.counter.messages(request.messages), self.counter.text(text)
        if request.schema is not None and not self.abilities.takes(request.schema):
            prompt += self.counter.text(encode(request.schema).decode())
        if self.price is None:
            return prompt, completion, None, None
        longest = self._longest(request)
        most = self.price.cost(prompt, 0, longest) if longest else None
        return prompt, completion, self.price.cost(prompt, 0, completion), most

    def _longest(self, request: Request) -> int | None:
        return request.max_tokens or self.model.max_tokens
