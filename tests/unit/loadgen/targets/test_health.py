"""A target is suspected by what its requests say, judged by a health check, and taken back little by little."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import gevent
import pytest

from capacity.measures import HardwareCombination, Series
from loadgen.measure import ResultBuffer
from loadgen.targets._health import LEAST_SHARE, PATIENCE_S, RAMP_S, REFUSALS, HealthChecker, health_error
from loadgen.transport._reply import (
    DEADLINE_EXCEEDED,
    NOT_FOUND,
    OK,
    UNAVAILABLE,
    UNIMPLEMENTED,
    Lost,
    Reply,
    Unsettled,
)

SERIES = Series(HardwareCombination("host", "cpu-1c"), "m", "cpu:0 @ a:1", False)


@dataclass
class Bed:
    """A target at the seam: stands for its transport, its health check, and the clock."""

    now_ns: int = 10**12
    wrong: str = ""
    connected: bool = True
    checks: int = 0
    renewed: int = 0
    changes: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.results = ResultBuffer(SERIES)
        self.health = HealthChecker(
            self.results, self, self.check, lambda health: self.changes.append(health.up), clock=lambda: self.now_ns
        )

    def check(self, timeout_s: float) -> str:
        self.checks += 1
        return self.wrong

    def renew(self, timeout_s: float) -> None:
        self.renewed += 1

    def answered(self) -> None:
        self.results.record(self.now_ns, self.now_ns, self.now_ns, OK)

    def look(self, seconds: float, late_s: float = 0.0) -> None:
        self.now_ns += round(seconds * 1e9)
        self.health.look(late_s)
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
def bed() -> Iterator[Bed]:
    made = Bed()
    yield made
    made.health.close()


def test_a_lost_connection_is_looked_into_at_once_and_the_check_decides(bed: Bed) -> None:
    bed.health.failed(Lost(UNAVAILABLE, "reset"))
    settle()
    assert (bed.checks, bed.health.up, bed.renewed) == (1, True, 1)

    bed.look(1)
    bed.wrong = "cannot connect: Connection refused"
    bed.health.failed(Unsettled(UNAVAILABLE, bed.wrong))
    settle()
    assert bed.health.up is False
    assert [change.up for change in bed.health.events] == [False]
    assert bed.health.events[0].why == bed.wrong


def test_refusals_count_only_in_a_row(bed: Bed) -> None:
    bed.wrong = "a health check says that it does not serve"
    bed.look(1)
    for _ in range(5 * REFUSALS):
        bed.health.failed(Reply(UNAVAILABLE, "the queue is full"))
        bed.answered()
    settle()
    assert bed.checks == 0

    for _ in range(REFUSALS):
        bed.health.failed(Reply(UNAVAILABLE, "the worker is ending"))
    settle()
    assert bed.health.up is False


def test_a_target_that_refuses_because_it_is_full_stays_and_is_asked_ever_more_seldom(bed: Bed) -> None:
    asked = []
    for _ in range(200):
        bed.look(0.05)
        for _ in range(REFUSALS):
            bed.health.failed(Reply(UNAVAILABLE, "the queue is full"))
        settle()
        asked.append(bed.checks)
    assert bed.health.up is True
    first, second = asked[99], asked[199] - asked[99]
    assert first > second
    assert bed.health.events == []


def test_requests_that_wait_in_vain_are_suspicious_and_a_slow_target_gets_more_time(bed: Bed) -> None:
    bed.look(0.05)
    bed.results.outstanding = 1
    bed.look(PATIENCE_S)
    assert bed.checks == 0
    bed.look(0.05)
    assert (bed.checks, bed.health.up) == (1, True)
    bed.look(PATIENCE_S)
    assert bed.checks == 1

    bed.wrong = "no answer to a health check"
    bed.look(PATIENCE_S)
    assert bed.health.up is False


def test_a_generator_that_stood_still_does_not_blame_its_targets(bed: Bed) -> None:
    bed.results.outstanding = 1
    bed.look(0.05)
    bed.look(3.0, late_s=2.95)
    assert bed.checks == 0


def test_deadlines_in_a_row_are_suspicious_too(bed: Bed) -> None:
    bed.look(1)
    bed.wrong = "no answer to a health check"
    for _ in range(REFUSALS):
        bed.health.failed(Reply(DEADLINE_EXCEEDED, "the deadline is over"))
    settle()
    assert bed.health.up is False


def test_a_connection_that_goes_with_nothing_in_flight_is_noticed(bed: Bed) -> None:
    bed.wrong = "cannot connect: Connection refused"
    bed.look(0.05)
    bed.connected = False
    bed.look(0.2)
    assert bed.health.up is False


def test_one_that_comes_back_gets_its_share_little_by_little(bed: Bed) -> None:
    bed.wrong = "down"
    bed.health.failed(Lost(UNAVAILABLE, "reset"))
    settle()
    assert not bed.health.takes(0.0)
    bed.wrong = ""
    until(lambda: bed.health.up)

    assert bed.renewed == 1
    assert bed.health.takes(LEAST_SHARE / 2)
    assert not bed.health.takes(LEAST_SHARE * 2)
    bed.look(RAMP_S / 2)
    assert bed.health.takes(0.49)
    assert not bed.health.takes(0.51)
    bed.look(RAMP_S / 2)
    assert bed.health.takes(0.999)
    assert bed.health.ramping is False
    assert [change.up for change in bed.health.events] == [False, True]


@pytest.mark.parametrize(
    ("reply", "well"),
    [
        (Reply(OK, "", b"\x08\x01"), True),
        (Reply(OK, "", b"\x08\x02"), False),
        (Reply(UNIMPLEMENTED, "no health service"), True),
        (Reply(NOT_FOUND, ""), True),
        (Reply(DEADLINE_EXCEEDED, ""), False),
        (Unsettled(UNAVAILABLE, "cannot connect"), False),
    ],
)
def test_what_a_health_check_says(reply: Reply, well: bool) -> None:
    assert (health_error(reply) == "") is well
