"""Locust's own statistics, fed in bulk from the same histograms, so that its tables and charts tell the same story."""

from __future__ import annotations

import time
from typing import Any

from locust.stats import StatsEntry, StatsError

from capacity.measures import LATENCY_ERROR, Series, Tally
from capacity.statistics import Histogram

REQUEST_TYPE = "infer"


def rounded_ms(response_time_ms: float) -> float:
    """Rounds to three significant digits; Locust itself rounds to whole milliseconds below 100 ms."""
    return float(f"{response_time_ms:.3g}")


def feed(stats: Any, series: Series, gained: Tally) -> None:
    """Adds one interval of one series to `environment.stats`: the same counts, in two additions."""
    if not gained.requests:
        return
    name = f"{series.model} @ {series.hardware.name}"
    entry = StatsEntry(stats, name, REQUEST_TYPE)
    now = time.time()
    latencies = Histogram()
    latencies.add(gained.histograms["latency"])
    latencies.add(gained.histograms[LATENCY_ERROR])
    entry.num_requests = gained.requests
    entry.num_failures = gained.failed
    entry.total_response_time = latencies.sum_ns / 1e6
    entry.min_response_time = (latencies.min_ns or 0) / 1e6
    entry.max_response_time = (latencies.max_ns or 0) / 1e6
    entry.num_reqs_per_sec[int(now)] = gained.requests
    if gained.failed:
        entry.num_fail_per_sec[int(now)] = gained.failed
    entry.last_request_timestamp = now
    for value_us, count in zip(*latencies.used_buckets_us(), strict=True):
        entry.response_times[rounded_ms(float(value_us) / 1000)] += int(count)
    for kept in (stats.entries[(name, REQUEST_TYPE)], stats.total):
        kept.extend(entry)
    for code, count in gained.errors.items():
        key = StatsError.create_key(REQUEST_TYPE, name, code)
        if key not in stats.errors:
            stats.errors[key] = StatsError(REQUEST_TYPE, name, code)
        stats.errors[key].occurrences += count
