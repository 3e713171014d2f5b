"""A public library: catalogue, holds, loans and fines of verified readers."""

from __future__ import annotations

import datetime
import random
from typing import Any

from cm2.worlds.domain import Domain, Options
from cm2.worlds.engine import Desk, Engine, Record, Tables, draw_id
from cm2.worlds.full.talk import LAST_NAMES, Talk, day, ids, only, people
from cm2.worlds.toolbox import Toolbox, ToolError

box = Toolbox()
_FIRST = "Red Cold Silent Lost Golden Broken Hidden Last Winter Iron".split()  # noqa: SIM905
_SECOND = "River House Garden Letter Moon Harbour Island Road Key Summer".split()  # noqa: SIM905
_TOPICS = "history travel cooking crime poetry science".split()  # noqa: SIM905
_WEEKS = 2
_ROLE = "{You are the assistant of the City Library|You help readers of the City Library}."
_RULES = (
    "{Verify a reader by name and PIN before loans, holds or fines|Holds, loans and fines need the reader's name and "
    "PIN first}.",
    "{A reader who owes more than $10 may not place holds or renew loans|No holds and no renewals above $10 of "
    "fines}; say so.",
)


@box.tool("Books by author or topic.", author="string?", topic="string?")
def search_catalog(desk: Desk, author: str | None = None, topic: str | None = None) -> Any:
    rows = desk.where("books", author=author, topic=topic)
    return {"books": [only(row, "book_id", "title", "author", "year", "available") for row in rows]}


@box.tool("Details of a book.", book_id="string")
def get_book(desk: Desk, book_id: str) -> Any:
    return dict(desk.find("books", book_id))


@box.tool("Check a reader's name and PIN.", name="string", pin="string")
def verify_reader(desk: Desk, name: str, pin: str) -> Any:
    found = desk.where("readers", name=name, pin=pin)
    if not found:
        raise ToolError("name and PIN do not match")
    return only(found[0], "reader_id", "name", "fines")


@box.tool("Loans of a reader.", reader_id="string")
def get_loans(desk: Desk, reader_id: str) -> Any:
    rows = desk.where("loans", reader_id=desk.find("readers", reader_id)["reader_id"])
    return {
        "loans": [
            {**only(row, "loan_id", "due", "renewed"), "title": desk["books"][row["book_id"]]["title"]} for row in rows
        ]
    }


@box.tool("Reserve a book for pick-up.", reader_id="string", book_id="string")
def reserve_book(desk: Desk, reader_id: str, book_id: str) -> Any:
    reader, book = desk.find("readers", reader_id), desk.find("books", book_id)
    if not book["available"]:
        raise ToolError(f"{book['book_id']} is out")
    book["available"] = False
    record = {"reader_id": reader["reader_id"], "book_id": book["book_id"], "until": book["keep_until"]}
    return {
        "hold_id": desk.make("holds", {**record, "status": "waiting"}, "@#@", "hold_id"),
        **only(book, "shelf", "keep_until"),
    }


@box.tool("Cancel a hold.", hold_id="string")
def cancel_hold(desk: Desk, hold_id: str) -> Any:
    row = desk.find("holds", hold_id)
    row["status"] = "cancelled"
    desk["books"][row["book_id"]]["available"] = True
    return {"hold_id": row["hold_id"], "cancelled": True}


@box.tool("Renew a loan by two weeks.", loan_id="string")
def renew_loan(desk: Desk, loan_id: str) -> Any:
    row = desk.find("loans", loan_id)
    if row["renewed"]:
        raise ToolError(f"{row['loan_id']} was renewed once already")
    due = datetime.date.fromisoformat(row["due"]) + datetime.timedelta(weeks=_WEEKS)
    row["due"], row["renewed"] = due.isoformat(), True
    return only(row, "loan_id", "due")


@box.tool("Pay a reader's fines in full.", reader_id="string")
def pay_fines(desk: Desk, reader_id: str) -> Any:
    row = desk.find("readers", reader_id)
    paid, row["fines"] = row["fines"], 0
    return {
        "reader_id": row["reader_id"],
        "paid": paid,
        "receipt": desk.make("receipts", {"paid": paid}, "@##", "receipt"),
    }


