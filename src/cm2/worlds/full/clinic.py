"""A clinic: doctors, free slots, appointments and test results of identified patients. Never trained on."""

from __future__ import annotations

import random
from typing import Any

from cm2.worlds.domain import Domain, Options
from cm2.worlds.engine import Desk, Engine, Record, Tables, draw_id
from cm2.worlds.full.talk import LAST_NAMES, Talk, clock, day, ids, only, people
from cm2.worlds.toolbox import Toolbox, ToolError

box = Toolbox()
_FIELDS = ("dermatology", "cardiology", "dental", "eye")
_TESTS = ("iron", "glucose", "vitamin D", "cholesterol")
_ROLE = "{You are the receptionist of the Lakeside Clinic|You work at the front desk of the Lakeside Clinic}."
_RULES = (
    "{Identify patients by name and file number before you touch appointments or results"
    "|No appointment and no result without name and file number}; {refuse if they do not match|no match, no help}.",
    "{Results that are not released must not be told|Tell no result that is not released yet}; say that the doctor "
    "will call.",
    "{A patient may have one open appointment in a field|Only one open appointment per field and patient}.",
)


@box.tool("Check a patient's name and file number.", name="string", file_number="string")
def check_identity(desk: Desk, name: str, file_number: str) -> Any:
    found = desk.where("files", name=name, file_number=file_number)
    if not found:
        raise ToolError("name and file number do not match")
    return only(found[0], "person_id", "name")


@box.tool("Doctors of a field.", field="dermatology|cardiology|dental|eye")
def find_doctors(desk: Desk, field: str) -> Any:
    return {"doctors": [only(row, "doctor_id", "name", "room", "fee") for row in desk.where("doctors", field=field)]}


@box.tool("Free slots of a doctor.", doctor_id="string")
def view_slots(desk: Desk, doctor_id: str) -> Any:
    rows = desk.where("slots", doctor_id=desk.find("doctors", doctor_id)["doctor_id"])
    return {"slots": [only(row, "slot_id", "date", "time") for row in rows if row["free"]]}


@box.tool("Open appointments of a patient.", person_id="string")
def list_appointments(desk: Desk, person_id: str) -> Any:
    rows = desk.where("appointments", person_id=desk.find("files", person_id)["person_id"], status="open")
    return {"appointments": [_shown(desk, row) for row in rows]}


@box.tool("Make an appointment.", person_id="string", slot_id="string")
def schedule_appointment(desk: Desk, person_id: str, slot_id: str) -> Any:
    person, slot = desk.find("files", person_id), _free(desk, slot_id)
    slot["free"] = False
    record = {"person_id": person["person_id"], "slot_id": slot["slot_id"], "status": "open"}
    id = desk.make("appointments", record, "@#@#", "appointment")
    return _shown(desk, desk["appointments"][id])


@box.tool("Move an appointment to another slot.", appointment="string", slot_id="string")
def move_appointment(desk: Desk, appointment: str, slot_id: str) -> Any:
    row, slot = desk.find("appointments", appointment), _free(desk, slot_id)
    desk["slots"][row["slot_id"]]["free"], slot["free"] = True, False
    row["slot_id"] = slot["slot_id"]
    return _shown(desk, row)


@box.tool("Call off an appointment.", appointment="string")
def cancel_appointment(desk: Desk, appointment: str) -> Any:
    row = desk.find("appointments", appointment)
    if row["status"] != "open":
        raise ToolError(f"{row['appointment']} is {row['status']}")
    row["status"] = "cancelled"
    desk["slots"][row["slot_id"]]["free"] = True
    return only(row, "appointment", "status")


@box.tool("Test results of a patient.", person_id="string")
def view_results(desk: Desk, person_id: str) -> Any:
    rows = desk.where("results", person_id=desk.find("files", person_id)["person_id"])
    return {"results": [only(row, "test", "value", "unit", "released") for row in rows]}


def _free(desk: Desk, slot_id: str) -> Record:
    slot = desk.find("slots", slot_id)
    if not slot["free"]:
        raise ToolError(f"{slot['slot_id']} is taken")
    return slot


def _shown(desk: Desk, row: Record) -> Record:
    slot = desk["slots"][row["slot_id"]]
    doctor = desk["doctors"][slot["doctor_id"]]
    where = {
        "doctor": doctor["name"],
        "doctor_id": doctor["doctor_id"],
        "field": doctor["field"],
        "room": doctor["room"],
    }
    return {"appointment": row["appointment"], **only(slot, "date", "time"), **where}


