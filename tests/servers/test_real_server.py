"""A real server with a model that is much too small: its junk is the best test there is.

SmolLM2-135M judges, labels, filters, simulates and shortens. Hardly anything it says can be used, and nothing that it
says may do harm: no exception, no verdict without evidence, no item without proof; whatever could not be decided is
unscored or set aside with its reason and its owner, and the counts add up.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cm2.checklist import Checklist, Task, validate
from cm2.curate.compressor import Compressor
from cm2.curate.judged import Gate
from cm2.curate.opinion import parse_passes
from cm2.dialogue import Dialogue, ToolCall
from cm2.errors import Where
from cm2.formats import write_row, write_task
from cm2.judge.judging import Judging
from cm2.judge.make import make_judge
from cm2.judge.quote import quoted
from cm2.judge.run import JudgeConfig, judge_file
from cm2.label.config import Drafting
from cm2.label.llm import LlmLabeler
from cm2.llm import Models, ModelsConfig, RoleModel
from cm2.simulate import LLMBackend, SimulatorError, World
from injection.twins import bases, checklist
from servers.real_servers import START, start

pytestmark = pytest.mark.servers
ENOUGH = 48
"""Tokens of an answer; many are cut off by it."""


@pytest.fixture(scope="module", params=list(START))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A real server."""
    with start(request.param, tmp_path_factory.mktemp("server")) as running:
        yield running


def models(server: tuple[str, str], **settings: Any) -> Models:
    url, name = server
    usual: dict[str, Any] = {"max_tokens": ENOUGH, "temperature": 0, "timeout": 580.0, "retries": 0, "concurrency": 1}
    usual["price"] = {"input": 1.0, "output": 2.0}
    return Models(ModelsConfig(default=RoleModel(base_url=url, model=name, **usual | settings)))


def short() -> Dialogue:
    """A dialogue of one turn without thinking: every token counts on a machine without a GPU."""
    dialogue = bases()[0]
    del dialogue.turns[1:]
    for step in dialogue.turns[0].steps:
        step.thinking = None
    return dialogue


@pytest.mark.parametrize("structured", ["auto", "prompt"])
def test_a_judge(server: tuple[str, str], structured: str, tmp_path: Path) -> None:
    source, store = tmp_path / "tasks.jsonl", tmp_path / "verdicts.jsonl"
    items = [item for item in checklist().items if item.focus_on != "assistant.content.thinking"][:2]
    duties = Checklist(0, items)
    source.write_text(json.dumps(write_task(Task(short(), [duties]), "openai")) + "\n")
    with models(server, structured=structured, max_tokens=2 * ENOUGH) as door:
        judge = make_judge(Judging(kind="llm"), door)
        summary = judge_file(JudgeConfig(str(source), str(store)), judge)
        spent = door.spent.total
    rows = [json.loads(line) for line in store.read_text().splitlines()]
    steps = short().turns[0].steps
    assert {(row["step"], row["item"]) for row in rows} == {(s, item.id) for s in range(3) for item in items}
    for row in rows:
        if row["met"] is None:
            assert row["reason"].startswith("unscored") and row["owner"] == "judge"
        if row["met"]:
            pointer = row["evidence"][0]
            said = json.dumps([c.name for c in steps[pointer["step"]].calls]) + json.dumps(
                [r.content for r in steps[pointer["step"]].responses] + [steps[pointer["step"]].reply]
            )
            assert quoted(pointer["snippet"], said) or pointer["part"] == "assistant.tool_calls"
    total = summary.total
    assert total.items == len(items) == total.passed + total.failed + total.unscored
    assert 1 <= spent.calls <= 4 and spent.prompt_tokens > 500 and spent.completion_tokens > 0 and spent.cost > 0


def test_a_labeller(server: tuple[str, str]) -> None:
    dialogue = bases()[1]
    with models(server, max_tokens=4 * ENOUGH) as door:
        found = asyncio.run(LlmLabeler(door, Drafting(most_items=2)).label(dialogue))
    kept = [item for each in found.task.checklists for item in each.items]
    if found.lost:
        assert not kept and {lost.owner for lost in found.lost} == {"model"} and all(one.message for one in found.lost)
        return
    assert found.proposed == len(kept) + found.merged + sum(found.items_out.values())
    for each in found.task.checklists:
        assert validate(each, dialogue) == []


def test_a_filter(server: tuple[str, str]) -> None:
    with models(server) as door:
        gate = Gate(door, parse_passes("low:2"))
        summary, row = gate.summary(), write_row(short(), "openai")
        opinion = asyncio.run(gate.judge(row, Where()))
        summary.count(opinion, 1)
    if opinion.keep is None:
        assert opinion.lost is not None and opinion.lost.owner == "judge" and opinion.lost.reason
    elif opinion.keep is False:
        assert opinion.reason.strip()
    assert (summary.rows, summary.kept + summary.rejected + summary.unscored) == (1, 1)
    assert summary.calls == opinion.asked == sum(count.yes + count.no + count.lost for count in summary.passes)


def test_a_simulator(server: tuple[str, str]) -> None:
    dialogue = short()
    with models(server) as door:
        backend = LLMBackend(dialogue, door)
        world = World(dialogue, backend=backend)
        session, call = world.session(), ToolCall("find_table", {"people": 5})
        try:
            response = session.respond(call)
        except SimulatorError as error:
            assert str(error)  # the simulator's failure, told as such
            return
    assert response.origin == "simulated" and isinstance(response.value, dict)
    assert backend.check(call)({"answer": response.value}) == ""


def test_a_compressor(server: tuple[str, str]) -> None:
    dialogue = bases()[0]
    del dialogue.turns[1:]
    with models(server, max_tokens=2 * ENOUGH) as door:
        done = asyncio.run(Compressor(door).compress(dialogue, [], Where()))
    assert [outcome.section.place for outcome in done.outcomes] == ["turn 0 step 0", "turn 0 step 1"]
    for outcome in done.outcomes:
        ends = [outcome.text is not None, bool(outcome.fault), outcome.lost is not None]
        assert sum(ends) == 1
        assert outcome.text is None or len(outcome.text) < len(outcome.section.thinking)
        assert outcome.lost is None or outcome.lost.owner == "compressor"
