"""What pools of one combination alone cost, from low rates to high: the plan's picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

from capacity.planning.fleet_search import never_less
from capacity.planning.plan_file import CostCurve, FleetPlan
from capacity.planning.problem import Ground

# A picture with more lines says nothing.
_CURVES = 8
_CURVE_SIZES = (1, 2, 4, 8, 16, 32, 64)
# Beyond this many ordinals a curve is drawn on with the rate of each that the last simulated pool had.
_CURVE_ORDINALS = 64


def cost_curves(ground: Ground, rates: Sequence[float], plans: Sequence[FleetPlan]) -> list[CostCurve]:
    """What pools of one combination alone cost, from a fifth of the lowest rate to twice the highest."""
    low, high = min(rates) / 5, 2 * max(rates)
    able = ground.able
    used = {(row.hardware, row.market) for plan in plans for row in plan.rows}
    used |= {(row.hardware, row.market) for plan in plans for other in plan.runner_ups for row in other.rows}
    able.sort(
        key=lambda number: (
            (ground.all[number].instance.name, ground.all[number].market) not in used,
            ground.all[number].price / ground.pools.ceiling(number),
        )
    )
    made = []
    for number in able[:_CURVES]:
        offer = ground.all[number]
        ground.task.say(f"{offer.name}: cost against rate")
        points = _points(ground, number, high, plans)
        made.append(
            CostCurve(
                hardware=offer.instance.name,
                market=offer.market,
                kind=offer.kind,
                simulated=offer.simulated,
                points=[
                    (rate, count * offer.price)
                    for rate in _steps(low, high)
                    if (count := _needed(points, rate)) and (offer.limit is None or count <= offer.limit)
                ],
            )
        )
    return made


def _points(ground: Ground, number: int, high: float, plans: Sequence[FleetPlan]) -> list[tuple[int, float]]:
    offer = ground.all[number]
    points: dict[int, float] = {}
    for size in _CURVE_SIZES:
        if size * offer.ordinals > _CURVE_ORDINALS and points:
            break
        points[size] = ground.pools.highest(number, size)
        if points[size] >= high:
            break
    for plan in plans:
        for rows in [plan.rows, *(other.rows for other in plan.runner_ups)]:
            if len(rows) == 1 and (rows[0].hardware, rows[0].market) == (offer.instance.name, offer.market):
                size = max(rows[0].instances - ground.task.survive, 1)
                points[size] = max(points.get(size, 0.0), plan.required_rps)
    return never_less(points)


def _steps(low: float, high: float) -> list[float]:
    """Rates from low to high, forty to a power of ten."""
    count = max(math.ceil(40 * math.log10(high / low)), 2)
    return [low * (high / low) ** (step / count) for step in range(count + 1)]


def _needed(points: Sequence[tuple[int, float]], rate: float) -> int | None:
    """The smallest pool that surely carries a rate: each point's rate per instance holds up to the next point."""
    fewest = None
    for (k, carried), following in zip(points, [*(k for k, _ in points[1:]), None], strict=True):
        if carried <= 0:
            continue
        count = max(math.ceil(rate * k / carried - 1e-9), k)
        if following is None or count < following:
            fewest = count if fewest is None else min(fewest, count)
    return fewest
