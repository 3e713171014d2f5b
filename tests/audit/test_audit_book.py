"""The database of an audit: nothing overwritten silently, nothing lost, the same on SQLite and PostgreSQL."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from audits import agree, audit

from cm2.assure.audit.binding import copy_to
from cm2.assure.audit.book import Book, Conflict
from cm2.assure.audit.report import report
from cm2.errors import ConfigError, DataError

PROGRAMS = Path(shutil.which("initdb") or "/usr/lib/postgresql/15/bin/initdb").parent


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    """A PostgreSQL of this test's own; its URL without a database."""
    if not (PROGRAMS / "initdb").exists():
        pytest.skip("there is no PostgreSQL server on this machine")
    pytest.importorskip("psycopg", reason="the driver psycopg is not installed")
    folder = tmp_path_factory.mktemp("postgres")
    user: dict[str, int] = {}
    if os.getuid() == 0:  # the server refuses to run as root
        owner = pwd.getpwnam("nobody")
        user = {"user": owner.pw_uid, "group": owner.pw_gid}
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        for parent in [folder, *folder.parents][:-2]:
            if parent.stat().st_uid == 0 and str(parent).startswith("/tmp/"):
                parent.chmod(parent.stat().st_mode | 0o011)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    init = [PROGRAMS / "initdb", "-D", folder / "data", "-U", "cm2", "-A", "trust", "-E", "UTF8", "--no-sync"]
    subprocess.run(init, check=True, capture_output=True, cwd="/", extra_groups=[] if user else None, **user)
    settings = [
        f"-c{name}" for name in (f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}")
    ]
    server = subprocess.Popen(
        [PROGRAMS / "postgres", "-D", folder / "data", *settings],
        cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, extra_groups=[] if user else None, **user,
    )  # fmt: skip
    import psycopg

    address = f"host=127.0.0.1 port={port} user=cm2 dbname=postgres"
    try:
        for _ in range(300):
            try:
                psycopg.connect(address).close()
                break
            except psycopg.OperationalError:
                assert server.poll() is None, "PostgreSQL did not start"
                time.sleep(0.2)
        yield address, f"postgresql+psycopg://cm2@127.0.0.1:{port}/"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)


@pytest.fixture(params=["sqlite", "postgres"])
def place(request, tmp_path):
    """An empty place for an audit in each kind of database."""
    if request.param == "sqlite":
        return str(tmp_path / "audit.sqlite")
    address, url = request.getfixturevalue("postgres")
    import psycopg

    name = f"t{abs(hash(request.node.name))}"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return url + name


def first(book, *kinds):
    return next(case for case in book.cases() if case.kind in kinds)


def test_a_review_is_kept_with_its_name_reason_and_log_entry(tmp_path, place):
    audit(tmp_path, place=place)
    with Book(place) as book:
        case = first(book, "pass")
        book.review(case.id, "ana", "fail", reason="too late")
    with Book(place) as book:
        [review] = book.reviews()
        assert (review.case, review.reviewer, review.decision, review.reason) == (case.id, "ana", "fail", "too late")
        [entry] = book.changes()
        assert (entry.what, entry.target, entry.action, entry.reviewer) == ("review", str(case.id), "fail", "ana")


def test_who_saw_an_older_review_writes_nothing_and_is_told_what_is_there(tmp_path, place):
    audit(tmp_path, place=place)
    with Book(place) as book:
        case = first(book, "pass")
        book.review(case.id, "ana", "pass")
        for stale in (0, 2):
            with pytest.raises(Conflict) as stopped:
                book.review(case.id, "ana", "fail", reason="no", version=stale)
            assert stopped.value.now[0]["decision"] == "pass"
        assert book.review(case.id, "ana", "fail", reason="no", version=1).version == 2
        assert [entry.action for entry in book.changes()] == ["accept", "fail"]


def test_two_people_review_one_case_beside_each_other(tmp_path, place):
    audit(tmp_path, place=place)
    with Book(place) as book:
        case = first(book, "pass")
        book.review(case.id, "ana", "pass")
        book.review(case.id, "bo", "fail", reason="no")
        assert {one.reviewer: one.decision for one in book.reviews(case.id)} == {"ana": "pass", "bo": "fail"}
        assert report(book).decisions == {"tie": 1}


@pytest.mark.parametrize("what", ["review", "duty"])
def test_of_many_who_write_at_once_one_wins_and_the_others_know(tmp_path, place, what):
    audit(tmp_path, place=place)
    with Book(place) as book:
        case = first(book, "pass")

        def write(n):
            try:
                if what == "review":
                    book.review(case.id, "ana", "fail", reason=f"reason {n}")
                else:
                    book.change("polite", f"person {n}", "retire", reason=f"reason {n}", version=1)
            except Conflict:
                return None
            return f"reason {n}"

        with ThreadPoolExecutor(8) as pool:
            won = [one for one in pool.map(write, range(16)) if one]
        assert len(won) == 1
        [entry] = book.changes()
        assert entry.reason == won[0]


