"""Judging a file by a model: resume, failures that are tried again, and a store that only one judge writes."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judge_askers import SECRET, Oracle, Scripted, asked, entry, ids, stripped
from judge_builders import call, say, talk
from test_judge_run import verdicts, write

from cm2.check import Called, Fact, Reply
from cm2.checklist import Checklist, Item, Task
from cm2.errors import ConfigError
from cm2.formats import write_task
from cm2.judge.judging import Judging
from cm2.judge.llm import LLMJudge
from cm2.judge.make import make_judge
from cm2.judge.run import JudgeConfig, judge_file
from cm2.judge.stored import Stored, read_verdicts
from cm2.llm import Answer, BudgetReached, ModelError, ProviderError
from cm2.verdict import Verdict, unscored

CALLS, REPLY = "assistant.tool_calls", "assistant.content.user_visible_reply"
ITEMS = [
    Item("C0", CALLS, "Was it looked up?", "It was.", 0.5, check=Called("search"), kind="call"),
    Item("C1", REPLY, "Was A1 told?", "It was.", 0.5, check=Reply(states=[Fact(["A1"])]), kind="reply"),
]


def tasks(count: int, turns: int = 1) -> list[Task]:
    found = []
    for i in range(count):
        steps = [[call("search", {"id": "A1"}, q=f"q{i} {t}"), say(f"It is A1, {t}.")] for t in range(turns)]
        found.append(Task(talk(*steps, id=f"d{i}"), [Checklist(t, ITEMS) for t in range(turns)]))
    return found


def config(tmp_path, count=3, turns=1, **more) -> tuple[JudgeConfig, list[Task]]:
    found = tasks(count, turns)
    source = write(tmp_path / "in.jsonl", [write_task(stripped(task), "openai") for task in found])
    return JudgeConfig(source, str(tmp_path / "out.jsonl"), **more), found


def oracle(found: list[Task]) -> Oracle:
    return Oracle([task.dialogue for task in found], [c for task in found for c in task.checklists])


def test_a_file_is_judged_in_its_order_whatever_answers_first(tmp_path):
    made, found = config(tmp_path, 20, 2, concurrency=7)
    summary = judge_file(made, LLMJudge(oracle(found)))
    rows = verdicts(made.output)
    assert [(v.dialogue, v.turn, v.step, v.item) for v in rows] == [
        (f"d{i}", t, s, f"C{c}") for i in range(20) for t in range(2) for s in range(2) for c in range(2)
    ]
    assert summary.counts.calls == 40 and summary.total.passed == 80 and summary.written == 160
    told = summary.as_json()
    assert (told["calls"], told["cached"], told["again"], told["unscored"], told["failed"]) == (40, 0, 0, {}, 0)
    assert told["kinds"]["call"]["pass_rate"] == 1.0


def test_a_finished_store_costs_nothing_and_tells_the_same(tmp_path):
    made, found = config(tmp_path)
    first = judge_file(made, LLMJudge(oracle(found)))
    before = Path(made.output).read_bytes()
    asker = Scripted(ProviderError("nobody is asked"))
    again = judge_file(made, LLMJudge(asker))
    assert asker.requests == [] and Path(made.output).read_bytes() == before
    assert again.total == first.total and again.kinds == first.kinds and again.written == 0


class Flaky(Oracle):
    """The truth, but some dialogues' calls fail, as long as `ill`."""

    def __init__(self, found, fails, error=ProviderError):
        super().__init__([task.dialogue for task in found], [c for task in found for c in task.checklists])
        self.fails, self.error = fails, error

    async def ask(self, request, check=None):
        if request.where.dialogue in self.fails:
            self.requests.append(request)
            raise self.error("it is ill")
        return await super().ask(request, check)


@pytest.mark.parametrize("error", [ProviderError, ModelError])
def test_failures_are_written_and_tried_again_by_the_next_run_and_the_last_record_counts(tmp_path, error):
    made, found = config(tmp_path, 4)
    sick = Flaky(found, {"d1", "d3"}, error)
    first = judge_file(made, LLMJudge(sick))
    kind = "the provider gave no answer" if error is ProviderError else "no valid answer"
    assert first.unscored == {kind: 4} and first.failed == 4 and first.total.unscored == 4 and first.total.failed == 0
    sick.requests.clear()
    sick.fails = {"d3"}
    second = judge_file(made, LLMJudge(sick))
    assert [request.where.dialogue for request in sick.requests] == ["d1", "d3"]
    assert second.failed == 2 and second.total.passed == 6
    sick.fails = set()
    third = judge_file(made, LLMJudge(sick))
    assert third.failed == 0 and third.total.passed == 8 and third.written == 4
    rows = verdicts(made.output)
    assert len(rows) == 16 + 8 + 4 and {v.met for v in rows if v.dialogue == "d3"} == {None, False, True}
    last = list(read_verdicts(made.output))
    assert len(last) == 16 and None not in {v.met for v in last} and len({v.key for v in last}) == 16
    assert judge_file(made, LLMJudge(Scripted(ProviderError("x")))).written == 0


