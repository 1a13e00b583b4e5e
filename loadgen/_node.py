"""This process's part in a run: alone, as Locust's master, or as one of its workers. Ties Locust's events to a Session.

A generator (alone, or a Locust worker) has a Session. The master, or a generator that is alone, keeps the Book. Between
them travel snapshots: cumulative, numbered, and only the last of each generator counts, so one lost on the way costs
nothing.
"""

from __future__ import annotations

import inspect
import os
import socket
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import gevent
from gevent.event import Event
from locust import events
from locust.runners import MasterRunner, WorkerRunner

from capacity.hardware import Catalogue
from capacity.hlog import parse_tag, tag_of
from capacity.report import write_report
from capacity.run import Run
from capacity.tally import Series, Tally
from loadgen import _locust_stats, _options
from loadgen._book import Book, Outcome
from loadgen._closing import checks_of, exit_code, show
from loadgen._fleet import EmbeddedFleet
from loadgen._options import Options, WrongInput
from loadgen._recorder import difference
from loadgen._session import DRAIN_GRACE_S, Session
from loadgen._target import Target, addresses, discover

TICK_S = 1.0
#: What the master adds to the deadline before it gives a generator up at the end of a run.
BARRIER_GRACE_S = 5.0

SNAPSHOT = "inferload_snapshot"
EXHAUSTED = "inferload_exhausted"
DRAIN = "inferload_drain"
#: Attribute of the parsed options in which the master's plan travels with Locust's spawn message.
PLAN = "inferload_plan"


