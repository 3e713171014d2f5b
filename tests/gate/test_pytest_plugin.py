"""The pytest plugin, by pytest's own means: sessions of their own over test files that a team could have written."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gate.gate_builders import policy, run, write

pytest_plugins = ["pytester"]


@pytest.fixture
def team(pytester):
    """A folder with a policy, runs and tasks, and the plugin as an installed cm2 would have it loaded."""
    policy(pytester.path)
    write(pytester.path / "runs.jsonl", [run("a"), run("b", verified=False), run("c", refund=False)])
    write(pytester.path / "tasks.jsonl", [run("t1"), run("t2")])

    def go(test, *argv):
        pytester.makepyfile(test_it=test)
        plugin = () if _installed() else ("-p", "cm2.pytest_plugin")
        return pytester.runpytest_inprocess(*plugin, "-v", "-p", "no:cacheprovider", *argv)

    return go


def _installed():
    from importlib.metadata import entry_points

    return any(point.value == "cm2.pytest_plugin" for point in entry_points(group="pytest11"))


FILE = """
import cm2

@cm2.case("policy.yaml", dialogues="runs.jsonl")
def test_duties(case):
    pass
"""


def test_every_duty_in_every_dialogue_is_a_test(team):
    result = team(FILE)
    result.assert_outcomes(passed=3, failed=1, skipped=2)
    result.stdout.fnmatch_lines(
        [
            "*test_duties?a-identity-first? PASSED*",
            "*test_duties?b-identity-first? FAILED*",
            "*test_duties?c-identity-first? SKIPPED*(identity-first do*)*",
            "*critical duty identity-first fails in b*",
            "*asked: Is the identity verified before a refund?*",
            "*owner: @shop/identity*",
            "*cm2 duties*",
            "1 fail, 2 do not apply, 3 hold*",
        ]
    )
    assert not {"Traceback", "traceback", "_pytest"} & set(result.stdout.str().split())


def test_a_team_may_ask_for_more_and_choose_duties(team):
    result = team(
        """
        import cm2

        @cm2.case("policy.yaml", dialogues="runs.jsonl", duties=["states-amount"])
        def test_more(case):
            assert case.duty == "states-amount" and case.outcome.result == "pass"
            assert len(case.dialogue.turns) == 1 and case.status == "passed"
            assert case.id != "b"
        """
    )
    result.assert_outcomes(passed=1, failed=1, skipped=1)


def test_check_may_come_first_or_not_at_all(team):
    result = team(
        """
        import cm2

        @cm2.case("policy.yaml", dialogues="runs.jsonl", duties=["identity-first"])
        def test_first(case):
            case.check()
            assert case.id == "a"

        @cm2.case("policy.yaml", dialogues="runs.jsonl", check=False, duties=["identity-first"])
        def test_never(case):
            assert case.status in ("passed", "failed", "not_applicable")
        """
    )
    result.assert_outcomes(passed=1 + 3, failed=1, skipped=1)


AGENT = """
import cm2

def agent(messages, tools):
    assert {tool["function"]["name"] for tool in tools} == {"verify", "refund"}
    taken = sum(message["role"] == "assistant" for message in messages)
    call = lambda name, arguments: {"role": "assistant", "content": None, "tool_calls": [
        {"id": name, "type": "function", "function": {"name": name, "arguments": arguments}}]}
    if taken == 0:
        return call("verify", '{"name": "Ada"}')
    if taken == 1:
        return call("refund", '{"order": 7}')
    return TEXT

@cm2.case("policy.yaml", tasks="tasks.jsonl", agent=agent, REST)
def test_agent(case):
    assert len(case.runs) == RUNS
