"""cm2: checklist rewards for agents that use tools."""

__version__ = "0.1.0"
