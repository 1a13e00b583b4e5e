"""A probe as the search sees it: its rates, its verdict, and the shares of requests within the SLO's bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from capacity.statistics import CONFIDENCE, Histogram, Slo, VerdictStatus

#: With fewer expected samples beyond a bound than this, the observed share is too uncertain to be used.
_MIN_EXPECTED_BEYOND = 3
_BATCHES = 10


@dataclass(frozen=True)
class BoundShare:
    """A probe against one bound of the SLO: `required` is the share of requests that must be within the bound, `within`
    the share that was, and `samples` the number of independent samples that the requests are worth."""

    required: float
    within: float
    samples: float


@dataclass(frozen=True)
class ProbeSummary:
    """One probe as the search sees it: planned rate, offered rate and throughput in requests a second, and its verdict.

    A probe is not `valid` where the generator and not the hardware was the limit.
    """

    phase: str
    planned_rps: float
    offered_rps: float
    throughput_rps: float
    verdict: VerdictStatus | None
    shares: tuple[BoundShare, ...] = ()
    saturated: bool = False
    valid: bool = True

    @property
    def likely_met(self) -> bool:
        """Whether the SLO was met, or the probe is inconclusive but its observed shares meet it.

        Where few samples are expected beyond a bound the share does not count: a higher rate soon yields more.
        """
        shares_meet = all(
            share.within >= share.required or share.samples * (1 - share.required) < _MIN_EXPECTED_BEYOND
            for share in self.shares
        )
        return self.verdict == "met" or (self.verdict == "inconclusive" and shares_meet)

    @property
    def confirms(self) -> bool:
        """Whether this is a fresh probe of a rate that had met the SLO before, and it met the SLO again."""
        return self.valid and self.phase == "confirm" and self.verdict == "met"


def bound_shares(slo: Slo, latency: Histogram, lost: int, autocorrelation_time: float) -> tuple[BoundShare, ...]:
    """Returns one share for each bound of the SLO, over answered requests and `lost` ones, which count as beyond all.

    `autocorrelation_time` is the number of consecutive requests that are worth one independent sample.
    """
    total = latency.count + lost
    if not total:
        return ()
    shares = [
        BoundShare(
            p / 100, (latency.count - latency.count_above_us(bound_ns / 1000)) / total, total / autocorrelation_time
        )
        for p, bound_ns in slo.bounds
    ]
    if slo.max_error_rate is not None:
        shares.append(BoundShare(1 - slo.max_error_rate, latency.count / total, float(total)))
    return tuple(shares)


def is_saturated(due: int, answered: int) -> bool:
    """Whether clearly less was answered than was due in the same time.

    The difference must exceed 5 % and two standard deviations of a Poisson count.
    """
    return due - answered > max(0.05 * due, 2 * math.sqrt(due))


def throughput_with_interval(
    counts: Sequence[NDArray[np.int64]], period_s: float
) -> tuple[float, tuple[float, float] | None]:
    """Returns answers a second and its 95 % interval, from each generator's answers per period of `period_s` seconds.

    `counts` has an array of shape (periods,) per generator. The interval is Student's t over the means of ten batches,
    which depend on one another far less than single answers do (batch means: Law and Kelton, Simulation Modeling and
    Analysis). It is None where there are fewer than two periods per batch.
    """
    nonempty = [periods for periods in counts if periods.size]
    if not nonempty:
        return 0.0, None
    rate = sum(float(periods.mean()) for periods in nonempty) / period_s
    length = min(periods.size for periods in nonempty) // _BATCHES * _BATCHES
    if length < 2 * _BATCHES:
        return rate, None
    means = np.sum([periods[:length] for periods in nonempty], axis=0).reshape(_BATCHES, -1).mean(axis=1) / period_s
    half = float(stdtrit(_BATCHES - 1, (1 + CONFIDENCE) / 2) * means.std(ddof=1) / math.sqrt(_BATCHES))
    return rate, (round(max(rate - half, 0.0), 3), round(rate + half, 3))
