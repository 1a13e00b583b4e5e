"""Who keeps the book of a run: finds the targets, opens the run directory, closes it; and what all roles share."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from gevent.lock import RLock

from capacity.measures import Series, Tally
from capacity.pricing import Catalogue
from capacity.reporting.html import write_report
from capacity.rundir import Run
from loadgen import _options
from loadgen._errors import InputError
from loadgen._options import Options
from loadgen.measure import GeneratorHealth, RunTotals
from loadgen.run._early_stop import Resolution
from loadgen.run._observer import Onlooker
from loadgen.run._session import Session
from loadgen.run._validity import checks_of, exit_code, lights_of, show
from loadgen.run._writer import Book
from loadgen.search._probes import Order
from loadgen.search._search import Shape, Sums
from loadgen.targets import EmbeddedFleet, Target, TargetTelemetry, discover_targets, read_addresses

TICK_S = 1.0


class Node(ABC):
    """What all roles share: it hears Locust's events, and hands them to the role's own methods."""

    session: Session | None = None

    def __init__(self, environment: Any) -> None:
        self.environment = environment
        self.runner = environment.runner
        self._ticker: gevent.Greenlet | None = None
        self._tick_stop = Event()
        self._tick_stop.set()
        #: Set while nothing that a keeper has begun is still to be written down.
        self.over = Event()
        self.over.set()
        #: Whoever ticks holds it.
        self.turn = RLock()

    @property
    def running(self) -> bool:
        """Between test_start and the end of the run."""
        return not self._tick_stop.is_set()

    @abstractmethod
    def begin(self) -> None:
        """The run begins: test_start."""

    @abstractmethod
    def ramped(self) -> None:
        """All users are there: spawning_complete."""

    @abstractmethod
    def drain(self) -> None:
        """Nothing is sent any more; what is in flight is waited for: test_stopping."""

    @abstractmethod
    def end(self) -> None:
        """The run is over: test_stop."""

    @abstractmethod
    def tick(self) -> None:
        """Once a second while it runs."""

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
            with self.turn:
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
        self._until: Resolution | None = None
        self._shape: Shape | None = None
        self.onlooker = Onlooker(shown=environment.web_ui is not None)

    def _start_ticking(self) -> None:
        self.over.clear()
        super()._start_ticking()

    def end(self) -> None:
        if not self.running:
            return
        self._stop_ticking()
        try:
            self._end()
        finally:
            self.over.set()

    @abstractmethod
    def _end(self) -> None:
        """Nothing is sent or ticks any more: what the run came to is written down."""

    def embedded(self) -> EmbeddedFleet:
        """The fleet of a run without targets, started if it is not there yet."""
        if self._fleet is None:
            say("no targets given: starting an embedded fleet, ResNet-18 on every cpu ordinal of this machine")
            self._fleet = EmbeddedFleet()
            say(f"embedded fleet is ready on {self._fleet.accelerators}")
        return self._fleet

    def _find(self) -> tuple[Options, Catalogue]:
        options = Options.read(self.environment.parsed_options)
        try:
            catalogue = Catalogue.load(options.catalogue)
        except ValueError as error:
            raise InputError(str(error)) from None
        found = read_addresses(options.targets, Path.cwd()) or self.embedded().addresses
        self._targets = discover_targets(found, options, catalogue)
        for target in self._targets:
            if target.down:
                say(f"target {target.address} is down: {target.down}; the run goes on, its requests count as errors")
        self._options = options
        self._until = Resolution(options.slo) if options.until_resolved and options.slo else None
        return options, catalogue

    def _open_book(self, options: Options, catalogue: Catalogue, session: Session) -> Book:
        parsed = {
            key: value
            for key, value in vars(self.environment.parsed_options).items()
            if key in _options.RECORDED and value not in (None, "")
        }
        book = Book(
            options,
            self._targets,
            catalogue,
            command=parsed,
            request_shapes=session.request_shapes,
            users=self.runner.target_user_count,
        )
        series = [target.series for target in self._targets]
        self.onlooker.begin(book.directory, series, catalogue, options, TargetTelemetry(self._targets, options.access))
        self._shape = Shape(self, book, options, self._targets, say=say, finish=finish) if options.shape else None
        return book

    # -- what a search asks of its keeper -----------------------------------------------------------------------------

    @abstractmethod
    def sources(self) -> list[int]:
        """How many sources would take part in a probe, for each pool."""

    @abstractmethod
    def order(self, order: Order) -> None:
        """Begins a probe, once all are told: its `begins_ns` is 0."""

    @abstractmethod
    def stop_probe(self, number: int) -> None:
        """Nothing more is due in this probe."""

    @abstractmethod
    def rested(self, number: int) -> GeneratorHealth | None:
        """The generators' notes of a probe that is over on all of them; None as long as it is not."""

    @abstractmethod
    def sums(self) -> Sums:
        """What was measured so far, what was not, and how latencies of this probe depend on one another."""

    @abstractmethod
    def generators(self) -> list[dict[str, Any]]:
        """Who takes part, and what is known of them."""

    def ramped(self) -> None:
        if self._shape is not None:
            self._shape.start()
        elif self._book is not None and self._options is not None and self._measuring is None:
            self._measuring = gevent.spawn_later(self._options.warmup_ns / 1e9, self._book.measuring_begins)

    def _stop_if_resolved(self, totals: Mapping[Series, Tally], dependence: Callable[[], dict[Series, float]]) -> None:
        if self._until is not None and self._until.reached(totals, dependence()):
            self._until = None
            gevent.spawn(finish, self.environment)

    def _judge(self, outcome: RunTotals) -> None:
        """The lights of the live page, by what there is so far."""
        assert self._options is not None
        self.onlooker.judge(lights_of(outcome, self._options))

    def _close(self, outcome: RunTotals) -> None:
        assert self._book is not None
        assert self._options is not None
        if self._measuring is not None:
            self._measuring.kill()
            self._measuring = None
        book, self._book = self._book, None
        if self._shape is None:
            file = book.close(outcome, checks_of(outcome, self._options))
        else:
            shape, self._shape = self._shape, None
            file = shape.close(outcome)
        self.onlooker.end(book.directory, file)
        report = write_report([Run.load(book.directory)], book.directory, self._options.slo)
        code = exit_code(file, self._options)
        if code and self.environment.process_exit_code is None:
            self.environment.process_exit_code = code
        self.stop_fleet()
        self._finished = (book.directory, report, self._options.by)
        if not self.environment.parsed_options.headless:
            self.show()

    def show(self) -> None:
        """Prints the table of the run that ended; once. Headless, that is after Locust's own tables."""
        finished, self._finished = self._finished, None
        if finished is not None:
            show(*finished)

    def stop_fleet(self) -> None:
        """Ends the embedded fleet, where there is one."""
        if self._fleet is not None:
            self._fleet.stop()
            self._fleet = None


def feed_all(stats: Any, gained: Mapping[Series, Tally]) -> None:
    """One interval into Locust's own statistics."""
    from loadgen.measure import _locust_statistics

    for series, tally in gained.items():
        _locust_statistics.feed(stats, series, tally)


def say(line: str) -> None:
    """One line to the user, beside Locust's log."""
    print(f"inferload: {line}", file=sys.stderr, flush=True)


def finish(environment: Any) -> None:
    """Ends the run as --run-time would: quits when headless, stops when the web UI stays."""
    if environment.parsed_options.headless:
        environment.runner.quit()
    else:
        environment.runner.stop()
