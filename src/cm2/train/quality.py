"""Quality: the numbers of one update that tell how well a run goes, beside its reward.

| name | meaning |
|---|---|
| generation | which batch of rollouts the numbers are about; steps that share one share them |
| duty/KIND | share of the scored items of that kind that were satisfied (a turn never reached is a no) |
| domain/NAME | mean reward of the tasks of that domain, where tasks name theirs |
| unscored | share of items that the judge did not decide |
| malformed | share of the calls that did not parse |
| length | tokens generated a rollout |
| steps | steps a rollout |
| truncated_share | share of the rollouts that ended at a token limit |
| dead_groups | share of the groups in which nothing was learnt |
| judge_agreement | share of the items on which the gold judge said the same; with the probes only |

A rollout that failed is in none of them but `length`'s tokens; `failures` counts it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from cm2.rollout.trace import Rollout

MOST = 12
"""Kinds and domains that have a number of their own; the most frequent ones."""


def numbers_of(groups: Sequence[Sequence[Rollout]], generation: int, told: dict[str, Any]) -> dict[str, Any]:
    """The numbers; see the module.

    Args:
        groups: the update's rollouts, scored.
        generation: which batch they are.
        told: what is known of the update already: `groups_without_signal` and what the probes saw.
    """
    everyone = [rollout for group in groups for rollout in group]
    valid = [rollout for rollout in everyone if rollout.valid and rollout.score]
    calls = [call for one in valid for turn in one.dialogue.turns for step in turn.steps for call in step.calls]
    steps = [sum(len(turn.steps) for turn in one.dialogue.turns) for one in valid]
    tallies = duties(valid)
    items = sum(sum(tally.values()) for tally in tallies.values())
    found: dict[str, Any] = {
        "generation": generation,
        "unscored": _share(sum(tally[None] for tally in tallies.values()), items),
        "malformed": _share(sum(call.error is not None for call in calls), len(calls)),
        "length": _share(sum(one.generated_tokens for one in everyone), len(everyone)),
        "steps": _share(sum(steps), len(steps)),
        "truncated_share": _share(sum(one.reason == "limit_tokens" for one in valid), len(valid)),
        "dead_groups": _share(told.get("groups_without_signal", 0), len(groups)),
    }
    if told.get("gold_disagree") is not None:
        found["judge_agreement"] = 1.0 - told["gold_disagree"]
    for kind, tally in tallies.most_common_kinds(MOST):
        found[f"duty/{kind}"] = _share(tally[True], tally[True] + tally[False])
    domains = by_domain(valid)
    if len(domains) > 1:
        for domain, rewards in sorted(domains.items(), key=lambda one: (-len(one[1]), one[0]))[:MOST]:
            found[f"domain/{domain}"] = _share(sum(rewards), len(rewards))
    return found


class Tallies(dict[str, Counter[bool | None]]):
    """Items satisfied (True), not (False) and unscored (None), by kind."""

    def most_common_kinds(self, most: int) -> list[tuple[str, Counter[bool | None]]]:
        """The kinds with the most items, by name where they have as many."""
        return sorted(self.items(), key=lambda one: (-sum(one[1].values()), one[0]))[:most]


def duties(rollouts: Sequence[Rollout]) -> Tallies:
    """What became of the items of these rollouts."""
    found = Tallies()
    for rollout in rollouts:
        kinds = {
            (c.turn, c.variant, item.id): item.kind or item.focus_on for c in rollout.checklists for item in c.items
        }
        for ledger in rollout.score.get("items", ()):
            for id, met in ledger["outcome"].items():
                kind = kinds.get((ledger["turn"], ledger["variant"], id), "(none)")
                found.setdefault(kind, Counter())[met] += 1
    return found


def by_domain(rollouts: Sequence[Rollout]) -> dict[str, list[float]]:
    """The rewards of these rollouts by their tasks' domain (`meta.world.domain`, else `meta.domain`)."""
    found: dict[str, list[float]] = defaultdict(list)
    for rollout in rollouts:
        reward, meta = rollout.score.get("reward"), rollout.dialogue.meta
        world = meta.get("world") if isinstance(meta, dict) else None
        name = world.get("domain") if isinstance(world, dict) else None
        name = name or (meta.get("domain") if isinstance(meta, dict) else None)
        if isinstance(name, str) and name and reward is not None:
            found[name].append(float(reward))
    return dict(found)


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None
