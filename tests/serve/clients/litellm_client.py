"""LiteLLM against an endpoint, as the harnesses use it: run by a test, in whichever environment has it."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches a price list

import litellm

given = json.load(sys.stdin)
common: dict[str, Any] = {
    "model": f"openai/{given['model']}",
    "base_url": given["base_url"],
    "api_key": given["key"],
    "num_retries": 0,
    "timeout": 60,
}
tools = given["tools"]
messages: list[dict[str, Any]] = [{"role": "user", "content": "Where is order 7?"}]
answer = litellm.completion(messages=messages, tools=tools, tool_choice="auto", temperature=0.0, **common)
message = answer.choices[0].message
found: dict[str, Any] = {
    "calls": [[call.function.name, json.loads(call.function.arguments)] for call in message.tool_calls],
    "thinking": message.reasoning_content,
    "usage": [answer.usage.prompt_tokens, answer.usage.completion_tokens],
    "finish": answer.choices[0].finish_reason,
}
chunks = list(litellm.completion(messages=messages, tools=tools, stream=True, **common))
built = litellm.stream_chunk_builder(chunks)
found["streamed"] = [
    [call.function.name, json.loads(call.function.arguments)] for call in built.choices[0].message.tool_calls
]
messages += [message.model_dump(), {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "shipped"}]
found["second"] = litellm.completion(messages=messages, tools=tools, **common).choices[0].finish_reason
try:
    litellm.completion(messages=[{"role": "user", "content": "x " * 5000}], **common)
except litellm.ContextWindowExceededError as error:
    found["long"] = [type(error).__name__, error.status_code]
try:
    litellm.completion(messages=messages, **(common | {"api_key": "wrong"}))
except litellm.AuthenticationError as error:
    found["key"] = error.status_code
print(json.dumps(found))
