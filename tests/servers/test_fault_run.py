"""The fault run: faults and kills cost tries, never a verdict.

500 dialogues are judged by a model behind a real server, in processes of their own. When three calls in ten are faulty,
and when the judge is killed ten times beside, the verdicts are those of the run in which nothing went wrong.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cm2.checklist import Checklist, Item, Task
from cm2.dialogue import Dialogue, Step, ToolCall, ToolResponse, Turn
from cm2.formats import write_task
from servers.processes import cm2, finish, kill_after, scripted
from servers.scripted import HARMLESS, MODEL, PROVIDER

DIALOGUES, KILLS = 500, 10
WIDTH, NARROW = 24, 12
"""Dialogues under way at once; where runs are killed, each may be lost and paid for twice."""
FOCUSES = ["assistant.tool_calls", "tool.content", "assistant.content.user_visible_reply"]
Key = tuple[str, int, int, str]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 dialogues of one or two turns with three items each."""
    rng = random.Random(5)
    path = tmp_path_factory.mktemp("fault-run") / "tasks.jsonl"
    with path.open("w") as file:
        for number in range(DIALOGUES):
            turns = [_turn(rng, number, t) for t in range(1 + (number % 4 == 0))]
            task = Task(Dialogue(f"d{number}", turns), [_checklist(t) for t in range(len(turns))])
            file.write(json.dumps(write_task(task, "openai")) + "\n")
    return path


def _turn(rng: random.Random, number: int, turn: int) -> Turn:
    steps = [
        Step(
            calls=[ToolCall("look", {"id": f"k{number}-{n}"}, f"c{n}")], responses=[ToolResponse(f"item {n}", f"c{n}")]
        )
        for n in range(rng.randint(1, 3))
    ]
    return Turn(f"What about {number}, part {turn}?", [*steps, Step(reply=f"It is {rng.randint(10, 99)} of {number}.")])


def _checklist(turn: int) -> Checklist:
    items = [
        Item(f"C{n}", focus, f"Was duty {n} of part {turn} done?", f"duty {n} is done", round(1 / 3, 6))  # type: ignore[arg-type]
        for n, focus in enumerate(FOCUSES)
    ]
    return Checklist(turn, items)


def judging(tasks: Path, store: Path, url: str, width: int = WIDTH, patience: int = 15) -> list[str]:
    settings = (f"timeout={patience}", "backoff=0.01", "longest_wait=0.2", "price={input: 1, output: 1}")
    return [
        *("judge", str(tasks), "-o", str(store), "--judge", "llm", "--base-url", url, "--model", "scripted"),
        *("--concurrency", str(width), "--json", *(word for one in settings for word in ("--set", one))),
    ]


def verdicts(store: Path) -> dict[Key, bool | None]:
    rows = [json.loads(line) for line in store.read_text().splitlines()]
    return {(row["dialogue"], row["turn"], row["step"], row["item"]): row["met"] for row in rows}


def calls(log: Path) -> list[dict[str, Any]]:
    lines = log.read_text().splitlines() if log.exists() else []
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def clean(tasks: Path) -> Iterator[tuple[dict[Key, bool | None], int]]:
    """The verdicts of the run in which nothing goes wrong, and what it paid for."""
    store, log = tasks.with_name("clean.jsonl"), tasks.with_name("clean.log")
    with scripted("--script", "truth", "--log", str(log)) as url:
        summary = finish(cm2(*judging(tasks, store, url, patience=300)))
    assert summary["total"]["unscored"] == 0
    yield verdicts(store), sum(call["paid"] for call in calls(log))


def test_the_clean_run_decides_everything_with_one_call_a_turn(clean: tuple[dict[Key, bool | None], int]) -> None:
    found, paid = clean
    assert paid == DIALOGUES * 5 // 4
    assert {key[0] for key in found} == {f"d{number}" for number in range(DIALOGUES)}
    assert 0.2 < sum(met is True for met in found.values()) / len(found) < 0.8 and None not in found.values()


def test_a_run_with_faults_ends_with_the_same_verdicts(tasks: Path, clean: tuple[dict[Key, bool | None], int]) -> None:
    store, log = tasks.with_name("faulty.jsonl"), tasks.with_name("faulty.log")
    with scripted("--script", "faulty", "--share", "0.3", "--log", str(log)) as url:
        summary = finish(cm2(*judging(tasks, store, url)))
    assert verdicts(store) == clean[0] and summary["total"]["unscored"] == 0
    made = calls(log)
    kinds = Counter(call["kind"] for call in made)
    first = [call for call in made if call["tries"] == 0 and not call["anew"]]
    assert 0.25 < sum(call["kind"] != "good" for call in first) / len(first) < 0.35
    never = {*PROVIDER, *MODEL, *HARMLESS} - set(kinds)
    assert never <= {"time_out"}, "a fault of the plan never happened: give the plan another seed"
    # Money: what the provider failed to serve is not paid for, what it served is asked for once, and an answer that
    # could not be used costs at most one question more (or, item by item, one for what was wrong and its repair).
    paid = Counter(call["question"] for call in made if call["paid"])
    assert max(paid.values()) == 1
    bad = sum(kinds[kind] for kind in MODEL)
    assert sum(paid.values()) <= clean[1] + bad
    assert sum(not call["paid"] for call in made) == sum(kinds[kind] for kind in PROVIDER)


@pytest.mark.slow
def test_ten_kills_change_no_verdict_and_lose_only_what_was_under_way(
    tasks: Path, clean: tuple[dict[Key, bool | None], int]
) -> None:
    store, log = tasks.with_name("killed.jsonl"), tasks.with_name("killed.log")
    rng = random.Random(11)
    with scripted("--script", "faulty", "--share", "0.3", "--without", "time_out", "--log", str(log)) as url:
        for kill in range(KILLS):
            more = rng.randint(1, 100)
            killed = kill_after(cm2(*judging(tasks, store, url, NARROW, 300)), lambda: len(calls(log)), more)
            assert killed, f"run {kill} ended before it was killed: make it longer"
        summary = finish(cm2(*judging(tasks, store, url, NARROW, 300)))
    assert verdicts(store) == clean[0] and summary["total"]["unscored"] == 0
    assert len(store.read_text().splitlines()) == len(clean[0]), "a verdict stands twice"
    made = calls(log)
    paid = Counter(call["question"] for call in made if call["paid"])
    again = sum(paid.values()) - len(paid)
    assert again <= KILLS * NARROW, "an answer that was kept was asked for again"
    bad = sum(call["kind"] in MODEL for call in made)
    assert sum(paid.values()) <= clean[1] + bad + KILLS * NARROW