def populate(rng: random.Random) -> Tables:
    """Two fields with two doctors each, their slots, and two patients with results and an appointment."""
    tables: Tables = {name: {} for name in ("files", "doctors", "slots", "appointments", "results")}
    names, doctors, slots = iter(rng.sample(LAST_NAMES, 4)), iter(ids(rng, "D", 4)), iter(ids(rng, "S", 20))
    for field in rng.sample(_FIELDS, 2):
        for fee in rng.sample(range(20, 150), 2):
            doctor: Record = {"doctor_id": next(doctors), "name": f"Dr {next(names)}", "field": field, "fee": fee}
            tables["doctors"][doctor["doctor_id"]] = {**doctor, "room": draw_id(rng, "@##")}
            days = iter(sorted({day(rng, 1, 30) for _ in range(5)}))
            for date in days:
                slot: Record = {
                    "slot_id": next(slots),
                    "doctor_id": doctor["doctor_id"],
                    "date": date,
                    "time": clock(rng, 8, 17),
                }
                tables["slots"][slot["slot_id"]] = {**slot, "free": True}
    for name, id in zip(people(rng, 2), ids(rng, "P", 2), strict=True):
        tables["files"][id] = {"person_id": id, "name": name, "file_number": str(rng.randint(10000, 99999))}
        for test in rng.sample(_TESTS, 3):
            record: Record = {
                "person_id": id,
                "test": test,
                "value": rng.randint(20, 240),
                "unit": "mg",
                "released": rng.random() < 0.7,
            }
            tables["results"][f"{id} {test}"] = record
        taken = rng.choice(sorted(key for key, row in tables["slots"].items() if row["free"]))
        tables["slots"][taken]["free"] = False
        code = draw_id(rng, "@#@#")
        tables["appointments"][code] = {"appointment": code, "person_id": id, "slot_id": taken, "status": "open"}
    return tables


def _known(talk: Talk, wish: str, **values: Any) -> str | None:
    """The identified patient's id after a wish was said; None where there is none, or no room."""
    if talk.opened:
        if "who" not in talk.notes or not talk.room_to_act():
            return None
        talk.user(wish, **values)
        return talk.notes["who"]["person_id"]
    person = talk.pick(*talk.now["files"].values())
    return person["person_id"] if talk.identified(wish, person, "check_identity", "file_number", **values) else None


def _book(talk: Talk) -> None:
    """The earliest slot with the cheapest doctor of a field, or with a doctor by name."""
    doctor = talk.pick(*talk.now["doctors"].values())
    by_name = talk.chance(0.5)
    who = "<doctor>{ in|,} <field>" if by_name else "the cheapest <field> doctor"
    last = talk.chance(0.3)
    when = "latest" if last else "earliest"
    wish = (
        f"{{I need|Please make me|Book me|I'd like}} {{an appointment|a visit}} with {who}, the {when} slot{{.| "
        "you have.}}"
    )
    id = _known(talk, wish, doctor=doctor["name"], field=doctor["field"])
    if id is None:
        return
    listed, offered = talk.together(
        "One per field: see what is open, and the doctors.",
        ("list_appointments", {"person_id": id}),
        ("find_doctors", {"field": doctor["field"]}),
    )
    open_ones, found = listed["appointments"], offered["doctors"]
    same = next((row for row in open_ones if row["field"] == doctor["field"]), None)
    if same:
        talk.refuse(
            "{Sorry|I am sorry|Unfortunately}, you have an open <field> appointment, <appointment> on <date>, so I "
            "{cannot|may not} book another.",
            "appointment date",
            "One in <field> is open: refuse.",
            same,
        )
        return
    chosen = (
        next(row for row in found if row["name"] == doctor["name"])
        if by_name
        else min(found, key=lambda row: row["fee"])
    )
    slots = talk.call("view_slots", f"{chosen['name']} it is; see the slots.", doctor_id=chosen["doctor_id"])["slots"]
    slot = (max if last else min)(slots, key=lambda row: (row["date"], row["time"]))
    if talk.agreed(
        "{That is|I can offer|The <when> is} <date> at <time> with <name>, fee $<fee>. {Shall I book it?|Should I "
        "take it?}",
        "date time fee",
        "<slot_id> fits; ask first.",
        chosen,
        slot,
        when=when,
    ):
        done = talk.call("schedule_appointment", "Book <slot_id>.", person_id=id, slot_id=slot["slot_id"])
        text = "{Booked|Done}: <appointment>, <date> at <time> with <doctor>, room <room>."
        talk.reply(text, "appointment date time room", "Report it all.", done)


