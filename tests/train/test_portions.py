"""Which rows each process trains: together all of them, mini-batch by mini-batch those of one process."""

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.train

from cm2.train.portions import dealt, evened  # noqa: E402
from cm2.train.processes import Processes  # noqa: E402
from cm2.train.roll import Row  # noqa: E402


class Pretended(Processes):
    """One of several processes whose others are known beforehand."""

    def __init__(self, rank, everyone):
        super().__init__(rank, len(everyone))
        self.everyone = everyone

    def every(self, value):
        assert value == self.everyone[self.rank]
        return self.everyone

    def lead(self, work):
        torch.manual_seed(5)
        return work()


def made(numbers):
    return [Row([number], [number]) for number in numbers]


@pytest.mark.parametrize("ranks", [2, 3, 4])
@pytest.mark.parametrize("mini_batches", [2, 3])
def test_every_mini_batch_is_the_one_of_a_single_process(ranks, mini_batches):
    rows = made(range(72))
    share = 72 // ranks
    everyone = [rows[rank * share : (rank + 1) * share] for rank in range(ranks)]
    torch.manual_seed(5)
    order = torch.randperm(72).tolist()  # what TRL's shuffle draws where one process has all rows
    size = 72 // mini_batches
    wanted = [[rows[i].prompt for i in order[start : start + size]] for start in range(0, 72, size)]
    parts = [dealt(everyone[rank], mini_batches, Pretended(rank, everyone)) for rank in range(ranks)]
    own = size // ranks
    for number, one in enumerate(wanted):
        assert [row.prompt for part in parts for row in part[number * own : (number + 1) * own]] == one


def test_rows_stay_where_they_were_rolled_without_mini_batches():
    rows = made(range(4))
    assert dealt(rows, 1, Pretended(0, [rows, made(range(4, 8))])) is rows
    assert dealt(rows, 2, Processes()) is rows


def test_a_process_with_fewer_micro_batches_adds_some_that_have_no_loss():
    ids = torch.arange(6).reshape(2, 3)
    part = {"completion_ids": ids, "completion_mask": torch.ones(2, 3), "tool_mask": torch.ones(2, 3), "all": 7}
    found = evened([(part, 0.5)], Pretended(1, [3, 1]))
    assert [weight for _, weight in found] == [0.0, 0.0, 0.5]
    added = found[0][0]
    assert added["completion_ids"].tolist() == [[0, 1, 2]] and not added["tool_mask"].any() and added["all"] == 7
    assert found[-1][0] is part
    assert evened([(part, 0.5)] * 3, Pretended(0, [3, 1])) == [(part, 0.5)] * 3
