"""Measures a generator while it sends: lag of its event loop, processor time, requests in flight, arrival times."""

from __future__ import annotations

import time
from array import array
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import psutil

from capacity.measures import Series
from capacity.statistics import Histogram, estimate_autocorrelation_time
from loadgen.measure._generator_health import MOST_ARRIVALS, MOST_BINS, GeneratorHealth

#: Latencies of each series that are stored in order, for their autocorrelation time.
_MOST_LATENCIES = 20_000


class HealthMonitor:
    """Measures this generator from the beginning of the measured part (`begin`) to its end (`summary`).

    With `bounds_ns`, the autocorrelation time is that of latencies being above one of these bounds (the largest), since
    a verdict counts nothing else; without, of the latencies themselves.
    """

    def __init__(self, bounds_ns: Sequence[int] = ()) -> None:
        #: Whether the measured part has begun.
        self.measuring = False
        #: Requests sent and not yet ended; its integral over time in ns up to the last change; when that was. Only
        #: InFlightRequest changes them: `in_flight_ns += in_flight * (now - changed_ns)`, then `in_flight`.
        self.in_flight = 0
        self.in_flight_ns = 0
        self.changed_ns = 0
        self._bounds_ns = tuple(bounds_ns)
        self._loop_lag = Histogram()
        self._arrivals = array("q")
        self._in_flight_ns_at_begin = 0
        self._began_ns = 0
        self._process = psutil.Process()
        self._processor_s_at_begin = 0.0
        self._latencies = _LatencySample()
        self._timeline = _Timeline()
        self._answered_counts: list[int] = []
        self._counting = False

    def record_arrival(self, due_ns: int, sent_ns: int) -> None:
        """Stores when a request of an open loop was due and sent. To be called in the order of due times."""
        if self.measuring and len(self._arrivals) < 2 * MOST_ARRIVALS:
            self._arrivals.extend((due_ns, sent_ns))

    # -- once per fold ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begins the measured part."""
        self.measuring = True
        self._began_ns = time.monotonic_ns()
        self._processor_s_at_begin = _processor_s(self._process)
        self._in_flight_ns_at_begin = self._in_flight_ns_until(self._began_ns)

    def record_fold(self, rows: Mapping[Series, npt.NDArray[np.int64]], lag_ns: int, answered: int) -> None:
        """Records a fold that came `lag_ns` late: `rows` of (due, sent, done) in ns are the measured requests that
        ended since the last one, shape (n, 3), and `answered` is the number of answers so far, warm-up included."""
        if not self.measuring:
            return
        self._loop_lag.record_ns([max(0, lag_ns)])
        ended, summed_ns = 0, 0.0
        for series, results in rows.items():
            latencies = results[:, 2] - results[:, 0]
            ended += len(latencies)
            summed_ns += float(latencies.sum())
            self._latencies.add(series, latencies)
        self._timeline.add(ended, summed_ns, self.in_flight)
        if self._counting:
            self._answered_counts.append(answered)

    def start_counting(self) -> None:
        """Begins to count the answers of each fold, for a probe's throughput."""
        self._answered_counts, self._counting = [], True

    def stop_counting(self) -> None:
        """Ends what `start_counting` began."""
        self._counting = False

    def autocorrelation(self) -> dict[Series, float]:
        """Autocorrelation time of each series' latencies so far: so many samples say as much as an independent one."""
        times = {}
        for series, latencies in self._latencies.by_series():
            if self._bounds_ns:
                times[series] = max(estimate_autocorrelation_time(latencies > bound) for bound in self._bounds_ns)
            else:
                times[series] = estimate_autocorrelation_time(latencies)
        return times

    def summary(self, planned_rates: Sequence[float]) -> GeneratorHealth:
        """Returns the record so far; `planned_rates` are the arrivals a second of each source, empty without a plan."""
        health = GeneratorHealth()
        health.planned_rates = [sum(planned_rates)] if planned_rates else []
        now_ns = time.monotonic_ns()
        if not self.measuring or now_ns <= self._began_ns:
            return health
        elapsed_ns = now_ns - self._began_ns
        health.loop_lag.add(self._loop_lag)
        health.processor_share = (_processor_s(self._process) - self._processor_s_at_begin) / (elapsed_ns / 1e9)
        health.in_flight = (self._in_flight_ns_until(now_ns) - self._in_flight_ns_at_begin) / elapsed_ns
        pairs = np.array(self._arrivals, dtype=np.int64).reshape(-1, 2)
        health.due = [pairs[:, 0].copy()]
        health.sent = [pairs[:, 1].copy()]
        health.autocorrelation = self.autocorrelation()
        health.timeline = [self._timeline.rows()]
        health.completions = [np.diff(np.array(self._answered_counts, dtype=np.int64)).astype(np.int64)]
        return health

    def _in_flight_ns_until(self, now_ns: int) -> int:
        return self.in_flight_ns + self.in_flight * (now_ns - self.changed_ns)


class _LatencySample:
    """The first latencies of each series, in the order in which requests ended."""

    def __init__(self) -> None:
        self._parts: dict[Series, list[npt.NDArray[np.int64]]] = {}
        self._counts: dict[Series, int] = {}

    def add(self, series: Series, latencies: npt.NDArray[np.int64]) -> None:
        count = self._counts.get(series, 0)
        space = _MOST_LATENCIES - count
        if space > 0 and len(latencies):
            self._parts.setdefault(series, []).append(latencies[:space].copy())
            self._counts[series] = count + min(space, len(latencies))

    def by_series(self) -> list[tuple[Series, npt.NDArray[np.int64]]]:
        return [(series, np.concatenate(parts)) for series, parts in self._parts.items()]


class _Timeline:
    """Rows of (requests ended, summed latency in ns, requests in flight) per bin of time. When MOST_BINS are full, two
    become one, so that an hour takes no more memory than a minute."""

    def __init__(self) -> None:
        self._bins: list[tuple[float, float, float]] = []
        self._ended = 0.0
        self._summed_ns = 0.0
        self._folds = 0
        self._folds_per_bin = 1

    def add(self, ended: int, summed_ns: float, in_flight: int) -> None:
        self._ended += ended
        self._summed_ns += summed_ns
        self._folds += 1
        if self._folds < self._folds_per_bin:
            return
        self._bins.append((self._ended, self._summed_ns, float(in_flight)))
        self._ended, self._summed_ns, self._folds = 0.0, 0.0, 0
        if len(self._bins) >= MOST_BINS:
            pairs = zip(self._bins[::2], self._bins[1::2], strict=True)
            self._bins = [(a[0] + b[0], a[1] + b[1], b[2]) for a, b in pairs]
            self._folds_per_bin *= 2

    def rows(self) -> npt.NDArray[np.float64]:
        return np.array(self._bins, dtype=np.float64).reshape(-1, 3)


def _processor_s(process: psutil.Process) -> float:
    """Seconds of processor time of this process, all threads."""
    times = process.cpu_times()
    return float(times.user + times.system)
