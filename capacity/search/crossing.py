"""The rate at which the share of requests within the SLO falls below what is required, fitted over all probes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from capacity.search.probe_summary import ProbeSummary
from capacity.statistics import CONFIDENCE, SAMPLES_PER_DEGREE

_REPLICATES = 400
#: Probes within this logarithm of the crossing are fitted by a line, unless its slope is above `_MAX_SLOPE`.
_NEAR, _MAX_SLOPE = math.log(1.25), -1.0

Floats = NDArray[np.float64]


def estimate_crossing(probes: Sequence[ProbeSummary]) -> float | None:
    """Returns the offered rate, in requests a second, at which the fitted share falls below the required one.

    The fit is isotonic, since more load is never better, weighted by independent samples, on a scale of log rate and
    log odds. The first bound of the SLO to be crossed counts. None where the probes do not include the crossing.
    """
    usable = _usable(probes)
    if len(usable) < 2:
        return None
    rates = np.log([probe.offered_rps for probe in usable])
    crossings = [_refine(rates, *bound, _isotonic_crossing(rates, *bound)) for bound in _by_bound(usable)]
    low, high = float(rates[0]), float(rates[-1])
    lowest = min(crossings)
    return math.exp(lowest) if low < lowest < high else None


def crossing_with_interval(probes: Sequence[ProbeSummary]) -> tuple[float, float, float] | None:
    """Returns `estimate_crossing` and the ends of its 95 % interval, by a parametric bootstrap of each probe's shares.

    The interval spans that of the isotonic fit and that of the line: the line's is narrower, and wrong where the log
    odds are curved.
    """
    centre = estimate_crossing(probes)
    if centre is None:
        return None
    usable = _usable(probes)
    rates = np.log([probe.offered_rps for probe in usable])
    # The same random numbers for the same probes.
    generator = np.random.default_rng(len(usable))
    replicates = []
    for _ in range(_REPLICATES):
        isotonic, refined = [], []
        for required, within, samples in _by_bound(usable):
            # The number of independent samples is itself an estimate, as precise as a variance of a tenth of them.
            degrees = np.maximum(samples / SAMPLES_PER_DEGREE, 1.0)
            worth = samples * generator.chisquare(degrees) / degrees
            hits = within * worth
            # Jeffreys' posterior of a share.
            shares = generator.beta(hits + 0.5, worth - hits + 0.5)
            isotonic.append(_isotonic_crossing(rates, required, shares, samples))
            refined.append(_refine(rates, required, shares, samples, isotonic[-1]))
        replicates.append((min(isotonic), min(refined)))
    clipped = np.clip(replicates, rates[0], rates[-1])
    low, high = np.quantile(clipped, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    return centre, min(math.exp(low.min()), centre), max(math.exp(high.max()), centre)


def _usable(probes: Sequence[ProbeSummary]) -> list[ProbeSummary]:
    return sorted(
        (probe for probe in probes if probe.valid and probe.shares and probe.offered_rps > 0),
        key=lambda probe: probe.offered_rps,
    )


def _by_bound(usable: Sequence[ProbeSummary]) -> list[tuple[float, Floats, Floats]]:
    """For each bound: the required share, and each probe's share and independent samples, both of shape (probes,)."""
    return [
        (
            usable[0].shares[number].required,
            np.array([probe.shares[number].within for probe in usable]),
            np.array([max(probe.shares[number].samples, 1.0) for probe in usable]),
        )
        for number in range(len(usable[0].shares))
    ]


def _isotonic_crossing(rates: Floats, required: float, within: Floats, samples: Floats) -> float:
    """The log rate at which an isotonic fit crosses `required`, by interpolation between its steps.

    -inf where it is below everywhere, inf where it is above everywhere. `rates` ascend; all shapes are (probes,).
    """
    fit = isotonic_regression(within, weights=samples, increasing=False)
    starts = fit.blocks[:-1]
    weight = np.add.reduceat(samples, starts)
    middles = np.add.reduceat(samples * rates, starts) / weight
    # Half a sample to each side keeps the log odds finite.
    shares = (np.add.reduceat(within * samples, starts) + 0.5) / (weight + 1)
    odds = np.log(shares / (1 - shares))
    required_odds = math.log(required / (1 - required)) if required < 1 else math.inf
    under = np.flatnonzero(odds < required_odds)
    if not under.size:
        return math.inf
    first = int(under[0])
    if first == 0:
        return -math.inf
    if math.isinf(required_odds):
        return float(middles[first - 1])
    part = (odds[first - 1] - required_odds) / (odds[first - 1] - odds[first])
    return float(middles[first - 1] + part * (middles[first] - middles[first - 1]))


def _refine(rates: Floats, required: float, within: Floats, samples: Floats, about: float) -> float:
    """The crossing of a weighted line through the log odds of the probes near `about`, the isotonic fit's crossing.

    Returns `about` where fewer than three probes are near, or where the line does not fall. Shapes are (probes,).
    """
    near = np.abs(rates - about) < _NEAR
    if near.sum() < 3 or required >= 1:
        return about
    required_odds = math.log(required / (1 - required))
    x, n = rates[near] - about, samples[near]
    share = (within[near] * n + 0.5) / (n + 1)
    odds, weight = np.log(share / (1 - share)), n * share * (1 - share)
    total = weight.sum()
    x_mean, odds_mean = float(weight @ x / total), float(weight @ odds / total)
    spread = float(weight @ (x - x_mean) ** 2)
    slope = float(weight @ ((x - x_mean) * (odds - odds_mean))) / spread if spread > 0 else 0.0
    if slope >= _MAX_SLOPE:
        return about
    return about + min(max(x_mean + (required_odds - odds_mean) / slope, -_NEAR), _NEAR)
