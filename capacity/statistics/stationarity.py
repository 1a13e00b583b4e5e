"""Sequences in time: how long samples remember each other, where a warm-up ends, whether something grows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_MSER_BATCH = 5
# Sokal's automatic window: sums the correlations up to this many autocorrelation times.
_WINDOW = 5.0

Values = NDArray[np.floating[Any]] | NDArray[np.integer[Any]] | NDArray[np.bool_]


def estimate_autocorrelation_time(values: Values) -> float:
    """How many samples in a row say as much as one independent one: 1 + 2 × the sum of correlations; at least 1.

    `values` has shape (n,), in time's order; for a percentile pass which of them are above its bound. The sum ends
    by Sokal's window (Monte Carlo Methods in Statistical Mechanics, 1997, section 3). 1 for a constant sequence.
    """
    series = np.asarray(values, dtype=np.float64)
    size = series.size
    centred = series - series.mean() if size else series
    variance = float(np.dot(centred, centred))
    if size < 2 or variance <= 1e-12 * float(np.dot(series, series)):
        return 1.0
    # Padded to twice the length, so that the end does not correlate with the beginning.
    length = 1 << (2 * size - 1).bit_length()
    spectrum = np.fft.rfft(centred, length)
    correlation = np.fft.irfft(spectrum * np.conj(spectrum), length)[:size] / variance
    times = 2 * np.cumsum(correlation) - 1
    wide_enough = np.flatnonzero(np.arange(size) >= _WINDOW * times)
    window = int(wide_enough[0]) if wide_enough.size else size - 1
    # Correlations about the sample's own mean come out too low (Wolff, Monte Carlo errors with less errors, 2004,
    # equation 49).
    return max(float(times[window]) * (1 + (2 * window + 1) / size), 1.0)


def warm_up_cut(values: Values) -> int:
    """How many samples at the beginning to leave out, so that the mean of the rest is known best; shape (n,) in order.

    MSER-5 (White, 1997): over batches of five, the cut with the lowest variance of the rest over its length squared,
    at most half. A cut near half means that there is no steady state in sight.
    """
    series = np.asarray(values, dtype=np.float64)
    batches = series.size // _MSER_BATCH
    if batches < 2:
        return 0
    means = series[: batches * _MSER_BATCH].reshape(batches, _MSER_BATCH).mean(axis=1)
    means = means - means.mean()
    left = np.arange(batches, 0, -1)
    total = np.cumsum(means[::-1])[::-1]
    squares = np.cumsum((means**2)[::-1])[::-1]
    spread = (squares - total**2 / left) / left.astype(np.float64) ** 2
    return int(np.argmin(spread[: batches // 2 + 1])) * _MSER_BATCH


def quarter_means(values: Values) -> tuple[float, float]:
    """The mean of the first and of the last quarter of a sequence of at least four; shape (n,), in order."""
    series = np.asarray(values, dtype=np.float64)
    quarter = max(series.size // 4, 1)
    return float(series[:quarter].mean()), float(series[-quarter:].mean())
