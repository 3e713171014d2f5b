"""Threads: measured once, kept in the run folder, and more of them only where they are worth it."""

import msgspec
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.train

from cm2.errors import ConfigError  # noqa: E402
from cm2.train import settings, threads  # noqa: E402
from cm2.train.rl import RlConfig  # noqa: E402


@pytest.fixture(autouse=True)
def as_before():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("one", "two", "chosen"), [(1.0, 0.6, 2), (1.0, 0.95, 1), (1.0, 3.0, 1)])
def test_more_threads_are_taken_only_where_they_are_clearly_faster(tmp_path, one, two, chosen):
    assert threads.settle("auto", tmp_path, {1: one, 2: two}.__getitem__) == chosen == torch.get_num_threads()
    kept = msgspec.json.decode((tmp_path / "threads.json").read_bytes())
    assert kept == {"threads": chosen, "seconds": {"1": one, "2": two}}


def test_a_resumed_run_takes_the_choice_that_was_made_and_measures_nothing(tmp_path):
    threads.settle("auto", tmp_path, {1: 1.0, 2: 3.0}.__getitem__)
    torch.set_num_threads(2)

    def measured(_):
        raise AssertionError("measured again")

    assert threads.settle("auto", tmp_path, measured) == 1


def test_a_number_is_taken_as_it_is_and_nothing_is_left_to_torch(tmp_path):
    assert threads.settle(None, tmp_path) == 2 and threads.settle(1, tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_measurement_leaves_the_threads_as_they_were():
    assert threads.seconds(1) > 0 and torch.get_num_threads() == 2


def test_the_setting_is_a_number_from_one_or_auto():
    base = {"input": "a", "output": "b"}
    assert settings.check(RlConfig, base | {"threads": "auto"}).threads == "auto"
    for wrong in (0, "all"):
        with pytest.raises(ConfigError, match="threads"):
            settings.check(RlConfig, base | {"threads": wrong})
