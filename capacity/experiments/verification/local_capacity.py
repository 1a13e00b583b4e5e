"""How large a fleet this machine can run, and the share of a plan that fits."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from capacity.errors import InputError
from capacity.planning import Counts, PlanningProblem, PoolPrediction

# What a core can run beside the generator without becoming the limit itself.
_WORKERS_PER_CORE, _RPS_PER_CORE = 8, 200.0
# Bisections between a rate that meets the SLO and one that misses it.
_BISECTIONS = 8


@dataclass(frozen=True)
class LocalCapacity:
    """How many workers this machine can run, and at how many requests a second, without being the limit itself."""

    workers: int
    rps: float

    @classmethod
    def of_this_machine(cls) -> LocalCapacity:
        """Returns the capacity by the cores that this process may use."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cls(_WORKERS_PER_CORE * cores, _RPS_PER_CORE * cores)


def scale_fleet(counts: Counts, ordinals: Sequence[int], rate: float, capacity: LocalCapacity) -> tuple[Counts, float]:
    """Returns the fleet, or as large a share of it as this machine can run, and the share.

    `ordinals` has the ordinals of one instance of each option. Raises InputError where not one instance fits.
    """
    workers = sum(count * each for count, each in zip(counts, ordinals, strict=True))
    share = min(1.0, capacity.workers / workers, capacity.rps / rate)
    if share == 1.0:
        return counts, 1.0
    scaled = [math.floor(count * share) for count in counts]
    if not any(scaled):
        largest = max(range(len(counts)), key=lambda number: counts[number] * ordinals[number])
        scaled[largest] = 1
    needed = sum(count * each for count, each in zip(scaled, ordinals, strict=True))
    if needed > capacity.workers:
        raise InputError(
            f"this plan cannot be verified here: one instance is {needed} workers, and this machine runs at most "
            f"{capacity.workers}"
        )
    return tuple(scaled), share


def scaled_rate(
    problem: PlanningProblem, counts: Counts, planned: Counts, rate: float, capacity: LocalCapacity
) -> tuple[float, PoolPrediction]:
    """Returns the rate for a fleet and the prediction at it: the plan's rate, or that of a scaled fleet.

    The rate of a scaled fleet is at most in proportion to its capacity, and meets the SLO in the simulation. Raises
    InputError where no rate does.
    """
    pools = problem.pools
    if counts == planned:
        return rate, pools.predict(counts, rate)
    own, whole = (
        sum(count * pools.saturation_rate(number) for number, count in enumerate(fleet)) for fleet in (counts, planned)
    )
    high = min(capacity.rps, rate * own / whole)
    prediction = pools.predict(counts, high)
    if prediction.meets_slo:
        return high, prediction
    low, best = 0.0, prediction
    for _bisection in range(_BISECTIONS):
        middle = (low + high) / 2
        prediction = pools.predict(counts, middle)
        low, high, best = (middle, high, prediction) if prediction.meets_slo else (low, middle, best)
    if low == 0.0:
        raise InputError("this plan cannot be verified here: the part of it that fits meets the SLO at no rate")
    return low, best
