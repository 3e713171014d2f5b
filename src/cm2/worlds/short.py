"""The short profile: one turn, look up → choose by a condition → act, for models of a hundred million parameters.

A domain is data (`Spec`): what is looked up by which key, how a record is described, which act takes its id, and how
people ask for it. The user's condition picks the record (an extreme, a name, a limit that one record meets); about one
task in seven cannot be done (nothing within the limit, no such record, taken), and then nothing may be done. Answers
are compact: two or three records with an id and two fields, then a code and one more value to be passed on.
"""

from __future__ import annotations

import random
from typing import Any

import msgspec

from cm2.worlds.domain import Domain, Options
from cm2.worlds.engine import Desk, Engine, Record, Tables, draw_id
from cm2.worlds.script import Script
from cm2.worlds.toolbox import Toolbox, ToolError
from cm2.worlds.wording import expand

_REFUSED = 0.11
_TAKEN = 0.05
_BY_VALUE = 0.65
"""Share of wishes that name the record by a value; the others want an extreme or set a limit."""
_SPARE_TOOL = 0.3
_TOLD_BY_RULE = 0.6
"""Share of dialogues whose system prompt, not the user, says what a reply must state."""
_AGAIN = "{Changed my mind, cancel it|Actually, cancel that|Sorry, please undo that|Please cancel it again}{.| now.}"


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """One short domain. Texts have choices in braces and values in angle brackets (see `cm2.worlds.wording`)."""

    name: str
    table: str
    letter: str
    """Ids are this letter and two digits."""
    find: str
    key: str
    keys: tuple[str, ...]
    """The look-up tool, its argument, and that argument's values."""
    fields: dict[str, tuple[Any, ...]]
    """The two fields of a record: (lowest, highest) of a number, or the values to choose from."""
    act: str
    ref: str
    """The tool that acts and the argument that takes the id."""
    amount: str = ""
    """The act's second argument, a small number that multiplies the cost ("" for none)."""
    cost: str = ""
    """The field that counts as the price, for limits and totals."""
    gives: str = "total"
    """What the act answers beside the code: `total`, or a field of its own, drawn from `given`."""
    given: tuple[Any, ...] = ()
    """Numbers, or texts in which `@` stands for a letter and `#` for a digit."""
    undo: str
    """The tool that takes a code back: spare in one turn, used in the second."""
    wishes: dict[str, str]
    """How people name the record: keys `min FIELD`, `max FIELD`, `is FIELD` (<value>), `under` (<limit>)."""
    asks: str
    """The request: <wish>, <key> and, with an amount, <amount>."""
    tell: str
    """What the reply must state, as the system prompt or the user says it."""
    done: str
    """The agent's report: <label>, <code>, <given>."""
    none: str
    """The agent's report that nothing fits: <wish>, <key>."""
    taken: str
    """The agent's report that the record is taken: <label>."""


def short_domain(spec: Spec) -> Domain:
    """The executable domain of a spec."""
    box = Toolbox()
    noun = spec.ref.removesuffix("_id")

    def find(desk: Desk, **arguments: str) -> Any:
        rows = desk.where(spec.table, **{spec.key: arguments[spec.key]})
        # What people call a record stands right before its id: that is how a small model finds the one by the other.
        first, *others = spec.fields
        return [{name: row[name] for name in (first, "id", *others)} for row in rows]

    def act(desk: Desk, **arguments: Any) -> Any:
        row = desk.find(spec.table, arguments[spec.ref], noun)
        if row["taken"]:
            raise ToolError(f"{row['id']} is not available")
        amount = arguments.get(spec.amount, 1)
        given = row[spec.cost] * amount if spec.gives == "total" else row[spec.gives]
        record = {spec.ref: row["id"], "amount": amount, spec.gives: given, "cancelled": False}
        return {"code": desk.make("done", record), spec.gives: given}

    def undo(desk: Desk, code: str) -> Any:
        record = desk.find("done", code, "code")
        if record["cancelled"]:
            raise ToolError(f"{record['code']} is cancelled already")
        record["cancelled"] = True
        return {"cancelled": record["code"]}

    amount = {spec.amount: "integer"} if spec.amount else {}
    box.add(spec.find, "", {spec.key: "string"}, find)
    box.add(spec.act, "", {spec.ref: "string", **amount}, act)
    box.add(spec.undo, "", {"code": "string"}, undo)
    return Domain(
        spec.name,
        box,
        lambda rng: _populate(spec, rng),
        lambda rng, engine, options: _write(spec, box, rng, engine, options),
    )


