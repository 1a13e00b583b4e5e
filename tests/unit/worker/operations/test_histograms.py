"""The worker's histograms are HdrHistogram's own, bucket for bucket, with exact sums beside; its metrics add up."""

import asyncio

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.operations import HIGHEST_US, Counters, Histogram, render_metrics, serve_metrics
from worker.operations.counters import MAX_BATCH_SIZES
from worker.runtime import ForwardPass

# More requests than are added up at a time.
MANY = 259

DURATIONS = st.lists(st.integers(0, 2 * HIGHEST_US * 1000) | st.integers(0, 5_000_000), max_size=50)


@settings(deadline=None, max_examples=60)
@given(first=DURATIONS, second=DURATIONS)
def test_recording_in_bulk_is_recording_each(first: list[int], second: list[int]) -> None:
    ours, theirs = Histogram(), HdrHistogram(1, HIGHEST_US, 3)
    ours.record(first)
    ours.record(second)
    values = first + second
    for value in values:
        theirs.record_value(min((value + 500) // 1000, HIGHEST_US))
    summary = ours.summary()
    assert (summary.count, summary.sum_ns) == (len(values), sum(values))
    assert (summary.min_ns, summary.max_ns) == ((min(values), max(values)) if values else (0, 0))
    assert summary.above == sum((value + 500) // 1000 > HIGHEST_US for value in values)
    decoded = HdrHistogram.decode(summary.payload)
    assert decoded.get_total_count() == len(values)
    for percentile in (0, 50, 90, 99, 100):
        assert decoded.get_value_at_percentile(percentile) == theirs.get_value_at_percentile(percentile)


def test_cumulative_counts_rise_to_the_total() -> None:
    histogram = Histogram()
    histogram.record([50_000, 150_000, 150_000, 9_000_000])
    assert histogram.cumulative(np.array([10, 100, 1000, 10_000_000], np.int64)) == [0, 1, 3, 4]


def test_counters_agree_whenever_they_are_read() -> None:
    counters = Counters()
    forward_pass = ForwardPass([], 1, 20, 300)
    for _ in range(MANY):
        counters.add_pass(2, forward_pass, 330)
        counters.add_response(forward_pass, 5, 400)
    counters.add_error("INTERNAL", 7)
    counters.settle()
    assert counters.answered == counters.success.count == counters.queue.count == MANY
    assert (counters.input.ns, counters.infer.ns, counters.output.ns) == (MANY, 20 * MANY, 300 * MANY)
    assert (counters.executions, counters.inferences) == (MANY, 2 * MANY)
    assert counters.batches[2].infer.count == MANY
    assert counters.queue_histogram.count == counters.compute_histogram.count == MANY
    assert counters.compute_histogram.sum_ns == 321 * MANY
    assert counters.errors == {"INTERNAL": 1}
    assert (counters.pass_histograms[2].count, counters.pass_histograms[2].sum_ns) == (MANY, 330 * MANY)


def test_passes_of_any_number_of_rows_do_not_fill_the_memory() -> None:
    counters = Counters()
    for rows in [*range(1, MAX_BATCH_SIZES + 10), 1]:
        counters.add_pass(rows, ForwardPass([], 0, 1, 0), 2)
    counters.settle()
    assert set(counters.pass_histograms) == set(range(1, MAX_BATCH_SIZES + 1))
    assert counters.pass_histograms[1].count == 2
    assert counters.executions == MAX_BATCH_SIZES + 10


def test_adding_up_makes_a_histogram_for_each_number_of_rows_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A histogram has 190 KB and only the collector frees it: a new one at each call would fill the memory."""
    histograms: list[Histogram] = []

    class Counted(Histogram):
        def __init__(self) -> None:
            super().__init__()
            histograms.append(self)

    monkeypatch.setattr("worker.operations.counters.Histogram", Counted)
    counters = Counters()
    for _ in range(5):
        for rows in (1, 2):
            counters.add_pass(rows, ForwardPass([], 0, 1, 0), 2)
        counters.settle()
    assert histograms == [counters.pass_histograms[1], counters.pass_histograms[2]]


def page(counters: Counters) -> str:
    return render_metrics(counters, depth=4, process_peak_bytes=10, accelerator_peak_bytes=20)


def test_the_metrics_page_adds_up() -> None:
    counters = Counters()
    counters.add_pass(3, ForwardPass([], 0, 2_000_000, 0), 2_100_000)
    counters.add_response(ForwardPass([], 0, 2_000_000, 0), 300_000, 2_400_000)
    counters.add_error("UNAVAILABLE", 1)
    values = dict(line.rsplit(" ", 1) for line in page(counters).splitlines() if not line.startswith("#"))
    assert values['inferload_requests_total{code="OK"}'] == "1"
    assert values['inferload_requests_total{code="UNAVAILABLE"}'] == "1"
    assert values['inferload_executions_total{batch_size="3"}'] == "1"
    assert values["inferload_queue_depth"] == "4"
    assert values['inferload_queue_seconds_bucket{le="0.00025"}'] == "0"
    assert values['inferload_queue_seconds_bucket{le="0.0005"}'] == "1"
    assert values['inferload_queue_seconds_bucket{le="+Inf"}'] == values["inferload_queue_seconds_count"] == "1"
    assert float(values["inferload_compute_seconds_sum"]) == 0.002


async def fetch(request: bytes) -> bytes:
    server = await serve_metrics("127.0.0.1", 0, lambda: page(Counters()))
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(request)
        writer.write_eof()
        response = await reader.read()
        writer.close()
    return response


def test_only_the_metrics_page_is_served() -> None:
    assert b"200 OK" in asyncio.run(fetch(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert b"404 Not Found" in asyncio.run(fetch(b"GET / HTTP/1.1\r\n\r\n"))
    assert b"404 Not Found" in asyncio.run(fetch(b"\r\n\r\n"))
    assert asyncio.run(fetch(b"GET /metrics")) == b""
    assert asyncio.run(fetch(b"x" * 100_000)) == b""
