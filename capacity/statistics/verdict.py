"""The verdict on an SLO: met, missed, or not told yet, and by how many more samples it would be."""

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

# No advice asks for more: an SLO this close to the truth is not told apart from it by waiting.
_MOST_SAMPLES = 10**9


@dataclass(frozen=True)
class Verdict:
    """On an SLO. Inconclusive: the sample cannot tell; about `more_samples` more would (None: no number would).

    `reasons` has one sentence for each bound that was not passed.
    """

    status: Literal["met", "missed", "inconclusive"]
    reasons: tuple[str, ...] = ()
    more_samples: int | None = None


def judge_slo(slo: Slo, latency: Histogram, lost: int, autocorrelation_time: float = 1.0) -> Verdict:
    """The verdict on answered requests' latencies and `lost` ones (errors and unsent), which are beyond every bound.

    Met where the whole interval of each percentile is within its bound, missed where one is wholly outside.
    """
    total = latency.count + lost
    verdicts = [
        _judge_share(
            f"P{percentile:g}",
            f"{format_duration(bound)}",
            percentile,
            latency,
            latency.count,
            total,
            bound,
            autocorrelation_time,
        )
        for percentile, bound in slo.bounds
    ]
    if slo.max_error_rate is not None:
        verdicts.append(_judge_errors(slo.max_error_rate, lost, total))
    for status in ("missed", "inconclusive"):
        found = [verdict for verdict in verdicts if verdict.status == status]
        if found:
            more = [verdict.more_samples for verdict in found]
            most = None if None in more else max(number or 0 for number in more)
            reasons = tuple(reason for verdict in found for reason in verdict.reasons)
            return Verdict(status, reasons, most if status == "inconclusive" else None)
    return Verdict("met")


def _judge_share(
    name: str,
    bound_text: str,
    p: float,
    latency: Histogram,
    answered: int,
    total: int,
    bound_ns: int,
    autocorrelation_time: float,
) -> Verdict:
    within = answered - latency.count_above_us(bound_ns / 1000)
    needed = math.ceil(
        max(samples_needed(p), MIN_EFFECTIVE_SAMPLES if is_autocorrelated(total, autocorrelation_time) else 0)
        * autocorrelation_time
    )
    status = _share_status(within, total, p, autocorrelation_time) if total else "inconclusive"
    if total < needed:
        if status == "missed":
            return Verdict("missed", (f"{name} > {bound_text}: {within} of {total} requests within it",))
        return Verdict("inconclusive", (f"{name}: not enough samples ({total} < {needed})",), needed - total)
    seen = latency.percentile_us(p, total - answered)
    measured = "beyond all answered requests" if seen is None else f"{seen / 1000:.4g} ms"
    if status == "met":
        return Verdict("met")
    if status == "missed":
        return Verdict("missed", (f"{name} {measured} > {bound_text}",))
    ends = percentile_interval_us(latency, p, total - answered, autocorrelation_time)
    return Verdict(
        "inconclusive",
        (f"{name} {measured}: its 95 % interval {_reach(ends, bound_ns / 1000, seen)} {bound_text}",),
        _more(within, total, p, autocorrelation_time),
    )


def _reach(ends: tuple[float, float | None] | None, bound_us: float, seen_us: float | None) -> str:
    """How an interval lies over its bound: where it ends on the other side of it than the percentile itself."""
    low, high = ends or (0.0, None)
    if seen_us is None or seen_us > bound_us:
        return f"begins at {low / 1000:.4g} ms, within"
    if high is None:
        return "has no upper end, so it reaches past"
    return f"reaches {high / 1000:.4g} ms, {'past' if high > bound_us else 'the very edge of'}"


def _judge_errors(rate: float, lost: int, total: int) -> Verdict:
    said = f"errors {lost} of {total}"
    if rate in (0.0, 1.0) and total:
        kept = lost == 0 or rate == 1.0
        return Verdict("met") if kept else Verdict("missed", (f"{said} > {rate:.4g}",))
    p = 100 * (1 - rate)
    status = _share_status(total - lost, total, p, 1.0) if total else "inconclusive"
    if status == "met":
        return Verdict("met")
    if status == "missed":
        return Verdict("missed", (f"{said} > {100 * rate:.4g} %",))
    more = _more(total - lost, total, p, 1.0) if total else samples_needed(p)
    return Verdict("inconclusive", (f"{said}: too few requests to tell it from {100 * rate:.4g} %",), more)


def _share_status(
    within: float, total: float, p: float, autocorrelation_time: float
) -> Literal["met", "missed", "inconclusive"]:
    """Is the share of samples within a bound surely at least p %? The same ranks as `interval_ranks`, as counts.

    Samples too few for an interval, which has two ends, may still have the lower one: seven slow requests miss a P90.
    """
    worth = effective_samples(total, autocorrelation_time)
    size = math.floor(worth)
    seen = within * size / total
    ranks = interval_ranks(p, worth)
    if ranks is None:
        return "missed" if seen < lower_rank(size, p / 100, (1 - CONFIDENCE) / 2) else "inconclusive"
    if seen >= ranks[1]:
        return "met"
    return "missed" if seen < ranks[0] else "inconclusive"


def _more(within: int, total: int, p: float, autocorrelation_time: float) -> int | None:
    """How many more samples would resolve it if the share within the bound stays what it is; None if none would."""
    share, high = within / total, 2 * total
    while _share_status(share * high, high, p, autocorrelation_time) == "inconclusive":
        high *= 2
        if high > _MOST_SAMPLES:
            return None
    low = high // 2
    while high - low > max(low // 100, 1):
        middle = (low + high) // 2
        if _share_status(share * middle, middle, p, autocorrelation_time) == "inconclusive":
            low = middle
        else:
            high = middle
    return high - total
