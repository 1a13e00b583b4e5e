"""The search for the cheapest fleet that meets an SLO at a rate: pools of one option first, then mixtures.

Capacity is not additive: a pool of two instances carries more than twice the rate of one within an SLO. So integer
programs only propose fleets, and a prediction of the whole fleet with its router decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from capacity.planning.optimizer.fleet_evaluation import FleetEvaluation
from capacity.planning.optimizer.integer_program import PoolOption, cost_lower_bound
from capacity.planning.optimizer.mixed_fleets import MixedFleetSearch
from capacity.planning.optimizer.pool_model import Counts, PoolModel, PoolPrediction, Supply

# From so many instances on, whole numbers do not decide which option is cheapest, and counts are exact to half a
# percent from the second number on.
_LARGE_FLEET = 30
_EXACT_SIZE = 200


@dataclass(frozen=True)
class FleetSolution:
    """The fleet for one rate. No fleet costs less than `cost_lower_bound`, by capacity alone; `solver_gap` is the share
    of the cost that the integer program's solver left open.

    `single_pools` has, for each option that was examined, the smallest pool of it alone that meets the SLO (None: its
    limit forbids it). `dominated` has for the other options the least cost of a fleet with them.
    """

    rate: float
    counts: Counts
    cost: float
    prediction: PoolPrediction
    cost_lower_bound: float
    solver_gap: float
    simulated_fleets: int
    single_pools: dict[int, int | None] = field(default_factory=dict)
    dominated: dict[int, float] = field(default_factory=dict)

    @property
    def options(self) -> set[int]:
        """The numbers of the options in the fleet."""
        return {number for number, count in enumerate(self.counts) if count}


class FleetSearch:
    """Searches fleets for one or more rates; predictions for one rate serve the next.

    A fleet must meet the SLO with any `survive` of its instances gone.
    """

    def __init__(
        self,
        supplies: Sequence[Supply],
        model: PoolModel,
        survive: int = 0,
        progress: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._evaluation = FleetEvaluation(supplies, model, survive)
        self._supplies, self._model, self._survive = list(supplies), model, survive
        self._progress = progress

    def predict(self, counts: Counts, rate: float) -> PoolPrediction:
        """Predicts the fleet with all its instances."""
        return self._evaluation.predict(counts, rate)

    def meets_slo(self, counts: Counts, rate: float) -> bool:
        """Returns whether the fleet meets the SLO, with all instances and after every loss it must survive."""
        return self._evaluation.meets_slo(counts, rate)

    def after_losses(self, counts: Counts) -> Iterator[Counts]:
        """Yields what is left of a fleet for every choice of instances that it may lose."""
        return self._evaluation.after_losses(counts)

    def capacity_options(self) -> list[PoolOption]:
        """Returns all options by their saturation alone, for lower bounds of cost."""
        return [self._evaluation.capacity_option(number) for number in range(len(self._supplies))]

    def solve(self, rate: float) -> FleetSolution | None:
        """Returns the cheapest fleet for a rate above 0; None where no fleet of these options meets the SLO."""
        predicted_before = self._evaluation.predicted
        single_pools, dominated, best = self._search_single_pools(rate)
        usable = [number for number in single_pools if self._model.highest_rate(number, 1) > 0]
        if not usable:
            return None
        mixed = MixedFleetSearch(self._evaluation, usable, single_pools, rate)
        gap = 0.0
        if best is None or (len(usable) > 1 and mixed.may_be_cheaper(best)):
            self._progress(f"mixing {len(usable)} kinds of instance for {rate:g} requests/s")
            best, gap = mixed.search(best)
            if best is None:
                return None
        cost, counts = best
        lower_bound = cost_lower_bound(self.capacity_options(), rate, self._model.allowed_shares, self._survive)
        return FleetSolution(
            rate=rate,
            counts=counts,
            cost=cost,
            prediction=self.predict(counts, rate),
            cost_lower_bound=min(lower_bound, cost),
            solver_gap=gap,
            simulated_fleets=self._evaluation.predicted - predicted_before,
            single_pools=single_pools,
            dominated=dominated,
        )

    def _search_single_pools(
        self, rate: float
    ) -> tuple[dict[int, int | None], dict[int, float], tuple[float, Counts] | None]:
        """Pools of one option each, the most promising first; none for options that are in no cheaper fleet."""
        single_pools: dict[int, int | None] = {}
        dominated: dict[int, float] = {}
        best: tuple[float, Counts] | None = None
        capacity_options = self.capacity_options()
        order = [number for number in range(len(self._supplies)) if self._model.saturation_rate(number) > 0]
        order.sort(key=lambda number: self._supplies[number].price / self._model.saturation_rate(number))
        for place, number in enumerate(order):
            supply = self._supplies[number]
            if best is not None and place >= 2:
                least = self._least_cost_with(number, rate, capacity_options, large=sum(best[1]) >= _LARGE_FLEET)
                if least >= best[0]:
                    dominated[number] = least
                    continue
            self._progress(f"{supply.name}: smallest pool for {rate:g} requests/s")
            count = single_pools[number] = self.smallest_pool(number, rate)
            if count is not None:
                cost = supply.price * count
                if best is None or cost < best[0]:
                    best = cost, self._evaluation.single_option(number, count)
        return single_pools, dominated, best

    def _least_cost_with(self, number: int, rate: float, options: Sequence[PoolOption], large: bool) -> float:
        """The least cost of a fleet with this option; in a `large` fleet, that of its own pool at saturation."""
        if large:
            return self._supplies[number].price * rate / self._model.saturation_rate(number)
        return cost_lower_bound(options, rate, self._model.allowed_shares, self._survive, with_option=number)

    def smallest_pool(self, number: int, rate: float) -> int | None:
        """Returns the smallest pool of one option for a rate; None where its limit, or the SLO, forbids it."""
        saturation, limit = self._model.saturation_rate(number), self._supplies[number].limit
        least = max(math.ceil(rate / saturation - 1e-9), 1) + self._survive
        if (limit is not None and limit < least) or self._model.highest_rate(number, 1) <= 0:
            return None
        efficiency = self._evaluation.efficiency(number, least)
        guess = max(math.ceil(rate / (saturation * efficiency) - 1e-9), least - self._survive)
        low, high = least - 1, guess + self._survive
        tolerance = max(guess // _EXACT_SIZE, 1)
        while not self._pool_meets_slo(number, high, rate):
            if limit is not None and high >= limit:
                return None
            low, high = high, high + max(high // 32, 1)
            if limit is not None:
                high = min(high, limit)
        # Downwards in growing steps from a pool that is large enough: the guess is seldom far off.
        step = tolerance
        while low < high - tolerance:
            middle = max(high - step, low + 1) if step < high - low else (low + high) // 2
            if self._pool_meets_slo(number, middle, rate):
                high, step = middle, 2 * step
            else:
                low, step = middle, max((high - middle) // 2, 1)
        if limit is not None and high > limit:
            return None
        self._evaluation.record_efficiency(number, high, rate)
        return high

    def _pool_meets_slo(self, number: int, count: int, rate: float) -> bool:
        return self.meets_slo(self._evaluation.single_option(number, count), rate)
