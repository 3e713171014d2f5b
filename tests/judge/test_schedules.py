"""Every schedule says the same under a judge that tells the truth: what the checks say, and what they pay."""

from __future__ import annotations

import msgspec
import pytest
from judge_askers import Oracle, stripped

from cm2.checklist import Checklist, Item, Task
from cm2.credit import score
from cm2.dialogue import Dialogue
from cm2.judge import ChecksJudge
from cm2.judge.hybrid import HybridJudge
from cm2.judge.judging import SCHEDULES, Judging
from cm2.judge.llm import LLMJudge
from cm2.judge.vote import VoteJudge
from cm2.label.reference import ReferenceLabeler
from cm2.worlds import MakeConfig, make


@pytest.fixture(scope="module")
def worlds() -> list[tuple[Dialogue, Task]]:
    """Labelled dialogues of the sample worlds, each as it went and as worse agents would have it."""
    labeler = ReferenceLabeler()
    found = []
    for profile in ("full", "short"):
        for dialogue in make(MakeConfig(count=9, profile=profile, seed=3)):
            task = labeler.label(dialogue).task
            found += [(run, task) for run in runs(dialogue)]
    return found


def runs(dialogue: Dialogue) -> list[Dialogue]:
    """The reference; without its first call; broken off in its last turn; without a word; one that guesses first."""
    found = [dialogue]
    for change in range(4):
        run = msgspec.convert(msgspec.to_builtins(dialogue), Dialogue)
        for turn in run.turns:
            if change == 0 and len(turn.steps) > 2:
                del turn.steps[0]
            elif change == 1 and turn is run.turns[-1]:
                turn.steps = turn.steps[:-1]
            elif change == 2:
                for step in turn.steps:
                    step.reply = "" if step.reply is not None else None
            elif change == 3 and len(turn.steps) > 1:
                turn.steps = [turn.steps[-1], *turn.steps[:-1], turn.steps[-1]]
        found.append(run)
    return found


def paid(run: Dialogue, task: Task, verdicts):
    """Rewards by turn and outcome by item."""
    found = score(task.checklists, verdicts, [len(turn.steps) for turn in run.turns], len(task.dialogue.turns))
    steps = {place: ledger.step_rewards.tolist() for place, ledger in found.ledgers.items()}
    return steps, {place: ledger.outcome for place, ledger in found.ledgers.items()}


def judged(judge, run: Dialogue, task: Task):
    return [verdict for checklist in task.checklists for verdict in judge.judge(run, checklist.turn, checklist)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_truthful_model_pays_what_the_checks_pay(worlds, schedule):
    items = 0
    for run, task in worlds:
        oracle = Oracle([run], task.checklists)
        judge = LLMJudge(oracle, Judging(kind="llm", schedule=schedule))
        verdicts = judged(judge, run, stripped(task))
        assert None not in {verdict.met for verdict in verdicts}
        assert judge.counts.again == 0
        assert paid(run, task, verdicts) == paid(run, task, judged(ChecksJudge(), run, task)), run.id
        items += sum(len(checklist.items) for checklist in task.checklists)
    assert items > 500


def test_each_schedule_asks_less_than_the_one_before_it(worlds):
    calls = {}
    for schedule in ("published", "item", "step", "turn"):
        calls[schedule] = 0
        for run, task in worlds[:20]:
            oracle = Oracle([run], task.checklists)
            judged(LLMJudge(oracle, Judging(kind="llm", schedule=schedule)), run, stripped(task))
            calls[schedule] += len(oracle.requests)
    turns = sum(bool(run.turns[c.turn].steps) for run, task in worlds[:20] for c in task.checklists)
    assert calls["published"] > calls["item"] > calls["step"] > calls["turn"]
    assert calls["turn"] <= turns


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_hybrid_of_checks_and_truth_pays_the_same(worlds, schedule):
    for run, task in worlds[::3]:
        half = Task(task.dialogue, [half_open(checklist) for checklist in task.checklists])
        oracle = Oracle([run], task.checklists)
        judge = HybridJudge(LLMJudge(oracle, Judging(kind="llm", schedule=schedule)))
        verdicts = judged(judge, run, half)
        assert paid(run, task, verdicts) == paid(run, task, judged(ChecksJudge(), run, task)), run.id
        order = [(v.turn, v.step, int(v.item[1:])) for v in verdicts]
        assert order == sorted(order)


def half_open(checklist: Checklist) -> Checklist:
    """Every second item without its check."""
    items: list[Item] = []
    for number, item in enumerate(checklist.items):
        items.append(item if number % 2 else msgspec.structs.replace(item, check=None))
    return msgspec.structs.replace(checklist, items=items)


def test_a_vote_of_truths_is_the_truth(worlds):
    for run, task in worlds[::5]:
        oracle = Oracle([run], task.checklists)
        vote = VoteJudge([LLMJudge(oracle, sample=k) for k in range(3)])
        assert paid(run, task, judged(vote, run, stripped(task))) == paid(run, task, judged(ChecksJudge(), run, task))


def test_real_dialogues_are_judged_alike_by_checks_and_by_a_truthful_model(shared_data):
    from itertools import islice

    from cm2.formats import read_tasks

    labeler = ReferenceLabeler()
    compared = 0
    for name in ("star_train", "taskmaster4", "taubench_airline_gpt4o"):
        for _, row in islice(read_tasks(shared_data / f"{name}.jsonl.gz"), 12):
            task = labeler.label(row.dialogue).task
            oracle = Oracle([row.dialogue], task.checklists)
            judge = LLMJudge(oracle)
            verdicts = judged(judge, row.dialogue, stripped(task))
            assert paid(row.dialogue, task, verdicts) == paid(
                row.dialogue, task, judged(ChecksJudge(), row.dialogue, task)
            )
            compared += len(verdicts)
    assert compared > 300
