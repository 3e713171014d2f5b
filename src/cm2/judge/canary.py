"""Canary: an item whose answer is known beforehand, mixed among the items that a judge is asked about.

Most canaries must stay *no*. They are made so that an attentive judge cannot pass them and a lazy, obliging or deceived
one does:

- a call of a tool that the agent does not even have;
- an argument, or a statement in the reply, of a reference code that stands nowhere;
- a duty of another dialogue, about other tools.

Some must be *yes*: a call that was made, a reply that was given. The question goes to the judge without its check; the
check stays here and decides, on what the agent then really did, whether the canary still has the answer it was made
for. If it has not, it says nothing about the judge and does not count.

A canary never earns anything and is never shown to the agent. It looks like any other item: its id goes on where those
of the checklist end, and it stands at a random place among them.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Sequence

import msgspec

from cm2.check import Called, Check, Equals, Fact, Reply
from cm2.checklist import Checklist, Item, Task
from cm2.dialogue import Dialogue
from cm2.errors import DataError
from cm2.judge.checks import decide
from cm2.verdict import Verdict

POOL = 2000
_NUMBERED = re.compile(r"C(\d+)")
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"


class Canary(msgspec.Struct, frozen=True):
    """An item without its check, the check, and the answer."""

    item: Item
    check: Check
    yes: bool

    def stands(self, dialogue: Dialogue, turn: int) -> bool:
        """Whether the turn, as it became, still gives it the answer that it was made for."""
        try:
            return decide(self.check, dialogue, turn, len(dialogue.turns[turn].steps) - 1).met == self.yes
        except DataError:
            return False


class Pool(msgspec.Struct, frozen=True):
    """Duties and tools that other dialogues lend: bounded, and the same for the same tasks."""

    duties: list[tuple[str, Item]]
    """(dialogue, item); only items that a check decides."""
    tools: list[str]


def pool_of(tasks: Iterable[Task], limit: int = POOL) -> Pool:
    """The first duties of the first tasks, up to `limit`; their tools."""
    duties: list[tuple[str, Item]] = []
    tools: dict[str, None] = {}
    for task in tasks:
        tools |= dict.fromkeys(tool.name for tool in task.dialogue.tools)
        duties += [(task.dialogue.id, item) for each in task.checklists for item in each.items if item.check]
        if len(duties) >= limit:
            break
    return Pool(duties[:limit], sorted(tools))


def impossible(dialogue: Dialogue, turn: int, checklist: Checklist, count: int, pool: Pool, seed: int) -> list[Canary]:
    """Up to `count` canaries that must stay no, the same for every rollout of the task."""
    rng = _rng(seed, dialogue.id, turn, checklist.variant, "no")
    makers = [_foreign_tool, _code_argument, _code_stated, _foreign_duty]
    rng.shuffle(makers)
    found: list[Canary] = []
    for maker in (makers * (count // len(makers) + 1))[:count]:
        made = maker(dialogue, pool, rng) or _code_stated(dialogue, pool, rng)
        if all(made.item.question != other.item.question for other in found):
            found.append(made)
    return found


def given(dialogue: Dialogue, turn: int, checklist: Checklist, count: int, seed: int) -> list[Canary]:
    """Up to `count` canaries that are yes on what the agent did in this turn. Only names of tools that are offered
    come into their words: nothing that the agent wrote does."""
    rng = _rng(seed, dialogue.id, turn, checklist.variant, "yes")
    offered = {tool.name for tool in dialogue.tools}
    steps = dialogue.turns[turn].steps
    called = {call.name for step in steps for call in step.calls if call.valid} & offered
    found = [_canary(_called_item(name), Called(name), True) for name in sorted(called)]
    if (dialogue.turns[turn].reply or "").strip():
        text = "Does the agent end the turn with a reply to the user?"
        passes = "The turn ends with a visible reply of the agent that is not empty."
        found.append(_canary(_item("reply", text, passes), Reply(pattern=r"\S"), True))
    rng.shuffle(found)
    return found[:count]


def mix(checklist: Checklist, extra: Sequence[Item], seed: int, dialogue: str) -> tuple[Checklist, list[str]]:
    """The checklist with further items at random places, under ids that go on where its own end; those ids in order.

    Items that the checklist had once (held-out ones) keep their id where it is free.
    """
    rng = _rng(seed, dialogue, checklist.turn, checklist.variant, "mix")
    taken = {item.id for item in checklist.items}
    kept = {item.id for item in extra}
    numbers = [int(match[1]) for id in taken | kept if (match := _NUMBERED.fullmatch(id))]
    following = max(numbers, default=-1) + 1
    items, ids = list(checklist.items), []
    for one in extra:
        if not one.id or one.id in taken:
            one = msgspec.structs.replace(one, id=f"C{following}")
            following += 1
        taken.add(one.id)
        ids.append(one.id)
        items.insert(rng.randint(0, len(items)), one)
    return msgspec.structs.replace(checklist, items=items), ids


def wrong(canary: Canary, verdicts: Sequence[Verdict]) -> bool | None:
    """Whether the judge got it wrong, from its verdicts on the canary's item after each step; None where it was not
    asked (there was no call) or did not decide."""
    from cm2.judge.sheet import SKIP

    asked = [verdict for verdict in verdicts if verdict.judge != SKIP]
    if not asked or all(verdict.met is None for verdict in asked):
        return None
    return any(verdict.met is True for verdict in asked) != canary.yes


def _foreign_tool(dialogue: Dialogue, pool: Pool, rng: random.Random) -> Canary | None:
    offered = {tool.name for tool in dialogue.tools}
    names = [name for name in pool.tools if name not in offered]
    if not names:
        return None
    name = rng.choice(names)
    return _canary(_called_item(name), Called(name), False)


def _code_argument(dialogue: Dialogue, pool: Pool, rng: random.Random) -> Canary | None:
    places = [
        (tool.name, key)
        for tool in dialogue.tools
        for key, schema in (tool.parameters.get("properties") or {}).items()
        if isinstance(schema, dict) and schema.get("type") == "string" and key.isidentifier()
    ]
    if not places:
        return None
    (name, key), code = rng.choice(places), _code(rng)
    text = f"Does the agent call the tool {name} with {key} set to {code}?"
    passes = f"A call of {name} has exactly the value {code} for {key}; any other value is a no."
    return _canary(_item("call", text, passes), Called(name, {key: Equals(code)}), False)


def _code_stated(dialogue: Dialogue, pool: Pool, rng: random.Random) -> Canary:
    code = _code(rng)
    text = f"Does the visible reply tell the user the reference code {code}?"
    passes = f"The reply that ends the turn states {code}, letter by letter."
    return _canary(_item("reply", text, passes), Reply(states=[Fact([code])]), False)


def _foreign_duty(dialogue: Dialogue, pool: Pool, rng: random.Random) -> Canary | None:
    offered = {tool.name for tool in dialogue.tools}
    for _ in range(20):
        if not pool.duties:
            return None
        other, item = rng.choice(pool.duties)
        check = item.check
        if other != dialogue.id and isinstance(check, Called) and check.tool not in offered and check.at_least > 0:
            plain = msgspec.structs.replace(item, depends_on=[], required_for_next_turn=False, evidence=[])
            return _canary(plain, check, False)
    return None


def _canary(item: Item, check: Check, yes: bool) -> Canary:
    return Canary(msgspec.structs.replace(item, id="", check=None), check, yes)


def _called_item(name: str) -> Item:
    return _item("call", f"Does the agent call the tool {name}?", f"At least one call of {name} stands in the turn.")


def _item(kind: str, question: str, passes: str) -> Item:
    reply = kind == "reply"
    focus = "assistant.content.user_visible_reply" if reply else "assistant.tool_calls"
    return Item("", focus, question, passes, 0.1, kind=kind)  # type: ignore[arg-type]


def _code(rng: random.Random) -> str:
    return "".join(rng.choices(_LETTERS, k=2)) + "-" + "".join(rng.choices("123456789", k=5))


def _rng(seed: int, *parts: object) -> random.Random:
    digest = hashlib.blake2b(repr((seed, *parts)).encode(errors="surrogatepass"), digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "big"))
