"""Event tickets: a limit per person, and sales that are final when the event is near. Never trained on."""

from __future__ import annotations

import datetime
import random
from typing import Any

from cm2.worlds.domain import Domain, Options
from cm2.worlds.engine import Desk, Engine, Record, Tables, draw_id
from cm2.worlds.full.talk import CITIES, TODAY, Talk, clock, day, ids, only, people
from cm2.worlds.toolbox import Toolbox, ToolError

box = Toolbox()
_ARTISTS = "Nova|The Kites|Luna Park|Ember|Wolves|Daisy Chain|Tides|Velvet|North Star|Copper|Mirage|Paper Moon"
_AREAS = ("balcony", "floor", "gallery", "box")
_LIMIT = 6
_FINAL = 7
_ROLE = "{You sell tickets for StageDoor|You are the ticket assistant of StageDoor}."
_RULES = (
    f"{{Nobody may buy more than {_LIMIT} tickets at once|At most {_LIMIT} tickets in one purchase}}; say so and buy "
    "nothing.",
    f"{{No refund within {_FINAL} days of the event|Tickets are final when the event is {_FINAL} days away or less}}.",
)


@box.tool("Events by city or artist.", city="string?", artist="string?")
def browse_events(desk: Desk, city: str | None = None, artist: str | None = None) -> Any:
    rows = desk.where("events", city=city, artist=artist)
    return {"events": [only(row, "event_id", "artist", "city", "date", "starts") for row in rows]}


@box.tool("Seat areas of an event.", event_id="string")
def list_areas(desk: Desk, event_id: str) -> Any:
    rows = desk.where("areas", event_id=desk.find("events", event_id)["event_id"])
    return {"areas": [only(row, "area_id", "area", "price", "left") for row in rows]}


@box.tool("Buy tickets.", area_id="string", count="integer", buyer="string")
def purchase_tickets(desk: Desk, area_id: str, count: int, buyer: str) -> Any:
    area = desk.find("areas", area_id)
    if area["left"] < count:
        raise ToolError(f"only {area['left']} left in {area['area_id']}")
    area["left"] -= count
    record = {"area_id": area["area_id"], "count": count, "buyer": buyer, "paid": area["price"] * count}
    number = desk.make("purchases", {**record, "delivery": "app", "status": "valid"}, "@##@", "ticket_order")
    return {"ticket_order": number, "paid": record["paid"], "gate": area["gate"]}


@box.tool("A purchase.", ticket_order="string")
def show_purchase(desk: Desk, ticket_order: str) -> Any:
    row = desk.find("purchases", ticket_order)
    area = desk["areas"][row["area_id"]]
    event = desk["events"][area["event_id"]]
    return {**row, "area": area["area"], **only(event, "event_id", "artist", "date")}


@box.tool("Refund a purchase.", ticket_order="string")
def refund_purchase(desk: Desk, ticket_order: str) -> Any:
    row = desk.find("purchases", ticket_order)
    if row["status"] != "valid":
        raise ToolError(f"{row['ticket_order']} is {row['status']}")
    row["status"] = "refunded"
    desk["areas"][row["area_id"]]["left"] += row["count"]
    return {"ticket_order": row["ticket_order"], "refund": row["paid"]}


@box.tool("Send the tickets in another way.", ticket_order="string", way="app|post|desk")
def set_delivery(desk: Desk, ticket_order: str, way: str) -> Any:
    row = desk.find("purchases", ticket_order)
    row["delivery"] = way
    return {"ticket_order": row["ticket_order"], "delivery": way, "cost": desk["costs"][way]["cost"]}


@box.tool("Hall, doors and parking of an event.", event_id="string")
def describe_event(desk: Desk, event_id: str) -> Any:
    return only(desk.find("events", event_id), "event_id", "hall", "doors", "parking_price")


