"""Simulated tools: replay, the embedded fallback, and the world that a group of rollouts shares."""

from cm2.simulate.fallback import Fallback
from cm2.simulate.replay import Context
from cm2.simulate.world import Backend, Responder, Session, SimulatorError, World, error_response

__all__ = ["Backend", "Context", "Fallback", "Responder", "Session", "SimulatorError", "World", "error_response"]
