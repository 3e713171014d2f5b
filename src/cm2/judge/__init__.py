"""Judging: whether the items of a checklist hold, step by step.

`ChecksJudge` decides items by their compiled checks; `decide` decides one check on one state. `cm2.judge.make`
makes every other judge from its settings: a language model, checks and a model, a vote, a classifier before the model.
"""

from cm2.judge.checks import Decision, decide
from cm2.judge.judge import AsyncJudge, ChecksJudge, Judge

__all__ = ["AsyncJudge", "ChecksJudge", "Decision", "Judge", "decide"]
