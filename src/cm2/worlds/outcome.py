"""Outcome: the truth about a rollout, from its row alone.

The world is made again from the seed that the row remembers, the rollout's calls are run in it once more, and then two
things are looked at: the final state against the goal's, and what each turn's replies told the user. The route there
does not count. A rollout that ended early did not tell what its missing turns had to.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cm2.checklist import Task
from cm2.dialogue import Dialogue, Turn
from cm2.errors import DataError, Where
from cm2.judge.checks import regex, states
from cm2.judge.statement import Statement, statement
from cm2.rollout.run import default_world
from cm2.rollout.trace import Rollout
from cm2.simulate import World
from cm2.worlds.catalog import domain_named
from cm2.worlds.engine import Desk, Engine, digest
from cm2.worlds.goal import Changes, Goal, Told, compare
from cm2.worlds.make import Origin

_REFUSAL = (
    r"(?i)\b(no|not|none|nothing|never|cannot|unable|unavailable|sorry|unfortunately|impossible|declined?|refused?"
    r"|without)\b|n't\b"
)


def world_of(task: Task, seed: int = 0) -> World:
    """The executable world of a task, as `MakeWorld` wants it; `seed` is not used: the world is the row's own.

    Raises:
        DataError: the row is not of a sample world, or of one that this version makes differently.
    """
    return World(task.dialogue, backend=_engine(task.dialogue))


def world_for(task: Task, seed: int) -> World:
    """The world that a task is rolled out in: its own executable one where it has one, else replay and fallback."""
    return world_of(task, seed) if "world" in task.dialogue.meta else default_world(task, seed)


def outcome_for(rollout: Rollout) -> dict[str, Any]:
    """The true outcome where the rollout's world can tell it, else nothing."""
    return outcome_of(rollout) if "world" in rollout.dialogue.meta else {}


def outcome_of(rollout: Rollout) -> dict[str, Any]:
    """Whether a rollout achieved its goal, as `TellOutcome` wants it.

    Returns:
        `success`; `state`, whether the final state is the goal's; `told`, the share of what had to be said that was
        said (1.0 where nothing had to); `missing`, what was not, in words.

    Raises:
        DataError: as `world_of`.
    """
    dialogue = rollout.dialogue
    engine = _engine(dialogue)
    try:
        goal = msgspec.convert(dialogue.meta["goal"], Goal)
    except (KeyError, msgspec.ValidationError) as error:
        raise _foreign(dialogue, f"its goal does not read: {error}") from error
    desk = _replayed(dialogue, engine)
    changes, ids = compare(engine.tables(), desk.tables, desk.issued)
    same = _plain(changes) == _plain(goal.changes)
    codes = _codes(changes, ids, goal.changes)
    missing = [] if same else [f"the final state differs: {_difference(goal.changes, changes)}"]
    wanted = said = 0
    for index, told in enumerate(goal.told):
        turn = dialogue.turns[index] if index < len(dialogue.turns) else Turn("")
        for what, held in _heard(told, turn, codes):
            wanted += 1
            said += held
            if not held:
                missing.append(f"turn {index}: {what}")
    share = said / wanted if wanted else 1.0
    return {"success": same and said == wanted, "state": same, "told": round(share, 4), "missing": missing}


def _engine(dialogue: Dialogue) -> Engine:
    if "world" not in dialogue.meta:
        raise _foreign(dialogue, "it names no world in meta.world")
    try:
        origin = msgspec.convert(dialogue.meta["world"], Origin)
    except msgspec.ValidationError as error:
        raise _foreign(dialogue, f"meta.world does not read: {error}") from error
    engine = domain_named(origin.profile, origin.domain).engine(origin.seed)
    if digest(engine.tables()) != origin.state:
        raise _foreign(dialogue, "this version of cm2 makes another world from its seed")
    return engine


def _foreign(dialogue: Dialogue, why: str) -> DataError:
    where = Where(dialogue=dialogue.id)
    return DataError(
        f"the row cannot be run in its world: {why}", where=where, fix="make the rows with cm2 worlds make"
    )


def _replayed(dialogue: Dialogue, engine: Engine) -> Desk:
    """The session after the rollout's calls. What was not executed then (cut off, too many at once) is not now."""
    world = World(dialogue, backend=engine)
    desk = engine.session()
    for _, _, _, call, response in dialogue.calls():
        known = world.tools.get(call.name)
        if response is None or response.origin == "error" or known is None or not call.valid:
            continue
        if not world.schema(known).violation(call.arguments):
            desk.respond(call)
    return desk


def _plain(changes: Changes) -> Any:
    return msgspec.json.encode(changes, order="sorted")


def _codes(changes: Changes, ids: list[str], goal: Changes) -> list[str | None]:
    """The id, in this run, of each record that the goal wants made; None where it was not made."""
    left = list(zip(changes.made, ids, strict=True))
    codes: list[str | None] = []
    for wanted in goal.made:
        found = next((one for one in left if one[0] == wanted), None)
        codes.append(found[1] if found else None)
        if found:
            left.remove(found)
    return codes


def _heard(told: Told, turn: Turn, codes: list[str | None]) -> list[tuple[str, bool]]:
    """What a turn had to tell, in words, and whether its visible texts did."""
    said = statement("\n".join(step.reply for step in turn.steps if step.reply))
    found = []
    for fact in told.facts:
        found.append((f"not told {fact.any_of[0]}", any(states(said, value, fact.kind) for value in fact.any_of)))
    for index in told.codes:
        code = codes[index]
        what = f"not told the code {code}" if code else "not told the code of what was not made"
        found.append((what, code is not None and said.states_text(code)))
    if told.refuses:
        found.append(("not told that it cannot be done", _refuses(said)))
    if told.asks:
        found.append(("the user was not asked", bool(said.questions)))
    return found


def _refuses(said: Statement) -> bool:
    return regex(_REFUSAL).search(said.text) is not None


def _difference(goal: Changes, changes: Changes) -> str:
    """The first lines of what should have happened and did not, and of what should not have."""
    lines = []
    for name in ("made", "changed", "removed"):
        want, have = getattr(goal, name), getattr(changes, name)
        lines += [f"not {name}: {_shown(one)}" for one in _without(want, have)]
        lines += [f"{name} without need: {_shown(one)}" for one in _without(have, want)]
    return "; ".join(lines[:4])


def _without(these: list[Any], those: list[Any]) -> list[Any]:
    """What of `these` is left when each of `those` takes away one equal."""
    left = list(these)
    for one in those:
        if one in left:
            left.remove(one)
    return left


def _shown(value: Any) -> str:
    return msgspec.json.encode(value).decode()
