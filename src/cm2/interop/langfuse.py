"""Langfuse: outcomes as scores of the traces that they are about.

    from langfuse import get_client
    from cm2.interop.langfuse import send_scores

    send_scores(get_client(), read_judged("logs.jsonl", "verdicts.jsonl", policy=load_policy("policy.yaml")))

Dialogues that `cm2 import` read from a Langfuse export know their session or trace. Each duty is a BOOLEAN score, with
the reason as its comment; what does not apply or could not be decided is not sent. Ids are made of place, duty and
turn, so that sending again replaces and never doubles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from cm2.assure.outcomes import Judged
from cm2.dialogue import Dialogue


class Client(Protocol):
    """What is used of Langfuse's client."""

    def create_score(self, **score: Any) -> None:
        """Queue a score."""

    def flush(self) -> None:
        """Send what is queued."""


class Sent(msgspec.Struct):
    """What became of the outcomes."""

    scores: int = 0
    dialogues: int = 0
    without_place: int = 0
    """Dialogues that name neither a session nor a trace."""
    left_out: int = 0
    """Outcomes that are not applicable or unscored."""


def send_scores(
    client: Client,
    judged: Iterable[Judged],
    place_of: Callable[[Dialogue], dict[str, str] | None] | None = None,
    overall: str = "cm2",
) -> Sent:
    """Send every scored outcome, and the dialogue's score under the name `overall`.

    Args:
        client: Langfuse's (`langfuse.get_client()`).
        judged: dialogues with their outcomes (`cm2.assure.outcomes.read_judged`).
        place_of: `{"trace_id": …}` or `{"session_id": …}` of a dialogue, where it was not read by `cm2 import`.
        overall: the name of the severity-weighted share.
    """
    sent = Sent()
    find = place_of or noted_place
    for one in judged:
        place = find(one.dialogue)
        if place is None:
            sent.without_place += 1
            continue
        sent.dialogues += 1
        for outcome in one.outcomes:
            if outcome.result not in ("pass", "fail"):
                sent.left_out += 1
                continue
            name = outcome.duty if outcome.turn < 0 else f"{outcome.duty} (turn {outcome.turn})"
            value = 1.0 if outcome.result == "pass" else 0.0
            _send(client, place, name, value, "BOOLEAN", outcome.reason)
            sent.scores += 1
        if one.score is not None:
            _send(client, place, overall, one.score, "NUMERIC", "")
            sent.scores += 1
    client.flush()
    return sent


def noted_place(dialogue: Dialogue) -> dict[str, str] | None:
    """Where a dialogue stands in Langfuse, as `cm2 import` noted it; a branch of one has no place of its own."""
    about = dialogue.meta.get("import")
    if not isinstance(about, dict) or about.get("format") != "langfuse" or about.get("branch"):
        return None
    session = dialogue.meta.get("session")
    return {"session_id": session} if isinstance(session, str) and session else {"trace_id": dialogue.id}


def _send(client: Client, place: dict[str, str], name: str, value: float, kind: str, comment: str) -> None:
    where = "\0".join([*place.values(), name])
    id = hashlib.blake2b(where.encode(), digest_size=16).hexdigest()
    client.create_score(score_id=id, name=name, value=value, data_type=kind, comment=comment[:500] or None, **place)
