"""The options that measurements of rollouts share, and where their tables go."""

from __future__ import annotations

import argparse

from rich.console import Console

WIDTH = 130


def parser_of(text: str | None, tasks: int) -> argparse.ArgumentParser:
    """A parser with --model, sizes and sampling; `text` is the script's docstring, `tasks` the default number."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help="'embedded' (default), a Hugging Face folder or name")
    parser.add_argument("--tasks", type=int, default=tasks, help=f"tasks of a batch (default {tasks})")
    parser.add_argument("--group", type=int, default=8, help="rollouts of each (default 8)")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the sampling (default 1)")
    parser.add_argument("--step-tokens", type=int, default=64, help="limit of one action (default 64)")
    parser.add_argument("--steps", type=int, default=8, help="limit of actions in a rollout (default 8)")
    parser.add_argument("--seed", type=int, default=0, help="of tasks and sampling")
    return parser


def console() -> Console:
    """Standard output, wide enough for a table also where it is no terminal."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=WIDTH)
