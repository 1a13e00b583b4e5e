"""A distribution of durations as a table of its quantiles, so that a draw is one look-up and mixing is an addition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from capacity.statistics import BUCKET_FLOORS_US, Histogram

#: Quantiles of a table, equally likely: P99.9 has 16 of them above it.
SIZE = 1 << 14
_MIDDLES = (np.arange(SIZE) + 0.5) / SIZE


@dataclass(frozen=True, eq=False)
class Distribution:
    """`table_us`, shape (SIZE,), ascending: each value is drawn with the same probability."""

    table_us: NDArray[np.float64]

    @classmethod
    def constant(cls, us: float) -> Distribution:
        """Always the same."""
        return cls(np.full(SIZE, float(us)))

    @classmethod
    def of(cls, values_us: ArrayLike) -> Distribution:
        """Of a sample in µs, shape (n,); ValueError where it is empty or has what is no duration."""
        values = np.sort(np.asarray(values_us, dtype=np.float64))
        if values.ndim != 1 or not values.size or not np.isfinite(values).all() or values[0] < 0:
            raise ValueError("a distribution is made of a flat sample of durations, at least one")
        table = np.interp(_MIDDLES * values.size - 0.5, np.arange(values.size), values)
        return cls(table)._with_mean(float(values.mean()))

    @classmethod
    def of_histogram(cls, histogram: Histogram) -> Distribution:
        """Of a histogram's samples, each bucket's spread evenly over it; the mean is the histogram's exact one."""
        if not histogram.count:
            raise ValueError("a histogram without samples is no distribution")
        used = np.flatnonzero(histogram.counts)
        counts = histogram.counts[used]
        # A bucket holds values rounded to the nearest µs.
        low = np.maximum(BUCKET_FLOORS_US[used] - 0.5, (histogram.min_ns or 0) / 1000)
        high = np.maximum(np.minimum(BUCKET_FLOORS_US[used + 1] - 0.5, (histogram.max_ns or 0) / 1000), low)
        running = np.cumsum(counts)
        wanted = _MIDDLES * running[-1]
        place = np.searchsorted(running, wanted)
        into = (wanted - (running[place] - counts[place])) / counts[place]
        return cls(low[place] + into * (high[place] - low[place]))._with_mean(histogram.mean_us or 0.0)

    def _with_mean(self, mean_us: float) -> Distribution:
        have = float(self.table_us.mean())
        return Distribution(self.table_us * (mean_us / have)) if have > 0 else self

    @cached_property
    def mean_us(self) -> float:
        """Mean in µs."""
        return float(self.table_us.mean())

    @cached_property
    def values(self) -> list[float]:
        """The table as Python's own numbers, which a loop reads faster."""
        return [float(value) for value in self.table_us]

    def percentile_us(self, p: float) -> float:
        """The p-th percentile, 0 to 100, in µs."""
        return float(np.percentile(self.table_us, p))

    def scaled(self, factor: float) -> Distribution:
        """Everything so many times as long."""
        return Distribution(self.table_us * factor)

    def between(self, other: Distribution, weight: float) -> Distribution:
        """Quantile by quantile between this one (weight 0) and another (1)."""
        return Distribution(self.table_us * (1 - weight) + other.table_us * weight)

    def beyond(self, part: Distribution) -> Distribution:
        """What is added to `part` to make this one: the difference of the quantiles, with the difference of the means.

        Where both vary, quantiles hide part of the added spread: it is that of the sum, which the larger part makes.
        """
        mean = self.mean_us - part.mean_us
        if mean <= 0:
            return Distribution.constant(0.0)
        differences = np.sort(np.maximum(self.table_us - part.table_us, 0.0))
        return Distribution(differences)._with_mean(mean) if differences[-1] > 0 else Distribution.constant(mean)


def mixed(parts: Sequence[tuple[Distribution, float]]) -> Distribution:
    """One part or another, each with its weight; ValueError without weights above 0."""
    total = sum(weight for _, weight in parts)
    if total <= 0:
        raise ValueError("a mixture has weights above 0")
    values = np.concatenate([part.table_us for part, _ in parts])
    weights = np.repeat([weight / total / SIZE for _, weight in parts], SIZE)
    order = np.argsort(values, kind="stable")
    place = np.searchsorted(np.cumsum(weights[order]), _MIDDLES)
    table = values[order][np.minimum(place, values.size - 1)]
    return Distribution(table)._with_mean(sum(part.mean_us * weight for part, weight in parts) / total)
