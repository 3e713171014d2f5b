"""Markers and options of the tests on real servers."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "servers: start a real model server on loopback; skip where it is not installed")
