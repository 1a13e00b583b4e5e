"""Counts: a Series is what is counted, a Tally has its counts and histograms. Tallies of one series add up."""

from __future__ import annotations

from dataclasses import dataclass, field

from capacity.measures.combination import HardwareCombination
from capacity.measures.names import HISTOGRAMS
from capacity.statistics import Histogram


@dataclass(frozen=True)
class Series:
    """One target serving one model, in the pool that `hardware` names; `target` reads `cpu:0 @ 127.0.0.1:9001`."""

    hardware: HardwareCombination
    model: str
    target: str
    simulated: bool


def _empty_histograms() -> dict[str, Histogram]:
    return {name: Histogram() for name in HISTOGRAMS}


@dataclass
class Tally:
    """Requests of one series: due = requests + unsent, and requests = answered + the sum of errors (by gRPC code).

    `histograms` has one for each of HISTOGRAMS. That of `offered` includes requests in flight, so at the end of a run
    its count is `due`. `bytes_out` were sent, `bytes_in` received. `retries` counts requests that were sent again:
    each of them is still one request.
    """

    due: int = 0
    answered: int = 0
    unsent: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=_empty_histograms)
    bytes_in: int = 0
    bytes_out: int = 0
    retries: int = 0

    @property
    def failed(self) -> int:
        """Requests that were sent and not answered with OK."""
        return sum(self.errors.values())

    @property
    def requests(self) -> int:
        """Requests that were sent."""
        return self.answered + self.failed

    def add(self, other: Tally) -> None:
        """Adds the counts and samples of another tally."""
        self.due += other.due
        self.answered += other.answered
        self.unsent += other.unsent
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.retries += other.retries
        for code, count in other.errors.items():
            self.errors[code] = self.errors.get(code, 0) + count
        for name, histogram in other.histograms.items():
            total = self.histograms.setdefault(name, Histogram())
            # Most histograms of an interval are empty, and adding 23,552 buckets takes time.
            if histogram.count:
                total.add(histogram)

    def copy(self) -> Tally:
        """An independent tally of the same counts."""
        tally = Tally()
        tally.add(self)
        return tally