def _populate(spec: Spec, rng: random.Random) -> Tables:
    """Two keys with two or three records each; fields are distinct within a key, ids everywhere."""
    numbers = iter(rng.sample(range(11, 100), 6))
    records: dict[str, Record] = {}
    for key in rng.sample(spec.keys, 2):
        count = rng.choice((2, 3, 3))
        drawn = {name: _values(rng, choices, count) for name, choices in spec.fields.items()}
        for index in range(count):
            id = f"{spec.letter}{next(numbers)}"
            fields = {name: values[index] for name, values in drawn.items()}
            extra = {} if spec.gives == "total" else {spec.gives: _given(rng, spec.given)}
            records[id] = {"id": id, spec.key: key, **fields, **extra, "taken": rng.random() < _TAKEN}
    return {spec.table: records, "done": {}}


def _values(rng: random.Random, choices: tuple[Any, ...], count: int) -> list[Any]:
    if len(choices) == 2 and isinstance(choices[0], int):
        return rng.sample(range(choices[0], choices[1] + 1), count)
    return rng.sample(choices, count)


def _given(rng: random.Random, choices: tuple[Any, ...]) -> Any:
    drawn = rng.choice(choices)
    return draw_id(rng, drawn) if isinstance(drawn, str) else drawn


def _write(spec: Spec, box: Toolbox, rng: random.Random, engine: Engine, options: Options) -> Script:
    again = rng.random() < options.two_turns
    spare = again or rng.random() < _SPARE_TOOL
    tools = [box.tools[name] for name in (spec.find, spec.act, *((spec.undo,) if spare else ()))]
    by_rule = rng.random() < _TOLD_BY_RULE
    tell = expand(rng, spec.tell)
    rule = tell.replace(" me ", " ", 1).capitalize() + "."
    script = Script(engine, tools, rng, rule if by_rule else None, options.thinking)
    wish, row, key = _choose(spec, rng, list(engine.tables()[spec.table].values()))
    amount = rng.randint(2, 5) if spec.amount else None
    ask = spec.asks
    if not by_rule:
        ask += f" {{{tell}, please.|And {tell}.|Then {tell}.|{tell[0].upper()}{tell[1:]}.}}"
    script.user(ask, wish=wish, key=key, amount=amount)
    found = script.call(spec.find, f"{{look up|check|search}} {key}", **dict[str, Any]({spec.key: key}))
    if row is None:
        script.reply(spec.none, "", "{none fits|no match}", refuses=True, wish=wish, key=key)
        return script
    shown = next(each for each in found if each["id"] == row["id"])
    label = shown[next(iter(spec.fields))]
    reason = f"{row['id']}: {', '.join(str(shown[name]) for name in spec.fields)}"
    arguments: dict[str, Any] = {spec.ref: row["id"], **({spec.amount: amount} if spec.amount else {})}
    done = script.call(spec.act, reason, fails=row["taken"], **arguments)
    if row["taken"]:
        script.reply(spec.taken, "", "not available", refuses=True, label=label)
        return script
    code, given = done["code"], done[spec.gives]
    script.reply(spec.done, "code given", "{report it|done, tell the code}", label=label, given=given, code=code)
    if again:
        script.user(_AGAIN)
        script.call(spec.undo, f"cancel {code}", code=code)
        script.reply("{Cancelled|It is cancelled|Done, cancelled}: <code>.", "code", "{report it|tell}", code=code)
    return script


def _choose(spec: Spec, rng: random.Random, rows: list[Record]) -> tuple[str, Record | None, str]:
    """What the user wishes, in words; the record that it means, None where there is none; and the key to look under."""
    key = rng.choice(sorted({row[spec.key] for row in rows}))
    rows = [row for row in rows if row[spec.key] == key]
    if rng.random() < _REFUSED:
        kinds = [kind for kind in spec.wishes if kind == "under" or kind.startswith("is ")]
        kind = rng.choice(kinds)
        text = expand(rng, spec.wishes[kind])
        if kind == "under":
            lowest = min(row[spec.cost] for row in rows)
            return text.replace("<limit>", str(rng.randint(max(1, lowest * 2 // 3), lowest - 1))), None, key
        field = kind.removeprefix("is ")
        missing = [value for value in spec.fields[field] if value not in {row[field] for row in rows}]
        return text.replace("<value>", str(rng.choice(missing))), None, key
    named = rng.random() < _BY_VALUE
    kind = rng.choice([kind for kind in spec.wishes if kind.startswith("is ") is named] or list(spec.wishes))
    text = expand(rng, spec.wishes[kind])
    if kind == "under":
        first, second = sorted(rows, key=lambda row: row[spec.cost])[:2]
        if second[spec.cost] - first[spec.cost] > 1:
            limit = rng.randint(first[spec.cost] + 1, second[spec.cost] - 1)
            return text.replace("<limit>", str(limit)), first, key
        kind = f"min {spec.cost}"
        text = expand(rng, spec.wishes[kind])
    how, field = kind.split(" ", 1)
    if how == "is":
        row = rng.choice(rows)
        return text.replace("<value>", str(row[field])), row, key
    row = (min if how == "min" else max)(rows, key=lambda row: row[field])
    return text, row, key
