"""The only generator of a run, in the process that also owns the run."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

import gevent

from capacity.measures import Series
from loadgen._options import Options
from loadgen.generator import CumulativeTallies, LoadSession, Prober
from loadgen.measure import GeneratorHealth, HostSampler, RunTotals
from loadgen.run._control import RunControl
from loadgen.run._generators import Interval, RunCallbacks
from loadgen.targets import Target


class LocalGenerators:
    """Implements Generators with one LoadSession of this process."""

    def __init__(self, control: RunControl) -> None:
        self._control = control
        self._sampler = HostSampler(control.client_id)
        self._session: LoadSession | None = None
        self._callbacks: RunCallbacks | None = None

    @property
    def session(self) -> LoadSession | None:
        """The load of this process."""
        return self._session

    @property
    def prober(self) -> Prober:
        """The session's own prober."""
        assert self._session is not None
        assert self._session.prober is not None
        return self._session.prober

    def prepare(self, options: Options, targets: Sequence[Target], callbacks: RunCallbacks) -> dict[str, str]:
        """Opens the session."""
        self._callbacks = callbacks
        self._session = LoadSession(
            options,
            targets,
            client=self._control.client_id,
            on_exhausted=callbacks.on_exhausted,
            flush=callbacks.flush,
        )
        return self._session.request_shapes

    def begin(self, description: dict[str, Any]) -> None:
        """Does nothing: the session sends as soon as there are users, and writes no log of its own."""

    def start_measuring(self) -> float:
        """Begins the warm-up now."""
        assert self._session is not None
        warmup_ns = self._session.options.warmup_ns
        self._session.measure_from(time.monotonic_ns() + warmup_ns)
        return warmup_ns / 1e9

    def collect(self) -> Interval:
        """Ends an interval of the recorder; Locust's statistics get it, too."""
        assert self._session is not None
        assert self._callbacks is not None
        tallies = self._session.recorder.flip()
        # What became due meanwhile is sent before the rest.
        gevent.sleep(0)
        self._control.add_statistics(tallies)
        self._callbacks.record_readings(self._control.client_id, socket.gethostname(), self._sampler.sample())
        return Interval(tallies, self._session.in_flight)

    def tallies(self) -> CumulativeTallies:
        """The recorder's."""
        assert self._session is not None
        return CumulativeTallies(self._session.recorder.total, self._session.recorder.warmup)

    def autocorrelation(self) -> Mapping[Series, float]:
        """The monitor's."""
        assert self._session is not None
        return self._session.monitor.autocorrelation()

    def current_totals(self) -> RunTotals | None:
        """The state of the session; None before the measured part."""
        assert self._session is not None
        return self._totals(self._session, self._session.current_health()) if self._session.monitor.measuring else None

    def drain(self) -> None:
        """Drains the session."""
        if self._session is not None:
            self._session.drain()

    def close(self) -> None:
        """Closes the session, which still has its results."""
        if self._session is not None:
            self._session.close()

    def totals(self) -> RunTotals:
        """Returns the session's results, and forgets the session."""
        assert self._session is not None
        session, self._session = self._session, None
        return self._totals(session, session.health)

    def _totals(self, session: LoadSession, health: GeneratorHealth) -> RunTotals:
        recorder = session.recorder
        generator = {
            "client": self._control.client_id,
            "host": socket.gethostname(),
            "requests": sum(tally.requests for tally in recorder.total.values()),
            "complete": True,
        }
        first_requests_ns = recorder.first_requests_ns
        return RunTotals(recorder.total, recorder.warmup, first_requests_ns, session.measured_s, [generator], health)
