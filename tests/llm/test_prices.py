"""Prices: by name, the user's before the package's, and what nobody knows is not free."""

from __future__ import annotations

import pytest

from cm2.errors import ConfigError
from cm2.llm.config import Price
from cm2.llm.prices import Prices
from llm.door_cases import role


def test_the_cost_by_hand():
    price = Price(input=2.0, output=10.0, cached=0.5)
    assert price.cost(1_000_000, 0, 0) == 2.0 and price.cost(0, 0, 1_000_000) == 10.0
    assert price.cost(1_000_000, 600_000, 100_000) == pytest.approx(0.4 * 2 + 0.6 * 0.5 + 0.1 * 10)
    assert Price(input=2.0, output=1.0).cost(1_000_000, 500_000, 0) == 2.0
    assert price.cost(10, 99, 0) == price.cost(10, 10, 0)  # more cached than there was


def test_the_users_file_comes_before_the_package(tmp_path):
    mine = tmp_path / "prices.yaml"
    lines = ("gpt-5: {input: 1, output: 2}", "local-*: {input: 0, output: 0}", "local-big*: {input: 3, output: 4}")
    mine.write_text("models:\n" + "".join(f"  {line}\n" for line in lines))
    prices = Prices(str(mine))
    assert prices.of(role(model="gpt-5")) == Price(1, 2)
    assert prices.of(role(model="local-7b")) == Price(0, 0) and prices.of(role(model="local-big-70b")) == Price(3, 4)
    assert prices.of(role(model="gpt-5-mini")) == Prices().of(role(model="gpt-5-mini")) == Price(0.25, 2, 0.025)
    assert prices.of(role(model="gpt-5", price=Price(7, 7))) == Price(7, 7)


def test_a_date_at_the_end_of_a_name_is_looked_past_but_another_name_is_not():
    prices = Prices()
    assert prices.of(role(model="gpt-4o-mini-2024-07-18")) == Price(0.15, 0.6, 0.075)
    assert prices.of(role(model="claude-sonnet-4-5-20250929")) == prices.of(role(model="claude-sonnet-4-5"))
    for unknown in ("gpt-5-ultra", "my-gpt-5", "Qwen/Qwen3-32B", ""):
        assert prices.of(role(model=unknown)) is None


def test_every_shipped_price_is_plausible():
    from cm2.llm.prices import _shipped

    for name, price in _shipped().items():
        assert 0 < (price.cached or price.input) <= price.input < price.output < 1000, name


@pytest.mark.parametrize(
    "text", ["- a", "models: {m: {input: -1, output: 1}}", "models: {m: {input: 1}}", "model: {}", "a: ["]
)
def test_a_wrong_file_is_a_clear_error(tmp_path, text):
    mine = tmp_path / "prices.yaml"
    mine.write_text(text)
    with pytest.raises(ConfigError, match=r"prices.yaml: is no file of prices"):
        Prices(str(mine))
    with pytest.raises(ConfigError, match="cannot be read"):
        Prices(str(tmp_path / "absent.yaml"))
