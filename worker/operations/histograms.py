"""Histogram: the worker's own HDR histograms of durations, in one fixed configuration (1 µs to 1 h, 3 digits)."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from hdrh.histogram import HdrHistogram

LOWEST_US = 1
HIGHEST_US = 3_600_000_000
DIGITS = 3

# A power of two that holds three digits: 2048 buckets of equal width, the upper half of which repeats at each doubling.
_HALF_BITS = 10
_MASK = (1 << (_HALF_BITS + 1)) - 1


@dataclass(frozen=True)
class HistogramSummary:
    """One histogram as Snapshot sends it: payload in microseconds; count, sum, min and max exact, in nanoseconds."""

    payload: bytes
    count: int
    sum_ns: int
    min_ns: int
    max_ns: int
    above: int


class Histogram:
    """Durations from 1 µs to 1 h with three digits. Recorded and read in one thread."""

    def __init__(self) -> None:
        self._hdr = HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)
        self._counts = np.frombuffer(self._hdr.counts, np.uint64)
        self.count = 0
        self.sum_ns = 0
        self.min_ns = 0
        self.max_ns = 0
        self.above = 0

    def record(self, nanoseconds: Sequence[int]) -> None:
        """Adds durations in nanoseconds in bulk, which costs a tenth of adding each."""
        if not nanoseconds:
            return
        values = np.array(nanoseconds, np.int64)
        micro = (values + 500) // 1000
        self.above += int(np.count_nonzero(micro > HIGHEST_US))
        index = bucket_index(np.minimum(micro, HIGHEST_US))
        self._counts += np.bincount(index, minlength=len(self._counts)).astype(np.uint64)
        low, high = int(values.min()), int(values.max())
        self.min_ns = low if self.count == 0 else min(self.min_ns, low)
        self.max_ns = max(self.max_ns, high)
        self.sum_ns += int(values.sum())
        self.count += len(nanoseconds)

    def summary(self) -> HistogramSummary:
        """Returns the counts so far."""
        self._hdr.total_count = self.count
        self._hdr.min_value = (self.min_ns + 500) // 1000 if self.count else sys.maxsize
        self._hdr.max_value = min((self.max_ns + 500) // 1000, HIGHEST_US)
        payload = bytes(self._hdr.encode())
        return HistogramSummary(payload, self.count, self.sum_ns, self.min_ns, self.max_ns, self.above)

    def cumulative(self, bounds_us: npt.NDArray[np.int64]) -> list[int]:
        """Returns the number of values at or below each bound, to the resolution of the buckets."""
        running = np.cumsum(self._counts)
        return [int(running[index]) for index in bucket_index(np.minimum(bounds_us, HIGHEST_US))]


def bucket_index(micro: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Returns HdrHistogram's own index of each value: which doubling, then which of its equal parts."""
    doubling = np.frexp((micro | _MASK).astype(np.float64))[1].astype(np.int64) - (_HALF_BITS + 1)
    part = micro >> doubling
    result: npt.NDArray[np.int64] = (doubling << _HALF_BITS) + part
    return result
