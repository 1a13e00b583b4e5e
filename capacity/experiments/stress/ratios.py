"""Ratios of one ordinal's figures in two runs, with their 95 % intervals."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from capacity.errors import InputError
from capacity.experiments.stress.result import Estimate
from capacity.rundir import Measure, Row, Run
from capacity.statistics import CONFIDENCE, estimate_autocorrelation_time

#: The stretches of time that an interval needs.
_MIN_STRETCHES = 8


def target_row(run: Run, address: str) -> Row:
    """Returns the row of one worker by its address or label. Raises InputError where the run has none."""
    for row in run.file.target_rows:
        if row.target is not None and (row.target == address or row.target.endswith(f" @ {address}")):
            return row
    raise InputError(f"{run.directory} has no row for {address}")


def mean_growth(later: Measure, before: Measure) -> Estimate:
    """Returns the growth of a mean as a share, with the interval for two independent runs.

    The logarithms' standard errors add up as squares; both intervals have the same confidence. Null where a mean or an
    interval is missing.
    """
    if not later.mean or not before.mean:
        return Estimate(value=None)
    value = math.log(later.mean / before.mean)
    intervals = (later.mean_interval, before.mean_interval)
    if intervals[0] is None or intervals[1] is None:
        return Estimate(value=math.expm1(value))
    halves = [
        (ends[1] - ends[0]) / 2 / mean for ends, mean in zip(intervals, (later.mean, before.mean), strict=True) if ends
    ]
    return _from_log(value, math.hypot(*halves))


def time_growth(later: Run, before: Run, address: str) -> Estimate:
    """Returns the growth of the time that one ordinal takes in a closed loop, as a share.

    It is that of the mean latency. Where requests depend on one another too much for its interval, it is that of the
    time between answers in each stretch of the runs, by Student's t over the stretches.
    """
    growth = mean_growth(target_row(later, address).latency_us, target_row(before, address).latency_us)
    logs = [_log_times(run, address) for run in (later, before)]
    if growth.low is not None or min(times.size for times in logs) < _MIN_STRETCHES:
        return growth
    value = float(logs[0].mean() - logs[1].mean())
    sizes = [max(times.size / estimate_autocorrelation_time(times), 2.0) for times in logs]
    error = math.sqrt(sum(float(times.var(ddof=1)) / n for times, n in zip(logs, sizes, strict=True)))
    return _from_log(value, float(stdtrit(min(sizes) - 1, (1 + CONFIDENCE) / 2)) * error)


def _from_log(value: float, half: float) -> Estimate:
    return Estimate(value=math.expm1(value), low=math.expm1(value - half), high=math.expm1(value + half))


def _log_times(run: Run, address: str) -> NDArray[np.float64]:
    """The logarithm of the time between one ordinal's answers in each stretch of the run, shape (stretches,)."""
    row, timeline = target_row(run, address), run.timeline
    members = run.members(row)
    if timeline is None or not members:
        return np.empty(0)
    counts = sum((timeline.total(series, "latency") for series in members), np.zeros(timeline.number))
    nonempty = (counts > 0) & (timeline.covered_s > 0)
    times: NDArray[np.float64] = np.log(timeline.covered_s[nonempty] / counts[nonempty])
    return times


def p99_growth(later: Measure, before: Measure) -> Estimate:
    """Returns the growth of a P99 as a share, with an interval from the intervals of both order statistics."""
    if not later.p99 or not before.p99:
        return Estimate(value=None)
    value = math.log(later.p99 / before.p99)
    a, b = later.p99_interval, before.p99_interval
    if a is None or b is None or a[1] is None or b[1] is None or min(a[0], b[0]) <= 0:
        return Estimate(value=math.expm1(value))
    down = math.hypot(math.log(later.p99 / a[0]), math.log(b[1] / before.p99))
    up = math.hypot(math.log(a[1] / later.p99), math.log(before.p99 / b[0]))
    return Estimate(value=math.expm1(value), low=math.expm1(value - down), high=math.expm1(value + up))


def format_share(estimate: Estimate | None) -> str:
    """Returns such as `+3.2 % (+1.0 to +5.4)`; a dash for None."""
    if estimate is None:
        return "–"
    if estimate.value is None:
        return "too few samples"
    ends = ""
    if estimate.low is not None and estimate.high is not None:
        ends = f" ({100 * estimate.low:+.1f} to {100 * estimate.high:+.1f})"
    return f"{100 * estimate.value:+.1f} %{ends}"


def format_ms(us: float | None) -> str:
    """Returns microseconds as milliseconds for a table; a dash for None."""
    return "–" if us is None else f"{us / 1000:.4g}"
