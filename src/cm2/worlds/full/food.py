"""Food delivery: restaurants, menus, a basket, orders; a minimum order, and allergies that must be respected."""

from __future__ import annotations

import random
from typing import Any

from cm2.worlds.domain import Domain, Options
from cm2.worlds.engine import Desk, Engine, Record, Tables, draw_id
from cm2.worlds.full.talk import Talk, ids, only
from cm2.worlds.toolbox import Toolbox, ToolError

box = Toolbox()
_CUISINES = {
    "Italian": "margherita lasagne gnocchi risotto tiramisu carbonara minestrone",
    "Indian": "korma biryani samosas dal naan vindaloo paneer",
    "Japanese": "ramen sushi udon tempura gyoza teriyaki miso",
    "Mexican": "tacos burrito quesadilla nachos enchiladas guacamole fajitas",
}
_NAMES = "Bella|Nonna|Lotus|Taj|Saffron|Sakura|Wave|Bamboo|Casa Luz|El Sol|Cactus|Corner Table"
_ALLERGENS = ("nuts", "milk", "gluten", "none", "none", "none")
_STREETS = "Oak Street|Mill Lane|High Street|Park Road|Station Road|King Street|Elm Avenue|River Road"
_ROLE = "{You take orders for QuickBite|You are the ordering assistant of QuickBite}."
_RULES = (
    "{Respect allergies: never order a dish with that allergen|A dish that contains the customer's allergen must not "
    "be ordered}.",
    "{An order below the restaurant's minimum cannot be placed|Do not place orders below the restaurant's minimum}; "
    "say so.",
    "{Orders that are on the way cannot be cancelled|Cancel no order whose status is on the way}.",
)


@box.tool("Restaurants that deliver now.", cuisine="Italian|Indian|Japanese|Mexican")
def search_restaurants(desk: Desk, cuisine: str) -> Any:
    rows = desk.where("restaurants", cuisine=cuisine)
    return {"restaurants": [only(row, "restaurant_id", "name", "rating", "minutes", "minimum") for row in rows]}


@box.tool("Dishes of a restaurant.", restaurant_id="string")
def get_menu(desk: Desk, restaurant_id: str) -> Any:
    rows = desk.where("dishes", restaurant_id=desk.find("restaurants", restaurant_id)["restaurant_id"])
    return {"dishes": [only(row, "dish_id", "name", "price", "contains") for row in rows]}


@box.tool("Order a dish to an address.", dish_id="string", quantity="integer", address="string")
def place_order(desk: Desk, dish_id: str, quantity: int, address: str) -> Any:
    dish = desk.find("dishes", dish_id)
    shop = desk["restaurants"][dish["restaurant_id"]]
    total = dish["price"] * quantity
    if total < shop["minimum"]:
        raise ToolError(f"the minimum is {shop['minimum']}")
    record = {"dish_id": dish["dish_id"], "quantity": quantity, "address": address, "total": total, "note": ""}
    return {
        "order_id": desk.make("orders", {**record, "status": "preparing"}, "@##", "order_id"),
        "total": total,
        "minutes": shop["minutes"],
    }


@box.tool("Status of an order.", order_id="string")
def get_order_status(desk: Desk, order_id: str) -> Any:
    row = desk.find("orders", order_id)
    dish = desk["dishes"][row["dish_id"]]
    minutes = desk["restaurants"][dish["restaurant_id"]]["minutes"]
    return {**only(row, "order_id", "status", "quantity", "total", "address"), "dish": dish["name"], "minutes": minutes}


@box.tool("Cancel an order.", order_id="string")
def cancel_food_order(desk: Desk, order_id: str) -> Any:
    row = desk.find("orders", order_id)
    if row["status"] != "preparing":
        raise ToolError(f"{row['order_id']} is {row['status']}")
    row["status"] = "cancelled"
    return {"order_id": row["order_id"], "refund": row["total"]}


@box.tool("Change the address of an order.", order_id="string", address="string")
def update_address(desk: Desk, order_id: str, address: str) -> Any:
    row = desk.find("orders", order_id)
    if row["status"] != "preparing":
        raise ToolError(f"{row['order_id']} is {row['status']}")
    row["address"] = address
    return only(row, "order_id", "address")


@box.tool("Leave a tip for the courier.", order_id="string", amount="integer")
def add_tip(desk: Desk, order_id: str, amount: int) -> Any:
    row = desk.find("orders", order_id)
    row["tip"] = row.get("tip", 0) + amount
    return {"order_id": row["order_id"], "tip": row["tip"], "charged": row["total"] + row["tip"]}


