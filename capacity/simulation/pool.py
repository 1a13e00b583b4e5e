"""A pool of ordinals behind a router, simulated from profiles: its latencies, and its highest rate within an SLO."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from capacity.simulation.arrivals import arrivals, sourced
from capacity.simulation.distribution import SIZE
from capacity.simulation.engines import play
from capacity.simulation.profile import Profile
from capacity.simulation.queue_work import OK, Batching, Floats, Ints, Work
from capacity.statistics import Slo, samples_needed

__all__ = ["Batching", "Outcome", "Pool", "RateWithin", "Router", "arrivals", "highest_rate", "simulate", "sourced"]

Router = Literal["pinned", "random", "round-robin", "least-outstanding"]

#: Share of the requests, at the start, that find the pool emptier than those after them.
_WARMUP = 0.1
#: Blocks of consecutive requests, whose spread tells how far a share is off in spite of its dependence on time.
_BLOCKS = 20
_CONFIDENCE = 0.95
#: The search ends when its bounds are this close.
_CLOSE = 0.004
_MOST_PROBES = 40


NO_BATCHING = Batching()


@dataclass(frozen=True)
class Pool:
    """Ordinals behind one generator with `router`, as --router has it; `deadline_us` counts from a request's due time.

    `failures` has windows (ordinal, from_s, to_s): what runs or waits there is lost, and what comes meanwhile is
    refused at once. A router that is not pinned goes around it from `noticed_s` after the failure until its end: a
    killed worker is noticed in some 20 ms, one that hangs in 0.7 s.
    """

    profiles: tuple[Profile, ...]
    router: Router = "least-outstanding"
    batching: Batching = NO_BATCHING
    deadline_us: float = math.inf
    failures: tuple[tuple[int, float, float], ...] = ()
    noticed_s: float = 0.02

    def __post_init__(self) -> None:
        if not self.profiles:
            raise ValueError("a pool has at least one ordinal")
        if self.router not in get_args(Router):
            raise ValueError(f"a router is one of {', '.join(get_args(Router))}, not '{self.router}'")
        if not self.deadline_us > 0:
            raise ValueError(f"a deadline lies after the request is due, not {self.deadline_us:g} µs")
        if not self.noticed_s >= 0:
            raise ValueError(f"a failure is noticed after it began, not {self.noticed_s:g} s later")
        for ordinal, begin, end in self.failures:
            if not 0 <= ordinal < len(self.profiles) or not begin < end:
                raise ValueError(
                    f"a failure is of an ordinal of the pool and ends after it began, not {ordinal, begin, end}"
                )

    @property
    def saturation_rps(self) -> float:
        """The highest throughput that its ordinals have together, if each has what it can take."""
        return sum(profile.saturation_rps(self.batching.max_size) for profile in self.profiles)


@dataclass(frozen=True)
class Outcome:
    """Of each request, shapes (n,): latency in µs, inf where it failed; gRPC code; ordinal; rows of its pass, 0 where
    it never ran. `busy_share`, shape (k,), is the part of the time that passes held each ordinal; `passes` counts them
    by size."""

    latency_us: Floats
    code: NDArray[np.int8]
    worker: NDArray[np.int32]
    batch_sizes: NDArray[np.int32]
    busy_share: Floats
    passes: dict[int, int]

    def settled(self, share: float = _WARMUP) -> Floats:
        """Latencies without those of the first requests, which find the pool emptier than it will be."""
        return self.latency_us[int(share * self.latency_us.size) :]

    def percentile_us(self, p: float) -> float:
        """The p-th percentile of settled latencies in µs, failed ones beyond all; inf where it falls among those."""
        return float(np.percentile(self.settled(), p, method="inverted_cdf"))

    @property
    def failed_share(self) -> float:
        """Requests without an answer, of all."""
        return float(np.mean(self.code != OK)) if self.code.size else 0.0


def simulate(pool: Pool, arrivals_s: Floats, seed: int, sources: Ints | None = None) -> Outcome:
    """What these requests, due at `arrivals_s` (ascending, shape (n,)), meet.

    `sources`, shape (n,), says which Locust user each is of, where the router is pinned: user i goes to ordinal i
    modulo their number. Without it users have equal shares and independent times. ValueError on times that fall.
    """
    due = np.asarray(arrivals_s, dtype=np.float64) * 1e6
    if due.ndim != 1 or (due.size and (due[0] < 0 or (np.diff(due) < 0).any())):
        raise ValueError("requests are due at ascending times, in seconds from 0")
    generator = np.random.default_rng(seed)
    quantile, overhead_quantile = generator.integers(0, SIZE, (2, due.size))
    profiles, routes = pool.profiles, _routes(pool, due.size, generator, sources)
    played = play(
        Work(
            due=due,
            quantile=quantile,
            overhead_quantile=overhead_quantile,
            passes=lambda ordinal, rows: profiles[ordinal].pass_of(rows).values,
            overheads=[profile.overhead.values for profile in profiles],
            routes=routes,
            batching=pool.batching,
            deadline=pool.deadline_us,
            down=tuple((ordinal, begin * 1e6, end * 1e6) for ordinal, begin, end in pool.failures),
            noticed=math.inf if pool.router == "pinned" else pool.noticed_s * 1e6,
            around=_around(pool, routes, overhead_quantile),
        )
    )
    answered = played.latency[played.code == OK]
    ends = float((due[played.code == OK] + answered).max()) if answered.size else math.inf
    return Outcome(
        played.latency, played.code, played.worker, played.rows, played.busy_us / max(ends, 1.0), played.passes
    )


def _routes(pool: Pool, n: int, generator: np.random.Generator, sources: Ints | None) -> Ints | None:
    k = len(pool.profiles)
    if pool.router == "least-outstanding" and k > 1:
        return None
    if pool.router == "pinned" and sources is not None:
        return np.asarray(sources, np.int64) % k
    if pool.router == "round-robin":
        # The product's turn begins with the second target.
        return np.arange(1, n + 1) % k
    return generator.integers(0, k, n)


def _around(pool: Pool, routes: Ints | None, drawn: Ints) -> Callable[[int, Sequence[int]], int] | None:
    """What a router that does not look at the pool does where some ordinals are down. `drawn` are numbers at random."""
    if routes is None or not pool.failures:
        return None
    if pool.router == "round-robin":
        return lambda i, up: up[(i + 1) % len(up)]
    return lambda i, up: int(routes[i]) if routes[i] in up else up[int(drawn[i]) % len(up)]


@dataclass(frozen=True)
class RateWithin:
    """The highest simulated rate that met the SLO and the lowest that did not, in requests a second; 0 where none did.

    `interval` holds the true bound with 95 % confidence, as far as the sample's size goes. `failing_rps` is inf where
    nothing tried was too much.
    """

    passing_rps: float
    failing_rps: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class _Probe:
    """The logarithm of how much of what the SLO allows was used at a rate: the estimate, and its interval's ends."""

    rate: float
    low: float
    used: float
    high: float


