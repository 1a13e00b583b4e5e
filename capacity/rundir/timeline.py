"""A run's course: what its log says of each stretch of time, for pictures over time and for tests on blocks of it."""

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

_MOST_BINS = 120
_TIMED = ("latency", LATENCY_ERROR, OFFERED, UNSENT)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class WindowStatistics:
    """Some series together, in n stretches of time; each array has shape (n,).

    `seconds` is each stretch's middle since measuring began. Percentiles in µs are NaN where a stretch has too few
    samples for them. `offered` (by when it was due), `answered`, `failed` and `unsent` are per second; `offered` is
    None for a log that does not tell.
    """

    seconds: Floats
    percentiles_us: dict[float, Floats]
    answered: Floats
    failed: Floats
    unsent: Floats
    offered: Floats | None


@dataclass
class Timeline:
    """Stretches of equal length from `start_s` (after the log's start) on, and what each series had in them.

    `covered_s` is how much of each stretch the log's intervals cover; `counts` and `sums_ns` are by series and measure,
    shape (stretches,).
    """

    start_s: float
    stretch_s: float
    covered_s: Floats
    counts: dict[tuple[Series, str], Floats] = field(default_factory=dict)
    sums_ns: dict[tuple[Series, str], Floats] = field(default_factory=dict)
    # Of answered requests' latency, by series and stretch: used buckets, their counts, and the greatest in ns. Few of
    # the 23,552 buckets are used.
    _used: dict[tuple[Series, int], list[tuple[NDArray[np.intp], NDArray[np.int64], int]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    _seen: set[tuple[float, float]] = field(default_factory=set)

    @classmethod
    def of_log(cls, path: Path, measured_s: float) -> Timeline | None:
        """An empty course over the measured part of a log; None where nothing was measured."""
        extent = interval_log_extent(path, lambda tag: tag.rpartition("/")[2] in _TIMED)
        if extent is None or extent[1] <= extent[0]:
            return None
        first, last = extent
        # The log's first interval may have begun in the warm-up. In a merged run there are gaps: take all of it.
        start = max(first, last - measured_s) if measured_s > 0.9 * (last - first) else first
        number = min(max(math.floor(last - start + 0.5), 1), _MOST_BINS)
        return cls(start, (last - start) / number, np.zeros(number))

    @property
    def number(self) -> int:
        """How many stretches there are."""
        return int(self.covered_s.size)

    def add(self, interval: Interval, series: Series, measure: str) -> None:
        """One interval of the log; those that span the whole run, as a worker's own clocks do, are left out."""
        begin, end = interval.start_s, interval.start_s + interval.length_s
        if end <= self.start_s or is_target_measure(measure):
            return
        middle = (max(begin, self.start_s) + end) / 2
        place = min(int((middle - self.start_s) / self.stretch_s), self.number - 1)
        if (begin, end) not in self._seen:
            self._seen.add((begin, end))
            self.covered_s[place] += end - max(begin, self.start_s)
        key, histogram = (series, measure), interval.histogram
        if key not in self.counts:
            self.counts[key], self.sums_ns[key] = np.zeros(self.number), np.zeros(self.number)
        self.counts[key][place] += histogram.count
        self.sums_ns[key][place] += histogram.sum_ns
        if measure == "latency":
            used = np.flatnonzero(histogram.counts)
            self._used[series, place].append((used, histogram.counts[used], histogram.max_ns or 0))

    def total(self, series: Series, measure: str) -> Floats:
        """How many of a measure's samples each stretch holds; zeros where there are none."""
        return self.counts.get((series, measure), np.zeros(self.number))

    def lines(
        self, members: Collection[Series], percentiles: Collection[float] = (50.0, 90.0, 99.0)
    ) -> WindowStatistics:
        """Some series pooled, in stretches long enough for a P90 where the run's length allows it."""
        measures = ("latency", LATENCY_ERROR, UNSENT, OFFERED)
        answered, failed, unsent, offered = (
            np.sum([self.total(series, measure) for series in members] or [np.zeros(self.number)], axis=0)
            for measure in measures
        )
        lost_each = failed + unsent
        each = float(np.median(answered + lost_each))
        together = math.ceil(samples_needed(90) / each) if each > 0 else 1
        together = max(min(together, self.number // 4), 1)
        starts = list(range(0, self.number - together + 1, together)) or [0]
        edges = [*starts, self.number]
        found: dict[float, list[float]] = {p: [] for p in percentiles}
        for begin, end in pairwise(edges):
            lost = int(lost_each[begin:end].sum())
            pooled = self._pooled(members, begin, end)
            for p, values in found.items():
                enough = pooled.count + lost >= samples_needed(p)
                value = pooled.percentile_us(p, lost) if enough else None
                values.append(math.nan if value is None else value)
        spans = np.add.reduceat(self.covered_s, starts)
        with np.errstate(divide="ignore", invalid="ignore"):
            rates = [
                np.nan_to_num(np.add.reduceat(counts, starts) / spans) for counts in (answered, failed, unsent, offered)
            ]
        middles = np.array([(begin + end) / 2 * self.stretch_s for begin, end in pairwise(edges)])
        told = any((series, OFFERED) in self.counts for series in members)
        percentiles_us = {p: np.array(values) for p, values in found.items()}
        return WindowStatistics(middles, percentiles_us, rates[0], rates[1], rates[2], rates[3] if told else None)

    def _pooled(self, members: Collection[Series], begin: int, end: int) -> Histogram:
        pooled = Histogram()
        for series in members:
            for place in range(begin, end):
                for used, counts, greatest_ns in self._used.get((series, place), ()):
                    pooled.counts[used] += counts
                    pooled.max_ns = max(pooled.max_ns or 0, greatest_ns)
        pooled.count = int(pooled.counts.sum())
        return pooled
