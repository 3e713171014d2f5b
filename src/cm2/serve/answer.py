"""Answer: pieces of generated text as OpenAI's objects, whole or streamed.

One `Choice` reads each choice's pieces and says what has become certain, so a streamed answer put together again is the
whole one. Beside OpenAI's fields a choice has `cm2` where a call's text was no call: the text stands in the content,
and `cm2.malformed_tool_calls` says what was wrong with it.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

import msgspec

from cm2.rollout.template import ChatTemplate
from cm2.serve.ask import Ask
from cm2.serve.backend import Chance, Piece
from cm2.serve.splitter import Said, Splitter


class Choice:
    """One choice as it grows.

    Args:
        index: its number.
        ask: the request.
        opened: whether the prompt opened the thinking.
    """

    def __init__(self, index: int, ask: Ask, opened: bool):
        self.index, self.ask = index, ask
        self.splitter = Splitter(ask.reads_calls, opened)
        self.thinking, self.content = "", ""
        self.calls: list[dict[str, Any]] = []
        self.ids: list[int] = []
        self.chances: list[Chance] = []
        self.finish: str | None = None

    def take(self, piece: Piece) -> list[dict[str, Any]]:
        """A piece; the deltas that it makes certain. Sets `finish` at the end."""
        self.ids += piece.ids
        self.chances += piece.chances
        said = self.splitter.feed(piece.text)
        if piece.finish is not None:
            said += self.splitter.finish()
        deltas = []
        for one in said:
            deltas.append(self._delta(one))
            if one.kind == "call" and self.ask.parallel_tool_calls is False:
                self.finish = "tool_calls"  # one call was asked for: what would follow is not waited for
                return deltas
        if piece.finish is not None:
            self.finish = "tool_calls" if self.calls and piece.finish == "stop" else piece.finish
        return deltas

    def _delta(self, said: Said) -> dict[str, Any]:
        if said.kind == "thinking":
            self.thinking += said.text
            return {"reasoning_content": said.text}
        if said.kind == "content":
            self.content += said.text
            return {"content": said.text}
        assert said.call is not None
        arguments = msgspec.json.encode(said.call.arguments).decode()
        made = {
            "id": f"call_{uuid.uuid4().hex[:24]}",
            "type": "function",
            "function": {"name": said.call.name, "arguments": arguments},
        }
        self.calls.append(made)
        return {"tool_calls": [{"index": len(self.calls) - 1, **made}]}

    @property
    def message(self) -> dict[str, Any]:
        """The whole message."""
        found: dict[str, Any] = {"role": "assistant", "content": self.content}
        if self.calls:
            found = {"role": "assistant", "content": self.content or None, "tool_calls": self.calls}
        if self.thinking:
            found["reasoning_content"] = self.thinking
        return found

    @property
    def more(self) -> dict[str, Any]:
        """What a finished choice has beside OpenAI's fields."""
        found: dict[str, Any] = {}
        if self.splitter.malformed:
            wrong = [{"text": call.raw, "error": call.error} for call in self.splitter.malformed]
            found["cm2"] = {"malformed_tool_calls": wrong}
        if self.ask.return_token_ids:
            found["token_ids"] = self.ids
        return found


class Answer:
    """All choices of a request.

    Args:
        ask: the request.
        template: to write tokens as text.
        ids: the prompt.
        opened: whether the prompt opened the thinking.
    """

    def __init__(self, ask: Ask, template: ChatTemplate, ids: list[int], opened: bool):
        self.ask, self.template, self.ids = ask, template, ids
        self.id, self.created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
        self.choices = [Choice(i, ask, opened) for i in range(ask.choices)]
        self.cached = 0

    @property
    def done(self) -> bool:
        """Whether every choice has ended."""
        return all(choice.finish is not None for choice in self.choices)

    @property
    def malformed(self) -> int:
        """Calls whose text was no call."""
        return sum(len(choice.splitter.malformed) for choice in self.choices)

    @property
    def usage(self) -> dict[str, Any]:
        """Tokens that were read and written; of the prompt, those that did not have to be read again."""
        written = sum(len(choice.ids) for choice in self.choices)
        return {
            "prompt_tokens": len(self.ids),
            "completion_tokens": written,
            "total_tokens": len(self.ids) + written,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }

    def take(self, piece: Piece) -> list[dict[str, Any]]:
        """A piece to the chunks that can be sent."""
        self.cached = max(self.cached, piece.cached)
        choice = self.choices[piece.choice]
        if choice.finish is not None:
            return []
        deltas = choice.take(piece)
        chunks = [self._chunk(choice, delta) for delta in deltas]
        if self.ask.logprobs and piece.chances:  # told with the tokens they belong to, whatever text is held back
            if not chunks:
                chunks = [self._chunk(choice, {})]
            chunks[0]["choices"][0]["logprobs"] = self._logprobs(piece.chances)
        if choice.finish is not None:
            last = self._chunk(choice, {})
            last["choices"][0] |= {"finish_reason": choice.finish, **choice.more}
            chunks.append(last)
        return chunks

    def first(self) -> list[dict[str, Any]]:
        """The chunks that open a stream."""
        chunks = [self._chunk(choice, {"role": "assistant", "content": ""}) for choice in self.choices]
        if self.ask.return_token_ids:
            chunks[0]["prompt_token_ids"] = self.ids
        return chunks

    def closing(self) -> dict[str, Any]:
        """The chunk with nothing but the usage."""
        return self._head("chat.completion.chunk") | {"choices": [], "usage": self.usage}

    def whole(self) -> dict[str, Any]:
        """The answer in one piece."""
        found = self._head("chat.completion")
        found["choices"] = [
            {
                "index": choice.index,
                "message": choice.message,
                "logprobs": self._logprobs(choice.chances) if self.ask.logprobs else None,
                "finish_reason": choice.finish,
                **choice.more,
            }
            for choice in self.choices
        ]
        found["usage"] = self.usage
        if self.ask.return_token_ids:
            found["prompt_token_ids"] = self.ids
        return found

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.ask.model}

    def _chunk(self, choice: Choice, delta: dict[str, Any]) -> dict[str, Any]:
        one = {"index": choice.index, "delta": delta, "logprobs": None, "finish_reason": None}
        return self._head("chat.completion.chunk") | {"choices": [one]}

    def _logprobs(self, chances: list[Chance]) -> dict[str, Any]:
        content = []
        for chance in chances:
            top = [self._token(id, logprob) for id, logprob in chance.top]
            content.append(self._token(chance.id, chance.logprob) | {"top_logprobs": top})
        return {"content": content, "refusal": None}

    def _token(self, id: int, logprob: float) -> dict[str, Any]:
        text = self.template.tokenizer.decode([id], skip_special_tokens=False)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode("utf-8", "surrogatepass"))}
