"""Flights: search, fares, reservations found by code and last name; basic fares cannot be changed or refunded."""

from __future__ import annotations

import random
from typing import Any

from cm2.worlds.domain import Domain, Options
from cm2.worlds.engine import Desk, Engine, Record, Tables, draw_id
from cm2.worlds.full.talk import CITIES, Talk, clock, day, ids, only, people, spoken
from cm2.worlds.toolbox import Toolbox, ToolError

box = Toolbox()
_ROLE = "{You are the agent of Blue Wing airlines|You work for the airline Blue Wing}."
_RULES = (
    "{Reservations with a basic fare can neither be changed nor refunded|A basic fare allows no change and no "
    "refund}; say so.",
    "{A reservation may be discussed only with its code and the passenger's last name"
    "|Ask for the reservation code and the last name before you open a reservation}.",
)


@box.tool("Flights between two cities on a date.", origin="string", destination="string", date="date")
def find_flights(desk: Desk, origin: str, destination: str, date: str) -> Any:
    rows = [row for row in desk.where("flights", origin=origin, destination=destination, date=date) if row["seats"]]
    return {"flights": [only(row, "flight_id", "departure", "duration", "fare") for row in rows]}


@box.tool("Details of a flight.", flight_id="string")
def get_flight(desk: Desk, flight_id: str) -> Any:
    fields = ("flight_id", "origin", "destination", "date", "departure", "duration", "fare", "bag_fee", "terminal")
    return only(desk.find("flights", flight_id), *fields)


@box.tool("Book a seat.", flight_id="string", passenger="string")
def book_flight(desk: Desk, flight_id: str, passenger: str) -> Any:
    flight = desk.find("flights", flight_id)
    record = {"flight_id": flight["flight_id"], "passenger": passenger, "class": "flex", "paid": flight["fare"]}
    code = desk.make("reservations", {**record, "bags": 0, "status": "confirmed"}, "@@#@#", "reservation")
    return {"reservation": code, "paid": flight["fare"]}


@box.tool("A reservation, by its code and the passenger's last name.", reservation="string", last_name="string")
def get_reservation(desk: Desk, reservation: str, last_name: str) -> Any:
    row = desk.find("reservations", reservation)
    if row["passenger"].split()[-1].lower() != last_name.strip().lower():
        raise ToolError(f"reservation {row['reservation']} is not under that name")
    flight = desk["flights"][row["flight_id"]]
    return {**row, **only(flight, "origin", "destination", "date", "departure")}


@box.tool("Move a reservation to another flight.", reservation="string", flight_id="string")
def rebook_flight(desk: Desk, reservation: str, flight_id: str) -> Any:
    row, flight = _open(desk, reservation), desk.find("flights", flight_id)
    row["flight_id"] = flight["flight_id"]
    row["paid"] = max(row["paid"], flight["fare"])
    return {**only(row, "reservation", "flight_id", "paid"), "departure": flight["departure"]}


@box.tool("Cancel a reservation and refund it.", reservation="string")
def cancel_reservation(desk: Desk, reservation: str) -> Any:
    row = _open(desk, reservation)
    row["status"] = "cancelled"
    return {"reservation": row["reservation"], "refund": row["paid"]}


@box.tool("Add checked bags.", reservation="string", bags="integer")
def add_bags(desk: Desk, reservation: str, bags: int) -> Any:
    row = _open(desk, reservation)
    row["bags"] += bags
    fee = desk["flights"][row["flight_id"]]["bag_fee"] * bags
    return {"reservation": row["reservation"], "bags": row["bags"], "fee": fee}


def _open(desk: Desk, reservation: str) -> Record:
    row = desk.find("reservations", reservation)
    if row["status"] != "confirmed":
        raise ToolError(f"reservation {row['reservation']} is cancelled already")
    return row


def populate(rng: random.Random) -> Tables:
    """Two routes, each with three or four flights on one day, and three reservations."""
    tables: Tables = {"flights": {}, "reservations": {}}
    numbers = iter(ids(rng, "BW", 10))
    a, b, c = rng.sample(CITIES, 3)
    for origin, destination in ((a, b), (a, c)):
        date, fares = day(rng), rng.sample(range(60, 480), 4)
        times = sorted({clock(rng, 6, 21) for _ in range(4)})
        for departure, fare in zip(times, fares, strict=False):
            record: Record = {"flight_id": next(numbers), "origin": origin, "destination": destination, "date": date}
            record |= {
                "departure": departure,
                "duration": rng.randint(70, 640),
                "fare": fare,
                "seats": rng.randint(1, 9),
            }
            record |= {"bag_fee": rng.randint(15, 60), "terminal": draw_id(rng, "@")}
            tables["flights"][record["flight_id"]] = record
    for passenger in people(rng, 3):
        flight = rng.choice(list(tables["flights"].values()))
        code = draw_id(rng, "@@#@@")
        record = {"reservation": code, "flight_id": flight["flight_id"], "passenger": passenger}
        record |= {"class": rng.choice(("flex", "flex", "basic")), "paid": flight["fare"], "bags": 0}
        tables["reservations"][code] = {**record, "status": "confirmed"}
    return tables


