"""A dry run counts calls, tokens and money, stage by stage, and neither asks nor writes anything."""

from __future__ import annotations

import asyncio
import io

import pytest
from rich.console import Console

from cm2.cli.models import spending_table
from cm2.errors import ConfigError
from cm2.llm.tokens import Counter, counter_of, estimate, size
from llm.door_cases import Provider, asks, models, role, said

PLAN = {"met": True}


def refuse(body, request):
    raise AssertionError("a dry run asks nothing")


def tokenizer_file(folder):
    """A tokenizer that makes a token of every word."""
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.save(str(folder / "tokenizer.json"))
    return folder


def test_calls_tokens_and_money_are_counted_by_stage(tmp_path):
    settings = {"price": {"input": 10, "output": 100}, "max_tokens": 500, "tokenizer": str(tokenizer_file(tmp_path))}
    with models(Provider(refuse), settings, dry=True) as door:
        for number in range(3):
            answer = door.wait_ask(asks(f"one two three {number}", planned=PLAN, stage="turns"))
            assert answer.value == PLAN and answer.usage.calls == 0
        door.wait_ask(asks("a b", planned="five words are planned here", schema=None, stage="texts"))
    turns, texts = door.planned.stages["turns"], door.planned.stages["texts"]
    assert (turns.calls, turns.prompt_tokens, turns.completion_tokens) == (
        3,
        3 * (4 + 4 + 4),
        3,
    )  # {"met":true}: one word
    assert (texts.calls, texts.prompt_tokens, texts.completion_tokens) == (1, 2 + 4 + 4, 5)
    assert turns.cost == pytest.approx(3 * (12 * 10 + 1 * 100) / 1e6)
    assert turns.most == pytest.approx(3 * (12 * 10 + 500 * 100) / 1e6)
    assert door.planned.calls == 4 and door.spent.calls == 0 and door.planned.notes == []


def test_what_is_in_the_cache_or_was_planned_before_is_free(tmp_path):
    cache = str(tmp_path / "c.sqlite")
    with models(Provider(['{"met": false}']), cache=cache) as door:
        door.wait_ask(asks("known"))
    with models(Provider(refuse), cache=cache, dry=True) as door:
        assert door.wait_ask(asks("known", planned=PLAN)).value == {"met": False}  # what is known is better than a plan
        for _ in range(3):
            assert door.wait_ask(asks("new", planned=PLAN)).value == PLAN
    stage = door.planned.stages["judge"]
    assert (stage.calls, stage.answers, stage.reused) == (1, 4, 3)


def test_it_makes_no_file_and_asks_for_no_price(tmp_path):
    cache, log = tmp_path / "c.sqlite", tmp_path / "log.jsonl"
    settings = {"price": None}
    with models(Provider(refuse), settings, cache=str(cache), log=str(log), budget=1.0, dry=True) as door:
        door.wait_ask(asks(planned=PLAN))
    assert list(tmp_path.iterdir()) == []
    assert door.planned.total.money == "unknown"
    assert any("no price of m is known" in note for note in door.planned.notes)


def test_its_prompts_are_those_of_the_run_that_follows(tmp_path, monkeypatch):
    monkeypatch.delenv("CM2_FENCE_SECRET", raising=False)
    cache = str(tmp_path / "c.sqlite")
    with models(Provider([]), cache=cache) as door:
        secret = door.secret
    with models(Provider(refuse), cache=cache, dry=True) as door:
        assert door.secret == secret


def test_the_plan_is_what_the_run_then_does(tmp_path):
    questions = [asks(f"item {number % 30}", planned=PLAN, stage=f"s{number % 2}") for number in range(50)]
    with models(Provider(refuse), dry=True) as plan:
        for question in questions:
            plan.wait_ask(question)
    provider = Provider([said('{"met": true}', prompt=17, answer=5)])
    with models(provider, cache=str(tmp_path / "c.sqlite")) as door:

        async def everything():
            await asyncio.gather(*map(door.ask, questions))

        asyncio.run(everything())
    assert len(provider.bodies) == plan.planned.calls == door.spent.calls == 30
    for name in ("s0", "s1"):
        assert plan.planned.stages[name].calls == door.spent.stages[name].calls
        assert plan.planned.stages[name].reused == door.spent.stages[name].reused


def test_a_missing_limit_of_answers_and_an_estimate_are_said():
    with models(Provider(refuse), dry=True) as door:
        door.wait_ask(asks(planned=PLAN))
    assert any("max_tokens" in note for note in door.planned.notes)
    assert any("estimated" in note for note in door.planned.notes)


def test_the_table_shows_stages_and_money():
    with models(Provider(refuse), {"max_tokens": 10**6}, dry=True) as door:
        door.wait_ask(asks("x " * 3000, planned=PLAN, stage="judging"))
        table = spending_table(door)
    text = io.StringIO()
    Console(file=text, width=160).print(table)
    assert "planned, nothing was asked" in text.getvalue() and "judging" in text.getvalue()
    assert "0.0020 … 2.00" in text.getvalue()


def test_a_tokenizer_counts_really_and_an_estimate_is_high(shared_data):
    import gzip
    import json

    from cm2.train.embedded import cache_dir

    found = sorted(cache_dir().glob("smollm2-*/tokenizer.json"))
    if not found:
        pytest.skip("the embedded model was not converted here")
    exact = counter_of(role(tokenizer=str(found[0])))
    with gzip.open(shared_data / "star_train.jsonl.gz", "rt") as file:
        rows = [json.loads(next(file)) for _ in range(20)]
    for row in rows:
        messages = [{"role": "user", "content": json.dumps(row)}]
        real = exact.messages(messages)
        assert 0.8 * real < Counter().messages(messages) < 1.4 * real and real <= size(messages)


def test_a_tokenizer_that_is_none_is_a_clear_error(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    pytest.importorskip("tokenizers")
    for path in (tmp_path, tmp_path / "absent.json"):
        with pytest.raises(ConfigError, match="is no tokenizer file"):
            counter_of(role(tokenizer=str(path)))
    assert counter_of(role(model=str(tmp_path / "nothing"))) == Counter()


def test_a_model_that_is_a_folder_is_counted_by_its_own_tokenizer(tmp_path):
    assert counter_of(role(model=str(tokenizer_file(tmp_path)))).exact


def test_estimates_by_hand():
    assert [estimate(number) for number in (0, 1, 3, 4, 3000)] == [0, 1, 1, 2, 1000]
    assert Counter().text("é" * 3) == 2 and Counter().messages([{"role": "user", "content": "abc"}]) == 1 + 4 + 4
