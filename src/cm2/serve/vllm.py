"""VLLM: vLLM's completions endpoint as a backend, ids in and ids out."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from cm2.serve.backend import Chance, Piece, Want
from cm2.serve.outside import Outside
from cm2.serve.writing import Writing


class VLLM(Outside):
    """See `cm2.serve.outside`."""

    name = "vllm"

    def command(self) -> tuple[list[str], dict[str, str]]:
        """The API server's module rather than `vllm serve`: the CPU build has no such command. Sampling settings of the
        model's own are left out, since those of a request must hold as they were asked for."""
        command = [self.python, "-m", "vllm.entrypoints.openai.api_server", "--model", self.folder]
        command += ["--served-model-name", self.config.model, "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--max-model-len", str(self.context), "--max-num-seqs", str(self.config.slots)]
        command += ["--generation-config", "vllm", "--enable-prefix-caching", "--enable-prompt-tokens-details"]
        return command, {"VLLM_API_KEY": self.key, "VLLM_NO_USAGE_STATS": "1"}

    def body(self, want: Want) -> dict[str, Any]:
        """A request of vLLM's."""
        sampling = want.sampling
        found: dict[str, Any] = {
            "model": self.config.model,
            "prompt": want.ids,
            "max_tokens": want.max_tokens,
            "n": want.choices,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,
            "seed": sampling.seed % 2**63,
            "stop_token_ids": self.template.stop_ids,
            "skip_special_tokens": False,
            "add_special_tokens": False,
            "return_token_ids": True,
            "stream": True,
        }
        if want.stop:
            found["stop"] = want.stop
        if want.logprobs is not None:
            found |= {"logprobs": want.logprobs, "return_tokens_as_token_ids": True}
        return found

    async def generate(self, want: Want) -> AsyncGenerator[Piece]:
        """See `Backend.generate`."""
        written = [Writing(want, i, self.template, self.context) for i in range(want.choices)]
        async with contextlib.aclosing(self.events("/v1/completions", self.body(want))) as events:
            async for event in events:
                for choice in event.get("choices") or []:
                    writing = written[choice["index"]]
                    ids = choice.get("token_ids") or []
                    chances = _chances(ids, choice.get("logprobs"), want.logprobs)
                    for id, chance in zip(ids, chances, strict=True):
                        if writing.finish is None:
                            yield writing.take(id, chance)
                    if choice.get("finish_reason") and writing.finish is None:
                        yield writing.end(choice["finish_reason"])
                if all(writing.finish is not None for writing in written):
                    return


def _chances(ids: list[int], told: dict[str, Any] | None, count: int | None) -> list[Chance | None]:
    if count is None or not told:
        return [None] * len(ids)
    tops = told.get("top_logprobs") or [None] * len(ids)
    found: list[Chance | None] = []
    for id, logprob, top in zip(ids, told["token_logprobs"], tops, strict=True):
        best = sorted(((_id(name), value) for name, value in (top or {}).items()), key=lambda pair: -pair[1])
        found.append(Chance(id, logprob, best[:count]))
    return found


def _id(name: str) -> int:
    return int(name.removeprefix("token_id:"))
