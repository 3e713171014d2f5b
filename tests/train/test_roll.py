"""Groups: one world, hopeless ones stopped early, failures left out, and rows that hold exactly the sampled ids."""

import pytest

pytest.importorskip("transformers")
pytestmark = pytest.mark.train

from cm2.credit import Credit  # noqa: E402
from cm2.dialogue import Step  # noqa: E402
from cm2.rollout.agents import reference_step  # noqa: E402
from cm2.rollout.environment import Environment  # noqa: E402
from cm2.rollout.trace import Segment  # noqa: E402
from cm2.train.roll import Roller, credit_group, rows_of, summary_of  # noqa: E402
from rollout.coffee_task import task  # noqa: E402


class Scripted:
    """Stands in the driver's place: each member replays the reference up to as many steps as `steps` says."""

    def __init__(self, steps, failing=()):
        self.steps, self.failing, self.runs = list(steps), set(failing), []

    def run(self, environments, groups, seeds):
        self.runs.append(len(environments))
        return [self._one(e, group, seed) for e, group, seed in zip(environments, groups, seeds, strict=True)]

    def _one(self, environment: Environment, group, seed):
        count, segments = self.steps.pop(0), []
        if len(self.steps) in self.failing:
            environment.fail("simulator", "broken")
        while not environment.done:
            turn, at = environment.turn, len(environment.dialogue.turns[environment.turn].steps)
            token = 10 * turn + at
            segments.append(Segment(turn, at, [token, token], [-0.5, -0.25], [1, 2] if segments else [7, 8, 9]))
            step = reference_step(environment) if len(segments) <= count else Step(reply="I give up.")
            environment.feed(step, tokens=2)
        rollout = environment.record(group=group, seed=seed, segments=segments)
        rollout.generated_tokens = 2 * len(segments)
        return rollout


def roller(steps, group, probe=None, failing=()):
    return Roller(Scripted(steps, failing), Credit(), group=group, probe=probe)


def test_a_group_whose_probes_earn_the_same_is_not_run_to_its_end():
    ours = roller([9, 9, 0, 9, 0, 9], group=4, probe=2)
    same, differing = ours.roll([task(), task()], seed=1)
    assert [len(same), len(differing)] == [2, 4]
    assert ours.driver.runs == [4, 2]
    assert [one.member for one in differing] == [0, 1, 2, 3]


def test_probes_that_failed_say_nothing_so_the_rest_is_run():
    ours = roller([9, 9, 0, 9], group=4, probe=2, failing=(3,))
    (group,) = ours.roll([task()], seed=1)
    assert len(group) == 4 and not group[0].valid


def test_rows_hold_what_was_read_and_train_only_what_was_sampled():
    (group,) = roller([9, 0], group=2).roll([task()], seed=1)
    rows, given = rows_of(group, Credit())
    whole, poor = rows
    assert whole.prompt == poor.prompt == [7, 8, 9]
    assert whole.completion == [0, 0, 1, 2, 1, 1, 1, 2, 2, 2, 1, 2, 3, 3, 1, 2, 4, 4, 1, 2, 10, 10, 1, 2, 11, 11]
    assert whole.mask == [1, 1] + [0, 0, 1, 1] * 6
    assert whole.logprobs == [-0.5, -0.25] + [0, 0, -0.5, -0.25] * 6
    assert poor.completion == [0, 0] and poor.reward == 0
    # R is 1 and 0, the mean 1/2: every sampled token of the one has 1/2, of the other -1/2
    assert whole.advantages == [0.5, 0.5] + [0, 0, 0.5, 0.5] * 6 and poor.advantages == [-0.5, -0.5]
    assert given.trained == [True, True]


def test_a_failed_rollout_leaves_statistics_and_loss():
    (group,) = roller([9, 9, 0], group=3, failing=(2,)).roll([task()], seed=1)
    rows, given = rows_of(group, Credit())
    assert [one.valid for one in group] == [False, True, True] and given.trained == [False, True, True]
    assert rows[0].reward is None and not any(rows[0].mask)
    assert sorted({value for row in rows for value in row.advantages if value}) == [-0.5, 0.5]
    numbers = summary_of([group], [rows], 3)
    assert numbers["failures"] == 1 and numbers["reward"] == 0.5 and numbers["rollouts"] == 3


def test_a_group_of_which_only_one_counts_teaches_nothing():
    (group,) = roller([9, 9], group=2, failing=(1,)).roll([task()], seed=1)
    assert not credit_group(group, Credit()).signal
    numbers = summary_of([group], [rows_of(group, Credit())[0]], 2)
    assert numbers["groups_without_signal"] == 1


@pytest.mark.parametrize("level", ["trajectory", "turn", "step"])
def test_every_level_gives_every_sampled_token_a_number_and_no_other_token_one(level):
    (group,) = roller([9, 2, 4], group=3).roll([task()], seed=1)
    for row in rows_of(group, Credit(level=level))[0]:
        assert len(row.advantages) == len(row.mask) == len(row.completion) == len(row.logprobs)
        assert all(value == 0 for value, sampled in zip(row.advantages, row.mask, strict=True) if not sampled)
        assert any(row.advantages)


def test_the_seed_decides_worlds_and_draws():
    seeds = []
    for seed in (1, 1, 2):
        ours = roller([9] * 4, group=2)
        groups = ours.roll([task(), task()], seed)
        seeds.append([one.seed for group in groups for one in group])
    assert seeds[0] == seeds[1] != seeds[2] and len(set(seeds[0])) == 4
