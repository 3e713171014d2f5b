"""Occasions: a duty that does not apply is neither a yes nor a no, whoever judges and whoever counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from judge_askers import Scripted, blocks, entry, ids, user
from judge_builders import call, say, talk

from cm2.check import Called, Check, Expression, NotCalled, Reply
from cm2.checklist import Checklist, Item
from cm2.credit import score
from cm2.credit.score import ledger, unmet_strict
from cm2.dialogue import Dialogue, Step, Turn
from cm2.errors import ConfigError, DataError
from cm2.formats import write_row
from cm2.judge import ChecksJudge
from cm2.judge.cascade import CascadeJudge
from cm2.judge.hybrid import HybridJudge
from cm2.judge.judging import Judging
from cm2.judge.llm import LLMJudge
from cm2.judge.run import JudgeConfig, judge_file
from cm2.judge.stored import read_verdicts
from cm2.judge.vote import VoteJudge
from cm2.verdict import WHOLE, Verdict

PAYS, READS = Called("pay"), Called("read")


def item(id: str = "a", check: Check | None = PAYS, when: Check | None = None, **more: Any) -> Item:
    return Item(id, "assistant.tool_calls", f"{id}?", "p", 1.0, check=check, applies_when=when, **more)


def run() -> Dialogue:
    return talk([call("read", {"id": 1}), call("pay", {"ok": True}), say("Paid.")], [say("Bye.")])


def judged(*items: Item, turn: int = 0, dialogue: Dialogue | None = None) -> list[Verdict]:
    return ChecksJudge().judge(dialogue or run(), turn, Checklist(turn, list(items)))


def test_without_an_occasion_every_state_of_the_turn_is_not_applicable() -> None:
    found = judged(item(when=Called("refund")))
    assert [(v.step, v.met, v.applies, v.owner) for v in found] == [(s, None, False, "") for s in range(3)]
    assert all(v.reason.startswith("no occasion: ") and not v.failed and v.why_unscored == "" for v in found)


def test_with_an_occasion_it_is_judged_as_without_the_condition() -> None:
    assert [v.met for v in judged(item(when=PAYS))] == [v.met for v in judged(item())] == [False, True, True]


def test_the_occasion_is_looked_for_in_the_last_state_of_the_turn() -> None:
    assert [v.applies for v in judged(item(when=Reply(pattern="Paid")))] == [True] * 3
    assert [v.applies for v in judged(item(when=Reply(pattern="Paid")), turn=1)] == [False]


def test_a_turn_that_broke_off_has_an_occasion_too() -> None:
    broken = talk([call("read", {"id": 1})])
    for when in (Expression("calls.size() == 1"), NotCalled(["pay"])):
        assert [(v.applies, v.met) for v in judged(item(when=when), dialogue=broken)] == [(True, False)]


def test_a_whole_dialogue_gets_one_verdict_an_item() -> None:
    found = judged(item("a"), item("b", when=Called("refund")), item("c", None), turn=WHOLE)
    assert [(v.item, v.turn, v.step, v.met, v.applies) for v in found] == [
        ("a", -1, -1, True, True),
        ("b", -1, -1, None, False),
        ("c", -1, -1, None, True),
    ]
    assert [(p.turn, p.step) for p in found[0].evidence] == [(0, 1)]


def test_a_broken_occasion_leaves_the_item_unscored() -> None:
    for when in (Expression("nix > 1"), Expression("calls[7].ok"), Reply(pattern="(")):
        for verdict in judged(item(when=when), turn=WHOLE):
            assert (verdict.met, verdict.applies, verdict.owner) == (None, True, "data")
            assert "applies_when" in verdict.reason


def test_it_counts_in_no_reward_and_nothing_waits_for_it() -> None:
    absent = item("a", when=Called("refund"), required_for_next_turn=True)
    base = item("b")
    late = item("c", depends_on=["a"])
    checklist = Checklist(0, [absent, base, late])
    verdicts = judged(absent, base, late)
    account = ledger(checklist, verdicts, 3)
    assert account.outcome == {"a": None, "b": True, "c": True}
    assert account.reward == 1.0 and account.weight == 2.0
    assert unmet_strict(checklist, verdicts, 3) == []
    alone = score([Checklist(0, [absent])], judged(absent), [3, 1], 2)
    assert alone.reward is None and alone.strict_pass is None


def test_an_unscored_dependency_still_holds_back_what_waits_for_it() -> None:
    unsure, late = item("a", None), item("c", depends_on=["a"])
    assert ledger(Checklist(0, [unsure, late]), judged(unsure, late), 3).outcome == {"a": None, "c": None}


def test_whole_dialogue_checklists_never_enter_a_reward() -> None:
    whole, own = Checklist(WHOLE, [item("w", Called("refund"))]), Checklist(0, [item("a")])
    verdicts = [*judged(item("w", Called("refund")), turn=WHOLE), *judged(item("a"))]
    with_it, without = score([whole, own], verdicts, [3, 1], 2), score([own], verdicts, [3, 1], 2)
    assert with_it.as_json() == without.as_json() and with_it.strict_pass is True
    assert score([whole], verdicts, [3, 1], 2).reward is None


# Judges that ask a model.


def asked(asker: Scripted) -> list[list[str]]:
    return [ids(request) for request in asker.requests]


def test_nobody_is_asked_about_what_does_not_apply() -> None:
    checklist = Checklist(0, [item("a", None, Called("refund")), item("b", None, PAYS), item("c", None)])
    asker = Scripted([entry("b", 1, "pay({})"), entry("c", None)])
    for judge in (LLMJudge(asker), HybridJudge(LLMJudge(asker))):
        found = judge.judge(run(), 0, checklist)
        assert [(v.step, v.item) for v in found] == [(s, i) for s in range(3) for i in "abc"]
        assert [v.applies for v in found if v.item == "a"] == [False] * 3
        assert [v.met for v in found if v.item == "b"] == [False, True, True]
    assert asked(asker) == [["b", "c"]] * 2


def test_where_nothing_applies_no_call_is_made() -> None:
    asker = Scripted([])
    for judge in (
        LLMJudge(asker),
        HybridJudge(LLMJudge(asker)),
        VoteJudge([LLMJudge(asker), LLMJudge(asker, sample=1)]),
        CascadeJudge(LLMJudge(asker), classifier=object()),  # type: ignore[arg-type]
    ):
        for turn in (0, WHOLE):
            found = judge.judge(run(), turn, Checklist(turn, [item("a", None, Called("refund"))]))
            assert found and not any(v.applies for v in found) and all(v.met is None for v in found)
    assert asker.requests == []


def test_a_check_without_an_occasion_is_not_left_to_the_other_judge() -> None:
    judge = HybridJudge(object())  # type: ignore[arg-type]
    for turn in (0, WHOLE):
        assert not any(v.applies for v in judge.judge(run(), turn, Checklist(turn, [item("a", when=Called("refund"))])))


def test_a_model_is_asked_once_about_the_whole_dialogue_with_the_items_last() -> None:
    asker = Scripted([entry("a", True, "pay({})"), entry("b", False, "read({})")], cost=0.5)
    found = LLMJudge(asker).judge(run(), WHOLE, Checklist(WHOLE, [item("a", None), item("b", None)]))
    assert [(v.item, v.turn, v.step, v.met, v.cost) for v in found] == [
        ("a", -1, -1, True, 0.25),
        ("b", -1, -1, False, 0.25),
    ]
    assert [(p.turn, p.step, p.part) for p in found[0].evidence] == [(0, 1, "assistant.tool_calls")]
    assert [(p.turn, p.step) for p in found[1].evidence] == [(0, 0)]  # the breach
    (request,) = asker.requests
    text = user(request)
    assert text.index("Bye.") < text.index('"id":"a"') and "judge/whole@" in request.prompt
    assert "whole conversation" in request.messages[0]["content"] and set(blocks(text)) >= {"dialogue", "items"}


def test_a_quote_of_the_whole_dialogue_may_stand_in_any_turn_and_must_stand_in_one() -> None:
    reply = msgspec.structs.replace(item("a", None), focus_on="assistant.content.user_visible_reply")
    good = LLMJudge(Scripted([entry("a", True, "Bye.")])).judge(run(), WHOLE, Checklist(WHOLE, [reply]))
    assert [(p.turn, p.step) for p in good[0].evidence] == [(1, 0)]
    asker = Scripted([entry("a", True, "Never said")], [entry("a", True, "Not said either")])
    (bad,) = LLMJudge(asker).judge(run(), WHOLE, Checklist(WHOLE, [reply]))
    assert bad.met is None and bad.owner == "judge" and len(asker.requests) == 2


def test_votes_on_a_whole_dialogue_are_counted() -> None:
    yes, no = [entry("a", True, "pay({})")], [entry("a", False)]
    judges = [LLMJudge(Scripted(one), sample=k) for k, one in enumerate((yes, no, yes))]
    (verdict,) = VoteJudge(judges).judge(run(), WHOLE, Checklist(WHOLE, [item("a", None)]))
    assert (verdict.met, verdict.turn, verdict.step, verdict.votes) == (True, -1, -1, [True, False, True])


def test_a_dialogue_in_which_nothing_was_done_needs_no_model() -> None:
    asker = Scripted([])
    for dialogue in (Dialogue("d"), Dialogue("d", [Turn("hi")])):
        (verdict,) = LLMJudge(asker).judge(dialogue, WHOLE, Checklist(WHOLE, [item("a", None)]))
        assert verdict.met is False
    silent = Dialogue("d", [Turn("hi", [Step(reply="Hello.")])])
    (verdict,) = LLMJudge(asker).judge(silent, WHOLE, Checklist(WHOLE, [item("a", None)]))
    assert verdict.met is False and verdict.reason == "cannot hold: the dialogue has no tool call"
    assert asker.requests == []


def test_items_that_share_an_id_are_unscored() -> None:
    found = LLMJudge(Scripted([])).judge(run(), WHOLE, Checklist(WHOLE, [item("a", None), item("a", None)]))
    assert [v.met for v in found] == [None, None] and {v.owner for v in found} == {"data"}


# A file, judged by a policy.

POLICY = """
name: shop
duties:
  - {id: paid, question: "paid?", severity: critical, check: {type: called, tool: pay},
     applies_when: {type: called, tool: read}}
  - {id: refunded, question: "refunded?", check: {type: called, tool: refund},
     applies_when: {type: called, tool: refund}}
  - {id: kind, question: "kind?", severity: minor, focus_on: assistant.content.user_visible_reply}
  - {id: answered, question: "answered?", scope: turn, check: {type: expression, cel: 'reply != ""'}}
