"""The optimizer's pool model by simulation: whether a pool of offers meets an SLO at a rate, and up to which rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from capacity.planning.offers import Offer
from capacity.planning.optimizer import Counts, PoolPrediction
from capacity.simulation import (
    Batching,
    Pool,
    Profile,
    Router,
    SimulationResult,
    arrival_times,
    find_highest_rate,
    simulate,
    simulated_shares,
)
from capacity.statistics import Slo, samples_needed

PERCENTILES = (50.0, 90.0, 95.0, 99.0)
# A first, short simulation rejects pools that are far from meeting the SLO.
_SHORT_REQUESTS = 6_000
_MIN_REQUESTS, _MAX_REQUESTS = 40_000, 200_000
# The expected requests beyond a bound, and the requests per ordinal until a pool has settled.
_REQUESTS_BEYOND = 1_000
_REQUESTS_PER_ORDINAL = 60
_SEARCH_REQUESTS = 20_000
# Nearer to saturation no simulation is long enough.
_MAX_UTILIZATION = 0.999


@dataclass(frozen=True)
class ServiceConditions:
    """How a fleet serves: the SLO, the router, the batching of its workers, and the deadline of a request in µs."""

    slo: Slo
    router: Router = "least-outstanding"
    batching: Batching = field(default_factory=Batching)
    deadline_us: float = math.inf
    seed: int = 1


class SimulatedPools:
    """Predicts pools of offers by simulation. Every pool and rate has the same random numbers, by the seed."""

    def __init__(self, offers: Sequence[Offer], service: ServiceConditions) -> None:
        self._offers = list(offers)
        self.service = service
        self._highest_rates: dict[tuple[int, int], float] = {}
        self._predictions: dict[tuple[Counts, float], PoolPrediction] = {}
        # The same instance in another market is the same in a pool: by option, the first with its profile.
        first: dict[tuple[int, int], int] = {}
        self._representative = [
            first.setdefault((id(offer.profile), offer.ordinals), number) for number, offer in enumerate(self._offers)
        ]
        self._unit_times: dict[int, NDArray[np.float64]] = {}

    @property
    def allowed_shares(self) -> tuple[float, ...]:
        """The share of requests that may be beyond each bound."""
        return tuple(1 - percentile / 100 for percentile, _bound in self.service.slo.bounds)

    @property
    def balances_load(self) -> bool:
        """Whether the router looks at outstanding requests, so that one more ordinal never hurts."""
        return self.service.router == "least-outstanding"

    def pool(self, counts: Counts) -> Pool:
        """Returns the ordinals of so many instances of each offer behind the router."""
        profiles: list[Profile] = []
        for offer, count in zip(self._offers, counts, strict=True):
            profiles += [offer.profile] * (offer.ordinals * count)
        return Pool(tuple(profiles), self.service.router, self.service.batching, self.service.deadline_us)

    def saturation_rate(self, option: int) -> float:
        """Returns the throughput of one instance that is never idle, in requests a second."""
        offer = self._offers[option]
        return offer.ordinals * offer.profile.saturation_rps(self.service.batching.max_size)

    def shares_beyond(self, option: int) -> tuple[float, ...]:
        """Returns the share of requests beyond each bound by their pass and overhead alone."""
        profile = self._offers[option].profile
        pass_us = profile.pass_time(profile.sizes[0]).table_us
        # Every 64th quantile of each with every one of the other: the two are independent.
        sums = pass_us[7::64, None] + profile.overhead.table_us[None, 7::64]
        return tuple(float((sums > bound / 1000).mean()) for _percentile, bound in self.service.slo.bounds)

    def highest_rate(self, option: int, count: int) -> float:
        """Returns the lower end of the highest rate of a pool of one offer, in requests a second.

        Where the router does not look at the load, the rates of its ordinals add up.
        """
        key = self._representative[option], count
        if key not in self._highest_rates:
            self._highest_rates[key] = self._search_highest_rate(*key)
        return self._highest_rates[key]

    def _search_highest_rate(self, option: int, count: int) -> float:
        offer, service = self._offers[option], self.service
        shares = zip(self.shares_beyond(option), self.allowed_shares, strict=True)
        if any(share > allowed for share, allowed in shares):
            return 0.0
        if service.router in ("random", "pinned") and (count > 1 or offer.ordinals > 1):
            one_ordinal = replace(offer, instance=replace(offer.instance, count=1))
            return count * offer.ordinals * SimulatedPools([one_ordinal], service).highest_rate(0, 1)
        pool = self.pool(tuple(count if at == option else 0 for at in range(len(self._offers))))
        needed = max((2 * samples_needed(p) for p, _bound in service.slo.bounds), default=1)
        requests = max(_SEARCH_REQUESTS, needed, 40 * len(pool.profiles))
        return find_highest_rate(pool, service.slo, requests=requests, seed=service.seed).interval[0]

    def predict(self, counts: Counts, rate: float) -> PoolPrediction:
        """Predicts a pool at a rate. It meets the SLO where the upper end of every share beyond a bound is allowed."""
        merged = [0] * len(counts)
        for number, count in enumerate(counts):
            merged[self._representative[number]] += count
        key = tuple(merged), rate
        if key not in self._predictions:
            self._predictions[key] = self._predict(*key)
        return self._predictions[key]

    def _predict(self, counts: Counts, rate: float) -> PoolPrediction:
        pool = self.pool(counts)
        if not pool.sheds_load and rate > _MAX_UTILIZATION * pool.saturation_rps:
            return PoolPrediction(meets_slo=False)
        size = len(pool.profiles)
        short = max(_SHORT_REQUESTS, 30 * size)
        needed = max((_REQUESTS_BEYOND / (1 - p / 100) for p, _bound in self.service.slo.bounds), default=_MIN_REQUESTS)
        requests = int(max(_MIN_REQUESTS, min(needed, _MAX_REQUESTS), _REQUESTS_PER_ORDINAL * size))
        if short < requests // 2:
            result = self.simulate(pool, rate, short)
            if any(bound.low > bound.allowed for bound in simulated_shares(result, self.service.slo)):
                return _prediction(result, meets_slo=False)
        result = self.simulate(pool, rate, requests)
        shares = simulated_shares(result, self.service.slo)
        return _prediction(result, meets_slo=all(bound.high <= bound.allowed for bound in shares))

    def simulate(self, pool: Pool, rate: float, requests: int) -> SimulationResult:
        """Simulates a pool with so many Poisson arrivals at a rate."""
        if requests not in self._unit_times:
            self._unit_times[requests] = arrival_times("poisson", 1.0, n=requests, seed=self.service.seed)
        return simulate(pool, self._unit_times[requests] / rate, self.service.seed)


def _prediction(result: SimulationResult, *, meets_slo: bool) -> PoolPrediction:
    values = ((p, result.percentile_us(p)) for p in PERCENTILES)
    return PoolPrediction(
        meets_slo,
        tuple((p, value if math.isfinite(value) else None) for p, value in values),
        float(result.busy_share.mean()),
        int(result.latency_us.size),
    )
