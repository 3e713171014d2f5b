"""SFT rows: which dialogues become some, where others are cut, and what is counted of the rest."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from cm2.assure.leakage import Exclusion
from cm2.dialogue import Step, ToolCall
from cm2.errors import ConfigError, DataError
from cm2.policy import Policy
from cm2.verdict import Pointer, Verdict
from improve.judged_logs import FOUND, POLICY, TASTE, call, dialogue, export, good, lines, says, turn, write

BAD = turn(says("It was sent. Thank you."))
RUDE = turn(call("find"), says("It was sent."))


def ids(rows: list[dict[str, object]]) -> list[object]:
    return [row["id"] for row in rows]


def test_dialogues_that_pass_become_rows_and_the_others_are_counted(tmp_path: Path) -> None:
    write(
        tmp_path, [dialogue("good", good()), dialogue("bad", good("Hi, 7?"), BAD), dialogue("rude", good("7!"), RUDE)]
    )
    summary, rows = export(tmp_path, form="openai")
    assert [row["messages"][1]["content"] for row in rows] == ["Where is order 7?", "7!"]
    assert summary.left_out == {"a duty fails": 1}
    assert [message["role"] for message in rows[0]["messages"]] == ["system", "user", "assistant", "tool", "assistant"]
    assert (summary.dialogues, summary.rows, summary.messages, summary.learnt) == (3, 2, 5 + 9, 2 + 2)


def test_a_turn_in_which_a_lesser_duty_fails_is_not_learnt(tmp_path: Path) -> None:
    write(tmp_path, [dialogue("rude", good("7!"), RUDE), dialogue("good", good())])
    summary, rows = export(tmp_path, form="openai")
    weights = [message.get("weight", 1) for message in rows[0]["messages"] if message["role"] == "assistant"]
    assert weights == [1, 1, 0, 0] and summary.learnt == 2 + 2
    summary, rows = export(tmp_path)
    assert ids(rows) == ["good"] and rows[0]["learn"] == [0, 0, 1, 0, 1]
    assert summary.left_out == {"a lesser duty fails in a turn, which TRL cannot be told to skip": 1}


def test_with_minor_duties_blocking_that_dialogue_is_out(tmp_path: Path) -> None:
    write(tmp_path, [dialogue("good", good()), dialogue("rude", good("7!"), RUDE)])
    assert ids(export(tmp_path, blocking="minor")[1]) == ["good"]


def test_a_dialogue_that_fails_gives_its_turns_before_the_failure_where_asked(tmp_path: Path) -> None:
    write(tmp_path, [dialogue("late", good(), good("And 8?"), BAD, good("Bye")), dialogue("early", BAD, good())])
    summary, [row] = export(tmp_path, until_failure=True)
    assert row["id"] == "late" and [m["content"] for m in row["messages"] if m["role"] == "user"] == [
        "Where is order 7?",
        "And 8?",
    ]
    assert (summary.cut, summary.left_out) == (1, {"a duty fails": 1})


def test_unscored_is_no_pass(tmp_path: Path) -> None:
    write(tmp_path, [dialogue("good", good())], Policy("p", [FOUND, TASTE]))
    with pytest.raises(DataError, match="1 a duty is unscored"):
        export(tmp_path, policy=Policy("p", [FOUND, TASTE]))
    met = Verdict("good", 0, 1, "kind", True, judge="llm")
    write(tmp_path, [dialogue("good", good())], POLICY, [met])
    assert ids(export(tmp_path, policy=Policy("p", [FOUND, TASTE]))[1]) == ["good"]


def test_an_unscored_turn_ends_the_part_that_is_good(tmp_path: Path) -> None:
    policy = Policy("p", [FOUND, TASTE])
    met = [Verdict("a", 0, step, "kind", True, judge="llm") for step in (0, 1)]
    write(tmp_path, [dialogue("a", good(), good("And 8?"))], POLICY, met)
    summary, [row] = export(tmp_path, policy=policy, until_failure=True)
    assert sum(message["role"] == "user" for message in row["messages"]) == 1 and summary.cut == 1


def test_what_nobody_judged_is_no_pass(tmp_path: Path) -> None:
    away = msgspec.structs.replace(FOUND, applies_when=msgspec.structs.replace(FOUND.check, tool="refund"))
    write(tmp_path, [dialogue("good", good())], Policy("p", []))
    verdicts = [Verdict("good", 0, step, "looks-up", None, applies=False) for step in (0, 1)]
    lines(tmp_path / "verdicts.jsonl", verdicts)
    with pytest.raises(DataError, match="1 nothing was decided"):
        export(tmp_path, policy=Policy("p", [away]))


def test_a_failing_duty_of_the_whole_dialogue_leaves_no_good_turns(tmp_path: Path) -> None:
    whole = msgspec.structs.replace(FOUND, id="whole", scope="dialogue")
    write(tmp_path, [dialogue("a", good(), good("And 8?"))], POLICY, [Verdict("a", -1, -1, "whole", False)])
    with pytest.raises(DataError, match="1 a duty fails"):
        export(tmp_path, policy=Policy("p", [FOUND, whole]), until_failure=True)


def test_a_failing_duty_of_the_whole_dialogue_counts_from_where_its_evidence_points(tmp_path: Path) -> None:
    whole = msgspec.structs.replace(FOUND, id="whole", scope="dialogue")
    places = [Pointer(2, 0, "assistant.tool_calls"), Pointer(1, 0, "assistant.tool_calls")]
    failed = Verdict("a", -1, -1, "whole", False, evidence=places)
    write(tmp_path, [dialogue("a", good(), good("And 8?"), good("And 9?"))], POLICY, [failed])
    summary, [row] = export(tmp_path, policy=Policy("p", [FOUND, whole]), until_failure=True)
    assert sum(message["role"] == "user" for message in row["messages"]) == 1 and summary.cut == 1
    other = Policy("p", [FOUND, whole, msgspec.structs.replace(whole, id="unjudged")])
    with pytest.raises(DataError, match="1 a duty fails"):
        export(tmp_path, policy=other, until_failure=True)


def test_what_cannot_be_said_is_left_out_with_the_reason(tmp_path: Path) -> None:
    broken = Step(calls=[ToolCall("find", None, raw="{", error="not JSON")])
    silent = Step(calls=[ToolCall("find", {"order": 7})])
    policy = Policy("p", [msgspec.structs.replace(FOUND, check=msgspec.structs.replace(FOUND.check, at_least=0))])
    logs = [
        dialogue("good", good()),
        dialogue("broken", turn(call("find"), broken, says())),
        dialogue("silent", turn(silent, says(), user="7?")),
    ]
    write(tmp_path, logs, policy)
    summary, rows = export(tmp_path, policy=policy)
    assert ids(rows) == ["good"]
    assert summary.left_out == {"a call is malformed": 1, "a call has no response": 1}


def test_a_dialogue_that_stops_in_the_middle_is_no_example(tmp_path: Path) -> None:
    policy = Policy("p", [FOUND])
    write(tmp_path, [dialogue("good", good()), dialogue("stops", good("7?"), turn(call("find")))], policy)
    summary, rows = export(tmp_path, policy=policy)
    assert ids(rows) == ["good"] and summary.left_out == {"it does not end with a reply": 1}


def test_equal_rows_are_written_once(tmp_path: Path) -> None:
    write(tmp_path, [dialogue("a", good()), dialogue("b", good())])
    summary, rows = export(tmp_path)
    assert ids(rows) == ["a"] and summary.left_out == {"the same as an earlier row": 1}


def test_excluded_dialogues_are_left_out_by_id_and_by_likeness(tmp_path: Path) -> None:
    long = "My order 7 has not come yet and I would like to know where it is since I have to leave on Friday morning"
    logs = [
        dialogue("gate", good()),
        dialogue("like", good(f"{long}.")),
        dialogue("other", good("Hello, please tell me all about your opening hours during the holidays of this year")),
        dialogue(
            "run", good("Something else entirely: which colours do you have in size forty-two?"), meta={"task": "gate"}
        ),
    ]
    write(tmp_path, logs)
    summary, rows = export(tmp_path, Exclusion([dialogue("gate", good()), dialogue("x", good(f"{long} please"))]))
    assert ids(rows) == ["other"]
    assert summary.left_out == {"excluded: the same id": 2, "excluded: nearly the same": 1}
    assert summary.excluded == 2
    by_id = export(tmp_path, Exclusion([dialogue("gate", good()), dialogue("x", good(f"{long} please"))], near=None))
    assert ids(by_id[1]) == ["like", "other"]


def test_thinking_is_kept_or_dropped(tmp_path: Path) -> None:
    thought = dialogue("a", turn(call("find"), says(thinking="I know it.")))
    write(tmp_path, [thought])
    assert export(tmp_path)[1][0]["messages"][-1]["reasoning_content"] == "I know it."
    assert "reasoning_content" not in json.dumps(export(tmp_path, thinking=False)[1])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"kind": "dpo"}, "there is no kind 'dpo'"),
        ({"form": "axolotl"}, "there is no form 'axolotl'"),
        ({"kind": "rl", "form": "llama-factory"}, "llama-factory has no form for rl"),
        ({"kind": "preferences", "form": "verl"}, "verl has no form for preferences"),
        ({"kind": "rl", "until_failure": True}, "is for sft"),
        ({"blocking": "grave"}, "there is no blocking 'grave'"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path: Path, settings: dict[str, object], told: str) -> None:
    write(tmp_path, [dialogue("a", good())])
    with pytest.raises(ConfigError, match=told):
        export(tmp_path, **settings)


def test_verdicts_of_other_dialogues_give_no_rows(tmp_path: Path) -> None:
    write(tmp_path, [dialogue("a", good())])
    (tmp_path / "verdicts.jsonl").write_text((tmp_path / "verdicts.jsonl").read_text().replace('"a"', '"z"'))
    with pytest.raises(DataError, match="no row comes of its dialogues: 1 a duty is unscored"):
        export(tmp_path)
