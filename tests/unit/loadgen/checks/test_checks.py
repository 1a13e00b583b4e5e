"""Checks pass a sound run and catch a broken one."""

import numpy as np
import pytest

from capacity.statistics.arrivals import anderson_darling_test, poisson_deviation
from capacity.statistics.histogram import Histogram
from capacity.statistics.slo import Slo
from capacity.statistics.stationarity import estimate_autocorrelation_time, quarter_means, warm_up_cut
from loadgen.checks._generator import check_generator_processor, check_lateness, check_loop_lag, check_range
from loadgen.checks._samples import check_enough_samples, check_independent_samples
from loadgen.checks._schedule import check_offered_rate, check_planned_arrivals, check_sent_arrivals, check_unsent
from loadgen.checks._steady_state import check_backlog, check_littles_law, check_warm_up

SLO = Slo.parse("p90=15ms")


def of(values_ns: object) -> Histogram:
    histogram = Histogram()
    histogram.record_ns(np.asarray(values_ns, np.int64))
    return histogram


def random(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def autoregressive(n: int, phi: float, seed: int) -> np.ndarray:
    noise, values = random(seed).normal(size=n), np.empty(n)
    values[0] = noise[0] / np.sqrt(1 - phi**2)
    for i in range(1, n):
        values[i] = phi * values[i - 1] + noise[i]
    return values


def test_the_warm_up_ends_where_it_was_made_to_end() -> None:
    values = random(2).normal(10, 1, 5000)
    values[:600] += np.linspace(20, 5, 600)
    assert warm_up_cut(values) == pytest.approx(600, abs=15)
    assert warm_up_cut(np.full(5000, 3.0)) == 0
    assert warm_up_cut(np.array([1.0, 2.0])) == 0
    check = check_warm_up(values)
    assert (check.status, check.value) == ("WARN", "after 12 %")
    assert check_warm_up(values[600:]).status == "PASS"
    assert check_warm_up(np.array([])).status == "PASS"


def test_a_steady_run_is_rarely_called_warming_up() -> None:
    found = [check_warm_up(random(seed).exponential(10, 2000)).status for seed in range(200)]
    assert found.count("WARN") <= 10


def test_growth_compares_the_first_and_the_last_quarter() -> None:
    assert quarter_means(np.arange(8)) == (0.5, 6.5)
    assert check_backlog(np.arange(100)).status == "WARN"
    assert check_backlog(random(3).poisson(8, 200)).status == "PASS"
    assert check_backlog(np.array([0, 0, 1, 1])).status == "PASS"
    assert check_backlog(np.array([1, 2])).value == "too short to measure"


def test_planned_arrivals_of_another_process_or_rate_fail() -> None:
    generator = random(5)
    assert check_planned_arrivals(generator.exponential(0.01, 20_000), 100).status == "PASS"
    assert check_planned_arrivals(generator.exponential(0.01, 20_000), 110).status == "FAIL"
    assert check_planned_arrivals(generator.gamma(2, 0.005, 20_000), 100).status == "FAIL"
    assert check_planned_arrivals(np.full(1000, 0.01), 100).status == "FAIL"
    assert check_planned_arrivals(np.zeros(1000), 100).status == "FAIL"
    with pytest.raises(ValueError, match="rate above 0"):
        anderson_darling_test(np.array([]), 1.0)


def test_sent_arrivals_are_judged_by_size_not_by_number() -> None:
    gaps = random(6).exponential(0.001, 400_000)
    # A clock's jitter of 2 % of a gap is seen by any test and matters to nobody.
    jittered = np.abs(gaps + random(7).normal(0, 2e-5, gaps.size))
    assert check_sent_arrivals(gaps).status == check_sent_arrivals(jittered).status == "PASS"
    assert check_sent_arrivals(np.full(10_000, 0.001)).status == "FAIL"
    bunched = random(8).exponential(0.001, 10_000)
    bunched[::2] = 0
    assert check_sent_arrivals(bunched).status == "FAIL"
    assert check_sent_arrivals(np.repeat(random(9).exponential(0.001, 5_000), 2)).status == "FAIL"
    found = poisson_deviation(random(10).exponential(1, 200))
    assert found.noise == pytest.approx(0.212, abs=0.001)
    with pytest.raises(ValueError, match="ten gaps"):
        poisson_deviation(np.ones(9))


@pytest.mark.parametrize(
    ("planned", "offered", "status"),
    [
        (1000, 1000, "PASS"),
        (1000, 991, "PASS"),
        (1000, 980, "WARN"),
        (1000, 940, "FAIL"),
        (1000, 1060, "FAIL"),
        (0, 0, "PASS"),
        (0, 5, "FAIL"),
    ],
)
def test_the_offered_rate(planned: float, offered: float, status: str) -> None:
    assert check_offered_rate(planned, offered).status == status


def test_lateness_is_weighed_against_the_service_time_and_the_slo() -> None:
    service = of([10_000_000] * 1000)
    assert check_lateness(of([100_000] * 1000), service, SLO).status == "PASS"
    assert check_lateness(of([3_000_000] * 1000), service, SLO).status == "WARN"
    assert check_lateness(of([8_000_000] * 1000), service, SLO).status == "FAIL"
    assert check_lateness(of([8_000_000] * 1000), service, None).status == "WARN"
    assert check_lateness(of([400_000] * 1000), of([300_000] * 1000), SLO).status == "FAIL"
    assert check_lateness(of([100_000] * 995 + [50_000_000] * 5), service, SLO).status == "PASS"
    assert check_lateness(Histogram(), service, SLO).value == "none"
    assert check_loop_lag(of([2_000_000] * 10), Histogram(), None).status == "WARN"


def test_the_limits_of_the_generator_itself() -> None:
    assert [check_generator_processor(share).status for share in (0.5, 0.8, 0.95)] == ["PASS", "WARN", "FAIL"]
    assert [check_unsent(count, 1000).status for count in (0, 3, 60)] == ["PASS", "WARN", "FAIL"]
    assert check_unsent(0, 0).status == "PASS"
    assert [check_range(count).status for count in (0, 1)] == ["PASS", "WARN"]


def test_littles_law() -> None:
    assert check_littles_law(10.1, 1000, 0.010).status == "PASS"
    assert check_littles_law(10.5, 1000, 0.010).status == "WARN"
    assert check_littles_law(12, 1000, 0.010).status == "FAIL"
    assert check_littles_law(0, 0, 0).status == "PASS"
    assert check_littles_law(1, 0, 0).status == "FAIL"


def test_a_simulated_queue_obeys_littles_law() -> None:
    generator = random(11)
    arrivals = np.cumsum(generator.exponential(0.010, 20_000))
    service = generator.exponential(0.006, 20_000)
    ends = np.empty_like(arrivals)
    free = 0.0
    for i, (at, takes) in enumerate(zip(arrivals, service, strict=True)):
        free = ends[i] = max(free, at) + takes
    duration = ends[-1]
    moments = np.linspace(0, duration, 50_000)
    in_flight = np.searchsorted(arrivals, moments) - np.searchsorted(np.sort(ends), moments)
    check = check_littles_law(float(in_flight.mean()), 20_000 / duration, float((ends - arrivals).mean()))
    assert check.status == "PASS"


def test_dependence_says_how_many_samples_are_worth_counting() -> None:
    assert check_independent_samples(1000, estimate_autocorrelation_time(random(12).normal(size=1000))).status == "PASS"
    check = check_independent_samples(1000, estimate_autocorrelation_time(autoregressive(1000, 0.95, 13)))
    assert check.status == "WARN"
    assert "autocorrelation time" in check.detail


def test_enough_samples_is_mlperfs_bound_times_the_autocorrelation_time() -> None:
    assert check_enough_samples(SLO, of([1_000_000] * 44), 0).status == "PASS"
    short = check_enough_samples(SLO, of([1_000_000] * 43), 0)
    assert (short.status, short.detail) == ("WARN", "1 more needed, if the same number exceeds the bound")
    assert check_enough_samples(SLO, of([1_000_000] * 63), 1).status == "PASS"
    assert check_enough_samples(SLO, of([1_000_000] * 62), 1).status == "WARN"
    assert check_enough_samples(SLO, of([1_000_000] * 196 + [99_000_000] * 10), 0).status == "PASS"
    assert check_enough_samples(SLO, of([1_000_000] * 100), 0, autocorrelation_time=3).status == "WARN"
    assert check_enough_samples(SLO, of([99_000_000] * 100), 0).status == "PASS"
