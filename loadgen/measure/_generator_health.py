"""What a generator notes of itself while it measures, so that the run can be judged: how late its loop woke, what its
processor did, how many requests were in flight, and when requests were due and sent."""

from __future__ import annotations

import time
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import psutil

from capacity.measures.tally import Series
from capacity.rundir.document import TargetEvent
from capacity.rundir.interval_log import parse_tag, tag_of
from capacity.statistics.histogram import Histogram
from capacity.statistics.stationarity import autocorrelation_time

#: Due and sent times kept for the check of the arrivals, from the beginning of the measured part.
ARRIVALS = 10_000
#: Latencies of each series kept in order, for their dependence on one another.
LATENCIES = 20_000
#: Bins of the run's course; when they are full, two become one, so that an hour takes no more room than a minute.
BINS = 2048
#: Events taken from one generator.
_MOST_EVENTS = 10_000


class Vitals:
    """One generator's notes, or several generators' put together (`add`).

    `processor_share` is of one core, `in_flight` the mean over time, `planned_rates` arrivals a second of each
    generator, `due` and `sent` its first arrivals in ns, `dependence` the autocorrelation time of a series in samples,
    `events` when targets went down and came up, `course` rows of (requests ended, their summed latency in ns, requests
    in flight at the end) per bin of time. Of a probe, `completed` has how many were answered in each fold's time while
    requests were due, which took `window_s`.
    """

    def __init__(self) -> None:
        self.lag = Histogram()
        self.processor_share = 0.0
        self.in_flight = 0.0
        self.planned_rates: list[float] = []
        self.due: list[npt.NDArray[np.int64]] = []
        self.sent: list[npt.NDArray[np.int64]] = []
        self.dependence: dict[Series, float] = {}
        self.course: list[npt.NDArray[np.float64]] = []
        self.completed: list[npt.NDArray[np.int64]] = []
        self.window_s = 0.0
        self.events: list[TargetEvent] = []

    def add(self, other: Vitals) -> None:
        """Puts another generator's notes beside these: the busiest processor counts, requests in flight add up."""
        self.lag.add(other.lag)
        self.processor_share = max(self.processor_share, other.processor_share)
        self.in_flight += other.in_flight
        self.planned_rates += other.planned_rates
        self.due += other.due
        self.sent += other.sent
        self.course += other.course
        self.completed += other.completed
        self.window_s = max(self.window_s, other.window_s)
        self.events += other.events
        for series, samples in other.dependence.items():
            self.dependence[series] = max(samples, self.dependence.get(series, 1.0))

    def to_wire(self) -> dict[str, Any]:
        """Plain msgpack types."""
        return {
            "lag": [self.lag.encode(), *self.lag.exact],
            "processor": self.processor_share,
            "in_flight": self.in_flight,
            "rates": self.planned_rates,
            "due": [one.tobytes() for one in self.due],
            "sent": [one.tobytes() for one in self.sent],
            "dependence": {tag_of(series, "latency"): samples for series, samples in self.dependence.items()},
            "course": [one.tobytes() for one in self.course],
            "completed": [one.tobytes() for one in self.completed],
            "window_s": self.window_s,
            "events": [[one.at_s, one.at_unix, one.worker, one.state, one.why, one.by] for one in self.events],
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        """What `to_wire` sent; ValueError on anything else."""
        vitals = cls()
        try:
            payload, count, sum_ns, min_ns, max_ns, above = wire["lag"]
            vitals.lag = Histogram.decode(
                payload, count=count, sum_ns=sum_ns, min_ns=min_ns, max_ns=max_ns, above=above
            )
            vitals.processor_share = _figure(wire["processor"])
            vitals.in_flight = _figure(wire["in_flight"])
            vitals.planned_rates = [_figure(rate) for rate in wire["rates"]]
            vitals.due = [np.frombuffer(one, np.int64) for one in wire["due"]]
            vitals.sent = [np.frombuffer(one, np.int64) for one in wire["sent"]]
            vitals.dependence = {
                parse_tag(tag)[0]: max(1.0, _figure(samples)) for tag, samples in wire["dependence"].items()
            }
            vitals.course = [np.frombuffer(one, np.float64).reshape(-1, 3) for one in wire["course"]]
            vitals.completed = [np.frombuffer(one, np.int64) for one in wire["completed"]]
            vitals.window_s = _figure(wire["window_s"])
            names = ("at_s", "at_unix", "worker", "state", "why", "by")
            vitals.events = [
                TargetEvent.model_validate(dict(zip(names, one, strict=True))) for one in wire["events"][:_MOST_EVENTS]
            ]
            if [one.size for one in vitals.due] != [one.size for one in vitals.sent]:
                raise ValueError("as many requests are due as are sent")
            if any(times.size > ARRIVALS or (times < 0).any() for times in (*vitals.due, *vitals.sent)):
                raise ValueError("times of arrivals are out of range")
            if any(len(one) > BINS or not (np.isfinite(one) & (one >= 0)).all() for one in vitals.course):
                raise ValueError("the course of the run is out of range")
        except (KeyError, TypeError, AttributeError, OverflowError, ValueError) as error:
            raise ValueError(f"a generator's notes came malformed: {error}") from None
        return vitals

    def mean_latencies(self) -> npt.NDArray[np.float64]:
        """Mean latency of each bin of the run's course in ns, all generators', without bins in which nothing ended."""
        ended, total, _ = self._pooled()
        return total[ended > 0] / ended[ended > 0]

    def in_flight_course(self) -> npt.NDArray[np.float64]:
        """Requests in flight at the end of each bin, all generators'."""
        return self._pooled()[2]

    def _pooled(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        if not self.course:
            return np.empty(0), np.empty(0), np.empty(0)
        shortest = min(len(one) for one in self.course)
        summed = np.sum([one[:shortest] for one in self.course], axis=0)
        return summed[:, 0], summed[:, 1], summed[:, 2]


class Watch:
    """Takes a generator's notes from the beginning of the measured part to its end.

    With `bounds_ns`, samples depend on one another as their being above one of these does, not as their values do.
    """

    def __init__(self, bounds_ns: Sequence[int] = ()) -> None:
        self.begun = False
        self._bounds_ns = tuple(bounds_ns)
        self._answered: list[int] | None = None
        self._counted: list[int] = []
        self._lag = Histogram()
        self._arrivals = array("q")
        self._latencies: dict[Series, list[npt.NDArray[np.int64]]] = {}
        self._kept: dict[Series, int] = {}
        self._bins: list[tuple[float, float, float]] = []
        self._open = (0.0, 0.0)
        self._folds_a_bin = 1
        self._folds = 0
        self._flying = 0
        self._changed = 0
        self._area = 0
        self._area_begun = 0
        self._began_ns = 0
        self._processor_begun = 0.0
        self._process = psutil.Process()

    # -- the load path ------------------------------------------------------------------------------------------------

    def sent(self, now_ns: int) -> None:
        """A request left."""
        self._area += self._flying * (now_ns - self._changed)
        self._flying += 1
        self._changed = now_ns

    def ended(self, now_ns: int) -> None:
        """A request came back, or was given up."""
        self._area += self._flying * (now_ns - self._changed)
        self._flying -= 1
        self._changed = now_ns

    def arrival(self, due_ns: int, sent_ns: int) -> None:
        """A request of an open loop was due, in the order of due times."""
        if self.begun and len(self._arrivals) < 2 * ARRIVALS:
            self._arrivals.extend((due_ns, sent_ns))

    @property
    def in_flight(self) -> int:
        """Requests sent and not yet ended."""
        return self._flying

    # -- now and then -------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The measured part begins."""
        self.begun = True
        self._began_ns = time.monotonic_ns()
        self._processor_begun = _busy(self._process)
        self._area_begun = self._area + self._flying * (self._began_ns - self._changed)

    def fold(self, rows: Mapping[Series, npt.NDArray[np.int64]], late_ns: int) -> None:
        """What ended since the last fold, measured rows of (due, sent, done); the fold itself came `late_ns` late."""
        if not self.begun:
            return
        self._lag.record_ns([max(0, late_ns)])
        ended, total = self._open
        for series, taken in rows.items():
            latencies = taken[:, 2] - taken[:, 0]
            ended += len(latencies)
            total += float(latencies.sum())
            if (room := LATENCIES - self._kept.get(series, 0)) > 0 and len(latencies):
                self._latencies.setdefault(series, []).append(latencies[:room].copy())
                self._kept[series] = self._kept.get(series, 0) + min(room, len(latencies))
        self._open = (ended, total)
        self._folds += 1
        if self._folds >= self._folds_a_bin:
            self._bins.append((ended, total, float(self._flying)))
            self._open, self._folds = (0.0, 0.0), 0
            if len(self._bins) >= BINS:
                pairs = zip(self._bins[::2], self._bins[1::2], strict=True)
                self._bins = [(a[0] + b[0], a[1] + b[1], b[2]) for a, b in pairs]
                self._folds_a_bin *= 2

    def count(self, answered: int) -> None:
        """After a fold: how many were answered so far. For a probe; it ends with `window`."""
        if self.begun and self._answered is not None:
            self._answered.append(answered)

    def window(self, *, opens: bool) -> None:
        """Opens or closes the time for which `count` counts."""
        self._counted, self._answered = self._answered or [], [] if opens else None

    def dependence(self) -> dict[Series, float]:
        """Autocorrelation time of each series' latencies so far, in samples: so many say as much as one independent."""
        found = {}
        for series, parts in self._latencies.items():
            latencies = np.concatenate(parts)
            if self._bounds_ns:
                found[series] = max(autocorrelation_time(latencies > bound) for bound in self._bounds_ns)
            else:
                found[series] = autocorrelation_time(latencies)
        return found

    def finish(self, planned_rates: Sequence[float]) -> Vitals:
        """The notes so far; `planned_rates` a second of each source of open arrivals."""
        vitals = Vitals()
        vitals.planned_rates = [sum(planned_rates)] if planned_rates else []
        now = time.monotonic_ns()
        if not self.begun or now <= self._began_ns:
            return vitals
        elapsed = now - self._began_ns
        vitals.lag.add(self._lag)
        vitals.processor_share = (_busy(self._process) - self._processor_begun) / (elapsed / 1e9)
        area = self._area + self._flying * (now - self._changed) - self._area_begun
        vitals.in_flight = area / elapsed
        pairs = np.frombuffer(self._arrivals, dtype=np.int64).reshape(-1, 2) if self._arrivals else np.empty((0, 2))
        vitals.due = [pairs[:, 0].astype(np.int64)]
        vitals.sent = [pairs[:, 1].astype(np.int64)]
        vitals.dependence = self.dependence()
        vitals.course = [np.array(self._bins, dtype=np.float64).reshape(-1, 3)]
        vitals.completed = [np.diff(np.array(self._counted, dtype=np.int64)).astype(np.int64)]
        return vitals


def _figure(value: object) -> float:
    if not isinstance(value, (int, float)) or not 0 <= value < 1e12:
        raise ValueError(f"{value!r} is not a figure of a generator")
    return float(value)


def _busy(process: psutil.Process) -> float:
    """Seconds of processor time of this process, all threads."""
    times = process.cpu_times()
    return float(times.user + times.system)
