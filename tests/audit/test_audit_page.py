"""The review page in a real browser: by mouse, by keys, for two people at once, and whatever a log holds."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from audits import audit, served

from cm2.assure.audit.book import Book
from report.browser import BINARY, Browser

pytestmark = pytest.mark.skipif(BINARY is None, reason="there is no chromium on this machine")
ATTACKS = (
    "<script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    "<svg/onload=window.hacked=1>",
    "\"><a href='javascript:window.hacked=1'>x</a>",
    "</script><script>window.hacked=1</script>",
    "</textarea></title><iframe srcdoc='<script>parent.hacked=1</script>'>",
    "[x](javascript:window.hacked=1) ![x](http://127.0.0.1:9/p.png)",
    "{{ 7*7 }}{% raw %}",
    "\u202egnp.exe\u202c\u200b",
)


class Page(Browser):
    """A browser on the review page."""

    def enter(self, address: str, name: str) -> None:
        self.send("Page.navigate", url=address)
        self.until("document.querySelector('#name-dialog') || document.querySelector('#talk .turn')")
        if self.run("!!document.querySelector('#name-dialog')"):
            self.run(f"document.getElementById('name').value = {json.dumps(name)}")
            self.run("document.querySelector('#name-dialog form').requestSubmit()")
        self.until("document.querySelector('#talk .turn')")

    def until(self, condition: str) -> None:
        deadline = time.monotonic() + 60
        while not self.run(f"!!({condition})"):
            assert time.monotonic() < deadline, f"{condition}: {self.run('document.body.innerText')[:500]}"
            time.sleep(0.05)

    def key(self, key: str, **more) -> None:
        text = {"text": key} if len(key) == 1 and not more else {}
        code = {"windowsVirtualKeyCode": 13} if key == "Enter" else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, **text, **code, **more)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, **code, **more)

    def type(self, text: str) -> None:
        self.send("Input.insertText", text=text)

    def press(self, key: str, **more) -> int:
        """Press a key, wait until the page is done with it; the case that is then open."""
        self.key(key, **more)
        self.until("!page.busy")
        return self.current()

    def only(self, filter: str, value: str) -> int:
        """Set a filter and open the first case that passes it."""
        self.run(f"document.getElementById('f-{filter}').value = '{value}'")
        self.run(f"document.getElementById('f-{filter}').dispatchEvent(new Event('change'))")
        self.run("open(page.shown.find((one) => one.id !== page.at || page.shown.length === 1).id)")
        self.until("!page.busy")
        return self.current()

    def current(self) -> int:
        return int(self.run("page.current.id"))


@pytest.fixture(scope="module")
def browser():
    with Page() as found:
        yield found


@pytest.fixture
def place(tmp_path) -> str:
    return audit(tmp_path, count=24)


def kept(place: str) -> dict[tuple[int, str], tuple[str, str]]:
    with Book(place) as book:
        return {(one.case, one.reviewer): (one.decision, one.reason) for one in book.reviews()}


def kinds(place: str) -> dict[int, str]:
    with Book(place) as book:
        return {case.id: case.kind for case in book.cases()}


def fresh(browser: Page) -> None:
    """No cookie, no name, no complaint of before."""
    browser.send("Network.clearBrowserCookies")
    browser.run("location.protocol === 'http:' ? localStorage.clear() : 0")
    browser.complaints.clear(), browser.requests.clear()


def test_by_keys_only_accept_override_cannot_tell_and_back(browser, place):
    fresh(browser)
    with served(place) as (address, _):
        browser.enter(address, "Ana")
        assert "token" not in browser.run("location.href")
        first = browser.only("kind", "pass")
        assert browser.run("page.current.kind") == "pass"
        second = browser.press("a")
        browser.key("o")
        browser.until("document.activeElement.id === 'reason'")
        browser.type("it came too late")
        third = browser.press("Enter", modifiers=2)
        browser.press("u")
        assert browser.press("k") == third
        assert browser.press("j") != third and browser.press("k") == third
        assert "3 of 40 reviewed, 3 by you" in browser.run("document.getElementById('done').textContent")
        assert (
            browser.run("document.querySelector('[data-decision=cannot_tell]').getAttribute('aria-pressed')") == "true"
        )
    assert kept(place) == {
        (first, "Ana"): ("pass", ""),
        (second, "Ana"): ("fail", "it came too late"),
        (third, "Ana"): ("cannot_tell", ""),
    }
    assert browser.complaints == []


def test_an_override_without_a_reason_is_not_sent(browser, place):
    fresh(browser)
    with served(place) as (address, _):
        browser.enter(address, "Ana")
        at = browser.only("kind", "fail")
        assert browser.run(f"page.state.cases[{at}].kind") == "fail"
        browser.key("o")
        browser.key("Enter", modifiers=2)
        browser.until("document.getElementById('problem').textContent.includes('needs a reason')")
    assert kept(place) == {}


def test_evidence_is_highlighted_where_it_stands(browser, place):
    fresh(browser)
    with served(place) as (address, _):
        browser.enter(address, "Ana")
        browser.only("duty", "identity-first")
        browser.until("document.querySelector('#talk mark')")
        assert browser.run("document.querySelector('#talk mark').textContent").startswith('refund({"order":"o-')
        assert browser.run("document.querySelector('#duty h2').textContent").startswith("Was the customer identified")
        assert "find_customer" in browser.run("document.querySelector('#duty details pre').textContent")


def test_blind_shows_no_verdict_reason_or_evidence_before_the_decision(browser, place):
    fresh(browser)
    with served(place) as (address, _):
        browser.enter(address, "Ana")
        at = browser.only("duty", "identity-first")
        browser.key("b")
        browser.until("document.querySelector('[data-key=p]')")
        assert browser.run("document.querySelectorAll('#talk mark, .verdict, #list .pass, #list .fail').length") == 0
        browser.press("f")
    with Book(place) as book:
        assert [(one.case, one.decision, one.blind) for one in book.reviews()] == [(at, "fail", True)]


def test_of_two_windows_of_one_person_the_older_is_told_and_overwrites_nothing(browser, place):
    fresh(browser)
    with served(place) as (address, _):
        browser.enter(address, "Ana")
        at = browser.current()
        with Book(place) as book:  # the other window
            book.review(at, "Ana", "cannot_tell", reason="from elsewhere")
        browser.key("n")
        browser.run("document.getElementById('reason').value = 'mine'")
        browser.run("document.getElementById('save').click()")
        browser.until("document.getElementById('problem').textContent.includes('in the meantime')")
        assert "from elsewhere" in browser.run("document.getElementById('duty').innerText")
        assert browser.run("document.getElementById('reason').value") == "mine"  # what was typed is not lost
    assert kept(place) == {(at, "Ana"): ("cannot_tell", "from elsewhere")}


def test_duties_are_edited_retired_and_approved_with_name_and_reason(browser, place):
    fresh(browser)
    with served(place) as (address, _):
        browser.enter(address, "Bo")
        browser.key("d")
        browser.until("document.querySelector('[data-duty=polite]')")
        browser.run(
            "[...document.querySelectorAll('[data-duty=polite] button')].find((b) => b.textContent === 'Edit').click()"
        )
        browser.run("document.querySelector('[data-field=check]').value = 'type: nothing'")
        browser.run("document.getElementById('why').value = 'clearer'")
        browser.run("document.querySelector('#dialog form').requestSubmit()")
        browser.until("document.querySelector('#dialog .problem').textContent.includes('not as it should be')")
        browser.run("document.querySelector('[data-field=check]').value = ''")
        browser.run("document.querySelector('[data-field=question]').value = 'Is every reply polite?'")
        browser.run("document.querySelector('#dialog form').requestSubmit()")
        browser.until("document.querySelector('[data-duty=polite] .edited')")
        browser.run("change(find('identity-first'), 'retire')")
        browser.run("document.getElementById('why').value = 'moved elsewhere'")
        browser.run("document.querySelector('#dialog form').requestSubmit()")
        browser.until("document.querySelector('[data-duty=identity-first] .tag.retired')")
        log = browser.run("document.querySelector('.log').innerText")
        assert "Bo · retire · identity-first: moved elsewhere" in log and "Bo · edit · polite: clearer" in log
    with Book(place) as book:
        assert book.subject("polite").spec["question"] == "Is every reply polite?"
        assert book.subject("identity-first").status == "retired"


def test_whatever_a_log_and_its_verdicts_hold_is_text(browser, tmp_path):
    attack = " ".join(ATTACKS)
    files = audit_of(tmp_path, attack)
    fresh(browser)
    with served(files) as (address, _):
        base = address.split("/?")[0]
        browser.enter(address, "Ana <img src=x onerror=window.hacked=1>")
        for _ in range(4):
            browser.run("document.querySelectorAll('details').forEach((e) => { e.open = true })")
            assert "<script>window.hacked=1</script>" in browser.run("document.getElementById('talk').textContent")
            browser.press("j")
        browser.key("e")
        browser.until("document.querySelector('#dialog form')")
        browser.key("Escape", windowsVirtualKeyCode=27)
        browser.until("!document.querySelector('#dialog form')")
        browser.key("d")
        browser.until("document.querySelector('[data-duty]')")
        assert browser.run("window.hacked") is None
        assert browser.run("document.querySelectorAll('img, iframe, svg, a').length") == 0
        assert browser.run("document.querySelectorAll('script').length") == 1
        assert all(url.startswith(base) for url in browser.requests), browser.requests
        assert browser.complaints == []


def audit_of(folder: Path, attack: str) -> str:
    """An audit in which the text stands wherever a log, a verdict or a policy takes text."""
    import audits

    files = audits.logs(folder, 24, attack)

    def spoil(value, name=""):
        if isinstance(value, dict):
            return {key: spoil(each, key) for key, each in value.items()}
        if isinstance(value, list):
            return [spoil(each, name) for each in value]
        return value + attack if isinstance(value, str) and name in SPOILT else value

    for name in ("logs", "verdicts"):
        rows = [json.loads(line) for line in Path(files[name]).read_text().splitlines()]
        Path(files[name]).write_text("".join(json.dumps(spoil(row)) + "\n" for row in rows))
    import yaml

    policy = yaml.safe_load(Path(files["policy"]).read_text())
    Path(files["policy"]).write_text(yaml.safe_dump(spoil(policy)))
    from cm2.assure.audit import SampleConfig, draw
    from cm2.assure.audit.binding import write_sample

    place = str(folder / "audit.sqlite")
    write_sample(draw(SampleConfig(**files, count=30)), place)
    return place


SPOILT = ("content", "reason", "snippet", "judge", "question", "pass_condition", "owner", "arguments")


def test_a_stranger_sees_only_how_to_get_in(browser, place):
    fresh(browser)
    with served(place) as (address, _):
        browser.send("Page.navigate", url=address.split("?")[0])
        browser.until("document.body && document.body.innerText.includes('audit serve printed')")
        assert "identity" not in browser.run("document.documentElement.outerHTML")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_schemes_and_nothing_is_wider_than_a_phone(browser, place, scheme):
    fresh(browser)
    browser.scheme(scheme)
    with served(place) as (address, _):
        browser.enter(address, "Ana")
        for selector in ("body", "#list .ask", "#duty .muted", "#duty .verdict"):
            assert browser.run(CONTRAST % json.dumps(selector)) >= 4.5, selector
        browser.send("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
        for view in ("cases", "duties"):
            browser.run("duties()" if view == "duties" else "0")
            assert browser.run("document.documentElement.scrollWidth") <= 390, view
    browser.send("Emulation.setDeviceMetricsOverride", width=1440, height=1000, deviceScaleFactor=1, mobile=False)
    browser.scheme("light")


CONTRAST = """(() => {
  const light = (colour) => {
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((x) => x / 255);
    const [r, g, b] = parts.map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const element = document.querySelector(%s);
  let under = element;
  while (/, 0\\)$|transparent/.test(getComputedStyle(under).backgroundColor)) under = under.parentElement;
  const [a, b] = [getComputedStyle(element).color, getComputedStyle(under).backgroundColor].map(light);
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
})()"""
