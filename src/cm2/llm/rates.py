"""What a server says of its rate limits in the headers of an answer."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Allowance(msgspec.Struct, frozen=True):
    """What is left of one limit, and in how many seconds it is full again."""

    left: float
    reset: float


class Rates(msgspec.Struct, frozen=True):
    """What an answer's headers say; None where they do not."""

    retry_after: float | None = None
    """Seconds that the server asks to wait."""
    requests: Allowance | None = None
    tokens: Allowance | None = None


def read_rates(headers: Mapping[str, str]) -> Rates:
    """Retry-After, and the x-ratelimit-… headers in the forms that OpenAI-compatible servers use."""
    asked = headers.get("retry-after-ms", "").strip()
    return Rates(
        retry_after=float(asked) / 1000 if asked.isdigit() else retry_after(headers.get("Retry-After", "")),
        requests=_allowance(headers, "requests"),
        tokens=_allowance(headers, "tokens"),
    )


def retry_after(text: str) -> float | None:
    """Seconds to wait: a number or an HTTP date."""
    text = text.strip()
    if not text:
        return None
    try:
        seconds = float(text)
        return max(0.0, seconds) if seconds < float("inf") else None
    except ValueError:
        pass  # not a number of seconds: then it is a date
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _allowance(headers: Mapping[str, str], what: str) -> Allowance | None:
    try:
        left = float(headers.get(f"x-ratelimit-remaining-{what}", ""))
    except ValueError:
        return None
    reset = _seconds(headers.get(f"x-ratelimit-reset-{what}", ""))
    if not 0 <= left < float("inf") or reset is None:  # some servers send -1 for "not known"
        return None
    return Allowance(left, reset)


def _seconds(text: str) -> float | None:
    """Seconds from now: `6m0s`, `250ms`, `1.5`, or a time of day in seconds or milliseconds since 1970."""
    text = text.strip()
    found = _DURATION.findall(text)
    if found and "".join(number + unit for number, unit in found) == text:
        return sum(float(number) * _SECONDS[unit] for number, unit in found)
    try:
        value = float(text)
    except ValueError:
        return None
    if value > 1e11:
        value = value / 1000 - time.time()
    elif value > 1e8:
        value -= time.time()
    return value if 0 <= value < float("inf") else None
