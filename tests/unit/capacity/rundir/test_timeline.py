"""What a log says of each stretch of time, and whether an ordinal is slower than its siblings."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from capacity.comparison import TargetSkew, target_skews
from capacity.measures import HardwareCombination, Series
from capacity.rundir import IntervalLogWriter, Timeline, parse_series_tag, read_interval_log, series_tag
from capacity.statistics import Histogram

HARDWARE = HardwareCombination("g5.12xlarge", "a10g", 4)


def ordinal(number: int) -> Series:
    return Series(HARDWARE, "gpt", f"cuda:{number} @ h:{number}", False)


def of_ms(values: Sequence[float]) -> Histogram:
    histogram = Histogram()
    histogram.record_ns((np.asarray(values) * 1e6).astype(np.int64))
    return histogram


def timeline_of(path: Path, measured_s: float) -> Timeline:
    timeline = Timeline.of_log(path, measured_s)
    assert timeline is not None
    for interval in read_interval_log(path):
        timeline.add(interval, *parse_series_tag(interval.tag))
    return timeline


def test_each_stretch_has_its_own_figures(tmp_path: Path) -> None:
    path, series = tmp_path / "run.hlog", ordinal(0)
    with IntervalLogWriter(path, 0.0) as log:
        for second in range(20):
            log.write(second, 1, series_tag(series, "latency"), of_ms([10 if second < 10 else 20] * 100))
            if second == 15:
                log.write(second, 1, series_tag(series, "latency-error"), of_ms([1] * 50))
        log.write(0, 20, series_tag(series, "compute"), of_ms([9] * 2000))
    statistics = timeline_of(path, 20.0).statistics([series])
    assert statistics.seconds == pytest.approx(np.arange(20) + 0.5)
    assert statistics.answered == pytest.approx([100.0] * 20)
    assert statistics.failed == pytest.approx([0.0] * 15 + [50.0] + [0.0] * 4)
    assert statistics.percentiles_us[50] == pytest.approx([10_000.0] * 10 + [20_000.0] * 10, rel=1e-3)
    # A third of what was due failed in that second, so its P90 is beyond all answered.
    assert np.flatnonzero(np.isnan(statistics.percentiles_us[90])).tolist() == [15]
    assert np.isnan(statistics.percentiles_us[99]).all(), "100 samples carry no P99"


def test_offered_counts_when_it_was_due_and_answered_when_it_ended(tmp_path: Path) -> None:
    """A stall: the load goes on, a second's answers come three seconds later, and some requests are never sent."""
    path, series = tmp_path / "run.hlog", ordinal(0)
    with IntervalLogWriter(path, 0.0) as log:
        for second in range(20):
            stalled = second in (7, 8, 9)
            log.write(second, 1, series_tag(series, "offered"), of_ms([0] * 100))
            if stalled:
                log.write(second, 1, series_tag(series, "unsent"), of_ms([0] * 40))
            else:
                log.write(second, 1, series_tag(series, "latency"), of_ms([10] * (280 if second == 10 else 100)))
    statistics = timeline_of(path, 20.0).statistics([series])
    assert statistics.offered == pytest.approx([100.0] * 20)
    assert statistics.answered == pytest.approx([100.0] * 7 + [0.0] * 3 + [280.0] + [100.0] * 9)
    assert statistics.unsent == pytest.approx([0.0] * 7 + [40.0] * 3 + [0.0] * 10)
    assert np.isnan(statistics.percentiles_us[90][7]), "those that were never sent are beyond every percentile"


def test_a_log_that_does_not_tell_what_was_due_has_no_such_line(tmp_path: Path) -> None:
    path, series = tmp_path / "run.hlog", ordinal(0)
    with IntervalLogWriter(path, 0.0) as log:
        log.write(0, 10, series_tag(series, "latency"), of_ms([10] * 100))
    assert timeline_of(path, 10.0).statistics([series]).offered is None


