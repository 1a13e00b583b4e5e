"""Is it enough: intervals of percentiles from order statistics, samples that a claim needs, the verdict on an SLO."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict
from scipy.special import bdtr, bdtrc, betainc, stdtrit

from capacity.histogram import Histogram
from capacity.slo import Slo, format_duration

CONFIDENCE = 0.95
# No advice asks for more: an SLO this close to the truth is not told apart from it by waiting.
_MOST_SAMPLES = 10**9

Status = Literal["PASS", "WARN", "FAIL"]


class Check(BaseModel):
    """One thing that was checked about a run: what was found, what was asked for, and how that ended."""

    model_config = ConfigDict(frozen=True)

    name: str
    value: int | float | str
    threshold: str
    status: Status
    detail: str = ""


def samples_needed(p: float, confidence: float = CONFIDENCE) -> int:
    """The fewest samples with which an interval between two of them can hold the p-th percentile (0 < p < 100).

    The widest such interval, from the smallest to the largest, misses with probability q**n + (1 - q)**n:
    29 for P90, 59 for P95, 299 for P99, 2,995 for P99.9.
    """
    q = p / 100
    n = max(2, math.floor(math.log(1 - confidence) / math.log(max(q, 1 - q))))
    while q**n + (1 - q) ** n > 1 - confidence:
        n += 1
    return n


def early_stopping(over: int, p: float, confidence: float = 0.99) -> int:
    """How many samples it takes to claim the p-th percentile within a bound when `over` of them were above it.

    The smallest n with I_q(n - over, over + 1) <= 1 - confidence, as MLPerf's load generator stops early; for
    independent samples, so multiply by the autocorrelation time.
    """
    if not 0 < p < 100 or over < 0:
        raise ValueError(f"early stopping is for a percentile between 0 and 100, not {p}, and {over} samples over")

    def enough(n: int) -> bool:
        return bool(betainc(n - over, over + 1, p / 100) <= 1 - confidence)

    low, high = over, 2 * (over + 1)
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def interval_ranks(p: float, n: float, confidence: float = CONFIDENCE) -> tuple[int, int] | None:
    """Ranks (1 the smallest) between whose samples the p-th percentile lies with this confidence; None if n is too few.

    Exact for any distribution (Wilks 1948; David and Nagaraja, Order Statistics, 7.1): how many of n independent
    samples are at or under the percentile is binomial. Tails are equal where n allows it.
    """
    size, q, miss = math.floor(n), p / 100, 1 - confidence
    if not 0 < p < 100:
        raise ValueError(f"an interval is for a percentile between 0 and 100, not {p}")
    if size < samples_needed(p, confidence):
        return None
    high, above = _highest(size, q, miss / 2), miss / 2
    if high > size:
        high, above = size, q**size
    low = _lowest(size, q, miss - above if above > miss / 2 else miss / 2)
    if low < 1:
        # The smallest sample is as low as an interval reaches; the upper end takes what its tail leaves.
        low, high = 1, min(_highest(size, q, miss - (1 - q) ** size), size)
    return low, high


def _lowest(size: int, q: float, tail: float) -> int:
    """The largest rank r, or 0, with P(fewer than r samples at or under the percentile) <= tail."""
    return _first(size + 1, lambda count: bool(bdtr(count, size, q) > tail))


def _highest(size: int, q: float, tail: float) -> int:
    """The smallest rank r, up to size + 1, with P(r samples or more at or under the percentile) <= tail."""
    return _first(size, lambda count: bool(bdtrc(count, size, q) <= tail)) + 1


def _first(end: int, true_of: Callable[[int], bool]) -> int:
    """The first number from 0 on of which this is true, as it is of all after it; `end` if of none before."""
    low, high = -1, end
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if true_of(middle) else (middle, high)
    return high


def interval_us(
    histogram: Histogram, p: float, beyond: int = 0, dependence: float = 1.0, confidence: float = CONFIDENCE
) -> tuple[float, float | None] | None:
    """The interval in µs that holds the p-th percentile, from the edges of the outer buckets.

    `beyond` samples lie above all recorded; an upper end among them is None: no bound. `dependence` is the
    autocorrelation time in samples: so many say as much as one independent one. None where the samples are too few.
    """
    total = histogram.count + beyond
    ranks = interval_ranks(p, total / dependence, confidence)
    if ranks is None:
        return None
    scale = total / math.floor(total / dependence)
    low = histogram.edges_at_rank_us(max(math.floor(ranks[0] * scale), 1))
    high = histogram.edges_at_rank_us(math.ceil(ranks[1] * scale))
    return None if low is None else (low[0], high[1] if high else None)


def mean_interval_us(
    histogram: Histogram, dependence: float = 1.0, confidence: float = CONFIDENCE
) -> tuple[float, float] | None:
    """The interval in µs that holds the mean, by Student's t; None for fewer than ten independent samples' worth.

    Ten is the convention for calling a mean normal; heavy tails need more.
    """
    mean, deviation, effective = histogram.mean_us, histogram.deviation_us, histogram.count / dependence
    if mean is None or deviation is None or effective < 10:
        return None
    half = float(stdtrit(effective - 1, (1 + confidence) / 2)) * deviation / math.sqrt(effective)
    return max(mean - half, 0.0), mean + half


@dataclass(frozen=True)
class Verdict:
    """On an SLO. UNRESOLVED: the sample cannot tell; about `more_samples` more would (None: no number would).

    `reasons` has one sentence for each bound that was not passed.
    """

    status: Literal["PASS", "FAIL", "UNRESOLVED"]
    reasons: tuple[str, ...] = ()
    more_samples: int | None = None

    @property
    def meets(self) -> bool | None:
        """True, False, or None where unresolved."""
        return {"PASS": True, "FAIL": False, "UNRESOLVED": None}[self.status]


def judge(slo: Slo, latency: Histogram, lost: int, dependence: float = 1.0) -> Verdict:
    """The verdict on answered requests' latencies and `lost` ones (errors and unsent), which are beyond every bound.

    PASS where the whole interval of each percentile is within its bound, FAIL where one is wholly outside.
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
            dependence,
        )
        for percentile, bound in slo.bounds
    ]
    if slo.max_error_rate is not None:
        verdicts.append(_judge_errors(slo.max_error_rate, lost, total))
    for status in ("FAIL", "UNRESOLVED"):
        found = [verdict for verdict in verdicts if verdict.status == status]
        if found:
            more = [verdict.more_samples for verdict in found]
            most = None if None in more else max(number or 0 for number in more)
            reasons = tuple(reason for verdict in found for reason in verdict.reasons)
            return Verdict(status, reasons, most if status == "UNRESOLVED" else None)
    return Verdict("PASS")


