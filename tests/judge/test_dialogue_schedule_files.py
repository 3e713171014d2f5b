"""The schedule `dialogue` in files and against truth: stores as of others, verdicts as of `turn` and the checks."""

from __future__ import annotations

import json
import random
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judge_askers import Oracle, Scripted, ids, placed, stripped
from judge_builders import call, say, talk

from cm2.checklist import Checklist, Item, Task
from cm2.dialogue import Dialogue
from cm2.errors import ConfigError
from cm2.formats import read_tasks, write_task
from cm2.judge import ChecksJudge
from cm2.judge.hybrid import HybridJudge
from cm2.judge.judge import judge_dialogue, wait
from cm2.judge.judging import Judging
from cm2.judge.llm import LLMJudge
from cm2.judge.make import make_judge
from cm2.judge.run import JudgeConfig, judge_file
from cm2.judge.stored import read_verdicts
from cm2.label.reference import ReferenceLabeler
from cm2.llm import ModelError, Models, ModelsConfig, Request, RoleModel
from cm2.rollout.collect import RolloutConfig
from cm2.rollout.environment import Environment
from cm2.simulate.config import SimulatorConfig
from cm2.train.feedback import Feedback
from cm2.verdict import WHOLE, Verdict
from cm2.worlds import MakeConfig, make

DIALOGUE = Judging(kind="llm", schedule="dialogue")


def told(verdicts: list[Verdict]) -> list[tuple[int, int, str, bool | None]]:
    return [(v.turn, v.step, v.item, v.met) for v in verdicts]


def of(judge: Any, run: Dialogue, checklists: list[Checklist]) -> list[Verdict]:
    return [verdict for found in wait(judge_dialogue(judge, run, checklists)) for verdict in found]


def departed(dialogue: Dialogue, draw: random.Random) -> Dialogue:
    """The dialogue as a worse agent would have had it."""
    run: Dialogue = msgspec.convert(msgspec.to_builtins(dialogue), Dialogue)
    for turn in run.turns:
        fault = draw.choice(("none", "none", "call", "words", "order", "broken"))
        if fault == "call" and len(turn.steps) > 1:
            del turn.steps[draw.randrange(len(turn.steps) - 1)]
        elif fault == "words" and turn.steps:
            turn.steps[-1].reply = draw.choice(("", "Sure!", turn.steps[-1].reply))
        elif fault == "order":
            draw.shuffle(turn.steps)
        elif fault == "broken":
            turn.steps = turn.steps[:-1]
    if draw.random() < 0.3 and len(run.turns) > 1:
        run.turns = run.turns[: draw.randrange(1, len(run.turns))]
    return run


def with_whole(task: Task) -> Task:
    """The task with some of its items asked of the whole dialogue too."""
    items = [
        msgspec.structs.replace(item, id=f"W{c.turn}.{item.id}", depends_on=[])
        for c in task.checklists
        for item in c.items[:2]
    ]
    return Task(task.dialogue, [*task.checklists, Checklist(WHOLE, items)])


def agree(task: Task, run: Dialogue, config: Judging) -> int:
    """Compare `dialogue` with `turn` and the checks on a run; how many verdicts."""
    open_ = stripped(task).checklists
    turns = [checklist for checklist in open_ if checklist.turn != WHOLE]
    oracle = Oracle([run], task.checklists)
    judge = LLMJudge(oracle, config)
    at_once = of(judge, run, open_)
    assert judge.counts.again == 0 and None not in {verdict.met for verdict in at_once}
    by_turn = of(LLMJudge(Oracle([run], task.checklists), Judging(kind="llm")), run, turns)
    per_turn = [verdict for verdict in at_once if verdict.turn != WHOLE]
    assert told(per_turn) == told(by_turn), run.id
    assert [v.reason for v in per_turn if v.judge == "skip"] == [v.reason for v in by_turn if v.judge == "skip"]
    checked: dict[tuple[int, int, str], bool | None] = {}
    for v in of_checks(task, run):  # what held once counts as done
        checked[v.turn, v.step, v.item] = v.met or checked.get((v.turn, v.step - 1, v.item), False)
    needy = {(c.turn, item.id) for c in task.checklists for item in c.items if item.depends_on}
    for turn, step, item, met in told(at_once):
        if (turn, item) not in needy:  # what could not pay is a no without a call
            assert met is checked[turn, step, item], (run.id, turn, step, item)
    return len(at_once)


def of_checks(task: Task, run: Dialogue) -> list[Verdict]:
    judge = ChecksJudge()
    return [v for c in task.checklists for v in judge.judge(run, c.turn, c)]


