"""Makes a plan from offers: the fleets, their runner-ups and losers, what binds, and what would break them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from capacity.cost import hourly
from capacity.fleet import Counts, Found, Search, Stock, Verdict
from capacity.planning.demand import Demand
from capacity.planning.offers import Offer, Offers, slower
from capacity.planning.plan import (
    Alternative,
    CostCurve,
    FleetPlan,
    Lost,
    Percentiles,
    PlanRow,
    Prediction,
    Schedule,
    Sensitivity,
    SlotPlan,
)
from capacity.planning.pools import Pools, Service
from capacity.solver import least_cost

WORSE = 1.2
_RUNNER_UPS = 4
# A picture with more lines says nothing.
_CURVES = 8
_CURVE_SIZES = (1, 2, 4, 8, 16, 32, 64)
# With other service times only so many of the cheapest kinds are planned with anew.
_ANEW = 3
# Beyond this many ordinals a curve is drawn on with the rate of each that the last simulated pool had.
_CURVE_ORDINALS = 64


def no_words(_text: str) -> None:
    """For a caller that shows no progress."""


@dataclass(frozen=True)
class Task:
    """What is asked of every fleet: how it serves, how many of its instances may be gone, and how much room it has.

    `headroom` is a share: 0.3 asks for 130 % of each rate. `max_price` is an hour's.
    """

    service: Service
    survive: int = 0
    headroom: float = 0.0
    max_price: float | None = None
    say: Callable[[str], None] = no_words


class Planner:
    """Plans for several rates, or a day, from the same offers; what was simulated for one serves the others."""

    def __init__(self, offers: Offers, task: Task) -> None:
        self._offers, self._task = offers, task
        self._all = list(offers.kept)
        self._pools = Pools(self._all, task.service)
        self._search = self._searcher(self._all, self._pools)

    def _searcher(self, offers: Sequence[Offer], pools: Pools, say: bool = True) -> Search:
        stock = [Stock(offer.name, offer.price, offer.limit) for offer in offers]
        return Search(stock, pools, self._task.survive, self._task.say if say else no_words)

    @property
    def pools(self) -> Pools:
        """What simulates the fleets of these offers."""
        return self._pools

    def counts_of(self, rows: Sequence[PlanRow]) -> Counts:
        """Rows of a plan as counts of the offers."""
        have = {(row.hardware, row.market): row.instances for row in rows}
        return tuple(have.get((offer.instance.name, offer.market), 0) for offer in self._all)

    def plan(self, rps: float) -> FleetPlan:
        """The fleet for a rate, with all that is to be said of it."""
        required = rps * (1 + self._task.headroom)
        found = self._search.plan(required)
        if found is None:
            return FleetPlan(rps=rps, required_rps=required, why_not=self._why_not(required), losers=self._losers(None))
        over = self._task.max_price is not None and found.cost > self._task.max_price + 1e-9
        if over:
            currency = self._all[0].currency
            why = (
                f"the cheapest fleet, {self._words(found.counts)}, costs {hourly(found.cost, currency)} an hour, "
                f"more than the {hourly(self._task.max_price or 0.0, currency)} allowed"
            )
            return FleetPlan(rps=rps, required_rps=required, why_not=why, losers=self._losers(found))
        self._task.say("what would break it")
        return FleetPlan(
            rps=rps,
            required_rps=required,
            rows=self.rows_of(found.counts),
            cost_per_hour=found.cost,
            cost_interval=self._interval(found, required),
            cost_per_100k=found.cost / 3600 / rps * 100_000,
            prediction=_prediction(required, found.verdict),
            after_losses=self._after_losses(found.counts, required),
            least_cost=found.least,
            solver_gap=found.gap,
            simulated_fleets=found.simulated,
            binds=self._binds(found, required),
            runner_ups=self._runner_ups(found),
            losers=self._losers(found),
            sensitivity=self._sensitivity(found, required),
        )

    def schedule(self, demand: Demand, name: str) -> Schedule:
        """The cheapest fleet for each slot of a day. ValueError where one has none."""
        made: dict[float, Found] = {}
        slots = []
        for slot in sorted(demand.slots, key=lambda slot: -slot.rps):
            required = slot.rps * (1 + self._task.headroom)
            if required > 0 and required not in made:
                found = self._search.plan(required)
                if found is None:
                    raise ValueError(f"{slot.name}, {slot.rps:g} requests/s: {self._why_not(required)}")
                made[required] = found
        for slot in demand.slots:
            required = slot.rps * (1 + self._task.headroom)
            if required == 0:
                slots.append(SlotPlan(start=slot.name, hours=slot.hours, rps=0.0, cost=0.0))
                continue
            found = made[required]
            slots.append(
                SlotPlan(
                    start=slot.name,
                    hours=slot.hours,
                    rps=slot.rps,
                    rows=self.rows_of(found.counts),
                    cost=found.cost * slot.hours,
                    latency_us=_percentiles(found.verdict),
                    solver_gap=found.gap,
                )
            )
        peak = made[demand.peak_rps * (1 + self._task.headroom)]
        least = sum(
            made[slot.rps * (1 + self._task.headroom)].least * slot.hours for slot in demand.slots if slot.rps > 0
        )
        return Schedule(
            demand=name,
            slots=slots,
            cost_per_day=sum(slot.cost for slot in slots),
            peak_cost=peak.cost * 24,
            least_cost=least,
            solver_gap=max(found.gap for found in made.values()),
        )

    def curves(self, rates: Sequence[float], plans: Sequence[FleetPlan]) -> list[CostCurve]:
        """What pools of one combination alone cost, from a fifth of the lowest rate to twice the highest."""
        low, high = min(rates) / 5, 2 * max(rates)
        able = [number for number in range(len(self._all)) if self._pools.highest(number, 1) > 0]
        used = {(row.hardware, row.market) for plan in plans for row in plan.rows}
        used |= {(row.hardware, row.market) for plan in plans for other in plan.runner_ups for row in other.rows}
        able.sort(
            key=lambda number: (
                (self._all[number].instance.name, self._all[number].market) not in used,
                self._all[number].price / self._pools.ceiling(number),
            )
        )
        made = []
        for number in able[:_CURVES]:
            offer = self._all[number]
            self._task.say(f"{offer.name}: cost against rate")
            points = self._points(number, high, plans)
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

    def _points(self, number: int, high: float, plans: Sequence[FleetPlan]) -> list[tuple[int, float]]:
        offer = self._all[number]
        points: dict[int, float] = {}
        for size in _CURVE_SIZES:
            if size * offer.ordinals > _CURVE_ORDINALS and points:
                break
            points[size] = self._pools.highest(number, size)
            if points[size] >= high:
                break
        for plan in plans:
            for rows in [plan.rows, *(other.rows for other in plan.runner_ups)]:
                if len(rows) == 1 and (rows[0].hardware, rows[0].market) == (offer.instance.name, offer.market):
                    size = max(rows[0].instances - self._task.survive, 1)
                    points[size] = max(points.get(size, 0.0), plan.required_rps)
        kept: list[tuple[int, float]] = []
        for k, carried in sorted(points.items()):
            kept.append((k, max(carried / k, kept[-1][1] / kept[-1][0] if kept else 0.0) * k))
        return kept

    def rows_of(self, counts: Counts) -> list[PlanRow]:
        """Counts of the offers as rows of a plan."""
        return [
            PlanRow(
                hardware=offer.instance.name,
                host=offer.instance.host,
                accelerator=offer.instance.accelerator,
                kind=offer.kind,
                market=offer.market,
                instances=count,
                ordinals=offer.ordinals,
                price_each=offer.price,
                simulated=offer.simulated,
            )
            for offer, count in zip(self._all, counts, strict=True)
            if count
        ]

    def _words(self, counts: Counts) -> str:
        return " and ".join(row.words for row in self.rows_of(counts))

    def _after_losses(self, counts: Counts, rate: float) -> Prediction | None:
        """The worst that losing instances leaves."""
        if not self._task.survive:
            return None
        verdicts = [self._search.verdict(left, rate) for left in self._search.after_losses(counts)]
        worst = max(verdicts, key=lambda verdict: verdict.percentiles[1][1] or math.inf, default=None)
        return _prediction(rate, worst) if worst else None

    def _interval(self, found: Found, rate: float) -> tuple[float, float] | None:
        """What the fleet costs where service times are at either end of what was measured."""
        used = [offer for offer, count in zip(self._all, found.counts, strict=True) if count]
        low, high = min(offer.uncertainty[0] for offer in used), max(offer.uncertainty[1] for offer in used)
        ends = []
        for factor in (low, high):
            cost = found.cost if factor == 1.0 else self._cost_if(found, rate, factor, 0)
            if cost is None:
                return None
            ends.append(cost)
        return min(*ends, found.cost), max(*ends, found.cost)

    def _cost_if(self, found: Found, rate: float, factor: float, others: int) -> float | None:
        """What a fleet of the chosen combinations and some others costs with other service times; None for no fleet."""
        chosen = {number for number, count in enumerate(found.counts) if count}
        able = [number for number, count in found.alone.items() if count is not None and number not in chosen]
        able.sort(key=lambda number: (found.alone[number] or 0) * self._all[number].price)
        looked = sorted([*chosen, *able[:others]])
        offers = slower([self._all[number] for number in looked], factor)
        other = self._searcher(offers, Pools(offers, self._task.service), say=False).plan(rate)
        return other.cost if other else None

    def _sensitivity(self, found: Found, rate: float) -> Sensitivity:
        worse = slower(self._all, WORSE)
        pools = Pools(worse, self._task.service)
        verdict = pools.verdict(found.counts, rate)
        if not verdict.percentiles:
            # Overloaded: there is no latency to predict.
            verdict = Verdict(False)
        holds = self._searcher(worse, pools, say=False).stands(found.counts, rate)
        return Sensitivity(
            factor=WORSE,
            holds=holds,
            latency_us=_percentiles(verdict),
            cost_per_hour=found.cost if holds else self._cost_if(found, rate, WORSE, _ANEW),
        )

    def _runner_ups(self, found: Found) -> list[Alternative]:
        """The cheapest fleets of each other kind alone, and the best of one kind where the plan mixes."""
        chosen = {number for number, count in enumerate(found.counts) if count}
        others = []
        for number, count in found.alone.items():
            if count is None or chosen == {number}:
                continue
            cost = count * self._all[number].price
            rows = self.rows_of(tuple(count if at == number else 0 for at in range(len(self._all))))
            others.append(Alternative(rows=rows, cost_per_hour=cost, more=cost / found.cost - 1 if found.cost else 0.0))
        return sorted(others, key=lambda other: other.cost_per_hour)[:_RUNNER_UPS]

    def _losers(self, found: Found | None) -> list[Lost]:
        lost = [
            Lost(hardware=loser.label, step=step.name, reason=loser.reason)
            for step in self._offers.steps
            for loser in step.losers
        ]
        for number, offer in enumerate(self._all):
            if self._pools.highest(number, 1) <= 0:
                lost.append(Lost(hardware=offer.name, step="latency", reason=self._too_slow(number)))
        if found is None:
            return lost
        chosen = {number for number, count in enumerate(found.counts) if count}
        for number, count in found.alone.items():
            offer = self._all[number]
            if number in chosen or self._pools.highest(number, 1) <= 0:
                continue
            if count is None:
                reason = f"{offer.limit} are not enough alone, and beside others they make no fleet cheaper"
                lost.append(Lost(hardware=offer.name, step="limit", reason=reason))
            else:
                cost = count * offer.price
                more = f"{100 * (cost / found.cost - 1):.0f} % more" if cost > found.cost * 1.005 else "the same"
                reason = f"{count} of it would cost {hourly(cost, offer.currency)} an hour: {more}"
                lost.append(Lost(hardware=offer.name, step="price", reason=reason))
        for number, least in found.beaten.items():
            offer = self._all[number]
            if self._pools.highest(number, 1) > 0:
                reason = f"with it, never idle, at least {hourly(least, offer.currency)} an hour"
                lost.append(Lost(hardware=offer.name, step="price", reason=reason))
        return lost

    def _too_slow(self, number: int) -> str:
        slo = self._task.service.slo
        for (percentile, bound), over in zip(slo.bounds, self._pools.over(number), strict=True):
            if over > 1 - percentile / 100:
                return (
                    f"{100 * over:.3g} % of its requests take over {bound / 1e6:g} ms without any waiting; "
                    f"P{percentile:g} allows {100 - percentile:.3g} %"
                )
        return "one instance meets the SLO at no rate"

    def _why_not(self, rate: float) -> str:
        if not self._all:
            return "no combination has enough memory and a price"
        able = [number for number in range(len(self._all)) if self._pools.highest(number, 1) > 0]
        if not able:
            return f"no combination meets {self._task.service.slo} even without waiting"
        return f"the limits leave too few instances for {rate:g} requests/s"

    def _binds(self, found: Found, rate: float) -> list[str]:
        """Which constraints make the fleet as dear as it is."""
        currency = self._all[0].currency
        said = []
        options = [self._search.ceiling_option(number) for number in range(len(self._all))]
        bare = least_cost(options, rate, (), self._task.survive)
        if bare < found.cost * 0.99:
            said.append(
                f"latency: by throughput alone {hourly(bare, currency)} an hour would do; the SLO takes "
                f"{100 * (found.cost / bare - 1):.0f} % more"
                if bare > 0
                else "latency: by throughput alone a free fleet would do"
            )
        if self._task.survive:
            calm = Search([Stock(o.name, o.price, o.limit) for o in self._all], self._pools).plan(rate)
            if calm and calm.cost < found.cost - 1e-9:
                said.append(
                    f"survival: without --survive {self._task.survive} it would cost {hourly(calm.cost, currency)}"
                )
        if any(offer.limit is not None for offer in self._all):
            free = [replace(offer, limit=None) for offer in self._all]
            unlimited = self._searcher(free, self._pools, say=False).plan(rate)
            if unlimited and unlimited.cost < found.cost - 1e-9:
                names = [
                    offer.name
                    for offer, count, before in zip(self._all, unlimited.counts, found.counts, strict=True)
                    if offer.limit is not None and count > before
                ]
                said.append(
                    f"limit: without that on {' and '.join(names)} it would cost {hourly(unlimited.cost, currency)}"
                )
        said += [
            f"memory: {loser.label} is left out ({loser.reason})"
            for step in self._offers.steps
            if step.name == "memory"
            for loser in step.losers
        ]
        kinds = sorted(number for number, count in enumerate(found.counts) if count)
        dearer = [
            (count * self._all[number].price, number)
            for number, count in found.alone.items()
            if count is not None and [number] != kinds
        ]
        if dearer:
            cost, number = min(dearer)
            said.append(f"price: the next, {self._all[number].name} alone, costs {hourly(cost, currency)} an hour")
        return said


def _prediction(rate: float, verdict: Verdict) -> Prediction:
    return Prediction(
        rps=rate, latency_us=_percentiles(verdict), busy=round(verdict.busy, 4), requests=verdict.requests
    )


def _percentiles(verdict: Verdict) -> Percentiles:
    return Percentiles(**{f"p{percentile:g}": value for percentile, value in verdict.percentiles})


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
