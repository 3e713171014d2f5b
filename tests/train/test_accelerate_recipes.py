"""The accelerate configurations: accelerate reads them, and tells the training what `cm2 rl` asks for."""

import os
from pathlib import Path

import pytest

pytest.importorskip("accelerate")
pytestmark = pytest.mark.train

from accelerate.commands.config.config_args import load_config_from_file  # noqa: E402
from accelerate.commands.launch import _validate_launch_command, launch_command_parser  # noqa: E402
from accelerate.utils import DistributedType  # noqa: E402
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env  # noqa: E402

from cm2.train.drivers import sharded  # noqa: E402

FOLDER = Path(__file__).resolve().parents[2] / "recipes" / "accelerate"
KINDS = {
    "ddp": (DistributedType.MULTI_GPU, ""),
    "fsdp2": (DistributedType.FSDP, "FSDP"),
    "deepspeed-zero2": (DistributedType.DEEPSPEED, ""),
    "deepspeed-zero3": (DistributedType.DEEPSPEED, "DeepSpeed ZeRO 3"),
}


def test_there_is_a_configuration_for_each_kind():
    assert sorted(file.stem for file in FOLDER.glob("*.yaml")) == sorted(KINDS)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_accelerate_reads_it_and_starts_what_it_says(name, monkeypatch):
    """Its own config class, its own command's checks, and the environment that it gives to the processes."""
    file = FOLDER / f"{name}.yaml"
    kind, how = KINDS[name]
    loaded = load_config_from_file(str(file))
    assert loaded.distributed_type == kind and loaded.num_processes == 8 and not loaded.use_cpu
    arguments = launch_command_parser().parse_args(["--config_file", str(file), "-m", "cm2", "rl", "TASKS"])
    arguments, defaults, _ = _validate_launch_command(arguments)
    assert arguments.use_fsdp == (kind == DistributedType.FSDP)
    assert arguments.use_deepspeed == (kind == DistributedType.DEEPSPEED)
    if kind == DistributedType.FSDP:
        assert arguments.fsdp_version in (2, "2")
        for key, value in prepare_multi_gpu_env(arguments).items():
            if key.startswith(("ACCELERATE_", "FSDP_")):
                monkeypatch.setenv(key, str(value))
        from accelerate.utils import FullyShardedDataParallelPlugin

        plugin = FullyShardedDataParallelPlugin()
        assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    elif kind == DistributedType.DEEPSPEED:
        assert int(arguments.zero_stage) == int(name[-1]) and int(arguments.gradient_accumulation_steps) == 1
        arguments.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        for key, value in prepare_deepspeed_cmd_env(arguments)[1].items():
            if key.startswith("ACCELERATE_"):
                monkeypatch.setenv(key, str(value))
    assert sharded() == how
    assert "LOCAL_RANK" not in os.environ
