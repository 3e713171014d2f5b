"""Ask: a chat-completion request, read and checked.

What would change the answer and cannot be done is refused by name: an evaluation whose settings were quietly ignored
measures something else. What cannot change the answer (`user`, `metadata`, …) is taken and left alone; fields that
nobody here knows are left alone too, and named in a header of the answer.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cm2.serve.config import ServeConfig
from cm2.serve.refusal import Refusal, invalid


class StreamOptions(msgspec.Struct):
    """Of a streamed answer."""

    include_usage: bool = False


class Ask(msgspec.Struct, kw_only=True):
    """The fields that are acted upon; null is the same as absent."""

    messages: list[dict[str, Any]]
    model: str
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None

    @property
    def choices(self) -> int:
        """How many answers."""
        return self.n or 1

    @property
    def reads_calls(self) -> bool:
        """Whether calls in the answer are calls, rather than text."""
        return bool(self.tools) and self.tool_choice != "none"

    @property
    def stops(self) -> list[str]:
        """Texts that end the answer."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])


KNOWN = frozenset(Ask.__struct_fields__)
HARMLESS = frozenset(
    ("user", "metadata", "store", "service_tier", "prediction", "reasoning_effort", "safety_identifier", "verbosity")
) | {"prompt_cache_key", "add_generation_prompt", "skip_special_tokens", "include_stop_str_in_output"}
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "structured_outputs": (),
    "guided_json": (),
    "guided_regex": (),
    "web_search_options": (),
    "min_tokens": (0,),
    "ignore_eos": (False,),
}
"""Fields that cannot be honoured, and the values that ask for nothing."""
MAX_STOPS, MAX_TOP_LOGPROBS = 16, 20


def read_ask(body: bytes, config: ServeConfig) -> tuple[Ask, list[str]]:
    """A request's body to (what it asks, names of fields that are not known).

    Raises:
        Refusal: it is not JSON, not a request, or asks for what cannot be done.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise invalid(f"the body is not JSON: {error}", code="invalid_json") from error
    if not isinstance(value, dict):
        raise invalid("the body is not a JSON object", code="invalid_json")
    value = {name: field for name, field in value.items() if field is not None}
    for name, accepted in NEUTRAL.items():
        if name in value and value[name] not in accepted:
            message = f"{name} is not supported here; leave it out"
            raise invalid(message, name, "unsupported_parameter")
    try:
        ask = msgspec.convert({name: value[name] for name in value if name in KNOWN}, Ask)
    except (msgspec.ValidationError, RecursionError) as error:
        raise invalid(f"the request is not as the API says: {error}", _param(str(error))) from error
    _check(ask, config)
    unknown = [name for name in value if name not in KNOWN and name not in HARMLESS and name not in NEUTRAL]
    return ask, unknown


def _check(ask: Ask, config: ServeConfig) -> None:
    if ask.model != config.model:
        message = f"the model {ask.model!r} does not exist here; this endpoint serves {config.model!r}"
        raise Refusal(404, message, "model_not_found", param="model")
    ranges: tuple[tuple[str, float, float], ...] = (
        ("temperature", 0, 10),
        ("top_p", 0, 1),
        ("top_k", -1, 2**31 - 1),
        ("max_tokens", 1, 2**31 - 1),
        ("max_completion_tokens", 1, 2**31 - 1),
        ("seed", -(2**63), 2**64 - 1),
        ("n", 1, min(config.max_choices, config.slots)),
        ("top_logprobs", 0, MAX_TOP_LOGPROBS),
    )
    for name, low, high in ranges:
        number = getattr(ask, name)
        if number is not None and not low <= number <= high:
            raise invalid(f"{name} is {number}; it must be between {low} and {high}", name)
    if ask.top_logprobs and not ask.logprobs:
        raise invalid("top_logprobs needs logprobs: true", "top_logprobs")
    if len(ask.stops) > MAX_STOPS or not all(ask.stops):
        raise invalid(f"stop is at most {MAX_STOPS} texts, none of them empty", "stop")
    choice = ask.tool_choice
    if choice not in (None, "auto", "none"):
        shown = "a named function" if isinstance(choice, dict) else repr(choice)
        message = (
            f"tool_choice may be 'auto' or 'none'; {shown} would force the model's hand, which cannot be done here"
        )
        raise invalid(message, "tool_choice", "unsupported_value")
    for i, tool in enumerate(ask.tools or []):
        function = tool.get("function")
        if tool.get("type", "function") != "function" or not isinstance(function, dict):
            raise invalid("a tool is {'type': 'function', 'function': {…}}", f"tools[{i}]")
        if not isinstance(function.get("name"), str) or not function["name"]:
            raise invalid("a function needs a name", f"tools[{i}].function.name")
        if not isinstance(function.get("parameters", {}), dict | None):
            raise invalid("parameters are a JSON Schema object", f"tools[{i}].function.parameters")


def _param(message: str) -> str | None:
    """The place that msgspec names: "… - at `$.messages[0]`", or a missing field."""
    for mark, stop in (("`$.", "`"), ("required field `", "`")):
        if mark in message:
            return message.split(mark, 1)[1].split(stop, 1)[0]
    return None
