"""Who may talk to the review page, and what its answers allow."""

import asyncio
import json

import httpx
import pytest
from audits import audit, served

from cm2.assure.audit.book import Book
from cm2.assure.audit.guard import LARGEST
from cm2.assure.audit.server import ServeConfig, make_app
from cm2.errors import ConfigError
from cm2.listening import is_loopback

HOST = "127.0.0.1:8477"
PATHS = ("/", "/static/audit.js", "/static/audit.css", "/api/state", "/api/log", "/api/cases/0", "/nothing")


@pytest.fixture
def guard(tmp_path):
    with Book(audit(tmp_path)) as book:
        yield make_app(book, frozenset({HOST, "localhost:8477"}), 8477)


def ask(guard, method, path, *, entered=True, csrf=True, headers=None, host=HOST, **more):
    """One request, as the page sends it unless told otherwise."""
    sent = {"origin": f"http://{host}"} if method == "POST" else {}
    if csrf and method == "POST":
        sent["x-cm2-csrf"] = guard.csrf
    if entered:
        sent["cookie"] = f"{guard.cookie}={guard.session}"
    sent = {name: value for name, value in (sent | (headers or {})).items() if value is not None}

    async def run():
        transport = httpx.ASGITransport(guard)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            return await client.request(method, path, headers=sent, **more)

    return asyncio.run(run())


def review(**changes):
    return {"case": 0, "reviewer": "ana", "decision": "cannot_tell", "version": 0} | changes


@pytest.mark.parametrize("path", PATHS)
def test_without_the_key_nothing_is_told_not_even_what_exists(guard, path):
    for headers in ({}, {"cookie": f"{guard.cookie}=guess"}, {"cookie": "cm2_audit_1=x"}, {"cookie": 'a="\\'}):
        answer = ask(guard, "GET", path, entered=False, headers=headers)
        assert answer.status_code == 401 and "audit serve" in answer.text
        assert "identity" not in answer.text and "d1" not in answer.text
    assert ask(guard, "POST", "/api/review", entered=False, json=review()).status_code == 401


def test_the_printed_address_gives_a_cookie_and_leaves_the_address_bar(guard):
    answer = ask(guard, "GET", f"/?token={guard.token}", entered=False)
    assert answer.status_code == 303 and answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and guard.token not in cookie
    assert ask(guard, "GET", "/?token=wrong", entered=False).status_code == 401
    assert ask(guard, "GET", f"/api/state?token={guard.token}", entered=False).status_code == 401
    assert ask(guard, "GET", "/").status_code == 200


def test_tokens_are_long_random_and_differ(tmp_path):
    with Book(audit(tmp_path)) as book:
        made = [make_app(book, frozenset({HOST}), 1) for _ in range(3)]
    tokens = {one for guard in made for one in (guard.token, guard.session, guard.csrf)}
    assert len(tokens) == 9 and all(len(one) >= 43 for one in tokens)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8477", "127.0.0.1", "127.0.0.1:80", ""])
def test_a_name_that_was_pointed_here_is_refused(guard, host):
    for entered in (True, False):
        answer = ask(guard, "GET", f"/?token={guard.token}", entered=entered, headers={"host": host})
        assert answer.status_code == 421 and "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("csrf", "headers"),
    [
        (False, {}),
        (True, {"x-cm2-csrf": "guess"}),
        (True, {"origin": "http://evil.example"}),
        (True, {"origin": "null"}),
        (True, {"origin": None}),
        (True, {"origin": "http://127.0.0.1:9999"}),
        (True, {"origin": f"http://{HOST}.evil.example"}),
    ],
)
def test_what_another_page_sends_changes_nothing(guard, tmp_path, csrf, headers):
    assert ask(guard, "POST", "/api/review", csrf=csrf, headers=headers, json=review()).status_code == 403
    with Book(str(tmp_path / "audit.sqlite")) as book:
        assert book.reviews() == []


def test_reading_needs_no_second_token_and_changes_nothing(guard):
    assert ask(guard, "GET", "/api/state").status_code == 200
    assert ask(guard, "GET", "/api/review").status_code == 405
    assert ask(guard, "PUT", "/api/review", headers={"origin": f"http://{HOST}"}).status_code == 403


def test_a_form_of_another_page_cannot_pose_as_json(guard):
    answer = ask(guard, "POST", "/api/review", headers={"content-type": "text/plain"}, content=json.dumps(review()))
    assert answer.status_code == 415


