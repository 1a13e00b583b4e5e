"""What generators measure of themselves, so that a run can be checked; several generators' records add up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from capacity.measures import Series
from capacity.rundir import TargetEvent, parse_series_tag, series_tag
from capacity.statistics import Histogram

#: Due and sent times of arrivals that one generator records, from the beginning of the measured part.
MOST_ARRIVALS = 10_000
#: Bins of time in one generator's timeline.
MOST_BINS = 2048
#: Events read from one generator.
_MOST_EVENTS = 10_000


class GeneratorHealth:
    """One generator's record of itself, or the sum of several (`add`).

    - `loop_lag`: how late the event loop woke;
    - `processor_share`: share of one core, 1.0 is all of it; of several generators the busiest;
    - `in_flight`: mean number of requests in flight over the measured time;
    - `planned_rates`: planned arrivals a second, one number per generator, empty where there was no steady plan;
    - `due`, `sent`: the first arrivals of each generator in ns, arrays of shape (arrivals,);
    - `autocorrelation`: autocorrelation time of each series' latencies, in samples;
    - `timeline`: per generator rows of (requests ended, their summed latency in ns, requests in flight at the end of
      the bin), shape (bins, 3);
    - `events`: when targets went down and came up;
    - of a probe, `completions`: answered requests per interval of the fold while requests were due, one array of shape
      (intervals,) per generator, and `window_s`: how long requests were due and measured.
    """

    def __init__(self) -> None:
        self.loop_lag = Histogram()
        self.processor_share = 0.0
        self.in_flight = 0.0
        self.planned_rates: list[float] = []
        self.due: list[npt.NDArray[np.int64]] = []
        self.sent: list[npt.NDArray[np.int64]] = []
        self.autocorrelation: dict[Series, float] = {}
        self.timeline: list[npt.NDArray[np.float64]] = []
        self.completions: list[npt.NDArray[np.int64]] = []
        self.window_s = 0.0
        self.events: list[TargetEvent] = []

    def add(self, other: GeneratorHealth) -> None:
        """Adds another generator's record: the busiest processor counts, requests in flight add up."""
        self.loop_lag.add(other.loop_lag)
        self.processor_share = max(self.processor_share, other.processor_share)
        self.in_flight += other.in_flight
        self.planned_rates += other.planned_rates
        self.due += other.due
        self.sent += other.sent
        self.timeline += other.timeline
        self.completions += other.completions
        self.window_s = max(self.window_s, other.window_s)
        self.events += other.events
        for series, samples in other.autocorrelation.items():
            self.autocorrelation[series] = max(samples, self.autocorrelation.get(series, 1.0))

    def to_wire(self) -> dict[str, Any]:
        """Returns the record in plain msgpack types."""
        return {
            "loop_lag": [self.loop_lag.encode(), *self.loop_lag.exact],
            "processor": self.processor_share,
            "in_flight": self.in_flight,
            "rates": self.planned_rates,
            "due": [times.tobytes() for times in self.due],
            "sent": [times.tobytes() for times in self.sent],
            "autocorrelation": {
                series_tag(series, "latency"): samples for series, samples in self.autocorrelation.items()
            },
            "timeline": [bins.tobytes() for bins in self.timeline],
            "completions": [counts.tobytes() for counts in self.completions],
            "window_s": self.window_s,
            "events": [event.model_dump(mode="json") for event in self.events],
        }

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> Self:
        """Reads what `to_wire` returned. Raises ValueError on anything else: it comes from the network."""
        health = cls()
        try:
            payload, count, sum_ns, min_ns, max_ns, above = wire["loop_lag"]
            health.loop_lag = Histogram.decode(
                payload, count=count, sum_ns=sum_ns, min_ns=min_ns, max_ns=max_ns, above=above
            )
            health.processor_share = _number(wire["processor"])
            health.in_flight = _number(wire["in_flight"])
            health.planned_rates = [_number(rate) for rate in wire["rates"]]
            health.due = [np.frombuffer(times, np.int64) for times in wire["due"]]
            health.sent = [np.frombuffer(times, np.int64) for times in wire["sent"]]
            health.autocorrelation = {
                parse_series_tag(tag)[0]: max(1.0, _number(samples)) for tag, samples in wire["autocorrelation"].items()
            }
            health.timeline = [np.frombuffer(bins, np.float64).reshape(-1, 3) for bins in wire["timeline"]]
            health.completions = [np.frombuffer(counts, np.int64) for counts in wire["completions"]]
            health.window_s = _number(wire["window_s"])
            health.events = [TargetEvent.model_validate(event) for event in wire["events"][:_MOST_EVENTS]]
            if [times.size for times in health.due] != [times.size for times in health.sent]:
                raise ValueError("due and sent times differ in number")
            if any(times.size > MOST_ARRIVALS or (times < 0).any() for times in (*health.due, *health.sent)):
                raise ValueError("times of arrivals are out of range")
            if any(len(bins) > MOST_BINS or not (np.isfinite(bins) & (bins >= 0)).all() for bins in health.timeline):
                raise ValueError("the timeline is out of range")
        except (KeyError, TypeError, AttributeError, OverflowError, ValueError) as error:
            raise ValueError(f"malformed record of a generator's health: {error}") from None
        return health

    def mean_latencies(self) -> npt.NDArray[np.float64]:
        """Mean latency in ns of each bin of time in which requests ended, over all generators; shape (bins,)."""
        ended, summed_ns, _ = self._summed_timeline()
        return summed_ns[ended > 0] / ended[ended > 0]

    def in_flight_over_time(self) -> npt.NDArray[np.float64]:
        """Requests in flight at the end of each bin of time, over all generators; shape (bins,)."""
        return self._summed_timeline()[2]

    def _summed_timeline(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        if not self.timeline:
            return np.empty(0), np.empty(0), np.empty(0)
        shortest = min(len(bins) for bins in self.timeline)
        summed = np.sum([bins[:shortest] for bins in self.timeline], axis=0)
        return summed[:, 0], summed[:, 1], summed[:, 2]


def _number(value: object) -> float:
    if not isinstance(value, (int, float)) or not 0 <= value < 1e12:
        raise ValueError(f"{value!r} is not a number from 0 to 1e12")
    return float(value)
