"""Simulating a pool of ordinals behind a router, from profiles of measured service times."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from capacity.errors import InputError
from capacity.simulation.distribution import SIZE
from capacity.simulation.engines import simulate_queues
from capacity.simulation.profile import Profile
from capacity.simulation.queue_work import OK, Batching, Floats, Ints, QueueWork

Router = Literal["pinned", "random", "round-robin", "least-outstanding"]

#: The share of requests at the start that is left out: they meet an emptier pool than those after them.
_WARMUP_SHARE = 0.1

NO_BATCHING = Batching()


@dataclass(frozen=True)
class Pool:
    """Ordinals behind one generator. `router` has the values of --router; `deadline_us` counts from the due time.

    `failures` has windows (ordinal, from_s, to_s): requests that are executed or wait there fail, and those that arrive
    meanwhile fail at once. A router that is not pinned avoids the ordinal from `detection_s` after the begin of the
    failure until its end: a killed worker is detected within some 20 ms, one that hangs within 0.7 s.
    """

    profiles: tuple[Profile, ...]
    router: Router = "least-outstanding"
    batching: Batching = NO_BATCHING
    deadline_us: float = math.inf
    failures: tuple[tuple[int, float, float], ...] = ()
    detection_s: float = 0.02

    def __post_init__(self) -> None:
        if not self.profiles:
            raise InputError("a pool needs at least one ordinal")
        if self.router not in get_args(Router):
            raise InputError(f"unknown router '{self.router}' (choose {', '.join(get_args(Router))})")
        if not self.deadline_us > 0:
            raise InputError(f"expected a deadline above 0 µs, not {self.deadline_us:g}")
        if not self.detection_s >= 0:
            raise InputError(f"expected a failure to be detected after at least 0 s, not {self.detection_s:g}")
        for ordinal, begin, end in self.failures:
            if not 0 <= ordinal < len(self.profiles) or not begin < end:
                raise InputError(
                    f"a failure: expected an ordinal of the pool and an end after its begin, not {ordinal, begin, end}"
                )

    @property
    def saturation_rps(self) -> float:
        """The sum of the highest throughputs of its ordinals, in requests a second."""
        return sum(profile.saturation_rps(self.batching.max_size) for profile in self.profiles)

    @property
    def sheds_load(self) -> bool:
        """Whether requests can fail under load, so that rates above saturation have a steady state."""
        return self.batching.queue_limit is not None or math.isfinite(self.deadline_us) or bool(self.failures)


@dataclass(frozen=True)
class SimulationResult:
    """What each request met, shapes (n,): latency in µs (inf where it failed), gRPC status code, ordinal, and the rows
    of its pass (0: never executed).

    `busy_share`, shape (k,), is the share of the time that passes occupied each ordinal; `passes` counts them by size.
    """

    latency_us: Floats
    code: NDArray[np.int8]
    ordinal: NDArray[np.int32]
    batch_sizes: NDArray[np.int32]
    busy_share: Floats
    passes: dict[int, int]

    def settled_us(self, share: float = _WARMUP_SHARE) -> Floats:
        """Returns the latencies without the first `share` of the requests, which meet an emptier pool."""
        return self.latency_us[int(share * self.latency_us.size) :]

    def percentile_us(self, p: float) -> float:
        """Returns the p-th percentile of the settled latencies in µs; inf where it falls among failed requests."""
        return float(np.percentile(self.settled_us(), p, method="inverted_cdf"))

    @property
    def failed_share(self) -> float:
        """The share of all requests that failed."""
        return float(np.mean(self.code != OK)) if self.code.size else 0.0


def simulate(pool: Pool, arrivals_s: Floats, seed: int, sources: Ints | None = None) -> SimulationResult:
    """Simulates requests that are due at `arrivals_s`, ascending, shape (n,).

    `sources`, shape (n,), has the Locust user of each, for a pinned router: user i goes to ordinal i modulo their
    number. Without it each request goes to a random ordinal. Raises InputError where times fall.
    """
    due = np.asarray(arrivals_s, dtype=np.float64) * 1e6
    if due.ndim != 1 or (due.size and (due[0] < 0 or (np.diff(due) < 0).any())):
        raise InputError("expected ascending due times in seconds from 0")
    generator = np.random.default_rng(seed)
    quantile, overhead_quantile = generator.integers(0, SIZE, (2, due.size))
    profiles, routes = pool.profiles, _routes(pool, due.size, generator, sources)
    result = simulate_queues(
        QueueWork(
            due=due,
            quantile=quantile,
            overhead_quantile=overhead_quantile,
            passes=lambda ordinal, rows: profiles[ordinal].pass_time(rows).values,
            overheads=[profile.overhead.values for profile in profiles],
            routes=routes,
            batching=pool.batching,
            deadline_us=pool.deadline_us,
            failures=tuple((ordinal, begin * 1e6, end * 1e6) for ordinal, begin, end in pool.failures),
            detection_us=math.inf if pool.router == "pinned" else pool.detection_s * 1e6,
            reroute=_reroute(pool, routes, overhead_quantile),
        )
    )
    answered = result.code == OK
    end_us = float((due[answered] + result.latency_us[answered]).max()) if answered.any() else math.inf
    return SimulationResult(
        latency_us=result.latency_us,
        code=result.code,
        ordinal=result.ordinal,
        batch_sizes=result.rows,
        busy_share=result.busy_us / max(end_us, 1.0),
        passes=result.passes,
    )


def _routes(pool: Pool, n: int, generator: np.random.Generator, sources: Ints | None) -> Ints | None:
    k = len(pool.profiles)
    if pool.router == "least-outstanding" and k > 1:
        return None
    if pool.router == "pinned" and sources is not None:
        return np.asarray(sources, np.int64) % k
    if pool.router == "round-robin":
        # As in the generator's router, whose first turn is the second target.
        return np.arange(1, n + 1) % k
    return generator.integers(0, k, n)


def _reroute(pool: Pool, routes: Ints | None, random: Ints) -> Callable[[int, Sequence[int]], int] | None:
    """How a router chooses among the ordinals that are up where it does not look at the load; `random` has one number
    per request."""
    if routes is None or not pool.failures:
        return None
    if pool.router == "round-robin":
        return lambda i, up: up[(i + 1) % len(up)]
    return lambda i, up: int(routes[i]) if routes[i] in up else up[int(random[i]) % len(up)]
