"""Planning fleets: the cheapest fleet that meets an SLO at a rate, its explanations, and its verification as data."""

from capacity.planning.demand import Demand
from capacity.planning.offers import Offer, OfferSelection, parse_limits, select_offers
from capacity.planning.optimizer import Counts, PoolPrediction
from capacity.planning.plan_file import (
    Alternative,
    CostCurve,
    FleetPlan,
    PercentileComparison,
    Percentiles,
    PlanFile,
    PlanRow,
    Schedule,
    Verification,
)
from capacity.planning.planner import Planner, make_plan_file
from capacity.planning.problem import FleetRequirements, PlanningProblem, ignore_progress
from capacity.planning.simulated_pools import ServiceConditions, SimulatedPools

__all__ = [
    "Alternative",
    "CostCurve",
    "Counts",
    "Demand",
    "FleetPlan",
    "FleetRequirements",
    "Offer",
    "OfferSelection",
    "PercentileComparison",
    "Percentiles",
    "PlanFile",
    "PlanRow",
    "Planner",
    "PlanningProblem",
    "PoolPrediction",
    "Schedule",
    "ServiceConditions",
    "SimulatedPools",
    "Verification",
    "ignore_progress",
    "make_plan_file",
    "parse_limits",
    "select_offers",
]
