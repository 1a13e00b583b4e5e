"""Confidence intervals of percentiles and means, and how many samples a statement needs."""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.special import bdtr, bdtrc, betainc, ndtri, stdtrit

from capacity.statistics.histogram import Histogram

CONFIDENCE = 0.95
# With fewer effective samples than this, the estimate of the autocorrelation time is too noisy for any interval.
MIN_EFFECTIVE_SAMPLES = 20
# Sokal's window sums over ten autocorrelation times (see stationarity.py), so an autocorrelation time of n samples has
# the relative error of a variance of n / 10 samples (Wolff, Monte Carlo errors with less errors, 2004, equation 42).
SAMPLES_PER_DEGREE = 10
# A generator records at most this many latencies of a series in order, so an autocorrelation time is of no more.
_MAX_ORDERED_SAMPLES = 20_000


def samples_needed(p: float, confidence: float = CONFIDENCE) -> int:
    """The fewest samples n that allow an interval between two of them for the p-th percentile (0 < p < 100).

    The widest interval, from the smallest to the largest sample, misses it with probability q**n + (1 - q)**n:
    29 for P90, 59 for P95, 299 for P99, 2,995 for P99.9.
    """
    q = p / 100
    n = max(2, math.floor(math.log(1 - confidence) / math.log(max(q, 1 - q))))
    while q**n + (1 - q) ** n > 1 - confidence:
        n += 1
    return n


def early_stopping_samples(over: int, p: float, confidence: float = 0.99) -> int:
    """How many samples are needed to state that the p-th percentile is within a bound, if `over` samples exceed it.

    The smallest n with I_q(n - over, over + 1) <= 1 - confidence, as in the early stopping of MLPerf's load generator
    (mlcommons/inference, loadgen/early_stopping.cc). It is for independent samples: multiply by the autocorrelation
    time.
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
    """Ranks (1 the smallest) of two samples between which the p-th percentile lies; None if n samples are too few.

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
    """Whether an autocorrelation time of `count` samples exceeds the noise of its estimate for independent samples."""
    return autocorrelation_time > 1 + 2 * math.sqrt(2 * (SAMPLES_PER_DEGREE + 1) / max(count, 1.0))


def effective_samples(count: float, autocorrelation_time: float, confidence: float = CONFIDENCE) -> float:
    """The effective sample size of `count` samples with this autocorrelation time; 0 where too few to estimate it.

    Less than count / autocorrelation_time where samples are correlated: that time is itself an estimate, so intervals
    widen by the ratio of Student's t to the normal distribution.
    """
    size = count / autocorrelation_time
    if not is_autocorrelated(count, autocorrelation_time):
        return size
    if size < MIN_EFFECTIVE_SAMPLES:
        return 0.0
    tail, degrees = (1 + confidence) / 2, min(count, _MAX_ORDERED_SAMPLES) / autocorrelation_time / SAMPLES_PER_DEGREE
    return size * (float(ndtri(tail)) / float(stdtrit(degrees, tail))) ** 2


def interval_positions(p: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """As `interval_ranks`, with a fraction towards the next rank, so that the coverage is the confidence and no more.

    Interpolates order statistics (Nyblom, Statistics and Probability Letters 14, 1992): nearly exact for any
    continuous distribution, where whole ranks cover up to 98 % of a small sample's.
    """
    size, q, miss = math.floor(n), p / 100, 1 - confidence
    if interval_ranks(p, n, confidence) is None:
        return None
    above, below = max(miss / 2, q**size), max(miss / 2, (1 - q) ** size)
    # Where one tail cannot be as small, the other one gets the rest of the miss probability.
    above, below = (above, miss - above) if above > miss / 2 else (miss - below, below)
    return _position(size, q, 1 - below), _position(size, q, above)


def _position(size: int, q: float, probability: float) -> float:
    """The position among ordered samples that the percentile exceeds with this probability."""
    rank = _first(size, lambda count: bool(bdtrc(count, size, q) < probability))
    if rank in (0, size):
        return max(float(rank), 1.0)
    here, next_one = float(bdtrc(rank - 1, size, q)), float(bdtrc(rank, size, q))
    if here <= probability:
        return float(rank)
    odds = rank * (1 - q) * (probability - next_one) / ((size - rank) * q * (here - probability))
    return rank + 1 / (1 + odds)


def lower_rank(size: int, q: float, tail: float) -> int:
    """The largest rank r, or 0, with P(fewer than r samples at or under the percentile) <= tail."""
    return _first(size + 1, lambda count: bool(bdtr(count, size, q) > tail))


def _highest(size: int, q: float, tail: float) -> int:
    """The smallest rank r, up to size + 1, with P(r samples or more at or under the percentile) <= tail."""
    return _first(size, lambda count: bool(bdtrc(count, size, q) <= tail)) + 1


def _first(end: int, condition: Callable[[int], bool]) -> int:
    """The first number from 0 on that meets a condition which all later ones meet too; `end` if no earlier one does."""
    low, high = -1, end
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if condition(middle) else (middle, high)
    return high


def percentile_interval_us(
    histogram: Histogram, p: float, beyond: int = 0, autocorrelation_time: float = 1.0, confidence: float = CONFIDENCE
) -> tuple[float, float | None] | None:
    """The confidence interval of the p-th percentile in µs, from the outer edges of buckets.

    `beyond` samples lie above all recorded ones; an upper end among them is None. `autocorrelation_time` is in samples.
    None where there are too few samples.
    """
    total = histogram.count + beyond
    effective = effective_samples(total, autocorrelation_time, confidence)
    positions = interval_positions(p, effective, confidence)
    if positions is None:
        return None
    scale = total / math.floor(effective)
    low, high = (_edge(histogram, position * scale, side) for side, position in enumerate(positions))
    return None if low is None else (low, high)


def _edge(histogram: Histogram, position: float, side: int) -> float | None:
    """The lower (side 0) or upper (1) edge in µs at a position between two ranks; None beyond all recorded samples."""
    rank = max(math.floor(position), 1)
    here, after = histogram.edges_at_rank_us(rank), histogram.edges_at_rank_us(math.ceil(position))
    if here is None or after is None:
        return None
    return here[side] + (after[side] - here[side]) * max(position - rank, 0.0)


def mean_interval_us(
    histogram: Histogram, autocorrelation_time: float = 1.0, confidence: float = CONFIDENCE
) -> tuple[float, float] | None:
    """The confidence interval of the mean in µs; None below ten effective samples.

    Student's t with Hall's transformation (Journal of the Royal Statistical Society B 54, 1992), which corrects for the
    skewness of latencies. Ten samples are the usual convention for treating a mean as normal.
    """
    mean, deviation = histogram.mean_us, histogram.deviation_us
    effective = effective_samples(histogram.count, autocorrelation_time, confidence)
    if mean is None or deviation is None or effective < 10:
        return None
    reach, tilt = float(stdtrit(effective - 1, (1 + confidence) / 2)), histogram.skewness / math.sqrt(effective)
    error = deviation / math.sqrt(effective)
    low, high = (mean - error * _untransformed(end, tilt) for end in (reach, -reach))
    return max(low, 0.0), high


def _untransformed(value: float, tilt: float) -> float:
    """The inverse of Hall's transformation; `tilt` is the skewness over the root of the number of samples."""
    if abs(tilt) < 1e-6:
        return value
    return 3 / tilt * (math.cbrt(1 + tilt * (value - tilt / 6)) - 1)
