"""One run in one process: what may still be sent, what is measured from when, and how it ends."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Sequence

import gevent

from capacity.measures import Series
from capacity.rundir import TargetEvent
from loadgen._options import Options
from loadgen.measure import NEVER, GeneratorHealth, HealthMonitor, Recorder, ResultBuffer
from loadgen.run._retry import Again
from loadgen.schedule import Pacer, Timer, TracePlayer, arrival_offsets, open_trace
from loadgen.search._probes import Probes, Source
from loadgen.targets import Route, Router, Target, open_routes
from loadgen.transport import CANCELLED, OK, UNSENT, Reply

#: How often the collected results go into the histograms: often, so that each time is short.
FOLD_EVERY_NS = 50_000_000
#: Beyond the deadline, what a request may take to come back as an error before it is cut.
DRAIN_GRACE_S = 1.0
#: gevent runs ready greenlets for up to the interpreter's switch interval before it polls sockets; its 5 ms would be
#: the lateness of every reply while others are busy. (Found by trying.)
SWITCH_INTERVAL_S = 1e-4


class Session:
    """A run of this generator. `share` is (this generator's number, how many there are): it splits what is given in
    total, as --requests and a trace are, exactly.

    `on_exhausted` is called once when all of that is sent and nothing is in flight.
    """

    def __init__(
        self,
        options: Options,
        targets: Sequence[Target],
        *,
        share: tuple[int, int] = (0, 1),
        on_exhausted: Callable[[], None] | None = None,
    ) -> None:
        self.options = options
        self.issuing = True
        self.ended_ns = 0
        #: No source of open arrivals begins before this: generators agree on it.
        self.begins_ns = 0
        self.watch = HealthMonitor()
        self.health = GeneratorHealth()
        self.routes = open_routes(options, targets, lambda: self.router.update_health())
        self.router = Router(options.router, self.routes, share[0], options.seed)
        self.recorder = Recorder({route.results.series: route.results for route in self.routes})
        for route in self.routes:
            if route.target.down:
                route.health.start_down(route.target.down)
        self._trace = self._open_trace(options, share)
        self._trace_started = False
        self._trace_over = False
        self._on_exhausted = on_exhausted
        self._deadline_s = options.deadline_ns / 1e9
        self._share = share
        self._sources = share[0] - share[1]
        self._sounding: set[int] = set()
        self._sounding_at_begin: set[int] | None = None
        self._pacer: Pacer | None = None
        if options.requests is not None:
            for route in self.routes:
                route.results.budget = max(0, (options.requests + share[1] - 1 - share[0]) // share[1])
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        # What is there now stays for the run: the collector need not look through it again, for milliseconds each time.
        gc.collect()
        gc.freeze()
        #: With --shape, what is sent is what probes ask for.
        self.probes = Probes(self) if options.shape else None
        self._folder = gevent.spawn(self._fold)

    # -- the load path ------------------------------------------------------------------------------------------------

    def call(
        self,
        route: Route,
        message: bytes,
        deadline_s: float | None = None,
        candidates: Sequence[Route] | None = None,
    ) -> int:
        """One request of a closed loop: due when it is sent. Blocks this greenlet, records what came; its code.

        `candidates` are where --retries may send it, of the same model; None: any target.
        """
        lane = route.results
        due = time.monotonic_ns()
        self._claim(lane, due)
        lane.outstanding += 1
        self.watch.request_sent(due)
        code = CANCELLED
        try:
            reply = route.channel.call(route.frame(message), deadline_s or self._deadline_s)
            code = route.reply_code(message, reply)
            if code != OK:
                route.health.report_failure(reply)
                again = Again(self, route, message, due, due, deadline_s or self._deadline_s, candidates)
                while again.waited(reply):
                    lane, code = again.route.results, CANCELLED
                    reply = again.route.channel.call(again.route.frame(again.message), again.left_s)
                    if (code := again.route.reply_code(again.message, reply)) != OK:
                        again.route.health.report_failure(reply)
        finally:
            ended = time.monotonic_ns()
            lane.outstanding -= 1
            self.watch.request_ended(ended)
            lane.record(due, due, ended, code)
            if lane.budget == 0:
                self._see_whether_exhausted()
        return code

    def source(
        self,
        next_request: Callable[[], tuple[Route, bytes] | None],
        pinned: Route,
        candidates: Sequence[Route],
        deadline_s: float | None = None,
    ) -> int:
        """A new source of open arrivals by --arrivals, from now on; with --shape, in each probe of the routes that it
        may take. Returns its number, for `silence`."""
        options = self.options
        self._sources += self._share[1]
        if self.probes is not None:
            return self.probes.add(Source(self._sources, pinned, tuple(candidates), next_request, deadline_s))
        if self._pacer is None:
            self._pacer = Pacer()
        if self._trace is not None:
            # All users of a generator share one trace: the first plays it.
            offsets = iter(()) if self._trace_started else self._trace.offsets(self._end_trace)
            self._trace_started, next_request = True, self._next_of_trace
        else:
            offsets = arrival_offsets(options.arrivals, options.user_rate, self._sources, (options.seed,))
        ask = next_request
        number = self._pacer.add(
            max(time.monotonic_ns(), self.begins_ns),
            offsets,
            lambda due: self.fire(ask(), due, deadline_s, candidates),
        )
        self._sounding.add(number)
        return number

    def silence(self, number: int) -> None:
        """The source sends no more."""
        if self.probes is not None:
            self.probes.remove(number)
        if self._pacer is not None:
            self._pacer.remove(number)
            self._sounding.discard(number)

    def fire(
        self,
        request: tuple[Route, bytes] | None,
        due: int,
        deadline_s: float | None,
        candidates: Sequence[Route] | None = None,
    ) -> None:
        """One request of an open loop, sent without waiting for those before it."""
        if request is None:
            return
        route, message = request
        lane = route.results
        self._claim(lane, due)
        sent = time.monotonic_ns()
        self.watch.record_arrival(due, sent)
        if not self.issuing or self.watch.in_flight >= self.options.max_in_flight:
            lane.record(due, sent, sent, UNSENT)
            return
        lane.outstanding += 1
        self.watch.request_sent(sent)

        def done(reply: Reply) -> None:
            ended = time.monotonic_ns()
            code = route.reply_code(message, reply)
            if code != OK:
                route.health.report_failure(reply)
                if self.options.retries:
                    again = Again(self, route, message, due, sent, deadline_s or self._deadline_s, candidates)
                    if again.start(reply):
                        return
            lane.outstanding -= 1
            self.watch.request_ended(ended)
            lane.record(due, sent, ended, code)
            if lane.budget == 0 or self._trace_over:
                self._see_whether_exhausted()

        route.channel.start(route.frame(message), deadline_s or self._deadline_s, done)

    def end(self, lane: ResultBuffer, due: int, sent: int, code: int) -> None:
        """A request of an open loop that was sent more than once is over."""
        ended = time.monotonic_ns()
        lane.outstanding -= 1
        self.watch.request_ended(ended)
        lane.record(due, sent, ended, code)
        if lane.budget == 0 or self._trace_over:
            self._see_whether_exhausted()

    def move(self, old: ResultBuffer, new: ResultBuffer, due: int) -> None:
        """A request that was to be counted in one lane is to be counted in another."""
        if new is not old:
            if old.first_due == due:
                old.first_due = None
            elif due >= self.recorder.measuring_from:
                old.offered -= 1
                if old.budget is not None:
                    old.budget += 1
            self._claim(new, due)

    def _claim(self, lane: ResultBuffer, due: int) -> None:
        if lane.first_due is None:
            lane.first_due = due
        elif due >= self.recorder.measuring_from:
            lane.offered += 1
            if lane.budget is not None:
                lane.budget -= 1

    def _open_trace(self, options: Options, share: tuple[int, int]) -> TracePlayer | None:
        if options.trace is None:
            return None
        trace = open_trace(
            options.trace, scale=options.trace_scale, keep=options.trace_keep, seed=options.seed, share=share
        )
        for model in trace.models:
            self.router.candidates("", model)
        return trace

    def _next_of_trace(self) -> tuple[Route, bytes] | None:
        assert self._trace is not None
        row = self._trace.next_row()
        route = self.router.choose_model(row.model)
        return None if route is None else (route, route.message_of_size(row.size))

    def _end_trace(self) -> None:
        self._trace_over = True
        gevent.spawn(self._see_whether_exhausted)

    def _see_whether_exhausted(self) -> None:
        spent = self._trace_over or all(route.results.budget == 0 for route in self.routes)
        if self._on_exhausted and spent and not self.watch.in_flight:
            report, self._on_exhausted = self._on_exhausted, None
            report()

    # -- its course ---------------------------------------------------------------------------------------------------

    def _fold(self) -> None:
        timer = Timer()
        due = time.monotonic_ns()
        try:
            while True:
                due += FOLD_EVERY_NS
                timer.set(due)
                timer.wait()
                now = time.monotonic_ns()
                if not self.watch.measuring and now >= self.recorder.measuring_from:
                    self._sounding_at_begin = set(self._sounding)
                    self.watch.begin()
                rows = self.recorder.fold()
                self.watch.record_fold(rows, now - due, self.recorder.answered)
                for route in self.routes:
                    route.health.observe((now - due) / 1e9)
                # After a stall the next fold is counted from now: one late fold is one stall.
                due = max(due, now - FOLD_EVERY_NS)
        finally:
            timer.close()

    @property
    def in_flight(self) -> dict[Series, int]:
        """Requests sent and not yet ended, by series."""
        return {route.results.series: route.results.outstanding for route in self.routes}

    def measure_from(self, when_ns: int) -> None:
        """Requests due from then on are measured; those before are warm-up. Said once, when all users are there."""
        if self.recorder.measuring_from == NEVER:
            self.recorder.measuring_from = when_ns

    @property
    def measured_s(self) -> float:
        """Length of the measured part so far, or as it was in the end; 0 where it has not begun."""
        until = max(self.recorder.last_done, self.ended_ns) if self.ended_ns else time.monotonic_ns()
        return max(0, until - self.recorder.measuring_from) / 1e9

    def drain(self) -> None:
        """Stops issuing and waits for what is in flight, at most the deadline and a little. Can be called again."""
        self.issuing = False
        # The run is ending: that the last request is back must not end it once more, in the middle of its end.
        self._on_exhausted = None
        if self.probes is not None:
            self.probes.cut()
        rates = self._planned_rates()
        if self._pacer is not None:
            pacer, self._pacer = self._pacer, None
            pacer.close()
        limit = time.monotonic() + self._deadline_s + DRAIN_GRACE_S
        while self.watch.in_flight and time.monotonic() < limit:
            gevent.sleep(0.002)
        if not self.ended_ns:
            self.ended_ns = time.monotonic_ns()
            cut = self.probes.health if self.probes is not None else None
            self.health = cut or self.watch.summary(rates)
            self.health.events = self._events()

    def notes(self) -> GeneratorHealth:
        """What there is to judge the run by so far."""
        return self.watch.summary(self._planned_rates())

    def _planned_rates(self) -> list[float]:
        """Arrivals a second of each source; none where there is no one plan for the whole measured part."""
        steady = self._sounding_at_begin == self._sounding
        return [self.options.user_rate] * len(self._sounding) if steady and not self.options.trace else []

    def close(self) -> None:
        """Ends the folding and the connections. Call after `drain` and after the users are gone."""
        if self.probes is not None:
            self.probes.close()
        self._folder.kill()
        gc.unfreeze()
        for route in self.routes:
            route.health.close()
            route.channel.close()

    def _events(self) -> list[TargetEvent]:
        """When targets went down and came up, by the clock of the measured part."""
        epoch_s = time.time() - time.monotonic_ns() / 1e9
        begin = self.recorder.measuring_from if self.recorder.measuring_from != NEVER else self.ended_ns
        return [
            TargetEvent(
                at_s=round((one.at_ns - begin) / 1e9, 4),
                at_unix=round(epoch_s + one.at_ns / 1e9, 4),
                target=one.target,
                state="up" if one.up else "down",
                reason=one.reason,
            )
            for route in self.routes
            for one in route.health.events
        ]

    @property
    def request_shapes(self) -> dict[str, str]:
        """What a report must say of the load: names, types and shapes of the request's tensors, per model."""
        return {route.target.series.model: route.payload.shapes for route in self.routes}
