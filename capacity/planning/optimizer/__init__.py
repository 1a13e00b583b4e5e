"""The search for the cheapest fleet: integer programs propose fleets, a model of whole pools decides."""

from capacity.planning.optimizer.fleet_search import FleetSearch, FleetSolution
from capacity.planning.optimizer.integer_program import cost_lower_bound
from capacity.planning.optimizer.pool_model import Counts, PoolModel, PoolPrediction, Supply, rising_rates

__all__ = [
    "Counts",
    "FleetSearch",
    "FleetSolution",
    "PoolModel",
    "PoolPrediction",
    "Supply",
    "cost_lower_bound",
    "rising_rates",
]
