"""Checks of a run itself: did the generator keep its schedule, was there a steady state, is it enough.

Each is a pure function of what was measured to a Check. FAIL: the run says nothing about the hardware. WARN: read on.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from capacity.statistics.arrivals import anderson_darling_test, poisson_deviation
from capacity.statistics.histogram import Histogram
from capacity.statistics.intervals import Check, Status, early_stopping_samples
from capacity.statistics.slo import Slo
from capacity.statistics.stationarity import Values, quarter_means, warm_up_cut
from capacity.statistics.verdict import judge_slo

# The generator's own error may be a tenth of what it measures; from its size on, it measures itself.
_FINE, _TOO_MUCH, _TOO_MUCH_OF_SLO = 0.1, 1.0, 0.5


def _grade(value: float, fine: float, most: float) -> Status:
    return "PASS" if value <= fine else "WARN" if value <= most else "FAIL"


def check_offered_rate(planned_rps: float, offered_rps: float) -> Check:
    """What was sent a second against what was planned: within 1 %; 5 % fails."""
    off = abs(offered_rps / planned_rps - 1) if planned_rps > 0 else math.inf if offered_rps else 0.0
    return Check(
        name="offered rate",
        value=f"{offered_rps:,.5g}/s, {100 * off:.2g} % off",
        threshold=f"{planned_rps:,.5g}/s within 1 %",
        status=_grade(off, 0.01, 0.05),
        detail="" if off <= 0.01 else "the load was not the one that was asked for",
    )


def check_lateness(lateness: Histogram, service: Histogram, slo: Slo | None) -> Check:
    """P99 of sent - due against the P50 of the service time and the tightest bound of the SLO."""
    return _own_error("lateness P99", lateness.percentile_us(99), service, slo, "the generator sent late")


def check_loop_lag(lag: Histogram, service: Histogram, slo: Slo | None) -> Check:
    """P99 of how late the generator's event loop woke, against what `lateness` is: clocks are read that late too."""
    return _own_error("event loop lag P99", lag.percentile_us(99), service, slo, "the generator read its clocks late")


def _own_error(name: str, found_us: float | None, service: Histogram, slo: Slo | None, why: str) -> Check:
    if found_us is None:
        return Check(name=name, value="none", threshold="some samples", status="WARN", detail="nothing was recorded")
    limits = []
    median = service.percentile_us(50)
    if median is not None:
        limits.append((_FINE * median, _TOO_MUCH * median))
    if slo and slo.bounds:
        tightest = min(bound for _p, bound in slo.bounds) / 1000
        limits.append((_FINE * tightest, _TOO_MUCH_OF_SLO * tightest))
    fine, most = (min(limit) for limit in zip(*limits, strict=True)) if limits else (1_000.0, 10_000.0)
    status = _grade(found_us, fine, most)
    return Check(
        name=name,
        value=f"{found_us / 1000:.3g} ms",
        threshold=f"{fine / 1000:.3g} ms, {most / 1000:.3g} ms fails",
        status=status,
        detail="" if status == "PASS" else why,
    )


def check_generator_processor(share: float) -> Check:
    """The busiest generator process's share of a core (1.0 is all of it): under 75 %; 90 % fails."""
    return Check(
        name="generator processor",
        value=f"{100 * share:.0f} %",
        threshold="75 % of a core, 90 % fails",
        status=_grade(share, 0.75, 0.9),
        detail="" if share <= 0.75 else "the generator, not the hardware, may have set the pace",
    )


def check_unsent(unsent: int, due: int) -> Check:
    """Requests that were due and never sent: none; 5 % fails. They count as beyond every bound either way."""
    share = unsent / due if due else 0.0
    return Check(
        name="unsent requests",
        value=unsent,
        threshold="0, 5 % fails",
        status=_grade(share, 0.0, 0.05),
        detail="" if not unsent else f"{100 * share:.2g} % of {due} due: too many were in flight",
    )


def check_range(above: int) -> Check:
    """Values above the histograms' hour, which are counted in the highest bucket."""
    return Check(
        name="values out of range",
        value=above,
        threshold="0",
        status="WARN" if above else "PASS",
        detail="over an hour; counted in the highest bucket" if above else "",
    )


def check_planned_arrivals(gaps_s: NDArray[np.float64], rate: float) -> Check:
    """Planned inter-arrival times, in seconds, against the exponential of the planned rate a second."""
    statistic, p_value = anderson_darling_test(gaps_s, rate)
    return Check(
        name="planned arrivals are Poisson",
        value=f"p {p_value:.2g} (A² {statistic:.3g}, {gaps_s.size} gaps)",
        threshold="p 0.01, 0.0001 fails",
        status="PASS" if p_value >= 0.01 else "WARN" if p_value >= 1e-4 else "FAIL",
        detail="" if p_value >= 0.01 else "Anderson-Darling: the schedule is not a Poisson process of this rate",
    )


