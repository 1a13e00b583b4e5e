"""Checks of a run: did the generator follow its schedule, was there a steady state, are there enough samples.

Each function takes measured values and returns a Check, whose threshold reads after the word "expected".
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from capacity.statistics.arrivals import anderson_darling_test, poisson_deviation
from capacity.statistics.check import Check, CheckStatus
from capacity.statistics.histogram import Histogram
from capacity.statistics.intervals import early_stopping_samples
from capacity.statistics.slo import Slo
from capacity.statistics.stationarity import Values, quarter_means, warm_up_cut
from capacity.statistics.verdict import judge_slo

# The generator's own error may be a tenth of what it measures. As large as that, or half of the SLO, it is no longer
# the hardware that is measured.
_WARN_SHARE, _FAIL_SHARE, _FAIL_SHARE_OF_SLO = 0.1, 1.0, 0.5


def _grade(value: float, warn_above: float, fail_above: float) -> CheckStatus:
    return "PASS" if value <= warn_above else "WARN" if value <= fail_above else "FAIL"


def check_offered_rate(planned_rps: float, offered_rps: float) -> Check:
    """The rate that was sent against the planned one, a second: within 1 %; more than 5 % off fails."""
    error = abs(offered_rps / planned_rps - 1) if planned_rps > 0 else math.inf if offered_rps else 0.0
    return Check(
        name="offered rate",
        value=f"{offered_rps:,.5g}/s, {100 * error:.2g} % off",
        threshold=f"{planned_rps:,.5g}/s ± 1 %, fails beyond 5 %",
        status=_grade(error, 0.01, 0.05),
        detail="" if error <= 0.01 else "the load differed from the planned load",
    )


def check_lateness(lateness: Histogram, service: Histogram, slo: Slo | None) -> Check:
    """P99 of sent - due, against the P50 of the service time and the tightest bound of the SLO."""
    return _check_own_error("lateness P99", lateness.percentile_us(99), service, slo, "some requests were sent late")


def check_loop_lag(lag: Histogram, service: Histogram, slo: Slo | None) -> Check:
    """P99 of how late the generator's event loop woke, against the limits of lateness: clocks are read as late."""
    return _check_own_error("event loop lag P99", lag.percentile_us(99), service, slo, "some clock reads were late")


def _check_own_error(name: str, error_us: float | None, service: Histogram, slo: Slo | None, detail: str) -> Check:
    if error_us is None:
        return Check(name=name, value="none", threshold="some samples", status="WARN", detail="nothing was recorded")
    limits = []
    median = service.percentile_us(50)
    if median is not None:
        limits.append((_WARN_SHARE * median, _FAIL_SHARE * median))
    if slo and slo.bounds:
        tightest = min(bound for _p, bound in slo.bounds) / 1000
        limits.append((_WARN_SHARE * tightest, _FAIL_SHARE_OF_SLO * tightest))
    warn_us, fail_us = (min(limit) for limit in zip(*limits, strict=True)) if limits else (1_000.0, 10_000.0)
    status = _grade(error_us, warn_us, fail_us)
    return Check(
        name=name,
        value=f"{error_us / 1000:.3g} ms",
        threshold=f"≤ {warn_us / 1000:.3g} ms, fails above {fail_us / 1000:.3g} ms",
        status=status,
        detail="" if status == "PASS" else detail,
    )


def check_generator_processor(share: float) -> Check:
    """The busiest generator process's share of a core (1.0 is all of it): at most 75 %; more than 90 % fails."""
    return Check(
        name="generator processor",
        value=f"{100 * share:.0f} %",
        threshold="≤ 75 % of a core, fails above 90 %",
        status=_grade(share, 0.75, 0.9),
        detail="" if share <= 0.75 else "the generator may have limited the rate, not the hardware",
    )


def check_unsent(unsent: int, due: int) -> Check:
    """Requests that were due and never sent: none; more than 5 % fails. They count as beyond every bound either way."""
    share = unsent / due if due else 0.0
    return Check(
        name="unsent requests",
        value=unsent,
        threshold="0, fails above 5 %",
        status=_grade(share, 0.0, 0.05),
        detail="" if not unsent else f"{100 * share:.2g} % of {due} due: too many were in flight",
    )


def check_range(above: int) -> Check:
    """Number of values above the histograms' hour, which are counted in the highest bucket."""
    return Check(
        name="values out of range",
        value=above,
        threshold="0",
        status="WARN" if above else "PASS",
        detail="over an hour; counted in the highest bucket" if above else "",
    )


def check_planned_arrivals(gaps_s: NDArray[np.float64], rate: float) -> Check:
    """Planned inter-arrival times, in seconds, against the exponential distribution of the planned rate a second."""
    statistic, p_value = anderson_darling_test(gaps_s, rate)
    return Check(
        name="planned arrivals are Poisson",
        value=f"p {p_value:.2g} (A² {statistic:.3g}, {gaps_s.size} gaps)",
        threshold="p ≥ 0.01, fails below 0.0001",
        status="PASS" if p_value >= 0.01 else "WARN" if p_value >= 1e-4 else "FAIL",
        detail="" if p_value >= 0.01 else "Anderson-Darling: the schedule is not a Poisson process of this rate",
    )