def highest_rate(pool: Pool, slo: Slo, *, requests: int = 100_000, seed: int = 1, kind: str = "poisson") -> RateWithin:
    """The highest rate at which the pool meets the SLO, by simulating `requests` requests at each rate that is tried.

    Every rate has the same random numbers, so that what is compared differs by its rate alone. Assumes that a higher
    rate is never better, which batching can break where its delay and not the load makes the latency. A pool that
    refuses nothing has no rate above its saturation. ValueError for fewer requests than the SLO's percentiles need.
    """
    needed = max((samples_needed(p) for p, _ in slo.bounds), default=1)
    if requests < 2 * needed:
        raise ValueError(f"{slo} needs at least {2 * needed} requests at each rate, not {requests}")
    # Arrivals of one seed are those of any rate but for their scale.
    unit = arrivals(kind, 1.0, n=requests, seed=seed)

    def probe(rate: float) -> _Probe:
        return _judged(rate, simulate(pool, unit / rate, seed), slo)

    top = pool.saturation_rps
    sheds = pool.batching.queue_limit is not None or math.isfinite(pool.deadline_us) or bool(pool.failures)
    probes = [probe(top / 2)]
    # Down to a rate that surely meets it, then up to one that does not.
    while probes[0].high > 0 and len(probes) < _MOST_PROBES and probes[0].rate > top / 2**10:
        probes.insert(0, probe(probes[0].rate / 2))
    while probes[-1].used <= 0 and probes[-1].rate < (8 * top if sheds else top):
        probes.append(probe(min(2 * probes[-1].rate, math.inf if sheds else top)))
    below = max((one for one in probes if one.used <= 0), key=lambda one: one.rate, default=None)
    above = min((one for one in probes if one.used > 0), key=lambda one: one.rate, default=None)
    if below is None:
        return RateWithin(0.0, min(one.rate for one in probes), (0.0, min(one.rate for one in probes)))
    if above is None:
        return RateWithin(below.rate, top if not sheds else math.inf, (below.rate, below.rate))
    while above.rate - below.rate > _CLOSE * above.rate and len(probes) < _MOST_PROBES:
        found = probe(_between(below, above, halve=len(probes) % 4 == 3))
        probes.append(found)
        below, above = (found, above) if found.used <= 0 else (below, found)
    probes.sort(key=lambda one: one.rate)
    ends = _crossing(probes, [one.high for one in probes]), _crossing(probes, [one.low for one in probes])
    return RateWithin(below.rate, above.rate, (min(ends[0], below.rate), max(ends[1], above.rate)))


