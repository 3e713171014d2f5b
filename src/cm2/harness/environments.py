"""Environments: every harness lives in a virtual environment of its own, since their pins conflict.

`setup` makes one from the requirements that ship in `pins/`, every package with its version, and stamps it when it is
complete; a stamp of other pins makes another environment. Nothing of cm2 is installed in it. ToolSandbox is on no index
and under Apple's sample-code licence: it is installed from a checkout or git address that the user names, and never
copied into cm2.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import msgspec
from filelock import FileLock

from cm2.errors import CM2Error, ConfigError
from cm2.harness import general_data
from cm2.harness.settings import BENCHMARKS, digest

PYTHON = "3.11"
"""The version on which all three harnesses were proven."""
STAMP = "cm2-harness.json"
GENERAL = "general"
"""lm-eval's: it shares torch and transformers with the Python that runs cm2, so it is made from that one."""
NAMES = (*BENCHMARKS, GENERAL)
SOURCE_OF = "toolsandbox"
"""The harness that is installed from a source that the user names."""
REVISION = "165848b"
"""The commit of ToolSandbox that this was written for; it has no releases."""


class Environment(msgspec.Struct, kw_only=True):
    """An installed harness."""

    name: str
    folder: str
    pins: str
    version: str
    """Package and version, or repository and commit."""
    source: str = ""
    python: str = ""
    packages: list[str] = msgspec.field(default_factory=list)

    @property
    def interpreter(self) -> str:
        """Its Python."""
        return str(Path(self.folder) / "bin" / "python")


def root() -> Path:
    """Where the environments live: $CM2_CACHE/harness, else ~/.cache/cm2/harness."""
    return Path(os.environ.get("CM2_CACHE") or Path.home() / ".cache" / "cm2") / "harness"


def requirements(name: str) -> str:
    """The pinned requirements of a harness, as they ship with cm2."""
    return resources.files("cm2.harness").joinpath("pins", f"{name}.txt").read_text(encoding="utf-8")


def find(name: str) -> Environment | None:
    """The environment of a harness with today's pins, if it was set up."""
    pins = digest(requirements(name))
    try:
        found = msgspec.json.decode((_folder(name) / STAMP).read_bytes(), type=Environment)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return found if found.pins == pins and Path(found.interpreter).exists() else None


def need(name: str) -> Environment:
    """The environment of a harness.

    Raises:
        ConfigError: it was not set up.
    """
    found = find(name)
    if found is None:
        more = " --source CHECKOUT_OR_GIT_URL" if name == SOURCE_OF else ""
        raise ConfigError(f"the harness of {name} is not set up", fix=f"run: cm2 eval setup {name}{more}")
    return found


def setup(
    name: str, source: str | None = None, python: str | None = None, tell: Callable[[str], None] = lambda _: None
) -> Environment:
    """Make the environment of a harness, unless it is there already.

    Args:
        source: ToolSandbox only: a checkout's folder or a git address, with @REVISION behind it if need be.
        python: the interpreter to make it from. Default: a Python 3.11.
        tell: is told what is being done.

    Raises:
        ConfigError: the name is unknown, or a source is missing or needless.
        CM2Error: a command failed; its last words are in the message.
    """
    if name not in NAMES:
        raise ConfigError(f"there is no harness {name!r}", fix=f"use one of {', '.join(NAMES)}")
    if name == GENERAL:
        if python is not None:
            raise ConfigError("general shares the torch of the Python that runs cm2", fix="leave out --python")
        python = sys.executable
    if name != SOURCE_OF and source is not None:
        raise ConfigError(f"{name} comes from the package index", fix="leave out --source")
    present = find(name)
    if present is not None and (source is None or source == present.source):
        return present
    if name == SOURCE_OF and source is None:
        raise ConfigError(
            "ToolSandbox is on no package index, and its licence (Apple sample code) does not let it be shipped",
            fix="get it yourself and say where: --source FOLDER, or --source https://github.com/apple/ToolSandbox",
        )
    folder = _folder(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        return _make(name, folder, source, python or _python(), tell)


def _make(name: str, folder: Path, source: str | None, python: str, tell: Callable[[str], None]) -> Environment:
    if folder.exists():  # half made, or of other pins
        shutil.rmtree(folder)
    tell(f"making {folder}")
    _run([python, "-m", "venv", str(folder)], "making the environment")
    interpreter = str(folder / "bin" / "python")
    pins = folder / "requirements.txt"
    pins.write_text(requirements(name), encoding="utf-8")
    version = ""
    wanted = ["-r", str(pins)]
    if source is not None:
        checkout, version = _checkout(source, folder / "source", tell)
        # A copy of what was checked out, so that the checkout may go; its commit is noted, as the package has none.
        wanted.append(str(checkout))
    tell(f"installing the requirements of {name}: some minutes")
    # The pins are whole: what they leave out (torch, for BFCL) is not to be resolved back in.
    _run([interpreter, "-m", "pip", "install", "--quiet", "--no-deps", *wanted], "installing")
    if name == GENERAL:
        general_data.fetch(interpreter, folder / "data", _run, tell)
    listed = _run([interpreter, "-m", "pip", "list", "--format=freeze"], "listing what was installed").split()
    version = version or next(line for line in requirements(name).splitlines() if "==" in line and line[0] != "#")
    made = Environment(
        name=name,
        folder=str(folder),
        pins=digest(requirements(name)),
        version=version,
        source=source or "",
        python=_run([interpreter, "-V"], "asking its version").strip(),
        packages=listed,
    )
    (folder / STAMP).write_bytes(msgspec.json.encode(made))
    return made


def _checkout(source: str, folder: Path, tell: Callable[[str], None]) -> tuple[Path, str]:
    """The folder that holds the source, and its repository and commit."""
    address, at, revision = source.rpartition("@") if "@" in source.rsplit("/", 1)[-1] else (source, "", "")
    local = Path(address)
    if local.is_dir() and not at:
        checkout = local.resolve()
        if not (checkout / "tool_sandbox").is_dir():
            raise ConfigError(f"{source} is no checkout of ToolSandbox", fix="it has a folder tool_sandbox in it")
    else:
        tell(f"cloning {address}")
        _run(["git", "clone", "--quiet", address, str(folder)], "cloning")
        _run(["git", "-C", str(folder), "checkout", "--quiet", revision or REVISION], "checking out")
        checkout = folder
    # Its own output would name the commit of whatever folder it is run in.
    safe = ["git", "-c", "safe.directory=*", "-C", str(checkout)]
    try:
        commit = _run([*safe, "rev-parse", "HEAD"], "asking its commit").strip()
        if _run([*safe, "status", "--porcelain", "--untracked-files=no"], "asking for changes").strip():
            commit += "+changes"
    except CM2Error:
        commit = "unknown"
    return checkout, f"ToolSandbox@{commit[:12]}{'+changes' if commit.endswith('+changes') else ''}"


def _folder(name: str) -> Path:
    return root() / name


def _python() -> str:
    if sys.version_info[:2] == tuple(map(int, PYTHON.split("."))):
        return sys.executable
    found = shutil.which(f"python{PYTHON}")
    if found is None:
        raise ConfigError(f"the harnesses are pinned for Python {PYTHON}", fix="install it, or name one: --python PATH")
    return found


def _run(command: list[str], what: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise CM2Error(f"{what} failed: there is no {command[0]}", fix="install it") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-800:]
        raise CM2Error(f"{what} failed: {said}", fix="mend it and run the same command again")
    return done.stdout