def test_large_bodies_are_refused_with_and_without_their_length(guard):
    assert ask(guard, "POST", "/api/review", content=b"x" * (LARGEST + 1)).status_code == 413

    async def endless():
        for _ in range(LARGEST // 1000 + 2):
            yield b"x" * 1000

    answer = ask(guard, "POST", "/api/review", headers={"content-type": "application/json"}, content=endless())
    assert answer.status_code == 413
    assert ask(guard, "GET", "/", headers={"content-length": "-1"}).status_code == 413


@pytest.mark.parametrize("path", [*PATHS, "/?token=wrong"])
@pytest.mark.parametrize("entered", [True, False])
def test_every_answer_carries_the_headers(guard, path, entered):
    headers = ask(guard, "GET", path, entered=entered).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy and "http" not in policy
    assert headers["x-frame-options"] == "DENY" and headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store" and headers["referrer-policy"] == "no-referrer"
    assert "access-control-allow-origin" not in headers


def test_the_page_has_no_inline_script_style_or_handler(guard):
    text = ask(guard, "GET", "/").text
    assert guard.csrf in text and guard.session not in text and guard.token not in text
    assert (
        text.count("<script") == 1
        and "<style" not in text
        and " style=" not in text
        and " on" not in text.replace("the page", "").lower().split("<body>")[0]
    )


def test_files_are_the_two_that_there_are(guard):
    for name in ("../server.py", "..%2fserver.py", "audit.html.jinja", "%2e%2e/book.py"):
        assert ask(guard, "GET", f"/static/{name}").status_code == 404


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "does not read"),
        (b"[]", "does not read"),
        (json.dumps(review(decision="maybe")).encode(), "does not read"),
        (json.dumps(review(extra=1)).encode(), "does not read"),
        (json.dumps(review(reviewer=" ")).encode(), "needs a name"),
        (json.dumps(review(reviewer="a\nb")).encode(), "needs a name"),
        (json.dumps(review(reviewer="x" * 81)).encode(), "needs a name"),
        (json.dumps(review(case=10**6)).encode(), "no case"),
    ],
)
def test_what_does_not_read_is_a_sentence(guard, body, says):
    answer = ask(guard, "POST", "/api/review", headers={"content-type": "application/json"}, content=body)
    assert answer.status_code == 400 and says in answer.json()["error"]


def test_a_conflict_is_409_and_shows_what_is_there(guard):
    assert ask(guard, "POST", "/api/review", json=review()).status_code == 200
    answer = ask(guard, "POST", "/api/review", json=review())
    assert answer.status_code == 409 and "in the meantime" in answer.json()["error"]
    assert answer.json()["now"][0]["decision"] == "cannot_tell"
    duty = {"key": "polite", "action": "retire", "version": 1, "reason": "old"}
    assert ask(guard, "POST", "/api/duty", json=duty | {"reviewer": "ana"}).status_code == 200
    answer = ask(guard, "POST", "/api/duty", json=duty | {"reviewer": "bo"})
    assert answer.status_code == 409 and "ana (retire" in answer.json()["error"]
    assert answer.json()["now"]["status"] == "retired"


def test_an_edited_duty_must_still_be_one(guard):
    def edit(**fields):
        body = {"key": "polite", "reviewer": "ana", "action": "edit", "version": 1, "reason": "why", "fields": fields}
        return ask(guard, "POST", "/api/duty", json=body)

    for fields, says in (
        ({"check": "type: called\n  tool: x"}, "no YAML"),
        ({"check": "type: nothing"}, "not as it should be"),
        ({"check": "!!python/object/apply:os.system [id]"}, "no YAML"),
        ({"question": "  "}, "question"),
        ({"id": "other"}, "cannot be edited"),
        ({"severity": "huge"}, "not as it should be"),
    ):
        answer = edit(**fields)
        assert answer.status_code == 400 and says in answer.json()["error"], fields
    made = edit(check="type: called\ntool: greet", question="Was the customer greeted?").json()["duty"]
    assert made["edited"] and "greet" in made["check"] and made["version"] == 2


def test_others_reviews_are_shown_only_to_who_has_decided(guard):
    ask(guard, "POST", "/api/review", json=review(reviewer="bo", reason="hard"))
    assert ask(guard, "GET", "/api/cases/0?reviewer=ana").json()["others"] == 1
    assert "hard" not in ask(guard, "GET", "/api/state?reviewer=ana").text
    ask(guard, "POST", "/api/review", json=review(reviewer="ana"))
    assert ask(guard, "GET", "/api/cases/0?reviewer=ana").json()["others"][0]["reason"] == "hard"


def test_only_this_machine_is_served_unless_told_otherwise():
    assert is_loopback("127.0.0.1") and is_loopback("::1") and is_loopback("localhost") and is_loopback("127.9.9.9")
    for host in ("0.0.0.0", "::", "192.168.0.7", "example.org", ""):
        assert not is_loopback(host)
        with pytest.raises(ConfigError, match="allow-remote"):
            ServeConfig(place="a", host=host)
        ServeConfig(place="a", host=host, allow_remote=True)


def test_the_command_prints_an_address_that_works_and_nothing_works_without_it(tmp_path):
    with served(audit(tmp_path)) as (address, _), httpx.Client() as client:
        base = address.split("/?")[0]
        assert base.startswith("http://127.0.0.1:")
        assert client.get(f"{base}/api/state").status_code == 401
        assert client.get(address, follow_redirects=True).status_code == 200
        assert len(client.get(f"{base}/api/state").json()["cases"]) == 40
        assert client.get(f"{base}/", headers={"host": "evil.example"}).status_code == 421


def test_a_killed_server_loses_nothing_that_it_answered(tmp_path):
    place = audit(tmp_path)
    with served(place) as (address, process), httpx.Client() as client:
        base = address.split("/?")[0]
        page = client.get(address, follow_redirects=True).text
        csrf = page.split('name="csrf" content="')[1].split('"')[0]
        headers = {"origin": base, "x-cm2-csrf": csrf}
        for case in range(5):
            assert client.post(f"{base}/api/review", json=review(case=case), headers=headers).status_code == 200
        process.kill()
        process.wait(30)
    with Book(place) as book:
        assert [one.case for one in book.reviews()] == [0, 1, 2, 3, 4]
