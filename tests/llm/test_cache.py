"""The cache of answers: keyed by content, shared by processes, and never trusted further than its checksums."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from cm2.errors import ConfigError
from cm2.llm import ModelError, ProviderError
from cm2.llm.cache import AnswerCache, Stored, key_of
from cm2.llm.question import content
from llm.door_cases import Provider, asks, error, models, role, said
from servers.openai_server import OpenAIServer, says


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "answers.sqlite")


def filled(path, number=50):
    with AnswerCacheOf(path) as cache:
        for index in range(number):
            cache.put(key(index), Stored(f"answer {index}" * 20, "m"))


def key(index):
    return key_of({"question": index})


class AnswerCacheOf(AnswerCache):
    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# ---- the door and its cache


def test_an_answer_is_paid_once_and_found_by_the_next_run(path):
    provider = Provider(['{"met": true}'])
    for run in range(3):
        with models(provider, cache=path) as door:
            answer = door.wait_ask(asks(prompt=f"p{run}"))
            assert answer.value == {"met": True} and answer.cached == (run > 0)
            assert answer.prompt == f"p{run}" and answer.model == "m"
            assert (answer.cost, answer.usage.calls) == ((0.0, 0) if run else (pytest.approx(120e-6), 1))
            assert door.spent.stages["judge"].reused == (run > 0)
    assert len(provider.bodies) == 1


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"base_url": "http://elsewhere.test/v1"}, True),
        ({"key_variable": "OTHER_KEY"}, True),
        ({"concurrency": 3, "timeout": 9, "repairs": 0, "structured": "prompt"}, True),
        ({"price": {"input": 9, "output": 9}}, True),
        ({"model": "other"}, False),
        ({"temperature": 0.1}, False),
        ({"top_p": 0.1}, False),
        ({"max_tokens": 5}, False),
        ({"effort": "high"}, False),
        ({"extra": {"top_k": 1}}, False),
    ],
)
def test_the_key_holds_what_decides_an_answer_and_no_address(change, same):
    keys = [key_of(content(role(**fields), asks())) for fields in ({}, change)]
    assert (keys[0] == keys[1]) == same


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"role": "filter", "stage": "s", "affinity": "a", "prompt": "p", "planned": 1}, True),
        ({"messages": [{"role": "user", "content": "is it met!"}]}, False),
        ({"messages": [{"role": "system", "content": "is it met?"}]}, False),
        ({"sample": 1}, False),
        ({"schema": None}, False),
        ({"effort": "low"}, False),
        ({"max_tokens": 9}, False),
    ],
)
def test_the_key_holds_the_question_and_no_role(change, same):
    keys = [key_of(content(role(), request)) for request in (asks(), asks(**change))]
    assert (keys[0] == keys[1]) == same


def test_the_order_of_names_does_not_matter_but_that_of_lists_does():
    assert key_of({"a": 1, "b": {"x": 1, "y": 2}}) == key_of({"b": {"y": 2, "x": 1}, "a": 1})
    assert key_of({"a": [1, 2]}) != key_of({"a": [2, 1]})
    assert key_of({"a": "\ud800", "b": 1}) == key_of({"b": 1, "a": "\ud800"})


@pytest.mark.parametrize(
    "bad",
    [
        said(None, refusal="no"),
        said('{"met": 1}'),
        said('{"met": true}', finish="length"),
        said(""),
        error(400),
        error(500),
    ],
)
def test_refusals_and_failures_are_never_kept(path, bad):
    with models(Provider([bad]), cache=path) as door, pytest.raises((ModelError, ProviderError)):
        door.wait_ask(asks())
    with AnswerCacheOf(path) as cache:
        assert len(cache) == 0
    provider = Provider(['{"met": true}'])
    with models(provider, cache=path) as door:
        assert door.wait_ask(asks()).value == {"met": True}


def test_a_kept_answer_that_another_check_refuses_is_a_miss(path):
    provider = Provider(['{"met": true}', '{"met": false}'])
    with models(provider, cache=path) as door:
        door.wait_ask(asks())
        assert door.wait_ask(asks(), lambda value: "" if not value["met"] else "no").value == {"met": False}
    assert len(provider.bodies) == 2


def test_a_repaired_answer_is_kept_under_its_question(path):
    with models(Provider(["?", '{"met": true}']), cache=path) as door:
        door.wait_ask(asks())
    provider = Provider([error(500)])
    with models(provider, cache=path) as door:
        assert door.wait_ask(asks()).value == {"met": True}
    assert provider.bodies == []


def test_the_secret_of_the_fences_stays_with_the_file(path, tmp_path, monkeypatch):
    monkeypatch.delenv("CM2_FENCE_SECRET", raising=False)
    seen = []
    for file in (path, path, str(tmp_path / "other.sqlite")):
        with models(Provider([]), cache=file) as door:
            seen.append(door.secret)
    assert seen[0] == seen[1] != seen[2] and all(len(secret) >= 16 for secret in seen)
    monkeypatch.setenv("CM2_FENCE_SECRET", "mine, for both")
    with models(Provider([]), cache=path) as door:
        assert door.secret == "mine, for both"


# ---- damage


def test_a_row_that_does_not_match_its_checksum_is_a_miss_and_is_asked_again(path):
    with models(Provider(['{"met": true}']), cache=path) as door:
        door.wait_ask(asks())
    with sqlite3.connect(path) as db:
        row = db.execute("SELECT row FROM answers").fetchone()[0]
        db.execute("UPDATE answers SET row = ?", (row.replace(b"true", b"null"),))
    db.close()
    with models(Provider(['{"met": false}']), cache=path) as door:
        assert door.wait_ask(asks()).value == {"met": False}
        assert door.wait_ask(asks()).cached


@pytest.mark.parametrize("row", [b"", b"\x00\xff", b"\x93\xa1a", "text", None])
def test_a_row_of_another_kind_is_a_miss(path, row):
    filled(path, 1)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA ignore_check_constraints = ON")
        db.execute("UPDATE OR IGNORE answers SET row = ?", (row if row is not None else 7,))
    db.close()
    with AnswerCacheOf(path) as cache:
        assert cache.get(key(0)) is None


def test_a_row_under_another_questions_key_is_a_miss(path):
    filled(path, 1)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE answers SET key = ?", (key(1),))
    db.close()
    with AnswerCacheOf(path) as cache:
        assert cache.get(key(1)) is None


@pytest.mark.parametrize("content", [b"this is no database at all, it was overwritten" * 100, os.urandom(5000)])
def test_a_file_that_is_no_database_is_moved_aside_and_said(path, content):
    Path(path).write_bytes(content)
    heard = []
    provider = Provider(['{"met": true}'])
    with models(provider, cache=path, say=heard.append) as door:
        assert door.wait_ask(asks()).value == {"met": True}
        assert door.wait_ask(asks()).cached
    assert len(heard) == 1 and "is damaged" in heard[0] and f"{path}.damaged-1" in heard[0]
    assert Path(f"{path}.damaged-1").read_bytes() == content


def test_a_file_that_breaks_under_way_is_replaced_and_what_can_be_read_is_saved(path):
    filled(path, 400)
    with AnswerCacheOf(path) as cache:
        secret = cache.secret
    size = os.path.getsize(path)
    with open(path, "r+b") as file:  # the second half of the pages is gone
        file.seek(size // 2)
        file.write(b"\xa5" * (size - size // 2))
    heard = []
    with AnswerCacheOf(path, say=heard.append) as cache:
        found = [index for index in range(400) if cache.get(key(index)) is not None]
        assert all(cache.get(key(index)).text == f"answer {index}" * 20 for index in found)
        cache.put(key(1000), Stored("new"))
        assert cache.get(key(1000)).text == "new"
        assert cache.secret == secret
    assert len(heard) == 1 and f"{len(found)} answers could be saved" in heard[0]
    assert 50 < len(found) < 350
    with AnswerCacheOf(path) as cache:
        assert cache.get(key(1000)) is not None


def test_a_file_of_the_user_is_never_moved(tmp_path):
    mine = tmp_path / "dialogues.jsonl"
    mine.write_text('{"a": 1}\n')
    with pytest.raises(ConfigError, match="no cache of answers"):
        AnswerCache(str(mine))
    assert mine.read_text() == '{"a": 1}\n' and list(tmp_path.iterdir()) == [mine]
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE things (a)")
    db.close()
    with pytest.raises(ConfigError, match="not of answers"):
        AnswerCache(str(other))
    with pytest.raises(ConfigError, match="folder"):
        AnswerCache(str(tmp_path))


def test_a_full_disk_is_said_once_and_the_answer_stays_good(path):
    heard = []
    with models(Provider(['{"met": true}']), cache=path, say=heard.append) as door:
        door._cache._db.execute("PRAGMA max_page_count = 1")
        for number in range(60):
            assert door.wait_ask(asks("long " * 400 + str(number))).value == {"met": True}
            door._cache.put(key(number), Stored("x" * 4000))
    assert len([text for text in heard if "cannot be kept" in text]) == 1


# ---- processes


def in_process(code, *args):
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)], env=env, stdout=subprocess.PIPE
    )


ASKING = """
    import sys
    from cm2.llm import Models, ModelsConfig, RoleModel
    from llm.door_cases import asks
    url, path, first, last = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    config = ModelsConfig(default=RoleModel(base_url=url, model="m", backoff=0.01), cache=path)
    with Models(config) as door:
        print(door.secret)
        for number in range(first, last):
            assert door.wait_ask(asks(f"item {number}")).value == {"met": number % 3 == 0}
            print(number, flush=True)
