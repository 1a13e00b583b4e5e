"""The highest simulated rate at which a pool meets an SLO."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from capacity.errors import InputError
from capacity.simulation.arrivals import arrival_times
from capacity.simulation.pool import Pool, SimulationResult, simulate
from capacity.statistics import CONFIDENCE, Slo, samples_needed

#: Blocks of consecutive requests, which depend on one another far less than single requests do (batch means).
_BLOCKS = 20
#: The search ends when its bounds are this close, as a share of the rate.
_PRECISION = 0.004
_MAX_PROBES = 40


@dataclass(frozen=True)
class HighestRate:
    """The highest simulated rate that met the SLO and the lowest that missed it, in requests a second.

    `met_rps` is 0 where no rate met it, and `missed_rps` inf where none missed it. `interval` holds the true bound
    with 95 % confidence, as far as the simulated sample's size goes.
    """

    met_rps: float
    missed_rps: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class SimulatedShare:
    """The share of simulated requests beyond one bound of an SLO, its 95 % interval, and the share `allowed`; 0 to 1.

    The interval may reach below 0 or above 1.
    """

    low: float
    share: float
    high: float
    allowed: float


@dataclass(frozen=True)
class _Probe:
    """A simulated rate and the logarithm of (share beyond the SLO / share allowed): estimate and ends of its interval.

    Above 0 the SLO is missed.
    """

    rate: float
    low: float
    excess: float
    high: float


def find_highest_rate(
    pool: Pool, slo: Slo, *, requests: int = 100_000, seed: int = 1, pattern: str = "poisson"
) -> HighestRate:
    """Searches the highest rate at which the pool meets the SLO, with `requests` simulated requests at each rate.

    Every rate has the same random numbers, so that rates differ by nothing else. Assumes that a higher rate is never
    better; batching can break this where its delay and not the load makes the latency. A pool that sheds no load has
    no rate above its saturation. Raises InputError for fewer requests than the SLO's percentiles need.
    """
    needed = max((samples_needed(p) for p, _ in slo.bounds), default=1)
    if requests < 2 * needed:
        raise InputError(f"{slo} needs at least {2 * needed} requests at each rate, not {requests}")
    # Arrivals of one seed are the same at every rate but for their scale.
    unit_times = arrival_times(pattern, 1.0, n=requests, seed=seed)

    def probe(rate: float) -> _Probe:
        return _judge(rate, simulate(pool, unit_times / rate, seed), slo)

    top = pool.saturation_rps
    probes = [probe(top / 2)]
    # Down to a rate that surely meets the SLO, then up to one that misses it.
    while probes[0].high > 0 and len(probes) < _MAX_PROBES and probes[0].rate > top / 2**10:
        probes.insert(0, probe(probes[0].rate / 2))
    while probes[-1].excess <= 0 and probes[-1].rate < (8 * top if pool.sheds_load else top):
        probes.append(probe(min(2 * probes[-1].rate, math.inf if pool.sheds_load else top)))
    below = max((one for one in probes if one.excess <= 0), key=lambda one: one.rate, default=None)
    above = min((one for one in probes if one.excess > 0), key=lambda one: one.rate, default=None)
    if below is None:
        lowest = min(one.rate for one in probes)
        return HighestRate(0.0, lowest, (0.0, lowest))
    if above is None:
        return HighestRate(below.rate, math.inf if pool.sheds_load else top, (below.rate, below.rate))
    while above.rate - below.rate > _PRECISION * above.rate and len(probes) < _MAX_PROBES:
        middle = probe(_between(below, above, bisect=len(probes) % 4 == 3))
        probes.append(middle)
        below, above = (middle, above) if middle.excess <= 0 else (below, middle)
    probes.sort(key=lambda one: one.rate)
    ends = _crossing(probes, [one.high for one in probes]), _crossing(probes, [one.low for one in probes])
    return HighestRate(below.rate, above.rate, (min(ends[0], below.rate), max(ends[1], above.rate)))


def _between(below: _Probe, above: _Probe, bisect: bool) -> float:
    """The rate at which the line between two probes crosses 0, moved a little towards the farther one, so that both
    bounds come near it."""
    width = above.rate - below.rate
    if bisect or not (math.isfinite(below.excess) and math.isfinite(above.excess)):
        return below.rate + width / 2
    share = below.excess / (below.excess - above.excess)
    share += (0.45 if share < 0.5 else -0.45) * _PRECISION * above.rate / width
    return below.rate + min(max(share, 0.02), 0.98) * width


def _crossing(probes: Sequence[_Probe], excesses: Sequence[float]) -> float:
    """The rate at which the excess first rises above 0, by interpolation between ascending probes."""
    for i, (probe, excess) in enumerate(zip(probes, excesses, strict=True)):
        if excess > 0:
            if i == 0:
                return 0.0
            before = excesses[i - 1]
            share = before / (before - excess) if math.isfinite(before) and math.isfinite(excess) else 0.5
            return probes[i - 1].rate + share * (probe.rate - probes[i - 1].rate)
    return probes[-1].rate


def simulated_shares(result: SimulationResult, slo: Slo) -> list[SimulatedShare]:
    """Returns the share beyond each bound of the SLO, failed requests last where the SLO bounds them.

    Over the settled requests; the interval is Student's t over blocks of consecutive requests.
    """
    latency = result.settled_us()
    parts = [(latency > bound_ns / 1000, 1 - percentile / 100) for percentile, bound_ns in slo.bounds]
    if slo.max_error_rate is not None:
        parts.append((~np.isfinite(latency), slo.max_error_rate))
    return [SimulatedShare(*_share_interval(beyond), allowed) for beyond, allowed in parts]


def _judge(rate: float, result: SimulationResult, slo: Slo) -> _Probe:
    """The probe by the worst of the SLO's bounds."""
    # None of n beyond still leaves a share of 3 / n possible (the rule of three).
    least_high = 3 / result.settled_us().size
    excesses = [
        tuple(_log_ratio(share, bound.allowed) for share in (bound.low, bound.share, max(bound.high, least_high)))
        for bound in simulated_shares(result, slo)
    ]
    return _Probe(rate, *(max(bound[i] for bound in excesses) for i in range(3)))


def _share_interval(beyond: NDArray[np.bool_]) -> tuple[float, float, float]:
    """The share with its 95 % interval: lower end, estimate, upper end."""
    share = float(beyond.mean())
    blocks = np.array([block.mean() for block in np.array_split(beyond, _BLOCKS)])
    error = float(blocks.std(ddof=1)) / math.sqrt(_BLOCKS)
    half = float(stdtrit(_BLOCKS - 1, (1 + CONFIDENCE) / 2)) * error
    return share - half, share, share + half


def _log_ratio(share: float, allowed: float) -> float:
    if share <= 0:
        return -math.inf
    return math.log(share / allowed) if allowed > 0 else math.inf
