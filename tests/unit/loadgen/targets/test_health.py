"""Failed requests raise a suspicion, a health check decides, and a target that comes back gets a growing share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import gevent
import pytest

from capacity.measures import HardwareCombination, Series
from loadgen.measure import ResultBuffer
from loadgen.targets._health import (
    LEAST_SHARE,
    RAMP_S,
    SILENCE_LIMIT_S,
    SUSPICIOUS_REFUSALS,
    HealthChecker,
    health_error,
)
from loadgen.transport import DEADLINE_EXCEEDED, OK, UNAVAILABLE, ConnectionLost, NotConnected, Reply
from worker.wire import StatusCode

SERIES = Series(HardwareCombination("host", "cpu-1c"), "m", "cpu:0 @ a:1", False)


@dataclass
class Setup:
    """A target at the seam: stands for its transport, its health check, and the clock."""

    now_ns: int = 10**12
    error: str = ""
    connected: bool = True
    checks: int = 0
    renewed: int = 0
    changes: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.results = ResultBuffer(SERIES)
        self.health = HealthChecker(
            self.results, self, self.check, lambda: self.changes.append(self.health.up), clock=lambda: self.now_ns
        )

    def check(self, timeout_s: float) -> str:
        self.checks += 1
        return self.error

    def renew(self, timeout_s: float) -> None:
        self.renewed += 1

    def answer(self) -> None:
        self.results.record(self.now_ns, self.now_ns, self.now_ns, OK)

    def observe(self, seconds: float, late_s: float = 0.0) -> None:
        self.now_ns += round(seconds * 1e9)
        self.health.observe(late_s)
        settle()


def settle() -> None:
    """Lets greenlets that are ready run."""
    gevent.sleep(0)
    gevent.sleep(0)


def until(condition: Callable[[], bool]) -> None:
    with gevent.Timeout(10):
        while not condition():
            gevent.sleep(0.01)


@pytest.fixture
def setup() -> Iterator[Setup]:
    setup = Setup()
    yield setup
    setup.health.close()


def test_a_lost_connection_is_suspicious_at_once_and_the_check_decides(setup: Setup) -> None:
    setup.health.report_failure(ConnectionLost(UNAVAILABLE, "reset"))
    settle()
    assert (setup.checks, setup.health.up, setup.renewed) == (1, True, 1)

    setup.observe(1)
    setup.error = "cannot connect: Connection refused"
    setup.health.report_failure(NotConnected(UNAVAILABLE, setup.error))
    settle()
    assert setup.health.up is False
    assert [change.up for change in setup.health.events] == [False]
    assert setup.health.events[0].reason == setup.error


def test_refusals_are_suspicious_only_in_a_row(setup: Setup) -> None:
    setup.error = "its health service reports that it does not serve"
    setup.observe(1)
    for _ in range(5 * SUSPICIOUS_REFUSALS):
        setup.health.report_failure(Reply(UNAVAILABLE, "the queue is full"))
        setup.answer()
    settle()
    assert setup.checks == 0

    for _ in range(SUSPICIOUS_REFUSALS):
        setup.health.report_failure(Reply(UNAVAILABLE, "the worker is ending"))
    settle()
    assert setup.health.up is False


def test_a_target_that_refuses_because_it_is_full_stays_up_and_is_checked_less_and_less_often(setup: Setup) -> None:
    checks = []
    for _ in range(200):
        setup.observe(0.05)
        for _ in range(SUSPICIOUS_REFUSALS):
            setup.health.report_failure(Reply(UNAVAILABLE, "the queue is full"))
        settle()
        checks.append(setup.checks)
    assert setup.health.up is True
    first, second = checks[99], checks[199] - checks[99]
    assert first > second
    assert setup.health.events == []


def test_requests_without_a_reply_are_suspicious_and_a_slow_target_gets_more_time(setup: Setup) -> None:
    setup.observe(0.05)
    setup.results.outstanding = 1
    setup.observe(SILENCE_LIMIT_S)
    assert setup.checks == 0
    setup.observe(0.05)
    assert (setup.checks, setup.health.up) == (1, True)
    setup.observe(SILENCE_LIMIT_S)
    assert setup.checks == 1

    setup.error = "no answer to a health check"
    setup.observe(SILENCE_LIMIT_S)
    assert setup.health.up is False


def test_a_generator_that_stood_still_does_not_blame_its_targets(setup: Setup) -> None:
    setup.results.outstanding = 1
    setup.observe(0.05)
    setup.observe(3.0, late_s=2.95)
    assert setup.checks == 0


def test_deadlines_in_a_row_are_suspicious_too(setup: Setup) -> None:
    setup.observe(1)
    setup.error = "no answer to a health check"
    for _ in range(SUSPICIOUS_REFUSALS):
        setup.health.report_failure(Reply(DEADLINE_EXCEEDED, "the deadline is over"))
    settle()
    assert setup.health.up is False


def test_a_connection_that_is_lost_with_nothing_in_flight_is_suspicious(setup: Setup) -> None:
    setup.error = "cannot connect: Connection refused"
    setup.observe(0.05)
    setup.connected = False
    setup.observe(0.2)
    assert setup.health.up is False


def test_a_target_that_comes_back_gets_a_growing_share(setup: Setup) -> None:
    setup.error = "down"
    setup.health.report_failure(ConnectionLost(UNAVAILABLE, "reset"))
    settle()
    assert not setup.health.accepts(0.0)
    setup.error = ""
    until(lambda: setup.health.up)

    assert setup.renewed == 1
    assert setup.health.accepts(LEAST_SHARE / 2)
    assert not setup.health.accepts(LEAST_SHARE * 2)
    setup.observe(RAMP_S / 2)
    assert setup.health.accepts(0.49)
    assert not setup.health.accepts(0.51)
    setup.observe(RAMP_S / 2)
    assert setup.health.accepts(0.999)
    assert setup.health.ramping is False
    assert [change.up for change in setup.health.events] == [False, True]


@pytest.mark.parametrize(
    ("reply", "up"),
    [
        (Reply(OK, "", b"\x08\x01"), True),
        (Reply(OK, "", b"\x08\x02"), False),
        (Reply(StatusCode.UNIMPLEMENTED, "no health service"), True),
        (Reply(StatusCode.NOT_FOUND, ""), True),
        (Reply(DEADLINE_EXCEEDED, ""), False),
        (NotConnected(UNAVAILABLE, "cannot connect"), False),
    ],
)
def test_the_reply_to_a_health_check_says_whether_the_target_is_up(reply: Reply, up: bool) -> None:
    assert (health_error(reply) == "") is up
