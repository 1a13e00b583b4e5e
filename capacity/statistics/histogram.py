"""Histograms of one HdrHistogram configuration, recorded in bulk, with exact count, sum, minimum and maximum.

The configuration never varies, so adding is exact, and a percentile of a sum is the percentile of the pooled samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from capacity.statistics.payload import (
    BUCKET_COUNT,
    BUCKET_FLOORS_US,
    HALF,
    HALF_BITS,
    HIGHEST_US,
    LOWEST_US,
    SIGNIFICANT_DIGITS,
    decode_counts,
    encode_counts,
)

__all__ = ["HIGHEST_US", "LOWEST_US", "SIGNIFICANT_DIGITS", "Histogram", "percentile_rank"]

# A float64 holds its exponent above 52 bits of mantissa; shifted right by 42, what is left counts buckets.
_FLOAT_SHIFT = 52 - HALF_BITS
_FLOAT_OFFSET = ((1023 + HALF_BITS) << HALF_BITS) - HALF


def _index(us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bucket of each value in µs; values in [0, 2**52)."""
    bits = us.astype(np.float64).view(np.int64)
    return np.where(us < HALF, us, (bits >> _FLOAT_SHIFT) - _FLOAT_OFFSET)


_TOP = int(_index(np.array([HIGHEST_US]))[0])


