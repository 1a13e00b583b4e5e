"""The processes that send load, as the coordinator sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from capacity.measures import Series, Tally
from capacity.rundir import TelemetryReading
from loadgen._options import Options
from loadgen.generator import CumulativeTallies, LoadSession, Prober
from loadgen.measure import RunTotals
from loadgen.targets import Target


@dataclass(frozen=True)
class Interval:
    """What all generators measured since the last interval, and their requests in flight now, by series."""

    tallies: Mapping[Series, Tally]
    in_flight: Mapping[Series, int]


@dataclass(frozen=True)
class RunCallbacks:
    """What generators call on the coordinator.

    - `flush` writes an interval now; a prober calls it when nothing of a probe is in flight;
    - `record_readings(generator, host, readings)` takes telemetry;
    - `on_exhausted` is called once all requests of --requests or of a trace are answered.
    """

    flush: Callable[[], None]
    record_readings: Callable[[str, str, Sequence[TelemetryReading]], None]
    on_exhausted: Callable[[], None]


class Generators(Protocol):
    """One generator in this process, or any number of them in others. The methods are called in this order: `prepare`,
    `begin`, `start_measuring`; then `collect` once a second; `drain`, `close`, a last `collect`, `totals`."""

    @property
    def session(self) -> LoadSession | None:
        """The load of this process, if it is a generator itself."""

    @property
    def prober(self) -> Prober:
        """Runs probes, in a run with --shape."""

    def prepare(self, options: Options, targets: Sequence[Target], callbacks: RunCallbacks) -> dict[str, str]:
        """Checks what will be sent. Returns the shapes of requests per model; raises InputError."""

    def begin(self, description: dict[str, Any]) -> None:
        """Begins the run; `description` is what generators write into their own logs."""

    def start_measuring(self) -> float:
        """Begins the warm-up. Returns after how many seconds measuring begins."""

    def collect(self) -> Interval:
        """Ends an interval."""

    def tallies(self) -> CumulativeTallies:
        """What was measured up to the last interval, without copies."""

    def autocorrelation(self) -> Mapping[Series, float]:
        """Autocorrelation time of each series' latencies so far, in samples."""

    def current_totals(self) -> RunTotals | None:
        """The state of a run that goes on, for its checks; None where there is none yet."""

    def drain(self) -> None:
        """Ends sending, and a probe that goes on; blocks until nothing is in flight, or it takes too long."""

    def close(self) -> None:
        """Ends what `prepare` and `begin` opened."""

    def totals(self) -> RunTotals:
        """Returns the results of the run."""
