"""Is it enough: intervals of percentiles from order statistics, and samples that a claim needs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict
from scipy.special import bdtr, bdtrc, betainc, ndtri, stdtrit

from capacity.statistics.histogram import Histogram

CONFIDENCE = 0.95
# Of fewer independent samples' worth, an autocorrelation time is not known well enough for any interval.
MIN_EFFECTIVE_SAMPLES = 20
# Sokal's window sums over ten autocorrelation times (see stationarity.py), so one of n samples is known as well as a
# variance of n / 10 samples is (Wolff, Monte Carlo errors with less errors, 2004, equation 42).
SAMPLES_PER_DEGREE = 10
# A generator keeps so many latencies of a series in order: an autocorrelation time is of no more.
_KEPT = 20_000

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


def early_stopping_samples(over: int, p: float, confidence: float = 0.99) -> int:
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
    low = lower_rank(size, q, miss - above if above > miss / 2 else miss / 2)
    if low < 1:
        # The smallest sample is as low as an interval reaches; the upper end takes what its tail leaves.
        low, high = 1, min(_highest(size, q, miss - (1 - q) ** size), size)
    return low, high


def is_autocorrelated(count: float, autocorrelation_time: float) -> bool:
    """Whether `count` samples have a longer autocorrelation time than independent ones, whose own is noisy, have."""
    return autocorrelation_time > 1 + 2 * math.sqrt(2 * (SAMPLES_PER_DEGREE + 1) / max(count, 1.0))


def effective_samples(count: float, autocorrelation_time: float, confidence: float = CONFIDENCE) -> float:
    """How many independent samples `count` of this autocorrelation time say as much as; 0 where that is not known.

    Fewer than count / autocorrelation_time where samples are correlated: then that time is itself an estimate, and
    intervals are wider by as much as Student's t is wider than the normal.
    """
    worth = count / autocorrelation_time
    if not is_autocorrelated(count, autocorrelation_time):
        return worth
    if worth < MIN_EFFECTIVE_SAMPLES:
        return 0.0
    tail, degrees = (1 + confidence) / 2, min(count, _KEPT) / autocorrelation_time / SAMPLES_PER_DEGREE
    return worth * (float(ndtri(tail)) / float(stdtrit(degrees, tail))) ** 2


def interval_positions(p: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """As `interval_ranks`, with a fraction of the way to the next rank, so that the confidence is met and not passed.

    Between two order statistics as Nyblom has it (Statistics and Probability Letters 14, 1992): nearly exact for any
    continuous distribution, where whole ranks cover up to 98 % of a small sample's.
    """
    size, q, miss = math.floor(n), p / 100, 1 - confidence
    if interval_ranks(p, n, confidence) is None:
        return None
    above, below = max(miss / 2, q**size), max(miss / 2, (1 - q) ** size)
    # Where one tail cannot be as small, the other takes what is left.
    above, below = (above, miss - above) if above > miss / 2 else (miss - below, below)
    return _place(size, q, 1 - below), _place(size, q, above)


def _place(size: int, q: float, chance: float) -> float:
    """The place among ordered samples which the percentile lies above with this chance."""
    rank = _first(size, lambda count: bool(bdtrc(count, size, q) < chance))
    if rank in (0, size):
        return max(float(rank), 1.0)
    here, next_one = float(bdtrc(rank - 1, size, q)), float(bdtrc(rank, size, q))
    if here <= chance:
        return float(rank)
    odds = rank * (1 - q) * (chance - next_one) / ((size - rank) * q * (here - chance))
    return rank + 1 / (1 + odds)


def lower_rank(size: int, q: float, tail: float) -> int:
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


def percentile_interval_us(
    histogram: Histogram, p: float, beyond: int = 0, autocorrelation_time: float = 1.0, confidence: float = CONFIDENCE
) -> tuple[float, float | None] | None:
    """The interval in µs that holds the p-th percentile, from the outer edges of buckets.

    `beyond` samples lie above all recorded; an upper end among them is None: no bound. `autocorrelation_time` is the
    autocorrelation time in samples: so many say as much as one independent one. None where the samples are too few.
    """
    total = histogram.count + beyond
    worth = effective_samples(total, autocorrelation_time, confidence)
    places = interval_positions(p, worth, confidence)
    if places is None:
        return None
    scale = total / math.floor(worth)
    low, high = (_edge(histogram, place * scale, side) for side, place in enumerate(places))
    return None if low is None else (low, high)


def _edge(histogram: Histogram, place: float, side: int) -> float | None:
    """The lower (side 0) or upper (1) edge in µs at a place between two ranks; None beyond all recorded."""
    rank = max(math.floor(place), 1)
    here, after = histogram.edges_at_rank_us(rank), histogram.edges_at_rank_us(math.ceil(place))
    if here is None or after is None:
        return None
    return here[side] + (after[side] - here[side]) * max(place - rank, 0.0)


def mean_interval_us(
    histogram: Histogram, autocorrelation_time: float = 1.0, confidence: float = CONFIDENCE
) -> tuple[float, float] | None:
    """The interval in µs that holds the mean; None for fewer than ten independent samples' worth.

    Student's t with Hall's transformation (Journal of the Royal Statistical Society B 54, 1992), which takes the skew
    of latencies into account: their mean errs further to the high side. Ten is the convention for calling it normal.
    """
    mean, deviation = histogram.mean_us, histogram.deviation_us
    worth = effective_samples(histogram.count, autocorrelation_time, confidence)
    if mean is None or deviation is None or worth < 10:
        return None
    reach, tilt = float(stdtrit(worth - 1, (1 + confidence) / 2)), histogram.skewness / math.sqrt(worth)
    error = deviation / math.sqrt(worth)
    low, high = (mean - error * _untransformed(end, tilt) for end in (reach, -reach))
    return max(low, 0.0), high


def _untransformed(value: float, tilt: float) -> float:
    """The inverse of Hall's transformation; `tilt` is the skewness over the root of the number of samples."""
    if abs(tilt) < 1e-6:
        return value
    return 3 / tilt * (math.cbrt(1 + tilt * (value - tilt / 6)) - 1)
