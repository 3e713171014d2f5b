"""A pharmacy: prescriptions of verified patients, refills, stock and interactions."""

from __future__ import annotations

import random
from typing import Any

from cm2.worlds.domain import Domain, Options
from cm2.worlds.engine import Desk, Engine, Record, Tables
from cm2.worlds.full.talk import Talk, clock, ids, only, people
from cm2.worlds.toolbox import Toolbox, ToolError

box = Toolbox()
_DRUGS = "Amixin Betadol Corvan Dexilor Lipex Nexor Oridin Pravel Tramil Velox Zoral Ulmex".split()  # noqa: SIM905
_ROLE = "{You are the assistant of the Green Cross pharmacy|You answer patients of the pharmacy Green Cross}."
_RULES = (
    "{Verify the patient's name and PIN before you look at or change prescriptions"
    "|No account action without verification by name and PIN}; {refuse if they do not match|without a match, refuse}.",
    "{A prescription without refills left must not be refilled: the doctor has to renew it"
    "|Refill nothing that has 0 refills left; send the patient to the doctor}.",
)


@box.tool("Check a patient's name and PIN.", name="string", pin="string")
def verify_patient(desk: Desk, name: str, pin: str) -> Any:
    found = desk.where("patients", name=name, pin=pin)
    if not found:
        raise ToolError("name and PIN do not match")
    return only(found[0], "patient_id", "name")


@box.tool("Prescriptions of a patient.", patient_id="string")
def get_prescriptions(desk: Desk, patient_id: str) -> Any:
    patient = desk.find("patients", patient_id)["patient_id"]
    rows = desk.where("prescriptions", patient_id=patient)
    return {"prescriptions": [only(row, "rx_id", "drug", "dose", "refills_left", "price") for row in rows]}


@box.tool("Refill a prescription for pick-up.", rx_id="string")
def refill_prescription(desk: Desk, rx_id: str) -> Any:
    row = desk.find("prescriptions", rx_id)
    if row["refills_left"] < 1:
        raise ToolError(f"{row['rx_id']} has no refills left")
    row["refills_left"] -= 1
    order = {"rx_id": row["rx_id"], "price": row["price"], "ready": row["ready"], "delivery": "no", "status": "ordered"}
    return {"order_id": desk.make("orders", order, "@##@", "order_id"), **only(row, "price", "ready", "refills_left")}


@box.tool("An order.", order_id="string")
def get_order(desk: Desk, order_id: str) -> Any:
    return dict(desk.find("orders", order_id))


@box.tool("Have an order delivered instead of picked up.", order_id="string", slot="morning|afternoon|evening")
def update_delivery(desk: Desk, order_id: str, slot: str) -> Any:
    row = desk.find("orders", order_id)
    row["delivery"] = slot
    return {"order_id": row["order_id"], "delivery": slot, "fee": desk["shop"]["main"]["fee"]}


@box.tool("Cancel an order.", order_id="string")
def cancel_order(desk: Desk, order_id: str) -> Any:
    row = desk.find("orders", order_id)
    if row["status"] == "cancelled":
        raise ToolError(f"{row['order_id']} is cancelled already")
    row["status"] = "cancelled"
    desk["prescriptions"][row["rx_id"]]["refills_left"] += 1
    return {"order_id": row["order_id"], "refund": row["price"]}


@box.tool("Whether two drugs may be taken together.", drug="string", other="string")
def check_interaction(desk: Desk, drug: str, other: str) -> Any:
    first, second = desk.find("drugs", drug.capitalize()), desk.find("drugs", other.capitalize())
    return {"drugs": [first["drug"], second["drug"]], "risk": "high" if first["group"] == second["group"] else "none"}


@box.tool("Opening hours and phone number.")
def get_shop_info(desk: Desk) -> Any:
    return only(desk["shop"]["main"], "opens", "closes", "phone")


def populate(rng: random.Random) -> Tables:
    """Three patients with two to four prescriptions each."""
    tables: Tables = {"patients": {}, "prescriptions": {}, "orders": {}, "drugs": {}, "shop": {}}
    tables["drugs"] = {drug: {"drug": drug, "group": rng.randint(1, 4)} for drug in _DRUGS}
    numbers = iter(ids(rng, "RX", 12))
    for name, id in zip(people(rng, 3), ids(rng, "P", 3), strict=True):
        tables["patients"][id] = {"patient_id": id, "name": name, "pin": str(rng.randint(1000, 9999))}
        for drug in rng.sample(_DRUGS, rng.randint(2, 4)):
            record: Record = {
                "rx_id": next(numbers),
                "patient_id": id,
                "drug": drug,
                "dose": f"{rng.choice((5, 10, 20, 50))} mg",
            }
            record |= {
                "refills_left": rng.choice((0, 1, 2, 3, 4)),
                "price": rng.randint(4, 60),
                "ready": clock(rng, 9, 18),
            }
            tables["prescriptions"][record["rx_id"]] = record
    shop: Record = {
        "opens": f"0{rng.randint(7, 9)}:00",
        "closes": f"{rng.randint(17, 21)}:30",
        "fee": rng.randint(2, 9),
    }
    tables["shop"]["main"] = {**shop, "phone": f"555-0{rng.randint(100, 199)}"}
    return tables


def _mine(talk: Talk, person: Record) -> list[Record]:
    rows = talk.now["prescriptions"].values()
    return [row for row in rows if row["patient_id"] == person["patient_id"]]


