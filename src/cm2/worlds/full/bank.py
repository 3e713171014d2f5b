"""A bank: accounts, transfers, cards and transactions of verified customers, with a limit on transfers."""

from __future__ import annotations

import random
from typing import Any

from cm2.worlds.domain import Domain, Options
from cm2.worlds.engine import Desk, Engine, Record, Tables
from cm2.worlds.full.talk import Talk, ids, only, people
from cm2.worlds.toolbox import Toolbox, ToolError

box = Toolbox()
_SHOPS = "Grocer Bakery Cinema Bookshop Garage Florist Airline Hotel Pharmacy Bistro".split()  # noqa: SIM905
_LIMIT = 2000
_ROLE = "{You are the assistant of Harbour Bank|You serve the customers of Harbour Bank}."
_RULES = (
    "{Verify name and PIN before anything about accounts or cards|No word about an account before name and PIN are "
    "verified}.",
    f"{{Transfers above ${_LIMIT} are not allowed here|You may not transfer more than ${_LIMIT} at once}}; say so "
    "and transfer nothing.",
    "{Never overdraw an account|An account must not go below zero}.",
)


@box.tool("Check a customer's name and PIN.", name="string", pin="string")
def verify_customer(desk: Desk, name: str, pin: str) -> Any:
    found = desk.where("customers", name=name, pin=pin)
    if not found:
        raise ToolError("name and PIN do not match")
    return only(found[0], "customer_id", "name")


@box.tool("Accounts of a customer, with balances.", customer_id="string")
def get_accounts(desk: Desk, customer_id: str) -> Any:
    rows = desk.where("accounts", customer_id=desk.find("customers", customer_id)["customer_id"])
    return {"accounts": [only(row, "account_id", "kind", "balance") for row in rows]}


@box.tool("Latest transactions of an account.", account_id="string", shop="string?")
def search_transactions(desk: Desk, account_id: str, shop: str | None = None) -> Any:
    rows = desk.where("transactions", account_id=desk.find("accounts", account_id)["account_id"], shop=shop)
    return {"transactions": [only(row, "transaction_id", "shop", "amount", "disputed") for row in rows]}


@box.tool("Saved payees of a customer.", customer_id="string")
def get_payees(desk: Desk, customer_id: str) -> Any:
    rows = desk.where("payees", customer_id=desk.find("customers", customer_id)["customer_id"])
    return {"payees": [only(row, "payee_id", "name") for row in rows]}


@box.tool("Transfer money from an account to a payee.", account_id="string", payee_id="string", amount="integer")
def transfer_money(desk: Desk, account_id: str, payee_id: str, amount: int) -> Any:
    account, payee = desk.find("accounts", account_id), desk.find("payees", payee_id)
    if account["balance"] < amount:
        raise ToolError(f"{account['account_id']} has only {account['balance']}")
    account["balance"] -= amount
    record = {"account_id": account["account_id"], "payee_id": payee["payee_id"], "amount": amount}
    return {
        "receipt": desk.make("transfers", record, "@##@", "receipt"),
        "amount": amount,
        "balance": account["balance"],
    }


@box.tool("Cards of a customer.", customer_id="string")
def get_cards(desk: Desk, customer_id: str) -> Any:
    rows = desk.where("cards", customer_id=desk.find("customers", customer_id)["customer_id"])
    return {"cards": [only(row, "card_id", "kind", "last4", "status") for row in rows]}


@box.tool("Block a card and send a new one.", card_id="string", reason="lost|stolen|damaged")
def block_card(desk: Desk, card_id: str, reason: str) -> Any:
    card = desk.find("cards", card_id)
    if card["status"] == "blocked":
        raise ToolError(f"{card['card_id']} is blocked already")
    card["status"], card["reason"] = "blocked", reason
    order = desk.make("orders", {"card_id": card["card_id"], "fee": card["fee"]}, "N##@", "order_id")
    return {"card_id": card["card_id"], "status": "blocked", "new_card_order": order, "fee": card["fee"]}


@box.tool("Dispute a transaction.", transaction_id="string")
def file_dispute(desk: Desk, transaction_id: str) -> Any:
    row = desk.find("transactions", transaction_id)
    if row["disputed"]:
        raise ToolError(f"{row['transaction_id']} is disputed already")
    row["disputed"] = True
    case = desk.make("cases", {"transaction_id": row["transaction_id"], "amount": row["amount"]}, "C@##", "case_id")
    return {"case_id": case, "amount": row["amount"]}


