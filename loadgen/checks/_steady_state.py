"""Whether the run was in a steady state: Little's law, warm-up, backlog."""

from __future__ import annotations

import math

import numpy as np

from capacity.measures import LATENCY_ERROR
from capacity.statistics import Check, Values, quarter_means, warm_up_cut
from loadgen.checks._check_input import CheckInput, Rule, status_of

#: A run too short for a check is not wrong: the check is left out.
_MIN_REQUESTS = 200
_MIN_BINS = 40


def littles_law(run: CheckInput) -> Check | None:
    """Whether requests in flight, rate and latency agree."""
    failed = run.pooled(LATENCY_ERROR)
    ended = run.service.count + failed.count
    if ended < _MIN_REQUESTS or not run.measured_s:
        return None
    mean_s = (run.service.sum_ns + failed.sum_ns) / ended / 1e9
    return check_littles_law(run.health.in_flight, ended / run.measured_s, mean_s)


def warm_up(run: CheckInput) -> Check | None:
    """Whether the measured part began warm."""
    latencies = run.health.mean_latencies()
    return check_warm_up(latencies) if latencies.size >= _MIN_BINS else None


def backlog(run: CheckInput) -> Check | None:
    """Whether requests piled up."""
    enough = run.health.mean_latencies().size >= _MIN_BINS
    return check_backlog(run.health.in_flight_over_time()) if enough and run.options.is_open else None


RULES: tuple[Rule, ...] = (littles_law, warm_up, backlog)


def check_littles_law(mean_in_flight: float, throughput_rps: float, mean_latency_s: float) -> Check:
    """Mean requests in flight against rate × mean time in the system (Little 1961): warns beyond 2 %, fails
    beyond 10 %.

    The three figures have different sources; where they disagree, one of them was counted wrong.
    """
    expected = throughput_rps * mean_latency_s
    error = abs(mean_in_flight / expected - 1) if expected > 0 else math.inf if mean_in_flight else 0.0
    return Check(
        name="Little's law",
        value=f"{mean_in_flight:.4g} in flight, {100 * error:.2g} % off",
        threshold=f"{expected:.4g} ± 2 %, fails beyond 10 %",
        status=status_of(error, 0.02, 0.10),
        detail="" if error <= 0.02 else "requests in flight, rate and latency contradict each other",
    )


def check_warm_up(latencies: Values) -> Check:
    """Where latency stops changing at the beginning of the measured part (MSER-5, White 1997): in its first tenth, or
    by less than 5 %. `latencies` are in order, shape (n,)."""
    values = np.asarray(latencies, dtype=np.float64)
    cut = warm_up_cut(values)
    share = cut / values.size if values.size else 0.0
    steady_mean = float(values[cut:].mean()) if values.size else 0.0
    change = float(values[:cut].mean()) / steady_mean - 1 if cut and steady_mean > 0 else 0.0
    steady = share <= 0.1 or abs(change) <= 0.05
    return Check(
        name="warm-up is over",
        value=f"after {100 * share:.0f} %",
        threshold="≤ 10 % of the run, or a change below 5 %",
        status="PASS" if steady else "WARN",
        detail="" if steady else f"latency was {100 * change:+.0f} % until then: use a longer --warmup",
    )


def check_backlog(in_flight: Values) -> Check:
    """Requests in flight, sampled evenly and in order, shape (n,): the last quarter of the run against the first.

    Growth is the hardware's answer to too much load, so it does not make the run invalid; but then the latency
    depends on the length of the run.
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
