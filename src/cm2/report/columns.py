"""Columns: every outcome as a row of a Parquet file, with typed columns, for a notebook or a warehouse."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from cm2.assure.failures_place import cause_of, place_of
from cm2.assure.outcomes import Judged
from cm2.assure.tables import why_unscored
from cm2.report.text import visible

BATCH = 5000


class Columns:
    """Writes outcomes to a Parquet file; a context manager.

    Args:
        path: of the file, which is written in place.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        named = pa.dictionary(pa.int32(), pa.string())
        columns: dict[str, Any] = {
            "dialogue": pa.string(), "rollout": pa.string(), "line": pa.int64(), "score": pa.float64(),
            "penalty": pa.float64(), "critical_failures": pa.int32(),
            "variant": pa.int32(), "turn": pa.int32(), "item": pa.string(), "duty": named, "severity": named,
            "owner": named, "weight": pa.float64(), "result": named, "step": pa.int32(), "judge": named,
            "reason": pa.string(), "unscored_because": named, "tool": named, "step_class": named, "cause": pa.string(),
            "cost": pa.float64(),
        }  # fmt: skip
        self._schema = pa.schema(list(columns.items()))
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def add(self, judged: Judged) -> None:
        """Write the outcomes of one dialogue. A turn or step of null is the whole dialogue's."""
        head = {
            "dialogue": visible(judged.dialogue.id),
            "rollout": visible(judged.rollout),
            "line": judged.line,
            "score": judged.score,
            "penalty": judged.penalty,
            "critical_failures": judged.critical_failures,
        }
        for outcome in judged.outcomes:
            failed = outcome.result == "fail"
            place = place_of(judged.dialogue, outcome) if failed else None
            verdict = outcome.verdict
            self._rows.append(
                head
                | {
                    "variant": outcome.variant,
                    "turn": outcome.turn if outcome.turn >= 0 else None,
                    "item": visible(outcome.item.id),
                    "duty": visible(outcome.duty),
                    "severity": outcome.item.severity,
                    "owner": visible(outcome.item.owner) or None,
                    "weight": outcome.weight,
                    "result": outcome.result,
                    "step": verdict.step if verdict is not None and verdict.step >= 0 else None,
                    "judge": visible(verdict.judge) if verdict is not None else None,
                    "reason": visible(outcome.reason),
                    "unscored_because": visible(why_unscored(outcome)) if outcome.result == "unscored" else None,
                    "tool": visible(place.tool) or None if place else None,
                    "step_class": place.step if place else None,
                    "cause": visible(cause_of(outcome.reason)) if failed else None,
                    "cost": outcome.cost,
                }
            )
        if len(self._rows) >= BATCH:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []

    def __enter__(self) -> Columns:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._rows:
            self._flush()
        self._writer.close()