def check_sent_arrivals(gaps_s: NDArray[np.float64]) -> Check:
    """Inter-arrival times as sent, in seconds and in order, by effect sizes: a test would reject any real clock."""
    found = poisson_deviation(gaps_s)
    worst = max(abs(found.variation), 2 * found.distance, abs(found.memory))
    status = _grade(worst, 0.05 + found.noise, 0.15 + found.noise)
    return Check(
        name="sent arrivals are Poisson",
        value=f"variation {1 + found.variation:.3f}, distance {found.distance:.3f}, memory {found.memory:+.3f}",
        threshold=f"1, 0, 0 within {0.05 + found.noise:.2g} (distance half of it)",
        status=status,
        detail="" if status == "PASS" else "requests left in another pattern than planned",
    )


def check_littles_law(mean_in_flight: float, throughput_rps: float, mean_latency_s: float) -> Check:
    """Requests in flight, averaged over time, against rate × mean time in the system: within 2 %; 10 % fails.

    Three figures of different sources; where they disagree, one of them was counted wrong.
    """
    expected = throughput_rps * mean_latency_s
    off = abs(mean_in_flight / expected - 1) if expected > 0 else math.inf if mean_in_flight else 0.0
    return Check(
        name="Little's law",
        value=f"{mean_in_flight:.4g} in flight, {100 * off:.2g} % off",
        threshold=f"{expected:.4g} within 2 %",
        status=_grade(off, 0.02, 0.10),
        detail="" if off <= 0.02 else "requests in flight, rate and latency do not fit together",
    )


def check_warm_up(latencies: Values) -> Check:
    """Where the measured part, in order, stops warming up (MSER-5): in its first tenth, or by less than 5 %."""
    series = np.asarray(latencies, dtype=np.float64)
    cut = warm_up_cut(series)
    share = cut / series.size if series.size else 0.0
    rest = float(series[cut:].mean()) if series.size else 0.0
    change = float(series[:cut].mean()) / rest - 1 if cut and rest > 0 else 0.0
    steady = share <= 0.1 or abs(change) <= 0.05
    return Check(
        name="warm-up is over",
        value=f"after {100 * share:.0f} %",
        threshold="10 % of the run, or a change under 5 %",
        status="PASS" if steady else "WARN",
        detail="" if steady else f"latency was {100 * change:+.0f} % until then: a longer --warmup would cut it off",
    )


def check_backlog(in_flight: Values) -> Check:
    """Requests in flight, sampled evenly in order: the last quarter of the run against the first.

    Growth is the hardware's answer to too much load, so it does not make the run invalid; but then the latency
    depends on how long the run was.
    """
    if np.size(in_flight) < 4:
        return Check(name="backlog", value="too short to tell", threshold="not growing", status="WARN")
    first, last = quarter_means(in_flight)
    growing = last > 1.5 * first + 1
    return Check(
        name="backlog",
        value=f"{first:.3g} to {last:.3g} in flight",
        threshold="not growing by half",
        status="WARN" if growing else "PASS",
        detail="the load is above what the hardware serves, so latency depends on the run's length" if growing else "",
    )


def check_independent_samples(size: int, time: float) -> Check:
    """`time` samples of `size` say as much as one independent one; the intervals and the verdict are widened by it."""
    effective = size / time
    return Check(
        name="independent samples",
        value=f"{effective:,.0f} of {size:,}",
        threshold="100 at least",
        status="PASS" if effective >= 100 else "WARN",
        detail=f"autocorrelation time {time:.1f} samples" if time > 1.5 else "",
    )


def check_enough_samples(slo: Slo, latency: Histogram, lost: int, autocorrelation_time: float = 1.0) -> Check:
    """MLPerf's early-stopping bound for each percentile of the SLO, times the autocorrelation time.

    A failure that is clear already needs no more samples.
    """
    total = latency.count + lost
    wanted = 0
    for p, bound_ns in slo.bounds:
        single = Slo(((p, bound_ns),))
        if judge_slo(single, latency, lost, autocorrelation_time).status == "missed":
            continue
        over = latency.count_above_us(bound_ns / 1000) + lost
        # Samples over the bound that say the same thing count once.
        wanted = max(
            wanted,
            math.ceil(early_stopping_samples(math.ceil(over / autocorrelation_time), p) * autocorrelation_time),
        )
    return Check(
        name="enough samples",
        value=total,
        threshold=f"{wanted:,} for {slo} with 99 % confidence",
        status="PASS" if total >= wanted else "WARN",
        detail="" if total >= wanted else f"{wanted - total:,} more, if as many are over the bound",
    )
