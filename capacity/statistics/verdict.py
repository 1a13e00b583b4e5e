"""The verdict on an SLO: met, missed or inconclusive, and how many more samples would decide it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from capacity.statistics.histogram import Histogram
from capacity.statistics.intervals import (
    CONFIDENCE,
    MIN_EFFECTIVE_SAMPLES,
    effective_samples,
    interval_ranks,
    is_autocorrelated,
    lower_rank,
    percentile_interval_us,
    samples_needed,
)
from capacity.statistics.slo import Slo
from worker.wire import format_duration

# More samples are never advised: an SLO this close to the true percentile cannot be decided by waiting.
_MAX_SAMPLES = 10**9

VerdictStatus = Literal["met", "missed", "inconclusive"]


@dataclass(frozen=True)
class Verdict:
    """On an SLO. `reasons` has one sentence for each bound that was not met.

    Inconclusive: about `more_samples` more samples would decide it; None where no number would.
    """

    status: VerdictStatus
    reasons: tuple[str, ...] = ()
    more_samples: int | None = None


def judge_slo(slo: Slo, latency: Histogram, lost: int, autocorrelation_time: float = 1.0) -> Verdict:
    """The verdict of an SLO on the latencies of answered requests.

    `lost` requests (errors and unsent) count as beyond every bound; `autocorrelation_time` is in samples. Met where the
    whole confidence interval of each percentile is within its bound, missed where one interval is wholly outside.
    """
    verdicts = [
        _judge_percentile(percentile, bound_ns, latency, lost, autocorrelation_time)
        for percentile, bound_ns in slo.bounds
    ]
    if slo.max_error_rate is not None:
        verdicts.append(_judge_error_rate(slo.max_error_rate, lost, latency.count + lost))
    for status in ("missed", "inconclusive"):
        decisive = [verdict for verdict in verdicts if verdict.status == status]
        if decisive:
            reasons = tuple(reason for verdict in decisive for reason in verdict.reasons)
            numbers = [verdict.more_samples for verdict in decisive]
            more = None if None in numbers else max(number or 0 for number in numbers)
            return Verdict(status, reasons, more if status == "inconclusive" else None)
    return Verdict("met")


def _judge_percentile(
    percentile: float, bound_ns: int, latency: Histogram, lost: int, autocorrelation_time: float
) -> Verdict:
    name, bound = f"P{percentile:g}", format_duration(bound_ns)
    total = latency.count + lost
    within = latency.count - latency.count_above_us(bound_ns / 1000)
    effective = MIN_EFFECTIVE_SAMPLES if is_autocorrelated(total, autocorrelation_time) else 0
    needed = math.ceil(max(samples_needed(percentile), effective) * autocorrelation_time)
    status = _judge_share(within, total, percentile, autocorrelation_time) if total else "inconclusive"
    if total < needed:
        if status == "missed":
            return Verdict("missed", (f"{name} > {bound}: {within} of {total} requests within it",))
        return Verdict("inconclusive", (f"{name}: not enough samples ({total} < {needed})",), needed - total)
    value_us = latency.percentile_us(percentile, lost)
    value = "beyond all answered requests" if value_us is None else f"{value_us / 1000:.4g} ms"
    if status == "met":
        return Verdict("met")
    if status == "missed":
        return Verdict("missed", (f"{name} {value} > {bound}",))
    interval = percentile_interval_us(latency, percentile, lost, autocorrelation_time)
    return Verdict(
        "inconclusive",
        (f"{name} {value}: its 95 % interval {_describe_overlap(interval, bound_ns / 1000, value_us)} {bound}",),
        _samples_to_decide(within, total, percentile, autocorrelation_time),
    )


def _describe_overlap(interval: tuple[float, float | None] | None, bound_us: float, value_us: float | None) -> str:
    """On which side of the bound an interval ends that begins on the other side."""
    low, high = interval or (0.0, None)
    if value_us is None or value_us > bound_us:
        return f"begins at {low / 1000:.4g} ms, within"
    if high is None:
        return "has no upper end, so it reaches past"
    return f"reaches {high / 1000:.4g} ms, {'past' if high > bound_us else 'exactly'}"


def _judge_error_rate(max_rate: float, lost: int, total: int) -> Verdict:
    errors = f"errors {lost} of {total}"
    if max_rate in (0.0, 1.0) and total:
        within = lost == 0 or max_rate == 1.0
        return Verdict("met") if within else Verdict("missed", (f"{errors} > {max_rate:.4g}",))
    percent = 100 * (1 - max_rate)
    status = _judge_share(total - lost, total, percent, 1.0) if total else "inconclusive"
    if status == "met":
        return Verdict("met")
    if status == "missed":
        return Verdict("missed", (f"{errors} > {100 * max_rate:.4g} %",))
    more = _samples_to_decide(total - lost, total, percent, 1.0) if total else samples_needed(percent)
    return Verdict("inconclusive", (f"{errors}: too few requests to distinguish it from {100 * max_rate:.4g} %",), more)


def _judge_share(within: float, total: float, percent: float, autocorrelation_time: float) -> VerdictStatus:
    """Whether at least this percentage of requests is within a bound, by the ranks of `interval_ranks`, as counts.

    Samples too few for an interval, which has two ends, may have the lower end: seven slow requests miss a P90.
    """
    effective = effective_samples(total, autocorrelation_time)
    size = math.floor(effective)
    effective_within = within * size / total
    ranks = interval_ranks(percent, effective)
    if ranks is None:
        low = lower_rank(size, percent / 100, (1 - CONFIDENCE) / 2)
        return "missed" if effective_within < low else "inconclusive"
    if effective_within >= ranks[1]:
        return "met"
    return "missed" if effective_within < ranks[0] else "inconclusive"


def _samples_to_decide(within: int, total: int, percent: float, autocorrelation_time: float) -> int | None:
    """How many more samples would decide it if the share within the bound stays the same; None if none would."""
    share, high = within / total, 2 * total
    while _judge_share(share * high, high, percent, autocorrelation_time) == "inconclusive":
        high *= 2
        if high > _MAX_SAMPLES:
            return None
    low = high // 2
    while high - low > max(low // 100, 1):
        middle = (low + high) // 2
        if _judge_share(share * middle, middle, percent, autocorrelation_time) == "inconclusive":
            low = middle
        else:
            high = middle
    return high - total
