"""One run in one process: its targets, what may still be sent, what is measured from when, and how it ends."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gevent

from loadgen._arrivals import constant, poisson
from loadgen._channel import Channel
from loadgen._grpcio import GrpcioChannel
from loadgen._options import Options
from loadgen._pacing import Pacer
from loadgen._recorder import NEVER, Lane, Recorder, Result
from loadgen._reply import CANCELLED, UNSENT, Reply
from loadgen._requests import Payload, encode, file_tensors, random_tensors
from loadgen._target import INFER_METHOD, Target
from loadgen._timer import Timer
from loadgen._vitals import Vitals, Watch

#: How often the collected results go into the histograms: often, so that each time is short.
FOLD_EVERY_NS = 50_000_000
#: Beyond the deadline, what a request may take to come back as an error before it is cut.
DRAIN_GRACE_S = 1.0


class Transport(Protocol):
    """What carries a request: unary calls of one method of one address. A failed call is a Reply, not an exception."""

    def __init__(self, address: str, *, method: str) -> None: ...

    def prepare(self, payload: bytes) -> Any:
        """What `call` and `start` take as well as the bytes, for a payload that is sent many times."""

    def call(self, payload: Any, timeout_s: float | None = None) -> Reply:
        """Blocks this greenlet only."""

    def start(self, payload: Any, timeout_s: float | None, done: Callable[[Reply], None]) -> Any:
        """Returns at once; `done` is called exactly once and must not block."""

    def close(self) -> None:
        """Calls in flight end as CANCELLED."""


@dataclass
class Route:
    """A target as the load path sees it: where to send, what to send by default, where the result goes."""

    target: Target
    lane: Lane
    channel: Transport
    payload: Payload
    prepared: Any

    def frame(self, message: bytes) -> Any:
        """The message as the channel sends it; the default one was framed once, for all its requests."""
        return self.prepared if message is self.payload.message else message


class Session:
    """A run of this generator. `share` is (this generator's number, how many there are): it splits --requests exactly.

    `on_exhausted` is called once when every target has had its measured requests and nothing is in flight.
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
        self.targets = targets
        self.issuing = True
        self.started_ns = time.monotonic_ns()
        self.ended_ns = 0
        self._on_exhausted = on_exhausted
        self._deadline_s = options.deadline_ns / 1e9
        self.watch = Watch()
        self.vitals = Vitals()
        self._share = share
        self._sources = share[0] - share[1]
        self._sounding: set[int] = set()
        self._sounding_at_begin: set[int] | None = None
        self._pacer: Pacer | None = None
        self._next_user = share[0]
        self._next_request = share[0]
        self._random = random.Random(share[0])
        self.routes = [self._route(target) for target in targets]
        self.recorder = Recorder({route.lane.series: route.lane for route in self.routes})
        if options.requests is not None:
            for route in self.routes:
                route.lane.budget = (options.requests + share[1] - 1 - share[0]) // share[1]
        self._folder = gevent.spawn(self._fold)

    def _route(self, target: Target) -> Route:
        options = self.options
        if options.input_file is not None:
            tensors = file_tensors(options.input_file, target.inputs)
        else:
            tensors = random_tensors(target.inputs, options.input_shapes)
        payload = encode(target.series.model, target.version, tensors)
        kind: type[Transport] = Channel if options.transport == "wire" else GrpcioChannel
        channel = kind(target.address, method=INFER_METHOD)
        return Route(target, Lane(target.series), channel, payload, channel.prepare(payload.message))

    # -- the load path ------------------------------------------------------------------------------------------------

    def pin(self) -> Route:
        """The route of a new user: each in turn."""
        route = self.routes[self._next_user % len(self.routes)]
        self._next_user += 1
        return route

    def choose(self, pinned: Route) -> Route | None:
        """The route of the next request by --router; None where nothing may be sent any more."""
        router = self.options.router
        if router == "pinned":
            return pinned if pinned.lane.budget != 0 else None
        open_routes = [route for route in self.routes if route.lane.budget != 0]
        if not open_routes:
            return None
        if router == "random":
            return self._random.choice(open_routes)
        self._next_request += 1
        turned = self._next_request % len(open_routes)
        if router == "round-robin":
            return open_routes[turned]
        # Ties go round, so that idle targets share alike.
        return min(open_routes[turned:] + open_routes[:turned], key=lambda route: route.lane.outstanding)

    def call(self, route: Route, message: bytes) -> Reply:
        """One request of a closed loop: due when it is sent. Blocks this greenlet, and records whatever comes."""
        lane = route.lane
        due = time.monotonic_ns()
        self._claim(lane, due)
        lane.outstanding += 1
        self.watch.sent(due)
        code = CANCELLED
        try:
            reply = route.channel.call(route.frame(message), self._deadline_s)
            code = reply.code
        finally:
            ended = time.monotonic_ns()
            lane.outstanding -= 1
            self.watch.ended(ended)
            lane.record(Result(due, due, ended, code))
            if lane.budget == 0:
                self._see_whether_exhausted()
        return reply

    def source(self, route: Route, messages: Iterator[bytes]) -> int:
        """A new source of open arrivals by --arrivals, from now on. Returns its number, for `silence`."""
        options = self.options
        self._sources += self._share[1]
        offsets = (
            constant(options.user_rate, self._sources)
            if options.arrivals == "constant"
            else poisson(options.user_rate, (options.seed, self._sources))
        )
        if self._pacer is None:
            self._pacer = Pacer()
        number = self._pacer.add(time.monotonic_ns(), offsets, lambda due: self._fire(route, messages, due))
        self._sounding.add(number)
        return number

    def silence(self, number: int) -> None:
        """The source sends no more."""
        if self._pacer is not None:
            self._pacer.remove(number)
            self._sounding.discard(number)

    def _fire(self, pinned: Route, messages: Iterator[bytes], due: int) -> None:
        """One request of an open loop, sent without waiting for those before it."""
        route = self.choose(pinned)
        message = next(messages, None)
        if route is None or message is None:
            return
        lane = route.lane
        self._claim(lane, due)
        sent = time.monotonic_ns()
        self.watch.arrival(due, sent)
        if not self.issuing or self.watch.in_flight >= self.options.max_in_flight:
            lane.record(Result(due, sent, sent, UNSENT))
            return
        lane.outstanding += 1
        self.watch.sent(sent)

        def done(reply: Reply) -> None:
            ended = time.monotonic_ns()
            lane.outstanding -= 1
            self.watch.ended(ended)
            lane.record(Result(due, sent, ended, reply.code))
            if lane.budget == 0:
                self._see_whether_exhausted()

        route.channel.start(route.frame(message), self._deadline_s, done)

    def _claim(self, lane: Lane, due: int) -> None:
        if lane.first_due is None:
            lane.first_due = due
        elif lane.budget is not None and due >= self.recorder.measuring_from:
            lane.budget -= 1

    def _see_whether_exhausted(self) -> None:
        if self._on_exhausted and all(r.lane.budget == 0 and not r.lane.outstanding for r in self.routes):
            report, self._on_exhausted = self._on_exhausted, None
            report()

    # -- its course ---------------------------------------------------------------------------------------------------

    def _fold(self) -> None:
        timer = Timer()
        due = time.monotonic_ns()
        try:
            while True:
                due += FOLD_EVERY_NS
                timer.arm(due)
                timer.wait()
                now = time.monotonic_ns()
                if not self.watch.begun and now >= self.recorder.measuring_from:
                    self._sounding_at_begin = set(self._sounding)
                    self.watch.begin()
                self.watch.fold(self.recorder.fold(), now - due)
                # After a stall the next fold is counted from now: one late fold is one stall.
                due = max(due, now - FOLD_EVERY_NS)
        finally:
            timer.close()

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
        steady = self._sounding_at_begin == self._sounding
        if self._pacer is not None:
            pacer, self._pacer = self._pacer, None
            pacer.close()
        limit = time.monotonic() + self._deadline_s + DRAIN_GRACE_S
        while self.watch.in_flight and time.monotonic() < limit:
            gevent.sleep(0.002)
        if not self.ended_ns:
            self.ended_ns = time.monotonic_ns()
            rates = [self.options.user_rate] * len(self._sounding) if steady else []
            self.vitals = self.watch.finish(rates)

    def close(self) -> None:
        """Ends the folding and the connections. Call after `drain` and after the users are gone."""
        self._folder.kill()
        for route in self.routes:
            route.channel.close()

    @property
    def request_shapes(self) -> dict[str, str]:
        """What a report must say of the load: names, types and shapes of the request's tensors, per model."""
        return {route.target.series.model: route.payload.shapes for route in self.routes}
