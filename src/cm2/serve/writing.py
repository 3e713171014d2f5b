"""Writing: a choice's tokens to text, as they come; where it ends is decided here, the same for every backend."""

from __future__ import annotations

from typing import Any, Literal

from cm2.rollout.template import ChatTemplate
from cm2.serve.backend import Chance, Piece, Want
from cm2.serve.splitter import held


class Writing:
    """One choice.

    Args:
        want: what was asked for.
        choice: its number.
        template: says which tokens end it.
        context: longest sequence.
    """

    def __init__(self, want: Want, choice: int, template: ChatTemplate, context: int):
        self.want, self.choice, self.template, self.context = want, choice, template, context
        self.tokens: list[int] = []
        self.finish: Literal["stop", "length"] | None = None
        self.cached = 0
        """Told with the first piece."""
        self._stream = Stream(template)
        self._held = ""

    def take(self, token: int, chance: Chance | None = None) -> Piece:
        """A sampled token; the piece that can be told now."""
        want = self.want
        self.tokens.append(token)
        piece = Piece(self.choice, ids=[token], chances=[] if chance is None else [chance])
        if len(self.tokens) == 1:
            piece.cached = self.cached
        ended = token in self.template.stop_ids
        text = "" if ended else self._stream.add(token)
        full = len(self.tokens) >= want.max_tokens or len(want.ids) + len(self.tokens) >= self.context
        if ended or full:
            text += self._stream.rest()
            self.finish = "stop" if ended else "length"
        text = self._held + text
        cut = min((at for stop in want.stop if (at := text.find(stop)) >= 0), default=None)
        if cut is not None:
            text, self.finish, self._held = text[:cut], "stop", ""
        elif self.finish is None:
            keep = max((held(text, stop) for stop in want.stop), default=0)
            text, self._held = text[: len(text) - keep], text[len(text) - keep :]
        piece.text, piece.finish = text, self.finish
        return piece

    def end(self, reason: str) -> Piece:
        """Whoever decodes says that it has ended, for a reason of their own (a stop text, a limit)."""
        text = self._held + self._stream.rest()
        cut = min((at for stop in self.want.stop if (at := text.find(stop)) >= 0), default=len(text))
        self.finish, self._held = ("length" if reason == "length" else "stop"), ""
        return Piece(self.choice, text[:cut], finish=self.finish)


class Stream:
    """Ids to text, a token at a time: nothing is told that a later byte of the same character could change."""

    def __init__(self, template: ChatTemplate):
        from tokenizers.decoders import DecodeStream

        self.template = template
        self.ids: list[int] = []
        self._told = ""
        self._core: Any = template.tokenizer.backend_tokenizer
        self._stream = DecodeStream(skip_special_tokens=False)

    def add(self, token: int) -> str:
        """The text that this token makes certain."""
        self.ids.append(token)
        text = self._stream.step(self._core, token) or ""
        self._told += text
        return text

    def rest(self) -> str:
        """What the end makes certain."""
        whole = self.template.decode(self.ids)
        return whole[len(self._told) :] if whole.startswith(self._told) else ""
