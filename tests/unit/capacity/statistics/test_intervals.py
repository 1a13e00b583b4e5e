"""Intervals hold what they promise, and an SLO's verdict says when the sample cannot tell."""

import numpy as np
import pytest
from scipy.stats import binom

from capacity.statistics import Histogram, Slo, judge_slo, percentile_interval_us, samples_needed
from capacity.statistics.intervals import interval_ranks


def of(values_ns: object) -> Histogram:
    histogram = Histogram()
    histogram.record_ns(np.asarray(values_ns, np.int64))
    return histogram


@pytest.mark.parametrize(("p", "needed"), [(50, 6), (90, 29), (95, 59), (99, 299), (99.9, 2995), (10, 29)])
def test_the_fewest_samples_that_an_interval_needs(p: float, needed: int) -> None:
    assert samples_needed(p) == needed
    assert interval_ranks(p, needed) is not None
    assert interval_ranks(p, needed - 1) is None


@pytest.mark.parametrize("p", [1, 10, 50, 90, 95, 99, 99.9])
@pytest.mark.parametrize("n", [6, 29, 35, 36, 60, 299, 400, 3_000, 100_000])
def test_the_ranks_cover_at_least_95_percent_and_no_step_narrower_would(p: float, n: int) -> None:
    ranks = interval_ranks(p, n)
    if ranks is None:
        assert n < samples_needed(p)
        return
    low, high = ranks
    assert 1 <= low < high <= n
    q = p / 100
    assert binom.cdf(high - 1, n, q) - binom.cdf(low - 1, n, q) >= 0.95 - 1e-12
    under, over = float(binom.cdf(low - 1, n, q)), float(binom.sf(high - 1, n, q))
    assert binom.cdf(low, n, q) > 0.025 or binom.cdf(low, n, q) + over > 0.05
    assert binom.sf(high - 2, n, q) > 0.025 or binom.sf(high - 2, n, q) + under > 0.05


def test_intervals_of_a_known_percentile_hold_it_as_often_as_promised() -> None:
    generator, truth = np.random.default_rng(7), 10_000 * -np.log(0.1)
    held = 0
    for _ in range(500):
        interval = percentile_interval_us(of(generator.exponential(10_000_000, 1000)), 90)
        assert interval is not None
        assert interval[1] is not None
        held += interval[0] <= truth <= interval[1]
    assert 0.93 <= held / 500 <= 0.98


def test_errors_push_the_interval_up_and_open_its_end() -> None:
    histogram = of(np.arange(1, 1001) * 1_000_000)
    plain, pushed = percentile_interval_us(histogram, 90), percentile_interval_us(histogram, 90, beyond=50)
    assert plain is not None
    assert pushed is not None
    assert pushed[0] > plain[0]
    assert percentile_interval_us(histogram, 90, beyond=110) == (pytest.approx(981_000, rel=0.01), None)
    assert percentile_interval_us(histogram, 90, beyond=500) is None


def test_dependent_samples_widen_the_interval() -> None:
    histogram = of(np.random.default_rng(8).exponential(10_000_000, 4000))
    plain, wide = percentile_interval_us(histogram, 90), percentile_interval_us(histogram, 90, autocorrelation_time=4)
    assert plain is not None
    assert wide is not None
    assert plain[1] is not None
    assert wide[1] is not None
    assert 1.6 < (wide[1] - wide[0]) / (plain[1] - plain[0]) < 2.6
    assert percentile_interval_us(histogram, 90, autocorrelation_time=200) is None


def test_a_clear_pass_and_a_clear_failure() -> None:
    histogram = of([9_000_000] * 950 + [20_000_000] * 50)
    assert judge_slo(Slo.parse("p90=15ms"), histogram, 0).status == "met"
    failed = judge_slo(Slo.parse("p90=15ms,p99=15ms"), histogram, 0)
    assert failed.status == "missed"
    assert failed.reasons == ("P99 20 ms > 15ms",)


