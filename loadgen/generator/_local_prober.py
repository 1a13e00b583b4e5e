"""Probes on this generator: its sources hold a rate for a while, and then nothing is in flight any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count, takewhile

import gevent
from gevent.event import Event

from loadgen._options import Options
from loadgen.generator._probe import (
    CumulativeTallies,
    Pool,
    ProbeOrder,
    ProbeProgress,
    ProbeResult,
    StopCondition,
    pool_of,
    pools_of,
)
from loadgen.generator._sender import RequestSender
from loadgen.generator._sources import Source
from loadgen.measure import NEVER, GeneratorHealth, HealthMonitor
from loadgen.schedule import Pacer, arrival_offsets
from loadgen.targets import Route
from loadgen.transport import UNAVAILABLE

#: Beyond the deadline, the time that a request may take to come back as an error.
_DRAIN_GRACE_S = 1.0
#: How long a closed source waits after UNAVAILABLE.
_UNAVAILABLE_PAUSE_S = 0.1
#: How often it is looked whether a probe may end early.
_STOP_POLL_S = 0.1


class LocalProber:
    """The sources of one session, and the probes that they take part in.

    `flush` is called at the end of each probe with nothing of it in flight: it takes all results out of the recorder,
    so that no interval spans two probes. `number` and `health` are those of the last probe that ended.
    """

    def __init__(
        self,
        options: Options,
        sender: RequestSender,
        routes: Sequence[Route],
        *,
        client: str = "",
        flush: Callable[[], None] = lambda: None,
    ) -> None:
        self.number = 0
        self.health: GeneratorHealth | None = None
        self._options = options
        self._sender = sender
        self._context = sender.context
        self._routes = list(routes)
        self._client = client
        self._flush = flush
        self._pools = pools_of([route.target.series for route in routes])
        self._bounds_ns = tuple(bound for _p, bound in options.slo.bounds) if options.slo else ()
        self._sources: dict[int, Source] = {}
        self._keys = count()
        self._pacer = Pacer()
        self._running: ProbeOrder | None = None
        self._interrupted = False
        self._stopping = Event()
        self._idle = Event()
        self._idle.set()

    # -- sources ----------------------------------------------------------------------------------------------------

    def add(self, source: Source) -> int:
        """Adds a source, which takes part from the next probe on. Returns its key, for `remove`."""
        key = next(self._keys)
        self._sources[key] = source
        return key

    def remove(self, key: int) -> None:
        """Removes a source, also from the probe that goes on."""
        self._sources.pop(key, None)

    def source_counts(self) -> list[int]:
        """Returns how many sources would take part in a probe, for each pool."""
        return [len(self._sources_of(pool)) for pool in self._pools]

    def _sources_of(self, pool: Pool) -> list[tuple[int, Source]]:
        pinned = self._options.router == "pinned"
        return [
            (key, source)
            for key, source in self._sources.items()
            if any(pool_of(route.target.series) == pool for route in ([source.pinned] if pinned else source.candidates))
        ]

    # -- probes -----------------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether a probe goes on."""
        return self._running is not None

    def run_probe(self, order: ProbeOrder, stop_when: StopCondition | None = None) -> ProbeResult:
        """Runs one probe, as described in Prober."""
        pool = self._pools[order.pool]
        before = self._tallies().of_pool(pool)
        self._running = order
        if not self._interrupted:
            self._stopping.clear()
        self._idle.clear()
        try:
            health = self._run(order, pool, before, stop_when)
            self.health, self.number = health, order.number
            self._flush()
        finally:
            self._running = None
            self._idle.set()
        progress = ProbeProgress(before, self._tallies(), dict)
        generators = [{"client": self._client, "complete": True}]
        return ProbeResult(progress.tallies(), progress.warmups(), health, generators)

    def stop(self, number: int) -> None:
        """Ends the probe of this number before its time: nothing more is due."""
        if self._running is not None and self._running.number == number:
            self._stopping.set()

    def interrupt(self) -> None:
        """Ends the probe that goes on, if any, and waits for its end. Probes after it end at once."""
        self._interrupted = True
        self._stopping.set()
        if self._running is not None:
            self._idle.wait()

    def close(self) -> None:
        """Interrupts, and frees the timer."""
        self.interrupt()
        self._pacer.close()

    def _tallies(self) -> CumulativeTallies:
        recorder = self._context.recorder
        return CumulativeTallies(recorder.total, recorder.warmup)

    def _run(
        self, order: ProbeOrder, pool: Pool, before: CumulativeTallies, stop_when: StopCondition | None
    ) -> GeneratorHealth:
        context, recorder = self._context, self._context.recorder
        for route in self._routes:
            # A route without a budget is never chosen: that keeps every router within the pool.
            route.results.budget = None if pool_of(route.target.series) == pool else 0
        sources = self._sources_of(pool)
        begins_ns = order.begins_ns or time.monotonic_ns()
        ended_ns = begins_ns + order.length_ns
        context.monitor = monitor = HealthMonitor(self._bounds_ns)
        try:
            if order.rate > 0:
                ended_ns = self._hold_rate(order, begins_ns, sources, before, stop_when)
            else:
                loops = [gevent.spawn(self._closed_loop, key, source, ended_ns) for key, source in sources]
                gevent.joinall(loops)
            limit = time.monotonic() + context.deadline_s + _DRAIN_GRACE_S
            while monitor.in_flight and time.monotonic() < limit:
                gevent.sleep(0.002)
            monitor.record_fold(recorder.fold(), 0, recorder.answered)
            health = monitor.summary([order.rate] * len(sources))
            health.window_s = max(0, ended_ns - recorder.measuring_from) / 1e9
        finally:
            # All that this probe sent is in the histograms. What would still come belongs to none.
            recorder.measuring_from = NEVER
        return health

    def _hold_rate(
        self,
        order: ProbeOrder,
        begins_ns: int,
        sources: Sequence[tuple[int, Source]],
        before: CumulativeTallies,
        stop_when: StopCondition | None,
    ) -> int:
        """Sends at the probe's rate until its end, or until it is stopped. Returns when requests ceased to be due."""
        monitor = self._context.monitor
        self._context.recorder.measuring_from = begins_ns + order.settle_ns
        monitor.start_counting()
        keys = [
            self._pacer.add(begins_ns, self._offsets(order, source), self._firing(key, source))
            for key, source in sources
        ]
        ends_ns = begins_ns + order.length_ns
        while not self._stopping.is_set() and (left_s := (ends_ns - time.monotonic_ns()) / 1e9) > 0:
            self._stopping.wait(left_s if stop_when is None else min(left_s, _STOP_POLL_S))
            if stop_when is not None and stop_when(ProbeProgress(before, self._tallies(), monitor.autocorrelation)):
                break
        # What was due before the end is sent, or counted as unsent; what would be due after it never was.
        self._pacer.catch_up()
        ended_ns = min(time.monotonic_ns(), ends_ns)
        for key in keys:
            self._pacer.remove(key)
        monitor.stop_counting()
        return ended_ns

    def _offsets(self, order: ProbeOrder, source: Source) -> Iterator[int]:
        seeds = self._options.seed, order.number
        offsets = arrival_offsets(self._options.arrivals, order.rate, source.number, seeds)
        return takewhile(lambda offset: offset < order.length_ns, offsets)

    def _firing(self, key: int, source: Source) -> Callable[[int], None]:
        def fire(due: int) -> None:
            if key in self._sources:
                self._sender.fire(source.next_request(), due, source.deadline_s, source.candidates)

        return fire

    def _closed_loop(self, key: int, source: Source, ends_ns: int) -> None:
        while time.monotonic_ns() < ends_ns and not self._stopping.is_set() and key in self._sources:
            request = source.next_request()
            if request is None:
                return
            if self._sender.call(*request, source.deadline_s) == UNAVAILABLE:
                gevent.sleep(_UNAVAILABLE_PAUSE_S)
