"""Hotel rooms: search, details, bookings; a guest's budget, and bookings that cannot be cancelled."""

from __future__ import annotations

import random
from typing import Any

from cm2.worlds.domain import Domain, Options
from cm2.worlds.engine import Desk, Engine, Record, Tables, draw_id
from cm2.worlds.full.talk import CITIES, Talk, day, ids, only, people, spoken
from cm2.worlds.toolbox import Toolbox, ToolError

box = Toolbox()
_NAMES = "Sol|Palm Court|Ritz|Star Inn|Lakeside|Park Inn|Crown|Garden House|Harbour|Old Mill"
_EXTRAS = {"pets": "takes pets", "parking": "has parking", "breakfast": "includes breakfast", "pool": "has a pool"}
_ROLE = "{You are the booking assistant of RoomFinder|You help guests of the RoomFinder hotel service}."
_RULES = (
    "{A booking that is not refundable cannot be cancelled|Never cancel a booking that is not refundable}; say so.",
    "{Book nothing above the guest's budget|Respect the guest's budget}.",
)


@box.tool("Hotels in a city that have a free room.", city="string", max_price="integer?")
def search_hotels(desk: Desk, city: str, max_price: int | None = None) -> Any:
    rows = [row for row in desk.where("hotels", city=city) if max_price is None or row["price"] <= max_price]
    return {"hotels": [only(row, "hotel_id", "name", "price", "rating") for row in rows]}


@box.tool("What a hotel offers.", hotel_id="string")
def get_hotel(desk: Desk, hotel_id: str) -> Any:
    return only(desk.find("hotels", hotel_id), "hotel_id", "name", "price", "rating", *_EXTRAS, "check_in")


@box.tool("Book a room for a guest.", hotel_id="string", guest="string", date="date", nights="integer")
def book_hotel(desk: Desk, hotel_id: str, guest: str, date: str, nights: int) -> Any:
    hotel = desk.find("hotels", hotel_id)
    total = hotel["price"] * nights
    record = {"hotel_id": hotel["hotel_id"], "guest": guest, "date": date, "nights": nights, "total": total}
    id = desk.make("bookings", {**record, "refundable": True, "status": "booked"}, "@#@#", "booking_id")
    return {"booking_id": id, "total": total, "check_in": hotel["check_in"]}


@box.tool("Bookings of a guest.", guest="string")
def find_bookings(desk: Desk, guest: str) -> Any:
    return {"bookings": [_shown(desk, row) for row in desk.where("bookings", guest=guest)]}


@box.tool("One booking.", booking_id="string")
def get_booking(desk: Desk, booking_id: str) -> Any:
    return _shown(desk, desk.find("bookings", booking_id))


@box.tool("Change the number of nights of a booking.", booking_id="string", nights="integer")
def update_booking(desk: Desk, booking_id: str, nights: int) -> Any:
    row = _active(desk, booking_id)
    row["nights"], row["total"] = nights, desk.find("hotels", row["hotel_id"])["price"] * nights
    return only(row, "booking_id", "nights", "total")


@box.tool("Cancel a booking.", booking_id="string")
def cancel_booking(desk: Desk, booking_id: str) -> Any:
    row = _active(desk, booking_id)
    row["status"] = "cancelled"
    return {"booking_id": row["booking_id"], "refund": row["total"]}


def _active(desk: Desk, booking_id: str) -> Record:
    row = desk.find("bookings", booking_id)
    if row["status"] == "cancelled":
        raise ToolError(f"booking {row['booking_id']} is cancelled already")
    return row


def _shown(desk: Desk, row: Record) -> Record:
    hotel = desk["hotels"][row["hotel_id"]]
    fields = only(row, "booking_id", "date", "nights", "total", "refundable", "status")
    return {**fields, "hotel": hotel["name"], "city": hotel["city"], "hotel_id": row["hotel_id"]}


