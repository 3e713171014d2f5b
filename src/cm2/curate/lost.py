"""Lost: what a model was asked and did not answer. It is nobody's no: it is kept, counted, and told with its owner.

A failure that would meet the next question too (a refused key, a wrong address, a limit of money) is no lost answer but
the end of the run, which the same command goes on with.
"""

from __future__ import annotations

from cm2.curate.opinion import Lost
from cm2.llm import ModelError, ProviderError


def lost(error: ProviderError | ModelError, role: str) -> Lost:
    """The lost answer that a failed question leaves.

    Raises:
        ProviderError: the one given, where the next question would fail like this one.
    """
    if isinstance(error, ProviderError):
        if error.fatal:
            raise error
        return Lost(error.message, "provider")
    return Lost(error.message, role)