def populate(rng: random.Random) -> Tables:
    """Two or three restaurants for each of two cuisines, four dishes each, and three running orders."""
    tables: Tables = {"restaurants": {}, "dishes": {}, "orders": {}}
    names = iter(rng.sample(_NAMES.split("|"), 6))
    shops, dishes = iter(ids(rng, "S", 6)), iter(ids(rng, "D", 24))
    for cuisine in rng.sample(sorted(_CUISINES), 2):
        count = rng.randint(2, 3)
        ratings, minutes = rng.sample(range(30, 50), count), rng.sample(range(15, 70), count)
        for rating, time in zip(ratings, minutes, strict=True):
            shop: Record = {
                "restaurant_id": next(shops),
                "name": next(names),
                "cuisine": cuisine,
                "rating": rating / 10,
            }
            tables["restaurants"][shop["restaurant_id"]] = {
                **shop,
                "minutes": time,
                "minimum": rng.choice((10, 15, 20, 25)),
            }
            prices = rng.sample(range(6, 25), 4)
            for dish, price in zip(rng.sample(_CUISINES[cuisine].split(), 4), prices, strict=True):
                record: Record = {
                    "dish_id": next(dishes),
                    "restaurant_id": shop["restaurant_id"],
                    "name": dish,
                    "price": price,
                }
                tables["dishes"][record["dish_id"]] = {**record, "contains": rng.choice(_ALLERGENS)}
    for dish in rng.sample(sorted(tables["dishes"]), 3):
        quantity = rng.randint(1, 4)
        record = {"order_id": draw_id(rng, "##@"), "dish_id": dish, "quantity": quantity, "address": _address(rng)}
        record |= {"total": tables["dishes"][dish]["price"] * quantity, "note": ""}
        tables["orders"][record["order_id"]] = {
            **record,
            "status": rng.choice(("preparing", "preparing", "on the way")),
        }
    return tables


def _address(rng: random.Random) -> str:
    return f"{rng.randint(1, 99)} {rng.choice(_STREETS.split('|'))}"


def _order(talk: Talk) -> None:
    """Best rated or fastest restaurant, cheapest dish without an allergen, or a dish by name."""
    cuisine = talk.pick(*sorted({row["cuisine"] for row in talk.now["restaurants"].values()}))
    field, wish = talk.pick(
        ("rating", "the best rated <cuisine> place"), ("minutes", "the fastest <cuisine> restaurant")
    )
    shops = [row for row in talk.now["restaurants"].values() if row["cuisine"] == cuisine]
    shop = (max if field == "rating" else min)(shops, key=lambda row: row[field])
    menu = [row for row in talk.now["dishes"].values() if row["restaurant_id"] == shop["restaurant_id"]]
    allergen = talk.pick("nuts", "milk", "gluten") if talk.chance(0.5) else None
    named = talk.pick(*menu)["name"] if talk.chance(0.5) else None
    quantity, address = talk.rng.randint(1, 4), _address(talk.rng)
    what = "<quantity> x <dish>" if named else "<quantity> of the cheapest dish{ they have|}"
    warn = "{ I'm allergic to <allergen>.| No <allergen>, I am allergic.}" if allergen else ""
    talk.user(
        f"{{Order|I'd like|Please get me|Get us}} {what} from {wish}{{ to| and bring it to|, delivered to}} "
        f"<address>.{warn}",
        cuisine=cuisine,
        quantity=quantity,
        dish=named,
        address=address,
        allergen=allergen,
    )
    found = talk.call("search_restaurants", "{Search|Find} <cuisine> places.", cuisine=cuisine)["restaurants"]
    place = next(row for row in found if row["restaurant_id"] == shop["restaurant_id"])
    thought = f"{place['name']} has {field} {place[field]}; see its menu."
    dishes = talk.call("get_menu", thought, restaurant_id=place["restaurant_id"])["dishes"]
    fitting = [row for row in dishes if allergen is None or row["contains"] != allergen]
    chosen = next((row for row in dishes if row["name"] == named), None)
    chosen = chosen or min(fitting, key=lambda row: row["price"], default=None)
    if chosen is None or chosen not in fitting:
        text = "{Sorry|I am sorry|Unfortunately}, " + ("<dish> contains" if named else "every dish there contains")
        text += " <allergen>, so I {did not order it|ordered nothing}."
        talk.refuse(text, "", "Allergen: do not order.", dish=named, allergen=allergen)
    elif chosen["price"] * quantity < place["minimum"]:
        talk.refuse(
            "{Sorry|I am sorry|Unfortunately}, <shop> has a minimum of $<minimum>, so I {cannot place|am not able to "
            "place} that order.",
            "minimum",
            "Below the minimum of <minimum>: refuse.",
            place,
            shop=place["name"],
        )
    elif talk.agreed(
        "{That is|I would order} <quantity> x <name> at $<price> each from <shop>, to <address>. {Shall I order "
        "it?|Should I place it?}",
        "price",
        "<name> fits; ask first.",
        chosen,
        quantity=quantity,
        address=address,
        shop=place["name"],
    ):
        arguments = {"dish_id": chosen["dish_id"], "quantity": quantity, "address": address}
        done = talk.call("place_order", f"Order {chosen['name']}, <dish_id>.", **arguments)
        talk.notes["order"] = done["order_id"]
        text = "{Ordered|Done}: <name>, order <order_id>, total $<total>{, in|; it takes} <minutes> minutes."
        talk.reply(text, "order_id total minutes", "Report order, total, minutes.", chosen, done)


