"""The decoder behind the endpoint: the same tokens as training's driver, whoever else is being served."""

from __future__ import annotations

import asyncio
from itertools import takewhile
from typing import Any

import pytest

from cm2.rollout.decode import LlamaEngine, LlamaWeights
from cm2.rollout.sampling import Sampling, draw, uniforms
from cm2.serve.backend import Piece, Want
from cm2.serve.local import Local
from cm2.serve.refusal import Refusal
from cm2.serve.writing import Stream
from serve.endpoints import local, tiny


def prompt(text: str) -> list[int]:
    return tiny()[1].encode(f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n")


def want(text: str = "hello", tokens: int = 12, **changes: Any) -> Want:
    sampling = Sampling(temperature=changes.pop("temperature", 0.0), seed=changes.pop("seed", 0))
    return Want(ids=changes.pop("ids", None) or prompt(text), sampling=sampling, max_tokens=tokens, **changes)


def decode(*wants: Want, backend: Local | None = None, **settings: Any) -> list[list[list[Piece]]]:
    """Pieces by request and choice, all requests at once."""

    async def one(backend: Local, asked: Want) -> list[list[Piece]]:
        found: list[list[Piece]] = [[] for _ in range(asked.choices)]
        async for piece in backend.generate(asked):
            found[piece.choice].append(piece)
        return found

    async def run() -> list[list[list[Piece]]]:
        backend = local(**settings)
        await backend.open()
        try:
            return list(await asyncio.gather(*(one(backend, asked) for asked in wants)))
        finally:
            await backend.close()

    return asyncio.run(run())


def ids(pieces: list[Piece]) -> list[int]:
    return [id for piece in pieces for id in piece.ids]


def text(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def alone(asked: Want, choice: int = 0) -> list[int]:
    """A literal second implementation: the whole sequence read anew for every token, one request, no cache."""
    import numpy as np
    import torch

    model, template = tiny()
    weights = LlamaWeights(model)
    found: list[int] = []
    while len(found) < asked.max_tokens and not (found and found[-1] in template.stop_ids):
        with torch.inference_mode():
            _, logits = LlamaEngine(weights).start([asked.ids + found])
            number = uniforms(asked.sampling.seed, np.array([choice]), np.array([len(found)]))
            (token,), _ = draw(logits, number, asked.sampling)
        found.append(token)
    return found


def test_greedy_tokens_are_those_of_reading_the_whole_text_each_time() -> None:
    asked = [want("hello"), want("a rather longer question " * 12, 3), want("x", 5)]
    for pieces, expected in zip(decode(*asked), map(alone, asked), strict=True):
        assert ids(pieces[0]) == expected


def test_sampled_tokens_depend_on_the_seed_and_on_nobody_else() -> None:
    asked = want("hello", temperature=1.0, seed=7)
    (only,) = decode(asked)
    together = decode(want("other", temperature=0.5, seed=1), asked, want("third", temperature=0.0))
    assert ids(together[1][0]) == ids(only[0]) == alone(asked)
    (other,) = decode(want("hello", temperature=1.0, seed=8))
    assert ids(other[0]) != ids(only[0])


def test_choices_share_a_prompt_and_draw_each_their_own() -> None:
    asked = want("hello", temperature=1.0, seed=3, choices=3)
    (choices,) = decode(asked)
    assert [ids(pieces) for pieces in choices] == [alone(asked, i) for i in range(3)]
    assert len({tuple(ids(pieces)) for pieces in choices}) == 3


def test_more_requests_than_slots_are_all_answered() -> None:
    asked = [want(f"question {i}", 6) for i in range(9)]
    for pieces, expected in zip(decode(*asked, slots=2), map(alone, asked), strict=True):
        assert ids(pieces[0]) == expected


@pytest.mark.parametrize("settings", [{"workers": 2}, {"lean": False}])
def test_two_workers_and_the_generic_engine_decode_the_same(settings: dict[str, Any]) -> None:
    asked = [want("hello"), want("a longer question " * 5, 7), want("x", 5, choices=2)]
    found = decode(*asked, **settings)
    expected = decode(*asked)
    if "lean" not in settings:  # the generic engine multiplies in another order: a near tie may fall the other way
        assert [[ids(p) for p in one] for one in found] == [[ids(p) for p in one] for one in expected]
    assert [[len(ids(p)) for p in one] for one in found] == [[len(ids(p)) for p in one] for one in expected]
    assert [ids(p)[0] for (p, *_) in found] == [ids(p)[0] for (p, *_) in expected]


def test_the_next_turn_reads_only_what_is_new() -> None:
    async def talk() -> tuple[list[int], list[Piece]]:
        backend = local()
        await backend.open()
        try:
            first = want("a question of some length, so that it is worth keeping", 8)
            said = [piece async for piece in backend.generate(first)]
            longer = want(ids=[*first.ids, *ids(said), *prompt("and then?")], tokens=8)
            return longer.ids, [piece async for piece in backend.generate(longer)]
        finally:
            await backend.close()

    longer, pieces = asyncio.run(talk())
    assert pieces[0].cached == len(longer) - len(prompt("and then?")) - 1  # the last sampled token was never read
    assert ids(pieces) == alone(want(ids=longer, tokens=8))


def test_conversations_with_the_same_beginning_share_it_from_the_second_on() -> None:
    beginning = "You serve coffee, and these are the rules of the house that everybody has to follow. "

    async def talk() -> list[tuple[int, list[int]]]:
        backend = local()
        await backend.open()
        try:
            found = []
            for question in ("one", "two", "three"):
                pieces = [piece async for piece in backend.generate(want(beginning + question, 6))]
                found.append((pieces[0].cached, ids(pieces)))
            return found
        finally:
            await backend.close()

    found = asyncio.run(talk())
    pairs = zip(prompt(beginning + "one"), prompt(beginning + "two"), strict=True)
    shared = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
    assert [cached for cached, _ in found] == [0, 0, shared]
    for (_, said), question in zip(found, ("one", "two", "three"), strict=True):
        assert said == alone(want(beginning + question, 6))


def test_kept_rows_stay_within_their_room_and_none_is_kept_where_there_is_none() -> None:
    async def talk(room: int) -> tuple[int, int]:
        backend = local(prefix_tokens=room)
        await backend.open()
        try:
            for i in range(6):
                async for _ in backend.generate(want(f"{i} a question that is long enough to be kept", 4)):
                    pass
            prefixes = backend.workers[0].prefixes
            return sum(len(kept.ids) for kept in prefixes.kept), len(prefixes.kept)
        finally:
            await backend.close()

    tokens, rows = asyncio.run(talk(200))
    assert 0 < tokens <= 200 and rows
    assert asyncio.run(talk(0)) == (0, 0)


def test_a_stop_text_ends_the_answer_and_is_no_part_of_it() -> None:
    (pieces,) = decode(want("hello", 40, temperature=1.0, seed=5))
    said = text(pieces[0])
    stop = said[6:9]
    (cut,) = decode(want("hello", 40, temperature=1.0, seed=5, stop=["never said", stop]))
    assert text(cut[0]) == said[: said.index(stop)] and cut[0][-1].finish == "stop"
    assert len(ids(cut[0])) < len(ids(pieces[0]))


def test_an_answer_ends_at_its_limit_and_at_the_models() -> None:
    (pieces,) = decode(want("hello", 5))
    assert len(ids(pieces[0])) == 5 and pieces[0][-1].finish == "length"
    asked = want("hello", 10_000, temperature=1.0)
    (pieces,) = decode(asked, context=len(asked.ids) + 7)
    assert len(ids(pieces[0])) <= 7 and pieces[0][-1].finish is not None


def test_log_probabilities_are_the_models_own_whatever_the_temperature() -> None:
    import torch

    asked = want("hello", 4, temperature=0.5, seed=2, logprobs=3)
    (pieces,) = decode(asked)
    model, _ = tiny()
    said = ids(pieces[0])
    with torch.no_grad():
        logits = model(torch.tensor([asked.ids + said])).logits[0].log_softmax(-1)
    for i, chance in enumerate(piece.chances[0] for piece in pieces[0]):
        line = logits[len(asked.ids) - 1 + i]
        assert chance.id == said[i] and chance.logprob == pytest.approx(float(line[chance.id]), abs=0.15)
        assert len(chance.top) == 3 and chance.top[0][1] >= chance.logprob


def test_whoever_stops_listening_frees_the_slot() -> None:
    async def leave() -> list[int]:
        backend = local(slots=1)
        await backend.open()
        try:
            pieces = backend.generate(want("hello", 2000, temperature=1.0))
            await anext(pieces)
            await pieces.aclose()
            return ids([piece async for piece in backend.generate(want("next", 4))])
        finally:
            await backend.close()

    assert asyncio.run(leave()) == alone(want("next", 4))


def test_a_failure_is_told_to_those_it_hit_and_the_next_one_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> list[int]:
        backend = local()
        await backend.open()
        broken = backend.workers[0].engine
        try:
            monkeypatch.setattr(broken, "start", lambda prompts: (_ for _ in ()).throw(MemoryError("full")))
            with pytest.raises(Refusal, match="MemoryError: full") as refused:
                async for _ in backend.generate(want("hello")):
                    pass
            assert refused.value.status == 500
            return ids([piece async for piece in backend.generate(want("hello"))])
        finally:
            await backend.close()

    assert asyncio.run(run()) == alone(want("hello"))


@pytest.mark.parametrize("said", ["héllo → 😀!", "plain", "日本語"])
def test_text_is_told_whole_characters_at_a_time(said: str) -> None:
    template = tiny()[1]
    stream = Stream(template)
    told = [stream.add(id) for id in template.encode(said)]
    assert "".join(told) + stream.rest() == said and "�" not in "".join(told)


def test_half_a_character_at_the_end_is_told_at_the_end() -> None:
    template = tiny()[1]
    stream = Stream(template)
    half = template.encode("a😀")[:-2]
    assert "".join(stream.add(id) for id in half) + stream.rest() == template.decode(half)