def _book(talk: Talk) -> None:
    """A new reservation: the cheapest, the earliest, or the shortest flight."""
    some = talk.pick(*talk.now["flights"].values())
    passenger = people(talk.rng, 1)[0]
    wish, field, last = talk.pick(
        ("{the cheapest flight|the lowest fare}", "fare", False),
        ("{the earliest flight|the earliest departure}", "departure", False),
        ("{the latest flight|the last flight of the day}", "departure", True),
        ("{the shortest flight|the shortest one}", "duration", False),
    )
    talk.user(
        "{I need to fly|Please book a flight|Flight|I want to go} from <origin> to <destination> on <when>{, |. I'd "
        "like }" + wish + ". {Passenger: <passenger>|It's for <passenger>|My name is <passenger>}.",
        some,
        when=spoken(some["date"], talk.rng),
        passenger=passenger,
    )
    route = only(some, "origin", "destination", "date")
    found = talk.call("find_flights", "{Search that day|Find flights to <destination>}.", **route)["flights"]
    chosen = (max if last else min)(found, key=lambda row: row[field])
    thought = f"{chosen['flight_id']} fits: {field} {chosen[field]}."
    if not talk.agreed(
        "{I found|The best match is|I suggest} <flight_id>, leaving at <departure>, for $<fare>. "
        "{Shall I book it?|Do you want me to book it?}",
        "departure fare",
        thought + " Ask first.",
        chosen,
    ):
        return
    done = talk.call("book_flight", thought, flight_id=chosen["flight_id"], passenger=passenger)
    talk.notes |= {"code": done["reservation"], "name": passenger.split()[-1], "flight": chosen["flight_id"]}
    talk.reply(
        "{Booked|Done|You are booked}: <flight_id> at <departure>. {Your code is|Reservation} <reservation>, "
        "{paid|price} $<paid>.",
        "reservation paid",
        "Report code and price.",
        chosen,
        done,
    )


def _reservation(talk: Talk, wish: str, **values: Any) -> Record | None:
    """The customer names a reservation with a wish; the last name may be missing at first or be wrong."""
    if talk.opened:
        if "code" not in talk.notes or not talk.room_to_act():
            return None
        code, name = talk.notes["code"], talk.notes["name"]
        talk.user(wish + "{| It is about <code>.| Same reservation.}", code=code, **values)
        return talk.call("get_reservation", "Open the reservation.", reservation=code, last_name=name)
    row = talk.pick(*talk.now["reservations"].values())
    code, name = row["reservation"], row["passenger"].split()[-1]
    talk.notes |= {"code": code, "name": name, "flight": row["flight_id"]}
    kind = talk.rng.choices(("all", "no name", "wrong"), (70, 16, 14))[0]
    if kind == "no name":
        talk.user(wish + " {My code is|The reservation is|Code} <code>.", code=code, **values)
        ask = "{Could you tell me|What is} the passenger's last name{, please|}?"
        talk.reply(ask, "", "I need the last name first.", asks=True)
        talk.user("{It is|It's|Sure,|Last name} <name>.", name=name)
    else:
        other = talk.pick(*(one for one in ("Weber", "Tanaka", "Silva", "Novotny") if one != name))
        given = name if kind == "all" else other
        talk.user(wish + " {Reservation|Code|It is} <code>, {last name|name} <name>.", code=code, name=given, **values)
        if kind == "wrong":
            talk.call("get_reservation", "Open the reservation.", fails=True, reservation=code, last_name=other)
            talk.refuse(
                "{Sorry|I am sorry}, {I cannot open <code> with that name|<code> is not under that name}, "
                "so I {cannot go on|cannot change anything}.",
                "",
                "The name does not match: no access.",
                code=code,
            )
            del talk.notes["code"], talk.notes["flight"]
            return None
    return talk.call("get_reservation", "Open the reservation.", reservation=code, last_name=name)


