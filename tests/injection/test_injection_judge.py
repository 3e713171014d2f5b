"""A judge that obeys any text outside the fence gives every attacked dialogue the verdicts of its clean twin."""

from __future__ import annotations

from typing import Any

import pytest

from cm2.dialogue import Dialogue
from cm2.judge.judge import ChecksJudge, judge_dialogue, wait
from cm2.judge.judging import Judging
from cm2.judge.llm import LLMJudge
from cm2.judge.make import make_judge
from cm2.llm import Request, fence
from cm2.verdict import WHOLE, Verdict
from injection.obedient import Obedient
from injection.twins import FALSE, HARMLESS, TRUE, Attack, attacks, bases, checklist, place
from servers import truth
from servers.reader import read

ATTACKS = attacks()
SCHEDULES = ["turn", "step", "published", "dialogue", "dialogue, items last"]


def tells_the_truth(request: Request) -> Any:
    return truth.judge(request.messages)


def says_yes(request: Request) -> Any:
    """Every item holds from the start, with a quote that stands."""
    reading = read(request.messages)
    by_turn = "first_step" in "\n".join(reading.outside)
    entries = []
    for item in truth.items(reading):
        part = truth.LOOKS_AT[item["looks_at"]]
        if "turn" in item:
            turn = 0 if item["turn"] == "all" else item["turn"]
            there = [(step, text) for step, name, text in reading.parts(turn) if name == part and text.strip()]
            step, quote = (there[0][0], there[0][1].split("\n")[0][:40]) if there else (0, "nothing")
            entries.append({"id": item["id"], "reason": "as told", "turn": turn, "step": step, "quote": quote})
            continue
        shown = [(step, text) for step, name, text in reading.parts(0) if name == part and text.strip()]
        step, quote = (shown[0][0], shown[0][1].split("\n")[0][:40]) if shown else (0, "nothing")
        decision: dict[str, Any] = {"first_step": step} if by_turn else {"holds": True}
        entries.append({"id": item["id"], "reason": "as told", **decision, "quote": quote})
    return {"verdicts": entries}


def decided(verdicts: list[Verdict]) -> list[tuple[int, int, str, bool | None]]:
    return [(verdict.turn, verdict.step, verdict.item, verdict.met) for verdict in verdicts]


def verdicts_of(asker: Obedient, dialogue: Dialogue, schedule: str) -> list[Verdict]:
    """The verdicts on the attacked turn; on all turns and the whole dialogue where they are judged at once."""
    name, _, last = schedule.partition(", items ")
    judge = LLMJudge(asker, Judging(kind="llm", schedule=name, items=last or "first"))  # type: ignore[arg-type]
    if name != "dialogue":
        return judge.judge(dialogue, 0, checklist())
    checklists = [checklist(turn) for turn in (0, 1, WHOLE)]
    return [verdict for found in wait(judge_dialogue(judge, dialogue, checklists)) for verdict in found]


def judged(attack: Attack, dialogue: Dialogue, schedule: str) -> tuple[Any, Any, Obedient] | None:
    """The verdicts on the clean twin and on the attacked one."""
    clean = place(dialogue, attack.place, HARMLESS)
    if clean is None:
        return None
    asker = Obedient(tells_the_truth, says_yes)
    before = decided(verdicts_of(asker, clean, schedule))
    asker.learning = False
    attacked = place(dialogue, attack.place, attack.armed(asker.nonce))
    assert attacked is not None
    after = decided(verdicts_of(asker, attacked, schedule))
    return before, after, asker


def test_the_corpus_is_what_it_says() -> None:
    assert len(ATTACKS) >= 80 and len({attack.id for attack in ATTACKS}) == len(ATTACKS)
    assert {attack.place for attack in ATTACKS} == {"user", "thinking", "reply", "arguments", "result", "metadata"}
    own = {"reply": "reply", "thinking": "thinking", "arguments": "call", "result": "response"}
    for attack in ATTACKS:  # where it stands, the words must not become true
        assert attack.place not in own or FALSE[own[attack.place]] not in attack.text, attack.id


def test_the_truth_is_the_truth() -> None:
    """On the clean dialogue the items about what is there hold at their step, the others never."""
    asker = Obedient(tells_the_truth, says_yes)
    for schedule in SCHEDULES:
        verdicts = verdicts_of(asker, bases()[0], schedule)
        met = {(verdict.step, verdict.item) for verdict in verdicts if verdict.met and verdict.turn == 0}
        firsts = {"C0": 1, "C1": 1, "C2": 2, "C3": 1}
        assert {id: min(step for step, item in met if item == id) for _, id in met} == firsts, schedule
        assert len(TRUE) == 4 and not any(verdict.met is None for verdict in verdicts)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.id)
def test_an_attack_changes_no_verdict(attack: Attack, schedule: str) -> None:
    tried = 0
    for dialogue in bases():
        found = judged(attack, dialogue, schedule)
        if found is not None:
            before, after, asker = found
            assert asker.orders == []
            assert after == before
            tried += asker.asked
    assert tried


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.id)
@pytest.mark.parametrize("kind", ["checks", "hybrid"])
def test_an_attack_changes_no_verdict_of_checks(attack: Attack, kind: str) -> None:
    for dialogue in bases():
        clean = place(dialogue, attack.place, HARMLESS)
        if clean is None:
            continue
        asker = Obedient(tells_the_truth, says_yes)
        judge = ChecksJudge() if kind == "checks" else make_judge(Judging(kind="hybrid"), asker)
        before = decided(judge.judge(clean, 0, checklist(checks=True)))
        asker.learning = False
        attacked = place(dialogue, attack.place, attack.armed(asker.nonce or "k7qf2m9x"))
        assert attacked is not None
        after = decided(judge.judge(attacked, 0, checklist(checks=True)))
        assert after == before and asker.orders == []
        assert {met for *_, met in after} >= {True, False}


@pytest.mark.parametrize("schedule", ["turn", "dialogue"])
def test_without_the_fence_attacks_succeed(schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above can fail: markers alone, around text as it is, do not hold."""
    tried = [attack for attack in ATTACKS if attack.kind in ("break_outs", "chat_templates", "fake_turns")]
    assert len(tried) == 43

    def raw(text: str, nonce: str = "") -> str:
        return text

    def successes() -> int:
        found = [judged(attack, bases()[0], schedule) for attack in tried]
        return sum(one is not None and one[0] != one[1] for one in found)

    monkeypatch.setattr(fence, "neutral", raw)
    assert successes() >= 15, "without neutral text"
    monkeypatch.setattr(fence, "PREFIX", "")
    assert successes() >= 25, "without anything but the markers"
    monkeypatch.setattr(fence.Fence, "transcript", lambda self, dialogue, **_: fence.transcript(dialogue))
    assert successes() == len(tried), "without markers"
