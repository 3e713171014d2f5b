"""Checklists of right answers: they ask for what a right answer leaves behind, and not for its way."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from cm2.assure.outcomes import decide_outcomes
from cm2.checklist import Task
from cm2.formats import read_row
from cm2.harness.dialogues import gold
from cm2.harness.dialogues.told import Told, ToldCall, ToldTurn
from cm2.judge.judge import ChecksJudge
from cm2.label.lint import lint_task
from cm2.verdict import WHOLE

ROOT = Path(__file__).resolve().parents[2]


def tool(name: str, says: str, /, **properties: str) -> dict[str, Any]:
    """A tool's description."""
    shape = {"type": "object", "properties": {key: {"type": kind} for key, kind in properties.items()}}
    return {"type": "function", "function": {"name": name, "description": says, "parameters": shape}}


DISK = [
    tool("ls", "List the files."),
    tool("cat", "Show a file.", name="string"),
    tool("touch", "Make a file.", name="string"),
    tool("lock_file", "Lock a file.", name="string"),
]
LOCKED = ToldCall(name="lock_file", arguments={"name": "a"}, answer='{"locked": "a"}', changed=True, again=False)
TOUCHED = ToldCall(name="touch", arguments={"name": "a"}, answer='{"made": "a"}', changed=True)
LISTED = ToldCall(name="ls", arguments={}, answer='{"files": ["a", "x"]}')
BFCL = Told(
    category="multi_turn_base",
    task="t",
    tools=DISK,
    writes=["touch", "lock_file"],
    turns=[
        ToldTurn(user="Make a file a.", calls=[TOUCHED]),
        ToldTurn(user="What is there?", calls=[LISTED]),
        ToldTurn(user="Lock a.", calls=[LOCKED]),
    ],
)
Call = tuple[str, dict[str, Any], str]
TOUCH: Call = ("touch", {"name": "a"}, '{"made": "a"}')
LS: Call = ("ls", {}, '{"files": ["a", "x"]}')
LOCK: Call = ("lock_file", {"name": "a"}, '{"locked": "a"}')


def run(tools: list[dict[str, Any]], *turns: list[Call | str]) -> Any:
    """A dialogue: calls with their answers, and replies."""
    messages: list[dict[str, Any]] = []
    for number, turn in enumerate(turns):
        messages.append({"role": "user", "content": f"user {number}"})
        for at, one in enumerate(turn):
            if isinstance(one, str):
                messages.append({"role": "assistant", "content": one})
                continue
            function = {"name": one[0], "arguments": gold.orjson.dumps(one[1]).decode()}
            call = {"id": f"c{number}-{at}", "type": "function", "function": function}
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": one[2]})
    return read_row({"id": "t", "tools": tools, "messages": messages}, "openai")


def failed(task: Task, dialogue: Any) -> list[tuple[int, str]]:
    """The items that fail, with their turns."""
    found = []
    for checklist in task.checklists:
        verdicts = ChecksJudge().judge(dialogue, checklist.turn, checklist)
        outcomes = decide_outcomes(dialogue, "", [checklist], verdicts)
        found += [(one.turn, one.item.id) for one in outcomes if one.result != "pass"]
    return found


@pytest.fixture(scope="module")
def disk() -> Task:
    return gold.label("bfcl", BFCL).task


def test_the_reference_has_every_call_with_the_back_ends_answer_and_lint_finds_nothing(disk: Task) -> None:
    assert [call.name for *_, call, _ in disk.dialogue.calls()] == ["touch", "ls", "lock_file"]
    assert [(one.turn, [item.id for item in one.items]) for one in disk.checklists] == [
        (0, ["did-touch"]),
        (2, ["did-lock_file"]),
        (WHOLE, ["saw-ls", "nothing-else-changed", "acted"]),
    ]
    assert not failed(disk, disk.dialogue)
    assert all(report.ok for report in lint_task(disk))


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([[TOUCH, "ok"], [LS, "ok"], [LOCK, "ok"]], []),
        # other look-ups, attempts that fail, and a setting that is made twice are free
        ([[LS, ("cat", {"name": "x"}, "text"), TOUCH, "ok"], [LS, "ok"], [LOCK, LOCK, "ok"]], []),
        ([[("touch", {"name": "/"}, '{"error": "no"}'), TOUCH, "ok"], [LS, "ok"], [LOCK, "ok"]], []),
        # what was seen in an earlier turn need not be seen again, but the grader wants some call there
        ([[TOUCH, LS, "ok"], [("cat", {"name": "x"}, "text"), "a and x"], [LOCK, "ok"]], []),
        ([[TOUCH, LS, "ok"], ["a and x"], [LOCK, "ok"]], [(WHOLE, "acted")]),
        ([[("touch", {"name": "b"}, '{"made": "b"}'), "ok"], [LS, "ok"], [LOCK, "ok"]], [(0, "did-touch")]),
        ([[LS, "ok"], [TOUCH, LS, "ok"], [LOCK, "ok"]], [(0, "did-touch")]),  # in another turn
        ([[TOUCH, "ok"], [LS, "ok"], [("lock_file", {"name": "a"}, '{"error": "no"}'), "ok"]], [(2, "did-lock_file")]),
        ([[TOUCH, TOUCH, "ok"], [LS, "ok"], [LOCK, "ok"]], [(WHOLE, "nothing-else-changed")]),
        ([[TOUCH, "ok"], [("ls", {}, '{"files": ["a"]}'), "ok"], [LOCK, "ok"]], [(WHOLE, "saw-ls")]),
        ([[TOUCH, "ok"], ["no idea"], [LOCK, "ok"]], [(WHOLE, "saw-ls"), (WHOLE, "acted")]),
    ],
)
def test_a_run_fails_what_it_left_out_or_did_too_much(
    disk: Task, turns: list[list[Call | str]], expected: list[tuple[int, str]]
) -> None:
    assert failed(disk, run(DISK, *turns)) == expected