def _between(below: _Probe, above: _Probe, halve: bool) -> float:
    """Where the line between two probes crosses, a little to the farther side, so that both bounds come near."""
    wide = above.rate - below.rate
    if halve or not (math.isfinite(below.used) and math.isfinite(above.used)):
        return below.rate + wide / 2
    near = below.used / (below.used - above.used)
    near += (0.45 if near < 0.5 else -0.45) * _CLOSE * above.rate / wide
    return below.rate + min(max(near, 0.02), 0.98) * wide


def _crossing(probes: Sequence[_Probe], used: Sequence[float]) -> float:
    """The rate at which as much is used as is allowed, between the probes."""
    for i, (one, value) in enumerate(zip(probes, used, strict=True)):
        if value > 0:
            if i == 0:
                return 0.0
            before = used[i - 1]
            share = before / (before - value) if math.isfinite(before) and math.isfinite(value) else 0.5
            return probes[i - 1].rate + share * (one.rate - probes[i - 1].rate)
    return probes[-1].rate


def _judged(rate: float, outcome: Outcome, slo: Slo) -> _Probe:
    """The worst of the SLO's parts. A share's interval is Student's over blocks of consecutive requests."""
    latency = outcome.settled()
    parts = [(latency > bound_ns / 1000, 1 - percentile / 100) for percentile, bound_ns in slo.bounds]
    if slo.max_error_rate is not None:
        parts.append((~np.isfinite(latency), slo.max_error_rate))
    found = [
        (_log(low, allowed), _log(share, allowed), _log(high, allowed))
        for low, share, high, allowed in ((*_share(missed), allowed) for missed, allowed in parts)
    ]
    return _Probe(rate, *(max(one[i] for one in found) for i in range(3)))


def _share(missed: NDArray[np.bool_]) -> tuple[float, float, float]:
    share = float(missed.mean())
    blocks = np.array([block.mean() for block in np.array_split(missed, _BLOCKS)])
    spread = float(blocks.std(ddof=1)) / math.sqrt(_BLOCKS)
    wide = float(stats.t.ppf((1 + _CONFIDENCE) / 2, _BLOCKS - 1)) * spread
    # None missed of n still leaves a share of 3 / n (the rule of three).
    return max(share - wide, 0.0), share, max(share + wide, 3 / missed.size)


def _log(share: float, allowed: float) -> float:
    if share == 0:
        return -math.inf
    return math.log(share / allowed) if allowed > 0 else math.inf
