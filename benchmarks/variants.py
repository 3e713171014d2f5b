"""Variants of sample-world references: runs whose true outcome the world itself tells.

Every reference is played again in a world made anew from its seed, with one thing changed. Some changes keep the goal
(another order of look-ups, a failed try first, other words), most break it; which it was is not assumed but asked of
the world afterwards. Answers are the world's own: ids that it hands out later in a run differ when an earlier call is
left out, and every later mention of such an id is the new one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec.structs import replace

from cm2.checklist import Task
from cm2.dialogue import Dialogue, Step, ToolCall, Turn
from cm2.label.effects_net import is_write
from cm2.label.scramble import scramble
from cm2.rollout.trace import Rollout
from cm2.simulate import World
from cm2.worlds import MakeConfig, make, outcome_of
from cm2.worlds.outcome import world_of

Made = tuple[str, Dialogue, bool, None, str]
Calls = list[ToolCall]


def variants_of(config: MakeConfig, seed: int) -> Iterator[Made]:
    """(task, dialogue, whether it reached its goal, None, kind) of each reference and its variants."""
    for number, dialogue in enumerate(make(config)):
        draw = random.Random(f"{seed} {number}")
        for kind, change in CHANGES.items():
            changed = change(dialogue, draw)
            if changed is None:
                continue
            played = play(changed)
            outcome = outcome_of(Rollout(dialogue.id, played))
            yield dialogue.id, played, bool(outcome["success"]), None, kind


def play(dialogue: Dialogue) -> Dialogue:
    """The dialogue with the answers that its world gives to its calls now; what follows from them is renamed."""
    session = World(dialogue, backend=world_of(Task(dialogue)).backend).session()
    names: dict[str, str] = {}
    turns = []
    for turn in dialogue.turns:
        steps = []
        for step in turn.steps:
            calls = [replace(call, arguments=_renamed(call.arguments, names)) for call in step.calls]
            answers = [session.respond(call) for call in calls]
            for n, answer in enumerate(answers):
                old = step.response_to(n)
                if old is not None:
                    _learn(old.value, answer.value, names)
            reply = _text(step.reply, names) if step.reply else step.reply
            steps.append(Step(reply=reply, calls=calls, responses=answers))
        turns.append(Turn(turn.user, steps))
    return replace(dialogue, turns=turns, wire=None)


def _learn(old: Any, new: Any, names: dict[str, str]) -> None:
    """Texts that stand in the same place of both answers and differ: ids that were handed out anew."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() & new.keys():
            _learn(old[key], new[key], names)
    elif isinstance(old, str) and isinstance(new, str) and old != new and " " not in old and any(map(str.isdigit, old)):
        names[old] = new


def _renamed(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, list):
        return [_renamed(each, names) for each in value]
    return {key: _renamed(each, names) for key, each in value.items()} if isinstance(value, dict) else value


