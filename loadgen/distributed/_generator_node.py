"""One generator of several, a worker of Locust: its session, its snapshots to the master, and its own log.

Snapshots are cumulative and numbered, and only the last of each generator counts, so a lost one costs nothing.
"""

from __future__ import annotations

import socket
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from gevent.lock import RLock

from capacity.measures import Series
from capacity.rundir import GeneratorLogEnd, RunDescription, series_tag
from loadgen._errors import SendError
from loadgen.checks import check_run
from loadgen.distributed._clock_sync import ClockSync
from loadgen.distributed._links import DRAIN, EXHAUSTED, PROBE, SNAPSHOT, START, GeneratorLink
from loadgen.distributed._local_log import LocalLog
from loadgen.distributed._snapshot import pack
from loadgen.generator import LoadSession, ProbeOrder
from loadgen.measure import GeneratorHealth, HostSampler, RunTotals
from loadgen.run import CHECK_INTERVAL, RunControl, Ticker, print_line
from loadgen.targets import Target

#: Where generators write their own logs, unless --local-dir is given.
_LOG_DIRECTORY = Path("runs/generators")
#: Snapshots between two computations of autocorrelation times.
_AUTOCORRELATION_INTERVAL = 5
#: The last snapshot is sent again this often, after a wait that grows by so many seconds.
_FINAL_ATTEMPTS, _RESEND_S = 3, 0.5


