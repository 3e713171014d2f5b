"""The whole way: attacks in a file, through `cm2 judge`, over HTTP, to a model that obeys all outside of the fence.

The server is taken to have no JSON-schema mode, so that the prompt holds as much as it ever does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cm2.checklist import Task
from cm2.dialogue import Dialogue
from cm2.formats import write_task
from cm2.llm import Request
from cm2.llm.fence import Fence
from injection.obedient import Obedient
from injection.test_injection_judge import says_yes
from injection.twins import HARMLESS, attacks, bases, checklist, place
from servers import truth
from servers.processes import SECRET, cm2, finish
from servers.scripted import Behaviour, Scripted, says


def write(path: Path, dialogues: list[Dialogue]) -> Path:
    path.write_text("".join(json.dumps(write_task(Task(d, [checklist()]), "openai")) + "\n" for d in dialogues))
    return path


def verdicts(source: Path, url: str, schedule: str) -> dict[tuple[str, int, str], Any]:
    store = source.with_suffix(".verdicts")
    told = ("--model", "obedient", "--set", "structured=prompt", "--concurrency", "8", "--json", "--schedule", schedule)
    finish(cm2("judge", str(source), "-o", str(store), "--judge", "llm", "--base-url", url, *told))
    rows = [json.loads(line) for line in store.read_text().splitlines()]
    return {(row["dialogue"], row["step"], row["item"]): row["met"] for row in rows}


@pytest.mark.parametrize("schedule", ["turn", "dialogue"])
def test_no_attack_in_a_file_changes_a_verdict(schedule: str, tmp_path: Path) -> None:
    clean, attacked = [], []
    for attack in attacks():
        for number, base in enumerate(bases()):
            base.id = f"{attack.id}.{number}"
            text = attack.armed(Fence.make(SECRET, base.id).nonce)
            twins = [place(base, attack.place, words) for words in (HARMLESS, text)]
            if twins[0] is not None and twins[1] is not None:
                clean.append(twins[0])
                attacked.append(twins[1])
    assert len(clean) > 200
    sources = [write(tmp_path / f"{name}.jsonl", rows) for name, rows in (("clean", clean), ("attacked", attacked))]

    model = Obedient(lambda request: truth.judge(request.messages), says_yes)

    def script(body: dict[str, Any], tries: int) -> Behaviour:
        return says(json.dumps(model.answer(Request(role="judge", messages=body["messages"]))))

    with Scripted(script) as server:
        before = verdicts(sources[0], server.url, schedule)
        model.learning = False
        after = verdicts(sources[1], server.url, schedule)
    assert model.orders == []
    assert after == before and {*after.values()} == {True, False}
