"""Draft: guesses of what a rollout will say next, so that one pass of the model reads several ids of it.

Reading a model's weights takes most of a pass over few rows, and costs the same for one id a row as for five. So the
driver lets the model read guessed ids together with the one that is due and draws as it always does, from the logits
after each: as long as the drawn ids are the guessed ones they have been read already, and what follows the first other
one is taken back. Every id is drawn from its own logits with its own random number, so what is said, and its
log-probabilities, are those of decoding one by one (up to rounding, as with any other batch): guesses decide time only.

Guesses come from counts of what followed the last few ids before: in the dialogues that the tasks were made from, and
in whatever the rollouts of this run have said so far. Nothing is kept from one run to the next, so a run that is
resumed guesses alike.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

ORDERS = (12, 6, 3, 2)
"""How many ids a guess looks back at, the longest that is known first."""
LONGEST = 24
"""Ids of one guess."""
FREE = 9.0
"""How many ids take as long to compute as the weights to read: of fp32 weights on AVX2, measured between 8 and 11."""


class Draft:
    """Counts what follows what, and how often its own guesses were right."""

    def __init__(self) -> None:
        self._followers: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        self._right: Counter[int] = Counter()
        self._tried: Counter[int] = Counter()

    def learn(self, ids: Sequence[int]) -> None:
        """Count a whole dialogue."""
        for end in range(ORDERS[-1] + 1, len(ids) + 1):
            self.heard(ids[max(0, end - ORDERS[0] - 1) : end])

    def heard(self, ids: Sequence[int]) -> None:
        """Count the last id of these after those before it."""
        for order in ORDERS:
            if len(ids) > order:
                self._followers[tuple(ids[-order - 1 : -1])][ids[-1]] += 1

    def guess(self, ids: Sequence[int], most: int, rows: int, stops: Sequence[int] = ()) -> tuple[list[int], list[int]]:
        """Up to `most` ids that probably follow, as long as reading them along pays.

        Args:
            ids: the rollout so far, its last ids at least.
            most: how many at most.
            rows: ids that the pass reads anyhow. An id more takes 1 / (FREE + rows) of it, and saves, if it is right,
                this row's share of another pass.
            stops: ids that are never guessed, because something else than the model goes on after them.

        Returns:
            (ids, the order that each was found with).
        """
        found: list[int] = []
        orders: list[int] = []
        bar, chance = rows / (FREE + rows), 1.0
        past = list(ids[-ORDERS[0] :])
        while len(found) < min(most, LONGEST):
            order, followers = next(
                (
                    (order, followers)
                    for order in ORDERS
                    if len(past) >= order and (followers := self._followers.get(tuple(past[-order:])))
                ),
                (0, None),
            )
            if followers is None:
                break
            token, count = followers.most_common(1)[0]
            chance *= count / followers.total() * (self._right[order] + 3) / (self._tried[order] + 4)
            if chance <= bar or token in stops:
                break
            found.append(token)
            orders.append(order)
            past = [*past[1 - ORDERS[0] :], token]
        return found, orders

    def told(self, order: int, right: bool) -> None:
        """A guess of this order was tried."""
        self._tried[order] += 1
        self._right[order] += right
