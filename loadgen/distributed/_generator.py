"""Locust's worker: it generates load, and what it measured goes to the master in snapshots and into a log of its own.

Snapshots are cumulative and numbered, and only the last of each generator counts, so one lost on the way costs nothing.
"""

from __future__ import annotations

import socket
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gevent
from gevent.lock import RLock

from capacity.measures import Series
from capacity.rundir import GeneratorLogEnd, RunDescription, series_tag
from loadgen._errors import SendError
from loadgen._options import Options
from loadgen.distributed._clock_sync import ClockSync
from loadgen.distributed._links import GeneratorLink
from loadgen.distributed._local_log import LocalLog
from loadgen.distributed._snapshot import pack
from loadgen.measure import GeneratorHealth, HostSampler, RunTotals
from loadgen.run._coordinator import Node, feed_all, say
from loadgen.run._observer import LIGHTS_EVERY
from loadgen.run._session import Session
from loadgen.run._validity import checks_of
from loadgen.search._probes import Order
from loadgen.targets import Target

#: Snapshots between two looks at how far latencies depend on one another.
DEPENDENCE_EVERY = 5

SNAPSHOT = "inferload_snapshot"
EXHAUSTED = "inferload_exhausted"
DRAIN = "inferload_drain"
START = "inferload_start"
PROBE = "inferload_probe"
#: Where generators write their own logs, unless --local-dir says otherwise.
LOCAL = Path("runs/generators")


