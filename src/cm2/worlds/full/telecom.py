"""A phone company: lines, plans, data packs, outages of verified customers; contracts that bind, bills that block."""

from __future__ import annotations

import random
from typing import Any

from cm2.worlds.domain import Domain, Options
from cm2.worlds.engine import Desk, Engine, Record, Tables
from cm2.worlds.full.talk import CITIES, Talk, clock, day, ids, only, people
from cm2.worlds.toolbox import Toolbox, ToolError

box = Toolbox()
_PLANS = ("Basic", "Easy", "Plus", "Family", "Max")
_ROLE = "{You are the assistant of the phone company Telvia|You help customers of Telvia}."
_RULES = (
    "{Verify the customer's name and PIN before you open or change a line|Nothing about a line before name and PIN "
    "are verified}.",
    "{A line with an unpaid bill gets no new plan and no data pack|No plan switch and no pack while a bill is "
    "unpaid}; say so.",
    "{A line may go to a cheaper plan only after its contract has ended|No cheaper plan while the contract binds}.",
)


@box.tool("Check a customer's name and PIN.", name="string", pin="string")
def verify_caller(desk: Desk, name: str, pin: str) -> Any:
    found = desk.where("callers", name=name, pin=pin)
    if not found:
        raise ToolError("name and PIN do not match")
    return only(found[0], "caller_id", "name")


@box.tool("Lines of a customer.", caller_id="string")
def get_lines(desk: Desk, caller_id: str) -> Any:
    rows = desk.where("lines", caller_id=desk.find("callers", caller_id)["caller_id"])
    return {"lines": [only(row, "line_id", "number", "plan", "unpaid", "bound") for row in rows]}


@box.tool("Data used and left on a line.", line_id="string")
def get_usage(desk: Desk, line_id: str) -> Any:
    return only(desk.find("lines", line_id), "line_id", "used_gb", "left_gb", "resets")


@box.tool("Plans on offer.")
def search_plans(desk: Desk) -> Any:
    return {"plans": [only(row, "plan_id", "name", "gb", "price") for _, row in sorted(desk["plans"].items())]}


@box.tool("Switch a line to a plan.", line_id="string", plan_id="string")
def switch_plan(desk: Desk, line_id: str, plan_id: str) -> Any:
    line, plan = desk.find("lines", line_id), desk.find("plans", plan_id)
    line["plan"] = plan["name"]
    return {"line_id": line["line_id"], "plan": plan["name"], "price": plan["price"], "from": line["resets"]}


@box.tool("Add a one-off data pack to a line.", line_id="string", gb="integer")
def add_data_pack(desk: Desk, line_id: str, gb: int) -> Any:
    line = desk.find("lines", line_id)
    price = gb * desk["rates"]["pack"]["per_gb"]
    line["left_gb"] += gb
    code = desk.make("packs", {"line_id": line["line_id"], "gb": gb, "price": price}, "@#@", "pack_code")
    return {"pack_code": code, "price": price, "left_gb": line["left_gb"]}


@box.tool("Pay the open bill of a line.", line_id="string")
def pay_open_bill(desk: Desk, line_id: str) -> Any:
    line = desk.find("lines", line_id)
    if not line["unpaid"]:
        raise ToolError(f"{line['line_id']} has no open bill")
    paid, line["unpaid"] = line["unpaid"], 0
    return {
        "receipt": desk.make("receipts", {"line_id": line["line_id"], "paid": paid}, "@##", "receipt"),
        "paid": paid,
    }


@box.tool("Outages in a city.", city="string")
def check_outage(desk: Desk, city: str) -> Any:
    rows = desk.where("outages", city=city)
    return {"outages": [only(row, "area", "fixed_by") for row in rows]}


