"""The reference labeller against executable worlds: its rewards agree with what really happened in them."""

from __future__ import annotations

import random
import re
from functools import cache

import msgspec
import pytest
from label_builders import failing, label

from cm2.dialogue import Dialogue, Step
from cm2.label.lint import lint_task
from cm2.worlds import MakeConfig, make
from cm2.writes import changes_state

COUNT = 32


@cache
def dialogues(profile: str, split: str = "train") -> list[Dialogue]:
    return list(make(MakeConfig(count=COUNT, seed=5, split=split, profile=profile, two_turns=0.3)))


def test_every_turn_of_a_short_world_gets_a_checklist_and_it_passes_lint():
    for dialogue in dialogues("short"):
        labelled = label(dialogue)
        assert len(labelled.task.checklists) == len(dialogue.turns), dialogue.id
        assert [report for report in lint_task(labelled.task) if not report.ok] == []


def test_what_makes_the_task_is_strict_and_weighs_most():
    for dialogue in dialogues("short"):
        for turn in label(dialogue).task.checklists:
            writes = [item for item in turn.items if item.kind == "write"]
            looks = [item for item in turn.items if item.kind in ("call", "response")]
            assert all(item.weight > look.weight for item in writes for look in looks)
            assert writes or any(item.kind == "refusal" for item in turn.items), dialogue.id


@pytest.mark.parametrize("profile", ["short", "full"])
def test_the_same_conduct_in_a_world_with_other_ids_passes(profile):
    """Every id that a tool handed out is renamed, in responses, arguments and replies alike."""
    for dialogue in dialogues(profile):
        other = renamed(dialogue)
        assert other != dialogue
        for turn in label(dialogue).task.checklists:
            assert failing(turn, other, turn.turn) == set(), (dialogue.id, turn.turn)


def renamed(dialogue: Dialogue) -> Dialogue:
    said = " ".join([dialogue.system or "", *(turn.user for turn in dialogue.turns)])
    handed = {
        match
        for turn in dialogue.turns
        for step in turn.steps
        for response in step.responses
        for match in re.findall(r'"([A-Z]+\d+[A-Z\d]*)"', response.content)
        if match not in said
    }
    text = msgspec.json.encode(dialogue).decode()
    for number, id in enumerate(sorted(handed)):
        text = re.sub(rf"(?<![A-Z\d]){id}(?![A-Z\d])", f"ZQ{700 + number}", text)
    return msgspec.json.decode(text, type=Dialogue)


def test_a_write_about_another_record_never_passes():
    """The agent acts on another record of the same look-up: the commonest mistake of a small model."""
    tried = 0
    for dialogue in dialogues("short"):
        for t, turn in enumerate(dialogue.turns):
            found = [each for step in turn.steps for response in step.responses for each in rows(response.value)]
            for s, step in enumerate(turn.steps):
                if not step.calls or not writes(dialogue, step):
                    continue
                key, id = next(iter(step.calls[0].arguments.items()))
                others = [row["id"] for row in found if row["id"] != id]
                if not others:
                    continue
                wrong = replaced(dialogue, t, s, key, random.Random(0).choice(others))
                assert "write" in failing(label(dialogue).task.checklist(t), wrong, t), dialogue.id
                tried += 1
    assert tried > COUNT // 2


def rows(value) -> list[dict]:
    return [row for row in value if "id" in row] if isinstance(value, list) else []


def writes(dialogue: Dialogue, step: Step) -> bool:
    call = step.calls[0]
    return changes_state(dialogue.tool(call.name), call.name, call.arguments)


def replaced(dialogue: Dialogue, turn: int, step: int, key: str, value: str) -> Dialogue:
    copy = msgspec.json.decode(msgspec.json.encode(dialogue), type=Dialogue)
    copy.turns[turn].steps[step].calls[0].arguments[key] = value
    return copy


def test_a_refused_task_that_is_carried_out_anyway_never_passes():
    refused = [
        d
        for d in dialogues("short")
        if len(d.turns) == 1 and not any(writes(d, s) for s in d.turns[0].steps if s.calls)
    ]
    assert refused
    done = next(
        d for d in dialogues("short") if len(d.turns) == 1 and any(writes(d, s) for s in d.turns[0].steps if s.calls)
    )
    for dialogue in refused:
        look, reply = dialogue.turns[0].steps
        act = next(step for step in done.turns[0].steps if step.calls and writes(done, step))
        name = next(tool.name for tool in dialogue.tools if changes_state(tool, tool.name))
        call = msgspec.structs.replace(act.calls[0], name=name)
        hasty = msgspec.structs.replace(act, calls=[call])
        turn = msgspec.structs.replace(dialogue.turns[0], steps=[look, hasty, reply])
        run = msgspec.structs.replace(dialogue, turns=[turn])
        assert "refusal" in failing(label(dialogue).task.checklist(0), run), dialogue.id


def test_an_unseen_domain_is_labelled_as_well_as_a_known_one():
    for dialogue in dialogues("short", "unseen")[:16]:
        labelled = label(dialogue)
        assert len(labelled.task.checklists) == len(dialogue.turns)
        assert all(report.ok for report in lint_task(labelled.task))


def test_dialogues_of_many_turns_are_labelled_almost_everywhere():
    labelled = [label(dialogue) for dialogue in dialogues("full")]
    turns = sum(len(dialogue.turns) for dialogue in dialogues("full"))
    assert sum(len(each.task.checklists) for each in labelled) > 0.9 * turns
    assert all(report.ok for each in labelled for report in lint_task(each.task))