@pytest.fixture(scope="module")
def worlds() -> list[Task]:
    labeler = ReferenceLabeler()
    made = [one for p in ("full", "short") for one in make(MakeConfig(count=8, profile=p, seed=5))]
    return [with_whole(labeler.label(one).task) for one in made]


@settings(max_examples=40)
@given(data=st.data())
def test_truth_is_the_same_at_once_and_turn_by_turn(worlds: list[Task], data: st.DataObject) -> None:
    task = data.draw(st.sampled_from(worlds))
    run = departed(task.dialogue, random.Random(data.draw(st.integers(0, 10**6))))
    config = msgspec.structs.replace(
        DIALOGUE,
        items=data.draw(st.sampled_from(["first", "last"])),
        at_once=data.draw(st.sampled_from([1, 3, 40])),
        span=data.draw(st.sampled_from([1, 400, 60_000])),
        isolate=data.draw(st.sampled_from(["none", "subjective"])),
    )
    agree(task, run, config)


def test_truth_is_the_same_on_real_dialogues(shared_data: Path) -> None:
    labeler, draw, compared, calls = ReferenceLabeler(), random.Random(7), 0, 0
    for name in ("star_train", "taskmaster4", "taubench_airline_gpt4o"):
        for _, row in islice(read_tasks(shared_data / f"{name}.jsonl.gz"), 12):
            task = with_whole(labeler.label(row.dialogue).task)
            for run in (row.dialogue, departed(row.dialogue, draw)):
                compared += agree(task, run, DIALOGUE)
                calls += 1
    assert compared > 600 and calls == 72


def test_a_hybrid_of_checks_and_truth_says_what_the_checks_say(worlds: list[Task]) -> None:
    for task in worlds[::2]:
        half = [
            msgspec.structs.replace(
                c, items=[msgspec.structs.replace(i, check=None) if n % 2 else i for n, i in enumerate(c.items)]
            )
            for c in task.checklists
        ]
        oracle = Oracle([task.dialogue], task.checklists)
        config = msgspec.structs.replace(DIALOGUE, kind="hybrid", skip_ungrounded=False)
        found = of(HybridJudge(LLMJudge(oracle, config)), task.dialogue, half)
        assert told(found) == told(of_checks(task, task.dialogue)) and len(oracle.requests) <= 1


# Files.


def write(path: Path, tasks: list[Task]) -> str:
    path.write_text("".join(json.dumps(write_task(task, "openai")) + "\n" for task in tasks))
    return str(path)


def judged(source: str, store: Path, tasks: list[Task], config: Judging = DIALOGUE) -> Oracle:
    oracle = Oracle([task.dialogue for task in tasks], [c for task in tasks for c in task.checklists])
    judge_file(JudgeConfig(source, str(store), judging=config), asker=oracle)
    return oracle


@pytest.fixture
def file(tmp_path: Path, worlds: list[Task]) -> tuple[str, list[Task]]:
    """Tasks whose items have texts of their own, so that an oracle can tell them apart."""
    tasks = []
    for number, task in enumerate(worlds[:4]):
        lists = [
            msgspec.structs.replace(
                c, items=[msgspec.structs.replace(i, question=f"{number}: {i.question}") for i in c.items]
            )
            for c in task.checklists
        ]
        tasks.append(Task(task.dialogue, lists))
    return write(tmp_path / "tasks.jsonl", [stripped(task) for task in tasks]), tasks


def test_a_store_has_the_same_lines_in_the_same_order_as_of_the_schedule_turn(
    file: tuple[str, list[Task]], tmp_path: Path
) -> None:
    source, tasks = file
    at_once, turn = tmp_path / "dialogue.jsonl", tmp_path / "turn.jsonl"
    asked = judged(source, at_once, tasks)
    assert len(asked.requests) == len(tasks)
    plain = [Task(t.dialogue, [c for c in t.checklists if c.turn != WHOLE]) for t in tasks]
    judged(write(tmp_path / "plain.jsonl", [stripped(task) for task in plain]), turn, tasks, Judging(kind="llm"))
    keys = [(v.key, v.met) for v in read_verdicts(str(at_once)) if v.turn != WHOLE]
    assert keys == [(v.key, v.met) for v in read_verdicts(str(turn))]
    assert all(v.turn == v.step == WHOLE for v in read_verdicts(str(at_once)) if v.turn == WHOLE)


