"""What checks of a run are computed from, and the limits that several of them share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from capacity.measures import Tally
from capacity.statistics import Check, CheckStatus, Histogram
from loadgen._options import Options
from loadgen.measure import GeneratorHealth, RunTotals


class CheckInput:
    """A run or a probe, with the sums over all series that checks use."""

    def __init__(self, totals: RunTotals, options: Options) -> None:
        self.totals = totals
        self.options = options

    @property
    def health(self) -> GeneratorHealth:
        """What the generators measured of themselves."""
        return self.totals.health

    @property
    def tallies(self) -> list[Tally]:
        """The measured part of each series."""
        return list(self.totals.totals.values())

    @property
    def measured_s(self) -> float:
        """Length of the measured part in seconds."""
        return self.totals.measured_s

    @cached_property
    def service(self) -> Histogram:
        """Service times of all series."""
        return self.pooled("service")

    def pooled(self, measure: str) -> Histogram:
        """One measure of all series in one histogram."""
        pooled = Histogram()
        for tally in self.tallies:
            pooled.add(tally.histograms[measure])
        return pooled


#: A rule returns None where it does not apply to the run.
Rule = Callable[[CheckInput], Check | None]


def status_of(value: float, warns_above: float, fails_above: float) -> CheckStatus:
    """PASS up to the first limit, WARN up to the second, else FAIL."""
    return "PASS" if value <= warns_above else "WARN" if value <= fails_above else "FAIL"
