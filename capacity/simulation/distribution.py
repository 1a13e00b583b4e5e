"""A distribution of durations as a table of equally likely quantiles, from which a value is drawn by one look-up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from capacity.statistics import BUCKET_FLOORS_US, Histogram

#: The number of quantiles in a table: P99.9 has 16 of them above it.
SIZE = 1 << 14
_MIDDLES = (np.arange(SIZE) + 0.5) / SIZE


@dataclass(frozen=True, eq=False)
class Distribution:
    """`table_us`, shape (SIZE,), ascending: each value is drawn with the same probability."""

    table_us: NDArray[np.float64]

    @classmethod
    def constant(cls, us: float) -> Distribution:
        """Returns the distribution of one value."""
        return cls(np.full(SIZE, float(us)))

    @classmethod
    def of(cls, values_us: ArrayLike) -> Distribution:
        """Returns the distribution of a sample in µs, shape (n,), of at least one duration. Raises ValueError."""
        values = np.sort(np.asarray(values_us, dtype=np.float64))
        if values.ndim != 1 or not values.size or not np.isfinite(values).all() or values[0] < 0:
            raise ValueError("expected a flat sample of at least one duration, finite and not negative")
        table = np.interp(_MIDDLES * values.size - 0.5, np.arange(values.size), values)
        return cls(table)._with_mean(float(values.mean()))

    @classmethod
    def of_histogram(cls, histogram: Histogram) -> Distribution:
        """Returns the distribution of a histogram: each bucket's samples spread evenly over it, and the exact mean.

        Raises ValueError for a histogram without samples.
        """
        if not histogram.count:
            raise ValueError("a histogram without samples has no distribution")
        used = np.flatnonzero(histogram.counts)
        counts = histogram.counts[used]
        # A bucket holds values rounded to the nearest µs.
        low = np.maximum(BUCKET_FLOORS_US[used] - 0.5, (histogram.min_ns or 0) / 1000)
        high = np.maximum(np.minimum(BUCKET_FLOORS_US[used + 1] - 0.5, (histogram.max_ns or 0) / 1000), low)
        running = np.cumsum(counts)
        ranks = _MIDDLES * running[-1]
        place = np.searchsorted(running, ranks)
        position = (ranks - (running[place] - counts[place])) / counts[place]
        return cls(low[place] + position * (high[place] - low[place]))._with_mean(histogram.mean_us or 0.0)

    def _with_mean(self, mean_us: float) -> Distribution:
        own_mean = float(self.table_us.mean())
        return Distribution(self.table_us * (mean_us / own_mean)) if own_mean > 0 else self

    @cached_property
    def mean_us(self) -> float:
        """The mean in µs."""
        return float(self.table_us.mean())

    @cached_property
    def values(self) -> list[float]:
        """The table as Python floats, which a loop reads faster."""
        return [float(value) for value in self.table_us]

    def percentile_us(self, p: float) -> float:
        """Returns the p-th percentile, 0 to 100, in µs."""
        return float(np.percentile(self.table_us, p))

    def scaled(self, factor: float) -> Distribution:
        """Returns the distribution with every duration `factor` times as long."""
        return Distribution(self.table_us * factor)

    def interpolate(self, other: Distribution, weight: float) -> Distribution:
        """Interpolates each quantile between this distribution (weight 0) and another (weight 1)."""
        return Distribution(self.table_us * (1 - weight) + other.table_us * weight)

    def beyond(self, part: Distribution) -> Distribution:
        """Returns what this distribution has beyond `part`: differences of quantiles, scaled to that of the means.

        Where both vary, the differences of quantiles understate the spread of what is added.
        """
        mean = self.mean_us - part.mean_us
        if mean <= 0:
            return Distribution.constant(0.0)
        differences = np.sort(np.maximum(self.table_us - part.table_us, 0.0))
        return Distribution(differences)._with_mean(mean) if differences[-1] > 0 else Distribution.constant(mean)


def mix(parts: Sequence[tuple[Distribution, float]]) -> Distribution:
    """Returns a mixture: one part or another, each with its weight. Raises ValueError without a weight above 0."""
    total = sum(weight for _, weight in parts)
    if total <= 0:
        raise ValueError("a mixture needs a weight above 0")
    values = np.concatenate([part.table_us for part, _ in parts])
    weights = np.repeat([weight / total / SIZE for _, weight in parts], SIZE)
    order = np.argsort(values, kind="stable")
    place = np.searchsorted(np.cumsum(weights[order]), _MIDDLES)
    table = values[order][np.minimum(place, values.size - 1)]
    return Distribution(table)._with_mean(sum(part.mean_us * weight for part, weight in parts) / total)