def test_a_killed_run_goes_on_item_by_item(file: tuple[str, list[Task]], tmp_path: Path) -> None:
    source, tasks = file
    whole = tmp_path / "whole.jsonl"
    judged(source, whole, tasks)
    lines = whole.read_bytes().splitlines(keepends=True)
    final = sorted((v.key, v.met) for v in read_verdicts(str(whole)))
    for cut in (1, len(lines) // 3, len(lines) // 2, len(lines) - 1):
        part = tmp_path / f"part{cut}.jsonl"
        part.write_bytes(b"".join(lines[:cut]) + lines[cut][: len(lines[cut]) // 2])
        Path(f"{part}.input.json").write_bytes(Path(f"{whole}.input.json").read_bytes())
        held = [msgspec.json.decode(line, type=Verdict) for line in lines[:cut]]
        asked = judged(source, part, tasks)
        assert sorted((v.key, v.met) for v in read_verdicts(str(part))) == final
        assert len(part.read_bytes().splitlines()) == len(lines), "nothing is written twice"
        done = {v.dialogue for v in held[:-1]} - {held[-1].dialogue}
        assert len(asked.requests) <= len(tasks) - len(done)
        decided = {(v.turn, v.item) for v in held if v.dialogue == held[-1].dialogue and v.turn < held[-1].turn}
        again = [request for request in asked.requests if request.affinity == held[-1].dialogue]
        named = {tuple(id.removeprefix("t").split(".", 1)) for request in again for id in ids(request)}
        assert not named & {(str(turn), item) for turn, item in decided}
    before = whole.read_bytes()
    assert judged(source, whole, tasks).requests == [] and whole.read_bytes() == before


def test_what_failed_is_tried_again_as_a_new_draw_and_nothing_else(tmp_path: Path) -> None:
    dialogue = talk([call("a", {"x": 1}), say("Done.")], [say("Bye.")])
    reply = "assistant.content.user_visible_reply"
    lists = [Checklist(t, [Item("C0", reply, f"{t}?", "p", 1.0), Item("C1", reply, f"{t}!", "p", 1.0)]) for t in (0, 1)]
    source, store = write(tmp_path / "in.jsonl", [Task(dialogue, lists)]), tmp_path / "out.jsonl"

    def first(request: Request) -> Any:
        return [placed(id, None) for id in ids(request) if id != "t1.C0"]

    asker = Scripted(first)
    judge_file(JudgeConfig(source, str(store), judging=DIALOGUE), asker=asker)
    assert [ids(request) for request in asker.requests] == [["t0.C0", "t0.C1", "t1.C0", "t1.C1"], ["t1.C0"]]
    later = Scripted(lambda request: [placed(id, (1, 0), "Bye.") for id in ids(request)])
    summary = judge_file(JudgeConfig(source, str(store), judging=DIALOGUE), asker=later)
    (request,) = later.requests
    assert ids(request) == ["t1.C0"] and request.sample == 1000 and summary.written == 1
    assert [(v.turn, v.step, v.item, v.met) for v in read_verdicts(str(store))][-1] == (1, 0, "C0", True)
    failing = Scripted(ModelError("junk"))
    assert judge_file(JudgeConfig(source, str(store), judging=DIALOGUE), asker=failing).written == 0
    assert failing.requests == []


def test_a_store_is_not_continued_by_another_schedule_or_order(file: tuple[str, list[Task]], tmp_path: Path) -> None:
    source, tasks = file
    store = tmp_path / "store.jsonl"
    judged(source, store, tasks)
    for other in (Judging(kind="llm"), msgspec.structs.replace(DIALOGUE, items="last")):
        with pytest.raises(ConfigError, match="judge changed"):
            judged(source, store, tasks, other)


def test_a_dry_run_plans_one_call_a_dialogue(file: tuple[str, list[Task]], tmp_path: Path) -> None:
    source, tasks = file
    config = ModelsConfig(default=RoleModel(base_url="http://127.0.0.1:9/v1", model="m"))
    with Models(config, dry=True) as models:
        judge_file(JudgeConfig(source, str(tmp_path / "no.jsonl"), judging=DIALOGUE), asker=models, dry=True)
        assert {name: stage.calls for name, stage in models.planned.stages.items()} == {"judge: dialogue": len(tasks)}


# Rollouts.


def test_a_rollout_refuses_a_judge_that_needs_its_end(worlds: list[Task]) -> None:
    asker = Scripted([])
    for kind in ("llm", "hybrid", "vote"):
        judging = msgspec.structs.replace(DIALOGUE, kind=kind)
        with pytest.raises(ConfigError, match=r"over.*use the schedule `turn`"):
            Environment(worlds[0], None, make_judge(judging, asker))  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="must know after each turn"):
            RolloutConfig(input="a", output="b", endpoint=None, judging=judging)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="must know after each turn"):
            Feedback.asked(judging, SimulatorConfig(), None)
    Environment(worlds[0], None, make_judge(Judging(schedule="dialogue")))  # type: ignore[arg-type]
