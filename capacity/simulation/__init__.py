"""A pool of workers as a queue: arrival patterns, profiles of measured service times, the highest rate of a pool."""

from capacity.simulation.arrivals import (
    OPEN_ARRIVALS,
    ArrivalPattern,
    arrival_offsets,
    arrival_times,
    arrival_times_by_source,
)
from capacity.simulation.highest_rate import HighestRate, find_highest_rate, simulated_shares
from capacity.simulation.pool import Pool, Router, SimulationResult, simulate
from capacity.simulation.profile import Profile
from capacity.simulation.queue_work import Batching
from capacity.simulation.trace import TRACE_PREFIX, Arrival, read_trace, trace_offsets

__all__ = [
    "OPEN_ARRIVALS",
    "TRACE_PREFIX",
    "Arrival",
    "ArrivalPattern",
    "Batching",
    "HighestRate",
    "Pool",
    "Profile",
    "Router",
    "SimulationResult",
    "arrival_offsets",
    "arrival_times",
    "arrival_times_by_source",
    "find_highest_rate",
    "read_trace",
    "simulate",
    "simulated_shares",
    "trace_offsets",
]
