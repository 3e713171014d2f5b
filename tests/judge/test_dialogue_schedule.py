"""The schedule `dialogue`: one question about all turns of a dialogue that is over."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from judge_askers import Scripted, asked, blocks, entry, ids, placed, user
from judge_builders import call, say, talk

from cm2.check import Called
from cm2.checklist import Checklist, Item
from cm2.dialogue import Dialogue, Step
from cm2.errors import ConfigError
from cm2.judge.cascade import CascadeJudge
from cm2.judge.hybrid import HybridJudge
from cm2.judge.judge import judge_dialogue, wait
from cm2.judge.judging import Judging
from cm2.judge.llm import LLMJudge
from cm2.judge.question import ELSEWHERE, NO_VALUE, VOID_QUOTE
from cm2.judge.vote import VoteJudge
from cm2.llm import ModelError, ProviderError, Request
from cm2.verdict import WHOLE, Verdict

CALLS, REPLY, THINKING = "assistant.tool_calls", "assistant.content.user_visible_reply", "assistant.content.thinking"


def item(id: str, focus: Any = CALLS, question: str = "", **more: Any) -> Item:
    return Item(id, focus, question or f"Was {id} done?", f"{id} was done", 1.0, **more)


def run() -> Dialogue:
    return talk(
        [call("find", {"id": "A1"}, city="Rome"), call("book", {"ok": True}, id="A1"), say("Booked A1 for you.")],
        [say("You are welcome.")],
        [call("cancel", {"ok": True}, id="A1"), say("It is cancelled.")],
    )


def three(*more: Checklist) -> list[Checklist]:
    """A call and a reply in each turn but the second, which has a reply only."""
    return [
        Checklist(0, [item("C0"), item("C1", REPLY)]),
        Checklist(1, [item("C0", REPLY)]),
        Checklist(2, [item("C0"), item("C1", REPLY)]),
        *more,
    ]


YES = [
    placed("t0.C0", (0, 1), 'book({"id":"A1"})'),
    placed("t0.C1", (0, 2), "Booked A1"),
    placed("t1.C0", (1, 0), "You are welcome."),
    placed("t2.C0", None),
    placed("t2.C1", (2, 1), "cancelled"),
]


def judged(
    *answers: Any, checklists: list[Checklist] | None = None, dialogue: Dialogue | None = None, **settings: Any
) -> tuple[list[Verdict], Scripted, LLMJudge]:
    asker = Scripted(*answers)
    judge = LLMJudge(asker, Judging(kind="llm", schedule="dialogue", **settings))
    found = wait(judge_dialogue(judge, dialogue or run(), three() if checklists is None else checklists))
    return [verdict for each in found for verdict in each], asker, judge


def held(verdicts: list[Verdict]) -> dict[tuple[int, str], list[bool | None]]:
    found: dict[tuple[int, str], list[bool | None]] = {}
    for verdict in verdicts:
        found.setdefault((verdict.turn, verdict.item), []).append(verdict.met)
    return found


def yes_to_all(request: Request) -> list[dict[str, Any]]:
    return [one for one in YES if one["id"] in ids(request)]


def test_one_call_judges_all_turns_and_each_item_holds_from_its_step_on() -> None:
    verdicts, asker, judge = judged(YES)
    assert held(verdicts) == {
        (0, "C0"): [False, True, True],
        (0, "C1"): [False, False, True],
        (1, "C0"): [True],
        (2, "C0"): [False, False],
        (2, "C1"): [False, True],
    }
    assert len(asker.requests) == judge.counts.calls == 1
    assert [(v.turn, v.step, v.item) for v in verdicts] == [
        *((0, step, id) for step in range(3) for id in ("C0", "C1")),
        (1, 0, "C0"),
        *((2, step, id) for step in range(2) for id in ("C0", "C1")),
    ]
    assert [(p.turn, p.step, p.part) for p in verdicts[2].evidence] == [(0, 1, CALLS)]


def test_the_items_of_the_task_stand_before_the_record_and_are_the_same_for_every_run() -> None:
    other = run()
    other.turns[2].steps[0] = say("I cannot.")
    texts = []
    for dialogue in (run(), other):
        _, asker, _ = judged(yes_to_all, dialogue=dialogue)
        texts.append("\n".join(message["content"] for message in asker.requests[0].messages))
    alike = texts[0][: next(n for n, (a, b) in enumerate(zip(*texts, strict=False)) if a != b)]
    assert '"id":"t2.C1","turn":2' in alike and "You are welcome." in alike
    assert alike.index('"id":"t2.C1"') < alike.index("user 0")
    assert "asked" not in blocks(texts[0]) and "Decide all items" in texts[0]


def test_an_item_that_cannot_hold_stays_in_the_list_and_is_not_asked_about() -> None:
    other = run()
    other.turns[2].steps[0] = say("I cannot.")
    verdicts, asker, judge = judged(yes_to_all, dialogue=other)
    assert ids(asker.requests[0]) == ["t0.C0", "t0.C1", "t1.C0", "t2.C1"]
    assert blocks(user(asker.requests[0]))["asked"] == '["t0.C0","t0.C1","t1.C0","t2.C1"]\n'
    assert judge.counts.skipped == 1
    assert {v.reason for v in verdicts if (v.turn, v.item) == (2, "C0")} == {"cannot hold: the turn has no tool call"}


def test_the_list_does_not_depend_on_what_is_known_of_a_run() -> None:
    checklists = three()
    checklists[2].items[0] = item("C0", check=Called("cancel"))
    other = run()
    other.turns[2].steps[0] = say("I cannot.")
    lists = []
    for dialogue in (run(), other):
        _, asker, _ = judged(yes_to_all, dialogue=dialogue, checklists=checklists)
        lists.append(blocks(user(asker.requests[0]))["items"])
    assert lists[0] == lists[1] and '"id":"t2.C0"' in lists[0]


def test_items_may_stand_last_with_the_record_first() -> None:
    verdicts, asker, _ = judged(YES, items="last")
    text = user(asker.requests[0])
    assert text.index("user 0") < text.index("You are welcome.") < text.index('"id":"t0.C0"')
    assert held(verdicts)[0, "C0"] == [False, True, True]
    assert text.startswith("<<<data ")


@pytest.mark.parametrize("place", [(2, 0), (1, 0), (0, 3), (7, 0), (-1, 0), (0, -1)])
def test_an_item_holds_at_steps_of_its_own_turn_only(place: tuple[int, int]) -> None:
    wrong = [placed("t0.C0", place, 'cancel({"id":"A1"})'), *YES[1:]]
    verdicts, asker, _ = judged(wrong, [wrong[0]])
    lost = [v for v in verdicts if (v.turn, v.item) == (0, "C0")]
    assert {(v.met, v.owner) for v in lost} == {(None, "judge")} and all(ELSEWHERE in v.reason for v in lost)
    assert [ids(request) for request in asker.requests][1] == ["t0.C0"]
    assert None not in held([v for v in verdicts if v not in lost]).values()
    mended, _, _ = judged(wrong, [YES[0]])
    assert held(mended)[0, "C0"] == [False, True, True]


def test_the_second_chance_begins_as_the_first_and_says_what_was_wrong() -> None:
    _, asker, _ = judged([placed("t0.C0", (2, 0), "cancel"), *YES[1:]], [YES[0]])
    first, second = map(user, asker.requests)
    head = first[: first.index("Decide all items")]
    assert second.startswith(head)
    assert "its own turn only" in blocks(second)["asked"] and blocks(second)["items"] == blocks(first)["items"]


def test_a_quote_of_another_turn_or_a_later_step_is_void() -> None:
    for quote in ('cancel({"id":"A1"})', "It is cancelled.", "Booked A1"):
        verdicts, _, _ = judged([placed("t0.C0", (0, 1), quote), *YES[1:]], [placed("t0.C0", (0, 1), quote)])
        assert {v.met for v in verdicts if (v.turn, v.item) == (0, "C0")} == {None}
        assert VOID_QUOTE in verdicts[0].reason
    late, _, _ = judged([YES[0] | {"step": 0}, *YES[1:]])
    assert held(late)[0, "C0"] == [None] * 3


@pytest.mark.parametrize(
    ("turn", "step", "reads"),
    [(None, None, False), (0, None, False), (0.0, 1.0, True), (None, 1, None), (0, True, None), ("0", 1, None)],
)
def test_what_is_no_place_is_no_answer(turn: Any, step: Any, reads: bool | None) -> None:
    said = YES[0] | {"turn": turn, "step": step}
    verdicts, _, _ = judged([said, *YES[1:]], [said])
    assert verdicts[2].met is reads
    assert reads is not None or NO_VALUE in verdicts[0].reason


def test_items_about_the_whole_dialogue_are_in_the_same_call() -> None:
    whole = Checklist(WHOLE, [item("W0"), item("W1", REPLY), item("W2", REPLY, "Did it never curse?", kind="refusal")])
    answer = [
        *YES,
        placed("all.W0", (2, 0), "cancel"),
        placed("all.W1", None),
        placed("all.W2", None, "It is cancelled."),
    ]
    for order in ("first", "last"):
        verdicts, asker, _ = judged(answer, checklists=[whole, *three()], items=order)
        assert len(asker.requests) == 1 and '"id":"all.W0","turn":"all"' in user(asker.requests[0])
        assert [(v.turn, v.step, v.item, v.met) for v in verdicts[:3]] == [
            (-1, -1, "W0", True),
            (-1, -1, "W1", False),
            (-1, -1, "W2", False),
        ]
        assert [[(p.turn, p.step) for p in v.evidence] for v in verdicts[:3]] == [[(2, 0)], [], [(2, 1)]]


def test_a_yes_about_the_whole_dialogue_must_quote_the_place_that_it_names() -> None:
    whole = [Checklist(WHOLE, [item("W0")])]
    for place in ((0, 0), (2, 1), (3, 0)):
        said = [placed("all.W0", place, 'cancel({"id":"A1"})')]
        verdicts, _, _ = judged(said, said, checklists=whole)
        assert [(v.met, v.owner) for v in verdicts] == [(None, "judge")]


def test_what_depends_on_a_hopeless_item_is_not_asked_about() -> None:
    checklist = Checklist(1, [item("C0"), item("C1", REPLY, depends_on=["C0"])])
    verdicts, asker, judge = judged([], checklists=[checklist])
    assert [v.met for v in verdicts] == [False, False] and asker.requests == [] and judge.counts.skipped == 2


def test_turns_that_were_not_reached_or_hold_no_step_have_no_verdict_and_stay_in_the_list() -> None:
    dialogue = talk([say("Hello A1.")], [])
    verdicts, asker, _ = judged([placed("t0.C1", (0, 0), "Hello A1.")], dialogue=dialogue)
    assert held(verdicts) == {(0, "C0"): [False], (0, "C1"): [True]}
    assert ids(asker.requests[0]) == ["t0.C1"] and '"id":"t2.C1"' in user(asker.requests[0])


def test_a_turn_that_broke_off_is_told() -> None:
    broken = talk([say("Hi.")], [call("find", {"id": 1})])
    _, asker, _ = judged(
        [placed("t0.C0", None), placed("t1.C0", None)],
        dialogue=broken,
        checklists=[Checklist(0, [item("C0", REPLY)]), Checklist(1, [item("C0")])],
    )
    assert "Turn 1 broke off without a final reply" in user(asker.requests[0])


def test_items_with_one_id_in_one_turn_are_unscored_and_variants_are_told_apart() -> None:
    twins = Checklist(0, [item("C0"), item("C0"), item("C1", REPLY)])
    second = Checklist(0, [item("C1", REPLY)], variant=1)
    said = [placed("t0.C1", (0, 2), "Booked A1"), placed("t0v1.C1", None)]
    verdicts, asker, _ = judged(said, checklists=[twins, second])
    assert ids(asker.requests[0]) == ["t0.C1"], "the same words about the same turn are asked about once"
    assert {(v.variant, v.item, v.step): v.met for v in verdicts} == {
        **{(0, "C0", step): None for step in range(3)},
        **{(variant, "C1", step): step == 2 for variant in (0, 1) for step in range(3)},
    }


def test_two_checklists_of_one_turn_lose_no_verdict() -> None:
    both = [Checklist(1, [item("C0", REPLY, f"Was {word} said?")]) for word in ("this", "that")]
    verdicts, asker, _ = judged([placed("t1.C0", None), placed("t1n1.C0", (1, 0), "You are welcome.")], checklists=both)
    assert len(asker.requests) == 1 and [v.met for v in verdicts] == [False, True]


def thinker() -> Dialogue:
    return talk(
        [Step(thinking="first thought", calls=[]), say("One.")],
        [Step(thinking="second thought", reply="Two.")],
        [Step(thinking="third thought", reply="Three.")],
    )


def test_thinking_is_shown_to_the_items_that_look_at_it_and_only_that_of_their_turns() -> None:
    checklists = [
        Checklist(0, [item("C0", THINKING), item("C1", REPLY)]),
        Checklist(1, [item("C0", REPLY)]),
        Checklist(2, [item("C0", THINKING)]),
    ]

    def answer(request: Request) -> list[dict[str, Any]]:
        return [placed(id, None) for id in ids(request)]

    _, asker, _ = judged(answer, checklists=checklists, dialogue=thinker())
    plain, thinking = sorted(asker.requests, key=lambda request: "thought" in user(request))
    assert ids(plain) == ["t0.C1", "t1.C0"] and "thought" not in user(plain)
    assert ids(thinking) == ["t0.C0", "t2.C0"]
    assert "first thought" in user(thinking) and "third thought" in user(thinking)
    assert "second thought" not in user(thinking)
    assert blocks(user(plain))["items"] == blocks(user(thinking))["items"]


def test_a_subjective_item_has_a_question_of_its_own_that_shows_no_other() -> None:
    polite = item("C9", REPLY, "Was the agent polite?")
    checklists = three()
    checklists[1].items.append(polite)
    checklists[2].items.append(msgspec.structs.replace(polite, id="C8"))

    def answer(request: Request) -> list[dict[str, Any]]:
        return [placed(id, None) for id in ids(request)]

    _, asker, _ = judged(answer, checklists=checklists, isolate="subjective")
    found = sorted((ids(request) for request in asker.requests), key=len)
    assert found == [["t1.C9"], ["t2.C8"], ["t0.C0", "t0.C1", "t1.C0", "t2.C0", "t2.C1"]]
    for request in asker.requests:
        alone = len(ids(request)) == 1
        assert ("polite" in user(request)) is alone and ("Was C0 done?" in user(request)) is not alone


@pytest.mark.parametrize("settings", [{"at_once": 2}, {"span": 1}])
def test_a_long_dialogue_has_several_questions_each_beginning_as_the_one_before(settings: dict[str, int]) -> None:
    whole = Checklist(WHOLE, [item("W0")])
    verdicts, asker, _ = judged(
        lambda request: [*yes_to_all(request), *([placed("all.W0", (2, 0), "cancel")] * ("all.W0" in ids(request)))],
        checklists=three(whole),
        **settings,
    )
    found = {tuple(ids(request)): user(request) for request in asker.requests}
    cut = [["t0.C0", "t0.C1"], ["t1.C0", "t2.C0"], ["t2.C1", "all.W0"]]
    if "span" in settings:
        cut = [["t0.C0", "t0.C1"], ["t1.C0"], ["t2.C0", "t2.C1", "all.W0"]]
    assert [list(one) for one in sorted(found, key=lambda one: cut.index(list(one)))] == cut
    texts = [found[tuple(one)] for one in cut]
    for before, after in pairwise(texts):
        shown = before[: before.index("<<<end", before.index("user 0"))]
        assert after.startswith(shown)
    assert "It is cancelled." not in texts[0] and "Booked A1" in texts[-1]
    plain, _, _ = judged([*YES, placed("all.W0", (2, 0), "cancel")], checklists=three(whole))
    assert held(verdicts) == held(plain)


def test_a_turn_with_too_many_items_is_cut_too() -> None:
    many = [Checklist(0, [item(f"C{n}") for n in range(7)])]

    def answer(request: Request) -> list[dict[str, Any]]:
        return [placed(id, None) for id in ids(request)]

    verdicts, asker, _ = judged(answer, checklists=many, at_once=3)
    assert [len(ids(request)) for request in asker.requests] == [3, 3, 1] and len(verdicts) == 21


def test_siblings_that_are_alike_cost_nothing_and_others_share_no_verdict() -> None:
    other = run()
    other.turns[2].steps[1] = say("Done, it is cancelled.")
    asker = Scripted(yes_to_all)
    judge = LLMJudge(asker, Judging(kind="llm", schedule="dialogue"))
    for dialogue, calls in ((run(), 1), (run(), 1), (other, 2)):
        found = wait(judge_dialogue(judge, dialogue, three()))
        assert [len(each) for each in found] == [6, 1, 4] and len(asker.requests) == calls
    assert [len(ids(request)) for request in asker.requests] == [5, 5], "nothing of the first turn is taken over"
    assert judge.counts.remembered == 5


def test_the_same_words_in_two_turns_are_two_verdicts() -> None:
    same = [Checklist(t, [item("C0", REPLY, "Did it answer?")]) for t in (0, 1)]
    verdicts, asker, _ = judged([placed("t0.C0", None), YES[2] | {"id": "t1.C0"}], checklists=same)
    assert len(asker.requests) == 1 and held(verdicts) == {(0, "C0"): [False] * 3, (1, "C0"): [True]}


def test_a_failure_is_unscored_and_nobodys_no() -> None:
    for error, owner in ((ModelError("junk"), "judge"), (ProviderError("503"), "provider")):
        verdicts, asker, _ = judged(error)
        assert {(v.met, v.owner) for v in verdicts} == {(None, owner)} and len(asker.requests) == 1
    verdicts, _, _ = judged(YES[1:], YES[1:])
    assert {v.owner for v in verdicts if (v.turn, v.item) == (0, "C0")} == {"judge"}
    assert held(verdicts)[2, "C1"] == [False, True]
    with pytest.raises(ProviderError):
        judged(ProviderError("bad key", status=401))


def test_the_cost_of_the_call_is_shared_by_its_verdicts() -> None:
    asker = Scripted(YES, cost=0.9)
    judge = LLMJudge(asker, Judging(kind="llm", schedule="dialogue"))
    found = wait(judge_dialogue(judge, run(), three()))
    assert sum(verdict.cost for each in found for verdict in each) == pytest.approx(0.9)


def test_asked_about_one_turn_it_shows_the_dialogue_up_to_there() -> None:
    asker = Scripted([YES[2]])
    judge = LLMJudge(asker, Judging(kind="llm", schedule="dialogue"))
    assert [v.met for v in judge.judge(run(), 1, three()[1])] == [True]
    assert "You are welcome." in user(asker.requests[0]) and "It is cancelled." not in user(asker.requests[0])
    assert [v.step for v in LLMJudge(Scripted(YES), judge.config).judge(run(), 2, three()[2], since=1)] == [1, 1]


def test_checks_decide_in_a_hybrid_and_votes_are_counted_over_all_turns() -> None:
    checklists = three()
    checklists[0].items[0] = item("C0", check=Called("book"))
    asker = Scripted(yes_to_all)
    config = Judging(kind="llm", schedule="dialogue")
    hybrid = HybridJudge(LLMJudge(asker, msgspec.structs.replace(config, kind="hybrid")))
    found = wait(judge_dialogue(hybrid, run(), checklists))
    assert ids(asker.requests[0]) == ["t0.C1", "t1.C0", "t2.C0", "t2.C1"] and len(asker.requests) == 1
    assert "t0.C0" not in user(asker.requests[0])
    assert [(v.item, v.met) for v in found[0]] == [
        ("C0", False),
        ("C1", False),
        ("C0", True),
        ("C1", False),
        ("C0", True),
        ("C1", True),
    ]
    vote = VoteJudge([LLMJudge(Scripted(YES if k else [*YES[:4], placed("t2.C1", None)]), config) for k in range(3)])
    said = wait(judge_dialogue(vote, run(), three()))
    assert said[2][-1].votes == [False, True, True] and said[2][-1].met is True
    assert vote.needs_end and hybrid.needs_end


class Sure:
    """A classifier that is sure of items about calls."""

    def guess(self, items: list[Item], dialogue: Dialogue, turn: int) -> list[Any]:
        from cm2.judge.classifier import Guess

        steps = len(dialogue.turns[turn].steps)
        return [Guess(tuple([False] * steps), 0.99, one.focus_on == CALLS) for one in items]


def test_a_classifier_decides_its_items_and_one_call_asks_of_the_rest() -> None:
    asker = Scripted(yes_to_all)
    inner = LLMJudge(asker, Judging(kind="llm", schedule="dialogue"))
    cascade = CascadeJudge(inner, Sure())  # type: ignore[arg-type]
    found = wait(judge_dialogue(cascade, run(), three(Checklist(WHOLE, []))))
    assert [ids(request) for request in asker.requests] == [["t0.C1", "t1.C0", "t2.C1"]]
    assert held([v for each in found for v in each])[0, "C0"] == [False] * 3
    assert (cascade.saved.turns, cascade.saved.decided, cascade.saved.turns_without_call) == (3, 2, 0)


def test_judges_that_go_turn_by_turn_are_asked_turn_by_turn() -> None:
    def answer(request: Request) -> list[dict[str, Any]]:
        return [entry(one["id"], None) for one in asked(request)]

    asker = Scripted(answer)
    found = wait(judge_dialogue(LLMJudge(asker, Judging(kind="llm")), run(), three()))
    assert [len(each) for each in found] == [6, 1, 4] and len(asker.requests) == 3


def test_settings_that_cannot_be_are_refused() -> None:
    for settings in ({"items": "middle"}, {"schedule": "dialog"}):
        with pytest.raises(ConfigError):
            Judging(**settings)  # type: ignore[arg-type]