def _basic(talk: Talk, row: Record, what: str) -> bool:
    if row["class"] == "basic":
        text = (
            "{Sorry|I am sorry|Unfortunately}, <reservation> is a basic fare, so {it cannot be|I am not able to "
            "get it} "
        )
        talk.refuse(text + what + ".", "", "Basic fare: the rules forbid it.", row)
    return row["class"] == "basic"


def _cancel(talk: Talk) -> None:
    """Cancel for a refund."""
    row = _reservation(
        talk,
        "{Please cancel my flight|I have to cancel|I can't fly, cancel it} {and refund me|and tell me the refund}.",
    )
    if row is None:
        return
    talk.notes.pop("code")
    if not _basic(talk, row, "refunded or cancelled") and talk.agreed(
        "{I can cancel|That would cancel} <reservation> to <destination> and refund $<paid>. {Shall I?|Should I do "
        "that?}",
        "paid",
        "Flex fare; ask first.",
        row,
    ):
        done = talk.call("cancel_reservation", "Flex fare: cancel <reservation>.", reservation=row["reservation"])
        text = "{Cancelled|Done}: <reservation>{ is cancelled|}. {The refund is|You get back} $<refund>."
        talk.reply(text, "refund", "Report the refund.", done)


def _move(talk: Talk) -> None:
    """Another departure on the same day."""
    which, last = talk.pick(("earliest", False), ("latest", True))
    row = _reservation(
        talk,
        "{Put me on|Move me to|Can I take|Change me to} the <which> flight of {that|the same} day{.|, please.}",
        which=which,
    )
    if row is None or _basic(talk, row, "changed"):
        return
    route = only(row, "origin", "destination", "date")
    found = talk.call("find_flights", "See that day's flights.", **route)["flights"]
    chosen = (max if last else min)(found, key=lambda one: one["departure"])
    if chosen["flight_id"] == row["flight_id"]:
        talk.refuse(
            "{You are already on the <which> flight|No change needed, yours is the <which> flight}, <flight_id> at "
            "<departure>; "
            "{I did not change anything|nothing was changed}.",
            "departure",
            "They have that flight already: nothing to do.",
            chosen,
            which=which,
        )
        return
    if talk.agreed(
        "{The <which> one is|That would be} <flight_id> at <departure>. {Shall I move you?|Should I rebook you?}",
        "departure",
        "<flight_id> it is; ask first.",
        chosen,
        which=which,
    ):
        arguments = {"reservation": row["reservation"], "flight_id": chosen["flight_id"]}
        done = talk.call("rebook_flight", "Move <reservation> to <flight_id>.", **arguments)
        talk.notes["flight"] = chosen["flight_id"]
        text = "{Done|Changed|Rebooked}: <reservation> is now on <flight_id> at <departure>."
        talk.reply(text, "flight_id departure", "Report the new flight.", done)


def _bags(talk: Talk) -> None:
    """Checked bags."""
    bags = talk.rng.randint(1, 3)
    row = _reservation(
        talk,
        "{Add|Please add|I need} <bags> checked {bag|bags|luggage}. {What is the fee?|Tell me the fee.}",
        bags=bags,
    )
    if row is None or not talk.agreed(
        "{That adds|I would add} <count> to <reservation> to <destination>. {Shall I?|Should I go ahead?}",
        "",
        "Ask before adding bags.",
        row,
        count=bags,
    ):
        return
    done = talk.call("add_bags", "Add <bags>.", reservation=row["reservation"], bags=bags)
    talk.reply("{Added|Done}: <bags> on <reservation>, {the fee is|fee} $<fee>.", "fee", "Report the fee.", done)


def _ask(talk: Talk) -> None:
    """Where and how long."""
    flight = talk.notes.get("flight") or talk.pick(*sorted(talk.now["flights"]))
    talk.notes["flight"] = flight
    field, ask = talk.pick(("duration", "how many minutes does it take"), ("bag_fee", "what does a checked bag cost"))
    talk.user(f"{{What terminal does|From which terminal does}} <flight> {{leave|go}}, and {ask}?", flight=flight)
    row = talk.call("get_flight", "The details say that.", flight_id=flight)
    end = {"duration": "takes <duration> minutes", "bag_fee": "a bag costs $<bag_fee>"}[field]
    talk.reply(
        f"<flight_id> {{leaves|goes}} from terminal <terminal>, and {end}.", f"terminal {field}", "Answer both.", row
    )


def write(rng: random.Random, engine: Engine, options: Options) -> Talk:
    """One dialogue."""
    talk = Talk(rng, engine, options, box, _ROLE, _RULES)
    return talk.play((_book, _book, _cancel, _move, _bags), (_cancel, _move, _bags, _ask))


DOMAIN = Domain("flight", box, populate, write)
