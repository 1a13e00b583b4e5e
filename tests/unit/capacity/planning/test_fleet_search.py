"""Integer programs against counting everything, and the search against looking at every fleet there is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import pytest

from capacity.planning.fleet_search import Counts, Search, Stock, Verdict
from capacity.planning.integer_program import Option, cheaper_fleets, cheapest, least_cost
from capacity.simulation.least_outstanding import OutstandingCounts


def options_of(seed: int) -> list[Option]:
    """Three kinds whose pools carry more than the sum of their instances."""
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(3):
        ceiling, price = float(draw.uniform(50, 200)), float(draw.uniform(0.1, 1.0))
        curve = tuple((k, k * ceiling * (1 - 0.5 / math.sqrt(k))) for k in (1, 2, 4, 8))
        made.append(Option(price, curve, ceiling, (float(draw.uniform(0, 0.08)),), int(draw.integers(3, 12))))
    return made


def carried(option: Option, count: int) -> float:
    return max((rate / k * count for k, rate in option.curve if k <= count), default=0.0)


def every_fleet(options: list[Option], most: int = 12) -> list[Counts]:
    return list(product(*(range(min(most, option.limit or most) + 1) for option in options)))


def price_of(options: list[Option], counts: Counts) -> float:
    return sum(option.price * count for option, count in zip(options, counts, strict=True))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("survive", [0, 1])
def test_the_program_finds_the_cheapest_counts_within_the_limits(seed: int, survive: int) -> None:
    options, required = options_of(seed), 700.0

    def holds(counts: Counts) -> bool:
        total = sum(carried(option, count) for option, count in zip(options, counts, strict=True))
        lost = [
            max(carried(option, k) / k for k in range(1, count + 1)) * min(survive, count)
            for option, count in zip(options, counts, strict=True)
            if count
        ]
        return total - max(lost, default=0.0) >= required * (1 - 1e-6)

    standing = [counts for counts in every_fleet(options) if holds(counts)]
    found = cheapest(options, required, survive)

    if not standing:
        assert found is None
        return
    best = min(price_of(options, counts) for counts in standing)
    assert found is not None
    assert found.cost == pytest.approx(price_of(options, found.counts))
    # What each instance loses is bounded by its best pool, so survival may ask for a little more than it must.
    assert best * (1 - 2e-4) <= found.cost
    if survive == 0:
        assert found.cost <= best * (1 + 2e-4)
        assert holds(found.counts)
    assert found.bound <= found.cost
    assert found.gap <= 1e-3


@pytest.mark.parametrize("seed", range(12))
def test_no_fleet_costs_less_than_the_bound_by_capacity(seed: int) -> None:
    options, required, allowed = options_of(seed), 700.0, (0.04,)

    def may_hold(counts: Counts) -> bool:
        """Requests go where they are least often late, as far as capacity goes."""
        left, late = required, 0.0
        for option, count in sorted(zip(options, counts, strict=True), key=lambda pair: pair[0].over[0]):
            here = min(left, option.ceiling * count)
            left, late = left - here, late + here * option.over[0]
        return left <= 1e-9 and late <= allowed[0] * required

    possible = [price_of(options, counts) for counts in every_fleet(options) if may_hold(counts)]
    bound = least_cost(options, required, allowed)

    assert bound == pytest.approx(min(possible, default=math.inf), rel=2e-4)
    assert least_cost(options, required, allowed, with_option=2) >= bound * (1 - 1e-6)
    assert least_cost(options, required, allowed, survive=1) >= bound * (1 - 1e-6)


def test_cheaper_fleets_are_all_of_them_in_the_order_of_their_price() -> None:
    options, required, below = options_of(3), 500.0, 3.0

    listed = cheaper_fleets(options, required, below, 10_000)

    expected = {
        counts
        for counts in every_fleet(options, most=40)
        if price_of(options, counts) < below
        and sum(option.ceiling * count for option, count in zip(options, counts, strict=True)) >= required
    }
    assert listed is not None
    assert {counts for _cost, counts in listed} == expected
    assert [cost for cost, _counts in listed] == sorted(cost for cost, _counts in listed)
    assert cheaper_fleets(options, required, below, len(expected) - 1) is None


@dataclass
class Formula:
    """Pools by a formula where capacity is not additive: of its ceiling each pool of n carries 1 - loss / sqrt(n)."""

    ceilings: tuple[float, ...]
    loss: float = 0.6
    asked: list[Counts] = field(default_factory=list)
    allowed: tuple[float, ...] = (0.1,)
    pooled: bool = True

    def verdict(self, counts: Counts, rate: float) -> Verdict:
        self.asked.append(counts)
        return Verdict(rate <= self._carries(counts), ((90.0, 1.0),))

    def _carries(self, counts: Counts) -> float:
        size = sum(counts)
        total = sum(count * ceiling for count, ceiling in zip(counts, self.ceilings, strict=True))
        return total * (1 - self.loss / math.sqrt(size)) if size else 0.0

    def highest(self, option: int, count: int) -> float:
        return self._carries(tuple(count if at == option else 0 for at in range(len(self.ceilings))))

    def ceiling(self, option: int) -> float:
        return self.ceilings[option]

    def over(self, option: int) -> tuple[float, ...]:
        return (0.0,)


@pytest.mark.parametrize("survive", [0, 1])
@pytest.mark.parametrize("seed", range(15))
def test_the_search_finds_the_cheapest_fleet_there_is(seed: int, survive: int) -> None:
    draw = np.random.default_rng(seed)
    ceilings = tuple(float(value) for value in draw.uniform(40, 160, 3))
    stock = [Stock(f"kind {n}", float(ceiling * draw.uniform(0.8, 1.2)) / 100) for n, ceiling in enumerate(ceilings)]
    rate = float(draw.uniform(100, 600))
    search = Search(stock, Formula(ceilings), survive)
    found = search.plan(rate)

    prices = [option.price for option in stock]
    best = min(
        sum(price * count for price, count in zip(prices, counts, strict=True))
        for counts in product(range(14), repeat=3)
        if any(counts) and Search(stock, Formula(ceilings), survive).stands(counts, rate)
    )
    assert found is not None
    assert search.stands(found.counts, rate)
    assert found.cost <= best * 1.02
    assert found.least <= best * (1 + 1e-6)


def test_any_instance_may_be_lost() -> None:
    ceilings = (100.0, 60.0)
    search = Search([Stock("large", 1.0), Stock("small", 0.55)], Formula(ceilings), survive=1)
    found = search.plan(400)

    assert found is not None
    for number, count in enumerate(found.counts):
        if count:
            left = tuple(c - (at == number) for at, c in enumerate(found.counts))
            assert Formula(ceilings).verdict(left, 400).holds
    calm = Search([Stock("large", 1.0), Stock("small", 0.55)], Formula(ceilings)).plan(400)
    assert calm is not None
    assert calm.cost < found.cost


def test_a_limit_is_kept_and_what_it_forbids_is_said() -> None:
    stock = [Stock("cheap", 0.5, limit=2), Stock("dear", 1.0)]
    found = Search(stock, Formula((100.0, 100.0))).plan(600)

    assert found is not None
    assert found.counts[0] <= 2
    assert found.counts[1] > 0
    assert found.alone[0] is None
    assert Search([Stock("cheap", 0.5, limit=2)], Formula((100.0,))).plan(600) is None


def test_the_fewest_outstanding_is_found_as_by_looking_at_each() -> None:
    draw = np.random.default_rng(1)
    k = 67
    crowd, plain = OutstandingCounts(k), [0] * k
    for step in range(3000):
        turned = step % k
        least = min(plain)
        expected = next(w for w in [*range(turned, k), *range(turned)] if plain[w] == least)
        assert crowd.fewest(turned) == expected
        crowd.increment(expected)
        plain[expected] += 1
        while sum(plain) > 150 or (sum(plain) and draw.random() < 0.4):
            ordinal = int(draw.choice([w for w in range(k) if plain[w]]))
            crowd.decrement(ordinal)
            plain[ordinal] -= 1
