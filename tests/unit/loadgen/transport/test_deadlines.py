"""Deadlines of calls, on the event loop's own timer."""

from __future__ import annotations

import time

from gevent.event import Event

from loadgen.transport import Call, PreparedRequest, Reply
from loadgen.transport._deadlines import Deadlines

BOUND_S = 10.0
REQUEST = PreparedRequest(b"")


def call(after_s: float) -> Call:
    return Call(lambda reply: None, REQUEST, time.monotonic() + after_s)


class Expirations:
    """Takes calls whose deadline has passed; `complete` is set with the last one expected."""

    def __init__(self, expected: int) -> None:
        self.calls: list[Call] = []
        self.complete = Event()
        self._expected = expected

    def __call__(self, expired: Call) -> None:
        self.calls.append(expired)
        expired.end()
        if len(self.calls) == self._expected:
            self.complete.set()


def test_calls_expire_in_the_order_of_their_deadlines_and_those_that_ended_do_not() -> None:
    expirations = Expirations(2)
    deadlines = Deadlines(expirations)
    late, early, ended = call(0.03), call(0.01), call(0.02)
    for one in (late, early, ended):
        deadlines.watch(one)
    ended.end()
    assert expirations.complete.wait(BOUND_S)
    assert expirations.calls == [early, late]


def test_a_deadline_in_the_past_expires_at_the_next_turn() -> None:
    expirations = Expirations(1)
    Deadlines(expirations).watch(call(-1.0))
    assert expirations.calls == []
    assert expirations.complete.wait(BOUND_S)


def test_nothing_expires_once_stopped() -> None:
    expirations = Expirations(1)
    deadlines = Deadlines(expirations)
    deadlines.watch(call(0.0))
    deadlines.stop()
    other = Expirations(1)
    Deadlines(other).watch(call(0.01))
    assert other.complete.wait(BOUND_S)
    assert expirations.calls == []


def test_a_reply_may_start_the_next_call() -> None:
    expirations = Expirations(2)

    def expire(expired: Call) -> None:
        expirations(expired)
        if len(expirations.calls) == 1:
            deadlines.watch(call(0.0))

    deadlines = Deadlines(expire)
    deadlines.watch(call(0.0))
    assert expirations.complete.wait(BOUND_S)


def test_entries_of_ended_calls_do_not_accumulate() -> None:
    count = 5000
    deadlines = Deadlines(lambda expired: None)
    for _ in range(count):
        one = call(3600.0)
        deadlines.watch(one)
        one.end()
    assert len(deadlines._heap) < count / 2
    deadlines.stop()


def test_the_owner_ends_the_call() -> None:
    replies: list[Reply] = []
    expirations = Expirations(1)
    deadlines = Deadlines(expirations)
    deadlines.watch(Call(replies.append, REQUEST, time.monotonic()))
    assert expirations.complete.wait(BOUND_S)
    assert replies == []