def populate(rng: random.Random) -> Tables:
    """Three cities with three to five hotels, and three bookings; two of one guest."""
    tables: Tables = {"hotels": {}, "bookings": {}}
    numbers = iter(ids(rng, "H", 20))
    cities = rng.sample(CITIES, 3)
    for city in cities:
        count = rng.randint(3, 5)
        prices, ratings = rng.sample(range(45, 260), count), rng.sample(range(60, 99), count)
        for name, price, rating in zip(rng.sample(_NAMES.split("|"), count), prices, ratings, strict=True):
            record: Record = {
                "hotel_id": next(numbers),
                "city": city,
                "name": name,
                "price": price,
                "rating": rating / 10,
            }
            record |= {extra: rng.random() < 0.5 for extra in _EXTRAS}
            tables["hotels"][record["hotel_id"]] = {**record, "check_in": f"{rng.randint(13, 16)}:00"}
    guests = people(rng, 2)
    for guest, city, letter in zip((guests[0], *guests), cities, rng.sample("KLMNPR", 3), strict=True):
        hotel = rng.choice([row for row in tables["hotels"].values() if row["city"] == city])
        nights = rng.randint(2, 5)
        record = {"booking_id": letter + draw_id(rng, "#@#"), "hotel_id": hotel["hotel_id"], "guest": guest}
        record |= {"date": day(rng), "nights": nights, "total": hotel["price"] * nights}
        tables["bookings"][record["booking_id"]] = {**record, "refundable": rng.random() < 0.65, "status": "booked"}
    return tables


def _city(talk: Talk) -> list[Record]:
    """The hotels of one city, cheapest first."""
    city = talk.pick(*sorted({row["city"] for row in talk.now["hotels"].values()}))
    return sorted((row for row in talk.now["hotels"].values() if row["city"] == city), key=lambda row: row["price"])


def _extra(talk: Talk, rows: list[Record]) -> str | None:
    """What the first or second of these hotels offers (anything where there are at most two); None if nothing."""
    soon = [extra for extra in _EXTRAS if len(rows) <= 2 or any(row[extra] for row in rows[:2])]
    return talk.pick(*soon) if soon else None


def _book(talk: Talk) -> None:
    """A new booking: the cheapest or best rated, within a budget, perhaps with something the hotel must offer."""
    rows = _city(talk)
    city, date, nights, guest = rows[0]["city"], day(talk.rng), talk.rng.randint(2, 6), people(talk.rng, 1)[0]
    budget = talk.pick(*rows)["price"] + 5 if talk.chance(0.4) else None
    extra = (
        _extra(talk, [row for row in rows if budget is None or row["price"] <= budget]) if talk.chance(0.5) else None
    )
    best = extra is None and talk.chance(0.35)
    which = "{the best rated hotel|the hotel with the highest rating}" if best else "{the cheapest hotel|the cheapest}"
    limit = "{, at most $<budget> a night|, my limit is $<budget> a night}" if budget else ""
    need = f" that {_EXTRAS[extra]}" if extra else ""
    talk.user(
        "{I need a room in|Please find a hotel in|I'm going to|Looking for a place in|We travel to} <city> from <date> "
        "for <nights> nights. {I'd like|Take|Book|I want} "
        + which
        + need
        + limit
        + ". {Name: <guest>|It is for <guest>|Guest name <guest>}.",
        city=city,
        date=spoken(date, talk.rng),
        nights=nights,
        guest=guest,
        budget=budget,
    )
    thought = "{Search the city first|See what there is in <city>}."
    found = talk.call("search_hotels", thought, city=city, max_price=budget)["hotels"]
    found.sort(key=lambda row: -row["rating"] if best else row["price"])
    chosen = None if extra else found[0]
    for row in found if extra else ():
        thought = f"{{Does|See whether}} {row['name']} {{fit|offer it}}: {extra}?"
        if talk.call("get_hotel", thought, hotel_id=row["hotel_id"])[extra]:
            chosen = row
            break
    if chosen is None:
        talk.refuse(
            "{Sorry, there is no hotel|Unfortunately there is no hotel} in <city>"
            + (" for $<budget>" if budget else "")
            + f"{need}, so I {{booked nothing|have not booked anything}}.",
            "",
            "None fits, so book nothing.",
            city=city,
            budget=budget,
        )
        return
    if not talk.agreed(
        "{I found|The one that fits is|I suggest} <name> in <city> at $<price> a night, <nights> nights from <date>. "
        "{Shall I book it?|Should I book that for <guest>?|Do you want me to book it?}",
        "price",
        "<name> fits at <price>; ask before booking.",
        chosen,
        city=city,
        nights=nights,
        date=date,
        guest=guest,
    ):
        return
    thought = f"Book {chosen['name']}, <hotel_id>."
    done = talk.call("book_hotel", thought, hotel_id=chosen["hotel_id"], guest=guest, date=date, nights=nights)
    talk.notes |= {"booking": done["booking_id"], "hotel": chosen["hotel_id"]}
    talk.reply(
        "{Booked|Done|All set}: <name>, <nights> nights from <date>. {Your booking id is|Booking} <booking_id>, "
        "{the total is|total} $<total>.",
        "booking_id total",
        "Report id and total.",
        chosen,
        done,
        nights=nights,
        date=date,
    )


