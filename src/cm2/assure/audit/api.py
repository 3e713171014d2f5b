"""API: what the review page asks for and sends, as JSON. The guard stands before it (see `guard`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import yaml

from cm2.assure.audit import view
from cm2.assure.audit.book import Book, Conflict
from cm2.assure.audit.case import Action, Decision, Review, Subject
from cm2.assure.audit.people import truths
from cm2.checklist import Item
from cm2.errors import CM2Error, DataError
from cm2.policy.load import read_policy
from cm2.report.text import visible

NAME = 80
"""Characters of a reviewer's name."""


class ReviewBody(msgspec.Struct, forbid_unknown_fields=True):
    """A review that the page sends."""

    case: int
    reviewer: str
    decision: Decision
    version: int
    reason: str = ""
    blind: bool = False


class ChangeBody(msgspec.Struct, forbid_unknown_fields=True):
    """A change of a duty that the page sends."""

    key: str
    reviewer: str
    action: Action
    version: int
    reason: str = ""
    fields: dict[str, str] = {}


class Api:
    """The answers; each method takes what was sent and returns a value or raises a `CM2Error`."""

    def __init__(self, book: Book):
        self.book = book
        self.strata = {one.id: one for one in book.strata()}  # never change once the sample is drawn
        self._cases = {one.id: one for one in book.cases()}
        self._names = book.names()
        self._duties = [one.duty for one in book.populations() if one.duty]

    def state(self, reviewer: str) -> dict[str, Any]:
        """All cases in the order of the queue, with what this reviewer said of them; duties; strata."""
        by_case: dict[int, list[Review]] = {}
        for one in self.book.reviews():
            by_case.setdefault(one.case, []).append(one)
        cases = [
            view.line(case, by_case.get(case.id, []), reviewer, self._names[case.dialogue][0])
            for case in self._cases.values()
        ]
        names = sorted({one.reviewer for many in by_case.values() for one in many})
        config = self.book.facts["config"]
        return {
            "name": visible(config["logs"].rsplit("/", 1)[-1]),
            "judges": [visible(one) for one in self.book.facts["judges"]],
            "cases": cases,
            "strata": {id: visible(one.name) for id, one in self.strata.items()},
            "duties": [view.duty(one) for one in self.book.subjects()],
            "names": [visible(name) for name in self._duties],
            "reviewers": [visible(name) for name in names],
            "reviewed": len(truths([one for many in by_case.values() for one in many])),
        }

    def case(self, id: int, reviewer: str) -> dict[str, Any]:
        """One case; the reviews of others only to who has reviewed it."""
        case = self._cases.get(id)
        if case is None:
            raise DataError(f"there is no case {id}")
        found = view.whole(
            case, self.book.dialogue(case.dialogue), self.strata[case.stratum], self.book.subject(case.subject)
        )
        reviews = self.book.reviews(id)
        mine = next((one for one in reviews if one.reviewer == reviewer), None)
        others = [one for one in reviews if one is not mine]
        return {
            **found,
            "wanted": case.wanted,
            "mine": mine,
            "others": [_shown(one) for one in others] if mine is not None else len(others),
        }

    def review(self, body: ReviewBody) -> dict[str, Any]:
        """Write a review."""
        _named(body.reviewer)
        made = self.book.review(
            body.case, body.reviewer, body.decision, reason=body.reason, blind=body.blind, version=body.version
        )
        return {"review": made}

    def change(self, body: ChangeBody) -> dict[str, Any]:
        """Change a duty."""
        _named(body.reviewer)
        spec = None
        if body.action == "edit":
            subject = self.book.subject(body.key)
            if subject is None:
                raise DataError(f"there is no duty {body.key}")
            spec = edited(subject, body.fields)
        made = self.book.change(
            body.key, body.reviewer, body.action, reason=body.reason, version=body.version, spec=spec
        )
        return {"duty": view.duty(made)}

    def log(self) -> dict[str, Any]:
        """The log of changes of duties, newest first."""
        return {"changes": [_shown(one) for one in reversed(self.book.changes("duty"))]}


def edited(subject: Subject, fields: dict[str, str]) -> dict[str, Any]:
    """The duty with these fields, tested to be one.

    Raises:
        DataError: a field is none that may be edited, does not read, or what comes out is no duty.
    """
    spec = dict(subject.spec)
    for name, text in fields.items():
        if name not in _FIELDS or (name == "note" and subject.kind == "item"):
            raise DataError(f"{name} cannot be edited here", fix="edit the file for that")
        if name in ("check", "applies_when"):
            try:
                value = yaml.safe_load(text)
            except yaml.YAMLError as error:
                problem = getattr(error, "problem", None) or "not valid"
                mark = getattr(error, "problem_mark", None)
                at = "" if mark is None else f", line {mark.line + 1}"
                raise DataError(f"{name} is no YAML{at}: {problem}", fix="write it as in the policy") from error
        else:
            value = text.strip()
        if value in (None, ""):
            spec.pop(name, None)
        else:
            spec[name] = value
    if subject.kind == "duty":
        made = read_policy({"name": "edited", "duties": [spec]})
        return msgspec.to_builtins(made.duties[0])  # type: ignore[no-any-return]
    try:
        item = msgspec.convert(spec, Item)
    except (msgspec.ValidationError, RecursionError) as error:
        raise DataError(f"the item is not as it should be: {error}") from error
    if not item.question.strip() or not item.pass_condition.strip():
        raise DataError("an item needs a question and a pass condition", fix="write both")
    return msgspec.to_builtins(item)  # type: ignore[no-any-return]


def answer(call: Callable[[], Any]) -> tuple[int, Any]:
    """What a call gives, as a status and a JSON value: 409 for a conflict, 400 for what its sender can mend."""
    try:
        return 200, call()
    except Conflict as error:
        return 409, {"error": str(error), "now": error.now}
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        return 400, {"error": f"what was sent does not read: {error}"}
    except CM2Error as error:
        return 400, {"error": str(error)}


def _named(reviewer: str) -> None:
    if not reviewer.strip() or len(reviewer) > NAME or not reviewer.isprintable():
        raise DataError("a reviewer needs a name", fix=f"one line of at most {NAME} characters")


def _shown(value: Any) -> Any:
    """Values of the book with their text made visible."""
    if isinstance(value, msgspec.Struct):
        value = msgspec.to_builtins(value)
    if isinstance(value, dict):
        return {name: _shown(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_shown(each) for each in value]
    return visible(value) if isinstance(value, str) else value


_FIELDS = ("question", "pass_condition", "severity", "check", "applies_when", "note")
