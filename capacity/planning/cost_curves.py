"""The cost of pools of one combination against the rate, for the plan's chart."""

from __future__ import annotations

import math
from collections.abc import Sequence

from capacity.planning.optimizer import rising_rates
from capacity.planning.plan_file import CostCurve, FleetPlan
from capacity.planning.problem import PlanningProblem

# A chart with more curves cannot be read.
_MAX_CURVES = 8
_POOL_SIZES = (1, 2, 4, 8, 16, 32, 64)
# Beyond so many ordinals a curve continues with the rate per instance of the last simulated pool.
_MAX_ORDINALS = 64
_STEPS_PER_DECADE = 40


def cost_curves(problem: PlanningProblem, rates: Sequence[float], plans: Sequence[FleetPlan]) -> list[CostCurve]:
    """Returns the cost curves of single combinations, from a fifth of the lowest rate to twice the highest.

    Combinations that `plans` use come first, then those with the lowest cost per capacity.
    """
    low, high = min(rates) / 5, 2 * max(rates)
    offers = problem.offers
    used = {(row.hardware, row.market) for plan in plans for row in plan.rows}
    used |= {(row.hardware, row.market) for plan in plans for other in plan.alternatives for row in other.rows}
    order = sorted(
        problem.usable,
        key=lambda number: (
            (offers[number].instance.name, offers[number].market) not in used,
            offers[number].price / problem.pools.saturation_rate(number),
        ),
    )
    curves = []
    for number in order[:_MAX_CURVES]:
        offer = offers[number]
        problem.requirements.progress(f"{offer.name}: cost against rate")
        points = _rates_by_size(problem, number, high, plans)
        curves.append(
            CostCurve(
                hardware=offer.instance.name,
                market=offer.market,
                kind=offer.kind,
                simulated=offer.simulated,
                points=[
                    (rate, count * offer.price)
                    for rate in _geometric_steps(low, high)
                    if (count := _smallest_pool(points, rate)) and (offer.limit is None or count <= offer.limit)
                ],
            )
        )
    return curves


def _rates_by_size(
    problem: PlanningProblem, number: int, high: float, plans: Sequence[FleetPlan]
) -> list[tuple[int, float]]:
    offer = problem.offers[number]
    rates: dict[int, float] = {}
    for size in _POOL_SIZES:
        if size * offer.ordinals > _MAX_ORDINALS and rates:
            break
        rates[size] = problem.pools.highest_rate(number, size)
        if rates[size] >= high:
            break
    for plan in plans:
        for rows in [plan.rows, *(other.rows for other in plan.alternatives)]:
            if len(rows) == 1 and (rows[0].hardware, rows[0].market) == (offer.instance.name, offer.market):
                size = max(rows[0].instances - problem.requirements.survive, 1)
                rates[size] = max(rates.get(size, 0.0), plan.required_rps)
    return rising_rates(rates)


def _geometric_steps(low: float, high: float) -> list[float]:
    """Rates from low to high in equal ratios."""
    count = max(math.ceil(_STEPS_PER_DECADE * math.log10(high / low)), 2)
    return [low * (high / low) ** (step / count) for step in range(count + 1)]


def _smallest_pool(points: Sequence[tuple[int, float]], rate: float) -> int | None:
    """The smallest pool for a rate: between two points a pool has the rate per instance of the lower one."""
    smallest = None
    for (size, highest), following in zip(points, [*(size for size, _ in points[1:]), None], strict=True):
        if highest <= 0:
            continue
        count = max(math.ceil(rate * size / highest - 1e-9), size)
        if following is None or count < following:
            smallest = count if smallest is None else min(smallest, count)
    return smallest
