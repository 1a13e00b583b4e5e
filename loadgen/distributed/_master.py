"""Locust's master: it keeps the book, adds up the last snapshot of each generator, and a barrier ends the run."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import gevent
from gevent.event import Event

from capacity.measures import Series, Tally, sum_tallies
from capacity.rundir import series_tag
from loadgen.distributed._clock_sync import answer_pings
from loadgen.distributed._generator import DRAIN, EXHAUSTED, PROBE, SNAPSHOT, START
from loadgen.distributed._links import MasterLink
from loadgen.distributed._snapshot import Snapshot
from loadgen.distributed._validator import SIZE_LIMIT, MessageValidator
from loadgen.measure import GeneratorHealth, RunTotals, tally_difference
from loadgen.run._coordinator import TICK_S, Keeper, finish
from loadgen.run._session import DRAIN_GRACE_S, Session
from loadgen.search._probes import Order
from loadgen.search._search import Sums

#: What the master adds to the deadline before it gives a generator up at the end of a run. One that Locust has missed
#: for seconds already gets this alone.
BARRIER_GRACE_S = 5.0
#: How long ahead the master says when schedules or measuring begin: longer than a message takes.
AHEAD_NS = 200_000_000
#: What a snapshot may have on the wire for each series of the run, beside what any message may.
SERIES_CAP = 256 << 10

MALFORMED = "malformed snapshots"
CONTRADICTING = "snapshots with less than the one before"
STALE = "snapshots of another run, or older than the last"


@dataclass(frozen=True)
class Heard:
    """A snapshot, and when it came, in seconds after the run began."""

    snapshot: Snapshot
    at_s: float


class Master(Keeper):
    """Locust's master: the last snapshot of each generator is what the run is made of."""

    def __init__(self, environment: Any, validator: MessageValidator, link: MasterLink) -> None:
        super().__init__(environment)
        self._validator = validator
        self._link = link
        self._run = ""
        self._began = 0.0
        self._clients: list[str] = []
        self._tags: dict[str, Series] = {}
        self._last: dict[str, Heard] = {}
        self._notes: dict[str, GeneratorHealth] = {}
        self._exhausted: set[str] = set()
        self._written: dict[Series, Tally] = {}
        self._heard = Event()
        answer_pings(link)
        link.receive(SNAPSHOT, self._take_snapshot)
        link.receive(EXHAUSTED, self._take_exhausted)

    def begin(self) -> None:
        options, catalogue = self._find()
        self._run = uuid.uuid4().hex
        self._clients = sorted(client.id for client in self.runner.clients.all)
        self._tags = {series_tag(target.series, "latency"): target.series for target in self._targets}
        self._last = {}
        self._notes = {}
        self._exhausted = set()
        self._written = {}
        self._validator.size_limit = SIZE_LIMIT + SERIES_CAP * len(self._tags)
        rehearsal = Session(options, self._targets)
        self._book = self._open_book(options, catalogue, rehearsal)
        rehearsal.close()
        self._began = time.monotonic()
        plan = {
            "run": self._run,
            "clients": self._clients,
            "begins_ns": time.monotonic_ns() + AHEAD_NS,
            "shown": self.environment.web_ui is not None,
            "targets": [target.to_wire() for target in self._targets],
            "plan": {**self._book.plan, "run": self._run, "clients": self._clients, "tags": list(self._tags)},
        }
        self._link.publish_plan(plan)
        self._start_ticking()

    def sources(self) -> list[int]:
        told = [heard.snapshot.sources for heard in self._last.values()]
        return [sum(counts) for counts in zip(*told, strict=True)] if told and all(told) else []

    def order(self, order: Order) -> None:
        when = {**vars(order), "begins_ns": time.monotonic_ns() + AHEAD_NS}
        self._link.send(PROBE, {"run": self._run, "order": when, "ahead_ns": AHEAD_NS})

    def stop_probe(self, number: int) -> None:
        self._link.send(PROBE, {"run": self._run, "stop": number})

    def rested(self, number: int) -> GeneratorHealth | None:
        present = {client.id for client in self.runner.clients.all if client.state != "missing"}
        last = [heard.snapshot for client, heard in self._last.items() if client in present]
        if not last or any(snapshot.probe < number for snapshot in last):
            return None
        health = GeneratorHealth()
        for snapshot in last:
            if snapshot.health is not None and snapshot.probe == number:
                health.add(snapshot.health)
        return health

    def sums(self) -> Sums:
        return Sums(self._added("totals"), self._added("warmups"), self._dependence())

    def generators(self) -> list[dict[str, Any]]:
        present = {client.id for client in self.runner.clients.all if client.state != "missing"}
        return [{"client": client, "complete": client in present} for client in self._clients]

    def ramped(self) -> None:
        if self._book is None or self._options is None:
            return
        if self._shape is not None:
            super().ramped()
            return
        ahead = AHEAD_NS + self._options.warmup_ns
        at = time.monotonic_ns() + ahead
        if self._measuring is None:
            self._measuring = gevent.spawn_later(ahead / 1e9, self._book.measuring_begins)
        self._link.send(START, {"run": self._run, "measuring_ns": at, "ahead_ns": ahead})

    def tick(self) -> None:
        assert self._book is not None
        total = self._added("totals")
        gained = {series: tally_difference(one, self._written.get(series, Tally())) for series, one in total.items()}
        self._book.interval(gained)
        self._written = total
        in_flight = dict.fromkeys(total, 0)
        for heard in self._last.values():
            for series, number in heard.snapshot.in_flight.items():
                in_flight[series] += number
        if self.onlooker.due_for_lights() and self._notes and self._shape is None:
            self._judge(self._outcome(self._notes.values(), self.generators()))
        self.onlooker.tick(gained, in_flight)
        self._stop_if_resolved(total, self._dependence)
        self._stop_if_exhausted()

    def _dependence(self) -> dict[Series, float]:
        longest: dict[Series, float] = {}
        for heard in self._last.values():
            for series, samples in heard.snapshot.autocorrelation_times.items():
                longest[series] = max(samples, longest.get(series, 1.0))
        return longest

    def drain(self) -> None:
        if not self.running:
            return
        assert self._options is not None
        if self._shape is not None:
            self._shape.cut()
        for client in self.runner.clients.all:
            self._link.send(DRAIN, {"run": self._run}, client.id)
        now = time.monotonic()
        lost = now + BARRIER_GRACE_S
        limit = lost + self._options.deadline_ns / 1e9 + DRAIN_GRACE_S
        while (now := time.monotonic()) < limit:
            awaited = self._awaited(missed=now < lost)
            if not awaited:
                return
            self._heard.clear()
            self._heard.wait(min(limit - now, TICK_S))

    def _awaited(self, *, missed: bool) -> list[str]:
        """Generators that have not sent their last snapshot; with or without those that Locust misses."""
        present = {client.id for client in self.runner.clients.all if missed or client.state != "missing"}
        return [c for c in self._clients if c in present and not (c in self._last and self._last[c].snapshot.final)]

    def _end(self) -> None:
        self._until = None
        self.tick()
        if self._shape is not None:
            self._shape.rest()
        generators = [self._generator(client) for client in sorted({*self._clients, *self._last})]
        notes = [heard.snapshot.health for heard in self._last.values() if heard.snapshot.health is not None]
        outcome = self._outcome(notes, generators)
        # What is refused while no run is on is told with the next one.
        self._validator.refused.clear()
        self._close(outcome)

    def _outcome(self, notes: Iterable[GeneratorHealth], generators: list[dict[str, Any]]) -> RunTotals:
        snapshots = [heard.snapshot for heard in self._last.values()]
        firsts: dict[Series, int] = {}
        for snapshot in snapshots:
            for series, ns in snapshot.first_ns.items():
                firsts[series] = max(ns, firsts.get(series, 0))
        health = GeneratorHealth()
        for one in notes:
            health.add(one)
        measured_s = max((snapshot.measured_s for snapshot in snapshots), default=0.0)
        return RunTotals(
            self._written, self._added("warmups"), firsts, measured_s, generators, health, dict(self._validator.refused)
        )

    def _generator(self, client: str) -> dict[str, Any]:
        heard = self._last.get(client)
        snapshot = heard.snapshot if heard else None
        return {
            "client": client,
            "host": snapshot.host if snapshot else "",
            "requests": sum(tally.requests for tally in snapshot.totals.values()) if snapshot else 0,
            "last_sequence": snapshot.sequence if snapshot else 0,
            "complete": bool(snapshot and snapshot.final),
            "last_s": round(heard.at_s, 3) if heard else None,
            "offset_us": snapshot.offset_us if snapshot else None,
            "round_trip_us": snapshot.round_trip_us if snapshot else None,
        }

    def _added(self, part: str) -> dict[Series, Tally]:
        by_series: dict[Series, list[Any]] = {target.series: [] for target in self._targets}
        for heard in self._last.values():
            for series, tally in getattr(heard.snapshot, part).items():
                by_series[series].append(tally)
        return {series: sum_tallies(tallies) for series, tallies in by_series.items()}

    def _take_snapshot(self, client: str, data: Any) -> None:
        try:
            snapshot = Snapshot.unpack(data, self._tags)
        except ValueError:
            self._validator.refused[MALFORMED] += 1
            return
        if not self.running:
            return
        before = self._last[client].snapshot if client in self._last else None
        if snapshot.run != self._run or (before is not None and snapshot.sequence <= before.sequence):
            self._validator.refused[STALE] += 1
        elif before is not None and not snapshot.follows(before):
            self._validator.refused[CONTRADICTING] += 1
        else:
            self._last[client] = Heard(snapshot, time.monotonic() - self._began)
            if snapshot.health is not None:
                self._notes[client] = snapshot.health
            self.onlooker.hear(client, snapshot.host, snapshot.readings)
            self._heard.set()

    def _take_exhausted(self, client: str, data: Any) -> None:
        if data != {"run": self._run}:
            return
        self._exhausted.add(client)
        self._stop_if_exhausted()

    def _stop_if_exhausted(self) -> None:
        """Ends the run when every generator has sent its share; one that is gone sends nothing any more."""
        here = {client.id for client in self.runner.clients.all if client.state != "missing"}
        if self._exhausted and self._exhausted >= here.intersection(self._clients):
            self._exhausted = set()
            gevent.spawn(finish, self.environment)
