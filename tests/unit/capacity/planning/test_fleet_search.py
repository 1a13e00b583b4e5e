"""Integer programs against counting everything, and the search against looking at every fleet there is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import pytest

from capacity.planning.optimizer import Counts, FleetSearch, PoolPrediction, Supply
from capacity.planning.optimizer.integer_program import (
    PoolOption,
    cost_lower_bound,
    find_cheapest_counts,
    list_cheaper_fleets,
)
from capacity.simulation.least_outstanding import OutstandingCounts


def options_of(seed: int) -> list[PoolOption]:
    """Three kinds whose pools carry more than the sum of their instances."""
    draw = np.random.default_rng(seed)
    options = []
    for _ in range(3):
        saturation, price = float(draw.uniform(50, 200)), float(draw.uniform(0.1, 1.0))
        curve = tuple((k, k * saturation * (1 - 0.5 / math.sqrt(k))) for k in (1, 2, 4, 8))
        options.append(PoolOption(price, curve, saturation, (float(draw.uniform(0, 0.08)),), int(draw.integers(3, 12))))
    return options


def carried(option: PoolOption, count: int) -> float:
    return max((rate / k * count for k, rate in option.curve if k <= count), default=0.0)


def every_fleet(options: list[PoolOption], most: int = 12) -> list[Counts]:
    return list(product(*(range(min(most, option.limit or most) + 1) for option in options)))


def price_of(options: list[PoolOption], counts: Counts) -> float:
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
    solution = find_cheapest_counts(options, required, survive)

    if not standing:
        assert solution is None
        return
    best = min(price_of(options, counts) for counts in standing)
    assert solution is not None
    assert solution.cost == pytest.approx(price_of(options, solution.counts))
    # What each instance loses is bounded by its best pool, so survival may ask for a little more than it must.
    assert best * (1 - 2e-4) <= solution.cost
    if survive == 0:
        assert solution.cost <= best * (1 + 2e-4)
        assert holds(solution.counts)
    assert solution.bound <= solution.cost
    assert solution.gap <= 1e-3


@pytest.mark.parametrize("seed", range(12))
def test_no_fleet_costs_less_than_the_bound_by_capacity(seed: int) -> None:
    options, required, allowed = options_of(seed), 700.0, (0.04,)

    def may_hold(counts: Counts) -> bool:
        """Requests go where they are least often late, as far as capacity goes."""
        left, late = required, 0.0
        for option, count in sorted(zip(options, counts, strict=True), key=lambda pair: pair[0].shares_beyond[0]):
            here = min(left, option.saturation * count)
            left, late = left - here, late + here * option.shares_beyond[0]
        return left <= 1e-9 and late <= allowed[0] * required

    possible = [price_of(options, counts) for counts in every_fleet(options) if may_hold(counts)]
    bound = cost_lower_bound(options, required, allowed)

    assert bound == pytest.approx(min(possible, default=math.inf), rel=2e-4)
    assert cost_lower_bound(options, required, allowed, with_option=2) >= bound * (1 - 1e-6)
    assert cost_lower_bound(options, required, allowed, survive=1) >= bound * (1 - 1e-6)


def test_cheaper_fleets_are_all_of_them_in_the_order_of_their_price() -> None:
    options, required, below = options_of(3), 500.0, 3.0

    listed = list_cheaper_fleets(options, required, below, 10_000)

    expected = {
        counts
        for counts in every_fleet(options, most=40)
        if price_of(options, counts) < below
        and sum(option.saturation * count for option, count in zip(options, counts, strict=True)) >= required
    }
    assert listed is not None
    assert {counts for _cost, counts in listed} == expected
    assert [cost for cost, _counts in listed] == sorted(cost for cost, _counts in listed)
    assert list_cheaper_fleets(options, required, below, len(expected) - 1) is None


@dataclass
class Formula:
    """Pools by a formula where capacity is not additive: of its saturation each pool of n has 1 - loss / sqrt(n)."""

    saturations: tuple[float, ...]
    loss: float = 0.6
    predicted: list[Counts] = field(default_factory=list)
    allowed_shares: tuple[float, ...] = (0.1,)
    balances_load: bool = True

    def predict(self, counts: Counts, rate: float) -> PoolPrediction:
        self.predicted.append(counts)
        return PoolPrediction(rate <= self._carries(counts), ((90.0, 1.0),))

    def _carries(self, counts: Counts) -> float:
        size = sum(counts)
        total = sum(count * saturation for count, saturation in zip(counts, self.saturations, strict=True))
        return total * (1 - self.loss / math.sqrt(size)) if size else 0.0

    def highest_rate(self, option: int, count: int) -> float:
        return self._carries(tuple(count if at == option else 0 for at in range(len(self.saturations))))

    def saturation_rate(self, option: int) -> float:
        return self.saturations[option]

    def shares_beyond(self, option: int) -> tuple[float, ...]:
        return (0.0,)


@pytest.mark.parametrize("survive", [0, 1])
@pytest.mark.parametrize("seed", range(15))
def test_the_search_finds_the_cheapest_fleet_there_is(seed: int, survive: int) -> None:
    draw = np.random.default_rng(seed)
    saturations = tuple(float(value) for value in draw.uniform(40, 160, 3))
    supplies = [
        Supply(f"kind {n}", float(saturation * draw.uniform(0.8, 1.2)) / 100)
        for n, saturation in enumerate(saturations)
    ]
    rate = float(draw.uniform(100, 600))
    search = FleetSearch(supplies, Formula(saturations), survive)
    solution = search.solve(rate)

    prices = [option.price for option in supplies]
    best = min(
        sum(price * count for price, count in zip(prices, counts, strict=True))
        for counts in product(range(14), repeat=3)
        if any(counts) and FleetSearch(supplies, Formula(saturations), survive).meets_slo(counts, rate)
    )
    assert solution is not None
    assert search.meets_slo(solution.counts, rate)
    assert solution.cost <= best * 1.02
    assert solution.cost_lower_bound <= best * (1 + 1e-6)


def test_any_instance_may_be_lost() -> None:
    saturations = (100.0, 60.0)
    search = FleetSearch([Supply("large", 1.0), Supply("small", 0.55)], Formula(saturations), survive=1)
    solution = search.solve(400)

    assert solution is not None
    for number, count in enumerate(solution.counts):
        if count:
            left = tuple(c - (at == number) for at, c in enumerate(solution.counts))
            assert Formula(saturations).predict(left, 400).meets_slo
    calm = FleetSearch([Supply("large", 1.0), Supply("small", 0.55)], Formula(saturations)).solve(400)
    assert calm is not None
    assert calm.cost < solution.cost


def test_a_limit_is_kept_and_what_it_forbids_is_said() -> None:
    supplies = [Supply("cheap", 0.5, limit=2), Supply("dear", 1.0)]
    solution = FleetSearch(supplies, Formula((100.0, 100.0))).solve(600)

    assert solution is not None
    assert solution.counts[0] <= 2
    assert solution.counts[1] > 0
    assert solution.single_pools[0] is None
    assert FleetSearch([Supply("cheap", 0.5, limit=2)], Formula((100.0,))).solve(600) is None


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