def test_a_further_try_is_a_new_draw_and_asks_only_what_is_undecided(tmp_path):
    made, _ = config(tmp_path, 1)
    asker = Scripted([entry("C0", 0, "search")])  # C1 is left out, twice
    first = judge_file(made, LLMJudge(asker))
    assert first.unscored == {"no verdict was given": 1} and [r.sample for r in asker.requests] == [0, 0]
    asker = Scripted([])
    judge_file(made, LLMJudge(asker, sample=2))
    assert [(ids(r), r.sample) for r in asker.requests] == [(["C1"], 1002)] * 2
    asker = Scripted([entry("C1", 1, "It is A1")])
    third = judge_file(made, LLMJudge(asker))
    assert [(ids(r), r.sample) for r in asker.requests] == [(["C1"], 2000)]
    assert third.total.passed == 2 and third.failed == 0


def test_what_nobody_can_decide_is_not_tried_again(tmp_path):
    made, _ = config(tmp_path, 1)
    first = judge_file(made)  # checks, on items that have none
    assert first.unscored == {"the item carries no check": 2} and first.failed == 0
    assert judge_file(made).written == 0


def test_a_store_is_never_continued_by_another_judge(tmp_path):
    made, found = config(tmp_path)
    judge_file(made, make_judge(Judging(kind="llm"), oracle(found)))
    kept = Path(made.output).read_bytes()
    for other in (
        make_judge(Judging(kind="llm", schedule="step"), oracle(found)),
        make_judge(Judging(kind="hybrid"), oracle(found)),
        make_judge(Judging(kind="vote"), oracle(found)),
        make_judge(Judging(kind="llm", system=False), oracle(found)),
        None,
    ):
        with pytest.raises(ConfigError, match="judge changed"):
            judge_file(made, other)
    assert Path(made.output).read_bytes() == kept
    assert judge_file(made, make_judge(Judging(kind="llm", votes=5), oracle(found))).written == 0  # no vote, no votes


def test_a_store_begun_by_checks_says_nothing_of_judges_and_goes_on(tmp_path):
    made, _ = config(tmp_path)
    judge_file(made)
    assert set(json.loads(Path(f"{made.output}.input.json").read_bytes())) == {"input"}


@pytest.mark.parametrize("error", [BudgetReached("the limit of US$ 1 is reached"), ProviderError("key", status=401)])
def test_what_ends_the_run_keeps_what_was_judged(tmp_path, error):
    made, found = config(tmp_path, 6, concurrency=1)

    class Limited(Oracle):
        async def ask(self, request, check=None):
            if len(self.requests) == 3:
                raise error
            return await super().ask(request, check)

    limited = Limited([task.dialogue for task in found], [c for task in found for c in task.checklists])
    with pytest.raises(type(error)):
        judge_file(made, LLMJudge(limited))
    assert [v.dialogue for v in verdicts(made.output)] == [f"d{i}" for i in range(3) for _ in range(4)]
    rest = oracle(found)
    summary = judge_file(made, LLMJudge(rest))
    assert {request.where.dialogue for request in rest.requests} == {"d3", "d4", "d5"}
    assert summary.total.passed == 12


def test_a_dry_run_writes_nothing_and_plans_what_is_left(tmp_path):
    made, found = config(tmp_path, 5)
    asker = Scripted(lambda request: request.planned["verdicts"])
    judge_file(made, LLMJudge(asker), dry=True)
    assert len(asker.requests) == 5 and not Path(made.output).exists()
    assert not Path(f"{made.output}.input.json").exists()
    first = JudgeConfig(made.input, made.output)
    judge_file(first, LLMJudge(Flaky(found, {"d4"})))
    before = Path(made.output).read_bytes()
    asker.requests.clear()
    judge_file(made, LLMJudge(asker), dry=True)
    assert [request.where.dialogue for request in asker.requests] == ["d4"]
    assert Path(made.output).read_bytes() == before


