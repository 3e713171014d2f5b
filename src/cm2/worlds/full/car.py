"""Car rental: branches, cars, quotes, rentals; drivers under 25 may not take large cars."""

from __future__ import annotations

import random
from typing import Any

from cm2.worlds.domain import Domain, Options
from cm2.worlds.engine import Desk, Engine, Record, Tables, draw_id
from cm2.worlds.full.talk import CITIES, Talk, clock, day, ids, only, people, spoken
from cm2.worlds.toolbox import Toolbox, ToolError

box = Toolbox()
_MODELS = {
    "small": "Polo Clio Corsa Yaris Panda".split(),  # noqa: SIM905
    "family": "Golf Focus Astra Corolla Octavia".split(),  # noqa: SIM905
    "van": "Transit Caddy Vivaro Berlingo Sprinter".split(),  # noqa: SIM905
}
_EXTRAS = ("child_seat", "gps", "snow_chains")
_YOUNG = 25
_ROLE = "{You are the rental agent of WheelGo|You rent out cars for WheelGo}."
_RULES = (
    f"{{Drivers under {_YOUNG} may not rent a van|No vans for drivers under {_YOUNG}}}; "
    "{ask the driver's age before you rent out a van|for a van you need to know the age}.",
    "{Rentals that have started cannot be cancelled|Cancel no rental whose status is started}.",
)


@box.tool("Branches in a city.", city="string")
def find_branches(desk: Desk, city: str) -> Any:
    rows = desk.where("branches", city=city)
    return {"branches": [only(row, "branch_id", "place", "closes") for row in rows]}


@box.tool("Cars at a branch.", branch_id="string", size="small|family|van?")
def list_cars(desk: Desk, branch_id: str, size: str | None = None) -> Any:
    branch = desk.find("branches", branch_id)["branch_id"]
    rows = [row for row in desk.where("cars", branch_id=branch, size=size) if row["free"]]
    return {"cars": [only(row, "car_id", "model", "size", "rate", "automatic") for row in rows]}


@box.tool("Price of a car for a number of days.", car_id="string", days="integer")
def get_quote(desk: Desk, car_id: str, days: int) -> Any:
    car = desk.find("cars", car_id)
    return {"car_id": car["car_id"], "total": car["rate"] * days, "deposit": car["deposit"]}


@box.tool("Rent a car.", car_id="string", driver="string", date="date", days="integer")
def rent_vehicle(desk: Desk, car_id: str, driver: str, date: str, days: int) -> Any:
    car = desk.find("cars", car_id)
    if not car["free"]:
        raise ToolError(f"{car['car_id']} is not free")
    car["free"] = False
    total = car["rate"] * days
    record = {"car_id": car["car_id"], "driver": driver, "date": date, "days": days, "total": total, "extras": []}
    id = desk.make("rentals", {**record, "status": "booked"}, "@@##", "rental_id")
    return {"rental_id": id, "total": total, "deposit": car["deposit"]}


@box.tool("A rental.", rental_id="string")
def get_rental(desk: Desk, rental_id: str) -> Any:
    row = desk.find("rentals", rental_id)
    return {**row, "model": desk["cars"][row["car_id"]]["model"]}


@box.tool("Add an extra to a rental.", rental_id="string", extra="child_seat|gps|snow_chains")
def add_extra(desk: Desk, rental_id: str, extra: str) -> Any:
    row = desk.find("rentals", rental_id)
    if extra in row["extras"]:
        raise ToolError(f"{row['rental_id']} has {extra} already")
    row["extras"] = sorted([*row["extras"], extra])
    row["total"] += desk["prices"][extra]["price"]
    return {
        "rental_id": row["rental_id"],
        "extra": extra,
        "price": desk["prices"][extra]["price"],
        "total": row["total"],
    }


@box.tool("Keep a rental for more days.", rental_id="string", days="integer")
def extend_rental(desk: Desk, rental_id: str, days: int) -> Any:
    row = desk.find("rentals", rental_id)
    row["days"] += days
    row["total"] += desk["cars"][row["car_id"]]["rate"] * days
    return only(row, "rental_id", "days", "total")


@box.tool("Cancel a rental.", rental_id="string")
def cancel_rental_booking(desk: Desk, rental_id: str) -> Any:
    row = desk.find("rentals", rental_id)
    if row["status"] != "booked":
        raise ToolError(f"{row['rental_id']} is {row['status']}")
    row["status"] = "cancelled"
    desk["cars"][row["car_id"]]["free"] = True
    return {"rental_id": row["rental_id"], "refund": row["total"]}


