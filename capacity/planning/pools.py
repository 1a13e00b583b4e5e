"""Pools made of offers, simulated for the search: does one hold an SLO at a rate, and how much does it carry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from capacity.planning.fleet_search import Counts, Verdict
from capacity.planning.offers import Offer
from capacity.simulation import (
    Batching,
    Pool,
    Profile,
    Router,
    SimulationResult,
    arrival_times,
    find_highest_rate,
    simulate,
)
from capacity.statistics import Slo, samples_needed

PERCENTILES = (50.0, 90.0, 95.0, 99.0)
# Consecutive requests depend on one another; blocks of this many of them together, much less.
_BLOCKS = 20
_CONFIDENCE = 0.95
# A first look tells hopeless pools from the others.
_FIRST = 6_000
_LEAST = 40_000
# Requests beyond the bound that a share is told from, and requests for each ordinal until a pool has settled.
_BEYOND = 1_000
_EACH = 60
_SEARCHED = 20_000
# Nearer to saturation no run is long enough to tell.
_STABLE = 0.999


@dataclass(frozen=True)
class Service:
    """How a fleet is asked to serve: the SLO, the router, the batching of its workers, the deadline of a request."""

    slo: Slo
    router: Router = "least-outstanding"
    batching: Batching = field(default_factory=Batching)
    deadline_us: float = math.inf
    seed: int = 1


class Pools:
    """The search's oracle: the same seed gives every pool and rate the same random numbers."""

    def __init__(self, offers: Sequence[Offer], service: Service) -> None:
        self._offers = list(offers)
        self.service = service
        self._highest: dict[tuple[int, int], float] = {}
        self._verdicts: dict[tuple[Counts, float], Verdict] = {}
        # In another market an instance is the same.
        alike: dict[tuple[int, int], int] = {}
        self._alike = [alike.setdefault((id(o.profile), o.ordinals), at) for at, o in enumerate(self._offers)]
        self._units: dict[int, NDArray[np.float64]] = {}

    @property
    def allowed(self) -> tuple[float, ...]:
        """The share of requests that may be beyond each bound."""
        return tuple(1 - percentile / 100 for percentile, _bound in self.service.slo.bounds)

    @property
    def pooled(self) -> bool:
        """Whether one more ordinal never hurts."""
        return self.service.router == "least-outstanding"

    def pool(self, counts: Counts) -> Pool:
        """The ordinals of so many instances of each offer behind the router."""
        profiles: list[Profile] = []
        for offer, count in zip(self._offers, counts, strict=True):
            profiles += [offer.profile] * (offer.ordinals * count)
        return Pool(tuple(profiles), self.service.router, self.service.batching, self.service.deadline_us)

    def ceiling(self, option: int) -> float:
        """The rate of one instance that is never idle."""
        offer = self._offers[option]
        return offer.ordinals * offer.profile.saturation_rps(self.service.batching.max_size)

    def over(self, option: int) -> tuple[float, ...]:
        """The share of requests beyond each bound by their pass and overhead alone."""
        profile = self._offers[option].profile
        alone = profile.pass_time(profile.sizes[0]).table_us
        # Every pass with every overhead, thinned out: the two are drawn independently.
        sums = alone[7::64, None] + profile.overhead.table_us[None, 7::64]
        return tuple(float((sums > bound / 1000).mean()) for _percentile, bound in self.service.slo.bounds)

    def highest(self, option: int, count: int) -> float:
        """The low end of what a pool of one offer carries; where the router is blind to load, its parts add up."""
        key = self._alike[option], count
        if key not in self._highest:
            self._highest[key] = self._search(*key)
        return self._highest[key]

    def _search(self, option: int, count: int) -> float:
        offer, service = self._offers[option], self.service
        if any(over > allowed for over, allowed in zip(self.over(option), self.allowed, strict=True)):
            return 0.0
        if service.router in ("random", "pinned") and (count > 1 or offer.ordinals > 1):
            alone = replace(offer, instance=replace(offer.instance, count=1))
            return count * offer.ordinals * Pools([alone], service).highest(0, 1)
        pool = self.pool(tuple(count if at == option else 0 for at in range(len(self._offers))))
        needed = max((2 * samples_needed(p) for p, _bound in service.slo.bounds), default=1)
        requests = max(_SEARCHED, needed, 40 * len(pool.profiles))
        return find_highest_rate(pool, service.slo, requests=requests, seed=service.seed).interval[0]

    def verdict(self, counts: Counts, rate: float) -> Verdict:
        """Of a pool at a rate: it holds where the upper end of every share beyond a bound is still allowed."""
        same = [0] * len(counts)
        for at, count in enumerate(counts):
            same[self._alike[at]] += count
        key = tuple(same), rate
        if key not in self._verdicts:
            self._verdicts[key] = self._verdict(*key)
        return self._verdicts[key]

    def _verdict(self, counts: Counts, rate: float) -> Verdict:
        pool = self.pool(counts)
        sheds = self.service.batching.queue_limit is not None or math.isfinite(self.service.deadline_us)
        if not sheds and rate > _STABLE * pool.saturation_rps:
            return Verdict(False)
        size = len(pool.profiles)
        first = max(_FIRST, 30 * size)
        least = max((_BEYOND / (1 - p / 100) for p, _bound in self.service.slo.bounds), default=_LEAST)
        whole = int(max(_LEAST, min(least, 200_000), _EACH * size))
        if first < whole // 2:
            outcome = self.outcome(pool, rate, first)
            if any(low > allowed for low, _high, allowed in self._shares(outcome)):
                return self._told(outcome, False)
        outcome = self.outcome(pool, rate, whole)
        return self._told(outcome, all(high <= allowed for _low, high, allowed in self._shares(outcome)))

    def outcome(self, pool: Pool, rate: float, requests: int) -> SimulationResult:
        """What so many Poisson arrivals at a rate meet."""
        if requests not in self._units:
            self._units[requests] = arrival_times("poisson", 1.0, n=requests, seed=self.service.seed)
        return simulate(pool, self._units[requests] / rate, self.service.seed)

    def _shares(self, outcome: SimulationResult) -> list[tuple[float, float, float]]:
        """The interval of each share beyond a bound, and the share that is allowed."""
        settled, slo = outcome.settled_us(), self.service.slo
        parts = [(settled > bound / 1000, 1 - percentile / 100) for percentile, bound in slo.bounds]
        if slo.max_error_rate is not None:
            parts.append((~np.isfinite(settled), slo.max_error_rate))
        return [(*_interval(missed), allowed) for missed, allowed in parts]

    def _told(self, outcome: SimulationResult, holds: bool) -> Verdict:
        values = ((p, outcome.percentile_us(p)) for p in PERCENTILES)
        return Verdict(
            holds,
            tuple((p, value if math.isfinite(value) else None) for p, value in values),
            float(outcome.busy_share.mean()),
            int(outcome.latency_us.size),
        )


def _interval(missed: NDArray[np.bool_]) -> tuple[float, float]:
    """Ends of the interval of a share, by Student's t over blocks of consecutive requests."""
    blocks = np.array([block.mean() for block in np.array_split(missed, _BLOCKS)])
    half = float(stdtrit(_BLOCKS - 1, (1 + _CONFIDENCE) / 2)) * float(blocks.std(ddof=1)) / math.sqrt(_BLOCKS)
    share = float(missed.mean())
    return share - half, share + half
