"""The Ray engine: shards are the rows of a Ray Data set, and the stage is a map over it.

Ray places the tasks on whatever processors a cluster has, and does a task again whose machine is lost; a shard's output
appears whole or not at all, so doing it again does no harm. Where `RAY_ADDRESS` is set that cluster is used, else one
is started on this machine and ended again. Machines read and write the same folder or object store, and the variables
that hold keys must be set on them: keys are not sent.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

from cm2.errors import CM2Error, MissingExtra
from cm2.scale.run import Done, Work
from cm2.scale.shards import Shard


class RayEngine:
    """Does the work of shards on Ray; see `cm2.scale.run.Engine`.

    Args:
        processors: of the cluster that is started here; all of this machine where None.
    """

    def __init__(self, processors: int | None = None):
        try:
            import ray.data  # noqa: F401
        except ImportError as error:
            raise MissingExtra("--engine ray", "ray") from error
        self._processors = processors

    def __call__(self, work: Work, shards: list[Shard], processors: float) -> Iterator[Done]:
        """What becomes of each shard, as it becomes known."""
        if not shards:
            return
        import ray
        import ray.data

        mine = not ray.is_initialized()
        if mine:
            self._start(ray)
        try:
            context = ray.data.DataContext.get_current()
            context.enable_progress_bars = False
            rows = [{"name": shard.name, "path": shard.path, "lines_before": shard.lines_before} for shard in shards]

            def task(row: dict[str, Any]) -> dict[str, Any]:
                done = work(Shard(row["name"], row["path"], int(row["lines_before"])))
                return {"name": done.name, "summary": done.summary, "error": done.error}

            data = ray.data.from_items(rows, override_num_blocks=len(rows)).map(task, num_cpus=processors)
            for row in data.iter_rows():
                yield Done(row["name"], row["summary"], row["error"])
        except ray.exceptions.RayError as error:
            cause = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise CM2Error(
                f"Ray failed: {cause}", fix="shards that are done stay done; run the command again"
            ) from error
        finally:
            if mine:
                ray.shutdown()

    def _start(self, ray: Any) -> None:
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if not os.environ.get("RAY_ADDRESS"):
            settings |= {"include_dashboard": False, "num_cpus": self._processors}
        ray.init(**settings)