def _mine(talk: Talk, wish: str) -> Record | None:
    """The patient's appointment that a wish is about: the one in a field."""
    if talk.opened and ("who" not in talk.notes or not talk.room_to_act()):
        return None
    rows = [row for row in talk.now["appointments"].values() if row["status"] == "open"]
    if talk.opened:
        rows = [row for row in rows if row["person_id"] == talk.notes["who"]["person_id"]]
    if not rows:
        return None
    row = talk.pick(*rows)
    field = talk.now["doctors"][talk.now["slots"][row["slot_id"]]["doctor_id"]]["field"]
    if talk.opened:
        talk.user(wish, field=field)
    elif not talk.identified(wish, talk.now["files"][row["person_id"]], "check_identity", "file_number", field=field):
        return None
    found = talk.call("list_appointments", "Find the appointment.", person_id=row["person_id"])["appointments"]
    return next(one for one in found if one["field"] == field)


def _move(talk: Talk) -> None:
    """The doctor's earliest or latest other slot."""
    when, best = talk.pick(("earliest", min), ("latest", max))
    row = _mine(
        talk, f"{{Please move|Can you move|I have to move}} my <field> appointment to the doctor's {when} free slot."
    )
    if row is None:
        return
    slots = talk.call("view_slots", "See the doctor's slots.", doctor_id=row["doctor_id"])["slots"]
    slot = best(slots, key=lambda one: (one["date"], one["time"]))
    new = {"new_date": slot["date"], "new_time": slot["time"]}
    if talk.agreed(
        "{I would move|That moves} <appointment> to <new_date> at <new_time>. {Shall I?|Is that fine?}",
        "new_date new_time",
        "",
        row,
        new,
    ):
        done = talk.call(
            "move_appointment", "Move it to <slot_id>.", appointment=row["appointment"], slot_id=slot["slot_id"]
        )
        talk.reply(
            "{Moved|Done}: <appointment> is on <date> at <time>{ now|}.", "date time", "Report date and time.", done
        )


def _cancel(talk: Talk) -> None:
    """Call one off."""
    row = _mine(talk, "{Cancel|Please cancel|I can't make it, cancel} my <field> appointment{.|, please.}")
    if row is not None and talk.agreed(
        "{I would cancel|That cancels} <appointment> on <date>. {Shall I?|Should I?}", "date", "", row
    ):
        done = talk.call("cancel_appointment", "Cancel <appointment>.", appointment=row["appointment"])
        talk.reply("{Cancelled|Done}: <appointment>{ is cancelled|}.", "appointment", "Tell them.", done)


def _result(talk: Talk) -> None:
    """A test result, if it is released."""
    test = talk.pick(*_TESTS)
    id = _known(talk, "{What is|Tell me|Do you have} my <test> result{?| please?}", test=test)
    if id is None:
        return
    rows = talk.call("view_results", "See the results.", person_id=id)["results"]
    row = next((one for one in rows if one["test"] == test), None)
    if row is None:
        talk.refuse(
            "{Sorry|I am sorry}, there is no <test> result {on file|in your file}.", "", "No such test.", test=test
        )
    elif not row["released"]:
        text = (
            "{Sorry|I am sorry}, your <test> result is not released yet; {the doctor will call you|your doctor "
            "will call}."
        )
        talk.refuse(text, "", "Not released: do not tell.", row)
    else:
        talk.reply("Your <test> {result|value} is <value> <unit>.", "value", "Released: tell it.", row)


def _fee(talk: Talk) -> None:
    """A question that needs no file."""
    field = talk.pick(*sorted({row["field"] for row in talk.now["doctors"].values()}))
    talk.user("{Who is|Which is} your cheapest <field> doctor, and what is the fee?", field=field)
    rows = talk.call("find_doctors", "Find the <field> doctors.", field=field)["doctors"]
    talk.reply(
        "{The cheapest is|That is} <name>, {fee|for} $<fee>.",
        "name fee",
        "Answer both.",
        min(rows, key=lambda row: row["fee"]),
    )


def write(rng: random.Random, engine: Engine, options: Options) -> Talk:
    """One dialogue."""
    talk = Talk(rng, engine, options, box, _ROLE, _RULES)
    return talk.play((_book, _book, _move, _cancel, _result), (_book, _move, _cancel, _result, _fee))


DOMAIN = Domain("clinic", box, populate, write)
