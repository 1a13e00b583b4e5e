"""A run over time: counts and percentiles of the log in windows, for pictures and for tests on blocks of time."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capacity.measures import LATENCY_ERROR, OFFERED, UNSENT, Series, is_target_measure
from capacity.rundir.interval_log import Interval, interval_log_extent
from capacity.statistics import Histogram, samples_needed

_MAX_WINDOWS = 120
_TIMED_MEASURES = ("latency", LATENCY_ERROR, OFFERED, UNSENT)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class WindowStatistics:
    """Some series together, in n windows of time; each array has shape (n,).

    `seconds` is the middle of each window, since measuring began. Percentiles in µs are NaN where a window has too few
    samples for them. `offered` (by due time), `answered`, `failed` and `unsent` are rates a second; `offered` is None
    for a log without it.
    """

    seconds: Floats
    percentiles_us: dict[float, Floats]
    answered: Floats
    failed: Floats
    unsent: Floats
    offered: Floats | None


@dataclass
class Timeline:
    """Windows of equal length from `start_s` (after the log's start) on, and the counts of each series in them.

    `covered_s` is how much of each window the log's intervals cover; `counts` and `sums_ns` are by series and measure,
    all of shape (windows,).
    """

    start_s: float
    window_s: float
    covered_s: Floats
    counts: dict[tuple[Series, str], Floats] = field(default_factory=dict)
    sums_ns: dict[tuple[Series, str], Floats] = field(default_factory=dict)
    # Latencies of answered requests, by series and window: non-empty buckets, their counts, and the highest value in
    # ns. Few of the 23,552 buckets are not empty.
    _latencies: dict[tuple[Series, int], list[tuple[NDArray[np.intp], NDArray[np.int64], int]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    _intervals: set[tuple[float, float]] = field(default_factory=set)

    @classmethod
    def of_log(cls, path: Path, measured_s: float) -> Timeline | None:
        """An empty timeline over the measured part of a log; None where nothing was measured."""
        extent = interval_log_extent(path, lambda tag: tag.rpartition("/")[2] in _TIMED_MEASURES)
        if extent is None or extent[1] <= extent[0]:
            return None
        first, last = extent
        # The log's first interval may have begun in the warm-up. A merged run has gaps: all of it is taken.
        start = max(first, last - measured_s) if measured_s > 0.9 * (last - first) else first
        number = min(max(math.floor(last - start + 0.5), 1), _MAX_WINDOWS)
        return cls(start, (last - start) / number, np.zeros(number))

    @property
    def number(self) -> int:
        """The number of windows."""
        return int(self.covered_s.size)

    def add(self, interval: Interval, series: Series, measure: str) -> None:
        """Adds one interval of the log; those that span the whole run (the targets' own measures) are left out."""
        begin, end = interval.start_s, interval.start_s + interval.length_s
        if end <= self.start_s or is_target_measure(measure):
            return
        middle = (max(begin, self.start_s) + end) / 2
        window = min(int((middle - self.start_s) / self.window_s), self.number - 1)
        if (begin, end) not in self._intervals:
            self._intervals.add((begin, end))
            self.covered_s[window] += end - max(begin, self.start_s)
        key, histogram = (series, measure), interval.histogram
        if key not in self.counts:
            self.counts[key], self.sums_ns[key] = np.zeros(self.number), np.zeros(self.number)
        self.counts[key][window] += histogram.count
        self.sums_ns[key][window] += histogram.sum_ns
        if measure == "latency":
            buckets = np.flatnonzero(histogram.counts)
            self._latencies[series, window].append((buckets, histogram.counts[buckets], histogram.max_ns or 0))

    def total(self, series: Series, measure: str) -> Floats:
        """The number of a measure's samples in each window; zeros where there are none."""
        return self.counts.get((series, measure), np.zeros(self.number))

    def statistics(
        self, members: Collection[Series], percentiles: Collection[float] = (50.0, 90.0, 99.0)
    ) -> WindowStatistics:
        """The pooled series, in windows long enough for a P90 where the run's length allows it."""
        measures = ("latency", LATENCY_ERROR, UNSENT, OFFERED)
        answered, failed, unsent, offered = (
            np.sum([self.total(series, measure) for series in members] or [np.zeros(self.number)], axis=0)
            for measure in measures
        )
        lost = failed + unsent
        per_window = float(np.median(answered + lost))
        width = math.ceil(samples_needed(90) / per_window) if per_window > 0 else 1
        width = max(min(width, self.number // 4), 1)
        starts = list(range(0, self.number - width + 1, width)) or [0]
        edges = [*starts, self.number]
        values_us: dict[float, list[float]] = {p: [] for p in percentiles}
        for begin, end in pairwise(edges):
            beyond = int(lost[begin:end].sum())
            pooled = self._pooled(members, begin, end)
            for p, values in values_us.items():
                enough = pooled.count + beyond >= samples_needed(p)
                value = pooled.percentile_us(p, beyond) if enough else None
                values.append(math.nan if value is None else value)
        spans = np.add.reduceat(self.covered_s, starts)
        with np.errstate(divide="ignore", invalid="ignore"):
            rates = [
                np.nan_to_num(np.add.reduceat(counts, starts) / spans) for counts in (answered, failed, unsent, offered)
            ]
        middles = np.array([(begin + end) / 2 * self.window_s for begin, end in pairwise(edges)])
        has_offered = any((series, OFFERED) in self.counts for series in members)
        percentiles_us = {p: np.array(values) for p, values in values_us.items()}
        return WindowStatistics(
            middles, percentiles_us, rates[0], rates[1], rates[2], rates[3] if has_offered else None
        )

    def _pooled(self, members: Collection[Series], begin: int, end: int) -> Histogram:
        pooled = Histogram()
        for series in members:
            for window in range(begin, end):
                for buckets, counts, max_ns in self._latencies.get((series, window), ()):
                    pooled.counts[buckets] += counts
                    pooled.max_ns = max(pooled.max_ns or 0, max_ns)
        pooled.count = int(pooled.counts.sum())
        return pooled