def populate(rng: random.Random) -> Tables:
    """Two customers with two accounts, two cards, payees, and some transactions."""
    names = "customers accounts transactions payees transfers cards orders cases".split()  # noqa: SIM905
    tables: Tables = {name: {} for name in names}
    accounts, cards = iter(ids(rng, "A", 4, 4)), iter(ids(rng, "K", 4))
    payees, transactions = iter(ids(rng, "Y", 8)), iter(ids(rng, "T", 24, 4))
    for name, id in zip(people(rng, 2), ids(rng, "C", 2), strict=True):
        tables["customers"][id] = {"customer_id": id, "name": name, "pin": str(rng.randint(1000, 9999))}
        for kind in ("checking", "savings"):
            account: Record = {
                "account_id": next(accounts),
                "customer_id": id,
                "kind": kind,
                "balance": rng.randint(300, 6000),
            }
            tables["accounts"][account["account_id"]] = account
            for shop in rng.sample(_SHOPS, 4 if kind == "checking" else 1):
                record: Record = {
                    "transaction_id": next(transactions),
                    "account_id": account["account_id"],
                    "shop": shop,
                }
                record |= {"amount": rng.randint(5, 400), "disputed": False}
                tables["transactions"][record["transaction_id"]] = record
        for kind in ("debit", "credit"):
            card: Record = {
                "card_id": next(cards),
                "customer_id": id,
                "kind": kind,
                "last4": str(rng.randint(1000, 9999)),
            }
            tables["cards"][card["card_id"]] = {**card, "status": "active", "fee": rng.randint(4, 25)}
        for payee in people(rng, 3):
            record = {"payee_id": next(payees), "customer_id": id, "name": payee}
            tables["payees"][record["payee_id"]] = record
    return tables


def _begin(talk: Talk, wish: str, **values: Any) -> str | None:
    """The verified customer's id after a wish was said; None where they could not be verified or nothing fits in."""
    if not talk.opened:
        person = talk.notes.get("person") or talk.pick(*talk.now["customers"].values())
        return person["customer_id"] if talk.identified(wish, person, "verify_customer", "pin", **values) else None
    talk.user(wish, **values)
    return talk.notes["who"]["customer_id"]


def _closed(talk: Talk) -> bool:
    return talk.opened and ("who" not in talk.notes or not talk.room_to_act())


def _customer(talk: Talk) -> Record:
    """Who the next scene is about."""
    if "who" in talk.notes:
        return talk.now["customers"][talk.notes["who"]["customer_id"]]
    talk.notes["person"] = talk.pick(*talk.now["customers"].values())
    return talk.notes["person"]


def _transfer(talk: Talk) -> None:
    """Money to a saved payee: sometimes too much for the rules or for the account."""
    if _closed(talk):
        return
    person = _customer(talk)["customer_id"]
    payee = talk.pick(*(row for row in talk.now["payees"].values() if row["customer_id"] == person))
    account = talk.pick(*(row for row in talk.now["accounts"].values() if row["customer_id"] == person))
    kind = talk.rng.choices(("fine", "limit", "short"), (70, 15, 15))[0]
    amount = talk.rng.randint(10, min(account["balance"], _LIMIT))
    if kind == "limit":
        amount = talk.rng.randint(_LIMIT + 50, 2 * _LIMIT)
    elif kind == "short" and account["balance"] + 30 < _LIMIT:
        amount = account["balance"] + talk.rng.randint(5, 25)
    wish = "{Please send|Transfer|I want to send|Move} $<amount> from my <kind> account to <payee>."
    if _begin(talk, wish, amount=amount, kind=account["kind"], payee=payee["name"]) is None:
        return
    if amount > _LIMIT:
        talk.refuse(
            "{Sorry|I am sorry|Unfortunately}, {I cannot transfer|it is not possible to transfer} $<amount>: the "
            "limit is $<limit>.",
            "limit",
            "<amount> is above <limit>: refuse.",
            amount=amount,
            limit=_LIMIT,
        )
        return
    accounts, payees = talk.together(
        "See the balances and the payees.",
        ("get_accounts", {"customer_id": person}),
        ("get_payees", {"customer_id": person}),
    )
    found = accounts["accounts"]
    row = next(one for one in found if one["kind"] == account["kind"])
    if row["balance"] < amount:
        talk.refuse(
            "{Sorry|I am sorry|Unfortunately}, your <kind> account has only $<balance>, so I {cannot|am not able to} "
            "send $<amount>.",
            "balance",
            "<balance> is less than <amount>: refuse.",
            row,
            amount=amount,
        )
        return
    to = next(one for one in payees["payees"] if one["name"] == payee["name"])
    if talk.agreed(
        "{I would send|That is} $<amount> from <account_id> (<kind>) to <name>, <payee_id>. {Shall I?|Should I send "
        "it?}",
        "amount",
        "All is known; ask first.",
        row,
        to,
        amount=amount,
    ):
        arguments = {"account_id": row["account_id"], "payee_id": to["payee_id"], "amount": amount}
        done = talk.call("transfer_money", "Send <amount> to <payee_id>.", **arguments)
        talk.reply(
            "{Sent|Done}: $<amount> to <name>. {Receipt|The receipt is} <receipt>, {new balance|the balance is now} "
            "$<balance>.",
            "receipt balance",
            "Report receipt and balance.",
            to,
            done,
        )


