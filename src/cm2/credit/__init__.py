"""Credit: from verdicts to rewards and advantages (method, sections 3 and 4). numpy and the nouns, nothing else."""

from cm2.credit.advantages import Advantages, advantages, spread
from cm2.credit.config import Credit
from cm2.credit.score import Ledger, Score, fitting, satisfied, score, unmet_strict

__all__ = [
    "Advantages",
    "Credit",
    "Ledger",
    "Score",
    "advantages",
    "fitting",
    "satisfied",
    "score",
    "spread",
    "unmet_strict",
]
