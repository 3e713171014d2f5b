"""SGLang: its native generate endpoint as a backend, ids in and ids out. A choice is a request of its own; the prompt
that they share stands in SGLang's prefix cache."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from cm2.serve.backend import Chance, Piece, Want
from cm2.serve.outside import Outside
from cm2.serve.writing import Writing


class SGLang(Outside):
    """See `cm2.serve.outside`."""

    name = "sglang"

    def command(self) -> tuple[list[str], dict[str, str]]:
        """The key on this command line is the inner server's, made for this run; it is not the endpoint's."""
        command = [self.python, "-m", "sglang.launch_server", "--model-path", self.folder]
        command += ["--served-model-name", self.config.model, "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--context-length", str(self.context), "--max-running-requests", str(self.config.slots)]
        command += ["--sampling-defaults", "openai", "--api-key", self.key]
        return command, {}

    def body(self, want: Want, choice: int) -> dict[str, Any]:
        """A request of SGLang's."""
        sampling = want.sampling
        settings: dict[str, Any] = {
            "max_new_tokens": want.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,
            "sampling_seed": (sampling.seed + choice) % 2**31,
            "stop_token_ids": self.template.stop_ids,
            "skip_special_tokens": False,
        }
        if want.stop:
            settings["stop"] = want.stop
        found: dict[str, Any] = {"input_ids": want.ids, "sampling_params": settings, "stream": True}
        if want.logprobs is not None:
            found |= {"return_logprob": True, "top_logprobs_num": want.logprobs}
        return found

    async def generate(self, want: Want) -> AsyncGenerator[Piece]:
        """See `Backend.generate`."""
        told: asyncio.Queue[Piece | Exception] = asyncio.Queue()
        tasks = [asyncio.ensure_future(self._choice(want, i, told)) for i in range(want.choices)]
        open_ = want.choices
        try:
            while open_:
                piece = await told.get()
                if isinstance(piece, Exception):
                    raise piece
                open_ -= piece.finish is not None
                yield piece
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _choice(self, want: Want, choice: int, told: asyncio.Queue[Piece | Exception]) -> None:
        writing = Writing(want, choice, self.template, self.context)
        try:
            async with contextlib.aclosing(self.events("/generate", self.body(want, choice))) as events:
                async for event in events:
                    about = event.get("meta_info") or {}
                    writing.cached = about.get("cached_tokens") or 0
                    ids = event.get("output_ids") or []  # all so far, unless the server was told to send what is new
                    done = len(writing.tokens)
                    new = range(done, len(ids))
                    for i in new:
                        if writing.finish is None:
                            told.put_nowait(writing.take(ids[i], _chance(ids[i], i, about, want.logprobs)))
                    reason = about.get("finish_reason")
                    if reason and writing.finish is None:
                        told.put_nowait(writing.end(reason.get("type", "stop")))
                    if writing.finish is not None:
                        return
        except Exception as error:
            told.put_nowait(error)


def _chance(id: int, place: int, about: dict[str, Any], count: int | None) -> Chance | None:
    told = about.get("output_token_logprobs") or []
    if count is None or place >= len(told):
        return None
    tops = about.get("output_top_logprobs") or []
    top = [(one[1], one[0]) for one in (tops[place] or [])[:count]] if count and place < len(tops) else []
    return Chance(id, told[place][0], top)
