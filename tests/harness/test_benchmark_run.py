"""A benchmark's run into a folder: what is run again, what is refused, and what the results say of themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cm2.errors import CM2Error, ConfigError
from cm2.harness import environments, results
from cm2.harness import run as running
from cm2.harness.environments import Environment
from cm2.harness.process import HarnessFailed
from cm2.harness.results import Outcome
from cm2.harness.run import evaluate
from cm2.harness.settings import EvalConfig
from servers.openai_server import OpenAIServer, says


class Fake:
    """A harness of two categories of two tasks, whose runs end as a script says: 1, 0, or an owner, a sign a task."""

    WHOLE = {"easy": 2, "hard": 2}
    GROUPS = {"fake": ("easy", "hard")}
    DEFAULT = ["fake"]

    def __init__(self, *script: str):
        self.script = list(script)
        self.ran: list[tuple[int, list[str]]] = []

    def run_once(self, config: EvalConfig, environment: Any, folder: Path, index: int, chosen: list[str]) -> Iterator:
        """Play what has no score yet."""
        self.ran.append((index, chosen))
        signs = self.script.pop(0)
        if signs == "broken":
            raise HarnessFailed("the harness ended with 1")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tasks.json").write_text(json.dumps({"hash": "feed"}))
        names = [(category, n) for category in chosen for n in range(config.limit or 2)]
        path = folder / "rows.json"
        rows = json.loads(path.read_text()) if path.exists() else {}
        for (category, n), sign in zip(names, signs, strict=False):
            if rows.get(f"{category}/{n}", "user") not in ("1", "0"):
                rows[f"{category}/{n}"] = {"u": "user", "i": "infrastructure"}.get(sign, sign)
            path.write_text(json.dumps(rows))
            yield len(rows)

    def parse(self, folder: Path, index: int, raw: str) -> tuple[list[Outcome], dict[str, list[float]]]:
        """Rows as outcomes."""
        found = []
        for name, sign in json.loads((folder / "rows.json").read_text()).items():
            category, task = name.split("/")
            scored = {"score": float(sign), "passed": sign == "1"} if sign in ("1", "0") else {"owner": sign}
            found.append(Outcome(task=task, category=category, run=index, raw=raw, **scored))
        return found, {category: [0.25] for category in {one.category for one in found}}


@pytest.fixture
def endpoint() -> Iterator[str]:
    """Something that answers."""
    with OpenAIServer([says("hello")]) as server:
        yield server.url


@pytest.fixture
def go(tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a fake harness in the place of BFCL's."""
    version = {"h": "h==1"}

    def need(name: str) -> Environment:
        return Environment(name=name, folder="", pins="", version=version["h"])

    monkeypatch.setattr(environments, "need", need)

    def start(fake: Fake, **more: Any) -> results.Results:
        monkeypatch.setitem(running.ADAPTERS, "bfcl", fake)  # type: ignore[arg-type]
        version["h"] = more.pop("harness", "h==1")
        given = {"benchmark": "bfcl", "output": str(tmp_path / "out"), "base_url": endpoint, "model": "m"}
        return evaluate(EvalConfig(**(given | more)))

    return start


def test_a_run_is_written_with_everything_that_a_reader_asks(go: Any, tmp_path: Path) -> None:
    made = go(Fake("1101"))
    assert results.read(tmp_path / "out")[0] == made
    assert (made.benchmark, made.harness, made.tasks, made.model, made.n) == ("bfcl", "h==1", "feed", "m", 4)
    assert {one.name: (one.n, one.score.mean) for one in made.categories if one.score} == {
        "easy": (2, 1.0),
        "hard": (2, 0.5),
    }
    assert made.headlines[0].score is not None and made.headlines[0].score.mean == 0.75
    assert made.categories[0].official == [0.25]
    assert made.comparable and not made.failed and not made.differs


def test_what_has_a_score_is_not_run_again(go: Any) -> None:
    first, again = Fake("1111"), Fake()
    assert go(first) == go(again)
    assert first.ran and not again.ran


@pytest.mark.parametrize("sign", ["u", "i"])
def test_one_lost_conversation_fails_the_run_and_is_tried_again(go: Any, sign: str) -> None:
    made = go(Fake(f"1{sign}00"))
    owner = {"u": "user", "i": "infrastructure"}[sign]
    assert made.failed and made.errors == {owner: 1} and not made.comparable
    assert any(owner in told for told in made.differs)
    easy = made.category("easy")
    assert easy.score is not None and easy.score.mean == 1.0 and (easy.n, easy.scored) == (2, 1)
    mended = go(Fake("0000"))  # what was scored stays: only the lost one becomes a 0
    assert not mended.failed and mended.errors == {} and mended.comparable
    assert [part.by_run for part in mended.categories] == [[0.5], [0.0]]


def test_losses_that_were_allowed_do_not_fail_the_run_and_are_told(go: Any) -> None:
    made = go(Fake("1u00"), allow_errors=1)
    assert not made.failed and not made.comparable and any("left out" in told for told in made.differs)


def test_a_harness_that_broke_leaves_what_there_was_and_goes_on(go: Any, tmp_path: Path) -> None:
    with pytest.raises(HarnessFailed):
        go(Fake("broken"))
    assert not results.is_results(tmp_path / "out")
    assert go(Fake("1111")).n == 4


def test_more_repetitions_may_be_asked_for_later(go: Any) -> None:
    go(Fake("1110"))
    second = Fake("0010")
    made = go(second, runs=2)
    assert [index for index, _ in second.ran] == [1]
    assert made.runs == 2 and made.headlines[0].by_run == [0.75, 0.25]
    assert made.category("easy").pass_hat == {"1": 0.5, "2": 0.0}


@pytest.mark.parametrize("more", [{"model": "other"}, {"thinking": "drop"}, {"limit": 1}, {"harness": "h==2"}])
def test_a_folder_of_other_settings_is_refused_by_what_differs(go: Any, more: dict[str, Any]) -> None:
    go(Fake("1111"))
    with pytest.raises(ConfigError, match=next(iter(more))):
        go(Fake("0000"), **more)


def test_a_folder_with_something_else_in_it_is_refused(go: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("…")
    with pytest.raises(ConfigError, match="not empty"):
        go(Fake("1111"))


def test_a_subset_says_that_it_is_not_comparable(go: Any) -> None:
    made = go(Fake("11"), limit=1)
    assert not made.comparable and "2 of 4" in made.differs[0] and "not comparable" in made.differs[0]


def test_a_part_of_the_categories_says_which_are_missing(go: Any) -> None:
    made = go(Fake("11"), categories=["easy"])
    assert not made.comparable and "without hard" in made.differs[0]


def test_an_unknown_category_is_refused_with_those_there_are(go: Any) -> None:
    with pytest.raises(ConfigError, match="fake, easy, hard"):
        go(Fake(), categories=["medium"])


def test_an_endpoint_that_is_not_up_is_told_at_once_and_loses_nothing(go: Any) -> None:
    fake = Fake("1111")
    with pytest.raises(CM2Error, match="does not answer"):
        go(fake, base_url="http://127.0.0.1:9/v1")
    assert not fake.ran


def test_a_second_run_into_the_same_folder_is_refused(go: Any, tmp_path: Path) -> None:
    from cm2.formats.lock import lock_output

    (tmp_path / "out").mkdir()
    lock = lock_output(str(tmp_path / "out"))
    try:
        with pytest.raises(CM2Error, match="another run"):
            go(Fake("1111"))
    finally:
        lock.release()
