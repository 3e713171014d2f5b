"""Launch: the command of a written configuration, and the scripts that run it on a cluster.

    print   the command, for a machine or a Ray cluster that one is logged in to
    run     the same, started here
    ray     a script that submits it as a Ray job
    slurm   a batch script that starts Ray on its nodes and then runs it

Every one names the plug-in in VERL_USE_EXTERNAL_MODULES, so that a process in which it does not load ends at once.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Literal

from cm2.errors import CM2Error
from cm2.verl import PLUGIN
from cm2.verl.cluster import Cluster

Launch = Literal["print", "run", "ray", "slurm"]
MODULE = "VERL_USE_EXTERNAL_MODULES"


def command(config: Path, overrides: list[str], python: str = "python") -> list[str]:
    """verl's own entry point on the configuration."""
    where = ["--config-path", str(config.parent), "--config-name", config.stem]
    return [python, "-m", "verl.trainer.main_ppo", *where, *overrides]


def shown(config: Path, overrides: list[str]) -> str:
    """The command as a line for a shell."""
    board = shlex.quote(f"TENSORBOARD_DIR={config.parent / 'tensorboard'}")
    return f"{MODULE}={PLUGIN} {board} {shlex.join(command(config, overrides))}"


def run(config: Path, overrides: list[str]) -> None:
    """Start it here and wait for its end.

    Raises:
        CM2Error: it failed.
    """
    environment = os.environ | {MODULE: PLUGIN, "TENSORBOARD_DIR": str(config.parent / "tensorboard")}
    done = subprocess.run(command(config, overrides, sys.executable), env=environment, stdout=sys.stderr)
    if done.returncode:
        raise CM2Error(
            f"verl ended with code {done.returncode}", fix="its last lines say why; python -m cm2.verl check helps"
        )


def ray_job(config: Path, overrides: list[str]) -> str:
    """A script that submits a Ray job."""
    return f"""#!/bin/sh
# Submits the run to a Ray cluster: RAY_ADDRESS=http://HEAD:8265 sh {config.parent / "ray-job.sh"}
# cm2[verl], the model, the tasks and this folder must be at the same places on every node.
set -eu
ray job submit --address "${{RAY_ADDRESS:-http://127.0.0.1:8265}}" \\
  --runtime-env-json '{{"env_vars": {{"{MODULE}": "{PLUGIN}"}}}}' -- \\
  {shlex.join(command(config, overrides))}
"""


def slurm(config: Path, overrides: list[str], cluster: Cluster) -> str:
    """A batch script: Ray's head on the first node, workers on the others, the run beside the head."""
    name = config.parent.name
    return f"""#!/bin/bash
#SBATCH --job-name=cm2-{name}
#SBATCH --nodes={cluster.nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={cluster.each}
#SBATCH --cpus-per-task={max(16, 8 * cluster.each)}
#SBATCH --exclusive
#SBATCH --output={config.parent}/slurm-%j.log
# Submit with: sbatch {config.parent / "slurm.sh"}   (add --partition, --account and --time as your cluster wants them).
# Judge and simulator are the endpoints of the models' file: start their servers in a job of their own first.
# A job that was cut off goes on from the last checkpoint when it is submitted again.
set -euo pipefail
export {MODULE}={PLUGIN}
export TENSORBOARD_DIR={shlex.quote(str(config.parent / "tensorboard"))}
# source YOUR/venv/bin/activate

nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
head=${{nodes[0]}}
address=$(srun --nodes=1 --ntasks=1 -w "$head" hostname --ip-address | awk '{{print $1}}')
port=6379

srun --nodes=1 --ntasks=1 -w "$head" ray start --head --node-ip-address="$address" --port=$port \\
  --num-gpus={cluster.each} --block &
sleep 15
for node in "${{nodes[@]:1}}"; do
  srun --nodes=1 --ntasks=1 -w "$node" ray start --address="$address:$port" --num-gpus={cluster.each} --block &
done
sleep 30

RAY_ADDRESS="$address:$port" srun --overlap --nodes=1 --ntasks=1 -w "$head" \\
  {shlex.join(command(config, overrides))}
"""
