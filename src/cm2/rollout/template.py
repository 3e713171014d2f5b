"""ChatTemplate: messages to token ids, piece by piece, and sampled text back to a Step.

A rollout's ids grow at the end only: `first_prompt` renders everything up to the agent's first action, the agent's ids
are appended as they were sampled, `continuation` renders what the environment answered and opens the next action. Model
output is never rendered or tokenised again. That is sound only where rendering a longer conversation does not change
what was rendered before, so a template that rewrites history (dropping earlier thinking, say) is refused.

Our own template (`chat_template.jinja`) writes each tool as a one-line signature: a JSON Schema costs a hundred tokens
a tool, which a small model has to read in every update. A tokenizer that brings a template for tools keeps its own.
"""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from cm2.dialogue import Step, Tool, ToolCall
from cm2.errors import ConfigError

CHAT_TEMPLATE = (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")
SPECIAL_TOKENS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
RESPONSE_TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "reasoning_content": {"open": "<think>", "close_pattern": r"</think>\s*", "content": "text"},
        "tool_calls": {
            "open": "<tool_call>",
            "close_pattern": r"</tool_call>\s*",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close_pattern": r"<\|im_end\|>\s*", "content": "text"},
    },
}
"""How transformers' own `tokenizer.parse_response` reads our template: other engines ask the tokenizer."""

_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)", re.DOTALL)
_NAME = re.compile(r'"name"\s*:\s*"([^"\\]*)"')
_PROBE: list[dict[str, Any]] = [
    {"role": "user", "content": "question one"},
    {
        "role": "assistant",
        "content": "",
        "reasoning_content": "thought one",
        "tool_calls": [
            {"type": "function", "function": {"name": "probe_name", "arguments": {"probe_key": "probe_value"}}}
        ],
    },
    {"role": "tool", "name": "probe_name", "content": "probe answer"},
    {"role": "assistant", "content": "reply one", "reasoning_content": "thought two"},
    {"role": "user", "content": "question two"},
]


def parse(text: str) -> Step:
    """Read one sampled action. Nothing is dropped: a malformed call stays a call, with its text in `raw`.

    Thinking that never closes is all thinking; text outside the tags is the visible reply. A step without calls always
    has a reply, empty if the agent said nothing.
    """
    thinking, rest = split_thinking(text)
    calls = [_call(body.strip()) for body in _CALL.findall(rest)]
    reply: str | None = _CALL.sub("", rest).strip()
    return Step(thinking=thinking, reply=None if calls and not reply else reply, calls=calls)


def split_thinking(text: str) -> tuple[str | None, str]:
    """Thinking (None where there is none) and what follows it. Thinking that never closes is all there is."""
    if "</think>" in text:  # some prompts open the thinking themselves, so the opening tag may be missing
        head, rest = text.split("</think>", 1)
        return head.replace("<think>", "", 1).strip(), rest
    if text.lstrip().startswith("<think>"):
        return text.lstrip().removeprefix("<think>").strip(), ""
    return None, text


def _call(body: str) -> ToolCall:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as problem:
        found = _NAME.search(body)
        return ToolCall(found.group(1) if found else "", None, raw=body, error=f"the call is not JSON: {problem}")
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return ToolCall("", None, raw=body, error="the call is not an object with a name")
    arguments = value.get("arguments", {})
    if isinstance(arguments, str):
        with contextlib.suppress(msgspec.DecodeError, UnicodeError, RecursionError):  # told below as of the wrong shape
            arguments = msgspec.json.decode(arguments)
    if not isinstance(arguments, dict):
        return ToolCall(value["name"], None, raw=body, error="the arguments are not a JSON object")
    return ToolCall(value["name"], arguments)


def tool_schema(tool: Tool | dict[str, Any]) -> dict[str, Any]:
    """A tool as templates and endpoints expect it."""
    if isinstance(tool, dict):
        return tool if "function" in tool else {"type": "function", "function": tool}
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


