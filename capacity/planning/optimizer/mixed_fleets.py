"""The search among mixtures of options: an integer program's requirement is tightened and loosened until its fleet just
meets the SLO, then the few fleets that are cheaper still are examined one by one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from capacity.planning.optimizer.fleet_evaluation import FleetEvaluation, efficiency_margin
from capacity.planning.optimizer.integer_program import (
    PoolOption,
    cost_lower_bound,
    find_cheapest_counts,
    list_cheaper_fleets,
)
from capacity.planning.optimizer.pool_model import Counts, rising_rates

# How many programs are solved with a requirement moved up or down.
_MAX_PROGRAMS = 7
# The requirement is not moved by less than this share.
_MIN_MOVE = 0.004
# How many cheaper fleets are examined one by one, and how many may be listed.
_MAX_EXAMINED = 60
_MAX_LISTED = 4000
# Pool sizes up to here, by factors of 4, are points of an option's curve.
_MAX_CURVE_SIZE = 64

#: Cost an hour, and the counts.
PricedFleet = tuple[float, Counts]


class MixedFleetSearch:
    """Searches fleets of the `usable` options for one rate, in requests a second.

    `single_pools` has the smallest pool of each option alone; None where its limit forbids it.
    """

    def __init__(
        self,
        evaluation: FleetEvaluation,
        usable: Sequence[int],
        single_pools: Mapping[int, int | None],
        rate: float,
    ) -> None:
        self._evaluation, self._model = evaluation, evaluation.model
        self._usable, self._rate = list(usable), rate
        self._single_pools = single_pools

    def may_be_cheaper(self, best: PricedFleet) -> bool:
        """Returns whether some mixture could be cheaper, if mixtures are a little more efficient than single pools."""
        size = sum(best[1])
        options = [
            replace(option, saturation=option.saturation * min(self._optimistic_efficiency(number, size), 1.0))
            for number, option in ((number, self._evaluation.capacity_option(number)) for number in self._usable)
        ]
        least = cost_lower_bound(options, self._rate, self._model.allowed_shares, self._evaluation.survive)
        return least < best[0] * (1 - 1e-6)

    def _optimistic_efficiency(self, number: int, size: int) -> float:
        return self._evaluation.efficiency(number, size) * (1 + efficiency_margin(size))

    def search(self, best: PricedFleet | None) -> tuple[PricedFleet | None, float]:
        """Returns the cheapest fleet, `best` or cheaper, and the largest gap that the solver left open."""
        options = [self._option(number) for number in self._usable]
        best, gap = self._move_requirement(options, best)
        if best is not None:
            best = self._examine_cheaper(options, best)
        return best, gap

    def _option(self, number: int) -> PoolOption:
        option = self._evaluation.capacity_option(number)
        return replace(option, curve=self._curve(number, self._single_pools[number], option.limit))

    def _curve(self, number: int, single_pool: int | None, limit: int | None) -> tuple[tuple[int, float], ...]:
        """Pool sizes and their highest rates: a few by prediction, and the pool that carries the whole rate."""
        rates = {1: self._model.highest_rate(number, 1)}
        largest = single_pool if single_pool is not None else limit or 1
        size = 4
        while size < largest and size <= _MAX_CURVE_SIZE and self._model.balances_load:
            rates[size] = self._model.highest_rate(number, size)
            size *= 4
        survive = self._evaluation.survive
        if single_pool is not None and single_pool > survive:
            rates[single_pool - survive] = max(rates.get(single_pool - survive, 0.0), self._rate)
        return tuple(rising_rates(rates))

    def _all_counts(self, counts: Counts) -> Counts:
        """Counts of the usable options as counts of all options."""
        by_number = dict(zip(self._usable, counts, strict=True))
        return tuple(by_number.get(number, 0) for number in range(len(self._evaluation.supplies)))

    def _move_requirement(
        self, options: Sequence[PoolOption], best: PricedFleet | None
    ) -> tuple[PricedFleet | None, float]:
        """Solves programs for a share of the rate around 1, by bisection between one whose fleet misses the SLO and one
        whose fleet meets it."""
        gap, share = 0.0, 1.0
        missing, meeting = 0.0, math.inf
        for _move in range(_MAX_PROGRAMS):
            solution = find_cheapest_counts(options, self._rate * share, self._evaluation.survive)
            if solution is None:
                # The limits are reached: a lower requirement may still be enough.
                meeting = min(meeting, share)
            else:
                gap = max(gap, solution.gap)
                counts = self._all_counts(solution.counts)
                if best is not None and solution.cost >= best[0]:
                    meeting = min(meeting, share)
                elif self._evaluation.meets_slo(counts, self._rate):
                    best, meeting = (solution.cost, counts), min(meeting, share)
                else:
                    missing = max(missing, share)
            if math.isinf(meeting):
                share = missing * 1.08
            elif missing == 0.0:
                share = meeting * 0.9
            elif meeting - missing < _MIN_MOVE:
                break
            else:
                share = (meeting + missing) / 2
        return best, gap

    def _examine_cheaper(self, options: Sequence[PoolOption], best: PricedFleet) -> PricedFleet:
        """Returns the first cheaper fleet, by cost, that meets the SLO, where there are few enough to examine."""
        candidates = list_cheaper_fleets(options, self._rate, best[0], _MAX_LISTED)
        rejected: list[Counts] = []
        for cost, usable_counts in candidates or ():
            counts = self._all_counts(usable_counts)
            if self._model.balances_load and self._cannot_meet_slo(counts, usable_counts, options, rejected):
                continue
            if len(rejected) == _MAX_EXAMINED:
                break
            if self._evaluation.meets_slo(counts, self._rate):
                return cost, counts
            rejected.append(counts)
        return best

    def _cannot_meet_slo(
        self, counts: Counts, usable_counts: Counts, options: Sequence[PoolOption], rejected: Sequence[Counts]
    ) -> bool:
        """Whether a fleet that was rejected has more of every option, or the estimated capacity is too small."""
        if any(all(own <= other for own, other in zip(counts, larger, strict=True)) for larger in rejected):
            return True
        size = sum(usable_counts)
        capacity = sum(
            count * option.saturation * self._evaluation.efficiency(number, size)
            for number, count, option in zip(self._usable, usable_counts, options, strict=True)
        )
        return capacity * (1 + efficiency_margin(size)) < self._rate
