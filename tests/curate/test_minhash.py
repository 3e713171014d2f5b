"""MinHash against exact Jaccard, and groups against the comparison of all with all."""

from __future__ import annotations

import random
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm2.curate import minhash
from cm2.curate.minhash import SIZE, band_width, groups, leaders, resemblance, shingles, signature, spread

WORDS = [f"w{number}" for number in range(3000)]


def exact(a: list[str], b: list[str]) -> float:
    """Jaccard of three-word runs, by the book."""

    def runs(words):
        return {tuple(words[at : at + 3]) for at in range(max(1, len(words) - 2))}

    one, other = runs(a), runs(b)
    return len(one & other) / len(one | other)


def spoilt(words: list[str], share: float, draw: random.Random) -> list[str]:
    return [draw.choice(WORDS) if draw.random() < share else word for word in words]


def sign(words: list[str]) -> np.ndarray:
    return signature(shingles([" ".join(words)]))


def test_the_estimate_is_unbiased_and_spreads_as_told():
    draw = random.Random(5)
    errors = []
    for _ in range(400):
        words = [draw.choice(WORDS) for _ in range(draw.randint(20, 300))]
        other = spoilt(words, draw.choice([0.01, 0.05, 0.15]), draw)
        true = exact(words, other)
        if 0.05 < true < 0.98:
            errors.append((float(resemblance(sign(words), sign(other))) - true) / spread(true))
    assert len(errors) > 300
    assert abs(np.mean(errors)) < 0.25 and 0.85 < np.std(errors) < 1.15 and np.max(np.abs(errors)) < 4.5


def test_shingles_are_runs_of_three_words_of_one_text():
    def count(*texts):
        return len(shingles(texts))

    assert count("a b c d e") == 3 and count("a b", "c d") == 2 and count("a b c", "d e f") == 2
    assert count("a b c", "A  B, c!") == 1  # case and punctuation do not count
    assert count("a a a a a") == 1 and count("", "  ", "...") == 0
    assert set(shingles(["a b c", "x"])) == set(shingles(["x", "a b c"]))
    assert count("我想订一张桌子") == 5  # a character is a word where no spaces are written
    assert not signature(shingles([])).any()


def test_bands_are_as_wide_as_the_misses_allow():
    for near in (0.5, 0.7, 0.8, 0.9, 0.95, 1.0):
        width = band_width(near)
        missed = (1 - near**width) ** (SIZE // width)
        assert missed <= 1e-4
        assert width == 32 or (1 - near ** (width + 1)) ** (SIZE // (width + 1)) > 1e-4
    assert [band_width(near) for near in (0.8, 0.5, 0.95)] == [6, 3, 16]


def brute(signatures: np.ndarray, near: float) -> list[set[int]]:
    """Groups by comparing all with all."""
    least = near - 3 * spread(near)
    found = [{n} for n in range(len(signatures))]
    for one, other in combinations(range(len(signatures)), 2):
        if (signatures[one] == signatures[other]).mean() >= least and found[one] is not found[other]:
            found[one] |= found[other]
            for member in found[other]:
                found[member] = found[one]
    return found


def corpus(draw: random.Random, families: int) -> np.ndarray:
    rows = []
    for _ in range(families):
        words = [draw.choice(WORDS) for _ in range(draw.randint(5, 120))]
        for _ in range(draw.randint(1, 6)):
            rows.append(sign(spoilt(words, draw.choice([0, 0.01, 0.02, 0.04, 0.1]), draw)))
            if draw.random() < 0.3:
                words = spoilt(words, 0.03, draw)  # chains: each is near to the one before
    draw.shuffle(rows)
    return np.stack(rows)


@pytest.mark.parametrize("near", [0.6, 0.8, 0.9])
@pytest.mark.parametrize("seed", range(4))
def test_groups_are_those_of_comparing_all_with_all(seed, near):
    signatures = corpus(random.Random(seed), 60)
    wanted, label = brute(signatures, near), groups(signatures, near)
    found = [set(np.flatnonzero(label == label[n]).tolist()) for n in range(len(signatures))]
    assert found == wanted and max(map(len, wanted)) > 2


def test_a_band_that_too_many_share_makes_one_group_of_them(monkeypatch):
    monkeypatch.setattr(minhash, "BIG", 3)
    same = np.arange(SIZE, dtype=np.uint16)
    rows = np.stack([np.where(np.arange(SIZE) < 6, same, same + 1000 * n) for n in range(1, 6)]).astype(np.uint16)
    assert len(set(groups(rows, 0.8).tolist())) == 1  # all agree in the first band only
    monkeypatch.setattr(minhash, "BIG", 100)
    assert len(set(groups(rows, 0.8).tolist())) == 5


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from([0.5, 0.8]))
def test_of_near_texts_the_first_stays_and_no_two_that_stay_are_near(seed, near):
    signatures = corpus(random.Random(seed), 4)
    stays = leaders(signatures, near)
    kept: list[int] = []
    for number, one in enumerate(signatures):
        is_near = any((one == signatures[other]).mean() >= near for other in kept)
        assert stays[number] == (not is_near)
        if not is_near:
            kept.append(number)


def test_nothing_is_fine():
    assert groups(np.zeros((0, SIZE), np.uint16), 0.8).tolist() == []
    assert groups(np.zeros((1, SIZE), np.uint16), 0.8).tolist() == [0]
    assert leaders(np.zeros((0, SIZE), np.uint16), 0.8).tolist() == []
