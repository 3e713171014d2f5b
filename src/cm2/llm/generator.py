"""TokenClient: token ids in, sampled token ids and their log-probabilities out, from a vLLM server.

Everything that decides a token is in the request: a server's own defaults (its generation_config: a temperature, a
repetition penalty) would change the policy that is trained. The end of a text is ours to know, so the server's own end
token is ignored.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from cm2.llm.client import ChatClient, Completion
from cm2.llm.rates import Rates

PLAIN = {
    "ignore_eos": True,
    "logprobs": 0,
    "min_p": 0.0,
    "min_tokens": 0,
    "n": 1,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
    "return_token_ids": True,
    "skip_special_tokens": False,
}
"""Fields of every request."""


class Sampled(msgspec.Struct, frozen=True):
    """What was sampled after a prompt, as `Completion.message["sampled"]`."""

    tokens: list[int]
    logprobs: list[float]
    prompt_logprobs: list[float] = []
    """Of the prompt's ids from the second on, where they were asked for."""
    best: float | None = None
    """Of the likeliest first token, where more than the sampled one was asked for."""


class TokenClient(ChatClient):
    """See the module. Its "messages" are the prompt's ids."""

    path = "/completions"

    def _body(self, messages: Any, tools: Any, fields: dict[str, Any]) -> dict[str, Any]:
        return {"model": self.endpoint.model, "prompt": list(messages)} | PLAIN | fields

    @staticmethod
    def _read(content: bytes, rates: Rates) -> Completion | None:
        try:
            value = json.loads(content)
            choice = value["choices"][0]
            tokens = [int(token) for token in choice["token_ids"]]
            logprobs = [float(one) for one in choice["logprobs"]["token_logprobs"]]
            asked = choice.get("prompt_logprobs") or []
            # Each place of the prompt tells its own id first, whatever else the server adds.
            prompt = [float(next(iter(place.values()))["logprob"]) for place in asked if place]
            tops = choice["logprobs"].get("top_logprobs") or []
            best = max(map(float, tops[0].values())) if tops and tops[0] else None
            cached = ((value.get("usage") or {}).get("prompt_tokens_details") or {}).get("cached_tokens") or 0
            length = int((value.get("usage") or {}).get("prompt_tokens") or 0)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError, RecursionError):
            return None
        if not tokens or len(tokens) != len(logprobs):
            return None
        return Completion(
            message={"sampled": Sampled(tokens, logprobs, prompt, best)},
            finish_reason=str(choice.get("finish_reason") or ""),
            prompt_tokens=length,
            completion_tokens=len(tokens),
            cached_tokens=cached,
            rates=rates,
        )
