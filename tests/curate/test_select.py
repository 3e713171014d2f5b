"""`cm2 select`: splits by complexity, without duplicates or leaks between them, whatever the order of the rows."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from curate_askers import run_verb
from hypothesis import given, settings
from hypothesis import strategies as st
from row_builders import nemotron

from cm2.checklist import Task
from cm2.curate.choose import choose
from cm2.curate.features import NUMBERS, Features, complexity, features
from cm2.curate.minhash import shingles
from cm2.curate.pool import Pool
from cm2.curate.select import select_file
from cm2.curate.selection import SelectConfig, Split, with_sizes, with_unseen_tools
from cm2.curate.statistics import Statistics
from cm2.errors import ConfigError, DataError
from cm2.formats import RowWriter, read_row
from cm2.train.settings import load

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "select-8k-8k-500.yaml"
WORDS = [f"word{number}" for number in range(400)]


def tool(name: str) -> dict:
    return {"type": "function", "function": {"name": name, "description": "", "parameters": {"type": "object"}}}


def dialogue(id: str, turns: list[tuple[str, list[list[str]]]], offered: tuple[str, ...] = ()) -> dict:
    """A row of turns: what the user says, and the tools that each step calls; a reply ends each turn."""
    messages: list[dict] = []
    names = set(offered)
    for said, steps in turns:
        messages.append({"role": "user", "content": said})
        for calls in steps:
            made = [{"type": "function", "function": {"name": name, "arguments": "{}"}} for name in calls]
            messages.append({"role": "assistant", "content": None, "tool_calls": made})
            messages += [{"role": "tool", "content": '{"ok": true}'} for _ in calls]
            names |= set(calls)
        messages.append({"role": "assistant", "content": "Done."})
    return {"id": id, "tools": [tool(name) for name in sorted(names)], "messages": messages}


def said(draw: random.Random, count: int = 40) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(count))


def made_rows(seed: int, count: int, tools: int = 12, twins: float = 0.2) -> list[dict]:
    """Rows of all kinds; some are (nearly) those of an earlier one."""
    draw = random.Random(seed)
    names = [f"tool_{number}" for number in range(tools)]
    rows: list[dict] = []
    for number in range(count):
        if rows and draw.random() < twins:
            row = json.loads(json.dumps(draw.choice(rows)))
            row["id"] = f"r{number}"
            for message in row["messages"]:
                if message["role"] == "user" and draw.random() < 0.5:
                    words = message["content"].split()
                    words[draw.randrange(len(words))] = draw.choice(WORDS)
                    message["content"] = " ".join(words)
            rows.append(row)
            continue
        mine = draw.sample(names, draw.randint(1, 4))
        turns = [
            (said(draw), [[draw.choice(mine)] for _ in range(draw.randint(0, 3))]) for _ in range(draw.randint(1, 4))
        ]
        rows.append(dialogue(f"r{number}", turns, tuple(mine)))
    return rows


def write(folder: Path, rows: list, name: str = "in.jsonl") -> str:
    with RowWriter(folder / name) as writer:
        for row in rows:
            if isinstance(row, bytes):
                writer.write_text(row)
            else:
                writer.write(row)
    return str(folder / name)


def three(sft: int | None = 20, rl: int | None = 20, heldout: int = 5, **more) -> list[Split]:
    least = {"turns": 2, "tools": 2}
    return [
        Split(name="sft", count=sft, by="weighted", least=least),
        Split(name="rl", count=rl, by="complex", least={**least, "depth": 2}),
        Split(name="heldout", count=heldout, source="rl", **more),
    ]


def select(folder: Path, rows: list, name: str = "in.jsonl", **settings):
    config = SelectConfig(write(folder, rows, name), str(folder / "out"), **({"splits": three()} | settings))
    summary = select_file(config).summary
    files = {
        split.name: [json.loads(line) for line in (folder / "out" / f"{split.name}.jsonl").read_bytes().splitlines()]
        for split in config.splits
    }
    return summary, files


def ids(rows: list[dict]) -> list[str]:
    return [row["id"] for row in rows]


def asked(row: dict) -> list[str]:
    texts = []
    for message in row["messages"]:
        if message["role"] == "user":
            texts.append(message["content"])
        texts += [f"{c['function']['name']}({c['function']['arguments']})" for c in message.get("tool_calls") or []]
    return texts


def jaccard(one: dict, other: dict) -> float:
    a, b = set(shingles(asked(one)).tolist()), set(shingles(asked(other)).tolist())
    return len(a & b) / len(a | b) if a | b else 1.0


def tools_of(rows: list[dict], called: bool) -> set[str]:
    names = {c["function"]["name"] for row in rows for m in row["messages"] for c in m.get("tool_calls") or []}
    return names if called else names | {each["function"]["name"] for row in rows for each in row["tools"]}


def test_the_numbers_of_a_dialogue_are_those_counted_by_hand():
    row = dialogue("a", [("one", [["x"], ["y", "x"]]), ("two", []), ("three", [["x"]])], offered=("z",))
    row["messages"][2]["content"] = '{"error": "no such thing"}'
    found = features(read_row(row))
    tokens = found.numbers.pop("tokens")
    assert found.numbers == {
        "turns": 3, "steps": 6, "depth": 2, "calls": 4, "tools": 2, "offered": 3, "errors": 1,
    }  # fmt: skip
    assert (found.called, found.offered) == ({"x", "y"}, {"x", "y", "z"})
    statistics = Statistics()
    statistics.add(Task(read_row(row)))
    assert (statistics.errors, statistics.tokens, statistics.as_json()["errors"]) == (1, tokens, 1)
    assert features(read_row(row), count=lambda text: 1).numbers["tokens"] > 10
    assert complexity({"turns": 3, "steps": 7, "calls": 0, "tools": 1}) == 2 + 3 + 0 + 1
    assert complexity({"turns": 3, "errors": 1}, {"turns": 0.5, "errors": 2}) == 1 + 2


def test_the_recipe_is_the_published_one():
    config = load(SelectConfig, str(RECIPE), {"input": "a", "output": "b"})
    assert config == SelectConfig("a", "b")
    assert [(split.name, split.count, split.by, split.source) for split in config.splits] == [
        ("sft", 8000, "weighted", None),
        ("rl", 8000, "complex", None),
        ("heldout", 500, "random", "rl"),
    ]


def test_splits_have_the_sizes_the_minimums_and_nothing_in_common(tmp_path):
    rows = made_rows(1, 300)
    summary, files = select(tmp_path, rows)
    assert {name: len(found) for name, found in files.items()} == {"sft": 20, "rl": 15, "heldout": 5}
    assert summary.splits["rl"].wanted == 15  # 20 with those that are held out of it
    chosen = [id for found in files.values() for id in ids(found)]
    assert len(set(chosen)) == len(chosen) == 40
    for name, found in files.items():
        for row in found:
            numbers = features(read_row(row)).numbers
            assert numbers["turns"] >= 2 and numbers["tools"] >= 2
            assert name == "sft" or numbers["depth"] >= 2
    originals = {row["id"]: row for row in rows}
    assert all(originals[row["id"]] == row for found in files.values() for row in found)
    order = [row["id"] for row in rows]
    assert all(ids(found) == sorted(ids(found), key=order.index) for found in files.values())
    assert summary.rows == 300 == len(chosen) + summary.not_chosen + sum(summary.left_out.values())


def test_the_most_complex_that_are_left_go_to_rl(tmp_path):
    rows = made_rows(2, 300, twins=0)
    _, files = select(tmp_path, rows)
    taken = files["rl"] + files["heldout"]
    of = {row["id"]: features(read_row(row)).numbers for row in rows}
    least = min(complexity(of[row["id"]]) for row in taken)
    left = [of[row["id"]] for row in rows if row["id"] not in set(ids(taken)) | set(ids(files["sft"]))]
    fit = [each for each in left if each["turns"] >= 2 and each["tools"] >= 2 and each["depth"] >= 2]
    assert fit and all(complexity(each) <= least for each in fit)


def test_weights_are_the_odds_of_being_drawn():
    """Of two rows one is drawn; the heavier one with probability w / (w + v)."""
    weights, drawn = [3.0, 9.0], Counter()
    config = SelectConfig("a", "b", [Split(name="one", count=1, by="weighted")], near=None)
    for seed in range(2000):
        pool = Pool(near=False)
        for number, weight in enumerate(weights):
            found = Features(dict.fromkeys(NUMBERS, 1), set(), set())
            pool.add(found, weight, None, b"%d" % number, b"%d\n%d" % (seed, number))
        (row,) = np.flatnonzero(choose(pool, config).split == 0)
        drawn[int(row)] += 1
    assert abs(drawn[1] / 2000 - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 2000)


def test_the_order_and_the_form_of_the_rows_do_not_matter(tmp_path):
    rows = made_rows(3, 200)
    _, first = select(tmp_path, rows)
    again = list(rows)
    for seed in range(3):
        random.Random(seed).shuffle(again)
        folder = tmp_path / str(seed)
        folder.mkdir()
        name = ["a.jsonl.gz", "b.parquet", "c.jsonl.zst"][seed]
        _, files = select(folder, again, name)
        assert {name: set(ids(found)) for name, found in files.items()} == {
            name: set(ids(found)) for name, found in first.items()
        }
    (tmp_path / "seed").mkdir()
    _, other = select(tmp_path / "seed", rows, seed=1)
    assert set(ids(other["sft"])) != set(ids(first["sft"]))


def test_exact_duplicates_go_whatever_their_ids(tmp_path):
    rows = made_rows(4, 30, twins=0)
    copies = [{**row, "id": f"copy-{row['id']}", "meta": {"n": 1}} for row in rows[:10]]
    for near in (None, 0.8):
        summary, files = select(tmp_path, rows + copies, splits=[Split(name="all")], near=near)
        assert summary.left_out == {"exact duplicate": 10}
        stems = [id.removeprefix("copy-") for id in ids(files["all"])]
        assert sorted(stems) == sorted(row["id"] for row in rows)
    assert summary.groups == 10 and summary.largest_group == 2


def test_of_near_duplicates_one_stays_and_without_the_search_all_do(tmp_path):
    draw = random.Random(1)
    words = said(draw, 100).split()
    twins = [" ".join([*words[:n], "other", *words[n + 1 :]]) for n in (20, 50, 80)]
    rows = [dialogue(f"r{n}", [(text, [["x"]])]) for n, text in enumerate([" ".join(words), *twins, said(draw, 100)])]
    assert min(jaccard(one, other) for one, other in combinations(rows[:4], 2)) > 0.85
    summary, files = select(tmp_path, rows, splits=[Split(name="all")])
    assert summary.left_out == {"near-duplicate": 3} and len(files["all"]) == 2 and "r4" in ids(files["all"])
    summary, files = select(tmp_path, rows, splits=[Split(name="all")], near=None)
    assert summary.left_out == {} and len(files["all"]) == 5


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.booleans())
def test_near_duplicates_never_straddle_a_split(tmp_path_factory, seed, unseen):
    """By exact Jaccard, over rows that stay (chains of near-duplicates leave several)."""
    tmp_path = tmp_path_factory.mktemp("straddle")
    draw = random.Random(seed)
    rows = made_rows(seed, 50, twins=0.5)
    for row in list(rows[:15]):  # chains: each differs a little from the one before
        for link in range(draw.randint(0, 4)):
            row = json.loads(json.dumps(row))
            row["id"] += f"-{link}"
            for message in row["messages"]:
                if message["role"] == "user":
                    words = message["content"].split()
                    for _ in range(2):
                        words[draw.randrange(len(words))] = draw.choice(WORDS)
                    message["content"] = " ".join(words)
            rows.append(row)
    splits = [
        Split(name="a", count=draw.choice([5, 20, 40]), by=draw.choice(["weighted", "random", "complex"])),
        Split(name="b", count=draw.choice([5, 20, None]), by="complex", least={"turns": 2}),
        Split(name="held", count=draw.choice([1, 4]), source="b", unseen_tools=unseen),
        Split(name="c"),
    ]
    summary, files = select(tmp_path, rows, splits=splits, unseen_share=0.3)
    for one, other in combinations(files, 2):
        for a in files[one]:
            for b in files[other]:
                assert jaccard(a, b) < 0.8, (one, other, a["id"], b["id"])
    chosen = sum(map(len, files.values()))
    assert summary.rows == len(rows) == chosen + summary.not_chosen + sum(summary.left_out.values())
    assert len({id for found in files.values() for id in ids(found)}) == chosen


def test_a_group_that_cannot_be_dropped_goes_to_one_split_whole(tmp_path):
    """Chains of rows that are near to their neighbours only: several stay, and all in the same split."""
    draw = random.Random(9)
    rows, chains = [], {}
    for chain in range(12):
        words = said(draw, 60).split()
        for link in range(5):
            for _ in range(2):
                words[draw.randrange(60)] = draw.choice(WORDS)
            id = f"{chain}-{link}"
            chains[id] = chain
            rows.append(dialogue(id, [(" ".join(words), [["x"]])]))
    splits = [Split(name="a", count=6), Split(name="b"), Split(name="held", count=4, source="b")]
    summary, files = select(tmp_path, rows, splits=splits)
    where: dict[int, set[str]] = {}
    for name, found in files.items():
        for id in ids(found):
            where.setdefault(chains[id], set()).add(name)
    assert summary.left_out["near-duplicate"] > 5 and sum(map(len, files.values())) > 15
    assert all(len(names) == 1 for names in where.values()) and len(files["held"]) <= 4


@pytest.mark.parametrize("seed", range(5))
def test_held_out_rows_call_tools_that_no_training_row_sees(tmp_path, seed):
    rows = made_rows(seed, 300, tools=60, twins=0.1)
    splits = with_unseen_tools(three(30, 30, 10))
    summary, files = select(tmp_path, rows, splits=splits, seed=seed)
    training = tools_of(files["sft"] + files["rl"], called=False)
    assert {name: len(found) for name, found in files.items()} == {"sft": 30, "rl": 20, "heldout": 10}
    for row in files["heldout"]:
        assert tools_of([row], called=True) - training
        numbers = features(read_row(row)).numbers
        assert numbers["turns"] >= 2 and numbers["tools"] >= 2 and numbers["depth"] >= 2
    assert summary.unseen_tools and not set(summary.unseen_tools) & training


def test_where_every_row_sees_every_tool_none_can_be_held_out_and_that_is_told(tmp_path, capsys):
    names = ("x", "y", "z")
    draw = random.Random(0)
    rows = [dialogue(f"r{n}", [(said(draw), [["x"], ["y"]])] * 2, names) for n in range(30)]
    summary, files = select(tmp_path, rows, splits=with_unseen_tools(three(5, 5, 2)))
    assert (len(files["sft"]), len(files["rl"]), len(files["heldout"])) == (5, 3, 0) and summary.unseen_tools == []
    run_verb(
        "select", tmp_path / "in.jsonl", "-o", tmp_path / "out", "--unseen-tools", "--sizes", "sft=5,rl=5,heldout=2"
    )
    told = " ".join(capsys.readouterr().out.split())
    assert "heldout is short: 0 of 2 rows" in told and "training never sees: none" in told


def test_with_too_few_rows_the_last_splits_come_out_short_or_all_shrink(tmp_path):
    rows = made_rows(6, 150, twins=0)
    fit = sum(each["turns"] >= 2 and each["tools"] >= 2 for each in (features(read_row(row)).numbers for row in rows))
    summary, files = select(tmp_path, rows, splits=three(1000, 1000, 100))
    assert len(files["sft"]) == fit and files["rl"] == files["heldout"] == []
    assert summary.splits["sft"].wanted == 1000
    summary, files = select(tmp_path, rows, splits=three(1000, 1000, 100), shrink=True)
    qualify = summary.splits["rl"].passed
    assert len(files["sft"]) == int(1000 * qualify / 2000) == len(files["rl"]) + len(files["heldout"])
    assert len(files["heldout"]) == int(100 * qualify / 2000) == summary.splits["heldout"].wanted


def test_broken_rows_have_their_place_and_stop_nothing(tmp_path):
    rows = [b"{", *made_rows(7, 40, twins=0), {"messages": []}, b"[1]", nemotron()]
    summary, files = select(tmp_path, rows, splits=[Split(name="all")])
    assert summary.left_out == {"no dialogue": 3} and summary.problems[0].startswith("line 1: ")
    assert len(files["all"]) == 41 and "uuid" in files["all"][-1]
    assert summary.all.rows == 41
    with pytest.raises(DataError, match="none of its rows"):
        select(tmp_path, [{"messages": []}])


def test_a_file_that_changes_between_the_passes_is_noticed(tmp_path):
    rows = made_rows(8, 30, twins=0)
    config = SelectConfig(write(tmp_path, rows), str(tmp_path / "out"), [Split(name="all")])
    for changed in (rows[:-1], [*rows, rows[0]], [rows[1], rows[0], *rows[2:]]):

        def progress(found, what, changed=changed):
            if what == "writing":
                write(tmp_path, changed)
            return found

        write(tmp_path, rows)
        with pytest.raises(DataError, match="changed while it was read"):
            select_file(config, progress)
        assert not (tmp_path / "out" / "all.jsonl").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"splits": []}, "no split"),
        ({"splits": [{"name": "a"}, {"name": "a"}]}, "one name"),
        ({"splits": [{"name": "a", "source": "b"}]}, "no split before it"),
        ({"splits": [{"name": "a"}, {"name": "b", "source": "a"}, {"name": "c", "source": "b"}]}, "held out itself"),
        ({"splits": [{"name": "a/b"}]}, "no name"),
        ({"splits": [{"name": "a", "least": {"turn": 2}}]}, "turns"),
        ({"splits": [{"name": "a"}, {"name": "b", "source": "a", "unseen_tools": True}]}, "no count"),
        ({"complexity": {"nope": 1}}, "numbers of a row"),
        ({"near": 1.5}, "near"),
        ({"splits": [{"name": "a", "by": "luck"}]}, "luck"),
        ({"form": "csv"}, "csv"),
    ],
)
def test_wrong_recipes_are_refused_when_they_are_loaded(change, told):
    with pytest.raises(ConfigError, match=told):
        load(SelectConfig, None, {"input": "a", "output": "b", **change})


def test_sizes_and_paths_are_checked(tmp_path):
    assert [split.count for split in with_sizes(three(), "sft=7, rl=all")] == [7, None, 5]
    for wrong in ("sft", "sft=x", "nope=3", "sft=-1", "sft=3,sft=4"):
        with pytest.raises(ConfigError):
            with_sizes(three(), wrong)
    with pytest.raises(ConfigError):
        with_unseen_tools([Split(name="a")])
    source = write(tmp_path, made_rows(0, 5))
    for output, name in ((source, "a"), (str(tmp_path), "in"), (str(tmp_path / "in.jsonl" / "x"), "a")):
        with pytest.raises((ConfigError, OSError)):
            select_file(SelectConfig(source, output, [Split(name=name)]))
    with pytest.raises(ConfigError, match="folder that is read"):
        select_file(SelectConfig(str(tmp_path), str(tmp_path / "out"), [Split(name="a")]))
    assert len(Path(source).read_bytes().splitlines()) == 5


def test_the_command_writes_splits_summary_and_figure(tmp_path, capsys):
    source = write(tmp_path, made_rows(10, 120))
    argv = ["select", source, "-o", tmp_path / "out", "--config", RECIPE, "--shrink", "--form", "parquet"]
    run_verb(*argv, "--json")
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["splits"]["sft"]["rows"] > 5 and summary["splits"]["rl"]["numbers"]["turns"]["mean"] >= 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "heldout.parquet", "rl.parquet", "sft.parquet", "splits.png", "summary.json",
    ]  # fmt: skip
    assert (tmp_path / "out" / "splits.png").read_bytes().startswith(b"\x89PNG")
    run_verb(*argv[:6], "--no-plot", "--near", "0", "--sizes", "sft=5,rl=5,heldout=1")
    assert "120 rows" in capsys.readouterr().out


def test_on_real_dialogues_nothing_leaks_between_splits(tmp_path, shared_data):
    config = SelectConfig(str(shared_data / "nemotron_like.jsonl.gz"), str(tmp_path / "out"), shrink=True, plot=False)
    select_file(config)
    files = {
        name: [json.loads(line) for line in (tmp_path / "out" / f"{name}.jsonl").read_bytes().splitlines()]
        for name in ("sft", "rl", "heldout")
    }
    assert all(files.values())
    sets = {name: [set(shingles(asked(row)).tolist()) for row in found] for name, found in files.items()}
    for one, other in combinations(sets, 2):
        assert max(len(a & b) / len(a | b) for a in sets[one] for b in sets[other]) < 0.8
