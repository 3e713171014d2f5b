"""Check: an item's condition as data, decided without a language model.

A check is JSON, not code, so that it can be labelled, reviewed, stored and sent. Each form carries `type`; leaves look
at the turn so far (and, for `came_from`, at everything before), `all` / `any` / `not` combine. How a check is decided
lives in `cm2.judge.checks`; here is only its shape.

What must not happen (`not_called`, `not`, `at_most`, `never`) is settled only in a state that holds the turn's final
reply: an agent that says nothing earns nothing. `all` and `any` of nothing never hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any as Json
from typing import Literal

import msgspec


class Equals(msgspec.Struct, tag_field="op", tag="equals", omit_defaults=True):
    """The same JSON value (1 equals 1.0, "a" never equals 1); `fold` also folds case, space and punctuation of text."""

    value: Json
    fold: bool = False


class OneOf(msgspec.Struct, tag_field="op", tag="one_of", omit_defaults=True):
    """One of several JSON values."""

    values: list[Json]
    fold: bool = False


class Contains(msgspec.Struct, tag_field="op", tag="contains", omit_defaults=True):
    """Text that holds this text, a list that holds this value, or an object that holds these members."""

    value: Json
    fold: bool = True


class Number(msgspec.Struct, tag_field="op", tag="number", omit_defaults=True):
    """A number (or its text) within `tolerance` of `value`."""

    value: float
    tolerance: float = 0.0


class CameFrom(msgspec.Struct, tag_field="op", tag="came_from", omit_defaults=True):
    """The value stood in an earlier response of `tool` (any tool where None), at the JMESPath `path` where given.

    Ids are matched by where they came from, because a simulated world may hand out other ids than the reference's.
    """

    tool: str | None = None
    path: str | None = None


class Pattern(msgspec.Struct, tag_field="op", tag="pattern", omit_defaults=True):
    """Text in which a regular expression (RE2 syntax: linear time, no back-references) is found."""

    pattern: str


class Anything(msgspec.Struct, tag_field="op", tag="anything", omit_defaults=True):
    """Present, whatever the value; null is absent."""


Matcher = Equals | OneOf | Contains | Number | CameFrom | Pattern | Anything


class Called(msgspec.Struct, tag_field="type", tag="called", omit_defaults=True):
    """The agent called `tool` in this turn with arguments that match, between `at_least` and `at_most` times.

    `arguments` maps a top-level argument name, or a JMESPath into the arguments object, to a matcher; arguments not
    named are free, and an absent one has the default that the tool's schema declares. A malformed call never matches.
    With `answered` the call must also have got a response that is not an error.
    """

    tool: str
    arguments: dict[str, Matcher] = {}
    at_least: int = 1
    at_most: int | None = None
    answered: bool = False


class NotCalled(msgspec.Struct, tag_field="type", tag="not_called", omit_defaults=True):
    """None of `tools` (any tool at all where empty) was called in this turn with arguments that match.

    Without `arguments` a malformed attempt counts as a call.
    """

    tools: list[str] = []
    arguments: dict[str, Matcher] = {}


class Response(msgspec.Struct, tag_field="type", tag="response", omit_defaults=True):
    """A response of `tool` in this turn, at the JMESPath `path` (whole value where None), satisfies the matcher.

    `arguments` restricts it to responses of calls with such arguments.
    """

    tool: str
    path: str | None = None
    match: Matcher = msgspec.field(default_factory=Anything)
    arguments: dict[str, Matcher] = {}
    allow_error: bool = False


class Fact(msgspec.Struct, omit_defaults=True):
    """A value that a reply states. `kind` chooses the normalisation; `any_of` lists accepted forms.

    With `tool` the value is read from this rollout's own latest response of that tool at the JMESPath, so that a
    grounded reply passes in a world whose values differ; `any_of` is then only the fallback where no response has it.
    Where the path gives a list, any one of its values will do; an error is no response.
    """

    any_of: list[Json] = []
    kind: Literal["text", "number", "date", "time"] = "text"
    tool: str | None = None
    path: str | None = None


class Reply(msgspec.Struct, tag_field="type", tag="reply", omit_defaults=True):
    """The visible reply that ends the turn states every fact in `states`, none in `never`, and asks if `asks`.

    A courtesy ("anything else?") is no question; a request ("please tell me your name") is one.
    """

    states: list[Fact] = []
    never: list[Fact] = []
    asks: bool | None = None
    pattern: str | None = None
    """An RE2 expression that the reply must contain (used for refusals)."""


class Before(msgspec.Struct, tag_field="type", tag="before", omit_defaults=True):
    """`first` holds at an earlier step than the first step at which `then` holds (or `then` never holds)."""

    first: Check
    then: Check


class All(msgspec.Struct, tag_field="type", tag="all", omit_defaults=True):
    """Every one of `checks` holds."""

    checks: list[Check]


class Any(msgspec.Struct, tag_field="type", tag="any", omit_defaults=True):
    """At least one of `checks` holds."""

    checks: list[Check]


class Not(msgspec.Struct, tag_field="type", tag="not", omit_defaults=True):
    """`check` does not hold."""

    check: Check


class Expression(msgspec.Struct, tag_field="type", tag="expression", omit_defaults=True):
    """A condition in the Common Expression Language (CEL: no side effects, loops only over what is there) is true.

    It reads the state as plain values; `cm2.judge.expression` lists them. For conditions that compare several calls,
    responses and messages, which the other forms cannot. One that fails to evaluate leaves the item unscored.
    """

    cel: str


Leaf = Called | NotCalled | Response | Reply | Expression
Check = Leaf | Before | All | Any | Not


def leaves(check: Check) -> Iterator[Leaf]:
    """The parts of a check that combine nothing, in order, those below a `not` included."""
    match check:
        case All() | Any():
            for one in check.checks:
                yield from leaves(one)
        case Not():
            yield from leaves(check.check)
        case Before():
            yield from leaves(check.first)
            yield from leaves(check.then)
        case _:
            yield check
