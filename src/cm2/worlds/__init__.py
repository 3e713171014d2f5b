"""Sample worlds: executable domains of our own that make dialogues, reference answers and true outcomes.

A fresh machine has no data, and only a world that can be executed knows the true outcome of a run. `make` writes
reference dialogues by playing them; `world_of` and `outcome_of` rebuild the world from a row alone, to roll out in it
and to say whether a rollout achieved its goal.
"""

from cm2.worlds.catalog import PROFILES, SPLITS, UNSEEN, domains_of
from cm2.worlds.make import MakeConfig, make
from cm2.worlds.outcome import outcome_for, outcome_of, world_for, world_of

__all__ = [
    "PROFILES",
    "SPLITS",
    "UNSEEN",
    "MakeConfig",
    "domains_of",
    "make",
    "outcome_for",
    "outcome_of",
    "world_for",
    "world_of",
]
