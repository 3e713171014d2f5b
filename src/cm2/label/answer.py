"""Answer: what a labeller model is asked to return, as a JSON Schema, and how its items are found in it.

About one turn it returns `{"items": [...]}`, about a whole dialogue `{"turns": [{"turn": 0, "items": [...]}, ...]}`.
The schema asks for types; what the values are worth is looked at item by item (`cm2.label.drafting`), so that one bad
item costs only itself.
"""

from __future__ import annotations

from typing import Any, get_args

from cm2.checklist import FocusOn

PARTS = get_args(FocusOn)
TYPICAL = 6
"""Items of a turn that a dry run supposes."""


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


TEXT, WHOLE = {"type": "string"}, {"type": "integer"}
# Evidence first and weight late: a model that writes in this order looks before it judges.
ITEM = _object(
    id=TEXT,
    evidence=_list(_object(turn=WHOLE, step=WHOLE, **{"from": {"enum": [*PARTS]}}, snippet=TEXT)),
    focus_on={"enum": [*PARTS]},
    question=TEXT,
    pass_condition=TEXT,
    failure_examples=_list(TEXT),
    required_for_next_turn={"type": "boolean"},
    depends_on=_list(TEXT),
    weight={"type": "number"},
    check={
        "anyOf": [{"type": "object"}, {"type": "null"}]
    },  # its own schema is recursive: `cm2.label.compile` reads it
)
OF_TURN = _object(items=_list(ITEM))
OF_DIALOGUE = _object(turns=_list(_object(turn=WHOLE, items=_list(ITEM))))
SHAPES = {"turn": '{"items": [ITEM, ...]}', "dialogue": '{"turns": [{"turn": 0, "items": [ITEM, ...]}, ...]}'}


def schema_of(per: str) -> dict[str, Any]:
    """The schema of an answer about a turn or a dialogue."""
    return OF_DIALOGUE if per == "dialogue" else OF_TURN


def complete(value: Any, turns: list[int]) -> str:
    """What is missing in an answer about these turns, as a sentence for the model; "" where nothing is."""
    given = [each.get("turn") for each in _entries(value)]
    missing = [turn for turn in turns if turn not in given]
    double = sorted({turn for turn in turns if given.count(turn) > 1})
    if missing:
        return f"the entries of these turns are missing: {', '.join(map(str, missing))}"
    return f"these turns have more than one entry: {', '.join(map(str, double))}" if double else ""


def items_of(value: Any, turns: list[int], per: str) -> dict[int, list[Any]] | None:
    """The items of each turn in an answer, None where it has not the shape that was asked for."""
    if not isinstance(value, dict):
        return None
    if per == "turn":
        items = value.get("items")
        return {turns[0]: items} if isinstance(items, list) else None
    if not isinstance(value.get("turns"), list):
        return None
    found: dict[int, list[Any]] = {turn: [] for turn in turns}
    for entry in _entries(value):
        turn, items = entry.get("turn"), entry.get("items")
        if isinstance(turn, int) and turn in found and isinstance(items, list):
            found[turn] += items
    return found


def _entries(value: Any) -> list[dict[str, Any]]:
    turns = value.get("turns") if isinstance(value, dict) else None
    return [each for each in turns if isinstance(each, dict)] if isinstance(turns, list) else []


def planned(turns: list[int], per: str) -> dict[str, Any]:
    """The answer that a dry run supposes: of the usual length, and with items that have to be asked for again."""
    found = {turn: [_supposed(turn, number) for number in range(TYPICAL)] for turn in turns}
    if per == "turn":
        return {"items": found[turns[0]]}
    return {"turns": [{"turn": turn, "items": items} for turn, items in found.items()]}


def _supposed(turn: int, number: int) -> dict[str, Any]:
    """An item as long as they usually are. Its snippet stands nowhere, so that a second question follows."""
    return {
        "id": f"C{number}",
        "evidence": [{"turn": turn, "step": 0, "from": PARTS[0], "snippet": "supposed(" + "x" * 60 + ")"}],
        "focus_on": PARTS[0],
        "question": "Did the assistant call `supposed_tool` with the city that the user named?" + " x" * 10,
        "pass_condition": "`supposed_tool` is called with that city, in any spelling; other arguments are free."
        + " x" * 30,
        "failure_examples": ["it is called with another city", "it is not called, or only talked about"],
        "required_for_next_turn": False,
        "depends_on": [],
        "weight": 0.15,
        "check": {
            "type": "called",
            "tool": "supposed_tool",
            "arguments": {"city": {"op": "equals", "value": "x" * 12}},
        },
    }
