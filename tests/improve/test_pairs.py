"""Preference pairs: forks of one prefix, of which one side passes and the other fails."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm2.assure.export_standing import Standing
from cm2.assure.pairs import Paths
from cm2.dialogue import Dialogue, Step, Turn
from cm2.errors import DataError
from improve.judged_logs import call, dialogue, export, good, says, turn, write

SHORT = turn(says("No idea. Thank you."))


def shown(row: dict[str, Any]) -> tuple[Any, Any, Any]:
    def what(message: dict[str, Any]) -> Any:
        return message["content"] or message["tool_calls"][0]["function"]["name"]

    return [what(message) for message in row["prompt"]], what(row["chosen"][0]), what(row["rejected"][0])


def test_two_answers_to_one_prefix_make_a_pair(tmp_path: Path) -> None:
    write(tmp_path, [dialogue("a", good()), dialogue("b", SHORT), dialogue("c", turn(says("?"), user="Else?"))])
    summary, rows = export(tmp_path, kind="preferences")
    assert [shown(row) for row in rows] == [(["Be kind.", "Where is order 7?"], "find", "No idea. Thank you.")]
    assert (summary.rows, summary.mixed) == (1, 0)


def test_they_part_where_they_part(tmp_path: Path) -> None:
    promise = turn(call("find"), says("I promise it comes. Thank you."))
    write(tmp_path, [dialogue("a", good("Hi"), good()), dialogue("b", good("Hi"), promise)])
    _, [row] = export(tmp_path, kind="preferences")
    prompt, chosen, rejected = shown(row)
    assert prompt[-2:] == ["find", '{"state": "sent"}']
    assert (chosen, rejected) == ("It was sent. Thank you.", "I promise it comes. Thank you.")


def test_ids_of_calls_and_white_space_make_no_difference(tmp_path: Path) -> None:
    other = turn(call("find", id="call_9x"), says("I promise. Thank you."), user="Where  is order 7? ")
    write(tmp_path, [dialogue("a", good()), dialogue("b", other)])
    _, [row] = export(tmp_path, kind="preferences")
    assert shown(row)[1:] == ("It was sent. Thank you.", "I promise. Thank you.")


def test_another_system_prompt_or_answer_of_a_tool_is_another_prefix(tmp_path: Path) -> None:
    elsewhere = turn(call("find", answer='{"state": "lost"}'), says("I promise. Thank you."))
    logs = [dialogue("a", good()), dialogue("b", SHORT, system="Be brief."), dialogue("c", elsewhere)]
    write(tmp_path, logs)
    with pytest.raises(DataError, match="no row comes"):
        export(tmp_path, kind="preferences")
    write(tmp_path, [*logs[:2], dialogue("d", SHORT)])
    assert len(export(tmp_path, kind="preferences")[1]) == 1


def test_an_action_after_which_both_happened_is_no_evidence(tmp_path: Path) -> None:
    late = turn(call("find"), says("I promise. Thank you."))
    write(tmp_path, [dialogue("a", good()), dialogue("b", SHORT), dialogue("c", late)])
    summary, rows = export(tmp_path, kind="preferences")
    assert [shown(row)[1:] for row in rows] == [("It was sent. Thank you.", "I promise. Thank you.")]
    assert summary.mixed == 1


def test_a_later_failure_is_not_blamed_on_an_earlier_turn(tmp_path: Path) -> None:
    other = turn(call("find"), says("Sent already. Thank you."))
    write(tmp_path, [dialogue("a", good(), good("Bye")), dialogue("b", other, turn(says("Bye."), user="Bye"))])
    with pytest.raises(DataError, match="no row comes"):
        export(tmp_path, kind="preferences")


def test_openai_and_llama_factory_have_forms_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, [dialogue("a", good()), dialogue("b", SHORT)])
    _, [row] = export(tmp_path, kind="preferences", form="openai")
    assert set(row) == {"input", "preferred_output", "non_preferred_output"}
    assert row["preferred_output"][0]["tool_calls"][0]["function"]["arguments"] == '{"order": 7}'
    assert row["non_preferred_output"] == [{"role": "assistant", "content": "No idea. Thank you."}]
    _, [row] = export(tmp_path, kind="preferences", form="llama-factory")
    assert (row["chosen"]["from"], row["rejected"]["from"]) == ("function_call", "gpt")
    assert len(row["conversations"]) % 2 == 1


ACTIONS = ["a", "b", "c"]
runs = st.lists(st.tuples(st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=3), st.booleans()), max_size=8)


@given(runs)
def test_pairs_are_those_of_a_literal_search(found: list[tuple[list[str], bool]]) -> None:
    """Compare every prefix of every two runs of one turn."""
    paths = Paths()
    for number, (actions, passed) in enumerate(found):
        steps = [Step(reply=action) for action in actions]
        verdict: Any = "pass" if passed else "fail"
        paths.add(Dialogue(str(number), [Turn("u", steps)]), Standing("nothing", [verdict], [], True, []))
    made = {
        (tuple(found[p.better.dialogue][0][: p.better.step]), found[p.better.dialogue][0][p.better.step],
         found[p.worse.dialogue][0][p.worse.step])
        for p in paths.pairs(most=99)
    }  # fmt: skip
    expected = set()
    prefixes = {tuple(actions[:end]) for actions, _ in found for end in range(len(actions))}
    for prefix in prefixes:
        after: dict[str, set[bool]] = {}
        for actions, passed in found:
            if tuple(actions[: len(prefix)]) == prefix and len(actions) > len(prefix):
                after.setdefault(actions[len(prefix)], set()).add(passed)
        for one, other in combinations(sorted(after), 2):
            for good_one, bad in ((one, other), (other, one)):
                if after[good_one] == {True} and after[bad] == {False}:
                    expected.add((prefix, good_one, bad))
    assert made == expected
    assert len(paths.pairs(most=1)) <= len(prefixes)


def test_an_endpoint_is_asked_for_a_better_reply(tmp_path: Path) -> None:
    from cm2.assure.pairs_endpoint import Sampler
    from cm2.llm import Endpoint
    from servers.openai_server import OpenAIServer, calls
    from servers.openai_server import says as answers

    promise = turn(call("find"), says("I promise it comes. Thank you."))
    write(tmp_path, [dialogue("a", promise), dialogue("b", turn(call("find")))])
    script = {0: answers("I promise!"), 1: calls(("find", {"order": 7})), 2: answers("It was sent. Thank you.")}
    with OpenAIServer(lambda body, number: script[body["seed"]]) as server:
        sampler = Sampler(Endpoint(server.url, "m", retries=0), 3)
        _, [row] = export(tmp_path, kind="preferences", more=sampler)
    assert shown(row)[1:] == ("It was sent. Thank you.", "I promise it comes. Thank you.")
    assert sampler.counts == {"turns": 1, "no better reply": 1, "no reply": 1, "better reply": 1} | {
        "no reply to better": 1
    }
    assert [message["role"] for message in server.requests[0]["messages"]] == ["system", "user", "assistant", "tool"]


def test_a_provider_that_fails_is_no_worse_reply(tmp_path: Path) -> None:
    from cm2.assure.pairs_endpoint import Sampler
    from cm2.llm import Endpoint
    from servers.openai_server import OpenAIServer, refuses

    promise = turn(call("find"), says("I promise it comes. Thank you."))
    write(tmp_path, [dialogue("a", promise), dialogue("b", good())])
    with OpenAIServer(lambda body, number: refuses(500)) as server:
        sampler = Sampler(Endpoint(server.url, "m", retries=0), 2)
        export(tmp_path, kind="preferences", more=sampler)  # the pair of the logs
    assert sampler.counts == {"turns": 1, "the provider failed": 2}