def test_stretches_are_long_enough_for_a_percentile(tmp_path: Path) -> None:
    path, series = tmp_path / "run.hlog", ordinal(0)
    with IntervalLogWriter(path, 0.0) as log:
        for second in range(40):
            log.write(second, 1, series_tag(series, "latency"), of_ms([10] * 6))
    statistics = timeline_of(path, 40.0).statistics([series])
    assert statistics.seconds.size == 8
    assert statistics.answered == pytest.approx([6.0] * 8)
    assert np.isfinite(statistics.percentiles_us[90]).all()


def test_the_warm_up_before_the_first_interval_is_not_a_low_rate(tmp_path: Path) -> None:
    path, series = tmp_path / "run.hlog", ordinal(0)
    with IntervalLogWriter(path, 0.0) as log:
        # Measuring began at 2.75 s.
        log.write(2, 1, series_tag(series, "latency"), of_ms([10] * 25))
        for second in range(3, 13):
            log.write(second, 1, series_tag(series, "latency"), of_ms([10] * 100))
    statistics = timeline_of(path, 10.25).statistics([series])
    assert statistics.answered == pytest.approx([100.0] * 10, rel=0.01)


def test_a_log_without_measured_requests_has_no_course(tmp_path: Path) -> None:
    path = tmp_path / "run.hlog"
    with IntervalLogWriter(path, 0.0) as log:
        log.write(0, 20, series_tag(ordinal(0), "compute"), of_ms([9]))
    assert Timeline.of_log(path, 20.0) is None


def pool(
    means_ms: Sequence[float], seed: int, blocks: int = 30, users: Sequence[int] = (1, 1, 1, 1)
) -> list[TargetSkew]:
    """Ordinals in a closed loop whose service times vary by a fifth, with disturbances that all of them share."""
    generator = np.random.default_rng(seed)
    timeline = Timeline(0.0, 1.0, np.ones(blocks))
    members = [ordinal(number) for number in range(len(means_ms))]
    shared = 1 + 0.3 * generator.random(blocks)
    for series, mean, of in zip(members, means_ms, users, strict=False):
        counts, sums = np.zeros(blocks), np.zeros(blocks)
        for block in range(blocks):
            times = mean * shared[block] * generator.lognormal(0, 0.2, round(of * 1000 / mean / shared[block]))
            # In one second there is time for so many of them.
            counts[block] = np.searchsorted(np.cumsum(times), 1000.0 * of)
            sums[block] = times[: int(counts[block])].sum() * 1e6
        for measure in ("latency", "service"):
            timeline.counts[series, measure], timeline.sums_ns[series, measure] = counts, sums
    return target_skews(timeline, members, by_rate=True)


def test_a_slow_ordinal_is_pointed_at_and_only_it() -> None:
    result = pool([10, 10, 10.8, 10], seed=1)
    assert [entry.slower for entry in result] == [False, False, True, False]
    assert result[2].slower_by == pytest.approx(0.08, abs=0.02)
    interval = result[2].interval
    assert interval is not None
    assert interval[0] < 0.08 < interval[1]
    assert result[2].sentence.startswith("cuda:2 @ h:2 is ")
    assert "% slower than its siblings (95 % interval" in result[2].sentence
    assert result[0].sentence == ""


def test_equal_ordinals_are_seldom_pointed_at() -> None:
    alarms = sum(any(entry.slower for entry in pool([10, 10, 10, 10], seed)) for seed in range(100))
    assert alarms <= 4


def test_ordinals_of_unequal_load_or_too_short_a_run_are_not_compared() -> None:
    uneven = pool([10, 10], seed=1, users=(1, 2))
    assert {entry.reason for entry in uneven} == {"Not compared: the targets had unequal requests in flight"}
    short = pool([10, 20], seed=1, blocks=7)
    assert {entry.reason for entry in short} == {"Not compared: 7 blocks of time, and 8 are needed"}
    assert not any(entry.slower for entry in (*uneven, *short))
    (alone,) = pool([10], seed=1)
    assert (alone.slower_by, alone.reason) == (None, "")
