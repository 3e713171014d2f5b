"""Inspect: samples of an evaluation log, with their scores.

The log is a zip (`.eval`: a header and one member a sample) or one JSON document (`samples`). Long texts are kept once
and pointed to (`attachment://`). Tools stand in the model's events. A sample's id is made of task, sample and epoch, so
that two models' runs of one sample have the same id and can be compared.

`meta.reward` is there where exactly one scorer gave a value that is a number or one of Inspect's letters (C 1, P 0.5,
I and N 0).
"""

from __future__ import annotations

from typing import Any

from cm2.errors import DataError
from cm2.imports.dialects import read_messages
from cm2.imports.draft import Draft
from cm2.imports.fields import names
from cm2.imports.notes import Notes, Place
from cm2.imports.schemas import read_tools
from cm2.imports.talk import Talk
from cm2.imports.text import as_dict, as_list, as_text
from cm2.imports.work import plain_score, seconds

FORMAT = "inspect"
_LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
_ATTACHED = "attachment://"
_BOOKKEEPING = names("inspect", "left")
_TAKEN = names("inspect", "taken")


def is_sample(value: dict[str, Any]) -> bool:
    """Whether an object is a sample of a log."""
    told = any(key in value for key in ("scores", "target", "model_usage"))
    return "epoch" in value and isinstance(value.get("messages"), list) and told


def read_sample(value: dict[str, Any], header: dict[str, Any]) -> list[Draft]:
    """A sample to its dialogue. `header` is the log's.

    Raises:
        DataError: it cannot be read.
    """
    talk, notes = Talk(), Notes()
    place = Place(notes)
    attached = as_dict(value.get("attachments"))
    events = [one for one in as_list(value.get("events")) if isinstance(one, dict) and one.get("event") == "model"]
    for event in events:
        if event.get("tools"):
            talk.offer(read_tools(event["tools"], place.at("events")))
    messages = resolved(value["messages"], attached)
    if not messages:
        failed = as_text(as_dict(value.get("error")).get("message"))
        raise DataError(f"the sample has no messages{f'; it failed: {failed[:200]}' if failed else ''}")
    read_messages(messages, talk, place.at("messages"))
    draft = Draft.of(FORMAT, talk, notes)
    _describe(value, as_dict(header.get("eval")), draft, place)
    _score(value, draft, place)
    return [draft]


def resolved(value: Any, attached: dict[str, Any]) -> Any:
    """A value with the texts that it points to."""
    if not attached:
        return value
    if isinstance(value, str):
        return attached.get(value.removeprefix(_ATTACHED), value) if value.startswith(_ATTACHED) else value
    if isinstance(value, list):
        return [resolved(one, attached) for one in value]
    if isinstance(value, dict):
        return {key: resolved(one, attached) for key, one in value.items()}
    return value


def _describe(value: dict[str, Any], about: dict[str, Any], draft: Draft, place: Place) -> None:
    task = as_text(about.get("task")) or "inspect"
    draft.id = f"{task}-{as_text(value.get('id'))}-{as_text(value.get('epoch'))}"
    draft.source = f"inspect:{task}"
    meta = draft.meta
    meta |= {"sample_id": value.get("id"), "epoch": value.get("epoch"), "task": task}
    for name in ("model", "run_id"):
        if isinstance(about.get(name), str):
            meta[name] = about[name]
    if value.get("target") not in (None, "", []):
        meta["target"] = value["target"]
    if isinstance(value.get("started_at"), str):
        meta["started"] = value["started_at"]
        spent = seconds(value.get("completed_at")) - seconds(value["started_at"])
        if 0 <= spent < 1e7:
            meta["seconds"] = round(spent, 3)
    if value.get("error"):
        meta["errors"] = [as_text(as_dict(value["error"]).get("message", value["error"]))[:1000]]
    if value.get("limit"):
        meta["ended"] = as_text(as_dict(value["limit"]).get("type", value["limit"]))
    place.keep("metadata", value.get("metadata"))
    for key in ("choices", "sandbox"):
        place.keep(key, value.get(key))
    place.rest(value, _TAKEN, _BOOKKEEPING)


def _score(value: dict[str, Any], draft: Draft, place: Place) -> None:
    scores = as_dict(value.get("scores"))
    for name, score in scores.items():
        score = score if isinstance(score, dict) else {"value": score}
        inner = score.get("value")
        if isinstance(inner, dict):
            for part, one in inner.items():
                if (found := plain_score(one)) is not None:
                    draft.score(f"{name}.{part}", found)
        elif (found := plain_score(inner)) is not None:
            draft.score(name, found)
        else:
            place.keep(f"scores.{name}.value", inner)
        for key, one in score.items():
            if key not in ("value", "history"):
                place.keep(f"scores.{name}.{key}", one)
    given = list(draft.meta.get("scores", {}).values())
    if len(given) == 1:
        reward = _LETTERS.get(given[0]) if isinstance(given[0], str) else float(given[0])
        if reward is not None:
            draft.meta["reward"] = reward
