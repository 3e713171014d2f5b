"""What CI systems read: JUnit by its schema's rules, annotations that nothing breaks out of, harmless Markdown."""

import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm2.assure.gate_case import Case, GateResult, Rate, Rule
from cm2.assure.gate_markdown import code, markdown, owners, plain
from cm2.assure.github import SHOWN, annotated, append_summary, command, duty_line, no_commands
from cm2.assure.junit import junit, write_junit

HOSTILE = (
    "]]> <b>&amp;\x00\x07\x1b[31m\ud800\ufffe\r\n::error::x\n::set-env name=A::b\n##[error]y | `x` ![a](http://e.vil)"
    "\u2028@everyone <script>alert(1)</script> %0A"
)


def case(status, name="d1", duty="duty", **fields):
    return Case(name, duty, "critical", question="Asked?", status=status, **fields)


def result(*cases, rules=(), **fields):
    return GateResult("suite", "failed", at="2026-01-02T03:04:05+00:00", cases=list(cases), rules=list(rules), **fields)


def schema(root):
    """The rules of Jenkins' and Surefire's schemas: names, nesting, required attributes, and counts that add up."""
    assert root.tag == "testsuites"
    for suite in root:
        assert suite.tag == "testsuite" and suite.get("name")
        assert all(suite.get(name).isdigit() for name in ("tests", "failures", "errors", "skipped"))
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp"))
        tests = suite.findall("testcase")
        order = [child.tag for child in suite]
        assert order == sorted(order, key=("properties", "testcase").index) and order.count("properties") <= 1
        for test in tests:
            assert test.get("name") and test.get("classname") and float(test.get("time")) >= 0
            assert [child.tag for child in test] in ([], ["failure"], ["error"], ["skipped"], ["system-out"])
            assert all(child.get("type") for child in test if child.tag in ("failure", "error"))
        assert len(tests) == int(suite.get("tests"))
        for count, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert len(suite.findall(f"testcase/{tag}")) == int(suite.get(count))
    for name in ("tests", "failures", "errors"):
        assert int(root.get(name)) == sum(int(suite.get(name)) for suite in root)


def test_each_status_has_its_own_element():
    rules = [Rule("r1", "passed", "m"), Rule("r2", "failed", "m"), Rule("r3", "undecided", "m")]
    statuses = ("passed", "failed", "flaky", "unscored", "not_applicable", "not_judged")
    root = ET.fromstring(junit(result(*(case(status, status) for status in statuses), rules=rules)))
    schema(root)
    found = {test.get("name"): [child.tag for child in test] for test in root.iter("testcase")}
    assert found == {
        "r1": [],
        "r2": ["failure"],
        "r3": ["error"],
        "passed": [],
        "failed": ["failure"],
        "flaky": ["system-out"],
        "unscored": ["error"],
        "not_applicable": ["skipped"],
        "not_judged": ["skipped"],
    }


def test_hostile_text_is_text(tmp_path):
    one = result(
        case("failed", HOSTILE, HOSTILE, reason=HOSTILE, owner=HOSTILE), rules=[Rule(HOSTILE, "failed", HOSTILE)]
    )
    root = ET.fromstring(junit(one))
    schema(root)
    assert {element.tag for element in root.iter()} == {
        *("testsuites", "testsuite", "properties", "property", "testcase", "failure")
    }
    test = root.find("testsuite[2]/testcase")
    assert "\\x00" in test.find("failure").text and "<script>" in test.get("name")
    write_junit(one, str(tmp_path / "j.xml"))
    assert ET.parse(tmp_path / "j.xml").getroot().tag == "testsuites"


@given(st.text(st.characters(codec=None, exclude_categories=[])))
def test_any_text_at_all_gives_xml_that_parses_and_one_command_line(text):
    root = ET.fromstring(junit(result(case("failed", "a" + text, reason=text))))
    schema(root)
    line = command("error", text, title=text, file=text)
    assert line.startswith("::error") and len(line.splitlines()) == 1 and line.encode()


def unescaped(text):
    return text.replace("%0D", "\r").replace("%0A", "\n").replace("%3A", ":").replace("%2C", ",").replace("%25", "%")


