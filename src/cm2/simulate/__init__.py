"""Simulated tools: replay, the embedded fallback, a language model, and the world that a group of rollouts shares."""

from cm2.simulate.backend import Backend, Responder, SimulatorError
from cm2.simulate.config import SimulatorConfig, simulated
from cm2.simulate.declared import Declared
from cm2.simulate.fallback import Fallback
from cm2.simulate.llm import LLMBackend, Shown
from cm2.simulate.replay import Context
from cm2.simulate.world import Session, World, error_response

__all__ = [
    "Backend",
    "Context",
    "Declared",
    "Fallback",
    "LLMBackend",
    "Responder",
    "Session",
    "Shown",
    "SimulatorConfig",
    "SimulatorError",
    "World",
    "error_response",
    "simulated",
]