def _judge_share(
    name: str,
    bound_text: str,
    p: float,
    latency: Histogram,
    answered: int,
    total: int,
    bound_ns: int,
    dependence: float,
) -> Verdict:
    within = answered - latency.count_above_us(bound_ns / 1000)
    needed = math.ceil(samples_needed(p) * dependence)
    if total < needed:
        return Verdict("UNRESOLVED", (f"{name}: not enough samples ({total} < {needed})",), needed - total)
    status = _share_status(within, total, p, dependence)
    seen = latency.percentile_us(p, total - answered)
    measured = "beyond all answered requests" if seen is None else f"{seen / 1000:.4g} ms"
    if status == "PASS":
        return Verdict("PASS")
    if status == "FAIL":
        return Verdict("FAIL", (f"{name} {measured} > {bound_text}",))
    ends = interval_us(latency, p, total - answered, dependence)
    return Verdict(
        "UNRESOLVED",
        (f"{name} {measured}: its 95 % interval {_reach(ends, bound_ns / 1000, seen)} {bound_text}",),
        _more(within, total, p, dependence),
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
        return Verdict("PASS") if kept else Verdict("FAIL", (f"{said} > {rate:.4g}",))
    p = 100 * (1 - rate)
    status = _share_status(total - lost, total, p, 1.0) if total else "UNRESOLVED"
    if status == "PASS":
        return Verdict("PASS")
    if status == "FAIL":
        return Verdict("FAIL", (f"{said} > {100 * rate:.4g} %",))
    more = _more(total - lost, total, p, 1.0) if total else samples_needed(p)
    return Verdict("UNRESOLVED", (f"{said}: too few requests to tell it from {100 * rate:.4g} %",), more)


def _share_status(within: float, total: float, p: float, dependence: float) -> Literal["PASS", "FAIL", "UNRESOLVED"]:
    """Is the share of samples within a bound surely at least p %? The same ranks as `interval_ranks`, as counts."""
    ranks = interval_ranks(p, total / dependence)
    if ranks is None:
        return "UNRESOLVED"
    seen = within * math.floor(total / dependence) / total
    if seen >= ranks[1]:
        return "PASS"
    return "FAIL" if seen < ranks[0] else "UNRESOLVED"


def _more(within: int, total: int, p: float, dependence: float) -> int | None:
    """How many more samples would resolve it if the share within the bound stays what it is; None if none would."""
    share, high = within / total, 2 * total
    while _share_status(share * high, high, p, dependence) == "UNRESOLVED":
        high *= 2
        if high > _MOST_SAMPLES:
            return None
    low = high // 2
    while high - low > max(low // 100, 1):
        middle = (low + high) // 2
        if _share_status(share * middle, middle, p, dependence) == "UNRESOLVED":
            low = middle
        else:
            high = middle
    return high - total
