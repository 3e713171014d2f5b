"""Shared fixtures. Tests on the optional real data skip, saying so, where it is absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is no reason to fail: what is slow is measured in benchmarks.
settings.register_profile("cm2", deadline=None)
settings.load_profile("cm2")

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of optional real data: $CM2_DATA, else ../shared/data beside the project."""
    folder = Path(os.environ.get("CM2_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"optional real data is absent ({folder}); set CM2_DATA to run this test")
    return folder
