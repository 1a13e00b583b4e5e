"""What the live page remembers of a series: its last seconds, its sums since measuring began, and points for charts."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from capacity.measures import Tally
from capacity.statistics import BUCKET_COUNT, BUCKET_FLOORS_US, Histogram, percentile_rank, samples_needed

#: The length of "recent" on the page, in ticks of one second.
WINDOW = 10
#: Most points of a chart. Where they are full every second one is dropped, and later ones stand for more seconds.
POINTS = 240
#: The percentiles of the page, by their names in its data.
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9}


@dataclass(frozen=True)
class Tick:
    """One second of one series: counts, and latency as the buckets that are not empty with their counts.

    `failed` are errors and unsent requests: they are beyond every percentile.
    """

    answered: int
    failed: int
    buckets: npt.NDArray[np.intp]
    counts: npt.NDArray[np.int64]
    max_us: float


class RecentWindow:
    """The last WINDOW seconds of `members` series together, as sums: a tick costs little."""

    def __init__(self, members: int = 1) -> None:
        self._ticks: deque[Tick] = deque()
        self._most = WINDOW * members
        self._members = members
        self.counts = np.zeros(BUCKET_COUNT, dtype=np.int64)
        self.answered = 0
        self.failed = 0

    @property
    def seconds(self) -> int:
        """How many seconds it holds."""
        return len(self._ticks) // self._members

    def add(self, tick: Tick) -> None:
        """Adds a second of one member; the oldest leaves."""
        self._ticks.append(tick)
        self.counts[tick.buckets] += tick.counts
        self.answered += tick.answered
        self.failed += tick.failed
        if len(self._ticks) > self._most:
            oldest = self._ticks.popleft()
            self.counts[oldest.buckets] -= oldest.counts
            self.answered -= oldest.answered
            self.failed -= oldest.failed

    def percentiles_us(self) -> dict[str, float | None]:
        """The percentiles of latency in µs; None where there are too few samples."""
        max_us = max((tick.max_us for tick in self._ticks), default=0.0)
        return percentiles_us(self.counts, self.failed, 0.0, max_us)


@dataclass
class SeriesHistory:
    """One series: its recent seconds, and its sums since measuring began. A Tally would have six histograms."""

    recent: RecentWindow = field(default_factory=RecentWindow)
    latency: Histogram = field(default_factory=Histogram)
    lateness: Histogram = field(default_factory=Histogram)
    service: Histogram = field(default_factory=Histogram)
    answered: int = 0
    unsent: int = 0
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """Errors and unsent requests: beyond every percentile."""
        return sum(self.errors.values()) + self.unsent

    def add(self, tally: Tally, closed: bool) -> Tick:
        """Adds one second. In a closed loop (`closed`) lateness is always 0 and not recorded."""
        histograms = tally.histograms
        latency = histograms["latency"]
        if latency.count:
            self.latency.add(latency)
        for total, measure in () if closed else ((self.lateness, "lateness"), (self.service, "service")):
            if histograms[measure].count:
                total.add(histograms[measure])
        self.answered += tally.answered
        self.unsent += tally.unsent
        for code, count in tally.errors.items():
            self.errors[code] = self.errors.get(code, 0) + count
        buckets = np.flatnonzero(latency.counts) if latency.count else np.empty(0, dtype=np.intp)
        failed, max_us = tally.failed + tally.unsent, latency.max_us or 0.0
        tick = Tick(tally.answered, failed, buckets, latency.counts[buckets], max_us)
        self.recent.add(tick)
        return tick


class ChartPoints:
    """Points over the whole run, fewer than POINTS of them."""

    def __init__(self) -> None:
        self.points: list[list[float | None]] = []
        self._stride = 1
        self._ticks = 0

    def add(self, point: list[float | None]) -> None:
        """Adds the point of one second, or skips it where points stand for several seconds."""
        if self._ticks % self._stride == 0:
            self.points.append(point)
            if len(self.points) >= POINTS:
                self.points = self.points[::2]
                self._stride *= 2
        self._ticks += 1


def add_histograms(histograms: Sequence[Histogram]) -> Histogram:
    """The sum of histograms; of one alone that one itself, which must not be changed."""
    if len(histograms) == 1:
        return histograms[0]
    total = Histogram()
    for histogram in histograms:
        total.add(histogram)
    return total


def percentiles_us(counts: npt.NDArray[np.int64], failed: int, min_us: float, max_us: float) -> dict[str, float | None]:
    """PERCENTILES of bucket counts with `failed` requests above them all: upper edges of buckets, within min and max.

    None where the sample is too small for a percentile, or where its rank is among the failed.
    """
    buckets = np.flatnonzero(counts)
    cumulative = np.cumsum(counts[buckets])
    total = int(cumulative[-1]) + failed if buckets.size else failed
    percentiles: dict[str, float | None] = {}
    for name, p in PERCENTILES.items():
        rank = percentile_rank(p, total)
        enough = total >= samples_needed(p) and buckets.size > 0 and rank <= cumulative[-1]
        edge = float(BUCKET_FLOORS_US[buckets[np.searchsorted(cumulative, rank)] + 1] - 1) if enough else None
        percentiles[name] = None if edge is None else min(max(edge, min_us), max_us)
    return percentiles
