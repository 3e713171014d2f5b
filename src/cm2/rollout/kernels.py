"""The C kernels between the matrix products (see kernels.c): compiled once per machine, loaded with ctypes.

A compiler is optional. Where there is none, or it fails, `load` returns None, says so in a warning, and decoding uses
the torch operations of `cm2.rollout.dense`, which give the same numbers, slower.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

SOURCE = Path(__file__).parent / "kernels.c"
# Not -ffast-math: linked with it, a library switches off subnormal numbers for whoever loads it.
FAST = ("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math", "-freciprocal-math")
FLAGS = ("-O3", "-march=native", *FAST, "-std=gnu11", "-shared", "-fPIC")


class Batch(ctypes.Structure):
    """What one forward pass needs to know of its tokens (see kernels.c)."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("tokens", "heads", "kv_heads", "head_dim", "layer_bytes")),
        *((name, ctypes.c_void_p) for name in ("tables", "positions", "cos", "sin", "query", "scores")),
        ("scale", ctypes.c_float),
    ]


def cache_dir() -> Path:
    """Where compiled kernels live: $CM2_CACHE, else ~/.cache/cm2."""
    return Path(os.environ.get("CM2_CACHE") or Path.home() / ".cache" / "cm2")


@functools.cache
def load(bf16: bool) -> ctypes.CDLL | None:
    """The kernels for bfloat16 or float32 storage, None where they cannot be compiled. CM2_KERNELS=0 turns them off."""
    if os.environ.get("CM2_KERNELS") == "0":
        return None
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        return None
    flags = (*FLAGS, "-DCM2_BF16") if bf16 else FLAGS
    stamp = hashlib.sha256(SOURCE.read_bytes() + " ".join(flags).encode() + _machine().encode()).hexdigest()[:16]
    target = cache_dir() / f"kernels-{stamp}.so"
    try:
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix="compiling-") as scratch:
                built = Path(scratch) / target.name
                command = [compiler, *flags, str(SOURCE), "-o", str(built), "-lm"]
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
                os.replace(built, target)
        library = ctypes.CDLL(str(target))
    except (OSError, subprocess.SubprocessError) as problem:
        reason = (getattr(problem, "stderr", None) or str(problem)).strip().splitlines()
        warnings.warn(
            f"rollouts run slower: {compiler} failed on the kernels: {reason[0] if reason else problem}", stacklevel=2
        )
        return None
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    library.cm2_attention.argtypes = [pointer, number, pointer, pointer]
    library.cm2_add_norm.argtypes = [number, number, pointer, pointer, pointer, ctypes.c_float, pointer]
    library.cm2_silu_mul.argtypes = [number, number, pointer, pointer]
    library.cm2_draw.argtypes = [number, number, pointer, ctypes.c_float, number, pointer, pointer, pointer]
    for name in ("cm2_attention", "cm2_add_norm", "cm2_silu_mul", "cm2_draw"):
        getattr(library, name).restype = None
    return library


def _machine() -> str:
    """What -march=native depends on: a cache may be shared by machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))