class Histogram:
    """Values in µs between 1 µs and 1 h at three digits; larger values are counted in the highest bucket.

    `counts` has shape (23552,), one entry per bucket. `count`, `sum_ns`, `min_ns` and `max_ns` are exact (min and
    max are None while empty); `above` is the number of values over the highest trackable one.
    """

    __slots__ = ("above", "count", "counts", "max_ns", "min_ns", "sum_ns")

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(BUCKET_COUNT, dtype=np.int64)
        self.count = 0
        self.sum_ns = 0
        self.min_ns: int | None = None
        self.max_ns: int | None = None
        self.above = 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        return self.exact == other.exact and bool(np.array_equal(self.counts, other.counts))

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"Histogram(count={self.count}, min_us={self.min_us}, mean_us={self.mean_us}, max_us={self.max_us})"

    @property
    def exact(self) -> tuple[int, int, int | None, int | None, int]:
        """The exact values beside the buckets: count, sum_ns, min_ns, max_ns, above."""
        return self.count, self.sum_ns, self.min_ns, self.max_ns, self.above

    def record_ns(self, values: NDArray[np.integer[Any]] | Sequence[int]) -> None:
        """Records durations in ns, shape (n,), each rounded to the nearest µs. ValueError for a negative one."""
        ns = np.asarray(values, dtype=np.int64)
        if ns.ndim != 1:
            raise ValueError(f"expected an array of one dimension, not of {ns.ndim}")
        size = int(ns.size)
        if size == 0:
            return
        low, high = int(ns.min()), int(ns.max())
        if low < 0:
            raise ValueError(f"a duration cannot be negative: {low} ns")
        us = (ns + 500) // 1000 if high < 2**62 else ns // 1000
        if (high + 500) // 1000 > HIGHEST_US:
            self.above += int(np.count_nonzero(us > HIGHEST_US))
            us = np.minimum(us, HIGHEST_US)
        index = _index(us)
        first = int(index.min())
        added = np.bincount(index - first)
        self.counts[first : first + added.size] += added
        self.count += size
        # Where the sum could overflow int64, Python's integers add it up.
        self.sum_ns += int(ns.sum()) if high < 2**63 // size else sum(ns.tolist())
        self.min_ns = low if self.min_ns is None else min(low, self.min_ns)
        self.max_ns = high if self.max_ns is None else max(high, self.max_ns)

    def add(self, other: Histogram) -> None:
        """Adds the samples of another histogram, exactly."""
        self.counts += other.counts
        self.count += other.count
        self.sum_ns += other.sum_ns
        self.above += other.above
        if other.min_ns is not None:
            self.min_ns = other.min_ns if self.min_ns is None else min(self.min_ns, other.min_ns)
        if other.max_ns is not None:
            self.max_ns = other.max_ns if self.max_ns is None else max(self.max_ns, other.max_ns)

    def subtract(self, earlier: Histogram) -> Histogram:
        """The samples since `earlier`, an earlier state of this cumulative histogram; ValueError if it is not one.

        Counts and sum are exact. Min and max are exact where they changed, else the edges of the outermost buckets.
        """
        counts = self.counts - earlier.counts
        if (counts < 0).any() or self.sum_ns < earlier.sum_ns or self.above < earlier.above:
            raise ValueError("the histogram to subtract is not an earlier state of this one")
        later = Histogram()
        later.counts = counts
        later.count = self.count - earlier.count
        later.sum_ns = self.sum_ns - earlier.sum_ns
        later.above = self.above - earlier.above
        if later.count:
            assert self.min_ns is not None
            assert self.max_ns is not None
            low, high = _edges_ns(counts)
            moved_low = earlier.min_ns is None or self.min_ns < earlier.min_ns
            moved_high = earlier.max_ns is None or self.max_ns > earlier.max_ns
            later.min_ns = self.min_ns if moved_low else max(low, self.min_ns)
            later.max_ns = self.max_ns if moved_high or later.above else min(high, self.max_ns)
            # Rounding to µs puts a value up to 500 ns away from its bucket's edge.
            later.max_ns = max(later.max_ns, later.min_ns)
        return later

    def copy(self) -> Histogram:
        """An independent histogram of the same samples."""
        histogram = Histogram()
        histogram.add(self)
        return histogram

    def percentile_us(self, p: float, beyond: int = 0) -> float | None:
        """The p-th percentile in µs: the smallest bucket that holds at least p % of all samples, by its upper edge.

        `beyond` samples lie above everything recorded (errors, requests never sent). None where there is no sample,
        or where the rank falls among those. Never outside min and max. The rank is ceil(p/100 × n), as in Java's
        HdrHistogram and numpy's "inverted_cdf".
        """
        return self.value_at_rank_us(percentile_rank(p, self.count + beyond))

    def value_at_rank_us(self, rank: int) -> float | None:
        """The value in µs of the sample of this rank (1 the smallest), by its bucket's upper edge; None if beyond."""
        edges = self.edges_at_rank_us(rank)
        return edges[1] if edges else None

    def edges_at_rank_us(self, rank: int) -> tuple[float, float] | None:
        """The lower and upper edge in µs of the bucket of the sample of this rank; None if there are fewer."""
        if not 1 <= rank <= self.count:
            return None
        least, most = (self.min_ns or 0) / 1000, (self.max_ns or 0) / 1000
        if rank > self.count - self.above:
            return max(float(HIGHEST_US), least), most
        bucket = int(np.searchsorted(np.cumsum(self.counts), rank))
        # Values are rounded to the nearest µs for their bucket, so exact min and max may lie just outside its edges.
        low, high = float(BUCKET_FLOORS_US[bucket]), float(BUCKET_FLOORS_US[bucket + 1] - 1)
        return min(max(low, least), most), min(max(high, least), most)

    def count_above_us(self, bound_us: float) -> int:
        """The number of samples in buckets that begin above the bound."""
        return int(self.counts[int(np.searchsorted(BUCKET_FLOORS_US[:-1], bound_us, side="right")) :].sum())

    @property
    def mean_us(self) -> float | None:
        """Exact mean in µs."""
        return self.sum_ns / self.count / 1000 if self.count else None

    @property
    def deviation_us(self) -> float | None:
        """Standard deviation in µs, from the buckets' middles; None below two samples."""
        if self.count < 2:
            return None
        middles = (BUCKET_FLOORS_US[:-1] + BUCKET_FLOORS_US[1:] - 1) / 2
        centre = float(self.counts @ middles) / self.count
        return float(np.sqrt(self.counts @ (middles - centre) ** 2 / (self.count - 1)))

    @property
    def skewness(self) -> float:
        """Third central moment over the standard deviation's cube, from the buckets' middles; 0 where there is none."""
        deviation = self.deviation_us
        if not deviation:
            return 0.0
        used = np.flatnonzero(self.counts)
        middles, counts = (BUCKET_FLOORS_US[used] + BUCKET_FLOORS_US[used + 1] - 1) / 2, self.counts[used]
        centre = float(counts @ middles) / self.count
        return float(counts @ ((middles - centre) / deviation) ** 3 / self.count)

    @property
    def min_us(self) -> float | None:
        """Exact minimum in µs."""
        return None if self.min_ns is None else self.min_ns / 1000

    @property
    def max_us(self) -> float | None:
        """Exact maximum in µs."""
        return None if self.max_ns is None else self.max_ns / 1000

    def used_buckets_us(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The lowest value in µs of each bucket that holds samples, ascending, and how many it holds; shapes (k,)."""
        used = np.flatnonzero(self.counts)
        return BUCKET_FLOORS_US[used], self.counts[used]

    def encode(self) -> bytes:
        """HdrHistogram's V2 compressed payload in base64, as a line of an interval log has it."""
        return encode_counts(self.counts)

    @classmethod
    def decode(
        cls,
        encoded: bytes,
        *,
        count: int | None = None,
        sum_ns: int | None = None,
        min_ns: int | None = None,
        max_ns: int | None = None,
        above: int = 0,
    ) -> Self:
        """The histogram of a payload (base64) from outside; ValueError on anything but one of this configuration.

        Exact values that are missing are estimated: the sum from the buckets' middles, min and max from their edges.
        """
        counts = decode_counts(encoded)
        total = int(counts.sum())
        histogram = cls()
        histogram.counts = counts
        histogram.count = total
        if count is not None and count != total:
            raise ValueError(f"a histogram declares {count} samples and holds {total}")
        if not 0 <= above <= int(counts[_TOP]):
            raise ValueError(f"a histogram declares {above} samples out of range, more than its highest bucket holds")
        histogram.above = above
        if total:
            low, high = _edges_ns(counts)
            histogram.sum_ns = _estimated_sum_ns(counts) if sum_ns is None else sum_ns
            histogram.min_ns = low if min_ns is None else min_ns
            histogram.max_ns = high if max_ns is None else max_ns
            if not 0 <= histogram.min_ns <= histogram.max_ns or histogram.sum_ns < 0:
                raise ValueError("a histogram's exact sum, minimum and maximum contradict each other")
        return histogram


def percentile_rank(p: float, total: int) -> int:
    """The rank, 1 the smallest, of the p-th percentile (0 to 100) among `total` samples."""
    if not 0 <= p <= 100:
        raise ValueError(f"a percentile lies between 0 and 100, not {p}")
    # Exact: 99.9 % of 1,000 is rank 999, where floating point's 999.0000000000001 would round up to 1,000.
    share = Fraction(repr(float(p))) * total / 100
    return max(-(-share.numerator // share.denominator), 1)


def _estimated_sum_ns(counts: NDArray[np.int64]) -> int:
    """The sum if every value lay in the middle of its bucket; in Python's integers, which do not overflow."""
    used = np.flatnonzero(counts)
    middles = (BUCKET_FLOORS_US[used] + BUCKET_FLOORS_US[used + 1] - 1) * 500
    return sum(count * middle for count, middle in zip(counts[used].tolist(), middles.tolist(), strict=True))


def _edges_ns(counts: NDArray[np.int64]) -> tuple[int, int]:
    used = np.flatnonzero(counts)
    return int(BUCKET_FLOORS_US[used[0]]) * 1000, (int(BUCKET_FLOORS_US[used[-1] + 1]) - 1) * 1000