def populate(rng: random.Random) -> Tables:
    """Six events in three cities, three areas each, and three purchases."""
    tables: Tables = {"events": {}, "areas": {}, "purchases": {}, "costs": {}}
    tables["costs"] = {way: {"cost": rng.randint(1, 9)} for way in ("app", "post", "desk")}
    areas = iter(ids(rng, "Z", 18))
    cities = rng.sample(CITIES, 3)
    for number, (id, artist) in enumerate(zip(ids(rng, "E", 6), rng.sample(_ARTISTS.split("|"), 6), strict=True)):
        event: Record = {"event_id": id, "artist": artist, "city": cities[number % 3], "date": day(rng, 2, 60)}
        event |= {"starts": clock(rng, 18, 21), "hall": f"Hall {draw_id(rng, '@')}", "doors": clock(rng, 15, 17)}
        tables["events"][id] = {**event, "parking_price": rng.randint(4, 30)}
        for area, price in zip(rng.sample(_AREAS, 3), rng.sample(range(18, 160), 3), strict=True):
            record: Record = {
                "area_id": next(areas),
                "event_id": id,
                "area": area,
                "price": price,
                "left": rng.randint(1, 40),
            }
            tables["areas"][record["area_id"]] = {**record, "gate": draw_id(rng, "@#")}
    for buyer, area in zip(people(rng, 3), rng.sample(sorted(tables["areas"]), 3), strict=True):
        count = rng.randint(1, 4)
        record = {"ticket_order": draw_id(rng, "@##@"), "area_id": area, "count": count, "buyer": buyer}
        record |= {"paid": tables["areas"][area]["price"] * count, "delivery": "app", "status": "valid"}
        tables["purchases"][record["ticket_order"]] = record
    return tables


def _buy(talk: Talk) -> None:
    """Seats for an artist, or for the next event in a city."""
    event = talk.pick(*talk.now["events"].values())
    count = talk.rng.randint(1, 5) if talk.chance(0.85) else talk.rng.randint(_LIMIT + 1, 12)
    buyer = people(talk.rng, 1)[0]
    nearest = talk.chance(0.4)
    kind, words, best = talk.pick(
        ("cheapest", "{the cheapest seats|cheapest area}", min),
        ("dearest", "{the most expensive seats|most expensive area}", max),
    )
    what = "the {earliest|next} event in <city>" if nearest else "<artist>{ in <city>|}"
    talk.user(
        f"{{Get me|I want|Please buy|I'd like}} <count> {{tickets|seats}} for {what}, {words}. {{Name|Buyer|It's "
        f"for}}{{:|}} <buyer>.",
        event,
        count=count,
        buyer=buyer,
    )
    if count > _LIMIT:
        talk.refuse(
            "{Sorry|I am sorry|Unfortunately}, {I can sell at most|you cannot buy more than} <limit> tickets at "
            "once, so I bought nothing.",
            "limit",
            "<count> is more than <limit>: refuse.",
            count=count,
            limit=_LIMIT,
        )
        return
    where = {"city": event["city"]} if nearest else {"artist": event["artist"]}
    found = talk.call("browse_events", "{Find the event|Search the events}.", **where)["events"]
    chosen = min(found, key=lambda row: (row["date"], row["event_id"]))
    areas = talk.call("list_areas", f"{chosen['artist']} it is; see the areas.", event_id=chosen["event_id"])["areas"]
    area = best(areas, key=lambda row: row["price"])
    talk.notes["event"] = chosen["event_id"]
    if area["left"] < count:
        talk.refuse(
            "{Sorry|I am sorry|Unfortunately}, only <left> {tickets are|seats are} left in the <area>, so I {cannot "
            "sell|did not buy} <count>.",
            "left",
            "Only <left> left: refuse.",
            area,
            count=count,
        )
    elif talk.agreed(
        "{That is|I found} <artist> on <date>, <area> (<area_id>) at $<price> each. {Shall I buy <count>?|Should I "
        "get <count> of them?}",
        "date price",
        "The <kind> is the <area>; ask first.",
        chosen,
        area,
        count=count,
        kind=kind,
    ):
        arguments = {"area_id": area["area_id"], "count": count, "buyer": buyer}
        done = talk.call("purchase_tickets", f"Buy <count> in the {area['area']}.", **arguments)
        talk.notes["order"] = done["ticket_order"]
        text = "{Bought|Done}: <count> for <artist>, order <ticket_order>, $<paid>, gate <gate>."
        talk.reply(text, "ticket_order paid gate", "Report order, price, gate.", chosen, done, count=count)


