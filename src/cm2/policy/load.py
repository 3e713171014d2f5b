"""Reading a policy from YAML or JSON; every fault names the file, the duty and how to mend it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from cm2.errors import DataError, Where
from cm2.policy.policy import Duty, Policy
from cm2.textfile import read_yaml


def load_policy(path: str | Path) -> Policy:
    """The policy in a file.

    Raises:
        DataError: there is no such file, it is no YAML or JSON, or a duty is not as it should be.
    """
    value = read_yaml(path, "pass a policy as YAML or JSON", kind=DataError)
    return read_policy(value, Where(file=str(path)))


def is_policy(path: str | Path) -> bool:
    """Whether a file looks like a policy rather than like rows of dialogues."""
    try:
        with open(path, "rb") as file:
            head = file.read(1 << 20).decode("utf-8", "replace")
    except OSError:
        return str(path).endswith((".yaml", ".yml"))
    return str(path).endswith((".yaml", ".yml")) or (not path_is_rows(path) and _DUTIES.search(head) is not None)


def path_is_rows(path: str | Path) -> bool:
    """Whether the name says that the file holds rows."""
    return str(path).endswith((".jsonl", ".ndjson", ".gz", ".zst", ".parquet"))


def read_policy(value: Any, where: Where = Where()) -> Policy:
    """A policy from plain values.

    Raises:
        DataError: it is not as it should be.
    """
    if not isinstance(value, dict) or not isinstance(value.get("duties"), list):
        raise DataError("is no policy", where=where, fix="write a mapping with `name` and a list `duties`")
    duties = [_duty(one, index, where) for index, one in enumerate(value["duties"])]
    ids = [duty.id for duty in duties]
    for id in ids:
        if ids.count(id) > 1:
            raise DataError(f"{ids.count(id)} duties have this id", where=where.but(item=id), fix="give each its own")
    if not duties:
        raise DataError("the policy has no duties", where=where, fix="write at least one")
    try:
        return msgspec.convert({**value, "duties": duties}, Policy)
    except msgspec.ValidationError as error:
        raise DataError(f"the policy is not as it should be: {error}", where=where) from error


def _duty(value: Any, index: int, where: Where) -> Duty:
    id = value.get("id") if isinstance(value, dict) else None
    here = where.but(item=id if isinstance(id, str) and id else None, path=f"duties[{index}]")
    try:
        duty = msgspec.convert(value, Duty)
    except (msgspec.ValidationError, RecursionError) as error:
        message, _, path = str(error).partition(" - at `$")
        inner = here.but(path=f"{here.path}{path.rstrip('`')}")
        raise DataError(f"the duty is not as it should be: {message}", where=inner, fix=_FIELDS) from error
    if not duty.id.strip() or not duty.question.strip():
        raise DataError("a duty needs an id and a question", where=here, fix="write both")
    return duty


_DUTIES = re.compile(r"""^\s*\{?\s*["']?duties["']?\s*:|[{,]\s*"duties"\s*:""", re.MULTILINE)
_FIELDS = f"the fields are {', '.join(field.encode_name for field in msgspec.structs.fields(Duty))}"