def _too_dear(talk: Talk) -> None:
    """A budget that nothing meets."""
    lowest = _city(talk)[0]
    budget = max(10, lowest["price"] - talk.rng.randint(2, 30))
    talk.user(
        "{Find me|Book me|I need|Can you get me} a room in <city> for $<budget> a night or less"
        "{, from <date>|, starting <date>}. "
        "{If there is none, tell me the lowest price.|If nothing is that cheap, what is the lowest price?}",
        lowest,
        budget=budget,
        date=spoken(day(talk.rng), talk.rng),
    )
    talk.call("search_hotels", "Search within the budget.", city=lowest["city"], max_price=budget)
    talk.call("search_hotels", "Nothing. See the lowest price without the limit.", city=lowest["city"])
    talk.notes["hotel"] = lowest["hotel_id"]
    talk.refuse(
        "{Sorry, nothing in <city> costs $<budget> or less|There is no room in <city> for $<budget>}; "
        "{the lowest price is|the cheapest is} $<price> at <name>.",
        "price",
        "Nothing fits: say so with the lowest price.",
        lowest,
        budget=budget,
    )


def _cancel_which(talk: Talk) -> None:
    """A guest with two bookings wants one cancelled and does not say which."""
    guests = [row["guest"] for row in talk.now["bookings"].values()]
    guest = next(name for name in guests if guests.count(name) == 2)
    talk.user(
        "{Please cancel my booking|I want to cancel my hotel|Cancel my reservation, please}. {I am|My name is} "
        "<guest>.",
        guest=guest,
    )
    first, second = talk.call("find_bookings", "Find the bookings of that guest.", guest=guest)["bookings"]
    talk.reply(
        "{You have two bookings|There are two bookings in your name}: <a> in <city_a> and <b> in <city_b>. "
        "{Which one should I cancel?|Which one do you mean?}",
        "a b",
        "Two match; ask which.",
        asks=True,
        a=first["booking_id"],
        city_a=first["city"],
        b=second["booking_id"],
        city_b=second["city"],
    )
    chosen = talk.pick(first, second)
    talk.user("{The one in <city>|<city>, please|I mean the <city> one|The <city> booking, cancel that one}.", chosen)
    _cancelled(talk, chosen, asked=True)


def _known(talk: Talk) -> str | None:
    """The booking to go on with: this dialogue's, or in an opening any; None where it cannot go on."""
    if talk.opened and not ("booking" in talk.notes and talk.room_to_act()):
        return None
    return talk.notes.get("booking") or talk.pick(*sorted(talk.now["bookings"]))


def _cancel(talk: Talk) -> None:
    """Cancel a booking by its id."""
    id = _known(talk)
    if id is not None:
        wish = "{Please cancel|I have to cancel|Cancel} {my booking|booking|the booking} <id>"
        talk.user(wish + "{.|, thanks.|, something came up.}", id=id)
        _cancelled(talk, talk.call("get_booking", "See whether it may be cancelled.", booking_id=id))


