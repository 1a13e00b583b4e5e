"""One request touches the counters of its target exactly once, whatever becomes of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from capacity.measures import HardwareCombination, Series
from loadgen.generator._request import RequestContext
from loadgen.generator._retry import RetryPolicy
from loadgen.generator._sender import RequestSender
from loadgen.measure import Recorder, ResultBuffer
from loadgen.transport import CANCELLED, OK, UNAVAILABLE, Reply

REFUSED, ANSWERED = Reply(UNAVAILABLE, "full"), Reply(OK, "", b"1")


class FakeRoute:
    """Stands for a route whose channel returns the given replies, one after another."""

    def __init__(self, name: str, replies: list[Reply]) -> None:
        self.results = ResultBuffer(Series(HardwareCombination("host", "cpu-1c"), "m", f"cpu:0 @ {name}", False))
        self.channel = self
        self.health = self
        self.payload = self
        self.message = f"default of {name}".encode()
        self.sent: list[bytes] = []
        self.outstanding_seen: list[int] = []
        self.latency_s = 0.0
        self._replies = list(replies)

    def frame(self, message: bytes) -> bytes:
        return message

    def reply_code(self, message: bytes, reply: Reply) -> int:
        return reply.code

    def report_failure(self, reply: Reply) -> None:
        pass

    def _next(self, payload: bytes) -> Reply:
        self.sent.append(payload)
        self.outstanding_seen.append(self.results.outstanding)
        return self._replies.pop(0)

    def call(self, payload: bytes, timeout_s: float | None = None) -> Reply:
        reply = self._next(payload)
        gevent.sleep(self.latency_s)
        return reply

    def start(self, payload: bytes, timeout_s: float | None, done: Callable[[Reply], None]) -> None:
        gevent.spawn(done, self._next(payload))


class FakeRouter:
    """Stands for a router that sends every retry to the same route."""

    def __init__(self, retry_route: FakeRoute | None = None) -> None:
        self._retry_route = retry_route

    def choose_again(self, route: Any, candidates: Any) -> Any:
        return self._retry_route


class Bed:
    """A sender over fake routes; all requests are measured."""

    def __init__(self, *routes: FakeRoute, retries: int = 0, retry_route: FakeRoute | None = None) -> None:
        self.last_results = 0
        self.routes = routes
        recorder = Recorder({route.results.series: route.results for route in routes})
        recorder.measuring_from = 0
        router: Any = FakeRouter(retry_route)
        self.context = RequestContext(
            router=router,
            recorder=recorder,
            retry_policy=RetryPolicy(retries, lambda low, high: 0.001),
            deadline_s=5.0,
            max_in_flight=2,
            on_last_result=self._count_last_result,
        )
        self.sender = RequestSender(self.context)
        for route in routes:
            # The first request of all counts as warm-up.
            route.results.first_due = -1

    def _count_last_result(self) -> None:
        self.last_results += 1

    def call(self, route: Any) -> int:
        return self.sender.call(route, route.message)

    def fire(self, route: Any) -> None:
        self.sender.fire((route, route.message), time.monotonic_ns(), None)

    def wait(self) -> None:
        while self.context.monitor.in_flight:
            gevent.sleep(0.001)

    def counts(self, route: FakeRoute) -> tuple[int, int, int, int, int]:
        """Of a route: due, answered, failed, unsent and retries; nothing is in flight any more."""
        assert route.results.outstanding == 0
        assert self.context.monitor.in_flight == 0
        offered = route.results.offered
        interval = self.context.recorder.flip()[route.results.series]
        assert interval.due == offered == interval.requests + interval.unsent
        return interval.due, interval.answered, interval.failed, interval.unsent, interval.retries


@pytest.mark.parametrize("how", ["call", "fire"])
@pytest.mark.parametrize(
    ("replies", "retries", "counts"),
    [
        ([ANSWERED], 0, (1, 1, 0, 0, 0)),
        ([REFUSED], 0, (1, 0, 1, 0, 0)),
        ([REFUSED, ANSWERED], 1, (1, 1, 0, 0, 1)),
        ([REFUSED, REFUSED, REFUSED], 2, (1, 0, 1, 0, 2)),
    ],
)
def test_a_request_is_due_once_and_ends_once(
    how: str, replies: list[Reply], retries: int, counts: tuple[int, ...]
) -> None:
    route = FakeRoute("a:1", replies)
    bed = Bed(route, retries=retries)
    getattr(bed, how)(route)
    bed.wait()
    assert route.outstanding_seen == [1] * len(replies)
    assert bed.counts(route) == counts


@pytest.mark.parametrize("how", ["call", "fire"])
def test_a_retry_moves_the_request_and_its_counts_to_another_route(how: str) -> None:
    first, second = FakeRoute("a:1", [REFUSED]), FakeRoute("b:1", [ANSWERED])
    bed = Bed(first, second, retries=1, retry_route=second)
    first.results.budget = second.results.budget = 5
    getattr(bed, how)(first)
    bed.wait()
    assert second.sent == [second.message], "the default message is the route's own"
    assert (first.results.budget, second.results.budget) == (5, 4)
    interval = bed.context.recorder.flip()
    assert [(tally.due, tally.answered, tally.retries) for tally in interval.values()] == [(0, 0, 0), (1, 1, 1)]
    assert first.results.outstanding == second.results.outstanding == bed.context.monitor.in_flight == 0


def test_requests_beyond_the_limit_in_flight_or_after_the_end_are_unsent() -> None:
    route = FakeRoute("a:1", [ANSWERED] * 2)
    bed = Bed(route)
    for _ in range(3):
        bed.fire(route)
    bed.wait()
    bed.context.issuing = False
    bed.fire(route)
    assert bed.counts(route) == (4, 2, 0, 2, 0)


def test_no_retry_follows_the_end_of_the_run() -> None:
    route = FakeRoute("a:1", [REFUSED])
    bed = Bed(route, retries=3)
    bed.fire(route)
    bed.context.issuing = False
    bed.wait()
    assert bed.counts(route) == (1, 0, 1, 0, 0)


def test_a_killed_user_leaves_a_cancelled_request() -> None:
    route = FakeRoute("a:1", [ANSWERED])
    route.latency_s = 60.0
    bed = Bed(route)
    user = gevent.spawn(bed.call, route)
    gevent.sleep(0)
    user.kill()
    (result,) = route.results.take_results()[1]
    assert result.code == CANCELLED
    assert route.results.outstanding == bed.context.monitor.in_flight == 0


@pytest.mark.parametrize("how", ["call", "fire"])
def test_the_last_result_of_a_budget_is_reported(how: str) -> None:
    route = FakeRoute("a:1", [ANSWERED] * 3)
    bed = Bed(route)
    route.results.budget = 2
    for _ in range(2):
        getattr(bed, how)(route)
        bed.wait()
    assert route.results.budget == 0
    assert bed.last_results == 1


def test_the_very_first_request_is_not_offered() -> None:
    route = FakeRoute("a:1", [ANSWERED] * 2)
    bed = Bed(route)
    route.results.first_due = None
    bed.call(route)
    assert route.results.first_due is not None
    assert route.results.offered == 0
    bed.call(route)
    assert route.results.offered == 1