class Generator(Node):
    """One generator of several. `session` is its part in the run."""

    def __init__(self, environment: Any, link: GeneratorLink) -> None:
        super().__init__(environment)
        self._link = link
        self._run = ""
        self._shown = False
        self._sequence = 0
        self._dependence: dict[Series, float] = {}
        self._sampler = HostSampler(self.runner.client_id)
        self._clock = ClockSync(link)
        gevent.spawn(self._clock.measure)
        self._local_log: LocalLog | None = None
        # The master, a signal and Locust's own stop may end a run at the same time.
        self._ending = RLock()
        link.receive(DRAIN, self._told_to_drain, concurrent=True)
        link.receive(START, self._told_to_start)
        link.receive(PROBE, self._told_to_probe)

    def begin(self) -> None:
        plan = self._link.plan()
        if plan is None:
            return
        self._shown = bool(plan["shown"])
        self._run = plan["run"]
        self._sequence = 0
        self._dependence = {}
        options = Options.read(self.environment.parsed_options)
        targets = [Target.from_wire(wire) for wire in plan["targets"]]
        share = share_of(self.runner.client_id, plan["clients"])
        self.session = Session(options, targets, share=share, on_exhausted=self._say_exhausted)
        self.session.begins_ns = self._clock.local_ns(plan["begins_ns"]) or 0
        gevent.spawn(self._clock.measure)
        description = RunDescription.model_validate(plan["plan"])
        self._local_log = LocalLog(options.local_dir or LOCAL, self.runner.client_id, description, say)
        if self.session.probes is not None:
            self.session.probes.on_done = self._say_rested
        self._start_ticking()

    def ramped(self) -> None:
        """Nothing: the master says when measuring begins."""

    def tick(self) -> None:
        assert self.session is not None
        self._take()
        self._send(final=False)

    def drain(self) -> None:
        with self._ending:
            if self.session is None or not self.running:
                return
            self.session.drain()
            self.session.health.events = [
                event.model_copy(update={"generator": self.runner.client_id}) for event in self.session.health.events
            ]
            self._stop_ticking()
            self._take()
            if self._local_log is not None:
                health = self.session.health
                self._local_log.end(
                    GeneratorLogEnd(
                        checks=checks_of(self._outcome(), self.session.options),
                        autocorrelation_times={
                            series_tag(series, "latency"): n for series, n in health.autocorrelation.items()
                        },
                        offset_us=_us(self._clock.offset_ns),
                        round_trip_us=_us(self._clock.round_trip_ns),
                    )
                )
                self._local_log = None
            self._send(final=True)

    def end(self) -> None:
        with self._ending:
            if self.session is not None:
                self.drain()
                self.session.close()
                self.session = None

    def _told_to_drain(self, data: Any) -> None:
        if data == {"run": self._run}:
            self.drain()

    def _told_to_start(self, data: Any) -> None:
        if self.session is None or data["run"] != self._run:
            return
        agreed = self._clock.local_ns(data["measuring_ns"])
        # Without an answer from the master's clock, all that is known is when it spoke.
        self.session.measure_from(agreed or time.monotonic_ns() + data["ahead_ns"])

    def _told_to_probe(self, data: Any) -> None:
        if self.session is None or self.session.probes is None or data["run"] != self._run:
            return
        probes = self.session.probes
        if (order := data.get("order")) is None:
            probes.stop(data["stop"])
            return
        begins_ns = self._clock.local_ns(order["begins_ns"]) or time.monotonic_ns() + data["ahead_ns"]
        probes.begin(Order(**{**order, "begins_ns": begins_ns}))

    def _say_rested(self) -> None:
        """A probe is over: the master hears of it at once."""
        with self.turn:
            if self.session is not None and self.running:
                self.tick()

    def _say_exhausted(self) -> None:
        self._link.send(EXHAUSTED, {"run": self._run})

    def _take(self) -> None:
        """What came in since the last time goes into the totals, Locust's statistics, and the log here."""
        assert self.session is not None
        gained = self.session.recorder.flip()
        self._sequence += 1
        feed_all(self.environment.stats, gained)
        if self._local_log is not None:
            self._local_log.write(self._sequence, gained, self.session.recorder, self.session.measured_s)

    def _send(self, *, final: bool) -> None:
        assert self.session is not None
        recorder, probes = self.session.recorder, self.session.probes
        if probes is not None or self._sequence % DEPENDENCE_EVERY == 0:
            self._dependence = self.session.watch.autocorrelation()
        packed = pack(
            totals=recorder.total,
            warmups=recorder.warmup,
            first_ns=recorder.first_requests_ns,
            in_flight=self.session.in_flight,
            health=self.session.health if final else probes.health if probes else self._notes(),
            probe=probes.done if probes else 0,
            sources=probes.sources if probes else [],
            run=self._run,
            sequence=self._sequence,
            final=final,
            host=socket.gethostname(),
            measured_s=self.session.measured_s,
            autocorrelation_times=self._dependence,
            readings=[list(reading) for reading in self._sampler.sample()],
            offset_us=_us(self._clock.offset_ns),
            round_trip_us=_us(self._clock.round_trip_ns),
        )
        try:
            self._link.send(SNAPSHOT, packed)
        except SendError as error:
            # The next one says it all again.
            say(f"a snapshot could not be sent: {error}")

    def _notes(self) -> GeneratorHealth | None:
        """Now and then, what the master's live page judges the run by: where there is such a page."""
        assert self.session is not None
        shown = self._shown and self.session.watch.measuring
        return self.session.notes() if shown and self._sequence % LIGHTS_EVERY == 0 else None

    def _outcome(self) -> RunTotals:
        assert self.session is not None
        recorder, session = self.session.recorder, self.session
        generators = [{"client": self.runner.client_id, "complete": True}]
        firsts = recorder.first_requests_ns
        return RunTotals(recorder.total, recorder.warmup, firsts, session.measured_s, generators, session.health)


def share_of(client: str, clients: Sequence[str]) -> tuple[int, int]:
    """This generator's number among those that the run began with, and how many they are.

    One that came later has a number beyond theirs, its own but for chance: of what is given in total nothing is left
    for it, and its random arrivals are not those of another.
    """
    if client in clients:
        return clients.index(client), len(clients)
    return len(clients) * (1 + zlib.crc32(client.encode())), max(1, len(clients))


def _us(ns: int | None) -> float | None:
    return None if ns is None else ns / 1000
