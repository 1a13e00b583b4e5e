"""The course of one run on one generator: sources, warm-up and measured part, draining, and what was measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import gevent

from capacity.measures import Series
from capacity.rundir import TargetEvent
from loadgen._options import Options
from loadgen.generator._interpreter import InterpreterTuning
from loadgen.generator._local_prober import LocalProber
from loadgen.generator._request import RequestContext
from loadgen.generator._retry import RetryPolicy
from loadgen.generator._sender import RequestSender
from loadgen.generator._sources import ScheduledSources, Source
from loadgen.measure import NEVER, GeneratorHealth, HealthMonitor, Recorder
from loadgen.schedule import Timer, TracePlayer, open_trace
from loadgen.targets import Route, Router, Target, open_routes

#: How often results go from the buffers into the histograms: often, so that each time is short.
FOLD_INTERVAL_NS = 50_000_000
#: Beyond the deadline, the time that a request may take to come back as an error before it is cut off.
DRAIN_GRACE_S = 1.0


class LoadSession:
    """One generator's part in a run.

    `share` is (this generator's number, the number of generators): it splits what is given in total, as --requests and
    a trace are, exactly. No source sends before `begins_ns` (monotonic clock), on which all generators agree.
    `on_exhausted` is called once, when all of --requests or of the trace is sent and nothing is in flight. `flush`
    takes the results of a probe that ended out of the recorder; see LocalProber. Raises InputError where no request can
    be built for a target, or a trace cannot be read.
    """

    def __init__(
        self,
        options: Options,
        targets: Sequence[Target],
        *,
        client: str = "",
        share: tuple[int, int] = (0, 1),
        begins_ns: int = 0,
        on_exhausted: Callable[[], None] | None = None,
        flush: Callable[[], None] = lambda: None,
    ) -> None:
        self.options = options
        #: When the last result was in, in ns; 0 before `drain`.
        self.ended_ns = 0
        #: The record of the whole run (of the last probe, in a search); final after `drain`.
        self.health = GeneratorHealth()
        self.routes = open_routes(options, targets, self._update_router)
        self.router = Router(options.router, self.routes, share[0], options.seed)
        self.recorder = Recorder({route.results.series: route.results for route in self.routes})
        self._context = RequestContext(
            router=self.router,
            recorder=self.recorder,
            retry_policy=RetryPolicy(options.retries),
            deadline_s=options.deadline_ns / 1e9,
            max_in_flight=options.max_in_flight,
            on_last_result=self._report_if_exhausted,
        )
        sender = RequestSender(self._context)
        #: Sends a request of a closed loop; see RequestSender. Not a method: it is called for every request.
        self.call = sender.call
        for route in self.routes:
            if route.target.down:
                route.health.start_down(route.target.down)
            if options.requests is not None:
                route.results.budget = max(0, (options.requests + share[1] - 1 - share[0]) // share[1])
        trace = _open_trace(options, share, self.router)
        self._scheduled = ScheduledSources(options, sender, trace, begins_ns, self._end_trace)
        #: Only in a search; then it alone decides what is sent.
        self.prober = LocalProber(options, sender, self.routes, client=client, flush=flush) if options.shape else None
        self._on_exhausted = on_exhausted
        self._next_source, self._source_step = share
        self._interpreter = InterpreterTuning()
        self._folder = gevent.spawn(self._fold)

    def _update_router(self) -> None:
        self.router.update_health()

    # -- sources ----------------------------------------------------------------------------------------------------

    @property
    def issuing(self) -> bool:
        """False once the run ends: nothing more is sent."""
        return self._context.issuing

    def add_source(
        self,
        next_request: Callable[[], tuple[Route, bytes] | None],
        pinned: Route,
        candidates: Sequence[Route],
        deadline_s: float | None = None,
    ) -> int:
        """Adds a source of open arrivals: by --arrivals from now on, or in each probe of the routes that it may take.

        `next_request` returns the next request and its route, or None where nothing is to be sent. Returns the source's
        key, for `remove_source`.
        """
        source = Source(self._next_source, pinned, tuple(candidates), next_request, deadline_s)
        self._next_source += self._source_step
        return (self._scheduled if self.prober is None else self.prober).add(source)

    def remove_source(self, key: int) -> None:
        """Ends a source."""
        (self._scheduled if self.prober is None else self.prober).remove(key)

    def _end_trace(self) -> None:
        self._context.ends_with_sources = True
        self._report_if_exhausted()

    def _report_if_exhausted(self) -> None:
        exhausted = self._context.ends_with_sources or all(route.results.budget == 0 for route in self.routes)
        if self._on_exhausted is not None and exhausted and not self.monitor.in_flight:
            on_exhausted, self._on_exhausted = self._on_exhausted, None
            on_exhausted()

    # -- course of the run ------------------------------------------------------------------------------------------

    @property
    def monitor(self) -> HealthMonitor:
        """The monitor of the run; in a search, of the last probe."""
        return self._context.monitor

    def measure_from(self, when_ns: int) -> None:
        """Measures requests due from then on, in ns; those before are warm-up. Only the first call counts."""
        if self.recorder.measuring_from == NEVER:
            self.recorder.measuring_from = when_ns

    def _fold(self) -> None:
        timer = Timer()
        due_ns = time.monotonic_ns()
        try:
            while True:
                due_ns += FOLD_INTERVAL_NS
                timer.set(due_ns)
                timer.wait()
                now_ns = time.monotonic_ns()
                self._fold_once(now_ns, now_ns - due_ns)
                # After a stall the next fold is counted from now: one late fold is one stall.
                due_ns = max(due_ns, now_ns - FOLD_INTERVAL_NS)
        finally:
            timer.close()

    def _fold_once(self, now_ns: int, lag_ns: int) -> None:
        monitor = self.monitor
        if not monitor.measuring and now_ns >= self.recorder.measuring_from:
            self._scheduled.begin_measuring()
            monitor.begin()
        monitor.record_fold(self.recorder.fold(), lag_ns, self.recorder.answered)
        for route in self.routes:
            route.health.observe(lag_ns / 1e9)

    def drain(self) -> None:
        """Sends nothing more, and waits for what is in flight, at most the deadline and a little. May be called again.

        A probe that goes on is ended, and its results are flushed.
        """
        self._context.issuing = False
        # The run ends already: its last result must not end it once more.
        self._on_exhausted = None
        if self.prober is not None:
            self.prober.interrupt()
        planned_rates = self._scheduled.planned_rates()
        self._scheduled.close()
        limit = time.monotonic() + self._context.deadline_s + DRAIN_GRACE_S
        while self.monitor.in_flight and time.monotonic() < limit:
            gevent.sleep(0.002)
        if not self.ended_ns:
            self.ended_ns = time.monotonic_ns()
            of_probe = self.prober.health if self.prober is not None else None
            self.health = of_probe or self.monitor.summary(planned_rates)
            self.health.events = self._events()

    def close(self) -> None:
        """Ends folding, health checks and connections. To be called after `drain`, without users."""
        if self.prober is not None:
            self.prober.close()
        self._folder.kill()
        self._interpreter.restore()
        for route in self.routes:
            route.health.close()
            route.channel.close()

    # -- what was measured ------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> dict[Series, int]:
        """Requests sent and not yet ended, by series."""
        return {route.results.series: route.results.outstanding for route in self.routes}

    @property
    def measured_s(self) -> float:
        """Length of the measured part in seconds, so far or in the end; 0 where it has not begun."""
        until_ns = max(self.recorder.last_done, self.ended_ns) if self.ended_ns else time.monotonic_ns()
        return max(0, until_ns - self.recorder.measuring_from) / 1e9

    def current_health(self) -> GeneratorHealth:
        """The record of the run so far."""
        return self.monitor.summary(self._scheduled.planned_rates())

    def _events(self) -> list[TargetEvent]:
        """When targets went down and came up, by the clock of the measured part."""
        epoch_s = time.time() - time.monotonic_ns() / 1e9
        begin_ns = self.recorder.measuring_from if self.recorder.measuring_from != NEVER else self.ended_ns
        return [
            TargetEvent(
                at_s=round((change.at_ns - begin_ns) / 1e9, 4),
                at_unix=round(epoch_s + change.at_ns / 1e9, 4),
                target=change.target,
                state="up" if change.up else "down",
                reason=change.reason,
            )
            for route in self.routes
            for change in route.health.events
        ]

    @property
    def request_shapes(self) -> dict[str, str]:
        """Names, types and shapes of the request's tensors, per model."""
        return shapes_of(self.routes)


def request_shapes(options: Options, targets: Sequence[Target]) -> dict[str, str]:
    """Checks on a process that sends nothing what a LoadSession would open, and returns its `request_shapes`.

    Raises InputError where a request cannot be built, or a trace cannot be read.
    """
    routes = open_routes(options, targets, lambda: None)
    try:
        _open_trace(options, (0, 1), Router(options.router, routes, 0, options.seed))
        return shapes_of(routes)
    finally:
        for route in routes:
            route.health.close()
            route.channel.close()


def _open_trace(options: Options, share: tuple[int, int], router: Router) -> TracePlayer | None:
    """Opens the trace of --arrivals, if there is one. Raises InputError, also where no target has one of its models."""
    if options.trace is None:
        return None
    trace = open_trace(
        options.trace, scale=options.trace_scale, keep=options.trace_keep, seed=options.seed, share=share
    )
    for model in trace.models:
        router.candidates("", model)
    return trace


def shapes_of(routes: Sequence[Route]) -> dict[str, str]:
    """Names, types and shapes of the default request's tensors, per model."""
    return {route.target.series.model: route.payload.shapes for route in routes}
