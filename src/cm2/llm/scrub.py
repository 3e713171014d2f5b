"""Scrubbing: secrets are taken out wherever something is written, before it is cut or stored.

A secret is the value of a variable that holds a key (those that the configuration names, and whatever the environment
calls …_KEY, …_TOKEN, …_SECRET or …_PASSWORD), an Authorization header, the password or token in an address, a private
key, or a text in the shape of a well-known provider's key. Each becomes `[hidden]`; everything else stays as it was.
"""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus

HIDDEN = "[hidden]"
_NAMED = re.compile(r"(?:^|_)(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD)$")
_SHORTEST, _SHORTEST_NAMED = 8, 12
"""Characters from which a value counts as a secret: local servers are given keys like EMPTY, which are words."""
_watched: set[str] = set()
_hidden: set[str] = set()

_HEADER = re.compile(
    r"""(?i)\b((?:proxy-)?authorization|x-api-key|api[-_]?key|x-auth-token)(\\*["']?\s{0,4}[:=]\s{0,4}\\*["']?)"""
    r"""((?:bearer|basic|token|digest)\s{1,4})?([^\s"',;\\<>{}\[\]()]{8,})"""
)
_BEARER = re.compile(r"(?i)\b(bearer\s{1,4})[A-Za-z0-9._~+/=-]{16,}")
_IN_URL = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]{0,20}://)([^\s/@:\"'<>]{0,200}):([^\s/@\"'<>]{1,200})@")
_IN_QUERY = re.compile(
    r"(?i)([?&](?:api[-_]?key|token|access[-_]token|secret|password|sig|signature|x-amz-signature)=)[^&\s\"'#<>\\]+"
)
_PEM = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[A-Za-z0-9+/=\s\\]{0,10000}(?:-----END [A-Z ]{0,30}PRIVATE KEY-----)?"
)
_SHAPES = re.compile(
    r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}"  # OpenAI, Anthropic, OpenRouter, DeepSeek …
    r"|\b(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}"
    r"|\b(?:hf|gsk|r8|csk)_[A-Za-z0-9]{16,}|\b(?:nvapi|xai|pplx|fw|tgp_v1)-[A-Za-z0-9_-]{16,}"
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}|\bglpat-[A-Za-z0-9_-]{16,}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[0-9A-Za-z_-]{30,}|\bya29\.[0-9A-Za-z_-]{20,}"
    r"|\bxox[abeoprs]-[A-Za-z0-9-]{10,}|\bpypi-[A-Za-z0-9_-]{50,}|\bnpm_[A-Za-z0-9]{30,}"
    r"|\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{5,}"
)


def watch(*variables: str) -> None:
    """Count the values of these environment variables as secrets from now on, whatever their names."""
    _watched.update(variables)


def hide(*values: str) -> None:
    """Count these texts as secrets from now on."""
    _hidden.update(value for value in values if len(value) >= _SHORTEST)


def scrub(text: str) -> str:
    """The text without secrets."""
    known = _known(_values())
    if known is not None:
        text = known.sub(HIDDEN, text)
    if "PRIVATE KEY-----" in text:
        text = _PEM.sub(HIDDEN, text)
    if "://" in text:
        text = _IN_URL.sub(rf"\1\2:{HIDDEN}@", text)
    if "=" in text:
        text = _IN_QUERY.sub(rf"\1{HIDDEN}", text)
    text = _HEADER.sub(_header, text)
    text = _BEARER.sub(rf"\1{HIDDEN}", text)
    return _SHAPES.sub(_shape, text)


def scrubbed(value: Any) -> Any:
    """A JSON value whose texts, and names of fields, are without secrets."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, list):
        return [scrubbed(one) for one in value]
    if isinstance(value, dict):
        return {scrub(name): scrubbed(one) for name, one in value.items()}
    return value


def _header(found: re.Match[str]) -> str:
    if not found[3] and (len(found[4]) < 16 or not any(character.isdigit() for character in found[4])):
        return found[0]  # no scheme, and a word: "authorization: required_by_the_clerk"
    return f"{found[1]}{found[2]}{found[3] or ''}{HIDDEN}"


def _shape(found: re.Match[str]) -> str:
    text = found[0]  # words with hyphens, like sk-learn-compatible-estimators, are no keys
    return HIDDEN if any(character.isdigit() for character in text) else text


def _values() -> tuple[str, ...]:
    values = {os.environ.get(name, "").strip() for name in _watched}
    values = {value for value in values if len(value) >= _SHORTEST} | _hidden
    for name, value in os.environ.items():
        value = value.strip()
        if len(value) >= _SHORTEST_NAMED and _NAMED.search(name.upper()) and not value.startswith(("/", "~")):
            values.add(value)
    return tuple(sorted(values, key=lambda value: (-len(value), value)))


@lru_cache(maxsize=64)
def _known(values: tuple[str, ...]) -> re.Pattern[str] | None:
    """One pattern of all values, as they are and as JSON, addresses and headers write them."""
    forms: list[str] = []
    for value in values:
        forms += [value, json.dumps(value)[1:-1], quote(value, safe=""), quote_plus(value)]
    forms = sorted(set(forms), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, forms))) if forms else None