class Node:
    """What all roles share: it hears Locust's events, and hands them to the role's own methods."""

    session: Session | None = None

    def __init__(self, environment: Any) -> None:
        self.environment = environment
        self.runner = environment.runner
        self._ticker: gevent.Greenlet | None = None
        self._tick_stop = Event()
        self._tick_stop.set()

    @property
    def running(self) -> bool:
        """Between test_start and the end of the run."""
        return not self._tick_stop.is_set()

    def begin(self) -> None:
        raise NotImplementedError

    def ramped(self) -> None:
        raise NotImplementedError

    def drain(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        raise NotImplementedError

    def tick(self) -> None:
        raise NotImplementedError

    def _start_ticking(self) -> None:
        self._tick_stop.clear()
        self._ticker = gevent.spawn(self._tick)

    def _stop_ticking(self) -> None:
        self._tick_stop.set()
        if self._ticker is not None:
            self._ticker.join()

    def _tick(self) -> None:
        due = time.monotonic()
        while True:
            due += TICK_S
            if self._tick_stop.wait(max(0.0, due - time.monotonic())):
                return
            self.tick()


class Keeper(Node):
    """A node that keeps the Book: it finds the targets, and closes the run."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._fleet: EmbeddedFleet | None = None
        self._book: Book | None = None
        self._targets: tuple[Target, ...] = ()
        self._options: Options | None = None
        self._measuring: gevent.Greenlet | None = None
        self._finished: tuple[Path, Path, str] | None = None

    def _find(self) -> tuple[Options, Catalogue]:
        options = Options.read(self.environment.parsed_options)
        try:
            catalogue = Catalogue.load(options.catalogue)
        except ValueError as error:
            raise WrongInput(str(error)) from None
        found = addresses(options.targets, Path.cwd())
        if not found:
            say("no targets given: starting an embedded fleet, ResNet-18 on every cpu ordinal of this machine")
            self._fleet = EmbeddedFleet()
            self._fleet.wait()
            say(f"embedded fleet is ready on {self._fleet.accelerators}")
            found = addresses(self._fleet.targets, Path.cwd())
        self._targets = discover(found, options, catalogue)
        for target in self._targets:
            if target.down:
                say(f"target {target.address} is down: {target.down}; the run goes on, its requests count as errors")
        self._options = options
        return options, catalogue

    def _open_book(self, options: Options, catalogue: Catalogue, session: Session) -> Book:
        parsed = {
            key: value
            for key, value in vars(self.environment.parsed_options).items()
            if key in _options.RECORDED and value not in (None, "")
        }
        return Book(
            options,
            self._targets,
            catalogue,
            command=parsed,
            request_shapes=session.request_shapes,
            users=self.runner.target_user_count,
        )

    def ramped(self) -> None:
        if self._book is not None and self._options is not None and self._measuring is None:
            self._measuring = gevent.spawn_later(self._options.warmup_ns / 1e9, self._book.measuring_begins)

    def _close(self, outcome: Outcome) -> None:
        assert self._book is not None
        assert self._options is not None
        if self._measuring is not None:
            self._measuring.kill()
            self._measuring = None
        book, self._book = self._book, None
        file = book.close(outcome)
        report = write_report([Run.load(book.directory)], book.directory, self._options.slo)
        code = exit_code(file, self._options)
        if code and self.environment.process_exit_code is None:
            self.environment.process_exit_code = code
        self._stop_fleet()
        self._finished = (book.directory, report, self._options.by)
        if not self.environment.parsed_options.headless:
            self.show()

    def show(self) -> None:
        """Prints the table of the run that ended; once. Headless, that is after Locust's own tables."""
        finished, self._finished = self._finished, None
        if finished is not None:
            show(*finished)

    def _stop_fleet(self) -> None:
        if self._fleet is not None:
            self._fleet.stop()
            self._fleet = None


class Alone(Keeper):
    """One process that generates the load and keeps the book."""

    def begin(self) -> None:
        options, catalogue = self._find()
        self.session = Session(options, self._targets, on_exhausted=lambda: gevent.spawn(finish, self.environment))
        self._book = self._open_book(options, catalogue, self.session)
        self._start_ticking()

    def ramped(self) -> None:
        if self.session is not None:
            self.session.measure_from(time.monotonic_ns() + self.session.options.warmup_ns)
        super().ramped()

    def tick(self) -> None:
        assert self.session is not None
        assert self._book is not None
        gained = self.session.recorder.flip()
        self._book.interval(gained)
        feed_all(self.environment.stats, gained)

    def drain(self) -> None:
        if self.session is not None:
            self.session.drain()

    def end(self) -> None:
        if self.session is None or not self.running:
            return
        self._stop_ticking()
        session, self.session = self.session, None
        session.close()
        self.session = session
        self.tick()
        self.session = None
        recorder = session.recorder
        generator = {
            "client": self.runner.client_id,
            "host": socket.gethostname(),
            "requests": sum(tally.requests for tally in recorder.total.values()),
            "complete": True,
        }
        checks = checks_of(recorder.total, recorder.warmup, self.runner.cpu_warning_emitted, [generator])
        self._close(
            Outcome(
                recorder.total,
                recorder.warmup,
                recorder.first_requests_ns,
                session.measured_s,
                [generator],
                checks,
            )
        )


class Generator(Node):
    """A Locust worker: it generates load, and sends the master numbered cumulative snapshots."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._run = ""
        self._sequence = 0
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
        self.runner.send_message(
            SNAPSHOT,
            {
                "run": self._run,
                "sequence": self._sequence,
                "final": final,
                "host": socket.gethostname(),
                "cpu_warning": self.runner.cpu_warning_emitted,
                "measured_s": self.session.measured_s,
                "total": _to_wire(recorder.total),
                "warmup": _to_wire(recorder.warmup),
                "first": {tag_of(series, "latency"): ns for series, ns in recorder.first_requests_ns.items()},
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
        self._book.interval(
            {series: difference(tally, self._written.get(series, Tally())) for series, tally in total.items()}
        )
        self._written = total

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
        self.tick()
        generators = [self._generator(client) for client in sorted({*self._clients, *self._last})]
        firsts: dict[Series, int] = {}
        for snapshot in self._last.values():
            for tag, ns in snapshot["first"].items():
                series = parse_tag(tag)[0]
                firsts[series] = max(ns, firsts.get(series, 0))
        warmup = self._added("warmup")
        busy = any(snapshot["cpu_warning"] for snapshot in self._last.values())
        checks = checks_of(self._written, warmup, busy, generators, refused=self.refused)
        measured_s = max((snapshot["measured_s"] for snapshot in self._last.values()), default=0.0)
        self._close(Outcome(self._written, warmup, firsts, measured_s, generators, checks))

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


def feed_all(stats: Any, gained: Mapping[Series, Tally]) -> None:
    """One interval into Locust's own statistics."""
    for series, tally in gained.items():
        _locust_stats.feed(stats, series, tally)


def say(line: str) -> None:
    """One line to the user, beside Locust's log."""
    print(f"inferload: {line}", file=sys.stderr, flush=True)


def finish(environment: Any) -> None:
    """Ends the run as --run-time would: quits when headless, stops when the web UI stays."""
    if environment.parsed_options.headless:
        environment.runner.quit()
    else:
        environment.runner.stop()


_node: Node | None = None


def current_session() -> Session | None:
    """The run of this process; None outside a run, and on a master."""
    return _node.session if _node is not None else None


def install() -> None:
    """Hangs everything on Locust's events. Once a process: importing `loadgen._user` does it."""
    _locust_stats.install()
    events.init_command_line_parser.add_listener(_options.register)
    events.init.add_listener(_on_init)
    events.test_start.add_listener(_on_test_start)
    events.spawning_complete.add_listener(_on_spawning_complete)
    events.test_stopping.add_listener(_on_test_stopping)
    events.test_stop.add_listener(_on_test_stop)
    events.quitting.add_listener(_on_quitting)
    events.quit.add_listener(_on_quit)


def _on_init(environment: Any, runner: Any, **_: Any) -> None:
    global _node
    options = environment.parsed_options
    # Timers count from the loop's idea of now, which stood still during the imports: --run-time would end early.
    gevent.get_hub().loop.update_now()
    # Locust's stop() asks this who called it. The first time takes 60 ms, in which nothing would be sent or received.
    inspect.stack()
    if isinstance(runner, WorkerRunner):
        _node = Generator(environment)
        return
    try:
        found = addresses(Options.read(options).targets, Path.cwd())
    except WrongInput as error:
        _refuse(error)
    if options.num_users is None:
        # An embedded fleet has a worker on every core.
        options.num_users = len(found) or os.cpu_count() or 1
    if options.spawn_rate is None:
        # Locust's default of one user a second makes the ramp-up longer than many runs.
        options.spawn_rate = min(options.num_users, 100)
    _node = Master(environment) if isinstance(runner, MasterRunner) else Alone(environment)


def _refuse(error: WrongInput) -> NoReturn:
    say(f"error: {error}")
    raise SystemExit(2)


def _on_test_start(environment: Any, **_: Any) -> None:
    assert _node is not None
    try:
        _node.begin()
    except WrongInput as error:
        if isinstance(_node, Keeper):
            _node._stop_fleet()
        if environment.parsed_options.headless or isinstance(_node, Generator):
            _refuse(error)
        say(f"error: {error}")
        gevent.spawn(environment.runner.stop)


def _on_spawning_complete(**_: Any) -> None:
    assert _node is not None
    _node.ramped()


def _on_test_stopping(**_: Any) -> None:
    assert _node is not None
    _node.drain()


def _on_test_stop(**_: Any) -> None:
    assert _node is not None
    _node.end()


def _on_quitting(environment: Any, **_: Any) -> None:
    # Locust settles its exit code before it stops a run that a signal ended: end it first.
    if _node is not None and _node.running:
        environment.runner.stop()


def _on_quit(**_: Any) -> None:
    if isinstance(_node, Keeper):
        _node.show()
