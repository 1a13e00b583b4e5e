"""Evaluating fleets with a pool model: with every instance, after losses, and how efficient pools of a size are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement

from capacity.planning.optimizer.integer_program import PoolOption
from capacity.planning.optimizer.pool_model import Counts, PoolModel, PoolPrediction, Supply

# By how much a mixture of n instances may be more efficient than pools of one option, times n: known pools have at most
# one instance too many, and about its size.
_EFFICIENCY_MARGIN = 1.5


class FleetEvaluation:
    """Predictions of fleets, each made once. A fleet must meet the SLO with any `survive` of its instances gone."""

    def __init__(self, supplies: Sequence[Supply], model: PoolModel, survive: int) -> None:
        self.supplies = list(supplies)
        self.model = model
        self.survive = survive
        self._predictions: dict[tuple[Counts, float], PoolPrediction] = {}
        #: How many fleets were predicted so far.
        self.predicted = 0
        # By option: (pool size, its rate over its saturation), of pools that are the smallest to meet the SLO.
        self._efficiencies: dict[int, list[tuple[int, float]]] = {}

    def predict(self, counts: Counts, rate: float) -> PoolPrediction:
        """Predicts the fleet with all its instances."""
        key = counts, rate
        if key not in self._predictions:
            self.predicted += 1
            self._predictions[key] = self.model.predict(counts, rate)
        return self._predictions[key]

    def meets_slo(self, counts: Counts, rate: float) -> bool:
        """Returns whether the fleet meets the SLO, with all instances and after every loss it must survive."""
        remainders = list(self.after_losses(counts))
        # The smaller fleets first: for routers that balance the load they decide.
        return (
            all(any(left) and self.predict(left, rate).meets_slo for left in remainders)
            and self.predict(counts, rate).meets_slo
        )

    def after_losses(self, counts: Counts) -> Iterator[Counts]:
        """Yields what is left of a fleet for every choice of instances that it may lose."""
        present = [number for number, count in enumerate(counts) if count]
        if not self.survive:
            return
        for losses in combinations_with_replacement(present, self.survive):
            left = list(counts)
            for number in losses:
                left[number] -= 1
            if min(left) >= 0:
                yield tuple(left)

    def single_option(self, number: int, count: int) -> Counts:
        """Returns the counts of a fleet of one option."""
        return tuple(count if at == number else 0 for at in range(len(self.supplies)))

    def capacity_option(self, number: int) -> PoolOption:
        """Returns an option by its saturation alone, for lower bounds of cost."""
        supply, model = self.supplies[number], self.model
        return PoolOption(supply.price, (), model.saturation_rate(number), model.shares_beyond(number), supply.limit)

    def record_efficiency(self, number: int, size: int, rate: float) -> None:
        """Notes that the smallest pool of an option for a rate has so many instances."""
        capacity = self.model.saturation_rate(number) * max(size - self.survive, 1)
        self._efficiencies.setdefault(number, []).append((size, rate / capacity))

    def efficiency(self, number: int, size: int) -> float:
        """Estimates a pool's rate over its saturation, from pools of about this size of this or other options."""
        pairs = self._efficiencies.get(number) or [pair for pairs in self._efficiencies.values() for pair in pairs]
        if not pairs:
            share = self.model.highest_rate(number, 1) / self.model.saturation_rate(number)
            return min(max(share, 0.05), 1.0)
        return min(pairs, key=lambda pair: abs(math.log(pair[0] / size)))[1]


def efficiency_margin(size: int) -> float:
    """Returns by which share a mixture of so many instances may be more efficient than estimated."""
    return _EFFICIENCY_MARGIN / max(size, 1)