def _refill(talk: Talk) -> None:
    """A refill, by name; what has no refills left is refused."""
    person = talk.pick(*talk.now["patients"].values())
    drug = talk.pick(*_mine(talk, person))["drug"]
    wish = "{I need a refill of|I'd like to refill|Please refill|I am out of my} <drug>{.|, please.}"
    if not talk.identified(wish, person, "verify_patient", "pin", drug=drug):
        return
    thought = f"{{See the prescriptions|Find {drug}}}."
    found = talk.call("get_prescriptions", thought, patient_id=talk.notes["who"]["patient_id"])["prescriptions"]
    row = next(one for one in found if one["drug"] == drug)
    _order(talk, row)


def _order(talk: Talk, row: Record) -> None:
    if row["refills_left"] < 1:
        talk.refuse(
            "{Sorry|I am sorry|Unfortunately}, <drug> has no refills left, so I {cannot refill it|am not able to "
            "refill it}. "
            "{Your doctor has to renew it|Please ask your doctor for a new prescription}.",
            "",
            "0 refills of <drug>: refuse.",
            row,
        )
        return
    if not talk.agreed(
        "{I can refill|That is} <drug> <dose> (<rx_id>) for $<price>, <refills_left> refills left. {Shall I order "
        "it?|Should I do it?}",
        "price",
        "<drug> has refills; ask first.",
        row,
    ):
        return
    done = talk.call("refill_prescription", f"Refill {row['drug']}, <rx_id>.", rx_id=row["rx_id"])
    talk.notes["order"] = done["order_id"]
    talk.reply(
        "{Ordered|Done|All set}: <drug>. {Your order is|Order} <order_id>, {it costs|price} $<price>, ready at "
        "<ready>.",
        "order_id price ready",
        "Report order, price and time.",
        row,
        done,
    )


def _left(talk: Talk) -> None:
    """How many refills are left, and then perhaps one of them."""
    person = talk.pick(*talk.now["patients"].values())
    row = talk.pick(*_mine(talk, person))
    wish = (
        "{How many refills do I have left for <drug>, and what does it cost|How often can I still refill <drug>, "
        "and at what price}?"
    )
    if not talk.identified(wish, person, "verify_patient", "pin", drug=row["drug"]):
        return
    found = talk.call("get_prescriptions", "See the prescriptions.", patient_id=talk.notes["who"]["patient_id"])
    row = next(one for one in found["prescriptions"] if one["drug"] == row["drug"])
    text = (
        "{You have <refills_left> refills left for|There are <refills_left> refills left of} <drug>{; it costs|, "
        "price} $<price>."
    )
    talk.reply(text, "refills_left price", "Answer.", row)
    if talk.room_to_act():
        talk.user("{Then refill it, please|OK, order one|Please refill it now}.")
        _order(talk, row)


def _deliver(talk: Talk) -> None:
    """Delivery instead of pick-up."""
    if "order" not in talk.notes or not talk.room_to_act():
        return
    slot = talk.pick("morning", "afternoon", "evening")
    talk.user(
        "{Can you deliver it|Please bring it to me|I'd rather have it delivered} in the <slot>{? What does that "
        "cost?|. What is the fee?}",
        slot=slot,
    )
    if talk.agreed(
        "{I would set|That sets} order <id> to <slot> delivery. {Shall I?|OK?}",
        "",
        "",
        id=talk.notes["order"],
        slot=slot,
    ):
        done = talk.call("update_delivery", "Set <slot> delivery.", order_id=talk.notes["order"], slot=slot)
        talk.reply(
            "{Done|Set}: <delivery> delivery for <order_id>, {the fee is|fee} $<fee>.", "fee", "Report the fee.", done
        )


def _cancel(talk: Talk) -> None:
    """Cancel the order."""
    if "order" not in talk.notes or not talk.room_to_act():
        return
    id = talk.notes.pop("order")
    talk.user("{I don't need it after all, cancel the order|Please cancel that order|Cancel <id>}{.|, please.}", id=id)
    order = talk.call("get_order", "Look at the order.", order_id=id)
    if talk.agreed(
        "{I would cancel|That cancels} <order_id> and refund $<price>. {Shall I?|Should I?}", "price", "", order
    ):
        done = talk.call("cancel_order", "Cancel <order_id>.", order_id=id)
        talk.reply(
            "{Cancelled|Done}: <order_id>, {refund|you get back} $<refund>.", "refund", "Report the refund.", done
        )


def _together(talk: Talk) -> None:
    """A question that needs no account."""
    drug, other = talk.rng.sample(_DRUGS, 2)
    talk.user(
        "{Can I take|Is it safe to take|May I combine} <drug> {and|with} <other>{ together|}?", drug=drug, other=other
    )
    found = talk.call("check_interaction", "Check both drugs.", drug=drug, other=other)
    text = {"high": "{The risk is high|There is a high risk}: {do not|please don't} take <a> with <b>."}.get(
        found["risk"], "{The risk is none|There is none, risk: none}: you can take <a> with <b>."
    )
    talk.reply(text, "risk", "Answer with the risk.", found, a=drug, b=other)


def _hours(talk: Talk) -> None:
    """Opening hours."""
    talk.user("{When do you close|Until when are you open} today, and what is your {phone number|number}?")
    info = talk.call("get_shop_info", "Look up the hours.")
    text = "{We close at|We are open until} <closes>; {call|the number is} <phone>."
    talk.reply(text, "closes phone", "Answer both.", info)


def write(rng: random.Random, engine: Engine, options: Options) -> Talk:
    """One dialogue."""
    talk = Talk(rng, engine, options, box, _ROLE, _RULES)
    return talk.play((_refill, _refill, _left), (_deliver, _cancel, _together, _hours))


DOMAIN = Domain("pharmacy", box, populate, write)
