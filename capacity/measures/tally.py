"""What was counted: a Series says of what, a Tally how many and how long. Tallies of one series add up."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from capacity.measures.combination import HardwareCombination
from capacity.statistics import Histogram

MEASURES = ("latency", "service", "lateness", "queue", "compute")
LATENCY_ERROR = "latency-error"
#: How many requests became due in an interval, whenever they end, and how many of them were never sent. Their
#: histograms hold as many zeros: what counts is the count.
OFFERED, UNSENT = "offered", "unsent"
HISTOGRAMS = (*MEASURES, LATENCY_ERROR, OFFERED, UNSENT)
#: What workers measure of themselves, told once for the whole run; and how long forward passes held them, by rows.
TARGET_MEASURES = ("queue", "compute")
_PASS = re.compile(r"pass-([1-9]\d{0,9})")


def pass_measure(rows: int) -> str:
    """The measure of forward passes of so many rows."""
    return f"pass-{rows}"


def pass_rows(measure: str) -> int | None:
    """Of how many rows the passes of this measure are; None where it is another measure."""
    match = _PASS.fullmatch(measure)
    return int(match[1]) if match else None


def is_measure(name: str) -> bool:
    """Whether a histogram may be called so."""
    return name in HISTOGRAMS or pass_rows(name) is not None


def is_target_measure(name: str) -> bool:
    """Whether workers measure this of themselves."""
    return name in TARGET_MEASURES or pass_rows(name) is not None


@dataclass(frozen=True)
class Series:
    """One target serving one model, in the pool that `hardware` names; `target` reads `cpu:0 @ 127.0.0.1:9001`."""

    hardware: HardwareCombination
    model: str
    target: str
    simulated: bool


def _empty() -> dict[str, Histogram]:
    return {name: Histogram() for name in HISTOGRAMS}


@dataclass
class Tally:
    """Requests of one series: due = requests + unsent, and requests = answered + the sum of errors (by gRPC code).

    `histograms` has one for each measure, of answered requests, `latency-error`, the latency of failed ones, and the
    counts `offered` and `unsent`. `offered` also holds what is in flight, so at the end of a run it is `due`.
    `bytes_out` left the generator, `bytes_in` came back. `retries` is how often a request was sent once more: it stays
    one request.
    """

    due: int = 0
    answered: int = 0
    unsent: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=_empty)
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
        """Adds another's counts and samples to these."""
        self.due += other.due
        self.answered += other.answered
        self.unsent += other.unsent
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.retries += other.retries
        for code, count in other.errors.items():
            self.errors[code] = self.errors.get(code, 0) + count
        for name, histogram in other.histograms.items():
            mine = self.histograms.setdefault(name, Histogram())
            # Most of an interval's are empty, and adding 23,552 buckets is not free.
            if histogram.count:
                mine.add(histogram)

    def copy(self) -> Tally:
        """An independent tally of the same counts."""
        twin = Tally()
        twin.add(self)
        return twin