def _card(talk: Talk) -> None:
    """A lost, stolen or damaged card; which one may be unclear."""
    if _closed(talk):
        return
    person = _customer(talk)["customer_id"]
    reason = talk.pick("lost", "stolen", "damaged")
    card = talk.pick(
        *(row for row in talk.now["cards"].values() if row["customer_id"] == person and row["status"] == "active")
    )
    vague = not talk.opened and talk.chance(0.3) and talk.length > 2
    what = {"lost": "{I lost my <kind>|My <kind> is lost}", "stolen": "{My <kind> was stolen|Somebody stole my <kind>}"}
    wish = (
        what.get(reason, "{My <kind> is damaged|I damaged my <kind>}")
        + ", {block it please|please block it and send a new one}."
    )
    wish = wish.replace("<kind>", "card" if vague else "<kind> card")
    if _begin(talk, wish, kind=card["kind"]) is None:
        return
    found = talk.call("get_cards", "See the cards.", customer_id=person)["cards"]
    if vague:
        text = "{Which card|Which one} {is it|do you mean}: debit ending in <debit> or credit ending in <credit>?"
        ends = {one["kind"]: one["last4"] for one in found}
        talk.reply(text, "debit credit", "Two cards; ask which.", ends, asks=True)
        talk.user("{The <kind> one|It's the <kind> card|The one ending in <last4>}{.|, thanks.}", card)
    row = next(one for one in found if one["kind"] == card["kind"])
    if vague or talk.agreed(
        "{I would block|That blocks} your <kind> card <card_id> ending in <last4>. {Shall I?|Should I do it?}",
        "last4",
        "Ask before blocking.",
        row,
    ):
        done = talk.call("block_card", f"Block the {row['kind']} card.", card_id=row["card_id"], reason=reason)
        text = (
            "{Blocked|Done}: card <card_id>. {A new one is on its way|I ordered a new one}, order "
            "<new_card_order>, fee $<fee>."
        )
        talk.reply(text, "new_card_order fee", "Report order and fee.", done)


def _dispute(talk: Talk) -> None:
    """A charge that the customer does not recognise."""
    if _closed(talk):
        return
    person = _customer(talk)["customer_id"]
    checking = next(r for r in talk.now["accounts"].values() if r["customer_id"] == person and r["kind"] == "checking")
    mine = [row for row in talk.now["transactions"].values() if row["account_id"] == checking["account_id"]]
    row = talk.pick(*(one for one in mine if not one["disputed"]))
    wish = (
        "{I don't recognise|I never made|I want to dispute} the charge from <shop> on my checking account{.|, "
        "please dispute it.}"
    )
    if _begin(talk, wish, shop=row["shop"]) is None:
        return
    accounts = talk.call("get_accounts", "Find the checking account.", customer_id=person)["accounts"]
    account = next(one for one in accounts if one["kind"] == "checking")["account_id"]
    found = talk.call("search_transactions", "Find the charge.", account_id=account, shop=row["shop"])["transactions"][
        0
    ]
    if talk.agreed(
        "{I found|There is} <transaction_id>, <shop>, $<amount>. {Shall I dispute it?|Should I file a dispute?}",
        "amount",
        "",
        found,
    ):
        done = talk.call("file_dispute", "Dispute <transaction_id>.", transaction_id=found["transaction_id"])
        text = "{Filed|Done}: {case|your case is} <case_id> over $<amount>."
        talk.reply(text, "case_id amount", "Report the case.", done)


def _balance(talk: Talk) -> None:
    """What is on an account; a question that anyone may ask where nobody was verified."""
    if talk.opened and "who" not in talk.notes:
        talk.user("{OK, then what is|Fine. And what is|Then just tell me} the most I can transfer at once{?| here?}")
        talk.reply(
            "{The limit is|You can transfer up to} $<limit>{ at once| per transfer}.",
            "limit",
            "The rules say it.",
            limit=_LIMIT,
        )
        return
    kind = talk.pick("checking", "savings")
    person = _begin(talk, "{How much is|What is the balance|How much money is} on my <kind> account?", kind=kind)
    if person is not None:
        found = talk.call("get_accounts", "See the balances.", customer_id=person)["accounts"]
        row = next(one for one in found if one["kind"] == kind)
        talk.reply(
            "{Your <kind> account has|There is} $<balance>{ on it|} ({account |}<account_id>).",
            "balance",
            "Answer.",
            row,
        )


def write(rng: random.Random, engine: Engine, options: Options) -> Talk:
    """One dialogue."""
    talk = Talk(rng, engine, options, box, _ROLE, _RULES)
    return talk.play((_transfer, _transfer, _card, _dispute, _balance), (_transfer, _card, _dispute, _balance))


DOMAIN = Domain("bank", box, populate, write)
