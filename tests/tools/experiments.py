"""Simulated experiments whose percentiles and means are known exactly, and how the product sums each of them up."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

from capacity.measures import HardwareCombination, Series, Tally
from capacity.pricing import Catalogue
from capacity.rundir import HLOG_NAME, IntervalLogWriter, Run, RunFile, build_run_file, series_tag
from capacity.search import NextProbe, ProbeSummary, SloSearch, bound_shares, is_saturated
from capacity.statistics import Slo, judge_slo
from loadgen.measure import HealthMonitor

PRICE = 0.36
CATALOGUE = Catalogue.parse(f"[hosts.box]\nprice = {PRICE}\n", "a study")
SERIES = Series(HardwareCombination("box", ""), "gpt", "cpu:0 @ a:1", False)


@dataclass(frozen=True)
class LatencyDistribution:
    """Latencies in ms, `draw(generator, n)` in the order in which they ended, with their true P90 and mean."""

    draw: Callable[[np.random.Generator, int], NDArray[np.float64]]
    p90: float
    mean: float


def lognormal(variation: float) -> LatencyDistribution:
    """Independent, of mean 10 ms and this coefficient of variation."""
    sigma = math.sqrt(math.log(1 + variation**2))
    middle = math.log(10) - sigma**2 / 2
    return LatencyDistribution(
        lambda generator, n: generator.lognormal(middle, sigma, n),
        math.exp(middle + sigma * float(norm.ppf(0.9))),
        10.0,
    )


def bimodal() -> LatencyDistribution:
    """Independent: 17 of 20 about 8 ms, 3 of 20 about 24 ms."""

    def draw(generator: np.random.Generator, n: int) -> NDArray[np.float64]:
        slow = generator.random(n) < 0.15
        return np.where(slow, generator.normal(24, 1.5, n), generator.normal(8, 0.5, n))

    p90 = brentq(lambda ms: 0.85 * norm.cdf(ms, 8, 0.5) + 0.15 * norm.cdf(ms, 24, 1.5) - 0.9, 10, 40)
    return LatencyDistribution(draw, float(p90), 0.85 * 8 + 0.15 * 24)


def queue(utilisation: float, service_ms: float = 5.0) -> LatencyDistribution:
    """Poisson arrivals at one exponential server, from its steady state on: the time in the system is exponential.

    From an empty queue on where there is no steady state; then nothing is true of it.
    """
    spare = max(1 - utilisation, 0.0) / service_ms

    def draw(generator: np.random.Generator, n: int) -> NDArray[np.float64]:
        service = generator.exponential(service_ms, n)
        gaps = generator.exponential(service_ms / utilisation, n)
        waiting = generator.exponential(1 / spare) if spare and generator.random() < utilisation else 0.0
        # Lindley's recursion as a random walk above its own running minimum.
        walk = waiting + np.concatenate([[0.0], np.cumsum((service - gaps)[:-1])])
        return walk - np.minimum(np.minimum.accumulate(walk), 0.0) + service

    return (
        LatencyDistribution(draw, math.log(10) / spare, 1 / spare)
        if spare
        else LatencyDistribution(draw, math.inf, math.inf)
    )


def tally_of(latencies_ms: NDArray[np.float64], bounds_ns: Sequence[int] = ()) -> tuple[Tally, float]:
    """The tally of these latencies, and the autocorrelation time that HealthMonitor computes for them."""
    ns = (latencies_ms * 1e6).astype(np.int64)
    tally = Tally(due=ns.size, answered=ns.size)
    tally.histograms["latency"].record_ns(ns)
    monitor, zeros = HealthMonitor(bounds_ns), np.zeros_like(ns)
    monitor.begin()
    monitor.record_fold({SERIES: np.stack([zeros, zeros, ns], axis=1)}, 0, ns.size)
    return tally, monitor.autocorrelation()[SERIES]


def search_probes(
    generator: np.random.Generator, service_ms: float, slo: Slo, total_s: float = 165.0
) -> list[ProbeSummary]:
    """The probes of a search for the highest Poisson rate that one exponential server carries within an SLO."""
    plan, left = SloSearch(500 / service_ms, 1000 / service_ms, total_s), total_s
    summaries: list[ProbeSummary] = []
    bounds_ns = [bound_ns for _p, bound_ns in slo.bounds]
    while isinstance(step := plan.next(summaries, left), NextProbe):
        for part in (0.25, 0.5, 1.0) if step.stop_early else (1.0,):
            seconds = step.max_seconds * part
            due = max(int(generator.poisson(step.rate_rps * seconds)), 1)
            latencies_ms = queue(step.rate_rps * service_ms / 1000, service_ms).draw(generator, due)
            tally, autocorrelation_time = tally_of(latencies_ms, bounds_ns)
            latency = tally.histograms["latency"]
            verdict = judge_slo(slo, latency, 0, autocorrelation_time).status
            if verdict != "inconclusive":
                break
        achieved = min(due / seconds, 1000 / service_ms)
        summaries.append(
            ProbeSummary(
                phase=step.phase,
                planned_rps=step.rate_rps,
                offered_rps=due / seconds,
                throughput_rps=achieved,
                verdict=verdict,
                shares=bound_shares(slo, latency, 0, autocorrelation_time),
                saturated=is_saturated(due, int(achieved * seconds)),
            )
        )
        left -= seconds + 1
    return summaries


def answered_in_a_closed_loop(
    generator: np.random.Generator, service: LatencyDistribution, seconds: float
) -> NDArray[np.int64]:
    """How many answers came in each 50 ms, one after another without a pause."""
    ends = np.cumsum(service.draw(generator, int(2000 * seconds / service.mean)))
    counts, _edges = np.histogram(ends, np.arange(0, 1000 * seconds + 25, 50))
    return counts.astype(np.int64)


def run_file_of(tally: Tally, autocorrelation_time: float, seconds: float) -> RunFile:
    """The run.json of an experiment."""
    return build_run_file(
        started=datetime(2026, 11, 24, tzinfo=UTC),
        options={"arrivals": "poisson"},
        conditions={},
        targets=[],
        tallies={SERIES: tally},
        warmups={},
        first_requests_ns={},
        duration_s=seconds,
        slo=None,
        catalogue=CATALOGUE,
        checks=[],
        generators=[],
        autocorrelation_times={SERIES: autocorrelation_time},
    )


def run_of(directory: Path, latencies_ms: NDArray[np.float64], seconds: int) -> Run:
    """A run directory in which as many of these ended in each second."""
    tally, autocorrelation_time = tally_of(latencies_ms)
    directory.mkdir()
    with IntervalLogWriter(directory / HLOG_NAME, 0.0) as log:
        for second, part in enumerate(np.array_split(latencies_ms, seconds)):
            log.write(second, 1, series_tag(SERIES, "latency"), tally_of(part)[0].histograms["latency"])
    run_file_of(tally, autocorrelation_time, float(seconds)).save(directory)
    return Run.load(directory)
