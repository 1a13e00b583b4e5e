"""Plans: the fleet for each rate, a schedule for a day, and both together as a plan file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from capacity.errors import InputError
from capacity.planning.cost_curves import cost_curves
from capacity.planning.demand import Demand
from capacity.planning.explanations import FleetExplanations
from capacity.planning.optimizer import FleetSolution
from capacity.planning.plan_file import FleetPlan, PlanFile, Schedule, SlotPlan
from capacity.planning.problem import PlanningProblem, plan_percentiles, plan_prediction
from capacity.pricing import Catalogue, format_hourly
from capacity.rundir import Run


class Planner:
    """Plans fleets for several rates, or a day, of one problem; simulations for one rate serve the others."""

    def __init__(self, problem: PlanningProblem) -> None:
        self._problem, self._requirements = problem, problem.requirements
        self._explanations = FleetExplanations(problem)

    def _required(self, rps: float) -> float:
        return rps * (1 + self._requirements.headroom)

    def plan(self, rps: float) -> FleetPlan:
        """Returns the cheapest fleet for a rate with its explanations, or the reason why there is none."""
        required = self._required(rps)
        explanations = self._explanations
        solution = self._problem.search.solve(required)
        reason = self._reason_against(solution, required)
        if solution is None or reason:
            excluded = explanations.excluded(solution)
            return FleetPlan(rps=rps, required_rps=required, reason=reason, excluded=excluded)
        self._requirements.progress("what would change the fleet")
        return FleetPlan(
            rps=rps,
            required_rps=required,
            rows=self._problem.rows(solution.counts),
            cost_per_hour=solution.cost,
            cost_interval=explanations.cost_interval(solution, required),
            cost_per_100k=solution.cost / 3600 / rps * 100_000,
            prediction=plan_prediction(required, solution.prediction),
            after_losses=explanations.after_losses(solution.counts, required),
            cost_lower_bound=solution.cost_lower_bound,
            solver_gap=solution.solver_gap,
            simulated_fleets=solution.simulated_fleets,
            constraints=explanations.constraints(solution, required),
            alternatives=explanations.alternatives(solution),
            excluded=explanations.excluded(solution),
            sensitivity=explanations.sensitivity(solution, required),
        )

    def _reason_against(self, solution: FleetSolution | None, required: float) -> str:
        """Why there is no fleet for a rate; empty where there is one."""
        if solution is None:
            return self._explanations.no_fleet_reason(required)
        max_price = self._requirements.max_price
        if max_price is None or solution.cost <= max_price + 1e-9:
            return ""
        currency = self._problem.offers[0].currency
        return (
            f"the cheapest fleet, {self._explanations.describe(solution.counts)}, costs "
            f"{format_hourly(solution.cost, currency)} an hour, more than the "
            f"{format_hourly(max_price, currency)} allowed"
        )

    def plan_day(self, demand: Demand, name: str) -> Schedule:
        """Returns the cheapest fleet for each slot of a day. Raises InputError where a slot has none."""
        solutions: dict[float, FleetSolution] = {}
        for slot in sorted(demand.slots, key=lambda slot: -slot.rps):
            if slot.rps > 0 and slot.rps not in solutions:
                required = self._required(slot.rps)
                solution = self._problem.search.solve(required)
                if solution is None:
                    reason = self._explanations.no_fleet_reason(required)
                    raise InputError(f"{slot.name}, {slot.rps:g} requests/s: {reason}")
                solutions[slot.rps] = solution
        slots = []
        for slot in demand.slots:
            if slot.rps == 0:
                slots.append(SlotPlan(start=slot.name, hours=slot.hours, rps=0.0, cost=0.0))
                continue
            solution = solutions[slot.rps]
            slots.append(
                SlotPlan(
                    start=slot.name,
                    hours=slot.hours,
                    rps=slot.rps,
                    rows=self._problem.rows(solution.counts),
                    cost=solution.cost * slot.hours,
                    latency_us=plan_percentiles(solution.prediction),
                    solver_gap=solution.solver_gap,
                )
            )
        return Schedule(
            demand=name,
            slots=slots,
            cost_per_day=sum(slot.cost for slot in slots),
            peak_cost=solutions[demand.peak_rps].cost * 24,
            cost_lower_bound=sum(
                solutions[slot.rps].cost_lower_bound * slot.hours for slot in demand.slots if slot.rps > 0
            ),
            solver_gap=max(solution.solver_gap for solution in solutions.values()),
        )


def make_plan_file(
    problem: PlanningProblem,
    runs: Sequence[Run],
    rates: Sequence[float],
    catalogue: Catalogue,
    *,
    demand: Demand | None = None,
    demand_name: str = "",
    markets: Sequence[str] = (),
    limits: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> PlanFile:
    """Plans all `rates`, in requests a second, and the day of `demand`, and returns the plan file with its conditions.

    `limits` and `notes` are recorded as they are; those of the selection follow. Raises InputError as `plan_day` does.
    """
    selection, requirements, offers = problem.selection, problem.requirements, problem.offers
    planner = Planner(problem)
    schedule = planner.plan_day(demand, demand_name) if demand else None
    plans = [planner.plan(rps) for rps in sorted(rates)]
    batching = requirements.service.batching
    return PlanFile(
        created=datetime.now(UTC).replace(microsecond=0),
        model=selection.model,
        slo=str(requirements.service.slo),
        router=requirements.service.router,
        batching=f"up to {batching.max_size} rows, {batching.delay_us:g} µs" if batching.max_size > 1 else "",
        headroom=requirements.headroom,
        survive=requirements.survive,
        markets=list(markets),
        limits=list(limits),
        runs=[str(run.directory) for run in runs],
        simulated=any(offer.simulated for offer in offers),
        currency=offers[0].currency if offers else catalogue.currency,
        region=catalogue.region,
        prices_as_of=catalogue.date,
        price_notes=list(
            dict.fromkeys(
                f"{offer.name}: {offer.price:g} {offer.currency} an hour ({offer.price_note})" for offer in offers
            )
        ),
        seed=requirements.service.seed,
        plans=plans,
        schedule=schedule,
        curves=cost_curves(problem, [*rates, *([demand.peak_rps] if demand else [])], plans),
        notes=[*notes, *(f"{remark.label}: {remark.reason}" for step in selection.steps for remark in step.remarks)],
    )