def populate(rng: random.Random) -> Tables:
    """Eight books of four authors, and two readers with two or three loans each."""
    tables: Tables = {"books": {}, "readers": {}, "loans": {}, "holds": {}, "receipts": {}}
    titles = rng.sample([f"{first} {second}" for first in _FIRST for second in _SECOND], 14)
    authors, years = rng.sample(LAST_NAMES, 4), rng.sample(range(1950, 2025), 14)
    for number, (id, title, year) in enumerate(zip(ids(rng, "B", 14), titles, years, strict=True)):
        record: Record = {
            "book_id": id,
            "title": title,
            "author": authors[number % 4],
            "topic": rng.choice(_TOPICS),
            "year": year,
        }
        record |= {"pages": rng.randint(90, 700), "shelf": draw_id(rng, "@#"), "keep_until": day(rng, 5, 12)}
        tables["books"][id] = {**record, "available": rng.random() < 0.8}
    books = rng.sample(sorted(tables["books"]), 6)
    loans = iter(ids(rng, "L", 6))
    for number, (name, id) in enumerate(zip(people(rng, 2), ids(rng, "R", 2), strict=True)):
        fines = rng.choice((0, 0, rng.randint(1, 9), rng.randint(11, 40)))
        tables["readers"][id] = {"reader_id": id, "name": name, "pin": str(rng.randint(1000, 9999)), "fines": fines}
        for book in books[number * 3 : number * 3 + rng.randint(2, 3)]:
            record = {"loan_id": next(loans), "reader_id": id, "book_id": book, "due": day(rng, 1, 14)}
            tables["loans"][record["loan_id"]] = {**record, "renewed": rng.random() < 0.2}
            tables["books"][book]["available"] = False
    return tables


def _owes(talk: Talk) -> bool:
    """Whether the reader's fines forbid it; then the agent has said so."""
    reader = talk.notes["who"]
    if talk.now["readers"][reader["reader_id"]]["fines"] <= 10:
        return False
    talk.refuse(
        "{Sorry|I am sorry|Unfortunately}, you owe $<fines>, {and above $10 I cannot do that|so I cannot do that "
        "before it is paid}.",
        "fines",
        "Fines of <fines> are above 10: refuse.",
        reader,
    )
    talk.notes["blocked"] = True
    return True


def _hold(talk: Talk) -> None:
    """Reserve the newest or oldest available book of an author."""
    reader = talk.pick(*talk.now["readers"].values())
    author = talk.pick(*sorted({row["author"] for row in talk.now["books"].values()}))
    newest = talk.chance(0.5)
    word = "{newest|latest}" if newest else "{oldest|earliest}"
    wish = (
        f"{{Please reserve|Reserve me|I'd like|Put aside}} the {word} book by <author> {{that is in|that is "
        "available}}."
    )
    if not talk.identified(wish, reader, "verify_reader", "pin", author=author) or _owes(talk):
        return
    found = talk.call("search_catalog", "{See what there is|Search} by <author>.", author=author)["books"]
    rows = [row for row in found if row["available"]]
    if not rows:
        text = "{Sorry|I am sorry}, {no book by <author> is in|there is no book by <author>}, so I reserved nothing."
        talk.refuse(text, "", "All are out: refuse.", author=author)
        return
    _reserve(talk, (max if newest else min)(rows, key=lambda row: row["year"]))


def _reserve(talk: Talk, row: Record) -> None:
    if not talk.agreed(
        '{That is|I found|It would be} "<title>" from <year> (<book_id>). {Shall I reserve it?|Should I put it aside?}',
        "title",
        "<title> fits; ask first.",
        row,
    ):
        return
    reader = talk.notes["who"]["reader_id"]
    done = talk.call("reserve_book", f"Reserve {row['title']}, <book_id>.", reader_id=reader, book_id=row["book_id"])
    talk.notes |= {"hold": done["hold_id"], "book": row["book_id"]}
    talk.reply(
        '{Reserved|Done}: "<title>", hold <hold_id>, {on|at} shelf <shelf> until <keep_until>.',
        "hold_id shelf keep_until",
        "Report hold, shelf and date.",
        row,
        done,
    )


