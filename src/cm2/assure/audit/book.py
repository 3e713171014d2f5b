"""Book: the database of one audit: its cases, what people said about them, and the log of every change.

Nothing is overwritten silently. A review belongs to one person and carries a version; a duty belongs to all and has one
too. Who writes says which version was seen: where it is no longer the last, nothing is written, and a `Conflict` says
what is there now. Each write and its entry in the log are one transaction.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from cm2.assure.audit.case import Action, Case, Change, Decision, Population, Review, Stratum, Subject
from cm2.assure.audit.tables import (
    VERSION,
    audits,
    cases,
    changes,
    connect,
    dialogues,
    populations,
    reviews,
    sa,
    shown,
    storable,
    strata,
    subjects,
)
from cm2.dialogue import Dialogue
from cm2.errors import CM2Error, DataError, Where


class Conflict(CM2Error):
    """Somebody else wrote first; `now` is what is there."""

    def __init__(self, message: str, now: Any):
        super().__init__(message, fix="look at what is there now, then decide again")
        self.now = now


class Book:
    """An open audit. A context manager; safe for several threads and several processes.

    Args:
        place: the file that `cm2 audit sample` wrote, or the URL of a database.

    Raises:
        DataError: there is no audit there.
        ConfigError: the database cannot be reached.
    """

    def __init__(self, place: str):
        self.place = place
        self.engine = connect(place)
        try:
            with self.engine.connect() as connection:
                row = connection.execute(sa.select(audits)).first()
        except sa.exc.DatabaseError as error:
            self.close()
            raise DataError("holds no audit", where=Where(file=shown(place)), fix=_DRAW) from error
        if row is None:
            self.close()
            raise DataError("holds no audit", where=Where(file=shown(place)), fix=_DRAW)
        if row.version != VERSION:
            self.close()
            raise DataError(f"is of version {row.version}, this reads {VERSION}", where=Where(file=shown(place)))
        self.id: str = row.id
        self.facts: dict[str, Any] = {**row.facts, "created": row.created}

    def __enter__(self) -> Book:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database."""
        self.engine.dispose()

    def strata(self) -> list[Stratum]:
        """All strata, in their order."""
        return [msgspec.convert(row.body, Stratum) for row in self.rows(sa.select(strata).order_by(strata.c.id))]

    def populations(self) -> list[Population]:
        """What the judge said of each duty."""
        query = sa.select(populations).order_by(populations.c.duty)
        return [msgspec.convert(row.body, Population) for row in self.rows(query)]

    def cases(self) -> list[Case]:
        """All cases, in the order of the queue."""
        return [msgspec.convert(row.body, Case) for row in self.rows(sa.select(cases).order_by(cases.c.id))]

    def case(self, id: int) -> Case | None:
        """One case."""
        rows = self.rows(sa.select(cases).where(cases.c.id == id))
        return msgspec.convert(rows[0].body, Case) if rows else None

    def dialogue(self, number: int) -> Dialogue:
        """One dialogue."""
        row = self.rows(sa.select(dialogues).where(dialogues.c.id == number))[0]
        return msgspec.convert(row.body, Dialogue)

    def names(self) -> dict[int, tuple[str, str]]:
        """The id and rollout of each dialogue by its number."""
        query = sa.select(dialogues.c.id, dialogues.c.name, dialogues.c.rollout)
        return {row.id: (row.name, row.rollout) for row in self.rows(query)}

    def reviews(self, case: int | None = None) -> list[Review]:
        """All reviews, or those of one case, in the order in which they were first given."""
        query = sa.select(reviews).order_by(reviews.c.at, reviews.c.reviewer)
        rows = self.rows(query if case is None else query.where(reviews.c.case == case))
        return [msgspec.convert(named(row), Review) for row in rows]

    def subjects(self) -> list[Subject]:
        """All duties or items."""
        return [_subject(row) for row in self.rows(sa.select(subjects).order_by(subjects.c.place))]

    def subject(self, key: str) -> Subject | None:
        """One duty or item."""
        rows = self.rows(sa.select(subjects).where(subjects.c.key == key))
        return _subject(rows[0]) if rows else None

    def changes(self, what: str | None = None) -> list[Change]:
        """The log, oldest first."""
        query = sa.select(changes).order_by(changes.c.id)
        rows = self.rows(query if what is None else query.where(changes.c.what == what))
        return [msgspec.convert(named(row), Change) for row in rows]

    def review(
        self, case: int, reviewer: str, decision: Decision, *, reason: str = "", blind: bool = False, version: int = 0
    ) -> Review:
        """Write what one person says about a case.

        Args:
            case: its id.
            reviewer: who.
            decision: what.
            reason: why; needed where the verdict is overridden.
            blind: whether the verdict was hidden.
            version: the one of this person's review that was seen; 0: none.

        Raises:
            Conflict: that is not the last one.
            DataError: there is no such case, or an override has no reason.
        """
        found = self.case(case)
        if found is None:
            raise DataError(f"there is no case {case}", fix="load the list again")
        reason, reviewer = storable(reason.strip()), storable(reviewer.strip())
        if decision not in (found.kind, "cannot_tell") and not reason and not blind and found.kind != "unscored":
            raise DataError("an override needs a reason", fix="say in a sentence what the judge got wrong")
        at = moment()
        new = {"decision": decision, "reason": reason, "blind": blind, "version": version + 1, "at": at}
        mine = (reviews.c.case == case) & (reviews.c.reviewer == reviewer)
        with self._write() as connection:
            row = connection.execute(sa.select(reviews).where(mine)).first()
            before = None if row is None else {"decision": row.decision, "reason": row.reason}
            if version == 0:
                done = row is None and self._added(connection, {"case": case, "reviewer": reviewer, **new})
            else:
                change = sa.update(reviews).where(mine & (reviews.c.version == version)).values(**new)
                done = connection.execute(change).rowcount == 1
            if done:
                after = {"decision": decision, "reason": reason}
                action = "accept" if decision == found.kind else decision
                _log(connection, at, reviewer, "review", str(case), action, reason, before, after)
        if not done:
            now = [one for one in self.reviews(case) if one.reviewer == reviewer]
            raise Conflict(f"{reviewer} has reviewed this case elsewhere in the meantime", msgspec.to_builtins(now[:1]))
        return Review(
            case=case, reviewer=reviewer, decision=decision, reason=reason, blind=blind, version=version + 1, at=at
        )

    def change(
        self, key: str, reviewer: str, action: Action, *, reason: str, version: int, spec: dict[str, Any] | None = None
    ) -> Subject:
        """Approve, retire, restore or edit a duty; the log keeps who, why, and both wordings.

        Raises:
            Conflict: somebody changed it since `version`.
            DataError: there is no such duty, or no reason was given.
        """
        found = self.subject(key)
        if found is None:
            raise DataError(f"there is no duty {key}", fix="load the page again")
        reason, reviewer = storable(reason.strip()), storable(reviewer.strip())
        if not reason and action != "approve":
            raise DataError("a change of a duty needs a reason", fix="say why in a sentence: the log keeps it")
        status = {"approve": "approved", "retire": "retired", "restore": "open", "edit": found.status}[action]
        if action == "edit" and found.status == "approved":
            status = "open"  # what was approved is not what stands there now
        new = {"status": status, "version": version + 1, "spec": found.spec if spec is None else spec}
        at = moment()
        with self._write() as connection:
            this = (subjects.c.key == key) & (subjects.c.version == version)
            done = connection.execute(sa.update(subjects).where(this).values(**new)).rowcount == 1
            if done:
                before = {"status": found.status, "spec": found.spec} if action == "edit" else {"status": found.status}
                after = {"status": status, "spec": new["spec"]} if action == "edit" else {"status": status}
                _log(connection, at, reviewer, "duty", key, action, reason, before, after)
        now = self.subject(key)
        assert now is not None
        if not done:
            last = [one for one in self.changes("duty") if one.target == key]
            who = f"{last[-1].reviewer} ({last[-1].action}, {last[-1].at})" if last else "somebody"
            raise Conflict(f"{who} has changed this duty in the meantime", msgspec.to_builtins(now))
        return now

    def _added(self, connection: sa.Connection, row: dict[str, Any]) -> bool:
        try:
            connection.execute(sa.insert(reviews).values(**row))
        except sa.exc.IntegrityError:  # the same name, in the same instant, elsewhere
            return False
        return True

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        with self.engine.connect() as connection:
            try:
                yield connection
                connection.commit()
            except BaseException:
                connection.rollback()
                raise

    def rows(self, query: Any) -> list[Any]:
        """What a query selects."""
        with self.engine.connect() as connection:
            return list(connection.execute(query).all())


def _subject(row: Any) -> Subject:
    values = named(row)
    del values["place"]
    return msgspec.convert(values, Subject)


def named(row: Any) -> dict[str, Any]:
    """A row by its columns."""
    return {str(name): value for name, value in row._mapping.items()}  # names are a kind of str of their own


def _log(
    connection: sa.Connection,
    at: str,
    reviewer: str,
    what: str,
    target: str,
    action: str,
    reason: str,
    before: Any,
    after: Any,
) -> None:
    row = {"at": at, "reviewer": reviewer, "what": what, "target": target, "action": action, "reason": reason}
    connection.execute(sa.insert(changes).values(**row, before=before, after=after))


def moment() -> str:
    """Now, as it is written down."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


_DRAW = "draw one: cm2 audit sample LOGS --verdicts STORE -o AUDIT.sqlite"