def test_a_command_is_read_back_as_it_was_meant():
    line = command("error", "100 % of\n::error::it", title="a, b: c %", file="x,y.yaml", line=3)
    assert line == "::error file=x%2Cy.yaml,line=3,title=a%2C b%3A c %25::100 %25 of%0A::error::it"
    properties, _, message = line.removeprefix("::error ").partition("::")
    assert unescaped(message) == "100 % of\n::error::it"
    assert unescaped(properties.split("title=")[1]) == "a, b: c %"


def test_nothing_in_a_dialogue_is_a_command_of_its_own():
    lines = list(annotated(result(case("failed", HOSTILE, reason=HOSTILE), rules=[Rule(HOSTILE, "failed", HOSTILE)])))
    assert len(lines) == 2
    assert all(re.match(r"::error [^:]*::", line) and "\n" not in line and "\r" not in line for line in lines)


def test_what_is_printed_between_the_tokens_is_no_command():
    said = []
    with no_commands(said.append):
        said.append("::error::x")
    first, _, last = said
    assert first == f"::stop-commands::{last[2:-2]}" and last.endswith("::") and len(last) == 36
    with no_commands(said.append):
        pass
    assert said[0] != said[3]


def test_annotations_are_bounded_and_flaky_cases_are_warnings():
    many = [case("failed", str(index), reason="r") for index in range(30)]
    lines = list(annotated(result(*many, case("flaky", "f", reason="r"))))
    errors = [line for line in lines if line.startswith("::error")]
    assert len(errors) == SHOWN and errors[-1].endswith("::and 21 more")
    assert [line for line in lines if line.startswith("::warning")] == [lines[-1]]


def test_an_annotation_points_at_the_duty_in_the_policy(tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    (tmp_path / "qa").mkdir()
    (tmp_path / "qa" / "p.yaml").write_text(
        "name: p\nduties:\n  - id: first\n    question: q\n  - {id: x}\n  - id: 'b.d'\n"
    )
    duty_line.cache_clear()
    path = str(tmp_path / "qa" / "p.yaml")
    assert duty_line(path, "first") == ("qa/p.yaml", 3) and duty_line(path, "b.d") == ("qa/p.yaml", 6)
    assert duty_line(path, "bxd") == ("qa/p.yaml", 1) and duty_line(str(tmp_path / "none"), "x") == (None, None)
    (line,) = annotated(result(case("failed", duty="first", reason="r"), policy=path))
    assert line.startswith("::error file=qa/p.yaml,line=3,title=")


def test_the_job_summary_is_appended_to(tmp_path, monkeypatch):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    assert not append_summary("x")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "s.md"))
    assert append_summary("one") and append_summary("two \ud800")
    assert (tmp_path / "s.md").read_text().startswith("one\ntwo")


def test_markdown_holds_no_markup_of_a_dialogue():
    shown = markdown(
        result(
            case("failed", HOSTILE, HOSTILE, reason=HOSTILE, owner="@org/team"),
            rules=[Rule(HOSTILE, "failed", HOSTILE)],
            notes=[HOSTILE],
            duties=[Rate(HOSTILE, "critical", cases=1, failed=1, rate=0.0, low=0.0, high=0.5)],
        )
    )
    outside = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", shown)
    for markup in ("<b>", "<script", "![", "](", "@everyone", "http://"):
        assert markup not in outside, markup
    assert "@org/team" in outside and "\x07" not in shown and "\r" not in shown
    rows = [line for line in shown.splitlines() if line.startswith("|")]
    heads = [line for line, below in pairwise(rows) if below.startswith("|---")]
    assert heads and all(len(re.findall(r"(?<!\\)\|", row)) in {head.count("|") for head in heads} for row in rows)


def test_code_survives_backticks_and_pipes():
    assert code("a`b") == "``a`b``" and code("`a") == "`` `a ``" and code("a|b") == "`a\\|b`" and code("") == "–"


@pytest.mark.parametrize(("text", "said"), [("@a", "@a"), ("@org/t-1", "@org/t-1"), ("@a<b>", "&#64;a&#60;b&#62;")])
def test_only_names_are_mentioned(text, said):
    assert owners(text) == said


def test_plain_text_stays_readable():
    assert plain("2 of 3 fail: refund-first (p 0.03)") == "2 of 3 fail: refund-first (p 0.03)"


def test_markdown_is_bounded():
    many = [case("failed", str(index), reason="r" * 1000) for index in range(1000)]
    duties = [Rate(str(index), "major", cases=1) for index in range(1000)]
    assert len(markdown(result(*many, duties=duties))) < 30_000