def _renew(talk: Talk) -> None:
    """Renew one loan, by title or the one that is due first."""
    if talk.opened and ("who" not in talk.notes or "blocked" in talk.notes or not talk.room_to_act()):
        return
    id = talk.notes["who"]["reader_id"] if talk.opened else talk.pick(*sorted(talk.now["readers"]))
    loans = [row for row in talk.now["loans"].values() if row["reader_id"] == id]
    title = talk.now["books"][talk.pick(*loans)["book_id"]]["title"]
    wish = (
        "{Please renew|Can you renew|I want to keep|Extend} <title>{ for me|}{, and tell me the new due date|. "
        "When is it due then}."
    )
    if talk.opened:
        talk.user(wish, title=title)
    elif not talk.identified(wish, talk.now["readers"][id], "verify_reader", "pin", title=title):
        return
    if _owes(talk):
        return
    found = talk.call("get_loans", "Find the loan.", reader_id=id)["loans"]
    row = next(one for one in found if one["title"] == title)
    if row["renewed"]:
        talk.refuse(
            "{Sorry|I am sorry}, <title> was renewed once already, so it {cannot be renewed again|is not possible "
            "again}; it is due on <due>.",
            "due",
            "Renewed once already: refuse.",
            row,
        )
        return
    if talk.agreed("{I would renew|That renews} <loan_id>, <title>, due <due>. {Shall I?|Should I?}", "", "", row):
        done = talk.call("renew_loan", f"Renew {title}, <loan_id>.", loan_id=row["loan_id"])
        talk.reply("{Renewed|Done}: <title> is now due on <due>.", "due", "Report the date.", row, done)


def _fines(talk: Talk) -> None:
    """Pay what is owed."""
    if not talk.opened:
        owing = [row for row in talk.now["readers"].values() if row["fines"]]
        if not owing:
            return _renew(talk)
        wish = "{I want to pay my fines|Please settle my fines|How much do I owe? I want to pay it}."
        if not talk.identified(wish, talk.pick(*owing), "verify_reader", "pin"):
            return None
    elif "who" in talk.notes and talk.now["readers"][talk.notes["who"]["reader_id"]]["fines"] and talk.room_to_act():
        talk.user("{OK, then I pay the fines now|Let me pay what I owe|Please settle my fines}.")
    else:
        return None
    reader = talk.notes["who"]
    if talk.agreed(
        "{You owe|That is} $<fines>. {Shall I charge it?|Do you want to pay it now?}",
        "fines",
        "Ask before charging.",
        reader,
    ):
        done = talk.call("pay_fines", "Pay the fines.", reader_id=reader["reader_id"])
        talk.notes.pop("blocked", None)
        talk.reply("{Paid|Done}: $<paid>, receipt <receipt>.", "paid receipt", "Report amount and receipt.", done)
    return None


def _drop(talk: Talk) -> None:
    """Cancel the hold."""
    if "hold" in talk.notes and talk.room_to_act():
        id = talk.notes.pop("hold")
        talk.user(
            "{Please cancel the hold again|Cancel hold <id>, I bought the book|Forget the hold, cancel it}.", id=id
        )
        if talk.agreed("{I would cancel|That cancels} hold <id>. {Shall I?|OK?}", "", "", id=id):
            done = talk.call("cancel_hold", "Cancel <hold_id>.", hold_id=id)
            talk.reply("{Done|Cancelled}: hold <hold_id>{ is cancelled|}.", "hold_id", "Tell them.", done)


def _ask(talk: Talk) -> None:
    """A catalogue question that needs no account."""
    topic = talk.pick(*sorted({row["topic"] for row in talk.now["books"].values()}))
    talk.user("{Which is|What is} the newest book {on|about} <topic>, and how many pages does it have?", topic=topic)
    found = talk.call("search_catalog", "Search by topic.", topic=topic)["books"]
    newest = max(found, key=lambda row: row["year"])
    book = talk.call("get_book", f"{newest['title']} is newest; get its pages.", book_id=newest["book_id"])
    talk.reply('{The newest is|That is} "<title>" (<year>), <pages> pages.', "title pages", "Answer both.", book)


def write(rng: random.Random, engine: Engine, options: Options) -> Talk:
    """One dialogue."""
    talk = Talk(rng, engine, options, box, _ROLE, _RULES)
    return talk.play((_hold, _hold, _renew, _fines), (_renew, _fines, _drop, _ask))


DOMAIN = Domain("library", box, populate, write)
