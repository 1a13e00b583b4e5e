"""One request in flight: from the moment when it is due to its result, retries included."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import gevent

from loadgen.generator._retry import RetryPolicy
from loadgen.measure import HealthMonitor, Recorder, ResultBuffer
from loadgen.targets import Route, Router
from loadgen.transport import CANCELLED, OK, UNSENT, Reply


class RequestContext:
    """What all requests of one session share.

    - `issuing`: False once the run ends: requests that are due become unsent, and none is retried;
    - `monitor`: replaced at the beginning of each probe;
    - `ends_with_sources`: True once the sources have no more requests, so that the last result ends the load;
    - `on_last_result`: called after a result where that may have been the last one of the run.
    """

    __slots__ = (
        "deadline_s",
        "ends_with_sources",
        "issuing",
        "max_in_flight",
        "monitor",
        "on_last_result",
        "recorder",
        "retry_policy",
        "router",
    )

    def __init__(
        self,
        *,
        router: Router,
        recorder: Recorder,
        retry_policy: RetryPolicy,
        deadline_s: float,
        max_in_flight: int,
        on_last_result: Callable[[], None],
    ) -> None:
        self.router = router
        self.recorder = recorder
        self.retry_policy = retry_policy
        self.deadline_s = deadline_s
        self.max_in_flight = max_in_flight
        self.on_last_result = on_last_result
        self.monitor = HealthMonitor()
        self.issuing = True
        self.ends_with_sources = False


class InFlightRequest:
    """A request that is due. It is one request whatever the number of retries: due once, ended once, and its latency
    counts from its due time.

    Nothing else changes the counters `outstanding`, `offered`, `budget` and `first_due` of a ResultBuffer, and the
    number in flight of the HealthMonitor. After the constructor, `call` or `start` is to be called, once; they set the
    attributes, since a constructor with arguments would cost 0.2 µs.

    `due` is in ns. `deadline_s` counts from the first sending; None is the session's. `candidates` are the routes that
    a retry may take; None is every route of the same model.
    """

    __slots__ = ("_candidates", "_context", "_deadline_s", "_due", "_message", "_retries", "_route", "_sent")

    _candidates: Sequence[Route] | None
    _context: RequestContext
    _deadline_s: float
    _due: int
    _message: bytes
    _retries: int
    _route: Route
    _sent: int

    # -- closed loop ------------------------------------------------------------------------------------------------

    def call(
        self,
        context: RequestContext,
        route: Route,
        message: bytes,
        deadline_s: float | None,
        candidates: Sequence[Route] | None,
    ) -> int:
        """Sends the request, which is due now, and blocks this greenlet until it ended. Returns its code."""
        self._context = context
        self._route = route
        self._message = message
        self._due = self._sent = due = time.monotonic_ns()
        self._deadline_s = deadline_s = deadline_s or context.deadline_s
        self._candidates = candidates
        self._retries = 0
        self._count_due(route.results)
        self._start_flight(due)
        code = CANCELLED
        try:
            reply = route.channel.call(route.frame(message), deadline_s)
            code = route.reply_code(message, reply)
            while code != OK and self._wait_for_retry(reply):
                # What the code is if this greenlet is killed meanwhile.
                code = CANCELLED
                route = self._route
                reply = route.channel.call(route.frame(self._message), self._left_s())
                code = route.reply_code(self._message, reply)
        finally:
            self._finish(time.monotonic_ns(), code)
        return code

    def _wait_for_retry(self, reply: Reply) -> bool:
        """Waits, and moves the request to its next route. Returns False where the request ends with this reply."""
        self._route.health.report_failure(reply)
        delay_s = self._retry_delay_s(reply)
        if delay_s is None:
            return False
        self._leave_target()
        try:
            gevent.sleep(delay_s)
        finally:
            self._return_to_target()
        return self._move_to_next_route()

    # -- open loop --------------------------------------------------------------------------------------------------

    def start(
        self,
        context: RequestContext,
        route: Route,
        message: bytes,
        due: int,
        deadline_s: float | None,
        candidates: Sequence[Route] | None,
    ) -> None:
        """Sends the request, which was due at `due` in ns, and returns at once.

        It is unsent instead where the run ends, or too many requests are in flight.
        """
        self._context = context
        self._route = route
        self._message = message
        self._due = due
        self._deadline_s = deadline_s = deadline_s or context.deadline_s
        self._candidates = candidates
        self._retries = 0
        self._count_due(route.results)
        self._sent = sent = time.monotonic_ns()
        monitor = context.monitor
        monitor.record_arrival(due, sent)
        if not context.issuing or monitor.in_flight >= context.max_in_flight:
            route.results.record(due, sent, sent, UNSENT)
            return
        self._start_flight(sent)
        route.channel.start(route.frame(message), deadline_s, self._handle_reply)

    def _handle_reply(self, reply: Reply) -> None:
        ended = time.monotonic_ns()
        route = self._route
        code = route.reply_code(self._message, reply)
        if code != OK:
            route.health.report_failure(reply)
            delay_s = self._retry_delay_s(reply)
            if delay_s is not None:
                self._leave_target()
                gevent.spawn_later(delay_s, self._retry, code)
                return
        self._finish(ended, code)

    def _retry(self, code: int) -> None:
        self._return_to_target()
        if not self._move_to_next_route():
            self._finish(time.monotonic_ns(), code)
            return
        route = self._route
        route.channel.start(route.frame(self._message), self._left_s(), self._handle_reply)

    # -- counters ---------------------------------------------------------------------------------------------------

    def _start_flight(self, now: int) -> None:
        self._route.results.outstanding += 1
        monitor = self._context.monitor
        monitor.in_flight_ns += monitor.in_flight * (now - monitor.changed_ns)
        monitor.in_flight += 1
        monitor.changed_ns = now

    def _count_due(self, results: ResultBuffer) -> None:
        if results.first_due is None:
            results.first_due = self._due
        elif self._due >= self._context.recorder.measuring_from:
            results.offered += 1
            if results.budget is not None:
                results.budget -= 1

    def _uncount_due(self, results: ResultBuffer) -> None:
        if results.first_due == self._due:
            results.first_due = None
        elif self._due >= self._context.recorder.measuring_from:
            results.offered -= 1
            if results.budget is not None:
                results.budget += 1

    def _leave_target(self) -> None:
        """Between two attempts the target has no request; the request itself is in flight all the time."""
        self._route.results.outstanding -= 1

    def _return_to_target(self) -> None:
        self._route.results.outstanding += 1

    def _move_to_next_route(self) -> bool:
        """Chooses the route of a retry and counts the request there. Returns False where it is too late for a retry."""
        context, old = self._context, self._route
        if not context.issuing or self._left_s() <= 0:
            return False
        new = context.router.choose_again(old, self._candidates) or old
        if self._message is old.payload.message:
            self._message = new.payload.message
        self._leave_target()
        if new is not old:
            self._uncount_due(old.results)
            self._count_due(new.results)
        self._route = new
        self._return_to_target()
        self._retries += 1
        new.results.record_retry(self._due)
        return True

    def _finish(self, ended: int, code: int) -> None:
        context, results = self._context, self._route.results
        results.outstanding -= 1
        monitor = context.monitor
        monitor.in_flight_ns += monitor.in_flight * (ended - monitor.changed_ns)
        monitor.in_flight -= 1
        monitor.changed_ns = ended
        results.record(self._due, self._sent, ended, code)
        if results.budget == 0 or context.ends_with_sources:
            context.on_last_result()

    def _retry_delay_s(self, reply: Reply) -> float | None:
        if not self._context.issuing:
            return None
        return self._context.retry_policy.delay_s(reply, self._retries, self._left_s())

    def _left_s(self) -> float:
        """What is left of the deadline in seconds."""
        return self._deadline_s - (time.monotonic_ns() - self._sent) / 1e9
