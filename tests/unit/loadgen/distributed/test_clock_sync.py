"""A generator's estimate of the master's clock: right to half of the round trip, and the shortest round trip counts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from loadgen._errors import SendError
from loadgen.distributed._clock_sync import PING, PONG, ClockSync, answer_pings

OFFSET_NS = 5_000_000_000


class Master:
    """Stands for both links: what a generator sends reaches the master at once, after `delays_s` on the way back."""

    client_id = "generator"

    def __init__(self, delays_s: list[float]) -> None:
        self.handlers: dict[str, Callable[[Any], None]] = {}
        self.delays_s = iter(delays_s)

    def receive(self, message: str, handler: Callable[[Any], None], *, concurrent: bool = False) -> None:
        self.handlers[message] = handler

    def send(self, message: str, data: Any) -> None:
        assert message == PING
        delay_s = next(self.delays_s, None)
        if delay_s is None:
            raise SendError("no connection")
        master_ns = time.monotonic_ns() + OFFSET_NS
        time.sleep(delay_s)
        self.handlers[PONG]([data, master_ns])

    def plan(self) -> None:
        return None


def test_the_exchange_with_the_shortest_round_trip_counts() -> None:
    clock = ClockSync(Master([0.3, 0.0, 0.3]))
    assert clock.local_ns(OFFSET_NS) is None

    clock.measure()

    assert clock.offset_ns is not None
    assert clock.round_trip_ns is not None
    assert clock.round_trip_ns < 300_000_000
    assert abs(clock.offset_ns - OFFSET_NS) <= clock.round_trip_ns / 2 + 1
    assert clock.local_ns(OFFSET_NS) == OFFSET_NS - clock.offset_ns


def test_a_new_measurement_replaces_the_estimate_before_it() -> None:
    clock = ClockSync(Master([0.0, 0.3]))
    clock.measure()
    first_ns = clock.round_trip_ns
    clock._link = Master([0.3])
    clock._link.receive(PONG, clock._on_pong)

    clock.measure()

    assert first_ns is not None
    assert clock.round_trip_ns is not None
    assert clock.round_trip_ns > first_ns


class Generators:
    """Stands for the master's link: keeps handlers, and what was sent."""

    def __init__(self) -> None:
        self.handlers: dict[str, Callable[[str, Any], None]] = {}
        self.messages: list[tuple[str, Any, str | None]] = []

    def receive(self, message: str, handler: Callable[[str, Any], None]) -> None:
        self.handlers[message] = handler

    def send(self, message: str, data: Any, client: str | None = None) -> None:
        self.messages.append((message, data, client))

    def clients(self) -> dict[str, bool]:
        return {}

    def publish_plan(self, plan: Any) -> None:
        raise NotImplementedError


def test_a_master_answers_a_ping_to_its_sender_and_ignores_anything_else() -> None:
    link = Generators()
    answer_pings(link)

    link.handlers[PING]("host_1", 7)
    link.handlers[PING]("host_1", "seven")

    ((message, (sent, master_ns), client),) = link.messages
    assert (message, sent, client) == (PONG, 7, "host_1")
    assert master_ns <= time.monotonic_ns()
