"""Judging: whether the items of a checklist hold, step by step.

`ChecksJudge` decides items by their compiled checks; `decide` decides one check on one state.
"""

from cm2.judge.checks import Decision, decide
from cm2.judge.judge import ChecksJudge, Judge

__all__ = ["ChecksJudge", "Decision", "Judge", "decide"]
