"""The report in a real browser: silent, self-contained, right in both colour schemes, with evidence to point at."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import BINARY, Browser
from fabricated import write_run
from test_report_safety import ATTACKS, poisoned

from cm2.report import ReportConfig, write_report

pytestmark = pytest.mark.skipif(BINARY is None, reason="there is no chromium on this machine")


@pytest.fixture(scope="module")
def browser():
    with Browser() as found:
        yield found


def report(run: Path) -> Path:
    output = run.parent / "r.html"
    write_report(ReportConfig(run=str(run), output=str(output)))
    return output


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return report(write_run(tmp_path_factory.mktemp("browser") / "run"))


def brightness(browser: Browser, selector: str, what: str) -> float:
    colour = browser.run(f"getComputedStyle(document.querySelector('{selector}')).{what}")
    channels = [float(part) for part in colour.partition("(")[2].rstrip(")").replace(",", " ").split()[:3]]
    return sum(channels) / 765


def test_the_page_loads_nothing_and_complains_of_nothing(browser, file):
    browser.complaints.clear(), browser.requests.clear()
    browser.open(file)
    assert browser.complaints == []
    assert browser.requests == [file.resolve().as_uri()]


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_page_and_charts_follow_the_colour_scheme(browser, file, scheme, dark):
    browser.scheme(scheme)
    browser.open(file)
    assert (brightness(browser, "body", "backgroundColor") < 0.5) == dark
    assert (brightness(browser, "body", "color") > 0.5) == dark
    assert (brightness(browser, ".chart .fill-ink", "fill") > 0.5) == dark
    assert browser.run("getComputedStyle(document.querySelector('.charts .stroke-run2')).stroke") == (
        "rgb(183, 149, 255)" if dark else "rgb(128, 69, 221)"
    )


def test_the_theme_button_overrules_the_scheme(browser, file):
    browser.scheme("light")
    browser.open(file)
    browser.run("document.getElementById('theme').click()")
    browser.run("document.getElementById('theme').click()")
    assert browser.run("document.getElementById('theme').textContent") == "Theme: dark"
    assert brightness(browser, "body", "backgroundColor") < 0.5


def test_pointing_at_an_outcome_shows_its_step_and_evidence_and_a_click_keeps_them(browser, file):
    browser.open(file)
    browser.run("document.querySelector('.outcome[data-show=\"d0-2-0-0-1\"]').scrollIntoView({block: 'center'})")
    x, y = browser.run(
        "(() => { const r = document.querySelector('.outcome[data-show=\"d0-2-0-0-1\"]').getBoundingClientRect();"
        " return [r.x + 20, r.y + 8] })()"
    )
    shown = "[...document.querySelectorAll('.on')].map((e) => e.id || e.textContent)"
    call = 'book_table({"table_id":"tbl-4471","party_size":4})'
    browser.move(x, y)
    assert browser.run(shown) == ["d0-2-0-1", call]
    browser.move(5, 5)
    assert browser.run(shown) == []
    browser.move(x, y, click=True)
    browser.move(5, 5)
    assert browser.run(shown) == ["d0-2-0-1", call]


def test_nothing_is_wider_than_a_phone(browser, file):
    browser.send("Emulation.setDeviceMetricsOverride", width=400, height=800, deviceScaleFactor=1, mobile=True)
    browser.open(file)
    assert browser.run("document.documentElement.scrollWidth") == 400
    browser.send("Emulation.setDeviceMetricsOverride", width=1440, height=1000, deviceScaleFactor=1, mobile=False)


def test_attacks_run_nothing_load_nothing_and_break_no_policy(browser, tmp_path):
    file = report(poisoned(tmp_path / "run", " ".join(ATTACKS)))
    browser.complaints.clear(), browser.requests.clear()
    browser.open(file)
    browser.run("document.querySelectorAll('details').forEach((e) => { e.open = true })")
    assert browser.complaints == []
    assert browser.requests == [file.resolve().as_uri()]
    assert browser.run("document.querySelectorAll('script').length") == 1
    assert browser.run("document.querySelectorAll('img, iframe, plaintext, main a').length") == 0
