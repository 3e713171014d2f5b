"""Scale: the same stage over many files at once, on one machine or a cluster."""

from cm2.scale.run import run_shards
from cm2.scale.shards import Shard, shards_of
from cm2.scale.stages import STAGES, Stage

__all__ = ["STAGES", "Shard", "Stage", "run_shards", "shards_of"]
