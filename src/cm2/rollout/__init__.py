"""Rollouts: the environment of one dialogue, agents, and the record of a run."""

from cm2.rollout.environment import Environment, Observation
from cm2.rollout.finished import finished, finished_async
from cm2.rollout.limits import Limits
from cm2.rollout.trace import Failure, Rollout, Segment

__all__ = ["Environment", "Failure", "Limits", "Observation", "Rollout", "Segment", "finished", "finished_async"]