def _running(talk: Talk, wish: str, **values: Any) -> Record | None:
    """The order that a wish is about, as its status shows it; None where there is no room."""
    if talk.opened and not talk.room_to_act():
        return None
    id = talk.notes.get("order") or talk.pick(*sorted(talk.now["orders"]))
    talk.notes["order"] = id
    talk.user(wish, id=id, **values)
    return talk.call("get_order_status", "See the order's status first.", order_id=id)


def _late(talk: Talk, row: Record, what: str) -> bool:
    if row["status"] == "preparing":
        return False
    text = (
        "{Sorry|I am sorry|Unfortunately}, order <order_id> is <status>, so {it cannot be|I am not able to have it} "
        + what
    )
    talk.refuse(text + ".", "status", "It is <status>: refuse.", row)
    return True


def _cancel(talk: Talk) -> None:
    """Cancel an order unless it is on the way or cancelled."""
    row = _running(talk, "{Cancel|Please cancel|I want to cancel} {order|my order} <id>{.| and tell me the refund.}")
    if row is None or _late(talk, row, "cancelled"):
        return
    if talk.agreed(
        "{I would cancel|That cancels} <order_id> (<dish>) and refund $<total>. {Shall I?|Should I?}", "total", "", row
    ):
        done = talk.call("cancel_food_order", "Still preparing: cancel <order_id>.", order_id=row["order_id"])
        talk.reply(
            "{Cancelled|Done}: <order_id>, {refund|you get back} $<refund>.", "refund", "Report the refund.", done
        )


def _readdress(talk: Talk) -> None:
    """Another address, unless the order is on the way."""
    address = _address(talk.rng)
    row = _running(talk, "{Deliver|Please send|Bring} {order|my order} <id> to <address> instead.", address=address)
    if row is None or _late(talk, row, "sent elsewhere"):
        return
    if talk.agreed(
        "{I would send|That sends} <order_id> to <new>. {Is that right?|Shall I?}", "", "", row, new=address
    ):
        done = talk.call("update_address", "Change the address.", order_id=row["order_id"], address=address)
        talk.reply("{Done|Changed}: <order_id> goes to <address>.", "address", "Tell them.", done)


def _tip(talk: Talk) -> None:
    """A tip."""
    amount = talk.rng.randint(1, 9)
    row = _running(
        talk,
        "{Add a tip of|Please tip} $<amount> {to|for} order <id>. {What is charged then?|What do I pay then?}",
        amount=amount,
    )
    if row is not None and row["status"] == "cancelled":
        _late(talk, row, "tipped")
    elif row is not None and talk.agreed(
        "{I would add|That adds} $<tip> to <order_id>. {Shall I?|OK?}", "", "", row, tip=amount
    ):
        done = talk.call("add_tip", "Add <amount>.", order_id=row["order_id"], amount=amount)
        talk.reply(
            "{Done|Added}: tip $<tip>, {charged|you pay} $<charged>{ in all|}.", "tip charged", "Report both.", done
        )


def _where(talk: Talk) -> None:
    """How an order is doing."""
    id = talk.notes.get("order") or talk.pick(*sorted(talk.now["orders"]))
    talk.notes["order"] = id
    talk.user(
        "{What is the status of|How is it going with|What about} order <id>, and how many minutes does that "
        "restaurant need?",
        id=id,
    )
    row = talk.call("get_order_status", "Check the status.", order_id=id)
    talk.reply(
        "Order <order_id> is <status>; {they need|it takes} <minutes> minutes.", "status minutes", "Answer both.", row
    )


def write(rng: random.Random, engine: Engine, options: Options) -> Talk:
    """One dialogue."""
    talk = Talk(rng, engine, options, box, _ROLE, _RULES)
    return talk.play((_order, _order, _order, _cancel, _readdress), (_cancel, _readdress, _tip, _where))


DOMAIN = Domain("food", box, populate, write)