def test_a_change_of_a_duty_keeps_both_wordings_and_needs_a_reason(tmp_path, place):
    audit(tmp_path, place=place)
    with Book(place) as book:
        duty = book.subject("polite")
        with pytest.raises(DataError, match="needs a reason"):
            book.change("polite", "ana", "retire", reason=" ", version=1)
        assert book.change("polite", "bo", "approve", reason="", version=1).status == "approved"
        spec = duty.spec | {"question": "Is every reply polite?"}
        made = book.change("polite", "ana", "edit", reason="all of them", version=2, spec=spec)
        assert made.edited and made.status == "open"  # what was approved is not what stands there now
        entry = book.changes("duty")[-1]
        assert entry.before["spec"]["question"] == "Is the reply polite?"
        assert entry.after["spec"]["question"] == "Is every reply polite?"


def test_an_override_needs_a_reason_and_a_case_must_exist(tmp_path):
    with Book(audit(tmp_path)) as book:
        case = first(book, "pass")
        with pytest.raises(DataError, match="needs a reason"):
            book.review(case.id, "ana", "fail")
        with pytest.raises(DataError, match="no case 999"):
            book.review(999, "ana", "pass")
        book.review(case.id, "bo", "fail", blind=True)  # who did not see the verdict overrides nothing
        book.review(first(book, "unscored").id, "ana", "fail")
        assert len(book.reviews()) == 2


def test_a_killed_reviewer_process_loses_nothing_that_was_answered(tmp_path):
    place = audit(tmp_path)
    script = (
        "import sys, itertools\nfrom cm2.assure.audit.book import Book\nbook = Book(sys.argv[1])\n"
        "for n in itertools.count():\n    for case in book.cases():\n"
        "        book.review(case.id, f'r{n}', 'cannot_tell')\n        print(case.id, n, flush=True)\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", script, place], stdout=subprocess.PIPE, text=True)
    said = [worker.stdout.readline().split() for _ in range(25)]
    worker.send_signal(signal.SIGKILL)
    said += [line.split() for line in worker.stdout if len(line.split()) == 2]
    worker.wait(30)
    worker.stdout.close()
    with Book(place) as book:
        kept = {(str(one.case), one.reviewer[1:]) for one in book.reviews()}
        assert {tuple(one) for one in said} <= kept
        assert len(kept) == len(book.changes()) <= len(said) + 1
        book.review(0, "after", "cannot_tell")


def test_a_teams_database_gets_the_audit_once_with_what_was_reviewed(tmp_path, postgres):
    address, url = postgres
    import psycopg

    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("CREATE DATABASE team")
    place = audit(tmp_path)
    agree(place)
    with Book(place) as book:
        assert copy_to(book, url + "team") and not copy_to(book, url + "team")
        before = report(book)
    with Book(url + "team") as team:
        assert report(team) == before
        assert len(team.changes()) == before.reviewed
        team.review(0, "bo", "cannot_tell")
        team.review(1, "bo", "cannot_tell")
        assert len({entry.id for entry in team.changes()}) == before.reviewed + 2
    other = audit(tmp_path, place=str(tmp_path / "other.sqlite"))
    with Book(other) as book, pytest.raises(ConfigError, match="another audit"):
        copy_to(book, url + "team")
    with pytest.raises(ConfigError, match="holds an audit"):
        audit(tmp_path, place=url + "team")


@pytest.mark.parametrize("text", ["'; DROP TABLE cm2_audit_reviews; --", "Ana\u2019s \U0001f600 %s %(x)s :name"])
def test_what_people_write_is_data(tmp_path, place, text):
    audit(tmp_path, place=place)
    with Book(place) as book:
        case = first(book, "pass")
        book.review(case.id, text, "fail", reason=text)
        book.change("polite", text, "retire", reason=text, version=1)
        assert book.reviews()[0].reviewer == book.reviews()[0].reason == text
        assert book.changes("duty")[0].reason == text


def test_wrong_places_are_said_in_a_sentence(tmp_path):
    (tmp_path / "text.sqlite").write_text("no database at all")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"a": 1}))
    for name, message in (("no.sqlite", "no such audit"), ("text.sqlite", "no audit"), ("rows.jsonl", "no audit")):
        with pytest.raises(DataError, match=message):
            Book(str(tmp_path / name))
    with pytest.raises(DataError, match="folder"):
        Book(str(tmp_path))
    import sqlite3

    sqlite3.connect(tmp_path / "other.sqlite").execute("CREATE TABLE t (x)").connection.close()
    with pytest.raises(DataError, match="holds no audit"):
        Book(str(tmp_path / "other.sqlite"))
    with pytest.raises(ConfigError):
        Book("nothing://there")
    with pytest.raises(ConfigError, match="refuses"):
        Book("postgresql+psycopg://cm2:secret-word@127.0.0.1:9/none")


def test_a_password_in_a_url_is_not_shown():
    with pytest.raises(ConfigError) as stopped:
        Book("postgresql+psycopg://cm2:secret-word@127.0.0.1:9/none")
    assert "secret-word" not in str(stopped.value) and "127.0.0.1" in str(stopped.value)
