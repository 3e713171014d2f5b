"""A labelled task made by hand: two turns, a look-up, a write that changes what a look-up says, a strict item."""

from __future__ import annotations

import json

from cm2.check import Called, Equals, Fact, NotCalled, Reply, Response
from cm2.checklist import Checklist, Item, Task
from cm2.dialogue import Dialogue, Step, Tool, ToolCall, ToolResponse, Turn


def schema(required: list[str], **properties) -> dict:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


TEXT = {"type": "string"}
TOOLS = [
    Tool("find_items", "Search the menu", schema(["query"], query=TEXT, limit={"type": "integer", "default": 5})),
    Tool("add_item", "Add to the order", schema(["item_id", "quantity"], item_id=TEXT, quantity={"type": "integer"})),
    Tool("get_order", "Show the order", schema(["order_id"], order_id=TEXT)),
    Tool("get_opening_hours", "When the bar is open", schema(["day"], day=TEXT)),
]
MENU = {"items": [{"item_id": "mocha-7835", "name": "Mocha"}, {"item_id": "latte-2323", "name": "Oat latte"}]}
EMPTY, FULL = {"order_id": "51313", "lines": 0}, {"order_id": "51313", "lines": 1}


def made(name: str, arguments: dict, answer, id: str | None = None) -> Step:
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return Step(calls=[ToolCall(name, arguments, id)], responses=[ToolResponse(text, id, name)])


def dialogue() -> Dialogue:
    first = [
        made("find_items", {"query": "coffee"}, MENU),
        made("get_order", {"order_id": "51313"}, EMPTY),
        made("add_item", {"item_id": "mocha-7835", "quantity": 1}, {"order_id": "51313", "line_id": "12691"}),
        made("get_order", {"order_id": "51313"}, FULL),
        Step(thinking="done", reply="I added one Mocha; your order 51313 has 1 line."),
    ]
    second = [
        made("get_opening_hours", {"day": "Monday"}, {"day": "Monday", "opens": 8, "note": "open on Monday"}),
        Step(reply="On Monday we open at 8."),
    ]
    return Dialogue(
        id="coffee",
        system="You serve coffee.",
        tools=TOOLS,
        turns=[Turn("A mocha on order 51313 please.", first), Turn("When do you open on Monday?", second)],
    )


def item(id: str, focus: str, weight: float, check, depends=(), strict=False) -> Item:
    return Item(id, focus, f"Is {id} so?", "as the check says", weight, [], [], strict, list(depends), check)


CALLS, CONTENT, REPLY = "assistant.tool_calls", "tool.content", "assistant.content.user_visible_reply"


def task() -> Task:
    bought = Called("add_item", {"item_id": Equals("mocha-7835"), "quantity": Equals(1)})
    return Task(
        dialogue(),
        [
            Checklist(
                0,
                [
                    item("C0", CONTENT, 0.25, Response("find_items", "items[0].item_id", Equals("mocha-7835"))),
                    item("C1", CALLS, 0.5, bought, ["C0"], strict=True),
                    item("C2", REPLY, 0.25, Reply(states=[Fact(["51313"])])),
                ],
            ),
            Checklist(
                1,
                [
                    item("C0", REPLY, 0.5, Reply(states=[Fact([8], "number")])),
                    item("C1", CALLS, 0.5, NotCalled(["add_item"])),
                ],
            ),
        ],
    )