def test_a_change_may_come_early_where_the_grader_compares_nothing() -> None:
    turns = [ToldTurn(user="Make it."), ToldTurn(user="It is called a.", calls=[TOUCHED])]
    task = gold.label("bfcl", Told(category="miss", task="t", tools=DISK, writes=["touch"], turns=turns)).task
    assert {one.turn for one in task.checklists} == {WHOLE}
    early = run(DISK, [TOUCH, "ok"], [("ls", {}, "[]"), "It is there."])
    assert failed(task, early) == failed(task, task.dialogue) == []
    assert failed(task, run(DISK, ["What is its name?"], ["Done."])) == [(WHOLE, "did-touch"), (WHOLE, "acted")]


SHOP = [
    tool("get_order", "Look up an order.", order_id="string"),
    tool("get_user", "Look up a customer.", user_id="string"),
    tool("cancel_order", "Cancel an order.", order_id="string"),
    tool("refund_order", "Refund an order.", order_id="string"),
]
TAU2 = Told(
    category="retail",
    task="7",
    tools=SHOP,
    system="Be kind.",
    told=["54.04"],
    basis=["DB", "COMMUNICATE"],
    turns=[
        ToldTurn(
            user="You want to cancel W1 and know what you get back.",
            calls=[
                ToldCall(name="get_order", arguments={"order_id": "W1"}, answer='{"order_id": "W1", "paid": 54.04}'),
                ToldCall(name="toggle_data", arguments={}, answer="on", by="user", changed=True),
                ToldCall(name="cancel_order", arguments={"order_id": "W1"}, answer='{"status": "gone"}', changed=True),
            ],
        )
    ],
)
CANCEL: Call = ("cancel_order", {"order_id": "W1"}, '{"status": "gone"}')
USER: Call = ("get_user", {"user_id": "u"}, '{"user_id": "u"}')


@pytest.fixture(scope="module")
def shop() -> Task:
    return gold.label("tau2", TAU2).task


def test_the_users_own_calls_are_no_duty_of_the_agent(shop: Task) -> None:
    assert [call.name for *_, call, _ in shop.dialogue.calls()] == ["get_order", "cancel_order"]
    assert shop.dialogue.system == "Be kind."
    assert not failed(shop, shop.dialogue) and all(report.ok for report in lint_task(shop))
    items = {item.id: item.severity for checklist in shop.checklists for item in checklist.items}
    assert items == {
        "outcome": "critical",
        "effect-cancel_order": "major",
        "nothing-else-changed": "major",
        "told": "critical",
    }


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([["Which order?"], [USER, CANCEL, "You get $54.04 back."]], set()),  # other look-ups, other turns
        ([[CANCEL, "Done."]], {"told"}),
        ([["You get 54.04 back."]], {"outcome", "effect-cancel_order"}),
        (
            [[CANCEL, ("refund_order", {"order_id": "W1"}, "{}"), "54.04 is yours."]],
            {"outcome", "nothing-else-changed"},
        ),
    ],
)
def test_in_tau2_only_changes_and_what_must_be_told_count(
    shop: Task, turns: list[list[Call | str]], expected: set[str]
) -> None:
    assert {id for _, id in failed(shop, run(SHOP, *turns))} == expected


def test_without_a_right_answer_there_is_no_checklist() -> None:
    found = gold.label("toolsandbox", Told(category="scenarios", task="wifi_off", tools=SHOP))
    assert not found.task.checklists and found.turns_out == {gold.NO_ANSWER: 1}


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("checklist_reward", ROOT / "benchmarks" / "checklist_reward.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["checklist_reward"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("scores", "passed", "expected"),
    [
        ([3, 2, 1], [True, True, False], 1.0),
        ([1, 2, 3], [True, True, False], 0.0),
        ([1, 1, 2, 0], [True, False, True, False], 0.875),  # pairs: a tie, above; above, above
        ([1, 1], [True, True], float("nan")),
    ],
)
def test_auc_is_the_share_of_pairs_in_order(
    bench: ModuleType, scores: list[float], passed: list[bool], expected: float
) -> None:
    assert bench.auc(np.array(scores, float), np.array(passed)) == pytest.approx(expected, nan_ok=True)


def test_the_table_counts_agreement_and_resamples_tasks(bench: ModuleType) -> None:
    def judged(task: str, passed: bool, all_pass: float) -> Any:
        run = bench.Run("agent", "bfcl", ("base", task), None, passed)
        return bench.Judged(run, {"fewer calls": 0.0, bench.ALL_PASS: all_pass}, [])

    pairs = [("a", True, 1.0), ("a", False, 0.0), ("b", True, 0.0), ("c", False, 1.0), ("c", True, 1.0)]
    (row,) = bench.table([judged(*one) for one in pairs])
    assert (row["tasks"], row["runs"], row["rewarded"], row["who"]) == (3, 5, 3, {"agent": 5})
    assert (row["rewarded_all_pass"], row["rewarded_not_all_pass"]) == (2, 1)
    assert (row["failed_all_pass"], row["failed_not_all_pass"]) == (1, 1)
    # of six pairs: 1 > 0 twice, 1 = 1 twice, 0 = 0, 0 < 1
    assert row["auc"][bench.ALL_PASS]["auc"] == pytest.approx((2 + 3 * 0.5) / 6)
    assert row["auc"]["fewer calls"] == {"auc": 0.5, "low": 0.5, "high": 0.5}
    assert "| base | 3 | 5 | 60% |" in "\n".join(bench.markdown([row]))
