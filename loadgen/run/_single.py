"""One process that is alone: it generates the load and keeps the book."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from typing import Any

import gevent

from loadgen.measure import GeneratorHealth, HostSampler, RunTotals
from loadgen.run._coordinator import Keeper, feed_all, finish
from loadgen.run._session import Session
from loadgen.search._probes import Order, Probes
from loadgen.search._search import Sums


class Alone(Keeper):
    """One process that generates the load and keeps the book."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._sampler = HostSampler(self.runner.client_id)

    def begin(self) -> None:
        options, catalogue = self._find()
        self.session = Session(options, self._targets, on_exhausted=lambda: gevent.spawn(finish, self.environment))
        self._book = self._open_book(options, catalogue, self.session)
        self._start_ticking()

    def sources(self) -> list[int]:
        return self._probes().sources

    def order(self, order: Order) -> None:
        self._probes().begin(replace(order, begins_ns=time.monotonic_ns()))

    def stop_probe(self, number: int) -> None:
        self._probes().stop(number)

    def rested(self, number: int) -> GeneratorHealth | None:
        probes = self._probes()
        return probes.health if probes.done == number else None

    def sums(self) -> Sums:
        assert self.session is not None
        recorder = self.session.recorder
        totals = {series: tally.copy() for series, tally in recorder.total.items()}
        warmups = {series: tally.copy() for series, tally in recorder.warmup.items()}
        return Sums(totals, warmups, self.session.watch.autocorrelation())

    def generators(self) -> list[dict[str, Any]]:
        return [{"client": self.runner.client_id, "complete": True}]

    def _probes(self) -> Probes:
        assert self.session is not None
        assert self.session.probes is not None
        return self.session.probes

    def ramped(self) -> None:
        if self.session is not None and self.session.probes is None:
            self.session.measure_from(time.monotonic_ns() + self.session.options.warmup_ns)
        super().ramped()

    def tick(self) -> None:
        assert self.session is not None
        assert self._book is not None
        gained = self.session.recorder.flip()
        gevent.sleep(0)
        self._book.interval(gained)
        feed_all(self.environment.stats, gained)
        self.onlooker.hear(self.runner.client_id, socket.gethostname(), self._sampler.sample())
        if self.onlooker.due_for_lights() and self.session.watch.measuring and self._shape is None:
            self._judge(self._outcome(self.session, self.session.notes()))
        self.onlooker.tick(gained, self.session.in_flight)
        self._stop_if_resolved(self.session.recorder.total, self.session.watch.autocorrelation)

    def drain(self) -> None:
        if self._shape is not None:
            self._shape.cut()
        if self.session is not None:
            self.session.drain()

    def _end(self) -> None:
        assert self.session is not None
        self._until = None
        session = self.session
        session.close()
        self.tick()
        if self._shape is not None:
            self._shape.rest()
        self.session = None
        self._close(self._outcome(session, session.health))

    def _outcome(self, session: Session, health: GeneratorHealth) -> RunTotals:
        recorder = session.recorder
        generator = {
            "client": self.runner.client_id,
            "host": socket.gethostname(),
            "requests": sum(tally.requests for tally in recorder.total.values()),
            "complete": True,
        }
        firsts = recorder.first_requests_ns
        return RunTotals(recorder.total, recorder.warmup, firsts, session.measured_s, [generator], health)
