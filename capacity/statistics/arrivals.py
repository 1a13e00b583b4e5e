"""Are arrivals Poisson: a test for what was planned, effect sizes for what was sent."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def anderson_darling_test(gaps_s: NDArray[np.float64], rate: float) -> tuple[float, float]:
    """Anderson and Darling's statistic of inter-arrival times against the exponential of this rate, and its p-value.

    Gaps in seconds, shape (n,); the rate a second is given, not fitted. The p-value is the limit for large n.
    """
    if gaps_s.size == 0 or rate <= 0:
        raise ValueError("arrivals are tested against a rate above zero, and there must be some")
    scaled = np.sort(gaps_s) * rate
    size = scaled.size
    # ln(1 - exp(-x)) and ln(exp(-x)); a gap of zero, which a clock of whole ns allows, is taken for a very small one.
    below = np.log(-np.expm1(-np.maximum(scaled, 1e-12)))
    weight = 2 * np.arange(1, size + 1) - 1
    statistic = float(-size - np.mean(weight * (below - scaled[::-1])))
    return statistic, 1 - anderson_darling_cdf(statistic)


def anderson_darling_cdf(z: float) -> float:
    """P(A² < z) for a distribution that is known in full, and n without bound.

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
    """How far arrivals are from Poisson, whatever their number: zero each for a Poisson process without end.

    `variation` is the gaps' coefficient of variation less 1; `distance` the largest between their distribution and
    the exponential's; `memory` the correlation of neighbouring gaps; `noise` how much of each chance alone explains.
    """

    variation: float
    distance: float
    memory: float
    noise: float


def poisson_deviation(gaps_s: NDArray[np.float64]) -> PoissonDeviation:
    """Effect sizes of inter-arrival times, in seconds, shape (n,) in order; ValueError for fewer than ten."""
    size = gaps_s.size
    mean = float(gaps_s.mean()) if size else 0.0
    if size < 10 or mean <= 0:
        raise ValueError("arrivals are compared with a Poisson process from ten gaps on")
    expected = -np.expm1(-np.sort(gaps_s) / mean)
    steps = np.arange(size + 1) / size
    distance = float(max(np.max(steps[1:] - expected), np.max(expected - steps[:-1])))
    centred = gaps_s - mean
    variance = float(np.dot(centred, centred))
    memory = float(np.dot(centred[:-1], centred[1:]) / variance) if variance > 0 else 0.0
    # Each of the three has a standard deviation of about 1/√n or less under Poisson; three of them are chance.
    return PoissonDeviation(math.sqrt(variance / size) / mean - 1, distance, memory, 3 / math.sqrt(size))
