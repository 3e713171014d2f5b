"""The viewer in a real browser: evidence, filters, keys, both schemes, a phone, thousands of dialogues, and attacks."""

from __future__ import annotations

import http.server
import json
import threading
from pathlib import Path

import msgspec
import pytest
from browser import BINARY, Browser
from judged_logs import Files, payloads, row, sample, verdicts, write

from cm2.checklist import Checklist, Item
from cm2.report import DiagnosisConfig, write_diagnosis
from cm2.verdict import Pointer, Verdict

pytestmark = pytest.mark.skipif(BINARY is None, reason="there is no chromium on this machine")


@pytest.fixture(scope="module")
def browser():
    with Browser() as found:
        yield found


def report(files: Files, target: Path, **settings) -> Path:
    config = DiagnosisConfig(
        logs=files.logs, verdicts=files.verdicts, policy=files.policy, outputs=[str(target)], **settings
    )
    write_diagnosis(config)
    return target


@pytest.fixture(scope="module")
def single(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("single")
    return report(sample(folder / "data", 40, 3), folder / "r.html")


@pytest.fixture(scope="module")
def beside(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("beside # 1%")
    return report(sample(folder / "data", 2500, 3), folder / "r.html")


def opened(browser: Browser, page: Path | str) -> None:
    browser.complaints.clear(), browser.requests.clear(), browser.dialogs.clear()
    browser.open(page)
    browser.until("performance.getEntriesByName('cm2-all').length")


def choose(browser: Browser, name: str, value: str) -> None:
    browser.run(
        f"(() => {{ const e = document.getElementById('by-{name}'); e.value = {json.dumps(value)};"
        " e.dispatchEvent(new Event('input')) })()"
    )


COUNT = "document.getElementById('count').textContent"
HEAD = "document.querySelector('.pane-head b')?.textContent"
LIT = "[...document.querySelectorAll('#dialogue .on')].map((e) => e.textContent)"
PRESSED = "[...document.querySelectorAll('.verdict[aria-pressed=true] .name')].map((e) => e.textContent)"


def test_a_single_file_loads_nothing_else_and_complains_of_nothing(browser, single):
    opened(browser, single)
    assert browser.complaints == []
    assert browser.requests == [single.resolve().as_uri()]
    assert browser.run(COUNT) == "40 of 40"


def test_a_click_on_a_verdict_shows_its_evidence_and_a_second_one_lets_go(browser, single):
    opened(browser, single)
    browser.run("document.querySelector('.item').click()")
    assert browser.until(HEAD) == "d0"
    assert browser.run(LIT) == []
    browser.run("document.querySelector('.verdict.f').click()")
    assert browser.run(LIT) == ['book({"seats":4})']
    assert browser.run(PRESSED) == ["confirm"]
    browser.run("document.querySelector('.verdict.f').click()")
    assert browser.run(LIT) == [] == browser.run(PRESSED)


def test_evidence_out_of_sight_is_scrolled_into_sight(browser, tmp_path):
    long = row("d0", "hello " * 900, "Booked for you " + "and more " * 700)
    [first, *others] = verdicts("d0", confirm=False)
    store = [
        msgspec.structs.replace(first, evidence=[Pointer(1, 0, "assistant.content.user_visible_reply", "welcome")]),
        *others,
    ]
    opened(browser, report(write(tmp_path / "data", [long], store), tmp_path / "r.html"))
    browser.run("document.querySelector('.item').click()")
    browser.until(HEAD)
    seen = (
        "(() => { const m = [...document.querySelectorAll('.talk mark')].find((e) => e.textContent === 'welcome')"
        ".getBoundingClientRect(), t = document.querySelector('.talk').getBoundingClientRect();"
        " return m.top >= t.top && m.bottom <= t.bottom })()"
    )
    assert browser.run(seen) is False
    browser.run("document.querySelector('.verdict.f').click()")
    assert browser.run(seen) is True
    assert browser.run(LIT) == ["welcome"]


def test_from_the_evidence_to_its_verdict(browser, single):
    opened(browser, single)
    browser.run("document.querySelector('.item').click()")
    browser.until(HEAD)
    browser.run("document.querySelector('.talk .call mark').click()")
    assert browser.run(PRESSED) == ["confirm"]


def test_filters_leave_the_dialogues_with_such_an_outcome(browser, single):
    opened(browser, single)
    number = browser.run("[...document.querySelectorAll('#by-duty option')].find((e) => e.text === 'confirm').value")
    choose(browser, "result", "f")
    assert browser.run(COUNT) == "3 of 40"
    choose(browser, "duty", number)
    assert browser.run(COUNT) == "3 of 40"
    choose(browser, "result", "p")
    assert browser.run(COUNT) == "37 of 40"
    llm = browser.run("[...document.querySelectorAll('#by-judge option')].find((e) => e.text === 'llm').value")
    choose(browser, "judge", llm)
    assert browser.run(COUNT) == "0 of 40"  # the checks decided that duty
    browser.run("document.getElementById('clear').click()")
    choose(browser, "text", "D17")
    assert browser.run(COUNT) == "1 of 40"
    choose(browser, "text", "table 3")
    assert browser.run(COUNT) == "11 of 40"  # 3 and 30 to 39, by their first words


def test_the_order_can_be_the_lowest_score_first(browser, single):
    opened(browser, single)
    choose(browser, "order", "score")
    scores = (
        "[...document.querySelectorAll('.item:not([hidden]) .score')]"
        ".map((e) => [e.closest('.item').id, +e.textContent])"
    )
    found = sorted(browser.run(scores), key=lambda one: int(one[0].split("-")[1]))
    values = [score for _, score in found]
    assert values == sorted(values) and values[0] < 0.5


def test_a_number_of_the_table_leads_to_its_dialogues_and_their_evidence(browser, single):
    opened(browser, single)
    rows = "[...document.querySelectorAll('.duties-table tr')]"
    browser.run(f"{rows}.find((e) => e.textContent.includes('confirm')).querySelector('.go.unmet').click()")
    assert browser.until(HEAD) == "d0"
    assert browser.run(COUNT) == "3 of 40"
    assert browser.run(LIT) == ['book({"seats":4})']
    assert browser.run("document.querySelectorAll('.verdict:not(.dim)').length") == 1


def test_an_example_of_a_mode_opens_that_dialogue(browser, single):
    opened(browser, single)
    browser.run("[...document.querySelectorAll('.mode .go[data-open]')].find((e) => e.textContent === 'd2').click()")
    assert browser.until(HEAD) == "d2"
    assert browser.run(PRESSED) == ["confirm"]
    assert browser.run("location.hash") == "#dialogue-2"
    assert browser.run(COUNT) == "3 of 40"


def test_an_address_with_a_dialogue_opens_it(browser, single):
    opened(browser, single.resolve().as_uri() + "#dialogue-5")
    assert browser.until(HEAD) == "d5"


def test_everything_can_be_done_from_the_keyboard(browser, single):
    opened(browser, single)
    browser.run("document.getElementById('list').focus()")
    browser.press("ArrowDown")
    assert browser.until(HEAD) == "d0"
    browser.press("End")
    browser.until(f"{HEAD} === 'd39'")
    assert browser.run("document.getElementById('list').getAttribute('aria-activedescendant')") == "row-39"
    assert browser.run("document.getElementById('row-39').getAttribute('aria-selected')") == "true"
    browser.press("Home")
    browser.until(f"{HEAD} === 'd0'")
    browser.press("j")
    browser.until(f"{HEAD} === 'd1'")
    browser.press("k")
    browser.until(f"{HEAD} === 'd0'")
    browser.press("n")
    first = browser.run(PRESSED)
    browser.press("n")
    assert len(first) == 1 and browser.run(PRESSED) != first
    browser.press("p")
    assert browser.run(PRESSED) == first
    browser.press("f")
    assert browser.run("document.querySelector('.verdict[aria-pressed=true]').classList.contains('f')")
    browser.press("/")
    assert browser.run("document.activeElement.id") == "by-text"
    for key in "d7":
        browser.press(key)
    assert browser.run(COUNT) == "1 of 40"
    browser.press("Escape")
    assert browser.run("document.activeElement.id") == "list"


def brightness(browser: Browser, selector: str, what: str) -> float:
    colour = browser.run(f"getComputedStyle(document.querySelector('{selector}')).{what}")
    channels = [float(part) for part in colour.partition("(")[2].rstrip(")").replace(",", " ").split()[:3]]
    return sum(channels) / 765


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_the_viewer_follows_the_colour_scheme(browser, single, scheme, dark):
    browser.scheme(scheme)
    opened(browser, single)
    browser.run("document.querySelector('.item').click()")
    browser.until(HEAD)
    assert (brightness(browser, "#list", "backgroundColor") < 0.5) == dark
    assert (brightness(browser, ".verdict .ask", "color") > 0.5) == dark
    browser.scheme("light")


def test_on_a_phone_nothing_is_too_wide_and_a_dialogue_takes_the_screen(browser, single):
    browser.send("Emulation.setDeviceMetricsOverride", width=400, height=800, deviceScaleFactor=1, mobile=True)
    try:
        opened(browser, single)
        assert browser.run("document.documentElement.scrollWidth") == 400
        assert browser.run("getComputedStyle(document.getElementById('dialogue')).display") == "none"
        browser.run("document.querySelector('.item').click()")
        browser.until(HEAD)
        size = browser.run("document.getElementById('dialogue').getBoundingClientRect().toJSON()")
        assert (size["width"], size["height"]) == (400, 800)
        browser.run("document.querySelector('.verdict.f').click()")
        assert browser.run(LIT) == ['book({"seats":4})']
        browser.run("document.querySelector('.back').click()")
        assert browser.run("getComputedStyle(document.getElementById('dialogue')).display") == "none"
    finally:
        browser.send("Emulation.setDeviceMetricsOverride", width=1440, height=1000, deviceScaleFactor=1, mobile=False)


def test_thousands_of_dialogues_are_loaded_in_parts_and_only_a_screenful_is_drawn(browser, beside):
    opened(browser, beside)
    assert browser.complaints == []
    loaded = [url.rsplit("/", 1)[1] for url in browser.requests]
    assert loaded == ["r.html", "index-0.js", "index-1.js", "index-2.js"]
    assert browser.run(COUNT) == "2,500 of 2,500"
    assert browser.run("document.querySelectorAll('.item').length") < 60
    browser.run("document.getElementById('list').scrollTop = 1e9")
    browser.until("!!document.getElementById('row-2499')")
    assert browser.run("document.querySelectorAll('.item').length") < 60
    browser.run("document.getElementById('row-2499').click()")
    assert browser.until(HEAD) == "d2499"
    assert [url.rsplit("/", 1)[1] for url in browser.requests[4:]] == ["part-49.js"]
    assert browser.complaints == []


def test_the_folder_works_over_http_too(browser, beside):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(beside.parent))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        opened(browser, f"http://127.0.0.1:{server.server_port}/r.html")
        browser.run("document.querySelector('.item').click()")
        assert browser.until(HEAD) == "d0"
        assert [one for one in browser.complaints if "favicon" not in one and "404" not in one] == []
    finally:
        server.shutdown()
        server.server_close()


def test_dialogues_that_are_missing_or_of_another_report_are_told(browser, tmp_path):
    page = report(sample(tmp_path / "data", 4, 1), tmp_path / "r.html", folder=True)
    part = tmp_path / "r.data/part-0.js"
    text = part.read_text()
    part.write_text('cm2data("another",' + text.split(",", 1)[1])
    opened(browser, page)
    browser.run("document.querySelector('.item').click()")
    browser.until("document.querySelector('#dialogue .empty')?.textContent.includes('belongs to another report')")
    part.unlink()
    opened(browser, page)
    browser.run("document.querySelector('.item').click()")
    browser.until("document.querySelector('#dialogue .empty')?.textContent.includes('part-0.js is missing')")
    part.write_text(text)
    browser.run("document.querySelector('.item').click()")
    browser.until(f"{HEAD} === 'd0'")


def hostile(folder: Path) -> DiagnosisConfig:
    """A dialogue for every attack, with the attack in every place that takes text."""
    rows, store = [], []
    for number, text in enumerate(payloads()):
        one = row(f"{number}{text}".replace("\ud800", "?"), text, text)
        one["source"] = text
        one["tools"][0]["function"] |= {"name": text, "description": text}
        system, _, call, result, _, _, last = one["messages"]
        system["content"] = result["content"] = last["content"] = last["reasoning_content"] = call["content"] = text
        call["tool_calls"][0]["function"] = {"name": text, "arguments": json.dumps({text: [text, {"x": text}]})}
        call["tool_calls"].append({"id": "c2", "type": "function", "function": {"name": text, "arguments": text}})
        text = text.replace("\ud800", "?")  # a judge's store is UTF-8
        parts = ("assistant.tool_calls", "tool.content", "assistant.content.user_visible_reply", text)
        pointers = [Pointer(turn, step, part, text) for turn in (0, 1) for step in (0, 1) for part in parts]
        lists = []
        for turn, met in ((-1, False), (-1, None), (0, True), (1, False)):
            id = f"{turn}{met}{text}"
            duty = Item(id, "assistant.tool_calls", text, text, 1.0, severity="critical", owner=text, kind=text)
            lists.append(msgspec.to_builtins(Checklist(turn, [duty], variant=len(lists), labeler=text)))
            said = {"reason": text} if met is not None else {"reason": f"unscored: {text}: {text}", "owner": text}
            verdict = Verdict(
                one["id"], turn, min(turn, 0), id, met, len(lists) - 1, evidence=pointers, judge=text, **said
            )
            store.append(verdict)
        rows.append(one | {"checklists": lists})
    files = write(folder, rows, store)
    return DiagnosisConfig(logs=files.logs, verdicts=files.verdicts)


SURVEY = """(async () => {
  document.querySelectorAll("details").forEach((e) => { e.open = true });
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  const told = { opened: 0, texts: 0, bad: [] };
  const list = document.getElementById("list");
  list.focus();
  const total = %d;
  for (let n = 0; n < total; n++) {
    list.dispatchEvent(new KeyboardEvent("keydown", { key: n ? "ArrowDown" : "Home", bubbles: true }));
    for (let tries = 0; tries < 5000 && location.hash !== `#dialogue-${n}`; tries++) await wait(2);
    const pane = document.getElementById("dialogue");
    pane.querySelectorAll("details").forEach((e) => { e.open = true });
    pane.querySelectorAll(".verdict, .talk mark").forEach((e) => e.click());
    told.opened += pane.querySelectorAll(".talk .user").length === 2;
    told.texts += [...pane.querySelectorAll(".talk .text")].filter((e) => e.textContent.length > 2).length >= 5;
  }
  for (const select of document.querySelectorAll("select")) for (const option of select.options) {
    if (option.index > 12) break;
    select.value = option.value;
    select.dispatchEvent(new Event("input"));
  }
  document.getElementById("clear").click();
  document.querySelectorAll(".go").forEach((e, n) => { if (n %% 9 === 0) e.click() });
  await wait(300);
  const allowed = new Set(`html head meta title style body header div b span nav a button main h1 h2 h3 h4 section
    details summary ul ol li p table caption thead tbody tr th td data svg rect figure figcaption code label select
    option input article kbd noscript footer script mark em`.split(/\\s+/));
  const loads = ["src", "srcdoc", "action", "formaction", "ping", "xlink:href", "srcset", "poster"];
  const ours = /^(transform: translateY\\(\\d+px\\);|height: \\d+px;)$/;
  for (const e of document.querySelectorAll("*")) {
    if (!allowed.has(e.localName)) told.bad.push(e.localName);
    for (const a of e.attributes) {
      if (a.name.startsWith("on") || loads.includes(a.name)) told.bad.push(`${e.localName} ${a.name}`);
      if (a.name === "href" && !["#duties", "#modes", "#dialogues"].includes(a.value)) told.bad.push(a.value);
      if (a.name === "style" && !ours.test(a.value)) told.bad.push(a.value);
    }
  }
  told.canary = typeof window.__xss;
  told.proto = [typeof ({}).onload, typeof ({}).textContent];
  return told;
})()"""


@pytest.mark.parametrize("folder", [False, True])
def test_no_attack_of_the_corpus_runs_loads_or_changes_anything(browser, tmp_path, folder):
    attacks = payloads()
    assert len(attacks) >= 60
    page = tmp_path / "r.html"
    config = msgspec.structs.replace(hostile(tmp_path / "data"), outputs=[str(page)], folder=folder)
    assert write_diagnosis(config).shown == len(attacks)
    opened(browser, page)
    told = browser.run(SURVEY % len(attacks))
    assert told == {
        "opened": len(attacks), "texts": len(attacks), "bad": [], "canary": "undefined", "proto": ["undefined"] * 2,
    }  # fmt: skip
    assert browser.complaints == [] and browser.dialogs == []
    home = tmp_path.resolve().as_uri()
    assert all(url.startswith((f"{home}/r.html", f"{home}/r.data/")) for url in browser.requests)
    assert browser.run("performance.getEntriesByType('resource').every((e) => e.name.startsWith('file:'))")


def test_the_guards_themselves_bite(browser, single):
    """Were the script ever to take a string for markup or an address, the browser would refuse."""
    opened(browser, single)
    tries = {
        "document.body.innerHTML = '<img src=x onerror=window.__xss=1>'": "TrustedHTML",
        "document.createElement('script').src = 'https://xss.invalid/a.js'": "TrustedScriptURL",
        "setTimeout('window.__xss=1')": "TrustedScript",
        "trustedTypes.createPolicy('mine', {})": "policy",
    }
    for script, word in tries.items():
        assert (
            word.lower()
            in browser.run(
                f"(() => {{ try {{ {script}; return 'allowed' }} catch (e) {{ return String(e) }} }})()"
            ).lower()
        )
    browser.run(
        "document.head.append(Object.assign(document.createElement('style'), {textContent: 'body{opacity:0}'}))"
    )
    assert browser.run("getComputedStyle(document.body).opacity") == "1"
    assert browser.run("fetch('https://xss.invalid/').then(() => 'allowed', (e) => 'refused')") == "refused"
    browser.run(
        "new Promise((done) => { const i = new Image(); i.onerror = i.onload = done; i.src = 'data:image/gif;,' })"
    )
    assert any("violates" in one for one in browser.complaints)
    assert browser.run("typeof window.__xss") == "undefined"
