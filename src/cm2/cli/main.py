"""The command `cm2`: one verb a file, no logic here.

Every verb takes `--json` and then prints its summary as one JSON object on standard output and nothing else there;
progress and messages go to standard error. Exit codes: 0 done, 1 a check failed, 2 wrong use or input, 130 interrupted.
"""

from __future__ import annotations

import errno
import functools
import importlib
import os
import sys

import typer
from rich.console import Console

from cm2 import __version__
from cm2.cli.group import Verb
from cm2.errors import CM2Error
from cm2.train.processes import leave

VERBS = (  # in the order that the help shows
    *("import", "inspect", "filter", "compress", "select", "label", "draft", "lint", "judge", "report"),
    *("gate", "compare", "audit", "monitor", "export", "generate"),
    *("rollout", "simulate", "worlds", "sft", "rl", "evaluate", "serve", "eval", "plan", "demo", "study"),
)
MODULES = {
    "import": ("import_",),
    "judge": ("judge", "calibrate", "classifier"),
    "gate": ("gate", "gate_freeze"),
    "eval": ("eval", "eval_setup", "eval_dialogues", "eval_general"),
}
"""The files of a verb, where they are not one of its name. Several make a verb with commands of its own."""

# Before torch is imported: threads that spin while they wait make a busy machine several times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, help=__doc__)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"cm2 {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
    debug: bool = typer.Option(False, "--debug", help="Show stack traces (give it before the verb)."),
) -> None:
    """Checklist rewards for agents that use tools: diagnose, guard and train."""


@functools.cache
def _register() -> None:
    for verb in VERBS:
        files = MODULES.get(verb, (verb,))
        group = app if len(files) == 1 else typer.Typer(cls=Verb, no_args_is_help=False)
        for file in files:
            importlib.import_module(f"cm2.cli.{file}").register(group)
        if group is not app:
            app.add_typer(group, name=verb, help=group.registered_commands[0].callback.__doc__)


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit with the code that the module docstring names."""
    argv = sys.argv[1:] if argv is None else argv
    debug = "--debug" in argv
    argv = [arg for arg in argv if arg != "--debug"]
    err = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        _register()
        from cm2.formats.pipe import keep_pipes  # not above: it is time that the import of this module would take

        keep_pipes(arg.rpartition("=")[2] for arg in argv)
        code = app(args=argv, standalone_mode=False)
        leave(code if isinstance(code, int) else 0)
    except SystemExit:
        raise
    except KeyboardInterrupt:
        err.print("cm2: interrupted; what was written is kept, the same command goes on from there")
        leave(130)
    except Exception as error:
        if debug:
            raise
        message, code = explain(error)
        err.print(f"cm2: {message}", markup=False)
        leave(code)


def explain(error: Exception) -> tuple[str, int]:
    """One clear sentence and the exit code for a failure that reached the top."""
    if isinstance(error, CM2Error):
        return str(error), error.exit_code
    if error.__class__.__module__.startswith(("click", "typer")) and hasattr(error, "format_message"):
        said = error.format_message()
        if error.__class__.__name__ == "NoArgsIsHelpError":  # its message is the help, which is printed already
            said = "Name a command."
        return f"{said} (see: cm2 --help)", 2
    if isinstance(error, OSError):
        name = f" {error.filename}" if error.filename else ""
        refused = f"{error.strerror or error}:{name}" if name else f"{error.strerror or error}"
        if error.errno == errno.ENOSPC:
            return f"the disk is full while writing{name}; free some room and run the same command again", 2
        return refused, 2
    if error.__class__.__name__ in ("Abort", "Exit"):
        return "stopped", getattr(error, "exit_code", 130)
    return f"internal error, please report it: {type(error).__name__}: {error} (--debug shows the trace)", 2
