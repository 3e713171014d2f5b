"""cm2: checklist rewards for agents that use tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cm2.pytest_plugin import case as case


def __getattr__(name: str) -> Any:
    if name == "case":  # here and not above: pytest is there where tests are, and nowhere else
        from cm2.pytest_plugin import case

        return case
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