def test_errors_and_unsent_are_beyond_the_bound() -> None:
    histogram = of([9_000_000] * 950)
    assert judge_slo(Slo.parse("p90=15ms"), histogram, 50).status == "met"
    assert judge_slo(Slo.parse("p90=15ms"), histogram, 300).reasons == ("P90 beyond all answered requests > 15ms",)


def test_what_the_sample_cannot_tell_is_unresolved_and_the_advice_resolves_it() -> None:
    histogram = of([9_000_000] * 910 + [20_000_000] * 90)
    verdict = judge_slo(Slo.parse("p90=15ms"), histogram, 0)
    assert verdict.status == "inconclusive"
    assert verdict.more_samples is not None
    factor = -(-(1000 + verdict.more_samples) // 1000)
    longer = of([9_000_000] * 910 * factor + [20_000_000] * 90 * factor)
    assert judge_slo(Slo.parse("p90=15ms"), longer, 0).status == "met"

    few = judge_slo(Slo.parse("p99=15ms"), of([1_000_000] * 100), 0)
    assert few.reasons == ("P99: not enough samples (100 < 299)",)
    assert few.more_samples == 199
    edge = judge_slo(Slo.parse("p90=15ms"), of([9_000_000] * 900 + [20_000_000] * 100), 0)
    assert (edge.status, edge.more_samples) == ("inconclusive", None)


def test_a_miss_is_told_by_samples_too_few_for_an_interval() -> None:
    slo = Slo.parse("p90=100ms")
    slow = judge_slo(slo, of([1_700_000_000] * 7), 0)
    assert (slow.status, slow.reasons) == ("missed", ("P90 > 100ms: 0 of 7 requests within it",))
    assert judge_slo(slo, of([1_700_000_000]), 0).status == "inconclusive"
    assert judge_slo(slo, of([]), 0).status == "inconclusive"
    # A service that just meets its objective is called a miss in at most one sample of forty.
    for size in range(1, 29):
        called = [
            within for within in range(size + 1) if judge_slo(slo, of([1] * within), size - within).status == "missed"
        ]
        assert binom.pmf(called, size, 0.9).sum() <= 0.025


def test_a_bound_on_errors_needs_enough_requests_to_claim() -> None:
    slo = Slo.parse("errors=0.1%")
    verdict = judge_slo(slo, of([1_000_000] * 1000), 0)
    assert verdict.status == "inconclusive"
    assert verdict.more_samples == pytest.approx(2_000, rel=0.5)
    assert judge_slo(slo, of([1_000_000] * 5000), 0).status == "met"
    assert judge_slo(slo, of([1_000_000] * 5000), 50).reasons == ("errors 50 of 5050 > 0.1 %",)
    assert judge_slo(Slo.parse("errors=0%"), of([1_000_000] * 10), 0).status == "met"
    assert judge_slo(Slo.parse("errors=0%"), of([1_000_000] * 10), 1).status == "missed"
    assert judge_slo(slo, Histogram(), 0).status == "inconclusive"


def test_a_heavy_tail_is_said_as_the_interval_that_reaches_past_the_bound() -> None:
    latency = Histogram()
    latency.record_ns([34_000_000] * 212 + [220_000_000] * 21)
    for lost, output in (
        (0, "P90 34.02 ms: its 95 % interval reaches 220 ms, past 100ms"),
        (2, "P90 34.02 ms: its 95 % interval reaches 220 ms, past 100ms"),
        (8, "P90 220 ms: its 95 % interval begins at 34 ms, within 100ms"),
    ):
        verdict = judge_slo(Slo.parse("p90=100ms"), latency, lost)
        assert (verdict.status, verdict.reasons) == ("inconclusive", (output,))
    latency = Histogram()
    latency.record_ns([34_000_000] * 212)
    verdict = judge_slo(Slo.parse("p90=100ms"), latency, 21)
    output = "P90 34.02 ms: its 95 % interval has no upper end, so it reaches past 100ms"
    # The greatest value is exact, so here it is 34.
    assert verdict.reasons == (output.replace("34.02", "34"),)
