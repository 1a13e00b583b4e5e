"""The recorder: every result lands in exactly one place, and the histograms say what numpy says."""

import numpy as np

from capacity.measures import LATENCY_ERROR, HardwareCombination, Series, Tally
from loadgen.measure import Recorder, ResultBuffer, tally_difference
from loadgen.transport import UNSENT

SERIES = Series(HardwareCombination("host", "cpu-1c"), "m", "cpu:0 @ a:1", False)
MS = 1_000_000


def new_recorder() -> tuple[Recorder, ResultBuffer]:
    buffer = ResultBuffer(SERIES)
    return Recorder({SERIES: buffer}), buffer


def test_percentiles_equal_numpys_over_the_raw_values() -> None:
    recorder, buffer = new_recorder()
    recorder.measuring_from = 0
    latencies = np.random.default_rng(7).lognormal(np.log(5e6), 0.5, 20_000).astype(np.int64)
    for latency in latencies.tolist():
        buffer.record(10, 10, 10 + latency, 0)

    recorder.flip()

    histogram = recorder.total[SERIES].histograms["latency"]
    assert histogram.count == 20_000
    assert histogram.sum_ns == int(latencies.sum())
    for percentile in (50, 90, 99):
        exact_us = np.percentile(latencies, percentile, method="inverted_cdf") / 1000
        measured_us = histogram.percentile_us(percentile)
        assert measured_us is not None
        assert abs(measured_us - exact_us) <= exact_us * 0.001


def test_first_request_and_warm_up_are_kept_apart() -> None:
    recorder, buffer = new_recorder()
    buffer.first_due = 100
    buffer.record(100, 100, 100 + 9 * MS, 0)
    recorder.fold()
    recorder.measuring_from = 1000
    for due in (500, 999, 1000, 2000):
        buffer.record(due, due, due + MS, 0)

    recorder.flip()

    assert recorder.warmup[SERIES].answered == 3
    assert recorder.total[SERIES].answered == 2
    assert recorder.first_requests_ns == {SERIES: 9 * MS}


def test_the_first_request_is_apart_even_without_a_warm_up_and_when_it_fails() -> None:
    recorder, buffer = new_recorder()
    recorder.measuring_from = 0
    buffer.first_due = 100
    buffer.record(100, 100, 100 + MS, 14)
    buffer.record(200, 200, 200 + MS, 0)

    recorder.flip()

    assert recorder.warmup[SERIES].errors == {"UNAVAILABLE": 1}
    assert (recorder.total[SERIES].answered, recorder.total[SERIES].errors) == (1, {})
    assert recorder.first_requests_ns == {SERIES: MS}


def test_failed_requests_stay_in_the_counts_with_their_code() -> None:
    recorder, buffer = new_recorder()
    recorder.measuring_from = 0
    buffer.record(1, 1, 1 + MS, 0)
    buffer.record(2, 3, 2 + 5 * MS, 4)
    buffer.record(4, 5, 4 + 5 * MS, 99)
    buffer.record(6, 6, 6, UNSENT)
    buffer.record(7, 7, 7, UNSENT)

    interval = recorder.flip()[SERIES]

    assert (interval.due, interval.requests, interval.answered, interval.unsent) == (5, 3, 1, 2)
    assert interval.errors == {"DEADLINE_EXCEEDED": 1, "UNKNOWN": 1}
    assert interval.histograms["latency"].count + interval.histograms[LATENCY_ERROR].count == interval.requests
    assert interval.histograms["lateness"].count == 3


def test_intervals_add_up_to_the_total_and_each_result_is_in_one() -> None:
    recorder, buffer = new_recorder()
    recorder.measuring_from = 0
    added = Tally()
    for length in range(5):
        for number in range(length + 1):
            buffer.record(number, number, number + MS * (length + 1), 0)
        before = recorder.total[SERIES].copy()
        tally = recorder.flip()[SERIES]
        added.add(tally)
        subtracted = tally_difference(recorder.total[SERIES], before)
        assert (subtracted.due, subtracted.answered) == (tally.due, tally.answered)
        assert np.array_equal(subtracted.histograms["latency"].counts, tally.histograms["latency"].counts)

    assert added.requests == 15
    assert added.histograms == recorder.total[SERIES].histograms