class ChatTemplate:
    """A tokenizer's chat template, checked once and then used piece by piece.

    Args:
        tokenizer: a Hugging Face fast tokenizer whose chat template renders tools, calls and tool responses.

    Raises:
        ConfigError: no chat template, no tools in it, calls in another notation than <tool_call>, or a template that
            rewrites history.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.check()
        base = self._text([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}])
        tail = base[base.rindex("y") + 1 :]
        end = next((t for t in self._markers_in(tail)), None) or tokenizer.eos_token
        if end is None or end not in tail:
            raise ConfigError(
                "the chat template ends an assistant message without an end token", fix="use a chat model"
            )
        self.end = end
        self.end_id: int = tokenizer.convert_tokens_to_ids(end)
        self._after_end = tail.split(end, 1)[1]

    @property
    def stop_ids(self) -> list[int]:
        """Ids that end a sampled action."""
        ids = {self.end_id}
        if self.tokenizer.eos_token_id is not None:
            ids.add(self.tokenizer.eos_token_id)
        return sorted(ids)

    def check(self) -> None:
        """Refuse a template that cannot carry a dialogue with tools, or that changes what it has rendered before."""
        if not renders_tools(self.tokenizer):
            raise ConfigError(
                "the tokenizer's chat template does not render tools, calls and tool responses",
                fix="load the model with cm2.train.embedded.load_model, which installs one that does",
            )
        if "<tool_call>" not in self._text(_PROBE[:2]):
            raise ConfigError(
                "the tokenizer's chat template writes calls in a notation other than <tool_call>JSON</tool_call>",
                fix="use a Qwen, Hermes or SmolLM style model, or delete the template so that ours is installed",
            )
        whole = self._text(_PROBE)
        for stop in range(1, len(_PROBE)):
            opened = _PROBE[stop]["role"] == "assistant"
            if not whole.startswith(self._text(_PROBE[:stop], opened).rstrip("\n")):
                raise ConfigError(
                    f"the chat template rewrites history: the first {stop} messages render differently inside a longer "
                    "conversation, so sampled ids could not be kept",
                    fix="use the model's training template (trl.chat_template_utils.get_training_chat_template)",
                )

    def render(
        self, tools: Sequence[Tool | dict[str, Any]], messages: list[dict[str, Any]], opened: bool = False
    ) -> str:
        """The whole conversation as text; `opened` ends it where the agent's next action begins."""
        return self._text(self.prepare(messages), opened, [self._clean(tool_schema(tool)) for tool in tools])

    def first_prompt(self, tools: Sequence[Tool | dict[str, Any]], messages: list[dict[str, Any]]) -> list[int]:
        """Ids of everything up to the agent's first action, which they open."""
        return self.encode(self.render(tools, messages, True))

    def continuation(self, messages: list[dict[str, Any]], ended: bool = True) -> list[int]:
        """Ids that follow a sampled action: its closing text, the new messages, and the opening of the next action.

        Args:
            messages: tool responses, or the next user message.
            ended: whether the agent sampled the end token itself. If not, it is added here, as template text that is
                never trained.
        """
        before = [_PROBE[0], _PROBE[1] if messages and messages[0]["role"] == "tool" else _PROBE[3]]
        base = self._text(before)
        whole = self._text(before + self.prepare(messages), True)
        if not whole.startswith(base.rstrip("\n")):
            raise ConfigError("the chat template rewrites history when messages are added", fix="use another template")
        cut = base.rindex(self.end) + (len(self.end) if ended else 0)
        return self.encode(whole[cut:])

    def encode(self, text: str) -> list[int]:
        """Ids of template text, nothing added at either end."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of sampled ids, special tokens included, the end token left out."""
        ids = list(ids)
        while ids and ids[-1] in self.stop_ids:
            ids.pop()
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def parse(self, ids: Sequence[int]) -> Step:
        """The action that these sampled ids say."""
        return parse(self.decode(ids))

    def prepare(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Messages as templates want them: arguments as objects, and no template token smuggled in by any text.

        A tool response or a user that quotes `<|im_end|>` would otherwise end its own message and speak as another.
        """
        ready = []
        for message in messages:
            message = self._clean({key: value for key, value in message.items() if key != "tool_calls"}) | {
                "tool_calls": [self._prepare_call(call) for call in message.get("tool_calls") or []]
            }
            if not message["tool_calls"]:
                del message["tool_calls"]
            if isinstance(message.get("content"), list):
                message["content"] = "\n".join(part.get("text", "") for part in message["content"])
            ready.append(message)
        return ready

    def _prepare_call(self, call: dict[str, Any]) -> dict[str, Any]:
        call = copy.deepcopy(call)
        function = call.get("function", call)
        if isinstance(function.get("arguments"), str):
            try:
                function["arguments"] = msgspec.json.decode(function["arguments"])
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                function["raw"] = function["arguments"]  # malformed text is shown as it was written
        return self._clean(call)

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._markers.sub(lambda found: f"{found.group()[0]} {found.group()[1:]}", value)
        if isinstance(value, dict):
            return {self._clean(key): self._clean(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._clean(item) for item in value]
        return value

    @cached_property
    def _markers(self) -> re.Pattern[str]:
        names = {str(token) for token in self.tokenizer.get_added_vocab()} | set(SPECIAL_TOKENS)
        names = {name for name in names if len(name) > 2 and name[0] in "<[" and name[-1] in ">]"}
        return re.compile("|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)))

    def _markers_in(self, text: str) -> list[str]:
        return self._markers.findall(text)

    def _text(
        self, messages: list[dict[str, Any]], opened: bool = False, tools: list[dict[str, Any]] | None = None
    ) -> str:
        return self.tokenizer.apply_chat_template(
            messages, tools=tools or None, tokenize=False, add_generation_prompt=opened
        )


def renders_tools(tokenizer: Any) -> bool:
    """Whether the tokenizer has a chat template that shows a tool's signature, the calls and the tool responses."""
    if not getattr(tokenizer, "chat_template", None):
        return False
    from jinja2.exceptions import TemplateError

    tool = {"type": "function", "function": {"name": "probe_tool", "description": "", "parameters": {"type": "object"}}}
    try:
        text = tokenizer.apply_chat_template(_PROBE[:3], tools=[tool], tokenize=False)
    except (TemplateError, TypeError, ValueError):
        return False
    return all(probe in text for probe in ("probe_tool", "probe_name", "probe_key", "probe_value", "probe answer"))
