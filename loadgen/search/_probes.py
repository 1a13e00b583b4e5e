"""One generator's part in a search: all its sources hold a rate for a while, and then nothing is in flight any more.

A probe's samples are its own: the next one is ordered only when every generator has come to rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from typing import TYPE_CHECKING, NamedTuple

import gevent
from gevent.event import Event

from capacity.measures import HardwareCombination, Series
from loadgen.measure import NEVER, GeneratorHealth, HealthMonitor
from loadgen.schedule import Pacer, arrival_offsets
from loadgen.targets import Route
from loadgen.transport import UNAVAILABLE

if TYPE_CHECKING:
    from loadgen.run._session import Session

#: Beyond the deadline, what a request may take to come back as an error.
_GRACE_S = 1.0
#: How long a closed source waits after UNAVAILABLE.
_PAUSE_WHILE_DOWN_S = 0.1


class Pool(NamedTuple):
    """What is searched at a time: all targets of one combination and model."""

    hardware: HardwareCombination
    model: str
    simulated: bool


def pool_of(series: Series) -> Pool:
    """The pool that a series is part of."""
    return Pool(series.hardware, series.model, series.simulated)


def pools_of(series: Sequence[Series]) -> list[Pool]:
    """All pools, in the order of the targets: the same on every generator."""
    return list(dict.fromkeys(pool_of(one) for one in series))


@dataclass(frozen=True)
class Order:
    """A probe as generators hear of it: requests are due from `begins_ns` on for `length_ns`, and measured after
    `settle_ns`. `rate` is of each source, a second; 0: each source is one request in flight, and nothing is measured.
    """

    number: int
    pool: int
    rate: float
    begins_ns: int
    settle_ns: int
    length_ns: int


@dataclass(frozen=True)
class Source:
    """A user's stream of requests, and where they may go."""

    number: int
    pinned: Route
    candidates: tuple[Route, ...]
    next_request: Callable[[], tuple[Route, bytes] | None]
    deadline_s: float | None


class Probes:
    """The sources of one session, and the probe that they are at. `on_done` is called when one is over."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._pools = pools_of([route.target.series for route in session.routes])
        self._bounds_ns = tuple(bound for _p, bound in session.options.slo.bounds) if session.options.slo else ()
        self._sources: dict[int, Source] = {}
        self._numbers = count()
        self._pacer = Pacer()
        self._stop = Event()
        self._running: gevent.Greenlet | None = None
        self._order: Order | None = None
        #: The last probe that is over, and what was noted during it.
        self.done = 0
        self.health: GeneratorHealth | None = None
        self.on_done: Callable[[], None] = lambda: None

    def add(self, source: Source) -> int:
        """A source that takes part from the next probe on. Returns its number, for `remove`."""
        number = next(self._numbers)
        self._sources[number] = source
        return number

    def remove(self, number: int) -> None:
        """The source takes no part any more."""
        self._sources.pop(number, None)

    @property
    def sources(self) -> list[int]:
        """How many sources would take part, for each pool."""
        return [len(self._active(pool)) for pool in self._pools]

    def _active(self, pool: Pool) -> list[tuple[int, Source]]:
        pinned = self._session.options.router == "pinned"
        return [
            (number, source)
            for number, source in self._sources.items()
            if any(pool_of(route.target.series) == pool for route in ([source.pinned] if pinned else source.candidates))
        ]

    def begin(self, order: Order) -> None:
        """Begins a probe, unless one is under way."""
        if self._running is None and order.number > self.done:
            self._stop.clear()
            self._order = order
            self._running = gevent.spawn(self._run, order)

    def stop(self, number: int) -> None:
        """Nothing more is due in this probe."""
        if self._order is not None and self._order.number == number:
            self._stop.set()

    def cut(self) -> None:
        """Ends the probe that is under way, and waits for it."""
        running = self._running
        if running is not None:
            self._stop.set()
            running.join()

    def close(self) -> None:
        """Gives the timer back."""
        self.cut()
        self._pacer.close()

    def _run(self, order: Order) -> None:
        session, pool = self._session, self._pools[order.pool]
        for route in session.routes:
            # A lane whose budget is spent is never chosen: that keeps every router within the pool.
            route.results.budget = None if pool_of(route.target.series) == pool else 0
        active = self._active(pool)
        watch = session.watch = HealthMonitor(self._bounds_ns)
        self.health = None
        try:
            if order.rate > 0:
                self._hold(order, active)
            else:
                self._loop(order, active)
            limit = time.monotonic() + session.options.deadline_ns / 1e9 + _GRACE_S
            while watch.in_flight and time.monotonic() < limit:
                gevent.sleep(0.002)
            watch.record_fold(session.recorder.fold(), 0, session.recorder.answered)
            health = watch.summary([order.rate] * len(active))
            health.window_s = max(0, self._ended_ns - session.recorder.measuring_from) / 1e9
            self.health = health
        finally:
            # All that this probe sent is in the histograms: what comes now is of none.
            session.recorder.measuring_from = NEVER
            self.done = order.number
            self._running = None
            self.on_done()

    def _hold(self, order: Order, active: Sequence[tuple[int, Source]]) -> None:
        session = self._session
        session.recorder.measuring_from = order.begins_ns + order.settle_ns
        session.watch.start_counting()
        playing = [
            self._pacer.add(order.begins_ns, self._offsets(order, source), self._firing(number, source))
            for number, source in active
        ]
        ends_ns = order.begins_ns + order.length_ns
        self._stop.wait(max(0.0, (ends_ns - time.monotonic_ns()) / 1e9))
        # Due before the end, and sent or counted as unsent; what would be due after it never was.
        self._pacer.catch_up()
        self._ended_ns = min(time.monotonic_ns(), ends_ns)
        for number in playing:
            self._pacer.remove(number)
        session.watch.stop_counting()

    def _offsets(self, order: Order, source: Source) -> Iterator[int]:
        options = self._session.options
        offsets = arrival_offsets(options.arrivals, order.rate, source.number, (options.seed, order.number))
        return takewhile(lambda offset: offset < order.length_ns, offsets)

    def _firing(self, number: int, source: Source) -> Callable[[int], None]:
        def fire(due: int) -> None:
            if number in self._sources:
                self._session.fire(source.next_request(), due, source.deadline_s, source.candidates)

        return fire

    def _loop(self, order: Order, active: Sequence[tuple[int, Source]]) -> None:
        ends_ns = order.begins_ns + order.length_ns
        self._ended_ns = ends_ns
        loops = [gevent.spawn(self._one_at_a_time, number, source, ends_ns) for number, source in active]
        gevent.joinall(loops)

    def _one_at_a_time(self, number: int, source: Source, ends_ns: int) -> None:
        session = self._session
        while time.monotonic_ns() < ends_ns and not self._stop.is_set() and number in self._sources:
            sendable = source.next_request()
            if sendable is None:
                return
            route, message = sendable
            if session.call(route, message, source.deadline_s) == UNAVAILABLE:
                gevent.sleep(_PAUSE_WHILE_DOWN_S)
