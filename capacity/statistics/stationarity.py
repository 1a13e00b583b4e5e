"""Sequences in time: autocorrelation time, the end of a warm-up, growth."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_MSER_BATCH = 5
# Sokal's automatic window: sums the correlations up to this many autocorrelation times.
_WINDOW = 5.0

Values = NDArray[np.floating[Any]] | NDArray[np.integer[Any]] | NDArray[np.bool_]


def estimate_autocorrelation_time(values: Values) -> float:
    """The integrated autocorrelation time in samples: 1 + 2 × the sum of correlations, at least 1.

    So many samples carry as much information as one independent sample. `values` has shape (n,), in order of time; for
    a percentile, pass whether each value is above it. The sum ends by Sokal's automatic window (Monte Carlo Methods in
    Statistical Mechanics, 1997, section 3). 1 for a constant sequence.
    """
    series = np.asarray(values, dtype=np.float64)
    size = series.size
    centred = series - series.mean() if size else series
    variance = float(np.dot(centred, centred))
    if size < 2 or variance <= 1e-12 * float(np.dot(series, series)):
        return 1.0
    # Zero padding to twice the length: otherwise the end would correlate with the beginning.
    length = 1 << (2 * size - 1).bit_length()
    spectrum = np.fft.rfft(centred, length)
    correlation = np.fft.irfft(spectrum * np.conj(spectrum), length)[:size] / variance
    times = 2 * np.cumsum(correlation) - 1
    wide_enough = np.flatnonzero(np.arange(size) >= _WINDOW * times)
    window = int(wide_enough[0]) if wide_enough.size else size - 1
    # Correlations about the sample mean are biased low (Wolff, Monte Carlo errors with less errors, 2004,
    # equation 49).
    return max(float(times[window]) * (1 + (2 * window + 1) / size), 1.0)


def warm_up_cut(values: Values) -> int:
    """The number of samples at the beginning to leave out as warm-up, by MSER-5; `values` has shape (n,), in order.

    White, An effective truncation heuristic for bias reduction in simulation output, 1997: over batches of five, the
    cut with the lowest sum of squares of the rest over its length squared, at most half of the samples. A cut near half
    means that the sequence has no steady state.
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
