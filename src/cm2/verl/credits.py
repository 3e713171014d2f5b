"""Credits: a batch of records to per-token advantages, by the functions of the local engine.

Rows of one uid are a group. The advantages of its steps come from `cm2.credit`; a sampled token has its step's, every
other token has none. A rollout that failed, or of which nothing was scored, enters no statistics and is not trained:
its row, if it has one at all, loses its mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from cm2.credit import Credit, spread
from cm2.credit.satisfaction import Floats
from cm2.errors import DataError
from cm2.train.roll import credit_group, score_of
from cm2.verl.record import Record


class Credited(msgspec.Struct, frozen=True):
    """The rows of a batch, in its order."""

    advantages: list[Floats]
    """One number a token of the response."""
    trained: list[bool]
    """False: the row must leave the loss, a KL term included."""
    metrics: dict[str, float]


def credited(uids: Sequence[str], records: Sequence[Record | None], credit: Credit, group: int) -> Credited:
    """The advantages of a batch.

    Args:
        uids: of every row; rows of one uid are one prompt's.
        records: of every row; None for a row that only fills the batch up.
        credit: the level and its settings.
        group: rollouts that were asked for of each prompt; those that are missing have failed.

    Raises:
        DataError: records of one uid are of different tasks.
    """
    rows: dict[str, list[int]] = {}
    for row, (uid, record) in enumerate(zip(uids, records, strict=True)):
        if record is not None:
            rows.setdefault(uid, []).append(row)
    advantages: list[Floats] = [np.zeros(0)] * len(uids)
    trained = [False] * len(uids)
    rewards: list[float] = []
    passed: list[bool] = []
    silent = 0
    for uid, members in rows.items():
        mine = [record for row in members if (record := records[row]) is not None]
        if len({record.rollout.task for record in mine}) > 1:
            raise DataError(
                f"the rows of prompt {uid} are of different tasks", fix="report this: one prompt is one task"
            )
        given = credit_group([record.rollout for record in mine], credit)
        silent += not given.signal
        for row, record, steps, counts in zip(members, mine, given.steps, given.trained, strict=True):
            advantages[row], trained[row] = placed(steps, record), counts
            if counts:
                score = score_of(record.rollout, credit)
                rewards.append(score.reward or 0.0)
                passed.append(bool(score.strict_pass))
    metrics = {
        "cm2/rollouts": float(len(rows) * group),
        "cm2/failures": float(len(rows) * group - sum(trained)),
        "cm2/groups_without_signal": float(silent),
    }
    if rewards:
        metrics |= {
            "cm2/reward/mean": float(np.mean(rewards)),
            "cm2/reward/std": float(np.std(rewards)),
            "cm2/strict_pass/mean": float(np.mean(passed)),
        }
    return Credited(advantages, trained, metrics)


def placed(steps: dict[tuple[int, int], float], record: Record) -> Floats:
    """The advantage of every token of a response: its step's where it was sampled, else 0."""
    found = np.zeros(record.length)
    flat = spread(steps, [(span.turn, span.step, span.count) for span in record.spans])
    at = 0
    for span in record.spans:
        found[span.start : span.start + span.count] = flat[at : at + span.count]
        at += span.count
    return found