def populate(rng: random.Random) -> Tables:
    """Two cities, an airport and a station branch in each, four or five cars a branch, and three rentals."""
    tables: Tables = {"branches": {}, "cars": {}, "rentals": {}, "prices": {}}
    tables["prices"] = {extra: {"price": rng.randint(5, 45)} for extra in _EXTRAS}
    branches, cars = iter(ids(rng, "B", 4)), iter(ids(rng, "V", 20))
    for city in rng.sample(CITIES, 2):
        for place in ("airport", "station"):
            branch: Record = {"branch_id": next(branches), "city": city, "place": place, "closes": clock(rng, 18, 22)}
            tables["branches"][branch["branch_id"]] = branch
            sizes = ["small", "small", "family", "family", "van"][: rng.randint(4, 5)]
            rates = rng.sample(range(19, 120), len(sizes))
            models = {size: rng.sample(names, 2) for size, names in _MODELS.items()}
            for size, rate in zip(sizes, rates, strict=True):
                car: Record = {
                    "car_id": next(cars),
                    "branch_id": branch["branch_id"],
                    "model": models[size].pop(),
                    "size": size,
                }
                car |= {"rate": rate, "automatic": rng.random() < 0.5, "deposit": rng.randint(10, 50) * 10}
                tables["cars"][car["car_id"]] = {**car, "free": True}
    for driver, id in zip(people(rng, 3), rng.sample(sorted(tables["cars"]), 3), strict=True):
        car, days = tables["cars"][id], rng.randint(2, 9)
        car["free"] = False
        record: Record = {
            "rental_id": draw_id(rng, "@@##"),
            "car_id": id,
            "driver": driver,
            "date": day(rng, 0, 30),
            "days": days,
        }
        record |= {"total": car["rate"] * days, "extras": [], "status": rng.choice(("booked", "booked", "started"))}
        tables["rentals"][record["rental_id"]] = record
    return tables


def _rent(talk: Talk) -> None:
    """The cheapest car of a size at a branch; a van needs the driver's age."""
    branch = talk.pick(*talk.now["branches"].values())
    cars = [row for row in talk.now["cars"].values() if row["branch_id"] == branch["branch_id"] and row["free"]]
    size = talk.pick(*sorted({row["size"] for row in cars}), "van")
    date, days, driver = day(talk.rng), talk.rng.randint(2, 9), people(talk.rng, 1)[0]
    age = talk.rng.choice((talk.rng.randint(19, _YOUNG - 1), talk.rng.randint(_YOUNG, 70)))
    unsaid = size == "van" and talk.length > 2 and talk.chance(0.4)
    tell = " {I am <age>.|I'm <age> years old.}" if size == "van" and not unsaid else ""
    talk.user(
        "{I need|Rent me|I'd like to rent|Please reserve} the cheapest <what> at the <place> {in|of} <city> from "
        "<when> "
        "for <days> days. {The driver is|Driver:|My name is} <driver>." + tell,
        branch,
        what="van" if size == "van" else f"{size} car",
        when=spoken(date, talk.rng),
        days=days,
        driver=driver,
        age=age,
    )
    if unsaid:
        talk.reply(
            "{How old is the driver?|May I ask the driver's age?}", "", "A van: I need the age first.", asks=True
        )
        talk.user("{<age>|I am <age>|The driver is <age>}.", age=age)
    if size == "van" and age < _YOUNG:
        talk.refuse(
            "{Sorry|I am sorry|Unfortunately}, {drivers under <young> cannot rent a van|a van is not possible under "
            "<young>}.",
            "",
            "<age> is under <young>: no van.",
            young=_YOUNG,
            age=age,
        )
        return
    places = talk.call("find_branches", "{Find the branch|See the branches} in <city>.", city=branch["city"])[
        "branches"
    ]
    here = next(row for row in places if row["place"] == branch["place"])["branch_id"]
    found = talk.call("list_cars", "See its <size> cars.", branch_id=here, size=size)["cars"]
    if not found:
        text = "{Sorry|I am sorry|Unfortunately}, there is no van {free|available} there, so I booked nothing."
        talk.refuse(text, "", "No van there: book nothing.")
        return
    car = min(found, key=lambda row: row["rate"])
    quote = talk.call("get_quote", f"{car['model']} is cheapest at {car['rate']}.", car_id=car["car_id"], days=days)
    if talk.agreed(
        "{The cheapest is|I found} a <model> at $<rate> a day, $<total> for <days> days, deposit $<deposit>. {Shall "
        "I book it?|Should I rent it?}",
        "total deposit",
        "Quote it and ask.",
        car,
        quote,
        days=days,
    ):
        arguments = {"car_id": car["car_id"], "driver": driver, "date": date, "days": days}
        done = talk.call("rent_vehicle", f"Rent the {car['model']}, <car_id>.", **arguments)
        talk.notes["rental"] = done["rental_id"]
        text = "{Booked|Done|Reserved}: <model>, rental <rental_id>, total $<total>, deposit $<deposit>."
        talk.reply(text, "rental_id total deposit", "Report id, total, deposit.", car, done)