"""


def truth(body, number):
    index = int(body["messages"][0]["content"].split()[-1])
    return says('{"met": %s}' % ("true" if index % 3 == 0 else "false"))


def test_two_processes_share_one_file_from_its_first_moment(path):
    with OpenAIServer(truth) as server:
        running = [in_process(ASKING, server.url, path, first, first + 60) for first in (0, 30)]
        told = [process.communicate(timeout=120)[0].decode().split() for process in running]
        assert [process.returncode for process in running] == [0, 0]
        asked = len(server.requests)
        third = in_process(ASKING, server.url, path, 0, 90)
        secret = third.communicate(timeout=120)[0].decode().split()[0]
        assert third.returncode == 0 and len(server.requests) == asked  # all 90 were there
    assert 90 <= asked <= 120 and told[0][0] == told[1][0] == secret


def test_two_processes_may_find_the_same_damage(path):
    Path(path).write_bytes(b"\x00garbage" * 1000)
    with OpenAIServer(truth) as server:
        running = [in_process(ASKING, server.url, path, first, first + 20) for first in (0, 20)]
        told = [process.communicate(timeout=120)[0].decode().split() for process in running]
        assert [process.returncode for process in running] == [0, 0] and told[0][0] == told[1][0]
    assert len(list(Path(path).parent.glob("*.damaged-?"))) == 1
    with AnswerCacheOf(path) as cache:
        assert len(cache) == 40


def test_killed_at_any_moment_it_loses_at_most_what_was_under_way(path):
    with OpenAIServer(truth) as server:
        done = 0
        for kill_after in (3, 11, 18, 40):
            process = in_process(ASKING, server.url, path, 0, 120)
            assert process.stdout is not None
            process.stdout.readline()
            for _ in range(kill_after):
                done = max(done, int(process.stdout.readline()) + 1)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
        last = in_process(ASKING, server.url, path, 0, 120)
        last.communicate(timeout=120)
        assert last.returncode == 0
        asked = [int(body["messages"][0]["content"].split()[-1]) for body in server.requests]
    assert set(asked) == set(range(120)) and len(asked) <= 120 + 4  # one question under way at each kill


def test_threads_share_one_cache(path):
    with AnswerCacheOf(path) as cache:

        def work(start):
            for index in range(start, start + 50):
                cache.put(key(index), Stored(str(index)))
                assert cache.get(key(index)).text == str(index)

        threads = [threading.Thread(target=work, args=(start,)) for start in (0, 25, 50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(cache) == 100


def test_a_process_that_holds_the_file_for_a_while_is_waited_for(path):
    filled(path, 1)
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    threading.Timer(0.5, lambda: holder.execute("COMMIT")).start()
    started = time.monotonic()
    with AnswerCacheOf(path) as cache:
        cache.put(key(5), Stored("five"))
        assert cache.get(key(5)).text == "five" and time.monotonic() - started > 0.3
    holder.close()


def test_the_file_holds_no_prompt(path):
    with models(Provider(['{"met": true}']), cache=path) as door:
        door.wait_ask(asks("my very private question"))
    found = b"".join(Path(path + ending).read_bytes() for ending in ("", "-wal") if os.path.exists(path + ending))
    assert b"private" not in found and json.dumps({"met": True}).encode() in found


def test_no_secret_gets_into_the_file(path):
    secret = "sk-proj-abcdefghij1234567890ABCD"
    with AnswerCacheOf(path) as cache:
        cache.put(key(1), Stored(f"the key is {secret}."))
        assert cache.get(key(1)).text == "the key is [hidden]."
    found = b"".join(Path(path + ending).read_bytes() for ending in ("", "-wal") if os.path.exists(path + ending))
    assert secret.encode() not in found