def _text(text: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        text = text.replace(old, new)
    return text


def _places(dialogue: Dialogue, write: bool) -> list[tuple[int, int, int]]:
    return [
        (t, s, n)
        for t, s, n, call, response in dialogue.calls()
        if response is not None
        and response.origin != "error"
        and is_write(dialogue.tool(call.name), call.name, call.arguments) == write
    ]


def _edited(dialogue: Dialogue, at: tuple[int, int, int], edit: Callable[[ToolCall], Calls]) -> Dialogue:
    """The dialogue with the call at a place replaced by others; a step without calls or words goes."""
    turns = []
    for t, turn in enumerate(dialogue.turns):
        steps = []
        for s, step in enumerate(turn.steps):
            if (t, s) != at[:2]:
                steps.append(step)
                continue
            calls, responses = [], []
            for n, call in enumerate(step.calls):
                response = step.response_to(n)
                for k, one in enumerate(edit(call) if n == at[2] else [call]):
                    id = f"v{t}-{s}-{n}-{k}"
                    calls.append(replace(one, id=id))
                    if response is not None:
                        responses.append(replace(response, call_id=id))
            if calls or step.reply:
                steps.append(Step(reply=step.reply, calls=calls, responses=responses))
        turns.append(Turn(turn.user, steps))
    return msgspec.structs.replace(dialogue, turns=turns, wire=None)


def _same(dialogue: Dialogue, draw: random.Random) -> Dialogue:
    return dialogue


def _drop_write(dialogue: Dialogue, draw: random.Random) -> Dialogue | None:
    places = _places(dialogue, write=True)
    return _edited(dialogue, draw.choice(places), lambda call: []) if places else None


def _repeat_write(dialogue: Dialogue, draw: random.Random) -> Dialogue | None:
    places = _places(dialogue, write=True)
    return _edited(dialogue, draw.choice(places), lambda call: [call, call]) if places else None


def _drop_look(dialogue: Dialogue, draw: random.Random) -> Dialogue | None:
    places = _places(dialogue, write=False)
    return _edited(dialogue, draw.choice(places), lambda call: []) if places else None


def _repeat_look(dialogue: Dialogue, draw: random.Random) -> Dialogue | None:
    places = _places(dialogue, write=False)
    return _edited(dialogue, draw.choice(places), lambda call: [call, call]) if places else None


def _failed_try(dialogue: Dialogue, draw: random.Random) -> Dialogue | None:
    """A write is first tried with arguments that the world refuses."""
    places = _places(dialogue, write=True)

    def edit(call: ToolCall) -> Calls:
        return [replace(call, arguments={key: scramble(value) for key, value in call.arguments.items()}), call]

    return _edited(dialogue, draw.choice(places), edit) if places else None


def _other_value(dialogue: Dialogue, draw: random.Random) -> Dialogue | None:
    """One argument of a write takes another value: another choice of the schema, a near number, another flag, or a
    value that the dialogue has elsewhere under the same name."""
    places = _places(dialogue, write=True)
    draw.shuffle(places)
    for place in places:
        call = dialogue.turns[place[0]].steps[place[1]].calls[place[2]]
        names = list(call.arguments)
        draw.shuffle(names)
        for name in names:
            other = _another(dialogue, call, name, draw)
            if other is not None:
                changed = replace(call, arguments={**call.arguments, name: other})
                return _edited(dialogue, place, _instead(changed))
    return None


def _instead(other: ToolCall) -> Callable[[ToolCall], Calls]:
    return lambda call: [other]


def _besides(other: ToolCall) -> Callable[[ToolCall], Calls]:
    return lambda call: [call, other]


def _another(dialogue: Dialogue, call: ToolCall, name: str, draw: random.Random) -> Any:
    tool = dialogue.tool(call.name)
    schema = (tool.parameters.get("properties") or {}).get(name, {}) if tool else {}
    value = call.arguments[name]
    if schema.get("enum"):
        return draw.choice([one for one in schema["enum"] if one != value] or [None])
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, list) and len(value) > 1:
        return value[:-1]
    seen: list[Any] = []
    for *_, response in dialogue.calls():
        if response is not None:
            _under(response.value, name, seen)
    others = [one for one in seen if isinstance(one, type(value)) and one != value]
    return draw.choice(others) if others else None


def _under(value: Any, name: str, found: list[Any]) -> None:
    if isinstance(value, dict):
        for key, one in value.items():
            if key == name:
                found.append(one)
            _under(one, name, found)
    elif isinstance(value, list):
        for one in value:
            _under(one, name, found)


def _extra_write(dialogue: Dialogue, draw: random.Random) -> Dialogue | None:
    """A write of the same run with another value, besides it."""
    changed = _other_value(dialogue, draw)
    if changed is None:
        return None
    for place in _places(dialogue, write=True):
        old = dialogue.turns[place[0]].steps[place[1]].calls[place[2]]
        new = next((call for call in changed.turns[place[0]].steps[place[1]].calls if call.name == old.name), old)
        if new.arguments != old.arguments:
            return _edited(dialogue, place, _besides(new))
    return None


def _other_words(dialogue: Dialogue, draw: random.Random) -> Dialogue:
    """Every reply is said in another frame; what it states stays."""
    turns = [
        Turn(
            turn.user,
            [replace(step, reply=f"Thanks for waiting! {step.reply}" if step.reply else None) for step in turn.steps],
        )
        for turn in dialogue.turns
    ]
    return replace(dialogue, turns=turns, wire=None)


def _silent(dialogue: Dialogue, draw: random.Random) -> Dialogue:
    """One reply tells nothing."""
    at = draw.randrange(len(dialogue.turns))
    turns = list(dialogue.turns)
    steps = [replace(step, reply="Okay, that is all." if step.reply else None) for step in turns[at].steps]
    turns[at] = Turn(turns[at].user, steps)
    return replace(dialogue, turns=turns, wire=None)


def _idle(dialogue: Dialogue, draw: random.Random) -> Dialogue:
    """The agent only ever says the same."""
    turns = [Turn(turn.user, [Step(reply="Sure, I have taken care of that for you.")]) for turn in dialogue.turns]
    return replace(dialogue, turns=turns, wire=None)


def _one_turn(dialogue: Dialogue, draw: random.Random) -> Dialogue | None:
    """The run ends early: its last turn is missing."""
    return replace(dialogue, turns=dialogue.turns[:-1], wire=None) if len(dialogue.turns) > 1 else None


CHANGES: dict[str, Callable[[Dialogue, random.Random], Dialogue | None]] = {
    "reference": _same,
    "other words": _other_words,
    "repeated look-up": _repeat_look,
    "dropped look-up": _drop_look,
    "failed try first": _failed_try,
    "dropped write": _drop_write,
    "repeated write": _repeat_write,
    "other value": _other_value,
    "extra write": _extra_write,
    "one reply says nothing": _silent,
    "last turn missing": _one_turn,
    "only says it is done": _idle,
}
