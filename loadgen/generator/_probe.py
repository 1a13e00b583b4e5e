"""A probe of a search: one rate held for a while by all sources, as a request and its response."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from capacity.measures import HardwareCombination, Series, Tally
from loadgen.measure import GeneratorHealth, RunTotals, tally_difference


class Pool(NamedTuple):
    """What one search is about: all targets of one combination and model."""

    hardware: HardwareCombination
    model: str
    simulated: bool


def pool_of(series: Series) -> Pool:
    """The pool that a series belongs to."""
    return Pool(series.hardware, series.model, series.simulated)


def pools_of(series: Sequence[Series]) -> list[Pool]:
    """All pools in the order of the targets, which is the same on every generator."""
    return list(dict.fromkeys(pool_of(one) for one in series))


@dataclass(frozen=True)
class ProbeOrder:
    """Requests of one pool (its index in `pools_of`) are due for `length_ns`, and measured after the first `settle_ns`.

    `rate` is of each source, a second; at 0 each source has one request in flight at a time, and all of it counts as
    warm-up. `begins_ns` is by this process's monotonic clock; 0: at once.
    """

    number: int
    pool: int
    rate: float
    length_ns: int
    settle_ns: int = 0
    begins_ns: int = 0


@dataclass(frozen=True)
class ProbeResult:
    """What all generators measured in one probe, of the probe's pool. `seconds` is how long requests were due and
    measured; `complete` is False where a generator did not report the end of its probe."""

    tallies: Mapping[Series, Tally]
    warmups: Mapping[Series, Tally]
    health: GeneratorHealth
    generators: Sequence[Mapping[str, Any]]
    complete: bool = True

    @property
    def seconds(self) -> float:
        """How long requests were due and measured."""
        return self.health.window_s

    @property
    def run_totals(self) -> RunTotals:
        """The result in the form of a whole run's, for checks."""
        return RunTotals(self.tallies, {}, {}, self.seconds, self.generators, self.health)


class CumulativeTallies:
    """What was measured up to some moment, by series: the measured part and the warm-up."""

    def __init__(self, totals: Mapping[Series, Tally], warmups: Mapping[Series, Tally]) -> None:
        self.totals = totals
        self.warmups = warmups

    def of_pool(self, pool: Pool) -> CumulativeTallies:
        """A copy of those of one pool, which does not change any more."""
        return CumulativeTallies(
            {series: tally.copy() for series, tally in self.totals.items() if pool_of(series) == pool},
            {series: tally.copy() for series, tally in self.warmups.items() if pool_of(series) == pool},
        )


@dataclass(frozen=True)
class ProbeProgress:
    """A probe that goes on: states before it and now, of its pool. `autocorrelation` computes the autocorrelation time
    of each series' latencies, in samples."""

    before: CumulativeTallies
    now: CumulativeTallies
    autocorrelation: Callable[[], Mapping[Series, float]]

    @property
    def due(self) -> int:
        """Requests that were due and are in the tallies."""
        return sum(self.now.totals[series].due - tally.due for series, tally in self.before.totals.items())

    def tallies(self) -> dict[Series, Tally]:
        """What was measured so far."""
        return _differences(self.now.totals, self.before.totals)

    def warmups(self) -> dict[Series, Tally]:
        """What was recorded so far and not measured."""
        return _differences(self.now.warmups, self.before.warmups)


def _differences(later: Mapping[Series, Tally], earlier: Mapping[Series, Tally]) -> dict[Series, Tally]:
    return {series: tally_difference(later[series], tally) for series, tally in earlier.items()}


#: Whether a probe may end before its time.
StopCondition = Callable[[ProbeProgress], bool]


class Prober(Protocol):
    """Runs probes on one generator or on many."""

    def source_counts(self) -> list[int]:
        """Returns how many sources would take part in a probe, for each pool; empty where that is not known yet."""

    def run_probe(self, order: ProbeOrder, stop_when: StopCondition | None = None) -> ProbeResult:
        """Runs one probe and blocks until nothing of it is in flight on any generator.

        `stop_when` is evaluated several times a second, and ends the probe early. The end of the run does so too.
        """
