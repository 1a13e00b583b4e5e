"""Locust's master and its workers: what the generators measured goes up in snapshots, and a barrier ends the run.

Snapshots are cumulative and numbered, and only the last of each generator counts, so one lost on the way costs nothing.
"""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Mapping
from typing import Any

import gevent
from gevent.event import Event

from capacity.hlog import parse_tag, tag_of
from capacity.tally import Series, Tally
from loadgen._book import Outcome
from loadgen._keeper import TICK_S, Keeper, Node, feed_all, finish
from loadgen._options import Options
from loadgen._recorder import difference
from loadgen._session import DRAIN_GRACE_S, Session
from loadgen._target import Target
from loadgen._telemetry import Sampler
from loadgen._vitals import Vitals

#: What the master adds to the deadline before it gives a generator up at the end of a run.
BARRIER_GRACE_S = 5.0

#: Snapshots between two looks at how far latencies depend on one another.
DEPENDENCE_EVERY = 5

SNAPSHOT = "inferload_snapshot"
EXHAUSTED = "inferload_exhausted"
DRAIN = "inferload_drain"
#: Attribute of the parsed options in which the master's plan travels with Locust's spawn message.
PLAN = "inferload_plan"


class Generator(Node):
    """A Locust worker: it generates load, and sends the master numbered cumulative snapshots."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._run = ""
        self._sequence = 0
        self._dependence: dict[str, float] = {}
        self._sampler = Sampler(self.runner.client_id)
        self.runner.register_message(DRAIN, self._told_to_drain, concurrent=True)

    def begin(self) -> None:
        plan = getattr(self.environment.parsed_options, PLAN)
        self._run = plan["run"]
        self._sequence = 0
        options = Options.read(self.environment.parsed_options)
        targets = [Target.from_wire(wire) for wire in plan["targets"]]
        clients = plan["clients"]
        number = clients.index(self.runner.client_id) if self.runner.client_id in clients else len(clients)
        self.session = Session(options, targets, share=(number, len(clients)), on_exhausted=self._say_exhausted)
        self._start_ticking()

    def ramped(self) -> None:
        if self.session is not None:
            self.session.measure_from(time.monotonic_ns() + self.session.options.warmup_ns)

    def tick(self) -> None:
        assert self.session is not None
        feed_all(self.environment.stats, self.session.recorder.flip())
        self._send(final=False)

    def drain(self) -> None:
        if self.session is None or not self.running:
            return
        self.session.drain()
        self._stop_ticking()
        feed_all(self.environment.stats, self.session.recorder.flip())
        self._send(final=True)

    def end(self) -> None:
        if self.session is not None:
            self.drain()
            self.session.close()
            self.session = None

    def _told_to_drain(self, environment: Any, msg: Any, **_: Any) -> None:
        if msg.data == {"run": self._run}:
            self.drain()

    def _say_exhausted(self) -> None:
        self.runner.send_message(EXHAUSTED, {"run": self._run})

    def _send(self, *, final: bool) -> None:
        assert self.session is not None
        recorder = self.session.recorder
        self._sequence += 1
        if self._sequence % DEPENDENCE_EVERY == 0:
            found = self.session.watch.dependence()
            self._dependence = {tag_of(series, "latency"): samples for series, samples in found.items()}
        self.runner.send_message(
            SNAPSHOT,
            {
                "run": self._run,
                "sequence": self._sequence,
                "final": final,
                "host": socket.gethostname(),
                "measured_s": self.session.measured_s,
                "total": _to_wire(recorder.total),
                "warmup": _to_wire(recorder.warmup),
                "first": {tag_of(series, "latency"): ns for series, ns in recorder.first_requests_ns.items()},
                "dependence": self._dependence,
                "in_flight": {tag_of(series, "latency"): n for series, n in self.session.in_flight.items()},
                "readings": [list(reading) for reading in self._sampler.sample()],
                "vitals": self.session.vitals.to_wire() if final else None,
            },
        )


class Master(Keeper):
    """Locust's master: it keeps the book, and the last snapshot of each generator."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._run = ""
        self._clients: list[str] = []
        self._last: dict[str, Mapping[str, Any]] = {}
        self._exhausted: set[str] = set()
        self._written: dict[Series, Tally] = {}
        self._heard = Event()
        self.refused = 0
        self.runner.register_message(SNAPSHOT, self._take_snapshot)
        self.runner.register_message(EXHAUSTED, self._take_exhausted)

    def begin(self) -> None:
        options, catalogue = self._find()
        self._run = uuid.uuid4().hex
        self._clients = sorted(client.id for client in self.runner.clients.all)
        self._last = {}
        self._exhausted = set()
        self._written = {}
        rehearsal = Session(options, self._targets)
        self._book = self._open_book(options, catalogue, rehearsal)
        rehearsal.close()
        plan = {"run": self._run, "clients": self._clients, "targets": [target.to_wire() for target in self._targets]}
        setattr(self.environment.parsed_options, PLAN, plan)
        self._start_ticking()

    def tick(self) -> None:
        assert self._book is not None
        total = self._added("total")
        gained = {series: difference(tally, self._written.get(series, Tally())) for series, tally in total.items()}
        self._book.interval(gained)
        self._written = total
        in_flight = dict.fromkeys(total, 0)
        for snapshot in self._last.values():
            for tag, number in snapshot["in_flight"].items():
                in_flight[parse_tag(tag)[0]] += number
        self.onlooker.tick(gained, in_flight)
        self._stop_if_resolved(total, self._dependence)

    def _dependence(self) -> dict[Series, float]:
        longest: dict[Series, float] = {}
        for snapshot in self._last.values():
            for tag, samples in snapshot["dependence"].items():
                series = parse_tag(tag)[0]
                longest[series] = max(float(samples), longest.get(series, 1.0))
        return longest

    def drain(self) -> None:
        if not self.running:
            return
        assert self._options is not None
        for client in self.runner.clients.all:
            self.runner.send_message(DRAIN, {"run": self._run}, client.id)
        limit = time.monotonic() + self._options.deadline_ns / 1e9 + DRAIN_GRACE_S + BARRIER_GRACE_S
        while self._awaited() and (left := limit - time.monotonic()) > 0:
            self._heard.clear()
            self._heard.wait(min(left, TICK_S))

    def _awaited(self) -> list[str]:
        """Generators that are still there and have not sent their last snapshot."""
        present = {client.id for client in self.runner.clients.all if client.state != "missing"}
        return [c for c in self._clients if c in present and not self._last.get(c, {}).get("final")]

    def end(self) -> None:
        if not self.running:
            return
        self._stop_ticking()
        self._until = None
        self.tick()
        generators = [self._generator(client) for client in sorted({*self._clients, *self._last})]
        firsts: dict[Series, int] = {}
        for snapshot in self._last.values():
            for tag, ns in snapshot["first"].items():
                series = parse_tag(tag)[0]
                firsts[series] = max(ns, firsts.get(series, 0))
        warmup = self._added("warmup")
        measured_s = max((snapshot["measured_s"] for snapshot in self._last.values()), default=0.0)
        vitals = Vitals()
        for snapshot in self._last.values():
            if snapshot["final"]:
                vitals.add(Vitals.from_wire(snapshot["vitals"]))
        self._close(Outcome(self._written, warmup, firsts, measured_s, generators, vitals, self.refused))

    def _generator(self, client: str) -> dict[str, Any]:
        snapshot = self._last.get(client)
        requests = sum(t.requests for t in _from_wire(snapshot["total"]).values()) if snapshot else 0
        return {
            "client": client,
            "host": snapshot["host"] if snapshot else "",
            "requests": requests,
            "last_sequence": snapshot["sequence"] if snapshot else 0,
            "complete": bool(snapshot and snapshot["final"]),
        }

    def _added(self, part: str) -> dict[Series, Tally]:
        added = {target.series: Tally() for target in self._targets}
        for snapshot in self._last.values():
            for series, tally in _from_wire(snapshot[part]).items():
                added[series].add(tally)
        return added

    def _take_snapshot(self, environment: Any, msg: Any, **_: Any) -> None:
        try:
            if msg.data["run"] != self._run or msg.data["sequence"] <= self._last.get(msg.node_id, {}).get(
                "sequence", 0
            ):
                return
            known = {target.series for target in self._targets}
            for part in ("total", "warmup"):
                if not set(_from_wire(msg.data[part])) <= known:
                    raise ValueError("a series of no target of this run")
            for part in ("first", "dependence", "in_flight"):
                if not all(parse_tag(tag)[0] in known and float(value) >= 0 for tag, value in msg.data[part].items()):
                    raise ValueError(f"{part} of no target of this run")
            if msg.data["final"]:
                Vitals.from_wire(msg.data["vitals"])
            self.onlooker.hear(msg.node_id, str(msg.data["host"]), msg.data["readings"])
            self._last[msg.node_id] = msg.data
        except (KeyError, TypeError, ValueError, AttributeError):
            self.refused += 1
        self._heard.set()

    def _take_exhausted(self, environment: Any, msg: Any, **_: Any) -> None:
        if msg.data != {"run": self._run}:
            return
        self._exhausted.add(msg.node_id)
        if self._exhausted >= set(self._clients):
            gevent.spawn(finish, self.environment)


def _to_wire(tallies: Mapping[Series, Tally]) -> dict[str, Any]:
    return {tag_of(series, "latency"): tally.to_wire() for series, tally in tallies.items()}


def _from_wire(wire: Mapping[str, Any]) -> dict[Series, Tally]:
    return {parse_tag(tag)[0]: Tally.from_wire(tally) for tag, tally in wire.items()}