def _rental(talk: Talk, wish: str, **values: Any) -> Record | None:
    """The rental that a wish is about; None where there is no room, or it is cancelled and the agent said so."""
    if talk.opened and not talk.room_to_act():
        return None
    id = talk.notes.get("rental") or talk.pick(*sorted(talk.now["rentals"]))
    talk.notes["rental"] = id
    talk.user(wish, id=id, **values)
    row = talk.call("get_rental", "Look at the rental.", rental_id=id)
    if row["status"] == "cancelled":
        talk.refuse(
            "{Sorry|Unfortunately}, <rental_id> is cancelled, so I cannot do that.", "", "It is cancelled: refuse.", row
        )
        return None
    return row


def _extra(talk: Talk) -> None:
    """An extra."""
    extra = talk.pick(*_EXTRAS)
    name = extra.replace("_", " ").replace("gps", "GPS")
    row = _rental(
        talk,
        "{Add|Please add|I also need} {a|one} <name> {to|for} {rental|my rental} <id>. {What's the new total?|Tell "
        "me the total.}",
        name=name,
    )
    if row is None:
        return
    if extra in row["extras"]:
        talk.refuse(
            "Your rental <rental_id> {has|already has} a <name>, so I did not add {one|another}.",
            "",
            "It is there already.",
            row,
            name=name,
        )
    elif talk.agreed(
        "{I would add|That adds} a <name> to <rental_id> (<model>). {Shall I?|OK?}", "", "", row, name=name
    ):
        done = talk.call("add_extra", "Add <extra>.", rental_id=row["rental_id"], extra=extra)
        talk.reply(
            "{Added|Done}: <name> for $<price>, {total|the total is} $<total>.",
            "price total",
            "Report both.",
            done,
            name=name,
        )


def _extend(talk: Talk) -> None:
    """More days."""
    more = talk.rng.randint(1, 5)
    row = _rental(
        talk,
        "{Extend|Please extend|I want to keep} {rental|my rental} <id> {by|for} <more> more days. {What is the "
        "total?|Total?}",
        more=more,
    )
    if row is not None and talk.agreed(
        "{I would extend|That extends} <rental_id> by <more> days. {Shall I?|Right?}", "", "", row, more=more
    ):
        done = talk.call("extend_rental", "<days> more days.", rental_id=row["rental_id"], days=more)
        talk.reply(
            "{Extended|Done}: <rental_id> is for <days> days, total $<total>.", "days total", "Report both.", done
        )


def _cancel(talk: Talk) -> None:
    """Cancel, unless it has started."""
    row = _rental(talk, "{Cancel|Please cancel|I have to cancel} {rental|my rental} <id>{.| and refund me.}")
    if row is None:
        return
    if row["status"] != "booked":
        talk.refuse(
            "{Sorry|Unfortunately}, <rental_id> is <status> already, so I cannot cancel it.",
            "",
            "It is <status>: refuse.",
            row,
        )
    elif talk.agreed(
        "{I would cancel|That cancels} <rental_id> and refund $<total>. {Shall I?|Should I?}", "total", "", row
    ):
        done = talk.call("cancel_rental_booking", "Not started: cancel.", rental_id=row["rental_id"])
        talk.reply(
            "{Cancelled|Done}: <rental_id>, {refund|you get back} $<refund>.", "refund", "Report the refund.", done
        )


def _closing(talk: Talk) -> None:
    """When a branch closes."""
    branch = talk.pick(*talk.now["branches"].values())
    talk.user("{When|At what time|How late} does the <place> branch in <city> close{?| these days?}", branch)
    found = talk.call("find_branches", "See the branches.", city=branch["city"])["branches"]
    row = next(one for one in found if one["place"] == branch["place"])
    talk.reply("{It closes|The <place> branch closes} at <closes>.", "closes", "Answer.", row)


def write(rng: random.Random, engine: Engine, options: Options) -> Talk:
    """One dialogue."""
    talk = Talk(rng, engine, options, box, _ROLE, _RULES)
    return talk.play((_rent, _rent, _rent, _extra, _extend, _cancel), (_extra, _extend, _cancel, _closing))


DOMAIN = Domain("car", box, populate, write)
