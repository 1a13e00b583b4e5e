"""Are arrivals Poisson: a test of planned arrivals, and effect sizes of the ones that were sent."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def anderson_darling_test(gaps_s: NDArray[np.float64], rate: float) -> tuple[float, float]:
    """Anderson-Darling statistic A² of inter-arrival times against the exponential of this rate, and its p-value.

    Gaps in seconds, shape (n,); the rate, a second, is known and not fitted (case 0 of Anderson and Darling, 1954). The
    p-value is the limit for large n. Raises ValueError without a gap, or for a rate that is not above 0.
    """
    if gaps_s.size == 0 or rate <= 0:
        raise ValueError("expected at least one gap and a rate above 0")
    scaled = np.sort(gaps_s) * rate
    size = scaled.size
    # ln(1 - exp(-x)) and ln(exp(-x)). A gap of 0, which is possible with whole ns, is replaced by a very small one.
    below = np.log(-np.expm1(-np.maximum(scaled, 1e-12)))
    weight = 2 * np.arange(1, size + 1) - 1
    statistic = float(-size - np.mean(weight * (below - scaled[::-1])))
    return statistic, 1 - anderson_darling_cdf(statistic)


def anderson_darling_cdf(z: float) -> float:
    """P(A² < z) in the limit of large n, for a distribution without fitted parameters.

    Marsaglia and Marsaglia, Evaluating the Anderson-Darling Distribution, 2004.
    """
    if z <= 0:
        return 0.0
    if z < 2:
        small = 2.00012 + (0.247105 - (0.0649821 - (0.0347962 - (0.011672 - 0.00168691 * z) * z) * z) * z) * z
        return math.exp(-1.2337141 / z) / math.sqrt(z) * small
    large = 1.0776 - (2.30695 - (0.43424 - (0.082433 - (0.008056 - 0.0003146 * z) * z) * z) * z) * z
    return math.exp(-math.exp(large))


@dataclass(frozen=True)
class PoissonDeviation:
    """Effect sizes of arrivals against a Poisson process, whose values are all 0 for large n.

    `variation` is the gaps' coefficient of variation minus 1; `distance` is the largest difference of their cumulative
    distribution to the exponential one (Kolmogorov-Smirnov); `correlation` is that of neighbouring gaps; `noise` is how
    large each of them can be by chance.
    """

    variation: float
    distance: float
    correlation: float
    noise: float


def poisson_deviation(gaps_s: NDArray[np.float64]) -> PoissonDeviation:
    """Effect sizes of inter-arrival times, in seconds, shape (n,) in order. Raises ValueError for fewer than ten."""
    size = gaps_s.size
    mean = float(gaps_s.mean()) if size else 0.0
    if size < 10 or mean <= 0:
        raise ValueError("expected at least ten gaps, not all of them 0")
    expected = -np.expm1(-np.sort(gaps_s) / mean)
    steps = np.arange(size + 1) / size
    distance = float(max(np.max(steps[1:] - expected), np.max(expected - steps[:-1])))
    centred = gaps_s - mean
    variance = float(np.dot(centred, centred))
    correlation = float(np.dot(centred[:-1], centred[1:]) / variance) if variance > 0 else 0.0
    # Under Poisson each of the three has a standard deviation of about 1/√n or less; noise is three of them.
    return PoissonDeviation(math.sqrt(variance / size) / mean - 1, distance, correlation, 3 / math.sqrt(size))
