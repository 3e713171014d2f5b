"""Making dialogues: which seeds a run uses, what keeps the splits apart, and what a row remembers of its world.

Every dialogue has a seed of its own, hashed from the run's seed, its split, profile and number: a run can be made again
and grown, and its beginning does not change. A world belongs to one split for ever: one in four to `heldout`, the
others to `train`, by a hash of its state, so that no world of one occurs in the other whatever the runs' seeds. Within
a run no dialogue repeats.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec

from cm2.dialogue import Dialogue
from cm2.errors import ConfigError
from cm2.worlds.catalog import SPLITS, UNSEEN, domains_of
from cm2.worlds.domain import Domain, Options
from cm2.worlds.engine import digest
from cm2.worlds.goal import Goal

_HELDOUT_IN = 4
_ATTEMPTS = 1000


class Origin(msgspec.Struct, frozen=True):
    """What rebuilds a dialogue's world: stored as `meta.world`."""

    profile: str
    domain: str
    seed: int
    state: str
    """A hash of the initial state: another version of the domain is noticed, not mistaken for this one."""


class MakeConfig(msgspec.Struct, kw_only=True, frozen=True):
    """What to make."""

    count: int = 1000
    seed: int = 0
    """Other seeds give other dialogues."""
    split: str = "train"
    """train, heldout (the same domains, other worlds) or unseen (other domains)."""
    profile: str = "full"
    """short: one turn and two calls, about 200 tokens, for small models; full: two to four turns, whole tool lists."""
    domains: tuple[str, ...] = ()
    """Only these; all of the split's where empty."""
    thinking: bool | None = None
    """Private thinking in every step (True) or none (False); None: as the profile does (full: yes, short: no)."""
    two_turns: float = 0.0
    """Share of short dialogues with a second turn."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"cannot make {self.count} dialogues", fix="ask for at least 1")
        if not 0 <= self.two_turns <= 1:
            raise ConfigError(f"two_turns is a share, not {self.two_turns}", fix="use a number from 0 to 1")
        domains_of(self.profile, self.split, self.domains)

    @property
    def options(self) -> Options:
        """The options of each dialogue."""
        thinking = self.profile != "short" if self.thinking is None else self.thinking
        return Options(thinking, self.two_turns)


def make(config: MakeConfig) -> Iterator[Dialogue]:
    """The dialogues of a run, domain after domain in turn.

    Raises:
        ConfigError: so many different dialogues do not exist.
    """
    domains = domains_of(config.profile, config.split, config.domains)
    seen: set[bytes] = set()
    for number in range(config.count):
        domain = domains[number % len(domains)]
        for attempt in range(_ATTEMPTS):
            dialogue = _dialogue(config, domain, _seed(config, number, attempt))
            if dialogue is None:
                continue
            content = _content(dialogue)
            if content not in seen:
                seen.add(content)
                break
        else:
            fix = "ask for fewer, or for more domains"
            raise ConfigError(f"no new dialogue of '{domain.name}' after {number} dialogues", fix=fix)
        yield dialogue


def split_of(state: str, domain: str) -> str:
    """The split that a world belongs to, by its state's hash."""
    if domain in UNSEEN:
        return SPLITS[2]
    return SPLITS[1] if int(state, 16) % _HELDOUT_IN == 0 else SPLITS[0]


def _dialogue(config: MakeConfig, domain: Domain, seed: int) -> Dialogue | None:
    """The dialogue of a seed, None where its world belongs to another split."""
    engine = domain.engine(seed)
    state = digest(engine.tables())
    if split_of(state, domain.name) != config.split:
        return None
    dialogue, goal = domain.script(engine, seed, config.options).finish()
    dialogue.id = f"{config.split}-{config.profile}-{domain.name}-{seed:012x}"
    dialogue.source = "cm2-worlds"
    dialogue.meta = meta_of(Origin(config.profile, domain.name, seed, state), goal)
    return dialogue


def meta_of(origin: Origin, goal: Goal) -> dict[str, object]:
    """What a row remembers of its world."""
    return msgspec.json.decode(msgspec.json.encode({"world": origin, "goal": goal}))


def _seed(config: MakeConfig, number: int, attempt: int) -> int:
    parts = (config.seed, config.split, config.profile, number, attempt)
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=6).digest(), "big")


def _content(dialogue: Dialogue) -> bytes:
    said = [dialogue.system, dialogue.tools, dialogue.turns]
    return hashlib.blake2b(msgspec.json.encode(said), digest_size=16).digest()