class GeneratorNode:
    """Implements Role. `session` is this generator's part in the run."""

    def __init__(self, control: RunControl, link: GeneratorLink) -> None:
        self.session: LoadSession | None = None
        #: Always set: the coordinator writes the run, not this process.
        self.finished = Event()
        self.finished.set()
        self._control = control
        self._link = link
        self._run = ""
        self._shown = False
        self._sequence = 0
        #: The master has yet to hear that all requests of this generator are answered.
        self._exhausted_unsent = False
        self._autocorrelation: dict[Series, float] = {}
        self._sampler = HostSampler(link.client_id)
        self._clock = ClockSync(link)
        gevent.spawn(self._clock.measure)
        self._log: LocalLog | None = None
        self._ticker = Ticker(self._tick, lambda error: control.report_failure("sending a snapshot", error))
        # The master, a signal and Locust's own stop may end a run at the same time.
        self._ending = RLock()
        link.receive(DRAIN, self._handle_drain, concurrent=True)
        link.receive(START, self._handle_start)
        link.receive(PROBE, self._handle_probe)

    @property
    def running(self) -> bool:
        """Whether a run has begun and is not drained."""
        return self._ticker.running

    # -- course of the run ------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begins this generator's part of the master's plan. Raises InputError."""
        plan = self._link.plan()
        if plan is None:
            # The users that the master chose are none of this package's.
            return
        options = self._control.options()
        self._run = plan["run"]
        self._shown = plan["shown"]
        self._sequence = 0
        self._exhausted_unsent = False
        self._autocorrelation = {}
        self.session = LoadSession(
            options,
            [Target.from_wire(wire) for wire in plan["targets"]],
            client=self._link.client_id,
            share=share_of(self._link.client_id, plan["clients"]),
            begins_ns=self._clock.local_ns(plan["begins_ns"]) or 0,
            on_exhausted=self._send_exhausted,
            flush=self._flush,
        )
        gevent.spawn(self._clock.measure)
        description = RunDescription.model_validate(plan["plan"])
        self._log = LocalLog(options.local_dir or _LOG_DIRECTORY, self._link.client_id, description, print_line)
        self._ticker.start()

    def users_ready(self) -> None:
        """Does nothing: the master says when measuring begins."""

    def drain(self) -> None:
        """Drains the session, and sends its last snapshot."""
        with self._ending:
            session = self.session
            if session is None or not self.running:
                return
            session.drain()
            session.health.events = [
                event.model_copy(update={"generator": self._link.client_id}) for event in session.health.events
            ]
            self._ticker.stop()
            self._record_interval(session)
            self._close_log(session)
            self._send_snapshot(session, session.health, final=True)

    def end(self) -> None:
        """Closes the session."""
        with self._ending:
            if self.session is not None:
                self.drain()
                self.session.close()
                self.session = None

    def _tick(self) -> None:
        session = self.session
        if session is None:
            return
        self._record_interval(session)
        prober = session.prober
        if prober is not None or self._sequence % _AUTOCORRELATION_INTERVAL == 0:
            self._autocorrelation = session.monitor.autocorrelation()
        health = prober.health if prober is not None else self._health_for_page(session)
        self._send_snapshot(session, health, final=False)

    def _flush(self) -> None:
        """A probe is over: the master is told at once."""
        if self.session is not None and self.running:
            self._ticker.tick_now()

    def _record_interval(self, session: LoadSession) -> None:
        """Adds what was measured since the last interval to the totals, to Locust's statistics and to the log."""
        tallies = session.recorder.flip()
        self._sequence += 1
        self._control.add_statistics(tallies)
        if self._log is not None:
            self._log.write(self._sequence, tallies, session.recorder, session.measured_s)

    def _close_log(self, session: LoadSession) -> None:
        """Ends the log with how the run went by this generator alone."""
        if self._log is None:
            return
        times = session.health.autocorrelation
        self._log.end(
            GeneratorLogEnd(
                checks=check_run(self._totals(session), session.options),
                autocorrelation_times={series_tag(series, "latency"): time_ for series, time_ in times.items()},
                offset_us=_in_us(self._clock.offset_ns),
                round_trip_us=_in_us(self._clock.round_trip_ns),
            )
        )
        self._log = None

    def _health_for_page(self, session: LoadSession) -> GeneratorHealth | None:
        """From time to time, what the master's live page checks, if there is one."""
        due = self._shown and session.monitor.measuring and self._sequence % CHECK_INTERVAL == 0
        return session.current_health() if due else None

    def _send_snapshot(self, session: LoadSession, health: GeneratorHealth | None, *, final: bool) -> None:
        recorder, prober = session.recorder, session.prober
        if final:
            self._autocorrelation = session.monitor.autocorrelation()
        packed = pack(
            totals=recorder.total,
            warmups=recorder.warmup,
            first_ns=recorder.first_requests_ns,
            in_flight=session.in_flight,
            health=health,
            probe=prober.number if prober is not None else 0,
            sources=prober.source_counts() if prober is not None else [],
            run=self._run,
            sequence=self._sequence,
            final=final,
            host=socket.gethostname(),
            measured_s=session.measured_s,
            autocorrelation_times=self._autocorrelation,
            readings=[list(reading) for reading in self._sampler.sample()],
            offset_us=_in_us(self._clock.offset_ns),
            round_trip_us=_in_us(self._clock.round_trip_ns),
        )
        # A later snapshot replaces one that could not be sent; nothing follows the last.
        for attempt in range(_FINAL_ATTEMPTS if final else 1):
            try:
                self._link.send(SNAPSHOT, packed)
                break
            except SendError as error:
                print_line(f"warning: a snapshot could not be sent: {error}")
                gevent.sleep(_RESEND_S * attempt)
        if self._exhausted_unsent:
            self._send_exhausted()

    def _totals(self, session: LoadSession) -> RunTotals:
        recorder = session.recorder
        generators = [{"client": self._link.client_id, "complete": True}]
        return RunTotals(
            recorder.total,
            recorder.warmup,
            recorder.first_requests_ns,
            session.measured_s,
            generators,
            session.health,
        )

    # -- messages of the master -------------------------------------------------------------------------------------

    def _handle_drain(self, data: Any) -> None:
        if data == {"run": self._run}:
            self.drain()

    def _handle_start(self, data: Any) -> None:
        if self.session is None or data["run"] != self._run:
            return
        # Without an answer of the master's clock, only the time of its message is known.
        self.session.measure_from(self._clock.local_ns(data["measuring_ns"]) or time.monotonic_ns() + data["ahead_ns"])

    def _handle_probe(self, data: Any) -> None:
        session = self.session
        if session is None or session.prober is None or data["run"] != self._run:
            return
        prober = session.prober
        if "stop" in data:
            prober.stop(data["stop"])
            return
        order = ProbeOrder(**data["order"])
        if session.issuing and not prober.running and order.number > prober.number:
            begins_ns = self._clock.local_ns(order.begins_ns) or time.monotonic_ns() + data["ahead_ns"]
            gevent.spawn(self._run_probe, session, ProbeOrder(**{**data["order"], "begins_ns": begins_ns}))

    def _run_probe(self, session: LoadSession, order: ProbeOrder) -> None:
        assert session.prober is not None
        try:
            session.prober.run_probe(order)
        except Exception as error:
            self._control.report_failure(f"probe {order.number}", error)

    def _send_exhausted(self) -> None:
        try:
            self._link.send(EXHAUSTED, {"run": self._run})
            self._exhausted_unsent = False
        except SendError:
            # Sent again with the next snapshot: the master waits for it.
            self._exhausted_unsent = True


def share_of(client: str, clients: Sequence[str]) -> tuple[int, int]:
    """This generator's number among those that the run began with, and how many they are.

    A generator that joined later has a number beyond theirs, of its own but for chance: of what is given in total
    nothing is left for it, and its random arrivals differ from theirs.
    """
    if client in clients:
        return clients.index(client), len(clients)
    return len(clients) * (1 + zlib.crc32(client.encode())), max(1, len(clients))


def _in_us(ns: int | None) -> float | None:
    return None if ns is None else ns / 1000
