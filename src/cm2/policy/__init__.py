"""Policy: the duties of a workflow, written by its owner and not tied to one reference dialogue."""

from cm2.policy.load import load_policy
from cm2.policy.policy import Duty, DutyTest, Policy

__all__ = ["Duty", "DutyTest", "Policy", "load_policy"]
