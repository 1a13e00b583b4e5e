"""Explaining a fleet: binding constraints, sensitivity, alternatives, and a reason for every excluded combination."""

from __future__ import annotations

import math
from dataclasses import replace

from capacity.planning.offers import with_slower_passes
from capacity.planning.optimizer import Counts, FleetSearch, FleetSolution, PoolPrediction, cost_lower_bound
from capacity.planning.plan_file import Alternative, ExcludedCombination, Prediction, Sensitivity
from capacity.planning.problem import PlanningProblem, plan_percentiles, plan_prediction
from capacity.planning.simulated_pools import SimulatedPools
from capacity.pricing import format_hourly

SLOWER_FACTOR = 1.2
_MAX_ALTERNATIVES = 4
# With other service times, so many of the cheapest other combinations are searched again.
_SEARCHED_AGAIN = 3
# Costs this close, as a share, are the same.
_SAME_COST = 1.005


class FleetExplanations:
    """What a plan says about the solution of a planning problem, or about its absence."""

    def __init__(self, problem: PlanningProblem) -> None:
        self._problem, self._requirements, self._offers = problem, problem.requirements, problem.offers

    def describe(self, counts: Counts) -> str:
        """Returns a fleet in words."""
        return " and ".join(row.description for row in self._problem.rows(counts))

    def after_losses(self, counts: Counts, rate: float) -> Prediction | None:
        """Returns the worst prediction after the losses that the fleet must survive; None without any."""
        if not self._requirements.survive:
            return None
        search = self._problem.search
        predictions = [search.predict(left, rate) for left in search.after_losses(counts)]
        worst = max(predictions, key=lambda one: one.percentiles[1][1] or math.inf, default=None)
        return plan_prediction(rate, worst) if worst else None

    def cost_interval(self, solution: FleetSolution, rate: float) -> tuple[float, float] | None:
        """Returns the cost an hour with service times at either end of their intervals; None without a fleet there."""
        used = [self._offers[number] for number in solution.options]
        low, high = min(offer.uncertainty[0] for offer in used), max(offer.uncertainty[1] for offer in used)
        costs = []
        for factor in (low, high):
            cost = solution.cost if factor == 1.0 else self._cost_with_slower_passes(solution, rate, factor, others=0)
            if cost is None:
                return None
            costs.append(cost)
        return min(*costs, solution.cost), max(*costs, solution.cost)

    def _cost_with_slower_passes(
        self, solution: FleetSolution, rate: float, factor: float, others: int
    ) -> float | None:
        """The cost of the cheapest fleet of the solution's offers and some others with other service times."""
        candidates = [
            number
            for number, count in solution.single_pools.items()
            if count is not None and number not in solution.options
        ]
        candidates.sort(key=lambda number: (solution.single_pools[number] or 0) * self._offers[number].price)
        numbers = sorted([*solution.options, *candidates[:others]])
        offers = with_slower_passes([self._offers[number] for number in numbers], factor)
        pools = SimulatedPools(offers, self._requirements.service)
        other = self._problem.search_among(offers, pools).solve(rate)
        return other.cost if other else None

    def sensitivity(self, solution: FleetSolution, rate: float) -> Sensitivity:
        """Returns what service times that are a fifth longer do to the fleet and to the cost."""
        offers = with_slower_passes(self._offers, SLOWER_FACTOR)
        pools = SimulatedPools(offers, self._requirements.service)
        prediction = pools.predict(solution.counts, rate)
        if not prediction.percentiles:
            # Overloaded: there is no latency to predict.
            prediction = PoolPrediction(meets_slo=False)
        meets_slo = self._problem.search_among(offers, pools).meets_slo(solution.counts, rate)
        cost = solution.cost
        return Sensitivity(
            factor=SLOWER_FACTOR,
            meets_slo=meets_slo,
            latency_us=plan_percentiles(prediction),
            cost_per_hour=cost
            if meets_slo
            else self._cost_with_slower_passes(solution, rate, SLOWER_FACTOR, _SEARCHED_AGAIN),
        )

    def alternatives(self, solution: FleetSolution) -> list[Alternative]:
        """Returns the cheapest fleets of each other combination alone; of all where the solution is a mixture."""
        alternatives = []
        for number, count in solution.single_pools.items():
            if count is None or solution.options == {number}:
                continue
            cost = count * self._offers[number].price
            rows = self._problem.rows(tuple(count if at == number else 0 for at in range(len(self._offers))))
            extra_share = cost / solution.cost - 1 if solution.cost else 0.0
            alternatives.append(Alternative(rows=rows, cost_per_hour=cost, extra_share=extra_share))
        return sorted(alternatives, key=lambda other: other.cost_per_hour)[:_MAX_ALTERNATIVES]

    def excluded(self, solution: FleetSolution | None) -> list[ExcludedCombination]:
        """Returns every combination that is not in the fleet, with the step that excluded it and the reason."""
        excluded = [
            ExcludedCombination(hardware=other.label, step=step.name, reason=other.reason)
            for step in self._problem.selection.steps
            for other in step.excluded
        ]
        usable = set(self._problem.usable)
        for number, offer in enumerate(self._offers):
            if number not in usable:
                excluded.append(
                    ExcludedCombination(hardware=offer.name, step="latency", reason=self._latency_reason(number))
                )
        if solution is None:
            return excluded
        for number, count in solution.single_pools.items():
            if number in usable and number not in solution.options:
                excluded.append(self._excluded_by_price(number, count, solution))
        for number, least in solution.dominated.items():
            offer = self._offers[number]
            if number in usable:
                cost = format_hourly(least, offer.currency)
                reason = f"a fleet with it costs at least {cost} an hour, even where it is never idle"
                excluded.append(ExcludedCombination(hardware=offer.name, step="price", reason=reason))
        return excluded

    def _excluded_by_price(self, number: int, count: int | None, solution: FleetSolution) -> ExcludedCombination:
        offer = self._offers[number]
        if count is None:
            reason = f"{offer.limit} alone are too few, and no mixed fleet with it is cheaper"
            return ExcludedCombination(hardware=offer.name, step="limit", reason=reason)
        cost = count * offer.price
        more = f"{100 * (cost / solution.cost - 1):.0f} % more" if cost > solution.cost * _SAME_COST else "the same"
        reason = f"{count} of it alone cost {format_hourly(cost, offer.currency)} an hour, {more}"
        return ExcludedCombination(hardware=offer.name, step="price", reason=reason)

    def _latency_reason(self, number: int) -> str:
        slo = self._requirements.service.slo
        for (percentile, bound), share in zip(slo.bounds, self._problem.pools.shares_beyond(number), strict=True):
            if share > 1 - percentile / 100:
                return (
                    f"{100 * share:.3g} % of its requests take more than {bound / 1e6:g} ms without any waiting; "
                    f"P{percentile:g} allows {100 - percentile:.3g} %"
                )
        return "one instance does not meet the SLO at any rate"

    def no_fleet_reason(self, rate: float) -> str:
        """Returns why there is no fleet for a rate."""
        if not self._offers:
            return "no combination has enough memory and a price"
        if not self._problem.usable:
            return f"no combination meets {self._requirements.service.slo} even without waiting"
        return f"the limits leave too few instances for {rate:g} requests/s"

    def constraints(self, solution: FleetSolution, rate: float) -> list[str]:
        """Returns the binding constraints: what makes the fleet cost as much as it does."""
        candidates = (
            self._latency_constraint(solution, rate),
            self._survival_constraint(solution, rate),
            self._limit_constraint(solution, rate),
            *self._memory_constraints(),
            self._price_constraint(solution),
        )
        return [constraint for constraint in candidates if constraint]

    def _format(self, cost: float) -> str:
        return format_hourly(cost, self._offers[0].currency)

    def _latency_constraint(self, solution: FleetSolution, rate: float) -> str:
        cost = cost_lower_bound(self._problem.search.capacity_options(), rate, (), self._requirements.survive)
        if cost >= solution.cost * 0.99:
            return ""
        if cost <= 0:
            return "latency: for the throughput alone a free fleet would be enough"
        more = f"{100 * (solution.cost / cost - 1):.0f} % more"
        return f"latency: the throughput alone would cost {self._format(cost)} an hour; the SLO costs {more}"

    def _survival_constraint(self, solution: FleetSolution, rate: float) -> str:
        survive = self._requirements.survive
        if not survive:
            return ""
        other = FleetSearch([offer.supply for offer in self._offers], self._problem.pools).solve(rate)
        if other is None or other.cost >= solution.cost - 1e-9:
            return ""
        return f"survival: without --survive {survive} the fleet would cost {self._format(other.cost)} an hour"

    def _limit_constraint(self, solution: FleetSolution, rate: float) -> str:
        if all(offer.limit is None for offer in self._offers):
            return ""
        unlimited = [replace(offer, limit=None) for offer in self._offers]
        other = self._problem.search_among(unlimited, self._problem.pools).solve(rate)
        if other is None or other.cost >= solution.cost - 1e-9:
            return ""
        names = [
            offer.name
            for offer, count, before in zip(self._offers, other.counts, solution.counts, strict=True)
            if offer.limit is not None and count > before
        ]
        cost = self._format(other.cost)
        return f"limit: without the limit on {' and '.join(names)} the fleet would cost {cost} an hour"

    def _memory_constraints(self) -> list[str]:
        return [
            f"memory: {other.label} is excluded ({other.reason})"
            for step in self._problem.selection.steps
            if step.name == "memory"
            for other in step.excluded
        ]

    def _price_constraint(self, solution: FleetSolution) -> str:
        others = [
            (count * self._offers[number].price, number)
            for number, count in solution.single_pools.items()
            if count is not None and {number} != solution.options
        ]
        if not others:
            return ""
        cost, number = min(others)
        return f"price: the next cheapest, {self._offers[number].name} alone, costs {self._format(cost)} an hour"