"""


def files(folder: Path) -> tuple[str, str]:
    source, policy = folder / "in.jsonl", folder / "policy.yaml"
    rows = [write_row(msgspec.structs.replace(run(), id=f"d{n}"), "openai") for n in range(2)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    policy.write_text(POLICY)
    return str(source), str(policy)


def test_a_file_is_judged_by_a_policy_and_judged_once(tmp_path: Path) -> None:
    source, policy = files(tmp_path)
    config = JudgeConfig(source, str(tmp_path / "v.jsonl"), policy=policy)
    summary = judge_file(config).as_json()
    assert (summary["dialogues"], summary["turns"], summary["written"]) == (2, 4, 2 * (3 + 4))
    kinds = summary["kinds"]
    assert {name: (t["passed"], t["failed"], t["unscored"], t["not_applicable"]) for name, t in kinds.items()} == {
        "paid": (2, 0, 0, 0),
        "refunded": (0, 0, 0, 2),
        "kind": (0, 0, 2, 0),
        "answered": (4, 0, 0, 0),
    }
    assert kinds["refunded"]["pass_rate"] is None and summary["total"]["not_applicable"] == 2
    again = judge_file(config).as_json()
    assert again["written"] == 0 and again["kinds"] == kinds
    stored = list(read_verdicts(config.output))
    assert [v.step for v in stored if v.item == "paid"] == [-1, -1]
    assert [v.applies for v in stored if v.item == "refunded"] == [False, False]


def test_a_killed_run_goes_on_with_what_is_left(tmp_path: Path) -> None:
    source, policy = files(tmp_path)
    whole = JudgeConfig(source, str(tmp_path / "whole.jsonl"), policy=policy)
    judge_file(whole)
    lines = Path(whole.output).read_bytes().splitlines(keepends=True)
    for cut in range(len(lines)):
        part = JudgeConfig(source, str(tmp_path / f"part{cut}.jsonl"), policy=policy)
        Path(part.output).write_bytes(b"".join(lines[:cut]) + lines[cut][:9])
        Path(f"{part.output}.input.json").write_bytes(Path(f"{whole.output}.input.json").read_bytes())
        assert judge_file(part).written == len(lines) - cut
        assert sorted(Path(part.output).read_bytes().splitlines()) == sorted(line.strip() for line in lines)


def test_a_store_is_not_continued_under_another_policy_but_under_other_tests_of_it(tmp_path: Path) -> None:
    source, policy = files(tmp_path)
    config = JudgeConfig(source, str(tmp_path / "v.jsonl"), policy=policy)
    judge_file(config)
    Path(policy).write_text(POLICY.replace("severity: minor", "severity: minor, note: from an incident"))
    assert judge_file(config).written == 0
    Path(policy).write_text(POLICY.replace("tool: pay", "tool: paid"))
    with pytest.raises(ConfigError, match="policy changed"):
        judge_file(config)


def test_a_policy_and_checklists_exclude_each_other(tmp_path: Path) -> None:
    source, policy = files(tmp_path)
    with pytest.raises(ConfigError, match="takes the place"):
        judge_file(JudgeConfig(source, str(tmp_path / "v.jsonl"), source, policy=policy))


def test_a_missing_policy_is_one_clear_sentence(tmp_path: Path) -> None:
    source, _ = files(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        judge_file(JudgeConfig(source, str(tmp_path / "v.jsonl"), policy=str(tmp_path / "nix.yaml")))


def test_questions_of_a_policy_go_to_a_model_and_failures_are_tried_again(tmp_path: Path) -> None:
    from cm2.llm import ModelError

    source, policy = files(tmp_path)
    judging = Judging(kind="hybrid")
    config = JudgeConfig(source, str(tmp_path / "v.jsonl"), policy=policy, judging=judging, concurrency=1)
    asker = Scripted(ModelError("junk"), [entry("kind", True, "Bye.")])
    first = judge_file(config, asker=asker)
    assert (first.kinds["kind"].unscored, first.kinds["kind"].passed, first.failed) == (1, 1, 1)
    assert (first.kinds["paid"].passed, first.kinds["refunded"].not_applicable) == (2, 2)
    second = judge_file(config, asker=Scripted([entry("kind", False)]))
    assert second.written == 1 and (second.kinds["kind"].passed, second.kinds["kind"].failed) == (1, 1)