def check_sent_arrivals(gaps_s: NDArray[np.float64]) -> Check:
    """Inter-arrival times as sent, in seconds and in order, by effect sizes: a test would reject any real clock."""
    deviation = poisson_deviation(gaps_s)
    worst = max(abs(deviation.variation), 2 * deviation.distance, abs(deviation.correlation))
    limit = 0.05 + deviation.noise
    status = _grade(worst, limit, 0.15 + deviation.noise)
    return Check(
        name="sent arrivals are Poisson",
        value=(
            f"variation {1 + deviation.variation:.3f}, distance {deviation.distance:.3f}, "
            f"correlation {deviation.correlation:+.3f}"
        ),
        threshold=f"1 ± {limit:.2g}, ≤ {limit / 2:.2g}, 0 ± {limit:.2g}",
        status=status,
        detail="" if status == "PASS" else "requests were sent in another pattern than planned",
    )


def check_littles_law(mean_in_flight: float, throughput_rps: float, mean_latency_s: float) -> Check:
    """The mean number of requests in flight against rate × mean time in the system: within 2 %; 10 % off fails.

    The three values come from different sources; where they disagree, one of them was counted wrong.
    """
    expected = throughput_rps * mean_latency_s
    error = abs(mean_in_flight / expected - 1) if expected > 0 else math.inf if mean_in_flight else 0.0
    return Check(
        name="Little's law",
        value=f"{mean_in_flight:.4g} in flight, {100 * error:.2g} % off",
        threshold=f"{expected:.4g} ± 2 %, fails beyond 10 %",
        status=_grade(error, 0.02, 0.10),
        detail="" if error <= 0.02 else "requests in flight, rate and latency contradict each other",
    )


def check_warm_up(latencies: Values) -> Check:
    """Where latencies, in order, stop warming up (MSER-5): in the first tenth, or with a change below 5 %."""
    series = np.asarray(latencies, dtype=np.float64)
    cut = warm_up_cut(series)
    share = cut / series.size if series.size else 0.0
    rest = float(series[cut:].mean()) if series.size else 0.0
    change = float(series[:cut].mean()) / rest - 1 if cut and rest > 0 else 0.0
    steady = share <= 0.1 or abs(change) <= 0.05
    return Check(
        name="warm-up is over",
        value=f"after {100 * share:.0f} %",
        threshold="≤ 10 % of the run, or a change below 5 %",
        status="PASS" if steady else "WARN",
        detail="" if steady else f"latency was {100 * change:+.0f} % until then: use a longer --warmup",
    )


def check_backlog(in_flight: Values) -> Check:
    """Requests in flight, sampled evenly in order: the last quarter of the run against the first.

    Growth is what hardware does under too much load, so it does not make the run invalid; but then latency depends on
    how long the run was.
    """
    if np.size(in_flight) < 4:
        return Check(name="backlog", value="too short to measure", threshold="no growth by half", status="WARN")
    first, last = quarter_means(in_flight)
    growing = last > 1.5 * first + 1
    return Check(
        name="backlog",
        value=f"{first:.3g} to {last:.3g} in flight",
        threshold="no growth by half",
        status="WARN" if growing else "PASS",
        detail="the load exceeds what the hardware serves, so latency depends on the run's length" if growing else "",
    )


def check_independent_samples(count: int, autocorrelation_time: float) -> Check:
    """The effective sample size of `count` samples: at least 100. Intervals and the verdict are widened by it."""
    effective = count / autocorrelation_time
    return Check(
        name="independent samples",
        value=f"{effective:,.0f} of {count:,}",
        threshold="≥ 100",
        status="PASS" if effective >= 100 else "WARN",
        detail=f"autocorrelation time {autocorrelation_time:.1f} samples" if autocorrelation_time > 1.5 else "",
    )


def check_enough_samples(slo: Slo, latency: Histogram, lost: int, autocorrelation_time: float = 1.0) -> Check:
    """MLPerf's early-stopping bound for each percentile of the SLO, times the autocorrelation time.

    A percentile that clearly misses its bound needs no more samples.
    """
    total = latency.count + lost
    needed = 0
    for p, bound_ns in slo.bounds:
        if judge_slo(Slo(((p, bound_ns),)), latency, lost, autocorrelation_time).status == "missed":
            continue
        over = latency.count_above_us(bound_ns / 1000) + lost
        # Correlated samples over the bound count as their effective number.
        samples = early_stopping_samples(math.ceil(over / autocorrelation_time), p)
        needed = max(needed, math.ceil(samples * autocorrelation_time))
    return Check(
        name="enough samples",
        value=total,
        threshold=f"≥ {needed:,} for {slo} with 99 % confidence",
        status="PASS" if total >= needed else "WARN",
        detail="" if total >= needed else f"{needed - total:,} more needed, if the same number exceeds the bound",
    )