def _purchase(talk: Talk, wish: str, **values: Any) -> Record | None:
    """The purchase that a wish is about; None where there is no room, or it is void and the agent said so."""
    if talk.opened and not talk.room_to_act():
        return None
    id = talk.notes.get("order") or talk.pick(*sorted(talk.now["purchases"]))
    talk.notes["order"] = id
    talk.user(wish, id=id, **values)
    row = talk.call("show_purchase", "Look at the order.", ticket_order=id)
    talk.notes["event"] = row["event_id"]
    if row["status"] != "valid":
        talk.refuse(
            "{Sorry|I am sorry}, <ticket_order> is <status>, so I cannot do that.", "", "It is <status>: refuse.", row
        )
        return None
    return row


def _refund(talk: Talk) -> None:
    """Money back, unless the event is near."""
    row = _purchase(talk, "{I can't go, refund|Please refund|I want my money back for} order <id>{.|, please.}")
    if row is None:
        return
    days = (datetime.date.fromisoformat(row["date"]) - TODAY).days
    if days <= _FINAL:
        talk.refuse(
            "{Sorry|I am sorry|Unfortunately}, <ticket_order> for <date> {cannot be refunded|is not refundable any "
            "more}.",
            "date",
            "<date> is within <final> days: no refund.",
            row,
            final=_FINAL,
        )
    elif talk.agreed(
        "{I would refund|That refunds} $<paid> for <artist> on <date>. {Shall I?|Should I?}", "paid", "", row
    ):
        done = talk.call("refund_purchase", "Far enough away: refund it.", ticket_order=row["ticket_order"])
        talk.reply("{Refunded|Done}: <ticket_order>, $<refund>{ back|}.", "refund", "Report the refund.", done)


def _deliver(talk: Talk) -> None:
    """By post or at the desk."""
    way = talk.pick("post", "desk")
    wish = {
        "post": "{Send|Please send} the tickets of order <id> by post.",
        "desk": "{I'll pick up|Leave} order <id> at the desk{.|, please.}",
    }[way]
    row = _purchase(talk, wish + " {What does that cost?|Tell me the cost.}")
    if row is not None and talk.agreed(
        "{I would set|That sets} <ticket_order> to <way>. {Shall I?|OK?}", "", "", row, way=way
    ):
        done = talk.call("set_delivery", "Set it to <way>.", ticket_order=row["ticket_order"], way=way)
        talk.reply(
            "{Done|Set}: <ticket_order>, delivery <delivery>, {cost|it costs} $<cost>.",
            "cost",
            "Report the cost.",
            done,
        )


def _ask(talk: Talk) -> None:
    """Doors and parking."""
    event = talk.now["events"][talk.notes.get("event") or talk.pick(*sorted(talk.now["events"]))]
    talk.user("{When do the doors open for|What time are doors for} <artist>, and what is parking?", event)
    found = talk.call("browse_events", "Find the event.", artist=event["artist"])["events"][0]
    info = talk.call("describe_event", "Its details say that.", event_id=found["event_id"])
    talk.reply(
        "Doors {open at|are at} <doors>; parking {is|costs} $<parking_price>.",
        "doors parking_price",
        "Answer both.",
        info,
    )


def write(rng: random.Random, engine: Engine, options: Options) -> Talk:
    """One dialogue."""
    talk = Talk(rng, engine, options, box, _ROLE, _RULES)
    return talk.play((_buy, _buy, _buy, _refund, _deliver), (_refund, _deliver, _ask))


DOMAIN = Domain("tickets", box, populate, write)
