"""The verb `cm2 compare` in this process."""

from __future__ import annotations

import json

import pytest

from cm2.cli import main as command_line


def go(*argv: str) -> int:
    """The exit code of `cm2 compare ARGV`."""
    if "compare" not in command_line.VERBS:
        command_line._register.cache_clear()
        command_line.VERBS = (*command_line.VERBS, "compare")
    with pytest.raises(SystemExit) as ended:
        command_line.main(["compare", *argv])
    return ended.value.code


def summary(capsys, *argv: str, code: int = 0):
    """The summary of `cm2 compare ARGV --json`."""
    capsys.readouterr()
    assert go(*argv, "--json") == code
    return json.loads(capsys.readouterr().out)
