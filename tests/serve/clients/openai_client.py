"""The official client against an endpoint: run by a test, in whichever environment has it. Prints what it saw."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import openai

given = json.load(sys.stdin)
url, key, model, tools = given["base_url"], given["key"], given["model"], given["tools"]
messages = [{"role": "user", "content": "Where is order 7?"}]
client = openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=60)
found: dict[str, Any] = {"models": [each.id for each in client.models.list()]}

whole = client.chat.completions.create(model=model, messages=messages, tools=tools, temperature=0, seed=1)
message = whole.choices[0].message
found["whole"] = {
    "content": message.content,
    "thinking": getattr(message, "reasoning_content", None),
    "calls": [[call.function.name, json.loads(call.function.arguments)] for call in message.tool_calls or []],
    "finish": whole.choices[0].finish_reason,
    "usage": whole.usage.model_dump(include={"prompt_tokens", "completion_tokens"}),
}

options = {"include_usage": True}
with client.chat.completions.stream(
    model=model, messages=messages, tools=tools, temperature=0, seed=1, stream_options=options
) as stream:
    for _ in stream:
        pass
    last = stream.get_final_completion()
message = last.choices[0].message
found["streamed"] = {
    "content": message.content,
    "thinking": getattr(message, "reasoning_content", None),
    "calls": [[call.function.name, json.loads(call.function.arguments)] for call in message.tool_calls or []],
    "finish": last.choices[0].finish_reason,
    "usage": last.usage.model_dump(include={"prompt_tokens", "completion_tokens"}),
}

again = [*messages, whole.choices[0].message.model_dump(exclude_none=True)]
again.append({"role": "tool", "tool_call_id": whole.choices[0].message.tool_calls[0].id, "content": "shipped"})
found["second"] = client.chat.completions.create(model=model, messages=again, tools=tools).choices[0].finish_reason


def raised(call: Any) -> list[Any]:
    try:
        call()
    except openai.APIStatusError as error:
        return [type(error).__name__, error.status_code, error.code]
    return ["nothing"]


long = [{"role": "user", "content": "x " * 5000}]
found["long"] = raised(lambda: client.chat.completions.create(model=model, messages=long))
found["model"] = raised(lambda: client.chat.completions.create(model="other", messages=messages))
found["choice"] = raised(
    lambda: client.chat.completions.create(model=model, messages=messages, tools=tools, tool_choice="required")
)
stranger = openai.OpenAI(base_url=url, api_key="wrong", max_retries=0)
found["key"] = raised(lambda: stranger.chat.completions.create(model=model, messages=messages))


async def many() -> list[str]:
    async with openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as other:
        asked = [other.chat.completions.create(model=model, messages=messages, n=2) for _ in range(2)]
        return [choice.finish_reason for answer in await asyncio.gather(*asked) for choice in answer.choices]


found["many"] = asyncio.run(many())
print(json.dumps(found))