def populate(rng: random.Random) -> Tables:
    """Five plans, two customers with one or two lines, and two outages."""
    tables: Tables = {name: {} for name in ("callers", "lines", "plans", "packs", "receipts", "outages", "rates")}
    prices, sizes = sorted(rng.sample(range(8, 70), 5)), sorted(rng.sample(range(2, 60), 5))
    for id, name, gb, price in zip(ids(rng, "PL", 5, 2), _PLANS, sizes, prices, strict=True):
        tables["plans"][id] = {"plan_id": id, "name": name, "gb": gb, "price": price}
    lines = iter(ids(rng, "N", 4))
    for name, id in zip(people(rng, 2), ids(rng, "C", 2), strict=True):
        tables["callers"][id] = {"caller_id": id, "name": name, "pin": str(rng.randint(1000, 9999))}
        for _ in range(rng.randint(1, 2)):
            unpaid = rng.choice((0, 0, 0, 0, rng.randint(12, 90)))
            record: Record = {"line_id": next(lines), "caller_id": id, "number": f"555-{rng.randint(1000, 9999)}"}
            record |= {"plan": rng.choice(_PLANS), "unpaid": unpaid, "bound": rng.random() < 0.3}
            record |= {"used_gb": rng.randint(1, 30), "left_gb": rng.randint(0, 12), "resets": day(rng, 3, 28)}
            tables["lines"][record["line_id"]] = record
    for city in rng.sample(CITIES, 2):
        tables["outages"][city] = {
            "city": city,
            "area": rng.choice(("north", "south", "centre")),
            "fixed_by": clock(rng),
        }
    tables["rates"]["pack"] = {"per_gb": rng.randint(1, 4)}
    return tables


def _line(talk: Talk, wish: str, unpaid: bool = False, **values: Any) -> Record | None:
    """The line that the wish is about, looked up after verification; with several lines the wish names its number.

    With `unpaid` it is one with an open bill, where there is one.
    """
    if talk.opened:
        if "line" not in talk.notes or not talk.room_to_act():
            return None
        line = talk.notes["line"]
        talk.user(wish, number=line["number"], **values)
    else:
        lines = list(talk.now["lines"].values())
        line = talk.pick(*([row for row in lines if row["unpaid"]] if unpaid else []) or lines)
        person = talk.now["callers"][line["caller_id"]]
        if not talk.identified(wish, person, "verify_caller", "pin", number=line["number"], **values):
            return None
    found = talk.call("get_lines", "See the lines.", caller_id=talk.notes["who"]["caller_id"])["lines"]
    talk.notes["line"] = next(row for row in found if row["number"] == line["number"])
    return talk.notes["line"]


def _unpaid(talk: Talk, row: Record) -> bool:
    if row["unpaid"]:
        talk.refuse(
            "{Sorry|I am sorry|Unfortunately}, {line <number> has|there is} an unpaid bill of $<unpaid>, so I "
            "{cannot do that|am not able to do that} yet.",
            "unpaid",
            "<unpaid> unpaid: the rules say no.",
            row,
        )
    return bool(row["unpaid"])


def _switch(talk: Talk) -> None:
    """Another plan: the cheapest with enough data, or one by name."""
    need = talk.pick(*(row["gb"] for row in talk.now["plans"].values()))
    wish, name = (
        "{Switch|Please switch|Move|Change} line <number> to the cheapest plan with at least <gb> GB{.|, please.}",
        None,
    )
    if talk.chance(0.5):
        name = talk.pick(*_PLANS)
        wish = "{Switch|Please switch|Move|Put} line <number> {to|on} the <plan> plan{.|, please.}"
    row = _line(talk, wish, gb=need, plan=name)
    if row is None or _unpaid(talk, row):
        return
    plans = talk.call("search_plans", "See the plans.")["plans"]
    old = next(plan for plan in plans if plan["name"] == row["plan"])
    fitting = [plan for plan in plans if (plan["name"] == name if name else plan["gb"] >= need)]
    new = min(fitting, key=lambda plan: plan["price"])
    if new["name"] == old["name"]:
        text = "{Line <number> is|You are} on the <plan> plan already, so {nothing changes|I did not change anything}."
        talk.refuse(text, "plan", "It has that plan already.", row)
    elif row["bound"] and new["price"] < old["price"]:
        talk.refuse(
            "{Sorry|I am sorry|Unfortunately}, the contract of <number> still binds, so I {cannot|am not able to} "
            "switch it to <name>, which is cheaper.",
            "",
            "Bound, and <name> is cheaper: refuse.",
            row,
            new,
        )
    elif talk.agreed(
        "{That is|It would be} <name> with <gb> GB for $<price> a month. {Shall I switch <number>?|Should I switch "
        "it?}",
        "name price",
        "<name> fits; ask first.",
        row,
        new,
    ):
        arguments = {"line_id": row["line_id"], "plan_id": new["plan_id"]}
        done = talk.call("switch_plan", f"Switch to {new['name']}.", **arguments)
        text = "{Switched|Done}: <number> is on <plan> for $<price>, {from|starting} <from>."
        talk.reply(text, "plan price from", "Report plan, price, date.", row, done)


