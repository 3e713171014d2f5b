"""Askers for tests of the simulator: they treat an answer as the door does (schema, check, one repair)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re

import jsonschema

from cm2.llm import Answer, ModelError, Request


class Door:
    """Answers by a function of (request, attempt); keeps the requests and the reasons of repairs."""

    secret = "test"

    def __init__(self, reply, *, delay: float = 0.0):
        self.reply, self.delay = reply, delay
        self.requests: list[Request] = []
        self.reasons: list[str] = []

    async def ask(self, request: Request, check=None) -> Answer:
        self.requests.append(request)
        await asyncio.sleep(self.delay)
        reason = ""
        for attempt in range(2):
            value = self.reply(request, attempt)
            if isinstance(value, Exception):
                raise value
            broken = sorted(jsonschema.Draft202012Validator(request.schema).iter_errors(value), key=str)
            reason = broken[0].message if broken else check(value) if check else ""
            if not reason:
                return Answer(value)
            self.reasons.append(reason)
        raise ModelError(f"never valid: {reason}", where=request.where)


def section(request: Request, head: str) -> str:
    """The fenced text under a heading of the question, without the line prefixes; "" where there is none."""
    rest = request.messages[-1]["content"].split(head, 1)[1].lstrip("\n:,abcdefghijklmnopqrstuvwxyzASONJ ()")
    if not rest.startswith("<<<data"):
        return ""
    body = rest.split("\n<<<end", 1)[0].split("\n")[1:]
    return "\n".join(line.removeprefix("| ") for line in body)


def call_in(request: Request) -> tuple[str, dict]:
    """The call that a question is about."""
    name, arguments = re.fullmatch(r"(\w+)\((.*)\)", section(request, "The call to answer now")).groups()
    return name, json.loads(arguments)


def asked(request: Request) -> str:
    """Everything that a request shows to a model."""
    return "\n".join(one["content"] for one in request.messages) + json.dumps(request.schema)


def hashed(request: Request, attempt: int = 0):
    """An answer that depends on every byte of the question: a word in each text, a number in each number."""
    digest = hashlib.blake2b(asked(request).encode(), digest_size=6).hexdigest()
    return {"answer": filled(request.schema["properties"]["answer"]["anyOf"][0], digest)}


def filled(schema, word: str):
    """A value of this form."""
    if "anyOf" in schema:
        return filled(schema["anyOf"][0], word)
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {key: filled(inner, f"{key}-{word}") for key, inner in schema.get("properties", {}).items()}
    if kind == "array":
        return [filled(schema["items"], word)] if "items" in schema else []
    if kind in ("integer", "number"):
        return int(hashlib.blake2b(word.encode(), digest_size=4).hexdigest(), 16)
    return {"boolean": True, "null": None}.get(kind, word)
