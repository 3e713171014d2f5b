"""VoteJudge: the majority of several judgements, of one judge or of several.

Per item and step: yes where more than half of the judgements that were not lost say yes; a tie is no (method, section
4). A judgement that its judge or provider lost does not vote. Where fewer than `quorum` are left the item is unscored:
the majority of a remnant is not the majority that was asked for.

One verdict is stored, so that a store has one line a key; what each judgement said stands in `Verdict.votes`, in the
order of the judges, and `reason` tells it in words. Credit that is given single verdicts instead
(`cm2.credit.satisfaction.tally`) comes to the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from cm2.checklist import Checklist
from cm2.dialogue import Dialogue
from cm2.errors import ConfigError
from cm2.judge.judge import AsyncJudge, OnDoor, judge_dialogue, needs_end
from cm2.judge.question import Counts
from cm2.judge.sheet import SKIP
from cm2.verdict import Verdict, unscored

NO_QUORUM = "too few votes"


class VoteJudge(OnDoor):
    """See the module.

    Args:
        judges: each gives one judgement. Several of one model differ in their `sample`.
        quorum: how many must not be lost; None: more than half.
    """

    name = "vote"

    def __init__(self, judges: Sequence[AsyncJudge], quorum: int | None = None):
        if not judges:
            raise ConfigError("a vote needs judges", fix="give at least one")
        self.judges = list(judges)
        self.quorum = len(self.judges) // 2 + 1 if quorum is None else quorum
        self.identity = self.name

    @property
    def counts(self) -> Counts:
        """Of all judges together."""
        total = Counts()
        for judge in self.judges:
            total.add(getattr(judge, "counts", None) or Counts())
        return total

    async def _judge(
        self, dialogue: Dialogue, turn: int, checklist: Checklist, since: int, known: Sequence[Verdict], again: int
    ) -> list[Verdict]:
        rounds = await asyncio.gather(
            *(judge.judge_async(dialogue, turn, checklist, since, known, again) for judge in self.judges)
        )
        return [combine(list(votes), self.quorum) for votes in zip(*rounds, strict=True)]

    @property
    def needs_end(self) -> bool:
        """Of any of its judges."""
        return any(map(needs_end, self.judges))

    async def _judge_dialogue(
        self, dialogue: Dialogue, checklists: Sequence[Checklist], known: Sequence[Verdict], again: int
    ) -> list[list[Verdict]]:
        rounds = await asyncio.gather(
            *(judge_dialogue(judge, dialogue, checklists, known, again) for judge in self.judges)
        )
        return [
            [combine(list(votes), self.quorum) for votes in zip(*each, strict=True)]
            for each in zip(*rounds, strict=True)
        ]


def combine(votes: list[Verdict], quorum: int) -> Verdict:
    """The verdict of several judgements of one item after one step."""
    yes = [vote for vote in votes if vote.met is True]
    no = [vote for vote in votes if vote.met is False]
    lost = [vote for vote in votes if vote.met is None]
    cast = len(yes) + len(no)
    first = votes[0]
    if all(vote.judge == SKIP and vote.reason == first.reason for vote in votes):
        return first  # nobody was asked
    told = f"{len(yes)} of {cast} say yes" if cast else "nobody voted"
    if yes and len(yes) == len(no):
        told += ", a tie, which is a no"
    if lost:
        told += f", {len(lost)} of {len(votes)} lost ({lost[0].reason})"
    met = len(yes) > len(no)
    speaks = (yes if met else no or yes)[0] if cast else lost[0]
    enough = cast >= quorum
    reason = f"{told}: {speaks.reason}" if enough else unscored(NO_QUORUM, f"{told}; {quorum} are needed")
    return Verdict(
        dialogue=first.dialogue,
        turn=first.turn,
        step=first.step,
        item=first.item,
        met=met if enough else None,
        variant=first.variant,
        reason=reason,
        evidence=speaks.evidence if enough and met else [],
        judge=f"vote of {len(votes)}: " + ", ".join(dict.fromkeys(vote.judge for vote in votes if vote.judge)),
        cost=sum(vote.cost for vote in votes),
        owner="" if enough or not lost else lost[0].owner,
        votes=[vote.met for vote in votes],
    )