def _cancelled(talk: Talk, row: Record, asked: bool = False) -> None:
    talk.notes.pop("booking", None)
    talk.notes["hotel"] = row["hotel_id"]
    if not row["refundable"]:
        talk.refuse(
            "{I am sorry, booking <booking_id>|Unfortunately booking <booking_id>|Sorry, <booking_id>} is not "
            "refundable, "
            "so {I cannot cancel it|it cannot be cancelled}.",
            "",
            "<booking_id> is not refundable: refuse.",
            row,
        )
    elif asked or talk.agreed(
        "Booking <booking_id> (<hotel>, <date>) {can be cancelled|is refundable}; you would get $<total> back. "
        "{Shall I cancel it?|Do you want me to cancel it?}",
        "total",
        "Refundable; ask before cancelling.",
        row,
    ):
        done = talk.call("cancel_booking", "Refundable, so cancel <booking_id>.", booking_id=row["booking_id"])
        talk.reply(
            "{Cancelled|Done}: <booking_id>{ is cancelled|}. {You get $<refund> back|The refund is $<refund>}.",
            "refund",
            "Report the refund.",
            done,
        )


def _longer(talk: Talk) -> None:
    """Another number of nights."""
    id = _known(talk)
    if id is None:
        return
    old = talk.now["bookings"][id]["nights"]
    nights = talk.pick(*(count for count in range(2, 9) if count != old))
    talk.user(
        "{Change|Please change|I need to change} {booking|my booking} <id> to <nights> nights{ instead of <old>|}. "
        "{What is the new total?|Tell me the new total.}",
        id=id,
        nights=nights,
        old=old,
    )
    row = talk.call("get_booking", "Look at the booking.", booking_id=id)
    talk.notes |= {"hotel": row["hotel_id"], "booking": id}
    if talk.agreed(
        "{I would change <booking_id>|That changes <booking_id>} at <hotel> from <nights> to <new> nights. "
        "{Shall I do it?|Should I go ahead?}",
        "",
        "Ask before changing it.",
        row,
        new=nights,
    ):
        done = talk.call("update_booking", "Set <nights> nights.", booking_id=id, nights=nights)
        talk.reply(
            "{Changed|Done|Updated}: booking <booking_id> is now for <nights> nights, {total|the new total is} "
            "$<total>.",
            "total",
            "Report the new total.",
            done,
        )


def _ask(talk: Talk) -> None:
    """What a hotel is like."""
    if "hotel" not in talk.notes:
        city = _city(talk)[0]["city"]
        talk.user("{What is|Which is|Tell me} the best rated hotel in <city>, and when is check-in?", city=city)
        rows = talk.call("search_hotels", "Search the city.", city=city)["hotels"]
        best = max(rows, key=lambda row: row["rating"])
        hotel = talk.call("get_hotel", f"{best['name']} is best rated; get its details.", hotel_id=best["hotel_id"])
        talk.notes["hotel"] = best["hotel_id"]
        text = "{The best rated is|That is} <name> ({rated|rating} <rating>), check-in from <check_in>."
        talk.reply(text, "name check_in", "Answer.", hotel)
        return
    more = talk.pick("price", "rating")
    ask = {"price": "what does a night cost", "rating": "how is it rated"}[more]
    talk.user(f"{{When is|What time is|From when is}} check-in {{there|at that hotel}}, and {ask}?")
    hotel = talk.call("get_hotel", "The details say that.", hotel_id=talk.notes["hotel"])
    end = {"price": "a night costs $<price>", "rating": "it is rated <rating>"}[more]
    text = f"{{Check-in is|You can check in}} from <check_in>, and {end}."
    talk.reply(text, f"check_in {more}", "Answer with both.", hotel)


def write(rng: random.Random, engine: Engine, options: Options) -> Talk:
    """One dialogue."""
    talk = Talk(rng, engine, options, box, _ROLE, _RULES)
    return talk.play((_book, _book, _book, _too_dear, _cancel_which, _cancel, _longer), (_cancel, _longer, _ask))


DOMAIN = Domain("hotel", box, populate, write)
