"""Inputs: digests of everything outside its settings that a run's numbers rest on.

A run is not continued on other data, from another start or with another judge, and is not reproduced by them; an
address may change, what is behind it may not.
"""

from __future__ import annotations

from cm2.formats.origin import fingerprint
from cm2.train.embedded import model_digest
from cm2.train.feedback import Feedback
from cm2.train.rl_config import RlConfig


def digests_of(config: RlConfig) -> dict[str, str]:
    """The digests, by the setting that names the input.

    Raises:
        DataError: there is no such file or model.
    """
    found = {"input": fingerprint(config.input), "model": model_digest(config.model)}
    if config.heldout is not None:
        found["heldout"] = fingerprint(config.heldout)
    return found | Feedback.asked(config.judging, config.simulator, config.models)
