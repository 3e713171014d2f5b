"""Micro-batches: every row once, none too long where that is possible, and what belongs together together."""

import pytest

pytest.importorskip("trl")
pytestmark = pytest.mark.train

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from cm2.train.micro import cut  # noqa: E402


def test_padded_rows_are_cut_by_the_longest_of_a_part():
    ids = [[0] * n for n in (5, 2, 9, 3, 4)]
    assert cut([0, 1, 2, 3, 4], ids, [0] * 5, 12, packed=False) == [[1, 3, 4], [0], [2]]  # 3 x 4, 2 x 5 + … > 12
    assert cut([2, 0], ids, [0] * 5, 4, packed=False) == [[0], [2]]  # longer than a part: alone


def test_packed_rows_of_a_prompt_stay_together_and_share_what_they_have_in_common():
    ids = [[1, 1, 1, 1, n] for n in (2, 3, 4)] + [[7, 7, 7, 7, n] for n in (2, 3)]
    prompts = [0, 0, 0, 3, 3]
    assert cut([4, 0, 3, 1, 2], ids, prompts, 7, packed=True) == [[0, 1, 2], [3, 4]]  # 4 + 3 and 4 + 2 ids
    assert cut([0, 1, 2, 3, 4], ids, prompts, 13, packed=True) == [[0, 1, 2, 3, 4]]
    assert cut([0, 1, 2], ids, prompts, 6, packed=True) == [[0, 1], [2]]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(0, 2), min_size=1, max_size=8)), min_size=1, max_size=9),
    st.integers(1, 40),
    st.booleans(),
)
def test_every_row_is_in_one_part_and_only_a_row_alone_is_too_long(made, most, packed):
    from cm2.train.prefix import packed_size

    prompts, ids = [prompt for prompt, _ in made], [[90 + prompt, *own] for prompt, own in made]
    parts = cut(list(range(len(ids))), ids, prompts, most, packed)
    assert sorted(row for part in parts for row in part) == list(range(len(ids)))
    for part in parts:
        rows = [ids[row] for row in part]
        size = packed_size(rows) if packed else len(rows) * max(map(len, rows))
        assert size <= most or len(part) == 1
