"""The master's clock as a generator knows it: a few exchanges, of which the one with the shortest way counts."""

from __future__ import annotations

import time
from typing import Any

import gevent
from gevent.event import Event
from locust.exception import RPCError

PING = "inferload_ping"
PONG = "inferload_pong"
EXCHANGES = 8
#: Between two exchanges, and how long one may take: on a way longer than this the start is agreed less well.
PAUSE_S = 0.02
ANSWER_S = 1.0


def answer_pings(runner: Any) -> None:
    """On the master: says what its clock reads to whoever asks."""

    def answer(environment: Any, msg: Any, **_: Any) -> None:
        if isinstance(msg.data, int):
            runner.send_message(PONG, [msg.data, time.monotonic_ns()], msg.node_id)

    runner.register_message(PING, answer)


class MastersClock:
    """On a generator, measured at each run's begin. `offset_ns` is the master's clock less this one's, right to half of
    `round_trip_ns`.
    """

    def __init__(self, runner: Any) -> None:
        self.offset_ns: int | None = None
        self.round_trip_ns: int | None = None
        self._runner = runner
        self._heard = Event()
        self._afresh = True
        runner.register_message(PONG, self._hear)

    def measure(self) -> None:
        """Asks the master a few times; blocks this greenlet. The first answer replaces what was known before."""
        self._afresh = True
        for _ in range(EXCHANGES):
            self._heard.clear()
            try:
                self._runner.send_message(PING, time.monotonic_ns())
            except RPCError:
                return
            self._heard.wait(ANSWER_S)
            gevent.sleep(PAUSE_S)

    def here(self, masters_ns: int) -> int | None:
        """When this process's clock reads what the master's does then; None where the master has not answered."""
        return None if self.offset_ns is None else masters_ns - self.offset_ns

    def _hear(self, environment: Any, msg: Any, **_: Any) -> None:
        now = time.monotonic_ns()
        asked, answered = msg.data
        round_trip = now - asked
        if self._afresh or self.round_trip_ns is None or round_trip < self.round_trip_ns:
            self._afresh = False
            self.round_trip_ns = round_trip
            self.offset_ns = answered - (asked + now) // 2
        self._heard.set()
