"""Devices: what their makers print about them. Peaks are of dense products; data sheets often print twice that."""

from __future__ import annotations

import difflib

import msgspec

from cm2.errors import ConfigError


class Device(msgspec.Struct, frozen=True):
    """One GPU, or the processor of a machine."""

    name: str
    memory: float
    """Bytes; 0: not known, so nothing can fail to fit."""
    flops: float
    """Dense 16-bit products a second, with 32-bit accumulation; 0: the measured constants `local_*` say it."""
    bandwidth: float
    """Bytes a second between memory and chip."""
    source: str

    @property
    def cpu(self) -> bool:
        """Whether it is a processor, which is planned by measured steps and not by a data sheet."""
        return self.flops == 0


DEVICES = {
    device.name: device
    for device in (
        Device("h100", 80e9, 989e12, 3.35e12, "NVIDIA H100 data sheet, SXM: 1,979 TFLOPS with sparsity, 3.35 TB/s"),
        Device("h200", 141e9, 989e12, 4.8e12, "NVIDIA H200 data sheet, SXM: 1,979 TFLOPS with sparsity, 4.8 TB/s"),
        Device("a100", 80e9, 312e12, 2.039e12, "NVIDIA A100 80GB data sheet, SXM: 312 TFLOPS, 2,039 GB/s"),
        Device("l40s", 48e9, 362e12, 0.864e12, "NVIDIA L40S data sheet: 733 TFLOPS with sparsity, 864 GB/s"),
        Device("rtx4090", 24e9, 165.2e12, 1.008e12, "NVIDIA Ada whitepaper: 165.2 TFLOPS, FP32 accumulate, 1,008 GB/s"),
        Device("cpu", 0, 0, 0, "measured: the constants local_*"),
    )
}


def device_of(name: str) -> Device:
    """The device of that name.

    Raises:
        ConfigError: it is not in the table.
    """
    found = DEVICES.get(name.lower().replace("-", "").replace("_", ""))
    if found is None:
        close = difflib.get_close_matches(name.lower(), DEVICES, 1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ConfigError(f"the GPU {name!r} is not known", fix=f"{hint}known ones: {', '.join(DEVICES)}")
    return found
