"""Statistics of a run's course agree with known answers."""

import numpy as np
import pytest
from scipy.stats import anderson, kstest

from capacity.statistics.arrivals import anderson_darling_cdf, anderson_darling_test
from capacity.statistics.intervals import early_stopping_samples
from capacity.statistics.stationarity import estimate_autocorrelation_time


def random(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def autoregressive(n: int, phi: float, seed: int) -> np.ndarray:
    noise, values = random(seed).normal(size=n), np.empty(n)
    values[0] = noise[0] / np.sqrt(1 - phi**2)
    for i in range(1, n):
        values[i] = phi * values[i - 1] + noise[i]
    return values


@pytest.mark.parametrize(("over", "p90", "p99"), [(0, 44, 459), (1, 64, 662), (10, 197, 2_010), (100, 1_246, 12_571)])
def test_early_stopping_has_mlperfs_figures(over: int, p90: int, p99: int) -> None:
    assert early_stopping_samples(over, 90) == p90
    assert early_stopping_samples(over, 99) == p99


def test_early_stopping_refuses_what_it_is_not_for() -> None:
    with pytest.raises(ValueError, match="between 0 and 100"):
        early_stopping_samples(0, 100)
    with pytest.raises(ValueError, match="samples over"):
        early_stopping_samples(-1, 90)


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_the_autocorrelation_time_of_a_known_process(phi: float) -> None:
    assert estimate_autocorrelation_time(autoregressive(100_000, phi, 1)) == pytest.approx(
        (1 + phi) / (1 - phi), rel=0.15
    )


def test_the_autocorrelation_time_is_one_where_there_is_nothing_to_correlate() -> None:
    assert estimate_autocorrelation_time(np.full(100, 0.1)) == 1
    assert estimate_autocorrelation_time(np.array([1.0])) == 1
    assert estimate_autocorrelation_time(np.array([])) == 1
    assert estimate_autocorrelation_time(np.tile([1, -1], 500)) == 1


def test_the_anderson_darling_statistic_is_scipys_for_its_own_scale() -> None:
    gaps = random(4).exponential(0.01, 500)
    statistic, _ = anderson_darling_test(gaps, 1 / gaps.mean())
    assert statistic == pytest.approx(anderson(gaps, "expon", method="interpolate").statistic, rel=1e-9)


def test_its_p_value_is_uniform_for_poisson_arrivals() -> None:
    values = [anderson_darling_test(random(seed).exponential(0.5, 300), 2.0)[1] for seed in range(400)]
    assert kstest(values, "uniform").pvalue > 0.01


@pytest.mark.parametrize(("statistic", "p_value"), [(1.933, 0.10), (2.492, 0.05), (3.857, 0.01)])
def test_its_p_value_at_the_published_critical_points(statistic: float, p_value: float) -> None:
    # The table of D'Agostino and Stephens is rounded in its last row.
    assert 1 - anderson_darling_cdf(statistic) == pytest.approx(p_value, rel=0.03)
