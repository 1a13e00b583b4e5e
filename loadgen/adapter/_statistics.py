"""Locust's own statistics, updated in bulk from the histograms, so that its tables and charts agree with the report."""

from __future__ import annotations

import time
from typing import Any

from locust.stats import StatsEntry, StatsError

from capacity.measures import LATENCY_ERROR, Series, Tally
from capacity.statistics import Histogram

#: The method under which Locust's tables show requests.
REQUEST_METHOD = "infer"


def rounded_ms(response_time_ms: float) -> float:
    """Rounds to three significant digits; Locust itself rounds to whole milliseconds below 100 ms."""
    return float(f"{response_time_ms:.3g}")


def add_statistics(stats: Any, series: Series, tally: Tally) -> None:
    """Adds one interval of one series to `environment.stats`: one entry for all its requests, which costs little."""
    if not tally.requests:
        return
    name = f"{series.model} @ {series.hardware.name}"
    entry = StatsEntry(stats, name, REQUEST_METHOD)
    now = time.time()
    latencies = Histogram()
    latencies.add(tally.histograms["latency"])
    latencies.add(tally.histograms[LATENCY_ERROR])
    entry.num_requests = tally.requests
    entry.num_failures = tally.failed
    entry.total_response_time = latencies.sum_ns / 1e6
    entry.min_response_time = (latencies.min_ns or 0) / 1e6
    entry.max_response_time = (latencies.max_ns or 0) / 1e6
    entry.num_reqs_per_sec[int(now)] = tally.requests
    if tally.failed:
        entry.num_fail_per_sec[int(now)] = tally.failed
    entry.last_request_timestamp = now
    for value_us, count in zip(*latencies.used_buckets_us(), strict=True):
        entry.response_times[rounded_ms(float(value_us) / 1000)] += int(count)
    for total in (stats.entries[(name, REQUEST_METHOD)], stats.total):
        total.extend(entry)
    for code, count in tally.errors.items():
        key = StatsError.create_key(REQUEST_METHOD, name, code)
        if key not in stats.errors:
            stats.errors[key] = StatsError(REQUEST_METHOD, name, code)
        stats.errors[key].occurrences += count