def test_a_store_cut_off_anywhere_ends_with_the_same_verdicts(tmp_path):
    made, found = config(tmp_path, 6, 2)
    judge_file(made, LLMJudge(oracle(found)))
    whole = Path(made.output).read_bytes()
    for cut in range(1, len(whole), len(whole) // 17):
        Path(made.output).write_bytes(whole[:cut])
        judge_file(made, LLMJudge(oracle(found)))
        assert Path(made.output).read_bytes() == whole


def test_rollouts_of_one_task_in_a_file_share_what_looks_alike(tmp_path):
    (task,) = tasks(1)
    source = write(tmp_path / "in.jsonl", [write_task(stripped(task), "openai")] * 8)
    asker = oracle([task])
    summary = judge_file(JudgeConfig(source, str(tmp_path / "out.jsonl")), LLMJudge(asker))
    assert len(asker.requests) == 1 and summary.duplicates == 7 and summary.counts.remembered == 14
    assert len({v.key for v in verdicts(tmp_path / "out.jsonl")}) == 32


def test_cost_and_votes_are_stored_with_the_verdict(tmp_path):
    made, _ = config(tmp_path, 1)

    class Dear(Scripted):
        async def ask(self, request, check=None):
            answer = await super().ask(request, check)
            return Answer(answer.value, model="m", cost=0.04)

    asker = Dear(lambda request: [entry(one["id"], None) for one in asked(request)])
    summary = judge_file(made, make_judge(Judging(kind="vote", votes=3), asker))
    rows = verdicts(made.output)
    assert sum(v.cost for v in rows) == pytest.approx(0.12) == summary.counts.cost
    assert all(v.votes == [False] * 3 for v in rows)


# ---------------------------------------------------------------- the index of a store


keys = st.tuples(
    st.sampled_from("ab"), st.sampled_from(["", "2"]), st.integers(0, 1), st.integers(0, 1), st.integers(0, 1)
)
lines = st.lists(st.tuples(keys, st.sampled_from([True, False, None, "failed"])), max_size=25)


def as_verdict(key, said) -> Verdict:
    dialogue, rollout, variant, turn, step = key
    met = said if isinstance(said, bool) else None
    reason = "" if met is not None else unscored("it failed" if said == "failed" else "no check", "details")
    owner = "provider" if said == "failed" else ""
    return Verdict(dialogue, turn, step, "C0", met, variant, reason, rollout=rollout, owner=owner)


@given(lines)
@settings(max_examples=200)
def test_the_index_says_what_a_dictionary_would(rows):
    stored, last, tries = Stored(), {}, {}
    for key, said in rows:
        verdict = as_verdict(key, said)
        stored.add(msgspec.to_builtins(verdict))
        last[verdict.key] = verdict
        tries[verdict.key] = tries.get(verdict.key, 0) + verdict.failed
    stored.seal()
    stored.add(msgspec.to_builtins(as_verdict(("z", "", 0, 0, 0), True)))  # written by this run: not looked up
    wanted = [as_verdict(key, True).key for key in {key for key, _ in rows} | {("z", "", 0, 0, 0)}]
    for key, line in zip(wanted, stored.look(wanted), strict=True):
        if key not in last:
            assert line is None
        else:
            verdict = last[key]
            assert (line.met, line.kind, line.failed) == (verdict.met, verdict.why_unscored, verdict.failed)
            assert line.tries == (tries[key] if verdict.met is None else 0)
    assert len(stored) == len(rows)


@given(lines)
@settings(max_examples=50)
def test_read_verdicts_gives_the_last_of_each_key(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("store") / "verdicts.jsonl"
    written = [as_verdict(key, said) for key, said in rows]
    path.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in written) + b'{"dialogue": "torn')
    last = {one.key: one for one in written}
    found = list(read_verdicts(str(path)))
    assert len(found) == len(last) and all(last[one.key] == one for one in found)


def test_the_index_is_small(tmp_path):
    stored = Stored()
    row = msgspec.to_builtins(as_verdict(("a", "", 0, 0, 0), True))
    for number in range(10_000):
        stored.add(row | {"turn": number})
    assert stored._hashes.itemsize * len(stored._hashes) + len(stored._codes) == 90_000


def test_more_kinds_of_reasons_than_there_is_room_for_are_told_as_others():
    stored = Stored()
    for number in range(400):
        stored.add(msgspec.to_builtins(Verdict("d", number, 0, "C0", None, reason=unscored(f"reason {number}"))))
    stored.seal()
    first, last = stored.look([("d", "", 0, 0, 0, "C0"), ("d", "", 0, 399, 0, "C0")])
    assert first.kind == "reason 0" and last.kind == "other reasons" and last.met is None


def test_the_secret_of_tests_is_that_of_the_askers():
    assert Scripted.secret == Oracle.secret == SECRET


def test_the_settings_alone_describe_the_judge(tmp_path):
    made, found = config(tmp_path)
    made.judging = Judging(kind="llm", schedule="step")
    asker = oracle(found)
    summary = judge_file(made, asker=asker)
    assert summary.total.passed == 6 and {request.stage for request in asker.requests} == {"judge: step"}
    with pytest.raises(ConfigError, match="none is given"):
        judge_file(made)
