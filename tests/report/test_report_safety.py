"""Whatever a transcript holds, the page holds it as text: no element, attribute or link comes from the data."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from fabricated import good, write_json, write_lines, write_run
from page_reader import Page

from cm2.report import ReportConfig, write_report
from cm2.report.page import digest
from cm2.rollout.trace import encode

ATTACKS = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "--><!-- <b>",
    '"><a href="javascript:alert(1)">x</a>',
    "' onmouseover='alert(1)",
    "[click](javascript:alert(1)) ![x](https://evil.example/p.png)",
    "https://evil.example/?q=1",
    "{{ 7 * 7 }}{% include 'x' %}",
    "<iframe srcdoc='<script>1</script>'>",
    "</textarea></title></details></table><plaintext>",
    "&lt;script&gt;&#x3c;script&#x3e;",
    "]]><![CDATA[<script>1</script>",
    "$\\frac{1}{2}$ $_{",
    "%s %d {0} %(x)s",
)
INVISIBLE = (
    "nul\x00 esc\x1b[31m red\x1b[0m bidi\u202egnp.exe\u202c iso\u2066x\u2069 zero\u200bwidth bom\ufeff sep\u2028 "
    "tag\U000e0041 c1\x9b del\x7f"
)
LONE = "lone \ud800 surrogate"
SECRETS = (
    "sk-proj-ABCDEFGHIJ0123456789",
    "Bearer abcdef0123456789ABCDEF",
    "api_key=SECRETVALUE12345",
    "?key=SECRETVALUE12345",
    '{"password": "SECRETVALUE12345"}',
    "https://user:SECRETVALUE12345@example.org/",
    "ghp_SECRETVALUE12345SECRETVALUE12345",
    "-----BEGIN RSA PRIVATE KEY-----\nSECRETVALUE12345\n-----END RSA PRIVATE KEY-----",
)


def poisoned(folder: Path, text: str) -> Path:
    """A run in which `text` stands in every place that takes text."""
    rollout = json.loads(encode(good("task")))

    def spoil(value, name=""):
        if isinstance(value, dict):
            return {key: spoil(each, key) for key, each in value.items()}
        if isinstance(value, list):
            return [spoil(each, name) for each in value]
        keep = ("focus_on", "part", "from", "item", "id", "call_id", "depends_on")
        return value + text if isinstance(value, str) and name not in keep else value

    spoiled = spoil(rollout)
    for verdict in spoiled["verdicts"]:
        for pointer in verdict.get("evidence", []):
            pointer["snippet"] = pointer["snippet"].replace(text, "") or text
    spoiled["checklists"][0]["items"][0]["id"] = "C0" + text
    spoiled["dialogue"]["turns"][0]["steps"][0]["calls"][0]["arguments"] = {text: [text, {"x": text}]}
    spoiled["dialogue"]["turns"][0]["steps"][0]["responses"][0]["origin"] = text
    write_lines(folder / "eval" / "rl" / "rollouts.jsonl", [spoiled])
    write_lines(
        folder / "rl" / "rollouts" / "step-00001.jsonl",
        [spoiled, {**spoiled, "member": 1, "failure": {"owner": text, "message": text}}],
    )
    write_json(
        folder / "eval" / "rl" / "summary.json",
        {
            "name": text,
            "split": text,
            "mode": text,
            "model": text,
            "reward": 0.5,
            "kinds": {text: {"passed": 3, "failed": 1}},
            "reasons": {text: 3},
            "failures": {text: 1},
        },
    )
    write_json(
        folder / "summary.json",
        {
            "verdict": text,
            "comparison": [{"split": text, "mode": text, "metric": text, "before": 1}],
            "stages": [{"name": text, "seconds": 3}],
        },
    )
    write_lines(folder / "rl" / "metrics.jsonl", [{"step": n, "reward": n, text: n} for n in range(3)])
    write_json(folder / "rl" / "config.json", {text: text, "nested": {text: [text]}})
    return folder


def report(run: Path) -> str:
    output = run.parent / "r.html"
    write_report(ReportConfig(run=str(run), output=str(output)))
    return output.read_text(encoding="utf-8")


def skeleton(html: str) -> Counter:
    """The elements of the page with the names of their attributes."""
    return Counter((node.tag, tuple(sorted(node.own))) for node in Page(html).walk())


@pytest.fixture(scope="module")
def harmless(tmp_path_factory) -> str:
    return report(poisoned(tmp_path_factory.mktemp("harmless") / "run", "harmless"))


@pytest.mark.parametrize("attack", [ATTACKS[0], *(" ".join(ATTACKS[n::4]) for n in range(4)), " ".join(ATTACKS)])
def test_an_attack_changes_no_element_and_no_attribute_of_the_page(tmp_path, harmless, attack, monkeypatch):
    monkeypatch.setattr("cm2.report.transcript.LONGEST", 1_000_000)  # a text that is cut says so in an element
    html = report(poisoned(tmp_path / "run", attack))
    found, expected = skeleton(html), skeleton(harmless)
    svg = {"text", "g", "path", "defs", "use", "clippath", "rect"}  # a chart's ticks may differ with the text
    assert {key: n for key, n in found.items() if key[0] not in svg} == {
        key: n for key, n in expected.items() if key[0] not in svg
    }
    assert set(found) <= set(expected) | {("text", names) for _, names in found}
    text = Page(html).content
    assert attack.split()[0] in text  # it is there to be read


def test_no_link_leaves_the_page_and_nothing_is_loaded(tmp_path):
    page = Page(report(poisoned(tmp_path / "run", " ".join(ATTACKS))))
    for node in page.walk():
        for name in ("href", "xlink:href", "src", "srcset", "action", "formaction", "data", "poster", "background"):
            value = node.own.get(name)
            assert value is None or value.startswith("#"), (node.tag, name, value)
        assert node.tag not in ("img", "iframe", "object", "embed", "link", "form", "base", "image", "foreignobject")
        assert not [name for name in node.own if name.startswith("on") or name == "style"]
    inside = [node.own["xlink:href"][1:] for node in page.walk() if "xlink:href" in node.own]
    ids = [node.own["id"] for node in page.walk() if "id" in node.own]
    assert set(inside) <= set(ids) and len(ids) == len(set(ids))


def test_the_policy_allows_only_this_style_sheet_and_this_script(tmp_path):
    html = report(write_run(tmp_path / "run", trainings=False))
    page = Page(html)
    policy = page.find("meta")[1].own["content"]
    [style], [script] = page.find("style"), page.find("script")
    assert policy == (
        f"default-src 'none'; style-src '{digest(style.content)}'; script-src '{digest(script.content)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    assert html.index("Content-Security-Policy") < html.index("<style>")


def test_invisible_characters_are_shown(tmp_path):
    html = report(poisoned(tmp_path / "run", INVISIBLE))
    shown = "nul␀ esc␛[31m red␛[0m bidi⟨U+202E⟩gnp.exe⟨U+202C⟩ iso⟨U+2066⟩x⟨U+2069⟩ zero⟨U+200B⟩width bom⟨U+FEFF⟩ "
    assert shown + "sep⟨U+2028⟩ tag⟨U+E0041⟩ c1⟨U+009B⟩ del␡" in Page(html).text("h1")[0] + " "
    assert not re.findall(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]", html
    )


def test_a_lone_surrogate_survives(tmp_path):
    page = Page(report(poisoned(tmp_path / "run", LONE)))
    assert any("lone ⟨U+D800⟩ surrogate" in text for case in page.cases for text in case.text("div", "text"))
    assert not page.find("li", "problem")


@pytest.mark.parametrize("secret", SECRETS)
def test_credentials_do_not_reach_the_page(tmp_path, secret):
    html = report(poisoned(tmp_path / "run", f" {secret} "))
    for part in ("SECRETVALUE12345", "ABCDEFGHIJ0123456789", "abcdef0123456789ABCDEF"):
        assert part not in html
    assert "[hidden]" in html


def test_a_key_in_a_configuration_is_hidden_by_its_name(tmp_path):
    write_json(tmp_path / "run" / "config.json", {"endpoint": {"api_key": "abcd1234efgh"}})
    write_lines(tmp_path / "run" / "metrics.jsonl", [{"step": 1, "loss": 2.0}])
    html = report(tmp_path / "run")
    assert "abcd1234efgh" not in html
    assert "endpoint.api_key" in html
