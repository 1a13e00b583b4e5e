"""The master's clock on a generator, by Cristian's algorithm: of a few exchanges, the one with the shortest round trip.

Source: F. Cristian, "Probabilistic clock synchronization", Distributed Computing 3, 1989.
"""

from __future__ import annotations

import time
from typing import Any

import gevent
from gevent.event import Event

from loadgen._errors import SendError
from loadgen.distributed._links import GeneratorLink, MasterLink

PING = "inferload_ping"
PONG = "inferload_pong"
EXCHANGES = 8
PAUSE_S = 0.02
#: How long one exchange may take. A longer round trip would say little about the clocks.
PONG_TIMEOUT_S = 1.0


def answer_pings(link: MasterLink) -> None:
    """Makes a master answer each ping with the reading of its monotonic clock."""

    def answer(client: str, data: Any) -> None:
        if isinstance(data, int):
            link.send(PONG, [data, time.monotonic_ns()], client)

    link.receive(PING, answer)


class ClockSync:
    """A generator's estimate of the master's monotonic clock.

    Attributes:
        offset_ns: the master's clock minus this process's, accurate to half of `round_trip_ns`; None before an answer.
        round_trip_ns: of the exchange that `offset_ns` comes from.
    """

    def __init__(self, link: GeneratorLink) -> None:
        self.offset_ns: int | None = None
        self.round_trip_ns: int | None = None
        self._link = link
        self._pong = Event()
        self._discard_estimate = True
        link.receive(PONG, self._on_pong)

    def measure(self) -> None:
        """Exchanges a few messages with the master; blocks this greenlet. The first answer replaces the estimate so
        far, each further one does if its round trip is shorter."""
        self._discard_estimate = True
        for _ in range(EXCHANGES):
            self._pong.clear()
            try:
                self._link.send(PING, time.monotonic_ns())
            except SendError:
                return
            self._pong.wait(PONG_TIMEOUT_S)
            gevent.sleep(PAUSE_S)

    def local_ns(self, master_ns: int) -> int | None:
        """Returns the reading of this process's clock when the master's reads `master_ns`; None before an answer."""
        return None if self.offset_ns is None else master_ns - self.offset_ns

    def _on_pong(self, data: Any) -> None:
        received_ns = time.monotonic_ns()
        sent_ns, master_ns = data
        round_trip_ns = received_ns - sent_ns
        if self._discard_estimate or self.round_trip_ns is None or round_trip_ns < self.round_trip_ns:
            self._discard_estimate = False
            self.round_trip_ns = round_trip_ns
            self.offset_ns = master_ns - (sent_ns + received_ns) // 2
        self._pong.set()
