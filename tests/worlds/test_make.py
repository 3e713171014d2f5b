"""Making dialogues: seeded, distinct, apart by split, executed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import orjson
import pytest
from typer.testing import CliRunner

from cm2.cli.main import _register, app
from cm2.errors import ConfigError
from cm2.formats import read_tasks
from cm2.worlds import PROFILES, UNSEEN, MakeConfig, domains_of, make
from cm2.worlds.file import make_file
from cm2.worlds.make import split_of
from cm2.writes import changes_state

ALL = [(profile, name) for profile, domains in PROFILES.items() for name in domains]


def said(dialogue) -> str:
    return msgspec.json.encode([dialogue.system, dialogue.tools, dialogue.turns]).decode()


def worlds(dialogues) -> set[str]:
    return {dialogue.meta["world"]["state"] for dialogue in dialogues}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_run_is_the_same_every_time_and_its_beginning_does_not_change_when_it_grows(profile):
    first = [msgspec.json.encode(d) for d in make(MakeConfig(count=40, seed=3, profile=profile))]
    again = [msgspec.json.encode(d) for d in make(MakeConfig(count=60, seed=3, profile=profile))]
    assert again[:40] == first


@pytest.mark.parametrize("profile", PROFILES)
def test_two_thousand_dialogues_of_one_seed_are_pairwise_distinct_and_another_seed_gives_others(profile):
    one = {said(d) for d in make(MakeConfig(count=2000, seed=0, profile=profile))}
    other = {said(d) for d in make(MakeConfig(count=500, seed=1, profile=profile))}
    assert len(one) == 2000 and len(other) == 500
    assert len(one & other) <= 2


@pytest.mark.parametrize("profile", PROFILES)
def test_no_world_and_no_id_of_the_held_out_split_occurs_in_train_even_with_one_seed(profile):
    train = list(make(MakeConfig(count=800, profile=profile)))
    heldout = list(make(MakeConfig(count=300, profile=profile, split="heldout")))
    assert not worlds(train) & worlds(heldout)
    assert not {d.id for d in train} & {d.id for d in heldout}
    assert not {said(d) for d in train} & {said(d) for d in heldout}
    assert {split_of(state, "hotel") for state in worlds(heldout)} == {"heldout"}


@pytest.mark.parametrize("profile", PROFILES)
def test_unseen_domains_share_no_tool_with_the_others(profile):
    seen = {name for domain in domains_of(profile, "train") for name in domain.box.tools}
    unseen = {name for domain in domains_of(profile, "unseen") for name in domain.box.tools}
    assert len(domains_of(profile, "train")) >= 6
    assert [domain.name for domain in domains_of(profile, "unseen")] == list(UNSEEN)
    assert not seen & unseen
    assert {d.meta["world"]["domain"] for d in make(MakeConfig(count=6, split="unseen", profile=profile))} == set(
        UNSEEN
    )


@pytest.mark.parametrize(("profile", "name"), ALL)
def test_a_tools_name_tells_whether_it_changes_the_world(profile, name):
    """Whoever labels the dialogues sees only names: a tool that writes must read as one, and no other may."""
    split = "unseen" if name in UNSEEN else "train"
    wrote, read = set(), set()
    for dialogue in make(MakeConfig(count=100, split=split, profile=profile, domains=(name,))):
        tables = domain_tables(dialogue)
        desk = tables.session()
        for _, _, _, call, _ in dialogue.calls():
            before = msgspec.json.encode(desk.tables)
            desk.respond(call)
            (read if msgspec.json.encode(desk.tables) == before else wrote).add(call.name)
    tools = PROFILES[profile][name].box.tools
    assert wrote and all(changes_state(tools[tool], tool) for tool in wrote)
    assert not {tool for tool in read - wrote if changes_state(tools[tool], tool)}


def domain_tables(dialogue):
    world = dialogue.meta["world"]
    return PROFILES[world["profile"]][world["domain"]].engine(world["seed"])


def test_the_short_profile_is_short():
    dialogues = list(make(MakeConfig(count=300, profile="short")))
    assert all(len(d.turns) == 1 and 2 <= len(d.tools) <= 3 and len(d.turns[0].steps) <= 3 for d in dialogues)
    assert all(step.thinking is None for d in dialogues for step in d.turns[0].steps)
    letters = [len(orjson.dumps([[m.user, m.steps] for m in d.turns], default=msgspec.to_builtins)) for d in dialogues]
    refused = sum(d.meta["goal"]["told"][0].get("refuses", False) for d in dialogues)
    assert max(letters) < 1400
    assert 0.1 < refused / len(dialogues) < 0.2


def test_thinking_is_in_every_step_or_in_none():
    for thinking in (True, False):
        for dialogue in make(MakeConfig(count=40, profile="short", thinking=thinking)):
            assert {step.thinking is not None for step in dialogue.turns[0].steps} == {thinking}
            assert all(len((step.thinking or "").split()) <= 7 for step in dialogue.turns[0].steps)


def test_a_share_of_short_dialogues_has_a_second_turn_when_asked():
    turns = [len(d.turns) for d in make(MakeConfig(count=200, profile="short", two_turns=0.5))]
    assert 60 < turns.count(2) < 120 and set(turns) == {1, 2}


@pytest.mark.parametrize(
    ("wrong", "fix"),
    [
        ({"count": 0}, "at least 1"),
        ({"profile": "tiny"}, "short"),
        ({"split": "test"}, "heldout"),
        ({"domains": ("motel",), "profile": "short"}, "hotel"),
        ({"domains": ("clinic",), "profile": "short"}, "unseen"),
        ({"two_turns": 2.0, "profile": "short"}, "0 to 1"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_remedy(wrong, fix):
    with pytest.raises(ConfigError, match=fix):
        MakeConfig(**wrong)


def test_rows_are_read_back_as_the_dialogues_that_were_made(tmp_path: Path):
    config = MakeConfig(count=30, profile="short")
    summary = make_file(config, str(tmp_path / "rows.jsonl"))
    tasks = [task for _, task in read_tasks(str(tmp_path / "rows.jsonl"))]
    assert [task.dialogue.id for task in tasks] == [d.id for d in make(config)]
    assert [task.dialogue.meta for task in tasks] == [d.meta for d in make(config)]
    assert [said(task.dialogue) for task in tasks] == [said(d) for d in make(config)]
    assert summary["dialogues"] == 30 == sum(counts["dialogues"] for counts in summary["domains"].values())


def test_the_command_writes_rows_and_prints_its_summary(tmp_path: Path):
    _register()
    target = tmp_path / "rows.jsonl.gz"
    command = [
        "worlds",
        "make",
        "-o",
        str(target),
        "-n",
        "12",
        "--profile",
        "short",
        "--domains",
        "hotel,car",
        "--json",
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    summary = orjson.loads(result.stdout)
    assert summary["dialogues"] == 12 and set(summary["domains"]) == {"hotel", "car"}
    assert len(list(read_tasks(str(target)))) == 12
    nothing = tmp_path / "nothing.jsonl"
    result = CliRunner().invoke(app, ["worlds", "make", "-o", str(nothing), "-n", "2", "--domains", ","])
    assert isinstance(result.exception, ConfigError) and "names no domain" in str(result.exception)
    assert not nothing.exists()