"""


def agent(text="'You get 20 dollars.'", rest="repeats=2", runs="2"):
    return AGENT.replace("TEXT", text).replace("REST", rest).replace("RUNS", runs)


def test_a_function_is_an_agent(team):
    team(agent()).assert_outcomes(passed=4)
    result = team(agent("'Done.'"))
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(["*0 of 2 runs pass, 100% must*"])


def test_a_coroutine_is_an_agent(team):
    team(agent().replace("def agent", "async def agent")).assert_outcomes(passed=4)


def test_some_runs_may_fail_where_that_is_allowed(team):
    flaky = "'You get 20.' if COUNT.append(1) or len(COUNT) % 2 else 'Done.'"
    test = "COUNT = []\n" + agent(flaky, "repeats=4, min_pass_rate=RATE, duties=['states-amount']", "4")
    team(test.replace("RATE", "0.5")).assert_outcomes(passed=2)
    team(test.replace("RATE", "0.75")).assert_outcomes(failed=2)


def test_an_agent_that_crashes_fails_the_test_and_is_no_provider(team):
    result = team(agent("1 / 0"))
    result.assert_outcomes(failed=4)
    result.stdout.fnmatch_lines(["*ZeroDivisionError*", "4 crashed*"])


PROVIDER = agent("fail()").replace(
    "import cm2", "import cm2\nfrom cm2.llm import ProviderError\n\ndef fail():\n    raise ProviderError('503')\n"
)


def test_a_provider_that_fails_is_undecided_and_skipped_unless_asked_for(team):
    result = team(PROVIDER, "-rs")
    result.assert_outcomes(skipped=4)
    result.stdout.fnmatch_lines(
        ["4 unscored", "*test_it.py:*: identity-first is undecided: 503 (failure of: provider)"]
    )
    team(PROVIDER.replace("repeats=2", "repeats=2, undecided='fail'")).assert_outcomes(failed=4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("cm2.case('absent.yaml', dialogues='runs.jsonl')", "absent.yaml: there is no such file"),
        ("cm2.case('policy.yaml', dialogues='absent.jsonl')", "absent.jsonl"),
        ("cm2.case('policy.yaml', dialogues='runs.jsonl', duties=['x'])", "there is no duty 'x'*identity-first"),
        ("cm2.case(dialogues='runs.jsonl')", "no dialogue has a duty"),
        ("cm2.case('policy.yaml')", "looks at dialogues or at an agent"),
        ("cm2.case('policy.yaml', agent=print)", "nothing to run"),
        ("cm2.case('policy.yaml', dialogues='runs.jsonl', repeats=2)", "repeats are runs of an agent"),
    ],
)
def test_what_is_wrong_is_told_when_tests_are_collected(team, call, message):
    result = team(f"import cm2\n@{call}\ndef test_it(case):\n    pass\n")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*{message}*"])


def test_a_test_without_the_parameter_is_told(team):
    result = team("import cm2\n@cm2.case('policy.yaml', dialogues='runs.jsonl')\ndef test_it():\n    pass\n")
    result.stdout.fnmatch_lines(["*gives a parameter `case`: take it*"])


def test_other_tests_with_a_fixture_of_that_name_are_left_alone(team):
    result = team(
        "import pytest\n@pytest.fixture\ndef case():\n    return 3\ndef test_it(case):\n    assert case == 3\n"
    )
    result.assert_outcomes(passed=1)
    assert "cm2 duties" not in result.stdout.str()


def test_junit_of_pytest_has_the_duty(team, pytester):
    team(FILE, "--junitxml=out.xml")
    text = (pytester.path / "out.xml").read_text()
    assert '<property name="cm2_duty" value="identity-first"' in text and 'name="cm2_status" value="failed"' in text


def test_importing_cm2_does_not_import_pytest():
    code = "import cm2, sys; assert 'pytest' not in sys.modules; cm2.case; assert 'pytest' in sys.modules"
    heavy = "assert not {'scipy', 'numpy', 'cm2.judge'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", f"{code}; {heavy}"], check=True)
    with pytest.raises(AttributeError, match="no attribute 'cases'"):
        import cm2

        cm2.cases  # noqa: B018
