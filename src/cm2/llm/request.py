"""Request and Answer: one question to a model in one of its roles, and what came back.

Whoever asks (labeller, judge, simulator, filter, compressor) knows an `Asker` and nothing of endpoints, keys, retries,
caches and prices. An answer is valid or it is no answer: with a schema the value is parsed and validated, with a check
it also passed that. What is not valid after the bounded retries raises; it is never a default value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

import msgspec

from cm2.errors import CM2Error, Where

Role = Literal["labeler", "judge", "simulator", "filter", "compressor"]
ROLES: tuple[Role, ...] = ("labeler", "judge", "simulator", "filter", "compressor")
Check = Callable[[Any], str]
"""What is wrong with a value, as a sentence for the model that gave it; "" where nothing is."""


class ModelError(CM2Error):
    """The model answered, but never with a valid answer (or it refused): the semantic budget is spent.

    Nobody may take it for a no. `cost` is what the tries cost, in US dollars.
    """

    def __init__(self, message: str, *, where: Where | None = None, fix: str | None = None, cost: float = 0.0):
        super().__init__(message, where=where, fix=fix)
        self.cost = cost


class BudgetReached(CM2Error):
    """The next call would go beyond the limit that was set; everything answered so far is kept."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One question. Two requests with the same role, messages, schema, sample and model parameters share an answer."""

    role: Role
    messages: list[dict[str, Any]]
    """OpenAI-style chat messages; what is shared by many requests stands first, byte for byte, for prefix caches."""
    schema: dict[str, Any] | None = None
    """JSON Schema of the answer; None asks for text."""
    prompt: str = ""
    """The prompt's `Prompt.id`, for records."""
    affinity: str = ""
    """Requests of the same affinity (a dialogue) go to the same replica, whose prefix cache knows them."""
    sample: int = 0
    """Which independent draw of the same question: part of the cache key and of the seed."""
    effort: str | None = None
    """Reasoning effort of this request, where it differs from the role's."""
    max_tokens: int | None = None
    """Tokens of the answer, where it differs from the role's."""
    stage: str = ""
    """What a dry run and the cost summary group by; the role where empty."""
    where: Where | None = None
    """The place in the user's data that it is about, for errors."""
    planned: Any = None
    """The answer that a dry run supposes (a valid one that leads to the most further calls)."""


class Usage(msgspec.Struct):
    """Tokens and calls that were paid for; all 0 for a cached answer."""

    calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt tokens, those that the provider's prefix cache had."""
    completion_tokens: int = 0


class Answer(msgspec.Struct):
    """A valid answer. `value` is the validated JSON where there was a schema, else the text."""

    value: Any
    text: str = ""
    model: str = ""
    prompt: str = ""
    usage: Usage = msgspec.field(default_factory=Usage)
    cost: float = 0.0
    """US dollars, further tries and repairs included; 0 for a cached answer."""
    cached: bool = False
    priced: bool = True
    """Whether the price of the model is known; where it is not, `cost` says nothing."""


class Asker(Protocol):
    """Who answers requests: `cm2.llm.Models`, or a test's own."""

    async def ask(self, request: Request, check: Check | None = None) -> Answer:
        """A valid answer.

        Raises:
            ProviderError: the provider did not serve it (after its retries); `fatal` where the next would fail too.
            ModelError: the model gave no valid answer (after one repair question).
            BudgetReached: the limit of money is reached.
        """
