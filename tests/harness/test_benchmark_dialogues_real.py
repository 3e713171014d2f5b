"""The harnesses tell about their tasks, where they are set up: tools, policy, and right answers that were played."""

from __future__ import annotations

import pytest

from cm2.assure.outcomes import decide_outcomes
from cm2.harness.dialogues import gold
from cm2.harness.dialogues.told import Told, ask
from cm2.judge.judge import ChecksJudge
from cm2.label.lint import lint_task
from harness import real


def earns_its_own_items(benchmark: str, told: Told) -> list[str]:
    """The items of a task's checklist, all of which its right answer passes."""
    task = gold.label(benchmark, told).task
    outcomes = []
    for checklist in task.checklists:
        verdicts = ChecksJudge().judge(task.dialogue, checklist.turn, checklist)
        outcomes += decide_outcomes(task.dialogue, "", [checklist], verdicts)
    assert outcomes and {one.result for one in outcomes} == {"pass"}
    assert all(report.ok for report in lint_task(task))
    return [one.item.id for one in outcomes]


def test_bfcl_tells_what_its_back_ends_answer_to_the_right_calls() -> None:
    ids = ["multi_turn_miss_func_0", "multi_turn_miss_func_3"]
    found = ask("bfcl", real.environment("bfcl"), {"multi_turn_miss_func": ids})
    assert sorted(task for _, task in found) == ids
    told = found["multi_turn_miss_func", ids[0]]
    calls = {call.name: call for turn in told.turns for call in turn.calls}
    assert calls["mkdir"].changed and not calls["cd"].changed and "moved to" in calls["mv"].answer
    assert not calls["mkdir"].again  # a second one fails
    held = [name for turn in told.turns for name in turn.new]
    assert held and set(held) <= {tool["function"]["name"] for tool in told.tools}
    assert "mkdir" in told.writes and "ls" not in told.writes
    assert {"acted", "nothing-else-changed", "did-mkdir"} <= set(earns_its_own_items("bfcl", told))


@pytest.mark.slow
def test_tau2_tells_policy_tools_and_right_actions_with_their_answers() -> None:
    told = ask("tau2", real.environment("tau2"), {"airline": ["8"]})["airline", "8"]
    assert told.system is not None and "<policy>" in told.system
    assert "book_reservation" in told.writes and "get_user_details" not in told.writes
    (turn,) = told.turns
    assert [call.name for call in turn.calls if call.changed] == ["book_reservation"]
    assert told.basis == ["DB", "COMMUNICATE"] and "Sophia" in turn.user
    assert {"outcome", "effect-book_reservation"} <= set(earns_its_own_items("tau2", told))


@pytest.mark.slow
def test_toolsandbox_tells_the_tools_as_the_agent_is_shown_them() -> None:
    names = ["wifi_off", "wifi_off_3_distraction_tools_tool_name_scrambled"]
    found = ask("toolsandbox", real.environment("toolsandbox"), {"scenarios": names})
    plain, scrambled = ({tool["function"]["name"] for tool in found["scenarios", name].tools} for name in names)
    assert "set_wifi_status" in plain and "set_wifi_status" not in scrambled and scrambled
    assert not gold.label("toolsandbox", found["scenarios", "wifi_off"]).task.checklists
