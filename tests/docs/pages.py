"""The documentation as code: the blocks of each page, the commands in them, and what a command may look like.

A block that follows the comment `<!-- run -->` is run by the tests: console and bash blocks command by command through
the command line, Python blocks as they stand, all of a page in one folder and in order. `<!-- run exit=1 -->` says that
the block's last command fails. What a console block shows below a command must really have been printed, line by line;
digits are free, spaces and box-drawing are not compared, a line "…" stands for what was left out.
"""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from cm2.cli import main as command_line

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(
    r"(?:^<!-- run(?: exit=(?P<exit>\d+))?(?P<marked>) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.M | re.S
)
_SPAN = re.compile(r"`((?:[^`\n]|\n(?!\n))+)`")
_INDENTED = re.compile(r"^ {4,}(cm2 (?:.*\\\n)*.*(?:\n {8,}\[.*)*)", re.M)
_BOXES = str.maketrans(dict.fromkeys("┏━┳┓┃┡╇┩│└─┴┘", " "))
LEFT_OUT = "…"


@dataclass
class Command:
    """A command line and the lines that a page shows below it."""

    text: str
    shown: list[str] = field(default_factory=list)


@dataclass
class Block:
    """A fenced block of a page; `exit` is None where it is not to be run."""

    kind: str
    text: str
    exit: int | None = None

    @property
    def commands(self) -> list[Command]:
        """The commands: after "$ " in a console block, each line of another shell block; "\\" goes on below."""
        found: list[Command] = []
        for line in self.text.replace("\\\n", " ").splitlines():
            if self.kind == "console" and not line.startswith("$ "):
                if found and line.strip():
                    found[-1].shown.append(line)
            elif line.strip() and not line.lstrip().startswith("#"):
                found.append(Command(line.removeprefix("$ ").strip()))
        return found


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page."""
    return [
        Block(m["kind"], m["text"], int(m["exit"] or 0) if m["marked"] is not None else None)
        for m in _FENCE.finditer(page)
    ]


def spans(page: str) -> list[str]:
    """The inline code of a page, outside its blocks."""
    return [" ".join(span.split()) for span in _SPAN.findall(_FENCE.sub("", page))]


def commands(page: str) -> Iterator[str]:
    """Every command line on a page that starts with `cm2`: in fenced and indented blocks, and inline."""
    for block in blocks(page):
        if block.kind in ("", "console", "bash", "sh"):
            yield from (one.text for one in block.commands if one.text.startswith("cm2 "))
    yield from (" ".join(found.replace("\\\n", " ").split()) for found in _INDENTED.findall(_FENCE.sub("", page)))
    yield from (span for span in spans(page) if span.startswith("cm2 "))


@functools.cache
def tree() -> Any:
    """The command line as click sees it."""
    command_line._register()
    return typer.main.get_command(command_line.app)


def options(command: Any) -> set[str]:
    """The options of a command."""
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}


def all_options(command: Any) -> set[str]:
    """The options of a command and of everything below it."""
    return options(command).union(*(all_options(one) for one in getattr(command, "commands", {}).values()))


def wrong(line: str, root: Any) -> list[str]:
    """What is wrong with a command line: a verb or an option that does not exist."""
    words = [word for word in shlex.split(re.sub(r"[\[\]]", " ", line.split(" | ")[0]), comments=True) if word][1:]
    command = root
    problems: list[str] = []
    while words and hasattr(command, "commands") and not problems:
        name = words.pop(0)
        own = getattr(command, "name", None)  # a verb that is a command itself: `cm2 judge IN` beside `cm2 judge train`
        if own in command.commands and name not in command.commands:
            words.insert(0, name)
            command = command.commands[own]
        elif name.startswith("-"):
            problems += _unknown(line, name, command)
        elif name.isupper() or name == LEFT_OUT:  # `cm2 VERB`: no verb in particular
            return []
        elif name in command.commands:
            command = command.commands[name]
        else:
            return [*problems, f"{line!r}: there is no verb {name}"]
    if hasattr(command, "commands") and command.name in command.commands:
        command = command.commands[command.name]
    for word in words:
        problems += _unknown(line, word, command)
    return problems


def _unknown(line: str, word: str, command: Any) -> list[str]:
    name = word.split("=")[0]
    return [f"{line!r}: there is no option {name}"] if name.startswith("-") and name not in options(command) else []


def plain(line: str) -> str:
    """A line of output as it is compared: no boxes, one space, every number the same."""
    return re.sub(r"\d+", "0", " ".join(line.translate(_BOXES).split()))
