"""Doubt: how sure a judge was of an outcome, as its verdict tells.

    level     meaning                                                       prior error
    checked   a check decided, without a model                              0.05
    agreed    all votes say the same, or the local model was sure           0.05
    alone     one judgement of a model: nothing says how sure it was        0.15
    split     votes that differ                                             0.35

The prior errors only steer where reviews are spent: they are guesses, and no estimate depends on them.
"""

from __future__ import annotations

import re

from cm2.assure.outcomes import Outcome

PRIOR = {"checked": 0.05, "agreed": 0.05, "alone": 0.15, "split": 0.35, "": 0.15}
_FREE = ("checks", "skip")
_SURE = re.compile(r"the local model is sure \(([01]\.\d+)\)")


def level(outcome: Outcome) -> str:
    """How sure the judge was, see the module."""
    verdict = outcome.verdict
    if verdict is None or verdict.judge in _FREE:
        return "checked"
    votes = {vote for vote in verdict.votes if vote is not None}
    if len(votes) > 1:
        return "split"
    return "agreed" if len(verdict.votes) > 1 or _SURE.fullmatch(verdict.reason) else "alone"


def certainty(outcome: Outcome) -> float:
    """How far the judge says yes: the share of votes, the local model's probability, else 1 or 0."""
    yes = outcome.result == "pass"
    verdict = outcome.verdict
    if verdict is not None:
        votes = [vote for vote in verdict.votes if vote is not None]
        if votes:
            return votes.count(True) / len(votes)
        sure = _SURE.fullmatch(verdict.reason)
        if sure is not None:
            return float(sure[1]) if yes else 1 - float(sure[1])
    return 1.0 if yes else 0.0
