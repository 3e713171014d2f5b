"""Catalog: which domains there are in each profile, and which of them are never trained on."""

from __future__ import annotations

from collections.abc import Sequence

from cm2.errors import ConfigError
from cm2.worlds.domain import Domain
from cm2.worlds.full import bank, car, clinic, flight, food, hotel, library, pharmacy, telecom, tickets
from cm2.worlds.short_specs import SHORT

FULL = tuple(module.DOMAIN for module in (hotel, flight, pharmacy, library, bank, food, car, telecom, tickets, clinic))
PROFILES: dict[str, dict[str, Domain]] = {
    "full": {domain.name: domain for domain in FULL},
    "short": {domain.name: domain for domain in SHORT},
}
SPLITS = ("train", "heldout", "unseen")
UNSEEN = ("tickets", "clinic")
"""Domains whose tools and words occur in no training or held-out dialogue."""


def domain_named(profile: str, name: str) -> Domain:
    """The domain of that name.

    Raises:
        ConfigError: there is no such profile or domain.
    """
    domains = PROFILES.get(profile)
    if domains is None:
        raise ConfigError(f"there is no profile '{profile}'", fix=f"use one of: {', '.join(PROFILES)}")
    if name not in domains:
        raise ConfigError(f"there is no domain '{name}'", fix=f"use one of: {', '.join(domains)}")
    return domains[name]


def domains_of(profile: str, split: str, names: Sequence[str] = ()) -> list[Domain]:
    """The domains of a split, in order; `names` chooses among them.

    Raises:
        ConfigError: an unknown name, or one that the split does not allow.
    """
    if split not in SPLITS:
        raise ConfigError(f"there is no split '{split}'", fix=f"use one of: {', '.join(SPLITS)}")
    chosen = [domain_named(profile, name) for name in names] or list(PROFILES.get(profile, {}).values())
    allowed = [domain for domain in chosen if (domain.name in UNSEEN) is (split == "unseen")]
    if not chosen:
        domain_named(profile, "")
    wrong = [domain.name for domain in chosen if domain not in allowed]
    if names and wrong:
        fix = f"'{'unseen' if split != 'unseen' else 'train'}' is the split of: {', '.join(wrong)}"
        raise ConfigError(f"the split '{split}' has no domain {', '.join(wrong)}", fix=fix)
    return allowed
