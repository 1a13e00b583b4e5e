"""Makes plans from offers: the fleet for a rate, or for each slot of a day."""

from __future__ import annotations

from capacity.planning.demand import Demand
from capacity.planning.explanations import Reasons
from capacity.planning.fleet_search import Found
from capacity.planning.plan_file import FleetPlan, Schedule, SlotPlan
from capacity.planning.problem import Ground, percentiles_of, prediction_of
from capacity.pricing import format_hourly


class Planner:
    """Plans for several rates, or a day, on the same ground; what was simulated for one serves the others."""

    def __init__(self, ground: Ground) -> None:
        self._ground, self._task = ground, ground.task
        self._reasons = Reasons(ground)

    def plan(self, rps: float) -> FleetPlan:
        """The fleet for a rate, with all that is to be said of it."""
        required = rps * (1 + self._task.headroom)
        found = self._ground.search.plan(required)
        if found is None:
            return FleetPlan(
                rps=rps,
                required_rps=required,
                why_not=self._reasons.why_not(required),
                losers=self._reasons.losers(None),
            )
        over = self._task.max_price is not None and found.cost > self._task.max_price + 1e-9
        if over:
            currency = self._ground.all[0].currency
            why = (
                f"the cheapest fleet, {self._reasons.words(found.counts)}, costs {format_hourly(found.cost, currency)} "
                f"an hour, more than the {format_hourly(self._task.max_price or 0.0, currency)} allowed"
            )
            return FleetPlan(rps=rps, required_rps=required, why_not=why, losers=self._reasons.losers(found))
        self._task.say("what would break it")
        return FleetPlan(
            rps=rps,
            required_rps=required,
            rows=self._ground.rows_of(found.counts),
            cost_per_hour=found.cost,
            cost_interval=self._reasons.interval(found, required),
            cost_per_100k=found.cost / 3600 / rps * 100_000,
            prediction=prediction_of(required, found.verdict),
            after_losses=self._reasons.after_losses(found.counts, required),
            least_cost=found.least,
            solver_gap=found.gap,
            simulated_fleets=found.simulated,
            binds=self._reasons.binds(found, required),
            runner_ups=self._reasons.runner_ups(found),
            losers=self._reasons.losers(found),
            sensitivity=self._reasons.sensitivity(found, required),
        )

    def schedule(self, demand: Demand, name: str) -> Schedule:
        """The cheapest fleet for each slot of a day. ValueError where one has none."""
        made: dict[float, Found] = {}
        slots = []
        for slot in sorted(demand.slots, key=lambda slot: -slot.rps):
            required = slot.rps * (1 + self._task.headroom)
            if required > 0 and required not in made:
                found = self._ground.search.plan(required)
                if found is None:
                    raise ValueError(f"{slot.name}, {slot.rps:g} requests/s: {self._reasons.why_not(required)}")
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
                    rows=self._ground.rows_of(found.counts),
                    cost=found.cost * slot.hours,
                    latency_us=percentiles_of(found.verdict),
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