def _pack(talk: Talk) -> None:
    """A data pack."""
    gb = talk.rng.randint(1, 9)
    wish = (
        "{Add|Please add|I need} <gb> GB {of data |}{to|on} line <number>. {How much is left then?|How much do I "
        "have then?}"
    )
    row = _line(talk, wish, gb=gb)
    if row is None or _unpaid(talk, row):
        return
    if talk.agreed("{I would add|That adds} <gb> GB to <number>. {Shall I?|OK?}", "", "", row, gb=gb):
        done = talk.call("add_data_pack", "Add <gb> GB.", line_id=row["line_id"], gb=gb)
        text = "{Added|Done}: pack <pack_code> for $<price>; {you have|there are} <left_gb> GB left."
        talk.reply(text, "pack_code price left_gb", "Report code, price, data.", done)


def _pay(talk: Talk) -> None:
    """Pay the open bill; there may be none."""
    if talk.opened and not ("line" in talk.notes and talk.notes["line"]["unpaid"]):
        return
    row = _line(talk, "{Pay|Please pay|I want to pay} the open bill {of|for} line <number>{.|, please.}", unpaid=True)
    if row is None:
        return
    if not row["unpaid"]:
        talk.refuse(
            "{There is no open bill|No bill is open} for <number>, so {nothing was paid|I charged nothing}.",
            "",
            "Nothing to pay.",
            row,
        )
    elif talk.agreed(
        "{The bill is|That is} $<unpaid> for <number>. {Shall I charge it?|Pay it now?}", "unpaid", "", row
    ):
        done = talk.call("pay_open_bill", "Pay the bill.", line_id=row["line_id"])
        talk.reply("{Paid|Done}: $<paid>, receipt <receipt>.", "paid receipt", "Report amount and receipt.", done)


def _usage(talk: Talk) -> None:
    """Data left and when it resets."""
    row = _line(talk, "{How much data is left|How many GB are left} on line <number>, and when does it reset?")
    if row is not None:
        usage = talk.call("get_usage", "Look up its usage.", line_id=row["line_id"])
        talk.reply(
            "{You have|There are} <left_gb> GB left{, and it resets on|; it resets on} <resets>.",
            "left_gb resets",
            "Answer both.",
            usage,
        )


def _outage(talk: Talk) -> None:
    """A question that needs no account."""
    city = talk.pick(*talk.now["outages"]) if talk.chance(0.85) else talk.pick(*CITIES)
    talk.user(
        "{Is there an outage in|Is the network down in|My phone has no signal in} <city>{? When is it fixed?|, and "
        "when is it fixed?}",
        city=city,
    )
    found = talk.call("check_outage", "Check <city>.", city=city)["outages"]
    if found:
        talk.reply(
            "{Yes|There is}: an outage in the <area>, {fixed by|it should be fixed by} <fixed_by>.",
            "area fixed_by",
            "Answer.",
            found[0],
        )
    else:
        talk.refuse("{No, there is no outage|There is no known outage} in <city>.", "", "None known.", city=city)


def write(rng: random.Random, engine: Engine, options: Options) -> Talk:
    """One dialogue."""
    talk = Talk(rng, engine, options, box, _ROLE, _RULES)
    return talk.play((_switch, _switch, _pack, _pay, _usage), (_switch, _pack, _pay, _usage, _outage))


DOMAIN = Domain("telecom", box, populate, write)
